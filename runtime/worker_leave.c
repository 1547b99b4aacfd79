/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

/* How a worker goes that did nothing wrong: it gets no more requests, and ends those that it has. */

static void on_leave_overdue(void *arg)
{
	struct nest_worker *worker = arg;
	char message[256];

	if (worker->streams.live == 0) {
		nest_worker_kill(worker, NEST_FAILURE_CANCELLED, "the worker is no longer needed");
		return;
	}
	snprintf(message, sizeof(message),
		"function '%s' did not finish its requests before its worker had to go",
		worker->plan->spec->name);
	nest_worker_doom(worker, NEST_RESTART_TIMEOUT, message);
}

void nest_worker_leave(struct nest_worker *worker)
{
	struct nest_worker_end end = { .was_ready = true, .message = "it is leaving" };
	uint32_t grace_ms = worker->streams.live > 0 ? worker->services->config->drain_grace_ms
						     : worker->services->config->cancel_grace_ms;

	if (worker->stage == NEST_WORKER_STAGE_STARTING ||
		worker->stage == NEST_WORKER_STAGE_STANDBY) {
		nest_worker_kill(worker, NEST_FAILURE_CANCELLED, "the worker is no longer needed");
		return;
	}
	if (worker->stage != NEST_WORKER_STAGE_READY)
		return;
	nest_worker_unpause(worker);
	worker->stage = NEST_WORKER_STAGE_LEAVING;
	worker->leaving = true;
	nest_channel_put(worker->channel, NEST_FRAME_DRAIN, false, 0, 0, NULL);
	worker->stage_deadline.cb = on_leave_overdue;
	nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
		nest_clock_mono_us() + grace_ms * 1000ull);
	nest_worker_end(worker, &end);
}

void nest_worker_hand_over(struct nest_worker *worker)
{
	uint64_t limit_ms = (uint64_t)worker->plan->spec->timeout_ms +
			    worker->services->config->cancel_grace_ms;

	nest_worker_leave(worker);
	if (worker->stage == NEST_WORKER_STAGE_LEAVING && worker->streams.live > 0)
		nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
			nest_clock_mono_us() + limit_ms * 1000);
}

void nest_worker_leave_when_idle(struct nest_worker *worker)
{
	worker->leave_when_idle = true;
	if (worker->streams.open == 0)
		nest_worker_leave(worker);
}

void nest_worker_stay(struct nest_worker *worker)
{
	worker->leave_when_idle = false;
}
