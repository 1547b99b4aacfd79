/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_DESIRED_H
#define NEST_AGENT_DESIRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct nest_config;
struct nest_deployer;
struct nest_err;
struct nest_host;
struct nest_registry;

/*
 * What the scaler last said should run: kept in a file, made the registry's, and brought about.
 *
 *	reply --> (a thread: read, checked, written with fsync) --> in force --> deployed by and by
 *
 * A generation is in force once it is on disk: it is then what the host comes up with when the
 * scaler is away. What of it can't be taken or deployed is told in the next reports, with its
 * reason, and does not stop the rest. Loop thread only.
 */
struct nest_desired;

struct nest_desired_env {
	struct nest_host *host;
	struct nest_registry *registry;
	const struct nest_config *(*config)(void *daemon); /* as it is now */
	void *daemon;
};

/*
 * Opens what is kept in @path and puts it into the registry; the deployer, which starts later,
 * deploys it. A missing file is fine; one that can't be read is logged, and waits to be replaced by
 * the scaler's next word. Copies both. The caller owns *@ret. Blocks on the disk.
 */
int nest_desired_open(uv_loop_t *loop, const struct nest_desired_env *env, const char *path,
	struct nest_desired **ret, struct nest_err *err);

/* Waits for what is being written, then calls @cb, never before returning, and frees. */
void nest_desired_close(struct nest_desired *desired, void (*cb)(void *arg), void *arg);

/* Who deploys from now on. Before the first nest_desired_take(). */
void nest_desired_set_deployer(struct nest_desired *desired, struct nest_deployer *deployer);

enum nest_desired_result {
	NEST_DESIRED_APPLIED,
	NEST_DESIRED_UNCHANGED,
	NEST_DESIRED_OLD, /* a generation below the one that is in force: nothing was done */
};

/*
 * Takes a reply's @n bytes (allocated; taken, also on failure). @cb is called once, never before
 * this returns 0, and not if it is closed before: with what came of it and whether the scaler wants
 * the host to drain, or with @err why nothing did. -EBUSY: another one is being taken.
 */
int nest_desired_take(struct nest_desired *desired, char *bytes, size_t n,
	void (*cb)(
		void *arg, enum nest_desired_result result, bool drain, const struct nest_err *err),
	void *arg, struct nest_err *err);

/* The generation in force; 0: none yet. */
uint64_t nest_desired_generation(const struct nest_desired *desired);

/* Brings the worker bounds to functions that were deployed since. */
void nest_desired_reconcile(struct nest_desired *desired);

/* What of it could not be taken: stops when @cb returns false. @version may be "". */
void nest_desired_each_refusal(const struct nest_desired *desired,
	bool (*cb)(void *arg, const char *name, const char *version, const char *why), void *arg);

#endif
