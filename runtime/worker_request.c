/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/clock.h"
#include "runtime/call_impl.h"
#include "runtime/channel.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

/*
 * A request on a worker, and what becomes of its slot. At the deadline, or when the caller goes,
 * the worker is sent CANCEL and the request is detached: it holds its slot until the worker ends
 * its stream. When that takes longer than the grace, the worker is stuck: killed at once if its
 * event loop doesn't answer either, or if nobody else waits for it; otherwise it gets no more
 * requests, and is killed when those it has are done.
 */

static uint64_t grace_us(const struct nest_worker *worker)
{
	return worker->services->config->cancel_grace_ms * 1000ull;
}

static void doom_stuck(struct nest_worker *worker)
{
	char message[256];

	snprintf(message, sizeof(message), "function '%s' did not stop a request that was over",
		worker->plan->spec->name);
	nest_worker_doom(worker, NEST_RESTART_TIMEOUT, message);
}

static void on_grace_over(void *arg)
{
	struct nest_call *call = arg;
	struct nest_worker *worker = call->worker;

	worker->stuck = true;
	if (worker->streams.live == 0 || (worker->pinged_us && !worker->heard))
		doom_stuck(worker);
	else
		nest_worker_leave(worker);
}

static void arm_grace(struct nest_worker *worker, struct nest_call *call, uint64_t at_us)
{
	call->deadline.cb = on_grace_over;
	nest_deadlines_set(worker->services->deadlines, &call->deadline, at_us);
}

static void on_overdue(void *arg)
{
	struct nest_call *call = arg;
	struct nest_worker *worker = call->worker;
	uint64_t ms = (call->run_until_us - call->given_us + 500) / 1000;

	nest_streams_abandon(&worker->streams, call);
	nest_worker_ping(worker);
	nest_call_fail(call, NEST_FAILURE_TIMEOUT, 0, "function '%s' did not answer within %llu ms",
		worker->plan->spec->name, (unsigned long long)ms);
	if (worker->plan->concurrency == 1 || (worker->stuck && worker->streams.live == 0))
		doom_stuck(worker);
	else
		arm_grace(worker, call, nest_clock_mono_us() + grace_us(worker));
}

int nest_worker_give(struct nest_worker *worker, struct nest_call *call, uint64_t run_until_us,
	uint64_t deadline_ms)
{
	int r = nest_streams_begin(&worker->streams, call, deadline_ms);

	if (r < 0)
		return r;
	call->worker = worker;
	call->run_until_us = run_until_us;
	call->deadline.cb = on_overdue;
	call->deadline.arg = call;
	nest_deadlines_set(worker->services->deadlines, &call->deadline, run_until_us);
	worker->requests_total++;
	nest_worker_unpause(worker);
	if (call->pending.len == 0)
		nest_call_tell_writable(call);
	return 0;
}

void nest_worker_push(struct nest_worker *worker, struct nest_call *call)
{
	nest_streams_push(&worker->streams, call);
}

void nest_worker_consumed(struct nest_worker *worker, struct nest_call *call, size_t n)
{
	nest_streams_consumed(&worker->streams, call, n);
}

/*
 * A caller that goes must not cost others their answers: where they share the worker, the handler
 * has until its own deadline to notice.
 */
void nest_worker_abandon(struct nest_worker *worker, struct nest_call *call)
{
	uint64_t from_us = nest_clock_mono_us();

	if (worker->plan->concurrency > 1 && call->run_until_us > from_us)
		from_us = call->run_until_us;
	nest_streams_abandon(&worker->streams, call);
	arm_grace(worker, call, from_us + grace_us(worker));
	if (worker->stuck && worker->streams.live == 0)
		nest_deadlines_set(worker->services->deadlines, &call->deadline, 0);
}

static void on_idle(void *arg)
{
	struct nest_worker *worker = arg;
	uint64_t due_us = worker->idle_since_us + worker->plan->spec->idle_ms * 1000ull;

	if (worker->streams.open > 0 || worker->stage != NEST_WORKER_STAGE_READY)
		return; /* it is set again when the last request ends */
	if (due_us > nest_clock_mono_us())
		nest_deadlines_set(worker->services->deadlines, &worker->idle_deadline, due_us);
	else
		worker->events->idle(worker->arg, worker);
}

/* The idle deadline is not moved with every request: when it comes it looks whether it is due. */
void nest_worker_rest(struct nest_worker *worker)
{
	if (worker->streams.open > 0 || worker->stage != NEST_WORKER_STAGE_READY)
		return;
	worker->idle_since_us = nest_clock_mono_us();
	if (worker->leave_when_idle) {
		nest_worker_leave(worker);
		return;
	}
	nest_worker_pause_later(worker);
	if (nest_deadline_is_set(&worker->idle_deadline))
		return;
	worker->idle_deadline.cb = on_idle;
	worker->idle_deadline.arg = worker;
	nest_deadlines_set(worker->services->deadlines, &worker->idle_deadline,
		worker->idle_since_us + worker->plan->spec->idle_ms * 1000ull);
}

void nest_worker_slot_freed(struct nest_worker *worker)
{
	if (worker->stuck && worker->streams.live == 0 && worker->streams.open > 0) {
		doom_stuck(worker);
		return;
	}
	if (worker->stage != NEST_WORKER_STAGE_READY)
		return;
	if (!worker->answered)
		nest_worker_note_answer(worker);
	if (nest_worker_is_spent(worker)) {
		nest_worker_leave(worker);
		return;
	}
	nest_worker_rest(worker);
	worker->events->slot(worker->arg, worker);
}

/* ---- health ---- */

/*
 * A handler that computes for long blocks its event loop, which is no fault while it may run: an
 * unanswered PING counts only when nothing is open, or the oldest request should have ended. Where both
 * are due in one turn of the loop, the request's deadline says what it was.
 */
static bool may_be_silent(const struct nest_worker *worker, uint64_t now_us)
{
	const struct nest_call *oldest = worker->streams.calls;

	return oldest &&
	       (oldest->run_until_us > now_us || (oldest->deadline.cb == on_overdue &&
							 nest_deadline_is_set(&oldest->deadline)));
}

static void on_ping_due(void *arg)
{
	struct nest_worker *worker = arg;
	const struct nest_host_config *config = worker->services->config;
	uint64_t now_us = nest_clock_mono_us();
	uint64_t next_us = now_us + config->ping_interval_ms * 1000ull;
	char message[256];

	if (worker->heard) {
		worker->heard = false;
		worker->pinged_us = 0;
	} else if (!worker->pinged_us) {
		nest_worker_ping(worker);
		next_us = now_us + config->ping_timeout_ms * 1000ull;
	} else if (now_us - worker->pinged_us >= config->ping_timeout_ms * 1000ull &&
		   !may_be_silent(worker, now_us)) {
		snprintf(message, sizeof(message),
			"function '%s' is hung: its worker did not answer for %u ms",
			worker->plan->spec->name, config->ping_timeout_ms);
		nest_worker_doom(worker, NEST_RESTART_HUNG, message);
		return;
	}
	nest_deadlines_set(worker->services->deadlines, &worker->ping_deadline, next_us);
}

void nest_worker_ping(struct nest_worker *worker)
{
	uint64_t now_us = nest_clock_mono_us();
	char *payload;

	if (worker->pinged_us && !worker->heard)
		return;
	if (nest_channel_put(worker->channel, NEST_FRAME_PING, false, 0, 8, &payload) < 0)
		return;
	nest_frame_put_u32(payload, (uint32_t)now_us);
	nest_frame_put_u32(payload + 4, (uint32_t)(now_us >> 32));
	worker->pinged_us = now_us;
	worker->heard = false;
}

void nest_worker_watch(struct nest_worker *worker)
{
	worker->ping_deadline.cb = on_ping_due;
	worker->ping_deadline.arg = worker;
	nest_deadlines_set(worker->services->deadlines, &worker->ping_deadline,
		nest_clock_mono_us() + worker->services->config->ping_interval_ms * 1000ull);
}
