/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_RUNTIME_SNAPSHOT_H
#define NEST_RUNTIME_RUNTIME_SNAPSHOT_H

#include <stdbool.h>

#include "runtime/host.h"

struct nest_err;
struct nest_frozen;
struct nest_funclog_store;
struct nest_function_spec;
struct nest_manifest;
struct nest_services;
struct nest_uids;
struct nest_worker_plan;

/*
 * The snapshots of runtimes that have loaded no function: a function without one of its own starts
 * from its runtime's, and functions' snapshots are made upon it, so that they share its memory. A
 * runtime has one for each set of limits that functions have; they last as long as the host.
 */
struct nest_runtime_snapshots;

/*
 * Borrows all. @empty_fd: a directory with nothing in it, in the place of code; taken unless this
 * fails. -ENOMEM, or what keeps a log from being opened.
 */
int nest_runtime_snapshots_new(struct nest_services *services, struct nest_uids *uids,
	struct nest_funclog_store *logs, int empty_fd, struct nest_runtime_snapshots **ret,
	struct nest_err *err);

/* Frees all, once their workers are gone. NULL is fine. */
void nest_runtime_snapshots_free(struct nest_runtime_snapshots *set);

/*
 * The one for workers of @plan, of a function with @spec and runtime @manifest; it is made if there
 * is none. NULL: the runtime has none, or the function has something at its start that another
 * process would not have: another command line, or a variable that the runtime reads only then.
 * Blocks on the disk.
 */
struct nest_frozen *nest_runtime_snapshots_for(struct nest_runtime_snapshots *set,
	const struct nest_manifest *manifest, const struct nest_function_spec *spec,
	const struct nest_worker_plan *plan);

/* Calls @cb for each; stops when it returns false. */
void nest_runtime_snapshots_each(const struct nest_runtime_snapshots *set,
	bool (*cb)(void *arg, const struct nest_runtime_stats *stats), void *arg);

/* Fills @ret (room for @n pointers, NULL at its end) with the environment that any worker has. */
void nest_runtime_snapshot_env(const struct nest_manifest *manifest,
	const struct nest_function_spec *spec, const char **ret);
#define NEST_RUNTIME_SNAPSHOT_ENV_MAX 6

#endif
