/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

/* What others want to know of a worker. */

bool nest_worker_is_spent(const struct nest_worker *worker)
{
	return worker->plan->spec->reuse_never && worker->requests_total > 0;
}

bool nest_worker_is_leaving(const struct nest_worker *worker)
{
	return worker->leaving || worker->leave_when_idle;
}

uint32_t nest_worker_free_slots(const struct nest_worker *worker)
{
	if (worker->stage != NEST_WORKER_STAGE_READY || nest_worker_is_spent(worker))
		return 0;
	return worker->streams.most - worker->streams.open;
}

uint32_t nest_worker_open(const struct nest_worker *worker)
{
	return worker->streams.open;
}

bool nest_worker_is_paused(const struct nest_worker *worker)
{
	return worker->paused;
}

uint64_t nest_worker_ready_us(const struct nest_worker *worker)
{
	return worker->ready_us;
}

uint64_t nest_worker_idle_since_us(const struct nest_worker *worker)
{
	return worker->idle_since_us;
}

struct nest_worker_link *nest_worker_link(struct nest_worker *worker)
{
	return &worker->link;
}

bool nest_worker_is_prefetched(const struct nest_worker *worker)
{
	return worker->prefetched;
}

bool nest_worker_is_standing(const struct nest_worker *worker)
{
	return worker->stage == NEST_WORKER_STAGE_STANDBY;
}

const char *nest_worker_rung_name(enum nest_rung rung)
{
	static const char *const names[NEST_RUNGS] = {
		[NEST_RUNG_STANDBY] = "standby",
		[NEST_RUNG_SNAPSHOT] = "snapshot",
		[NEST_RUNG_RUNTIME] = "runtime",
		[NEST_RUNG_PLAIN] = "plain",
	};

	return names[rung];
}

const char *nest_worker_state_name(enum nest_worker_state state)
{
	static const char *const names[NEST_WORKER_STATES] = {
		[NEST_WORKER_STARTING] = "starting",
		[NEST_WORKER_IDLE] = "idle",
		[NEST_WORKER_BUSY] = "busy",
		[NEST_WORKER_DRAINING] = "draining",
		[NEST_WORKER_STANDBY] = "standby",
	};

	return names[state];
}

enum nest_worker_state nest_worker_state(const struct nest_worker *worker)
{
	switch (worker->stage) {
	case NEST_WORKER_STAGE_STARTING:
		return worker->standby ? NEST_WORKER_STANDBY : NEST_WORKER_STARTING;
	case NEST_WORKER_STAGE_STANDBY:
		return NEST_WORKER_STANDBY;
	case NEST_WORKER_STAGE_READY:
		return worker->streams.open > 0 ? NEST_WORKER_BUSY : NEST_WORKER_IDLE;
	default:
		return NEST_WORKER_DRAINING;
	}
}

void nest_worker_stats(const struct nest_worker *worker, struct nest_worker_stats *ret)
{
	*ret = (struct nest_worker_stats){
		.id = worker->id,
		.pid = worker->pid,
		.state = nest_worker_state(worker),
		.paused = worker->paused,
		.prefetched = worker->prefetched,
		.in_flight = worker->streams.open,
		.requests_total = worker->requests_total,
		.age_ms = (nest_clock_mono_us() - worker->start_us) / 1000,
		.memory_bytes = worker->memory_bytes,
		.memory_peak_bytes = worker->memory_peak_bytes,
		.private_bytes = worker->private_bytes,
		.measured = worker->measured_as_it_is,
		.shared_bytes = worker->shared_bytes,
		.cpu_us = worker->cpu_us,
		.function = worker->plan->spec->name,
		.version = worker->plan->spec->version,
	};
}

uint64_t nest_worker_charged_bytes(const struct nest_worker *worker)
{
	return worker->charged_bytes;
}

static void on_usage(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg)
{
	struct nest_worker *worker = arg;

	(void)cell;
	/* a cell that can't be measured stays charged for what it was taken for */
	if (usage->memory_bytes > 0)
		nest_worker_charge(worker, usage->memory_bytes);
	if (usage->cpu_us > worker->cpu_us)
		worker->plan->tally->cpu_us += usage->cpu_us - worker->cpu_us;
	if (!worker->standby) /* one that stands by says little of those that serve */
		worker->plan->tally->worker_bytes = usage->memory_bytes;
	worker->memory_bytes = usage->memory_bytes;
	worker->memory_peak_bytes = usage->memory_peak_bytes;
	worker->private_bytes = usage->private_bytes;
	worker->measured_as_it_is = true;
	worker->shared_bytes = usage->shared_bytes;
	worker->cpu_us = usage->cpu_us;
	nest_take_ptr(worker->measured)(worker->measured_arg);
}

int nest_worker_measure(struct nest_worker *worker, void (*cb)(void *arg), void *arg)
{
	int r;

	if (worker->measured || !worker->cell)
		return -EALREADY;
	r = nest_cell_measure(worker->cell, on_usage, worker);
	if (r < 0)
		return r;
	worker->measured = cb;
	worker->measured_arg = arg;
	return 0;
}
