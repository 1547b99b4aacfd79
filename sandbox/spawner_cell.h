/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_CELL_H
#define NEST_SANDBOX_SPAWNER_CELL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/cgroup.h"
#include "sandbox/footing.h"
#include "sandbox/message.h"
#include "sandbox/rootfs.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawner_exchange.h"
#include "sandbox/spawner_image.h"
#include "sandbox/snapshot_store.h"

struct nest_seccomp;

/*
 * The spawner's table of cells.
 *
 *	FREE --clone--> PREPARING --told--> READY --START--> RUNNING --pidfd--> REMOVING --> FREE
 *	                    \------------START (it reads it when ready)--^
 *
 * A cell that dies goes through REMOVING from any state; its end is reported when its cgroups
 * are gone.
 */
enum nest_spawner_cell_state {
	NEST_SPAWNER_CELL_FREE,
	NEST_SPAWNER_CELL_PREPARING,
	NEST_SPAWNER_CELL_READY,
	NEST_SPAWNER_CELL_RUNNING,
	NEST_SPAWNER_CELL_REMOVING,
};

struct nest_spawner_cell {
	uint64_t id;	 /* the agent's number; 0 while prepared */
	uint64_t serial; /* names its cgroups */
	enum nest_spawner_cell_state state;
	enum nest_cell_network network;
	pid_t pid;   /* of its PID 1 in our view */
	int pidfd;   /* of the same */
	int control; /* socket to it; -1 once it has ended */
	pid_t worker;
	bool starting; /* between its START and its program */
	bool killed;   /* by us */
	bool frozen;
	struct nest_cgroup_limits limits;     /* that its cgroups have; all 0: none */
	int wires[NEST_CRIU_RPC_WIRES];	      /* our ends of what it wires, until a START; -1 */
	int dumper;			      /* socket to its dumper; -1: it has none */
	char key[NEST_MESSAGE_KEY_CHARS + 1]; /* of the snapshot that it is restored from */
	uint8_t sha256[32];		      /* of that one's contents */
	bool from_parent;		      /* that one is a parent */
	bool from_mapped;		      /* its memory is that one's file */
	bool ended;			      /* wait_status is the worker's */
	int wait_status;		      /* the worker's, or PID 1's own */
	uint64_t removed_by; /* monotonic time after which an undying cgroup is left behind */
	struct nest_cgroup_usage last; /* read when PID 1 was gone */
	struct nest_err failure;       /* why it never ran; code 0 if it did */
};

#define NEST_SPAWNER_JOBS 4

/* A dump under way. */
struct nest_spawner_job {
	pid_t pid; /* 0: none */
	int pipe;
	uint64_t cell;
	char key[NEST_MESSAGE_KEY_CHARS + 1];
	char draft[32];
};

struct nest_spawner {
	int agent;    /* socket */
	int poll;     /* epoll */
	int orphaned; /* signalfd: the agent died */
	int proc;     /* the host's /proc */
	int network;  /* our network namespace; -1: cells enter theirs by themselves */
	struct nest_footing footing;
	struct nest_cgroup cgroup;
	struct nest_rootfs rootfs;
	struct nest_spawner_images images;
	struct nest_seccomp *seccomp;
	struct nest_message_range uids;
	uid_t agent_uid;
	uint32_t pool_size[2]; /* by enum nest_cell_network */
	uint32_t prepared[2];  /* PREPARING and READY without an id */
	uint32_t preparing;    /* of these, not READY yet */
	uint32_t max_cells;
	uint32_t used;		/* cells that are not FREE */
	uint32_t removing;	/* cells in REMOVING */
	uint32_t starting;	/* cells that somebody waits for */
	uint32_t told_prepared; /* what the agent knows of the pool */
	uint64_t next_serial;
	struct nest_cgroup_limits limits; /* that new cells get ahead of their START; all 0: none */
	uint64_t tmp_bytes;		  /* the same of /tmp */
	uint64_t refill_after; /* monotonic time: a failed preparation isn't repeated at once */
	bool stopping;
	char no_snapshots[256]; /* why there are none, or "" */
	struct nest_criu_rpc_program criu;
	struct nest_snapshot_store store;
	struct nest_spawner_job jobs[NEST_SPAWNER_JOBS];
	struct nest_spawner_exchange exchange;
	struct {
		pid_t pid; /* 0: none */
		int pipe;
	} sweeper; /* of the store */
	struct {
		pid_t pid;
		int pipe;
		char standins[256]; /* as of struct nest_criu_rpc_program, until they are proved */
	} prover;
	size_t ncells; /* room in the table */
	size_t top;    /* slots ever used: those above were never touched */
	struct nest_spawner_cell *cells;
};

/* What an epoll event stands for. */
enum nest_spawner_event {
	NEST_SPAWNER_EVENT_AGENT,
	NEST_SPAWNER_EVENT_ORPHANED,
	NEST_SPAWNER_EVENT_CONTROL, /* of cell n */
	NEST_SPAWNER_EVENT_PIDFD,   /* of cell n */
	NEST_SPAWNER_EVENT_IMAGE,   /* number n has been mounted, or not */
	NEST_SPAWNER_EVENT_JOB,	    /* dump n */
	NEST_SPAWNER_EVENT_EXCHANGE,
	NEST_SPAWNER_EVENT_SWEPT,
	NEST_SPAWNER_EVENT_PROVED,
	NEST_SPAWNER_EVENT_KINDS,
};

/* Watches @fd for @event of cell number @n. */
int nest_spawner_cell_watch(struct nest_spawner *spawner, int fd, enum nest_spawner_event event,
	size_t n, struct nest_err *err);

/* The running cell that the agent calls @id, or NULL. */
struct nest_spawner_cell *nest_spawner_cell_find(struct nest_spawner *spawner, uint64_t id);

/*
 * Clones a new cell's PID 1, which prepares itself. *@ret is PREPARING. -ENOTRECOVERABLE: there was no
 * way back from its network namespace, and the caller must end.
 */
int nest_spawner_cell_prepare(struct nest_spawner *spawner, enum nest_cell_network network,
	struct nest_spawner_cell **ret, struct nest_err *err);

/*
 * Turns a prepared cell, or a new one, into the running cell of the checked @start, or RESTORE; the
 * wires of a worker that its cell wires go to the agent; @fds are borrowed. On failure the agent is to
 * be told at once; a cell that was touched is being killed.
 * -ENOTRECOVERABLE as above.
 */
int nest_spawner_cell_run(struct nest_spawner *spawner, struct nest_message_start *start,
	const int fds[NEST_MESSAGE_FD_COUNT], struct nest_err *err);

/* Kills all that is in @cell; its end comes as an event. */
void nest_spawner_cell_kill(struct nest_spawner *spawner, struct nest_spawner_cell *cell);

/* Stops all that is in @cell where it is, or lets it go on; one that can't go on is killed. */
void nest_spawner_cell_freeze(
	struct nest_spawner *spawner, struct nest_spawner_cell *cell, bool frozen);

/* Reads what the cell's PID 1 says. */
void nest_spawner_cell_hear(struct nest_spawner *spawner, struct nest_spawner_cell *cell);

/* PID 1 of @cell has ended: reaps it and begins to remove the cell. */
void nest_spawner_cell_reap(struct nest_spawner *spawner, struct nest_spawner_cell *cell);

/* Goes on removing @cell, which is REMOVING; tells the agent once it is gone. */
void nest_spawner_cell_remove(struct nest_spawner *spawner, struct nest_spawner_cell *cell);

/* What @cell uses now. */
void nest_spawner_cell_usage(const struct nest_spawner *spawner,
	const struct nest_spawner_cell *cell, struct nest_cgroup_usage *ret);

/* Tells the agent of the end of its cell @id. */
void nest_spawner_cell_tell_failed(
	struct nest_spawner *spawner, uint64_t id, const struct nest_err *err);

#endif
