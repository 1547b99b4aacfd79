/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SNAPSHOT_DUMP_H
#define NEST_SANDBOX_SNAPSHOT_DUMP_H

#include <stdint.h>
#include <sys/types.h>

#include "sandbox/criu_rpc.h"
#include "sandbox/snapshot_store.h"

struct nest_err;

/* What is to be dumped, and where to. */
struct nest_snapshot_dump {
	const struct nest_snapshot_store *store;
	const char *draft_name;
	int draft;
	const char *key;
	struct nest_snapshot_kind kind;
	const char *parent; /* the key of what its cell was restored from; "": nothing */
	const uint8_t *parent_sha256;
	int proc;     /* the host's /proc */
	int cell;     /* pidfd of the cell's PID 1 */
	int dumper;   /* socket to the cell's dumper */
	pid_t worker; /* in the host's view */
};

/*
 * Has a worker dumped inside its cell and publishes the snapshot. For a process made
 * for it: it changes its mounts and blocks for as long as all that takes.
 */
int nest_snapshot_dump_run(const struct nest_snapshot_dump *dump,
	struct nest_snapshot_store_contents *ret, struct nest_err *err);

#endif
