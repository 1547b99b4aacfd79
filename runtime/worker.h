/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_WORKER_H
#define NEST_RUNTIME_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/failure.h"
#include "runtime/host.h"

struct nest_call;
struct nest_err;
struct nest_frozen;
struct nest_funclog;
struct nest_function_spec;
struct nest_services;
struct nest_tally;

/*
 * All that is the same for every worker of one version; borrowed for as long as one of them lives.
 */
struct nest_worker_plan {
	const struct nest_function_spec *spec;
	const char *const *argv;
	const char *const *envp;
	const char *init; /* INIT's payload; NULL: it stays a runtime without a function */
	uint32_t init_len;
	int code_fd;
	uid_t uid;
	uint32_t concurrency;
	uint64_t memory_bytes;
	struct nest_funclog *log;
	struct nest_tally *tally;
	bool mapped;		     /* its clones map their memory from the snapshot */
	bool to_freeze;		     /* its worker will be frozen */
	struct nest_frozen *frozen;  /* what workers may be restored from; NULL: nothing */
	struct nest_frozen *runtime; /* the runtime's, which is the next best; NULL: nothing */
};

/*
 * One running instance of a function: its process in its cell, the channel to it, its output.
 *
 *      start --> STARTING --> READY (idle or busy) --> LEAVING --> DYING --> gone
 *                v      ^
 *                STANDBY      (a clone, restored ahead)
 *                    \             \                      \------/^
 *                     \-------------\-----------------------------/
 *
 * STARTING: INIT is sent, READY awaited. READY: takes requests. LEAVING: DRAIN is sent, the open
 * requests end. DYING: killed, or its channel closed; the cell's exit is awaited. A request that a
 * dead worker had fails when it is known what the worker died of.
 */
struct nest_worker;

/* Why a worker takes no more requests. */
struct nest_worker_end {
	bool was_ready;
	bool barren;	   /* it was ready, but died before it was given a request */
	bool clone_failed; /* a restore failed: another start is a plain one */
	/* of a start that failed: */
	enum nest_failure_kind kind;
	int code;   /* -errno of a cell that never ran; -ETIMEDOUT: not in time; 0: no more known */
	bool final; /* another try would end the same way */
	const char *message;
	const char *detail; /* what only the operator may know; NULL: nothing more */
	const char *error_json;
	uint32_t error_json_len;
};

struct nest_worker_events {
	/* It takes requests. */
	void (*ready)(void *arg, struct nest_worker *worker);
	/* A slot has become free. */
	void (*slot)(void *arg, struct nest_worker *worker);
	/* It was idle for the function's idle time. */
	void (*idle)(void *arg, struct nest_worker *worker);
	/* It takes no requests any more; once, at the latest just before gone. */
	void (*ended)(void *arg, struct nest_worker *worker, const struct nest_worker_end *end);
	/* A request that it was given but never began: back to the queue. */
	void (*unbegun)(void *arg, struct nest_call *call);
	/* It has come to rest after nest_worker_checkpoint(). May be NULL. */
	void (*rested)(void *arg, struct nest_worker *worker);
	/* Started to stand by, it does. May be NULL where none is. */
	void (*standing)(void *arg, struct nest_worker *worker);
	/* Its cell is gone, and it is freed. */
	void (*gone)(void *arg, struct nest_worker *worker);
};

/*
 * Starts one. No event comes before this returns. Errors are nest_cell_start()'s, or -ENOMEM and
 * the like.
 */
int nest_worker_start(struct nest_services *services, const struct nest_worker_plan *plan,
	const struct nest_worker_events *events, void *arg, struct nest_worker **ret,
	struct nest_err *err);

/* One that is to stand by. */
struct nest_worker_ahead {
	const char *key; /* of the snapshot of its plan's that it is restored from; borrowed */
	bool prefetch;	 /* what its first request writes to is copied ahead, as far as is known */
};

/*
 * Starts one that is to stand by: restored, and frozen before it is told that it is a clone. standing or
 * ended follows. Errors as nest_worker_start()'s.
 */
int nest_worker_start_standby(struct nest_services *services, const struct nest_worker_plan *plan,
	const struct nest_worker_ahead *ahead, const struct nest_worker_events *events, void *arg,
	struct nest_worker **ret, struct nest_err *err);

/* Whether it was started with @prefetch. */
bool nest_worker_is_prefetched(const struct nest_worker *worker);

/* One that stands by, or is about to, becomes ready; it is @events' and @arg's from now on. */
void nest_worker_wake(
	struct nest_worker *worker, const struct nest_worker_events *events, void *arg);

/* Whether it is restored and waits to be woken. */
bool nest_worker_is_standing(const struct nest_worker *worker);

/* Free slots; 0 unless it is READY. */
uint32_t nest_worker_free_slots(const struct nest_worker *worker);

/* Requests that it holds, those nobody waits for any more included. */
uint32_t nest_worker_open(const struct nest_worker *worker);

/* What the admin API calls its stage. */
enum nest_worker_state nest_worker_state(const struct nest_worker *worker);

/* Whether its cell is frozen until it is given a request. */
bool nest_worker_is_paused(const struct nest_worker *worker);

/* When it became ready, and when it last became idle; 0: not yet. */
uint64_t nest_worker_ready_us(const struct nest_worker *worker);
uint64_t nest_worker_idle_since_us(const struct nest_worker *worker);

/* Has it, READY and without requests, come to rest to be frozen; rested follows. -errno: not asked. */
int nest_worker_checkpoint(struct nest_worker *worker);

/*
 * Freezes it, at rest, into snapshot @key. @cb is called once, unless it ends before; with @why
 * NULL it is on its way out, else it is the caller's to kill.
 */
int nest_worker_dump(struct nest_worker *worker, const char *key,
	void (*cb)(void *arg, uint64_t bytes, const struct nest_err *why));

/* Gives it @call (there is a free slot), to end before @run_until_us. -errno: it was not given. */
int nest_worker_give(struct nest_worker *worker, struct nest_call *call, uint64_t run_until_us,
	uint64_t deadline_ms);

/* @call has more body, or its body is complete. */
void nest_worker_push(struct nest_worker *worker, struct nest_call *call);

/* @call's caller has taken @n response bytes. */
void nest_worker_consumed(struct nest_worker *worker, struct nest_call *call, size_t n);

/* @call's caller has gone; the call is detached and belongs to the worker from then on. */
void nest_worker_abandon(struct nest_worker *worker, struct nest_call *call);

/* No more requests; it ends when those that it has are done, or is killed after its grace. */
void nest_worker_leave(struct nest_worker *worker);

/* The same, but those that it has may take as long as the function's timeout lets them. */
void nest_worker_hand_over(struct nest_worker *worker);

/* Has it leave as soon as it is idle. */
void nest_worker_leave_when_idle(struct nest_worker *worker);

/* Takes that back, if it is still there. */
void nest_worker_stay(struct nest_worker *worker);

/* Whether it leaves, or will as soon as it is idle. */
bool nest_worker_is_leaving(const struct nest_worker *worker);

/* Kills it; what is open on it fails with @kind and @message. Not counted as a restart. */
void nest_worker_kill(struct nest_worker *worker, enum nest_failure_kind kind, const char *message);

/*
 * Measures what it uses, then calls @cb once, also when it ends before. -EALREADY while one is
 * under way.
 */
int nest_worker_measure(struct nest_worker *worker, void (*cb)(void *arg), void *arg);

/* Fills @ret with what is known of it now. */
void nest_worker_stats(const struct nest_worker *worker, struct nest_worker_stats *ret);

/* What it is charged for: an estimate until it is measured. */
uint64_t nest_worker_charged_bytes(const struct nest_worker *worker);

/* A link for whoever keeps workers in a list. */
struct nest_worker_link {
	struct nest_worker *worker;
	bool evicted; /* killed for its room */
	bool surplus; /* it goes once it is idle */
	struct nest_worker_link *prev, *next;
};
struct nest_worker_link *nest_worker_link(struct nest_worker *worker);

#endif
