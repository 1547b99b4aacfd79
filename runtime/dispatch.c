/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/dispatch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "runtime/call_impl.h"
#include "runtime/dispatch_impl.h"
#include "runtime/frozen.h"
#include "runtime/function.h"
#include "runtime/reserve.h"
#include "runtime/room.h"
#include "runtime/services.h"
#include "runtime/standby.h"
#include "runtime/worker.h"

/*
 * One pump serves all events: give what waits to free slots, then start workers for what still
 * waits. A start that fails, or a worker that dies before it is given a request, puts off the next
 * start, longer each time (runtime/backoff.h), until a request ends.
 */
#define DEADLINES 5 /* retry, retired, overdue, warmed, aged */

struct nest_services *nest_dispatch_services(const struct nest_dispatch *dispatch)
{
	return dispatch->services;
}

struct nest_tally *nest_dispatch_tally(const struct nest_dispatch *dispatch)
{
	return dispatch->plan->tally;
}

bool nest_dispatch_is_starting(const struct nest_dispatch *dispatch)
{
	return dispatch->starting > 0;
}

static const char *name_of(const struct nest_dispatch *dispatch)
{
	return dispatch->plan->spec->name;
}

/* ---- the queue ---- */

static void dequeue(struct nest_dispatch *dispatch, struct nest_call *call)
{
	DL_DELETE(dispatch->queue, call);
	dispatch->queued--;
	call->queued = false;
	nest_deadlines_clear(dispatch->services->deadlines, &call->deadline);
}

static void fail_waiting(
	struct nest_dispatch *dispatch, struct nest_call *call, const struct nest_failure *why)
{
	dequeue(dispatch, call);
	nest_call_conclude(call, why);
	nest_call_free(call);
}

/* Once nothing waits any more the workers of a version that is not live, or retires, may go. */
static void check_leaving(struct nest_dispatch *dispatch)
{
	struct nest_worker_link *link;

	if ((!dispatch->fading && !dispatch->retiring) || dispatch->queued > 0)
		return;
	dispatch->fading = false;
	DL_FOREACH(dispatch->workers, link)
		nest_worker_leave_when_idle(link->worker);
	if (dispatch->retiring && !dispatch->workers && !dispatch->holds &&
		!nest_deadline_is_set(&dispatch->retired))
		nest_deadlines_set(dispatch->services->deadlines, &dispatch->retired, 0);
}

static void on_wait_over(void *arg)
{
	struct nest_call *call = arg;
	struct nest_dispatch *dispatch = call->dispatch;
	uint64_t ms = (call->deadline.at_us - call->start_us + 500) / 1000;
	char message[512];
	struct nest_failure why = {
		.kind = call->until_caller ? NEST_FAILURE_TIMEOUT : NEST_FAILURE_UNAVAILABLE,
		.message = message,
		.retry_after_s = call->until_caller ? 0 : 1,
	};

	if (dispatch->backoff.failures > 0 && dispatch->ready == 0)
		snprintf(message, sizeof(message),
			"no worker of function '%s' could be started within %llu ms: %s",
			name_of(dispatch), (unsigned long long)ms, dispatch->failure);
	else
		snprintf(message, sizeof(message),
			"no worker of function '%s' was free within %llu ms", name_of(dispatch),
			(unsigned long long)ms);
	fail_waiting(dispatch, call, &why);
	check_leaving(dispatch);
}

/* When the caller's own deadline, in wall time, comes by our clock; UINT64_MAX: never. */
static uint64_t caller_limit_us(const struct nest_call *call, uint64_t now_us)
{
	uint64_t wall_ms;

	if (call->caller_deadline_ms == 0)
		return UINT64_MAX;
	wall_ms = nest_clock_wall_ms();
	return call->caller_deadline_ms > wall_ms
		       ? now_us + (call->caller_deadline_ms - wall_ms) * 1000
		       : now_us;
}

/*
 * Who comes to find no worker at all may wait for one to come up, on top of the queue's own limit.
 */
static uint64_t wait_limit_us(const struct nest_dispatch *dispatch, struct nest_call *call)
{
	const struct nest_function_spec *spec = dispatch->plan->spec;
	uint64_t limit = call->start_us + spec->queue_wait_ms * 1000ull;
	uint64_t callers = caller_limit_us(call, call->start_us);

	if (dispatch->ready == 0)
		limit += spec->init_timeout_ms * 1000ull;
	call->until_caller = callers < limit;
	return call->until_caller ? callers : limit;
}

static void enqueue(struct nest_dispatch *dispatch, struct nest_call *call, bool first)
{
	if (first)
		DL_PREPEND(dispatch->queue, call);
	else
		DL_APPEND(dispatch->queue, call);
	dispatch->queued++;
	call->queued = true;
	call->deadline.cb = on_wait_over;
	call->deadline.arg = call;
	nest_deadlines_set(
		dispatch->services->deadlines, &call->deadline, wait_limit_us(dispatch, call));
}

void nest_dispatch_withdraw(struct nest_dispatch *dispatch, struct nest_call *call)
{
	dequeue(dispatch, call);
	check_leaving(dispatch);
}

/* ---- giving ---- */

/* One that is surplus only where all others are full. */
static struct nest_worker *least_loaded(const struct nest_dispatch *dispatch)
{
	struct nest_worker *best = NULL, *surplus = NULL;
	struct nest_worker_link *link;
	uint32_t most_free = 0;

	if (dispatch->ready == 0 || nest_dispatch_saturated(dispatch))
		return NULL;
	DL_FOREACH(dispatch->workers, link) {
		uint32_t free_slots = nest_worker_free_slots(link->worker);

		if (free_slots <= (link->surplus ? 0 : most_free))
			continue;
		if (link->surplus) {
			surplus = link->worker;
			continue;
		}
		best = link->worker;
		most_free = free_slots;
		if (most_free == dispatch->plan->concurrency)
			break; /* the first idle one: those behind it may go */
	}
	return best ? best : surplus;
}

static int give(struct nest_dispatch *dispatch, struct nest_worker *worker, struct nest_call *call)
{
	uint64_t now_us = call->queued ? nest_clock_mono_us() : call->start_us;
	uint64_t limit_us = now_us + dispatch->plan->spec->timeout_ms * 1000ull;
	uint64_t callers_us = caller_limit_us(call, now_us);
	int r;

	if (callers_us < limit_us)
		limit_us = callers_us;
	if (call->queued)
		dequeue(dispatch, call);
	call->given_us = now_us;
	call->cold = nest_worker_ready_us(worker) > call->start_us;
	r = nest_worker_give(
		worker, call, limit_us, nest_clock_wall_ms() + (limit_us - now_us) / 1000);
	if (r < 0)
		nest_call_refuse(call, NEST_FAILURE_UNAVAILABLE, 1,
			"the request could not be handed to function '%s'", name_of(dispatch));
	return r;
}

static void give_waiting(struct nest_dispatch *dispatch)
{
	struct nest_worker *worker;

	while (dispatch->queue && (worker = least_loaded(dispatch)))
		give(dispatch, worker, dispatch->queue);
}

/* A queue of length 0 still lets as many wait for the first worker as it will take. */
static uint32_t queue_bound(const struct nest_dispatch *dispatch)
{
	uint32_t length = dispatch->plan->spec->queue_length;

	if (dispatch->ready > 0 || length > dispatch->plan->concurrency)
		return length;
	return dispatch->plan->concurrency;
}

static void refuse_throttled(struct nest_dispatch *dispatch, struct nest_call *call)
{
	nest_call_refuse(call, NEST_FAILURE_THROTTLED, 1,
		"the queue of function '%s' is full: %u requests wait already", name_of(dispatch),
		dispatch->queued);
}

/* Whether no worker can come up before @call may not wait any longer. */
static bool too_late(struct nest_dispatch *dispatch, struct nest_call *call)
{
	const struct nest_backoff *backoff = &dispatch->backoff;

	if (dispatch->ready > 0 || dispatch->starting > 0 || backoff->failures == 0)
		return false;
	if (nest_backoff_quarantined(backoff, &dispatch->plan->spec->protection.quarantine))
		return backoff->until_us > call->start_us;
	return backoff->until_us > wait_limit_us(dispatch, call);
}

static void refuse_late(struct nest_dispatch *dispatch, struct nest_call *call)
{
	uint64_t left_us = dispatch->backoff.until_us - call->start_us;

	nest_call_refuse(call, NEST_FAILURE_UNAVAILABLE, (unsigned)(left_us / 1000000 + 1),
		"function '%s' can't be started just now: %s", name_of(dispatch),
		dispatch->failure);
}

void nest_dispatch_submit(struct nest_dispatch *dispatch, struct nest_call *call)
{
	struct nest_services *services = dispatch->services;
	struct nest_worker *worker;

	if (services->draining || dispatch->retiring) {
		nest_call_refuse(call, NEST_FAILURE_DRAINING, 1,
			services->draining ? "the host is going away"
					   : "this version of the function is being removed");
		return;
	}
	if (!nest_dispatch_admit(dispatch, call))
		return;
	if (!dispatch->queue && (worker = least_loaded(dispatch))) {
		give(dispatch, worker, call);
		return;
	}
	if (dispatch->queued >= queue_bound(dispatch)) {
		refuse_throttled(dispatch, call);
		return;
	}
	if (too_late(dispatch, call)) {
		refuse_late(dispatch, call);
		return;
	}
	enqueue(dispatch, call, false);
	nest_dispatch_pump(dispatch);
}

/* ---- starting ---- */

void nest_dispatch_warm_over(struct nest_dispatch *dispatch, bool over)
{
	if (over)
		nest_deadlines_set(dispatch->services->deadlines, &dispatch->warmed, 0);
}

static void set_starved(struct nest_dispatch *dispatch, bool starved)
{
	if (dispatch->starved == starved)
		return;
	dispatch->starved = starved;
	dispatch->services->starved += starved ? 1 : -1u;
}

/* How many workers to start now: as many as the load wants, but no more than what waits can use. */
static uint32_t wanted(const struct nest_dispatch *dispatch)
{
	uint32_t concurrency = dispatch->plan->concurrency;
	uint32_t most = dispatch->plan->spec->protection.concurrency;
	uint32_t alive = dispatch->ready + dispatch->starting, open = 0, want, need;
	struct nest_worker_link *link;

	if (dispatch->worn && dispatch->starting == 0)
		return 1; /* in its place, and for a moment beside it */
	if (dispatch->queued == 0)
		return nest_dispatch_keep(dispatch) > alive ? nest_dispatch_keep(dispatch) - alive
							    : 0;
	DL_FOREACH(dispatch->workers, link) {
		if (nest_worker_state(link->worker) == NEST_WORKER_BUSY)
			open += nest_worker_open(link->worker);
	}
	want = (open + dispatch->queued + concurrency - 1) / concurrency;
	if (want < nest_dispatch_keep(dispatch))
		want = nest_dispatch_keep(dispatch);
	if (want > nest_dispatch_most(dispatch))
		want = nest_dispatch_most(dispatch);
	if (most > 0 && want > (most + concurrency - 1) / concurrency)
		want = (most + concurrency - 1) / concurrency;
	if (want <= alive)
		return 0;
	need = (dispatch->queued + concurrency - 1) / concurrency;
	need = need > dispatch->starting ? need - dispatch->starting : 0;
	if (nest_dispatch_keep(dispatch) > alive && need < nest_dispatch_keep(dispatch) - alive)
		need = nest_dispatch_keep(dispatch) - alive;
	return need < want - alive ? need : want - alive;
}

static const struct nest_worker_events worker_events;

static int start_one(struct nest_dispatch *dispatch)
{
	/* What is only wanted ahead of the load takes nothing from others. */
	bool ahead =
		!dispatch->queue && dispatch->ready + dispatch->starting >= nest_room_due(dispatch);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_worker *worker = ahead ? NULL : nest_reserve_take(dispatch->reserve);
	int r = -EAGAIN;

	if (worker) {
		DL_APPEND(dispatch->workers, nest_worker_link(worker));
		dispatch->starting++;
		nest_worker_wake(worker, &worker_events, dispatch);
		nest_dispatch_release(dispatch);
		return 0;
	}
	if (ahead && dispatch->services->starved > 0)
		return r;
	if (nest_room_has(dispatch))
		r = nest_worker_start(dispatch->services, dispatch->plan, &worker_events, dispatch,
			&worker, &err);
	if (r == -EAGAIN && ahead)
		return r;
	if (r == -EAGAIN) {
		set_starved(dispatch, true);
		nest_room_make(dispatch);
		if (dispatch->services->evictions == 0)
			nest_dispatch_warm_over(dispatch,
				nest_warm_note_end(&dispatch->warm, dispatch->ready, NULL));
		return r;
	}
	if (r < 0) {
		nest_services_event(dispatch->services, NEST_LOG_ERROR, "%s", nest_err_text(&err));
		nest_dispatch_back_off(
			dispatch, "the host can make no worker for it", nest_err_text(&err));
		return r;
	}
	DL_APPEND(dispatch->workers, nest_worker_link(worker));
	dispatch->starting++;
	return 0;
}

static void start_wanted(struct nest_dispatch *dispatch)
{
	if (dispatch->services->closing || (dispatch->retiring && !dispatch->queue))
		return;
	/* After a failure not before its time, and one at a time. */
	if (dispatch->backoff.failures > 0 &&
		(dispatch->starting > 0 || nest_deadline_is_set(&dispatch->retry)))
		return;
	set_starved(dispatch, false);
	for (uint32_t n = wanted(dispatch); n > 0; n--) {
		if (start_one(dispatch) < 0 || dispatch->backoff.failures > 0)
			return;
	}
}

void nest_dispatch_pump(struct nest_dispatch *dispatch)
{
	if (dispatch->pumping)
		return; /* the one under way looks again at what this changed */
	dispatch->pumping = true;
	give_waiting(dispatch);
	start_wanted(dispatch);
	dispatch->pumping = false;
	check_leaving(dispatch);
}

static void on_retry(void *arg)
{
	nest_dispatch_pump(arg);
}

/* ---- what workers tell ---- */

static void on_ready(void *arg, struct nest_worker *worker)
{
	struct nest_dispatch *dispatch = arg;

	(void)worker;
	dispatch->starting--;
	dispatch->ready++;
	nest_dispatch_relieve(dispatch);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->retry);
	nest_dispatch_warm_over(dispatch, nest_warm_note_ready(&dispatch->warm, dispatch->ready));
	nest_standby_look(dispatch->services);
	nest_dispatch_pump(dispatch);
}

/* A cell is free, or could be freed: who waits for one tries again. */
void nest_dispatch_feed(void *arg)
{
	struct nest_services *services = arg;
	struct nest_dispatch *dispatch, *next;

	if (services->starved == 0)
		return;
	DL_FOREACH_SAFE(services->dispatches, dispatch, next) {
		if (dispatch->starved)
			nest_dispatch_pump(dispatch);
	}
}

static void on_slot(void *arg, struct nest_worker *worker)
{
	struct nest_dispatch *dispatch = arg;

	nest_dispatch_recover(dispatch);
	nest_dispatch_wear(dispatch, worker);
	if (dispatch->queue)
		nest_dispatch_pump(dispatch);
	if (dispatch->services->starved > 0 && nest_worker_open(worker) == 0)
		nest_dispatch_feed(dispatch->services);
	if (nest_worker_link(worker)->surplus && nest_worker_open(worker) == 0)
		nest_worker_leave(worker);
	if (dispatch->retiring)
		check_leaving(dispatch);
}

static void on_idle(void *arg, struct nest_worker *worker)
{
	nest_dispatch_rest(arg, worker);
}

static struct nest_call *first_before(
	struct nest_dispatch *dispatch, uint64_t us, bool only_second_try)
{
	struct nest_call *call;

	DL_FOREACH(dispatch->queue, call) {
		if (call->start_us <= us && (!only_second_try || call->start_crashed))
			return call;
	}
	return NULL;
}

/*
 * A start failed and nobody else can serve what waits. Where the code said why, or it was not ready
 * in time, another try would end alike; a worker that died without a word is tried once more for
 * each request.
 */
static void fail_start_waiters(struct nest_dispatch *dispatch, const struct nest_worker_end *end)
{
	struct nest_failure why = {
		.kind = end->kind,
		.message = end->message,
		.error_json = end->error_json,
		.error_json_len = end->error_json_len,
		.retry_after_s = end->kind == NEST_FAILURE_UNAVAILABLE ? 1 : 0,
	};
	uint64_t now_us = nest_clock_mono_us();
	struct nest_call *call;

	while ((call = first_before(dispatch, now_us, !end->final)))
		fail_waiting(dispatch, call, &why);
	DL_FOREACH(dispatch->queue, call)
		call->start_crashed = true;
}

static void on_ended(void *arg, struct nest_worker *worker, const struct nest_worker_end *end)
{
	struct nest_dispatch *dispatch = arg;

	nest_dispatch_forget_worn(dispatch, worker);
	if (nest_worker_ready_us(worker))
		dispatch->ready--;
	else
		dispatch->starting--;
	nest_reserve_touch(dispatch->reserve);
	nest_standby_look(dispatch->services);
	if (end->clone_failed) {
		nest_dispatch_pump(dispatch); /* the next one is started plainly */
		return;
	}
	if (!end->was_ready || end->barren)
		nest_dispatch_back_off(dispatch, end->message, end->detail);
	if (!end->was_ready && dispatch->ready == 0 && dispatch->starting == 0)
		fail_start_waiters(dispatch, end);
	nest_dispatch_pump(dispatch);
}

static void on_unbegun(void *arg, struct nest_call *call)
{
	struct nest_dispatch *dispatch = arg;

	nest_deadlines_clear(dispatch->services->deadlines, &call->deadline);
	enqueue(dispatch, call, true);
	nest_dispatch_pump(dispatch);
}

static void on_gone(void *arg, struct nest_worker *worker)
{
	struct nest_dispatch *dispatch = arg;

	DL_DELETE(dispatch->workers, nest_worker_link(worker));
	if (nest_worker_link(worker)->evicted)
		dispatch->services->evictions--;
	/* Its cell counts until this callback has returned. */
	if (dispatch->services->starved > 0)
		nest_deadlines_set(
			dispatch->services->deadlines, &dispatch->services->cell_freed, 0);
	nest_standby_look(dispatch->services); /* there is room */
	nest_dispatch_pump(dispatch);
}

static const struct nest_worker_events worker_events = {
	.ready = on_ready,
	.slot = on_slot,
	.idle = on_idle,
	.ended = on_ended,
	.unbegun = on_unbegun,
	.gone = on_gone,
};

/* ---- life ---- */

static void on_retired(void *arg)
{
	struct nest_dispatch *dispatch = arg;

	dispatch->on_retired(dispatch->on_retired_arg);
}

static void on_overdue(void *arg)
{
	nest_dispatch_abort(arg, "this version of the function has been removed");
}

/* What they were kept for has come, or has failed: from now on they are like others. */
static void on_warmed(void *arg)
{
	struct nest_dispatch *dispatch = arg;

	dispatch->warm_held = false;
	nest_warm_tell(&dispatch->warm);
	nest_dispatch_pump(dispatch);
}

int nest_dispatch_new(struct nest_services *services, const struct nest_worker_plan *plan,
	struct nest_dispatch **ret)
{
	struct nest_dispatch *dispatch = calloc(1, sizeof(*dispatch));

	if (!dispatch || nest_deadlines_reserve(services->deadlines, DEADLINES) < 0) {
		free(dispatch);
		return -ENOMEM;
	}
	dispatch->services = services;
	dispatch->plan = plan;
	dispatch->id = ++services->last_dispatch_id;
	dispatch->scale.ceiling = UINT32_MAX;
	dispatch->retry.cb = on_retry;
	dispatch->retry.arg = dispatch;
	dispatch->retired.cb = on_retired;
	dispatch->retired.arg = dispatch;
	dispatch->overdue.cb = on_overdue;
	dispatch->overdue.arg = dispatch;
	dispatch->aged.cb = nest_dispatch_on_aged;
	dispatch->aged.arg = dispatch;
	dispatch->warmed.cb = on_warmed;
	dispatch->warmed.arg = dispatch;
	if (nest_reserve_new(services, dispatch, plan, &dispatch->reserve) < 0) {
		nest_deadlines_release(services->deadlines, DEADLINES);
		free(dispatch);
		return -ENOMEM;
	}
	DL_APPEND(services->dispatches, dispatch);
	*ret = dispatch;
	return 0;
}

void nest_dispatch_free(struct nest_dispatch *dispatch)
{
	if (!dispatch)
		return;
	set_starved(dispatch, false);
	nest_warm_note_end(&dispatch->warm, 0, "the version of the function is gone");
	nest_warm_tell(&dispatch->warm);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->warmed);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->aged);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->retry);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->retired);
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->overdue);
	nest_deadlines_release(dispatch->services->deadlines, DEADLINES);
	DL_DELETE(dispatch->services->dispatches, dispatch);
	nest_reserve_free(dispatch->reserve);
	free(dispatch);
}

/* Those that were to go once they are idle are needed after all. */
static void keep_workers(struct nest_dispatch *dispatch)
{
	struct nest_worker_link *link;

	DL_FOREACH(dispatch->workers, link)
		nest_worker_stay(link->worker);
}

void nest_dispatch_set_live(struct nest_dispatch *dispatch, bool live)
{
	if (dispatch->live == live)
		return;
	dispatch->live = live;
	dispatch->fading = !live;
	if (live)
		keep_workers(dispatch);
	nest_reserve_set_open(dispatch->reserve, live);
	nest_services_stir(dispatch->services);
	nest_dispatch_pump(dispatch);
}

/*
 * A version that takes over is worth the moment that its snapshot takes: all its workers start from it. Not for
 * longer than an init may take, as others' snapshots may be made first.
 */
static void hold_for_snapshot(struct nest_dispatch *dispatch)
{
	struct nest_frozen *frozen = dispatch->plan->frozen;

	if (!frozen || !nest_frozen_is_pending(frozen) || nest_deadline_is_set(&dispatch->warmed))
		return;
	dispatch->warm_held = true;
	nest_deadlines_set(dispatch->services->deadlines, &dispatch->warmed,
		nest_clock_mono_us() + dispatch->plan->spec->init_timeout_ms * 1000ull);
}

void nest_dispatch_snapshot_settled(struct nest_dispatch *dispatch)
{
	nest_dispatch_warm_over(dispatch, dispatch->warm_held);
}

int nest_dispatch_warm(struct nest_dispatch *dispatch, uint32_t n,
	void (*cb)(void *arg, const struct nest_err *why), void *arg)
{
	int r = nest_warm_add(&dispatch->warm, n > 0 ? n : 1, cb, arg);

	if (r < 0)
		return r;
	keep_workers(dispatch);
	if (n == 0 || dispatch->retiring || dispatch->services->closing)
		nest_dispatch_warm_over(
			dispatch, nest_warm_note_end(&dispatch->warm, dispatch->ready, NULL));
	nest_dispatch_warm_over(dispatch, nest_warm_note_ready(&dispatch->warm, dispatch->ready));
	hold_for_snapshot(dispatch);
	/* whoever asks for it wants it tried now, however the last start went */
	nest_deadlines_clear(dispatch->services->deadlines, &dispatch->retry);
	nest_dispatch_pump(dispatch);
	return 0;
}

uint32_t nest_dispatch_alive(const struct nest_dispatch *dispatch)
{
	return dispatch->ready + dispatch->starting;
}

void nest_dispatch_retire(struct nest_dispatch *dispatch, void (*cb)(void *arg), void *arg)
{
	dispatch->retiring = true;
	nest_reserve_set_open(dispatch->reserve, false);
	dispatch->on_retired = cb;
	dispatch->on_retired_arg = arg;
	nest_deadlines_set(dispatch->services->deadlines, &dispatch->overdue,
		nest_clock_mono_us() + dispatch->services->config->drain_grace_ms * 1000ull);
	check_leaving(dispatch);
}

void nest_dispatch_hold(struct nest_dispatch *dispatch)
{
	dispatch->holds++;
}

void nest_dispatch_release(struct nest_dispatch *dispatch)
{
	dispatch->holds--;
	check_leaving(dispatch);
}

void nest_dispatch_abort(struct nest_dispatch *dispatch, const char *message)
{
	struct nest_failure why = {
		.kind = NEST_FAILURE_DRAINING,
		.message = message,
		.retry_after_s = 1,
	};
	struct nest_worker_link *link;

	while (dispatch->queue)
		fail_waiting(dispatch, dispatch->queue, &why);
	DL_FOREACH(dispatch->workers, link)
		nest_worker_kill(link->worker, NEST_FAILURE_CRASHED, message);
	nest_reserve_clear(dispatch->reserve, message);
	/* What a worker had not begun came back. */
	while (dispatch->queue)
		fail_waiting(dispatch, dispatch->queue, &why);
}

static bool count_worker(void *arg, struct nest_worker *worker)
{
	struct nest_target_stats *stats = arg;
	struct nest_worker_stats one;

	nest_worker_stats(worker, &one);
	stats->workers[one.state]++;
	stats->in_flight += one.in_flight;
	stats->paused += nest_worker_is_paused(worker);
	stats->prefetched += one.prefetched && one.state == NEST_WORKER_STANDBY;
	stats->private_bytes += one.private_bytes;
	stats->shared_bytes += one.shared_bytes;
	if (one.state == NEST_WORKER_STANDBY)
		stats->standby_bytes += one.private_bytes;
	return true;
}

void nest_dispatch_stats(const struct nest_dispatch *dispatch, struct nest_target_stats *ret)
{
	ret->queued = dispatch->queued;
	if (dispatch->queue)
		ret->oldest_wait_us = nest_clock_mono_us() - dispatch->queue->start_us;
	ret->desired = nest_dispatch_keep(dispatch);
	nest_dispatch_protection_stats(dispatch, ret);
	nest_dispatch_each_worker(dispatch, count_worker, ret);
}

bool nest_dispatch_each_worker(const struct nest_dispatch *dispatch,
	bool (*cb)(void *arg, struct nest_worker *worker), void *arg)
{
	struct nest_worker_link *link;

	DL_FOREACH(dispatch->workers, link) {
		if (!cb(arg, link->worker))
			return false;
	}
	return nest_reserve_each(dispatch->reserve, cb, arg);
}
