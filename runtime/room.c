/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/room.h"

#include <utlist.h>

#include "base/clock.h"
#include "runtime/dispatch_impl.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/standby.h"
#include "runtime/worker.h"
#include "runtime/worth.h"

#define ESTIMATE_BYTES (64ull << 20) /* of a function of which nothing is known yet */

uint64_t nest_room_estimate(const struct nest_worker_plan *plan)
{
	if (plan->tally->worker_bytes > 0)
		return plan->tally->worker_bytes;
	return plan->memory_bytes < ESTIMATE_BYTES ? plan->memory_bytes : ESTIMATE_BYTES;
}

/* ---- whether there is room ---- */

/* Never more than it may have. */
static uint32_t reserved(const struct nest_dispatch *dispatch)
{
	uint32_t most = nest_dispatch_most(dispatch);
	uint32_t wanted = dispatch->plan->spec->workers_reserved;

	if (!dispatch->live || dispatch->retiring)
		return 0;
	return wanted < most ? wanted : most;
}

static uint32_t alive(const struct nest_dispatch *dispatch)
{
	return dispatch->ready + dispatch->starting;
}

uint32_t nest_room_due(const struct nest_dispatch *dispatch)
{
	uint32_t least = nest_dispatch_least(dispatch);

	return reserved(dispatch) > least ? reserved(dispatch) : least;
}

bool nest_room_has(const struct nest_dispatch *dispatch)
{
	const struct nest_services *services = dispatch->services;
	uint64_t limit = services->config->workers_bytes;
	uint64_t bytes = services->memory_bytes + nest_room_estimate(dispatch->plan);
	uint32_t cells = services->workers + 1;
	const struct nest_dispatch *other;

	/* it always may have what it has reserved, and a first worker of all */
	if (alive(dispatch) < reserved(dispatch) || services->workers == 0)
		return true;
	DL_FOREACH(services->dispatches, other) {
		uint32_t missing;

		if (other == dispatch || reserved(other) <= alive(other))
			continue;
		missing = reserved(other) - alive(other);
		cells += missing;
		bytes += missing * nest_room_estimate(other->plan);
	}
	return cells <= services->config->max_cells && (limit == 0 || bytes <= limit);
}

/* ---- making some ---- */

struct choice {
	struct nest_worker *worker;
	double worth;
};

static double worth_of(const struct nest_dispatch *dispatch, const struct nest_worker *worker)
{
	const struct nest_histogram *cold = &dispatch->plan->tally->cold_start;
	uint64_t now_us = nest_clock_mono_us(), starts = 0;
	struct nest_worker_stats stats;
	struct nest_worth worth;

	for (unsigned i = 0; i <= NEST_LATENCY_BUCKETS; i++)
		starts += cold->count[i];
	nest_worker_stats(worker, &stats);
	worth = (struct nest_worth){
		.idle_us = now_us - nest_worker_idle_since_us(worker),
		.age_us = stats.age_ms * 1000,
		.requests = stats.requests_total,
		.cold_us = starts ? (uint64_t)(cold->sum_s / (double)starts * 1e6) : 0,
		.memory_bytes = stats.memory_bytes ? stats.memory_bytes
						   : nest_room_estimate(dispatch->plan),
	};
	return nest_worth_of(&worth);
}

/* What it can't do without, and what it is due, stay. */
static bool can_spare(const struct nest_dispatch *dispatch)
{
	return !dispatch->queue && dispatch->ready > nest_room_due(dispatch);
}

static void choose_of(const struct nest_dispatch *dispatch, struct choice *choice)
{
	struct nest_worker_link *link;

	if (!can_spare(dispatch))
		return;
	DL_FOREACH(dispatch->workers, link) {
		double worth;

		if (nest_worker_state(link->worker) != NEST_WORKER_IDLE)
			continue;
		worth = worth_of(dispatch, link->worker);
		if (choice->worker && worth >= choice->worth)
			continue;
		choice->worker = link->worker;
		choice->worth = worth;
	}
}

void nest_room_make(const struct nest_dispatch *dispatch)
{
	struct nest_services *services = dispatch->services;
	const struct nest_dispatch *other;
	struct choice choice = { .worker = NULL };

	if (services->evictions >= services->starved || nest_standby_yield(services))
		return;
	DL_FOREACH(services->dispatches, other) {
		if (other != dispatch)
			choose_of(other, &choice);
	}
	if (!choice.worker)
		return;
	nest_worker_link(choice.worker)->evicted = true;
	services->evictions++;
	nest_worker_kill(choice.worker, NEST_FAILURE_CANCELLED, "another function needs its room");
}

void nest_room_settle(struct nest_services *services)
{
	uint64_t limit = services->config->workers_bytes, bytes = services->memory_bytes;
	const struct nest_dispatch *dispatch;

	while (limit > 0 && bytes > limit) {
		struct choice choice = { .worker = NULL };
		uint64_t its;

		DL_FOREACH(services->dispatches, dispatch)
			choose_of(dispatch, &choice);
		if (!choice.worker)
			return;
		its = nest_worker_charged_bytes(choice.worker);
		bytes = bytes > its ? bytes - its : 0;
		nest_worker_kill(
			choice.worker, NEST_FAILURE_CANCELLED, "the workers' memory is short");
	}
}
