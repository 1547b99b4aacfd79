/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

/*
 * An idle worker is stopped where it is, so that its timers and threads take no CPU time, and goes
 * on with its next request: what is sent to it meanwhile waits in its channel. It is not asked how
 * it is while it can't answer.
 */

static void on_pause_due(void *arg)
{
	struct nest_worker *worker = arg;
	uint64_t due_us = worker->idle_since_us + worker->plan->spec->pause_ms * 1000ull;

	if (worker->streams.open > 0 || worker->stage != NEST_WORKER_STAGE_READY)
		return; /* it is set again when the last request ends */
	if (due_us > nest_clock_mono_us()) {
		nest_deadlines_set(worker->services->deadlines, &worker->pause_deadline, due_us);
		return;
	}
	if (nest_cell_freeze(worker->cell) < 0)
		return;
	worker->paused = true;
	worker->pinged_us = 0;
	nest_deadlines_clear(worker->services->deadlines, &worker->ping_deadline);
}

void nest_worker_pause_later(struct nest_worker *worker)
{
	if (worker->plan->spec->pause_ms == 0 || worker->plan->to_freeze ||
		nest_deadline_is_set(&worker->pause_deadline) ||
		!nest_sandbox_can_freeze(worker->services->sandbox))
		return;
	worker->pause_deadline.cb = on_pause_due;
	worker->pause_deadline.arg = worker;
	nest_deadlines_set(worker->services->deadlines, &worker->pause_deadline,
		worker->idle_since_us + worker->plan->spec->pause_ms * 1000ull);
}

void nest_worker_unpause(struct nest_worker *worker)
{
	if (!worker->paused)
		return;
	worker->paused = false;
	worker->heard = true;
	/* one that can't be thawed is killed, and its exit tells what becomes of its requests */
	if (worker->cell && nest_cell_thaw(worker->cell) == 0)
		nest_worker_watch(worker);
}
