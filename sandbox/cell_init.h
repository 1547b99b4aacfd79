/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CELL_INIT_H
#define NEST_SANDBOX_CELL_INIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/criu_rpc.h"
#include "sandbox/image_gate.h"
#include "sandbox/message.h"

struct nest_cgroup;
struct nest_seccomp;

/* What a new cell's PID 1 is born with: the spawner's memory, copied by clone. */
struct nest_cell_init {
	uint32_t have;	    /* enum nest_footing_bit */
	uint32_t network;   /* enum nest_cell_network */
	int control;	    /* its end of the socket pair, blocking */
	uid_t own_uid;	    /* that PID 1 goes on as */
	uint64_t serial;    /* of its cgroup */
	uint64_t tmp_bytes; /* of /tmp, as the cell most likely gets it; 0: not known */
	const struct nest_cgroup *cgroup;
	const struct nest_seccomp *seccomp; /* NULL: none */
	union nest_message *message;	    /* room for its START */
	/* for snapshots */
	const struct nest_criu_rpc_program *criu; /* NULL: none */
	int wires[NEST_CRIU_RPC_WIRES];		  /* a worker's ends; -1 once passed on */
	pid_t restorer;				  /* 0: none */
	int restorer_sock;
	bool restorer_primed;	     /* it has nothing to find out that a cell before has not */
	int restorer_log;	     /* what it says goes wrong; -1: none */
	int last_pid;		     /* of the cell's pid namespace; -1: not to be set */
	struct nest_image_gate gate; /* where the restorer waits for a clone's images */
};

/*
 * The life of a cell's PID 1: prepares the cell, tells so, waits for its START, forks the worker,
 * gives up all privilege, and reports how the worker ended. Runs in a fresh clone of the spawner
 * and never returns; when it exits the kernel ends all else in the cell.
 */
_Noreturn void nest_cell_init_run(struct nest_cell_init *init);

#endif
