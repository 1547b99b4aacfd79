/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_DISPATCH_H
#define NEST_RUNTIME_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/host.h"

struct nest_call;
struct nest_err;
struct nest_protection;
struct nest_services;
struct nest_tally;
struct nest_worker;
struct nest_worker_plan;

/*
 * The queue before one version of a function, and its workers: it gives each request to the least
 * loaded worker with a free slot, starts workers when requests wait for want of one, and lets
 * them go when they are idle. Never are there more requests on a worker than its slots.
 */
struct nest_dispatch;

/* Makes one. Borrows @plan. -ENOMEM. */
int nest_dispatch_new(struct nest_services *services, const struct nest_worker_plan *plan,
	struct nest_dispatch **ret);

/* Frees one that is empty: nothing waits, no worker is left. NULL is fine. */
void nest_dispatch_free(struct nest_dispatch *dispatch);

/* What its host's functions share. */
struct nest_services *nest_dispatch_services(const struct nest_dispatch *dispatch);

/* What its version is counted by. */
struct nest_tally *nest_dispatch_tally(const struct nest_dispatch *dispatch);

/* Whether a worker of its is coming up for those who wait. */
bool nest_dispatch_is_starting(const struct nest_dispatch *dispatch);

/* Takes a new call: it is given to a worker, waits, or is refused on a later turn. */
void nest_dispatch_submit(struct nest_dispatch *dispatch, struct nest_call *call);

/* @call, which it was given, has ended at @now_us: the circuit breaker remembers how. */
void nest_dispatch_note(struct nest_dispatch *dispatch, const struct nest_call *call,
	enum nest_failure_kind kind, uint64_t now_us);

/* Whether @call, which failed by @kind, gets the spec's fallback result; counts it then. */
bool nest_dispatch_falls_back(
	struct nest_dispatch *dispatch, const struct nest_call *call, enum nest_failure_kind kind);

/* What its spec says of that result, and of limits. */
const struct nest_protection *nest_dispatch_protection(const struct nest_dispatch *dispatch);

/* Takes a waiting call out of the queue. */
void nest_dispatch_withdraw(struct nest_dispatch *dispatch, struct nest_call *call);

/*
 * The live version keeps workers_min workers; another one lets its present workers go as they
 * become idle.
 */
void nest_dispatch_set_live(struct nest_dispatch *dispatch, bool live);

/* Says how many workers it has beside those that waiting requests start; see nest_target_set_scale(). */
void nest_dispatch_set_scale(struct nest_dispatch *dispatch, const struct nest_target_scale *scale);

/* Fills all of @ret but for its target: the load since it was last asked. False: it isn't live. */
bool nest_dispatch_load(const struct nest_dispatch *dispatch, struct nest_target_load *ret);

/*
 * Has it keep at least @min workers while it is live, and at most @max, instead of what its spec
 * says; @max 0: what its spec says.
 */
void nest_dispatch_set_bounds(struct nest_dispatch *dispatch, uint32_t min, uint32_t max);

/*
 * Has @n workers up, from the version's snapshot if one is being made, and keeps them until @cb is called, once, on a later turn: NULL when they are up, or
 * as many as there are cells for; or why not even one is. The version need not be live. -ENOMEM.
 */
int nest_dispatch_warm(struct nest_dispatch *dispatch, uint32_t n,
	void (*cb)(void *arg, const struct nest_err *why), void *arg);

/* The version's snapshot stands, or is put off: who waited for it may go on. */
void nest_dispatch_snapshot_settled(struct nest_dispatch *dispatch);

/* How many workers take requests, or will when they are up. */
uint32_t nest_dispatch_alive(const struct nest_dispatch *dispatch);

/*
 * Takes no new calls; when those it has are done and its workers are gone, calls @cb once, on a
 * later turn. What is not done within drain_grace_ms is aborted.
 */
void nest_dispatch_retire(struct nest_dispatch *dispatch, void (*cb)(void *arg), void *arg);

/* While it is held it does not retire. */
void nest_dispatch_hold(struct nest_dispatch *dispatch);
void nest_dispatch_release(struct nest_dispatch *dispatch);

/*
 * Kills its workers. Calls that wait, or that no worker has begun, fail as draining: they can be
 * sent elsewhere. All others fail as crashed.
 */
void nest_dispatch_abort(struct nest_dispatch *dispatch, const char *message);

/*
 * Lets those that wait for a cell try again; @arg is the services, whose cell_freed deadline calls
 * this.
 */
void nest_dispatch_feed(void *arg);

/* Fills the part of @ret that is the queue's and the workers'. */
void nest_dispatch_stats(const struct nest_dispatch *dispatch, struct nest_target_stats *ret);

/* Calls @cb for each worker until it returns false; false then. */
bool nest_dispatch_each_worker(const struct nest_dispatch *dispatch,
	bool (*cb)(void *arg, struct nest_worker *worker), void *arg);

#endif
