/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_FOOTING_H
#define NEST_SANDBOX_FOOTING_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/message.h"

struct nest_cgroup;

/* What this machine and our privilege let a cell be made of. */
enum nest_footing_bit {
	NEST_FOOTING_MOUNT = 1u << 0, /* a mount namespace, so a root file system of the cell's */
	NEST_FOOTING_PID = 1u << 1,
	NEST_FOOTING_IPC = 1u << 2,
	NEST_FOOTING_UTS = 1u << 3,
	NEST_FOOTING_NET = 1u << 4,
	NEST_FOOTING_IDS = 1u << 5,    /* another uid and gid for each function */
	NEST_FOOTING_CGROUP = 1u << 6, /* at least one hierarchy to put cells into */
	NEST_FOOTING_SECCOMP = 1u << 7,
	NEST_FOOTING_FREEZER = 1u << 8, /* a running cell can be stopped and go on */
};

struct nest_footing {
	uint32_t have;
	/* a line for each thing that is missing: what, why, what it costs */
	char missing[NEST_MESSAGE_MISSING_MAX];
};

/* Notes that @what is missing because of @why. */
void nest_footing_lack(struct nest_footing *footing, const char *what, const char *why);

/*
 * Tries what cells are made of, each thing for real. Call with all the privilege there is, before
 * threads exist; unshares nothing of the caller.
 */
void nest_footing_probe(struct nest_footing *ret);

/* Notes which controllers of @cgroup are there. */
void nest_footing_note_cgroup(struct nest_footing *footing, const struct nest_cgroup *cgroup);

#endif
