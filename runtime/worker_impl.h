/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_WORKER_IMPL_H
#define NEST_RUNTIME_WORKER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/deadline.h"
#include "runtime/funclog.h"
#include "runtime/streams.h"
#include "runtime/worker.h"
#include "sandbox/sandbox.h"

struct nest_channel;
struct nest_output;

enum nest_worker_stage {
	NEST_WORKER_STAGE_STARTING,
	NEST_WORKER_STAGE_STANDBY,
	NEST_WORKER_STAGE_READY,
	NEST_WORKER_STAGE_RESTING, /* CHECKPOINT was sent */
	NEST_WORKER_STAGE_LEAVING,
	NEST_WORKER_STAGE_DYING,
};

/* The inside of a worker, for the files that its life is spread over. */
struct nest_worker {
	/* looked at with every request */
	enum nest_worker_stage stage;
	struct nest_streams streams;
	struct nest_channel *channel;
	uint64_t idle_since_us;
	bool heard; /* a frame came since the last look at its health */
	uint64_t requests_total;
	struct nest_services *services;
	const struct nest_worker_plan *plan;
	const struct nest_worker_events *events;
	void *arg;

	struct nest_cell *cell;
	struct nest_output *outputs[2];
	struct nest_funclog_pipe pipes[2];
	struct nest_worker_link link;
	uint64_t id;
	pid_t pid;
	uint64_t start_us;
	uint64_t ready_us;

	struct nest_deadline stage_deadline; /* of starting, of leaving, of an exit overdue */
	struct nest_deadline idle_deadline;
	struct nest_deadline ping_deadline;
	struct nest_deadline pause_deadline;
	uint64_t pinged_us; /* an unanswered PING's time; 0: none */

	bool clone;	 /* it is restored, not started */
	bool bare;	 /* from its runtime's snapshot, so that INIT is still to come */
	bool born;	 /* its process runs */
	bool rested;	 /* it has come to rest, which is still to be told */
	bool standby;	 /* it is restored, or was, to stand by, and not woken */
	bool prefetched; /* what its first request writes to was copied ahead, if that was known */
	bool answered;	 /* its first request is over */
	bool stood;	 /* it did, so that its snapshot is no part of its end */
	bool wired;	 /* its channel is there: it can be told that it is a clone */
	bool paused;	 /* its cell is frozen */
	bool greeted;	 /* HELLO came */
	bool leave_when_idle;
	bool leaving; /* it was sent DRAIN */
	bool stuck;   /* it holds a slot past its grace: it goes when it has nothing else to do */
	bool ended;   /* events->ended was called */
	bool killed;  /* by us: what was open has failed */
	unsigned open_handles;
	uint64_t charged_bytes;
	uint64_t memory_bytes;
	uint64_t memory_peak_bytes;
	uint64_t private_bytes;
	uint64_t shared_bytes;
	bool measured_as_it_is; /* since it is what it is now */
	uint64_t cpu_us;
	struct nest_frozen *source; /* what it is a clone of, whatever its plan says by now */
	uint32_t generation;	    /* of that one's snapshot */
	void (*measured)(void *arg);
	void *measured_arg;
	void (*dumped)(void *arg, uint64_t bytes, const struct nest_err *why);
};

/* Puts its INIT into the channel, if it gets one. -errno. */
int nest_worker_put_init(struct nest_worker *worker);

/* Kills @worker for @cause; a start fails with it, what is open fails, and the operator is told. */
void nest_worker_doom(
	struct nest_worker *worker, enum nest_restart_cause cause, const char *message);

/* Counts the end of @worker for @cause, unless it is a failed restore's. */
void nest_worker_count_restart(struct nest_worker *worker, enum nest_restart_cause cause);

/* Tells what happened to @worker in the function's log, and, with @detail, to the operator. */
void nest_worker_report(struct nest_worker *worker, const char *message, const char *detail);

/* Takes no more from it: its exit, which will say what it died of, is at hand. */
void nest_worker_await_exit(struct nest_worker *worker);

/* Tells the dispatch that @worker takes no more requests, once. */
void nest_worker_end(struct nest_worker *worker, const struct nest_worker_end *end);

/* Fails all that is open on @worker, and takes it off. */
void nest_worker_fail_open(
	struct nest_worker *worker, enum nest_failure_kind kind, const char *message);

/* It holds @bytes of the host's memory, from now on. */
void nest_worker_charge(struct nest_worker *worker, uint64_t bytes);

/* Its first request is over: what that has touched says what those of other clones will. */
void nest_worker_note_answer(struct nest_worker *worker);

/* Whether it has had the one request that a worker of its function gets. */
bool nest_worker_is_spent(const struct nest_worker *worker);

/* A slot was given back. */
void nest_worker_slot_freed(struct nest_worker *worker);

/* If it has nothing to do, its idle time begins. */
void nest_worker_rest(struct nest_worker *worker);

/* A runtime without a function has started: it is ready to be frozen. */
void nest_worker_begin_bare(struct nest_worker *worker);

/* One frame of its channel. */
void nest_worker_frame(struct nest_worker *worker, const struct nest_frame *frame);

/* Bytes that it wrote to stdout (1) or stderr (2). */
void nest_worker_output(struct nest_worker *worker, int stream, const char *bytes, size_t n);

/* It is idle: it is paused when its function's pause time is over, unless it is given a request. */
void nest_worker_pause_later(struct nest_worker *worker);

/* Has it go on, if it is paused: it is sent something. */
void nest_worker_unpause(struct nest_worker *worker);

/* Starts to look after its health, once it is ready. */
void nest_worker_watch(struct nest_worker *worker);

/*
 * Starts it plainly in a cell as @cell says, which has @snapshot set; its channel and outputs come with
 * the cell, and then it is told its INIT.
 */
int nest_worker_start_to_freeze(struct nest_worker *worker, const struct nest_cell_spec *cell,
	const struct nest_cell_events *events, struct nest_err *err);

/*
 * Starts it as a clone of snapshot @key in a cell as @cell says; its channel and outputs come with
 * the cell.
 */
int nest_worker_restore(struct nest_worker *worker, const struct nest_cell_spec *cell,
	const struct nest_cell_events *events, const char *key, struct nest_err *err);

/* The restore is done, and the clone runs. */
void nest_worker_restored(struct nest_worker *worker);

/* Tells whom it may concern that it rests, once that and its start are both known. */
void nest_worker_tell_rested(struct nest_worker *worker);

/* CHECKPOINT came from it. */
int nest_worker_on_checkpoint(struct nest_worker *worker, struct nest_err *err);

/* Opens the channel on @fd, which is taken on success. */
int nest_worker_open_channel(struct nest_worker *worker, int fd, struct nest_err *err);

/* Sends a PING unless one is unanswered. */
void nest_worker_ping(struct nest_worker *worker);

#endif
