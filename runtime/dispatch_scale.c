/* SPDX-License-Identifier: Apache-2.0 */
#include <utlist.h>

#include "base/clock.h"
#include "runtime/dispatch.h"
#include "runtime/dispatch_impl.h"
#include "runtime/function.h"
#include "runtime/room.h"
#include "runtime/services.h"
#include "runtime/worker.h"

/*
 * How many workers a dispatch keeps, beside those that waiting requests start. Nothing here ends a
 * request: a worker that is too many is only not given any more, and leaves once it is idle; until
 * then it helps out where all others are full.
 */

static uint32_t at_most(uint32_t n, uint32_t most)
{
	return n < most ? n : most;
}

static uint32_t min_of(const struct nest_dispatch *dispatch)
{
	return dispatch->bound_max ? dispatch->bound_min : dispatch->plan->spec->workers_min;
}

uint32_t nest_dispatch_most(const struct nest_dispatch *dispatch)
{
	return dispatch->bound_max ? dispatch->bound_max : dispatch->plan->spec->workers_max;
}

uint32_t nest_dispatch_least(const struct nest_dispatch *dispatch)
{
	uint32_t min = min_of(dispatch);
	uint32_t least = min > dispatch->scale.least ? min : dispatch->scale.least;

	uint32_t warm = dispatch->warm_held ? 0 : nest_warm_wants(&dispatch->warm);

	if (dispatch->retiring)
		return 0;
	least = dispatch->live ? at_most(least, nest_dispatch_most(dispatch)) : 0;
	return warm > least ? warm : least;
}

/* From none to the first it is a request that asks: the last may have crashed, or made room. */
uint32_t nest_dispatch_keep(const struct nest_dispatch *dispatch)
{
	uint32_t desired = at_most(dispatch->scale.desired, nest_dispatch_most(dispatch));
	uint32_t least = nest_dispatch_least(dispatch);

	if (!dispatch->live || dispatch->retiring || dispatch->ready + dispatch->starting == 0)
		return least;
	return desired > least ? desired : least;
}

/* Who was idle for its time and stayed for what was wanted then is not told again: it goes now. */
static void let_idle_go(struct nest_dispatch *dispatch)
{
	uint64_t idle_us = dispatch->plan->spec->idle_ms * 1000ull;
	uint64_t now_us = nest_clock_mono_us();
	struct nest_worker_link *link;

	DL_FOREACH(dispatch->workers, link) {
		if (dispatch->ready <= nest_dispatch_keep(dispatch))
			return;
		if (nest_worker_state(link->worker) == NEST_WORKER_IDLE &&
			now_us - nest_worker_idle_since_us(link->worker) >= idle_us)
			nest_worker_leave(link->worker);
	}
}

static struct nest_worker_link *least_busy(const struct nest_dispatch *dispatch)
{
	struct nest_worker_link *least = NULL, *link;

	DL_FOREACH(dispatch->workers, link) {
		enum nest_worker_state state = nest_worker_state(link->worker);

		if (link->surplus || (state != NEST_WORKER_IDLE && state != NEST_WORKER_BUSY))
			continue;
		if (!least || nest_worker_open(link->worker) < nest_worker_open(least->worker))
			least = link;
	}
	return least;
}

static void mark_surplus(struct nest_dispatch *dispatch, uint32_t ceiling)
{
	uint32_t n = dispatch->ready > ceiling ? dispatch->ready - ceiling : 0;
	struct nest_worker_link *link;

	DL_FOREACH(dispatch->workers, link)
		link->surplus = false;
	while (n-- > 0 && (link = least_busy(dispatch))) {
		link->surplus = true;
		if (nest_worker_open(link->worker) == 0)
			nest_worker_leave(link->worker);
	}
}

/* It was due @due workers before: what it is not due any more others may have. */
static void scale_changed(struct nest_dispatch *dispatch, uint32_t due, uint32_t ceiling)
{
	struct nest_services *services = dispatch->services;

	if (services->starved > 0 && nest_room_due(dispatch) < due)
		nest_deadlines_set(services->deadlines, &services->cell_freed, 0);
	if (!dispatch->live || dispatch->retiring)
		return;
	mark_surplus(dispatch, ceiling);
	let_idle_go(dispatch);
	nest_dispatch_pump(dispatch);
}

void nest_dispatch_set_scale(struct nest_dispatch *dispatch, const struct nest_target_scale *scale)
{
	uint32_t due = nest_room_due(dispatch);

	dispatch->scale = *scale;
	scale_changed(dispatch, due, at_most(scale->ceiling, nest_dispatch_most(dispatch)));
}

void nest_dispatch_set_bounds(struct nest_dispatch *dispatch, uint32_t min, uint32_t max)
{
	uint32_t due = nest_room_due(dispatch);

	if (dispatch->bound_min == min && dispatch->bound_max == max)
		return;
	dispatch->bound_min = min;
	dispatch->bound_max = max;
	scale_changed(dispatch, due, nest_dispatch_most(dispatch));
	nest_services_stir(dispatch->services);
}

void nest_dispatch_rest(struct nest_dispatch *dispatch, struct nest_worker *worker)
{
	uint64_t quiet_us = nest_load_quiet_us(&dispatch->plan->tally->load, nest_clock_mono_us());

	if (dispatch->ready > nest_dispatch_keep(dispatch)) {
		nest_worker_leave(worker);
		return;
	}
	if (quiet_us < dispatch->plan->spec->idle_ms * 1000ull)
		return;
	dispatch->scale.desired = 0;
	let_idle_go(dispatch);
}

bool nest_dispatch_load(const struct nest_dispatch *dispatch, struct nest_target_load *ret)
{
	struct nest_tally *tally = dispatch->plan->tally;
	uint64_t now_us = nest_clock_mono_us();
	uint32_t slots = dispatch->plan->concurrency;

	if (!dispatch->live || dispatch->retiring)
		return false;
	*ret = (struct nest_target_load){
		.id = dispatch->id,
		.now_us = now_us,
		.load_us = nest_load_us(&tally->load, now_us),
		.requests = tally->load.came,
		.cpu_us = tally->cpu_us,
		.memory_bytes = tally->memory_bytes,
		.least = min_of(dispatch),
		.most = nest_dispatch_most(dispatch),
		.slots = slots,
		.ready = dispatch->ready,
		.needed = (uint32_t)((tally->load.peak + slots - 1) / slots),
		.quiet_us = nest_load_quiet_us(&tally->load, now_us),
	};
	tally->load.peak = nest_load_open(&tally->load);
	return true;
}
