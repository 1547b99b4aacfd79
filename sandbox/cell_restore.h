/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CELL_RESTORE_H
#define NEST_SANDBOX_CELL_RESTORE_H

#include <sys/types.h>

#include "sandbox/cell_step.h"

struct nest_err;

/*
 * What a cell's PID 1 does for snapshots: it starts a *restorer*, a CRIU that waits in the cell's
 * namespaces with the kernel's features detected, the cell's wires in hand and its request taken up,
 * and gives it the images to restore, or ends it when the cell is used for a plain start.
 */

/* Starts the restorer; one that can't be started shows when it is asked. */
int nest_cell_restore_prepare(struct nest_cell_step_context *context, struct nest_err *err);

/*
 * Forks the *dumper* of a worker that is to be dumped: it waits for a descriptor of the images'
 * directory on its socket, then becomes the CRIU that serves the socket. In here, since the worker's Landlock
 * domain lets it connect to sockets of that domain alone, as CRIU has it do.
 */
int nest_cell_restore_await_dump(struct nest_cell_step_context *context, struct nest_err *err);

/* Ends the restorer, and keeps low pids free for the restorers of clones. For a plain start. */
int nest_cell_restore_dismiss(struct nest_cell_init *init, struct nest_err *err);

/* Restores the snapshot of the START. The pid of the clone, or -errno. */
pid_t nest_cell_restore_run(struct nest_cell_step_context *context, struct nest_err *err);

#endif
