/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CGROUP_H
#define NEST_SANDBOX_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The cgroups of one host: in every hierarchy that this machine has (one on v2, one or more on v1,
 * both on a hybrid one) a directory nestlet-<instance> below the host's own cgroup, and in it one
 * directory a cell, named by its serial number. Reached by directory descriptors only, so that
 * they work for a process whose root holds no cgroup file system.
 */
enum nest_cgroup_controller {
	NEST_CGROUP_MEMORY,
	NEST_CGROUP_PIDS,
	NEST_CGROUP_CPU,
	NEST_CGROUP_CPUACCT,
	NEST_CGROUP_FREEZER,
	NEST_CGROUP_CONTROLLERS,
};

#define NEST_CGROUP_MAX_HIERARCHIES 6
#define NEST_CGROUP_LEAF \
	"host" /* below nestlet-<instance>: where v2 wants processes that are no cells' */

struct nest_cgroup_limits {
	uint64_t memory_bytes; /* swap included */
	uint32_t pids;
	uint32_t cpu_milli; /* 0: no limit */
};

/* 0 where no controller says. */
struct nest_cgroup_usage {
	uint64_t memory_bytes;
	uint64_t memory_peak_bytes;
	uint64_t
		private_bytes; /* anonymous and shared memory, and the kernel's for its processes */
	uint64_t shared_bytes; /* not of a controller's: see nest_descend_usage() */
	uint64_t cpu_us;
	uint64_t oom_kills;
	uint32_t pids;
};

struct nest_cgroup;

/*
 * What v1 and v2 do differently, on an open directory of a cell's cgroup. @controllers is a mask
 * (1u << enum nest_cgroup_controller) of those that the hierarchy carries.
 */
struct nest_cgroup_ops {
	/*
	 * Makes the controllers of the host's directory @base usable in cells' below @host, tells
	 * @cgroup why one isn't, and returns those that are.
	 */
	unsigned (*enable)(struct nest_cgroup *cgroup, int base, int host, unsigned controllers);
	/* Gives back what enabling has changed in @base, once the cells' are gone. */
	void (*disable)(int base, int host);
	/* Writes the limits of @controllers, which may have others. */
	int (*limit)(int dir, unsigned controllers, const struct nest_cgroup_limits *limits,
		struct nest_err *err);
	/* Sets the fields of @ret that the controllers know. */
	void (*usage)(int dir, unsigned controllers, struct nest_cgroup_usage *ret);
	/* Stops every process where it is, or lets them all go on. */
	int (*freeze)(int dir, bool frozen, struct nest_err *err);
	/* Sends SIGKILL to every process once, frozen ones too. 0, or -errno. */
	int (*kill)(int dir);
};

extern const struct nest_cgroup_ops nest_cgroup_v1_ops;
extern const struct nest_cgroup_ops nest_cgroup_v2_ops;

struct nest_cgroup_hierarchy {
	const struct nest_cgroup_ops *ops;
	unsigned controllers;
	int base; /* the host's own cgroup; -1 once removed */
	int dir;  /* nestlet-<instance> in it */
};

struct nest_cgroup {
	struct nest_cgroup_hierarchy hierarchies[NEST_CGROUP_MAX_HIERARCHIES];
	size_t n;
	unsigned controllers; /* of all hierarchies */
	char name[48];	      /* nestlet-<instance> */
	/* why a controller is not there; empty if it is */
	char why[NEST_CGROUP_CONTROLLERS][160];
};

/* The kernel's name of @controller: "memory". Any thread. */
const char *nest_cgroup_controller_name(enum nest_cgroup_controller controller);

/*
 * Finds the hierarchies, makes the instance's directory in each, and removes what a former life of
 * the instance left there, killing its processes first. A machine without any is no error: then
 * nothing is limited, and @ret->why says why. -EBUSY: another host of this name is alive. Blocks
 * for up to some seconds.
 */
int nest_cgroup_open(const char *instance, struct nest_cgroup *ret, struct nest_err *err);

/* Removes the instance's directories (cells' must be gone) and closes all. */
void nest_cgroup_close(struct nest_cgroup *cgroup);

/* Makes the cgroups of cell @serial, all or none. */
int nest_cgroup_create(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err);

/* Moves the calling process into the cgroups of cell @serial. */
int nest_cgroup_join(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err);

/* Sets the limits of cell @serial; those in which @set, which it has (NULL: none), is equal need no call. */
int nest_cgroup_limit(const struct nest_cgroup *cgroup, uint64_t serial,
	const struct nest_cgroup_limits *limits, const struct nest_cgroup_limits *set,
	struct nest_err *err);

/* Reads what cell @serial uses and used. */
void nest_cgroup_usage(
	const struct nest_cgroup *cgroup, uint64_t serial, struct nest_cgroup_usage *ret);

/*
 * Kills every process of cell @serial by the hierarchy that does it at one stroke. 1: there is
 * none (no v2 with cgroup.kill).
 */
int nest_cgroup_kill(const struct nest_cgroup *cgroup, uint64_t serial);

/*
 * Stops every process of cell @serial where it is, or lets them go on; the kernel does it soon
 * after. Of two hierarchies that can, v2's, whose frozen processes can be killed. 1: no hierarchy can.
 */
int nest_cgroup_freeze(
	const struct nest_cgroup *cgroup, uint64_t serial, bool frozen, struct nest_err *err);

/* Removes the cgroups of cell @serial. 1: a process is still in it, ask again. */
int nest_cgroup_remove(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err);

/*
 * The steps below nest_cgroup_open(), apart so that tests can run them on a tree of their own:
 * adds the hierarchy whose cgroup of ours is @base, which is taken.
 */
int nest_cgroup_add(struct nest_cgroup *cgroup, const struct nest_cgroup_ops *ops,
	unsigned controllers, int base, struct nest_err *err);

/* Notes @why none of @controllers (a mask) is there. */
void nest_cgroup_explain(struct nest_cgroup *cgroup, unsigned controllers, const char *why);

/*
 * v2 wants processes in leaves only: those of the host's own cgroup @base (ours, and whatever
 * shares the pod with us) move to a leaf of @host. A cgroup without limits changes nothing for them.
 */
int nest_cgroup_v2_vacate(int base, int host);

/* Kills and removes every cell's cgroup in hierarchy @h. Blocks for up to some seconds. */
int nest_cgroup_sweep(const struct nest_cgroup_hierarchy *h, struct nest_err *err);

#endif
