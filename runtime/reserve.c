/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reserve.h"

#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "runtime/dispatch.h"
#include "runtime/frozen.h"
#include "runtime/function.h"
#include "runtime/room.h"
#include "runtime/services.h"
#include "runtime/standby.h"
#include "runtime/worker.h"

/*
 * How many are wanted follows from use: as many as were started within BURST_US of each other, as
 * seen within the last MEMORY_US; one at least.
 */
#define BURST_US 1000000u
#define MEMORY_US 60000000u
#define PAUSE_MIN_US 1000000u /* after a clone that did not come to stand */
#define PAUSE_MAX_US 600000000u

struct nest_reserve {
	struct nest_services *services;
	struct nest_dispatch *dispatch;
	const struct nest_worker_plan *plan;
	struct nest_reserve_link link;
	struct nest_worker_link *workers;
	bool open;
	uint64_t used_us;
	uint64_t burst_us;  /* the present burst's begin */
	uint64_t before_us; /* the one's before */
	uint32_t burst;
	uint32_t most; /* of a burst */
	uint64_t most_us;
	uint64_t bytes_each;	   /* of the last that was measured */
	uint64_t bytes_prefetched; /* of the last such one */
	uint64_t pause_us;
	uint64_t paused_until_us;
};

/* ---- what clones tell ---- */

static void look(void *arg)
{
	struct nest_reserve *reserve = arg;

	nest_standby_look(reserve->services);
}

static void on_standing(void *arg, struct nest_worker *worker)
{
	struct nest_reserve *reserve = arg;

	(void)worker;
	reserve->pause_us = 0;
	look(reserve);
}

static void on_ended(void *arg, struct nest_worker *worker, const struct nest_worker_end *end)
{
	struct nest_reserve *reserve = arg;

	(void)worker;
	if (end->was_ready)
		return; /* ended by us */
	reserve->pause_us = reserve->pause_us ? reserve->pause_us * 2 : PAUSE_MIN_US;
	if (reserve->pause_us > PAUSE_MAX_US)
		reserve->pause_us = PAUSE_MAX_US;
	reserve->paused_until_us = nest_clock_mono_us() + reserve->pause_us;
}

static void on_gone(void *arg, struct nest_worker *worker)
{
	struct nest_reserve *reserve = arg;
	struct nest_services *services = reserve->services;

	DL_DELETE(reserve->workers, nest_worker_link(worker));
	if (nest_worker_link(worker)->evicted)
		services->evictions--;
	/* Its cell counts until this callback has returned. */
	if (services->starved > 0)
		nest_deadlines_set(services->deadlines, &services->cell_freed, 0);
	nest_standby_look(services);
	nest_dispatch_release(reserve->dispatch);
}

static const struct nest_worker_events worker_events = {
	.standing = on_standing,
	.ended = on_ended,
	.gone = on_gone,
};

/* ---- use ---- */

static void note_start(struct nest_reserve *reserve)
{
	uint64_t now_us = nest_clock_mono_us();

	reserve->used_us = now_us;
	if (now_us - reserve->burst_us > BURST_US) {
		reserve->before_us = reserve->burst_us;
		reserve->burst_us = now_us;
		reserve->burst = 0;
	}
	reserve->burst++;
	if (reserve->burst >= reserve->most || now_us - reserve->most_us > MEMORY_US) {
		reserve->most = reserve->burst;
		reserve->most_us = now_us;
	}
}

void nest_reserve_touch(struct nest_reserve *reserve)
{
	reserve->used_us = nest_clock_mono_us();
}

/* One that stands before one that is still being restored; the oldest first. */
static struct nest_worker *find(const struct nest_reserve *reserve)
{
	struct nest_worker *restoring = NULL;
	struct nest_worker_link *link;

	DL_FOREACH(reserve->workers, link) {
		if (nest_worker_is_standing(link->worker))
			return link->worker;
		if (!restoring && nest_worker_state(link->worker) == NEST_WORKER_STANDBY)
			restoring = link->worker;
	}
	return restoring;
}

/* What @worker took says what the next one will. */
static void note_bytes(struct nest_reserve *reserve, const struct nest_worker *worker)
{
	struct nest_worker_stats stats;

	nest_worker_stats(worker, &stats);
	if (stats.private_bytes == 0)
		return;
	if (stats.prefetched)
		reserve->bytes_prefetched = stats.private_bytes;
	else
		reserve->bytes_each = stats.private_bytes;
}

struct nest_worker *nest_reserve_take(struct nest_reserve *reserve)
{
	struct nest_worker *worker = find(reserve);

	note_start(reserve);
	nest_standby_look(reserve->services);
	if (!worker)
		return NULL;
	note_bytes(reserve, worker);
	DL_DELETE(reserve->workers, nest_worker_link(worker));
	return worker;
}

/* ---- more and fewer ---- */

int nest_reserve_add(struct nest_reserve *reserve, bool prefetch)
{
	const struct nest_worker_ahead ahead = {
		.key = reserve->plan->frozen ? nest_frozen_key(reserve->plan->frozen) : NULL,
		.prefetch = prefetch,
	};
	struct nest_err err = NEST_ERR_INIT;
	struct nest_worker *worker;
	int r;

	if (!ahead.key)
		return -ENOENT;
	if (!nest_room_has(reserve->dispatch))
		return -EAGAIN;
	r = nest_worker_start_standby(
		reserve->services, reserve->plan, &ahead, &worker_events, reserve, &worker, &err);
	if (r < 0 && r != -EAGAIN)
		reserve->paused_until_us = nest_clock_mono_us() + PAUSE_MIN_US;
	if (r < 0)
		return r;
	DL_APPEND(reserve->workers, nest_worker_link(worker));
	nest_dispatch_hold(reserve->dispatch);
	return 0;
}

bool nest_reserve_drop(struct nest_reserve *reserve, bool for_cell)
{
	struct nest_worker *worker = find(reserve);

	if (!worker)
		return false;
	if (for_cell) {
		nest_worker_link(worker)->evicted = true;
		reserve->services->evictions++;
	}
	nest_worker_kill(worker, NEST_FAILURE_CANCELLED, "its place is needed");
	return true;
}

void nest_reserve_drop_prefetched(struct nest_reserve *reserve)
{
	struct nest_worker_link *link;

	DL_FOREACH(reserve->workers, link) {
		if (nest_worker_is_standing(link->worker) &&
			nest_worker_is_prefetched(link->worker)) {
			nest_worker_kill(link->worker, NEST_FAILURE_CANCELLED,
				"another function starts more often");
			return;
		}
	}
}

void nest_reserve_clear(struct nest_reserve *reserve, const char *message)
{
	struct nest_worker *worker;

	while ((worker = find(reserve)))
		nest_worker_kill(worker, NEST_FAILURE_CANCELLED, message);
}

void nest_reserve_set_open(struct nest_reserve *reserve, bool open)
{
	reserve->open = open;
	if (open)
		nest_standby_look(reserve->services);
	else
		nest_reserve_clear(reserve, "its version is called no more");
}

/* ---- views ---- */

static uint32_t wanted(const struct nest_reserve *reserve, uint64_t now_us)
{
	uint32_t n = now_us - reserve->most_us > MEMORY_US ? reserve->burst : reserve->most;
	uint32_t most = reserve->services->config->standby_per_function;

	if (most > reserve->plan->spec->workers_max)
		most = reserve->plan->spec->workers_max;
	if (n > most)
		n = most;
	return n > 0 || most == 0 ? n : 1;
}

void nest_reserve_view(const struct nest_reserve *reserve, struct nest_reserve_view *ret)
{
	const struct nest_frozen *frozen = reserve->plan->frozen;
	uint64_t now_us = nest_clock_mono_us();
	struct nest_worker_link *link;

	*ret = (struct nest_reserve_view){
		.dispatch = reserve->dispatch,
		.used_us = reserve->used_us,
		.started_us = reserve->burst_us,
		.before_us = reserve->before_us,
		.learnt = frozen && nest_frozen_is_learnt(frozen),
		.bytes_each = reserve->bytes_each,
		.bytes_prefetched = reserve->bytes_prefetched,
	};
	DL_FOREACH(reserve->workers, link) {
		struct nest_worker_stats stats;

		nest_worker_stats(link->worker, &stats);
		if (stats.state != NEST_WORKER_STANDBY)
			continue; /* on its way out */
		ret->prefetched += stats.prefetched;
		if (!nest_worker_is_standing(link->worker)) {
			ret->restoring++;
			continue;
		}
		ret->standing++;
		ret->bytes += stats.private_bytes;
		ret->unmeasured += !stats.measured;
		if (stats.private_bytes)
			*(stats.prefetched ? &ret->bytes_prefetched : &ret->bytes_each) =
				stats.private_bytes;
	}
	ret->unwanted = !reserve->open || !frozen || !nest_frozen_key(frozen);
	if (ret->unwanted)
		return;
	if (now_us < reserve->paused_until_us)
		ret->wanted_at_us = reserve->paused_until_us;
	else
		ret->wanted = wanted(reserve, now_us);
}

void nest_reserve_measure(struct nest_reserve *reserve)
{
	struct nest_worker_link *link;

	/* somebody else's measuring will do as well */
	DL_FOREACH(reserve->workers, link) {
		struct nest_worker_stats stats;

		nest_worker_stats(link->worker, &stats);
		if (nest_worker_is_standing(link->worker) && !stats.measured)
			nest_worker_measure(link->worker, look, reserve);
	}
}

bool nest_reserve_each(const struct nest_reserve *reserve,
	bool (*cb)(void *arg, struct nest_worker *worker), void *arg)
{
	struct nest_worker_link *link;

	DL_FOREACH(reserve->workers, link) {
		if (!cb(arg, link->worker))
			return false;
	}
	return true;
}

struct nest_reserve_link *nest_reserve_link(struct nest_reserve *reserve)
{
	return &reserve->link;
}

/* ---- life ---- */

int nest_reserve_new(struct nest_services *services, struct nest_dispatch *dispatch,
	const struct nest_worker_plan *plan, struct nest_reserve **ret)
{
	struct nest_reserve *reserve = calloc(1, sizeof(*reserve));

	if (!reserve)
		return -ENOMEM;
	reserve->services = services;
	reserve->dispatch = dispatch;
	reserve->plan = plan;
	reserve->link.reserve = reserve;
	reserve->used_us = nest_clock_mono_us();
	nest_standby_add(services, reserve);
	*ret = reserve;
	return 0;
}

void nest_reserve_free(struct nest_reserve *reserve)
{
	if (!reserve)
		return;
	nest_standby_remove(reserve->services, reserve);
	free(reserve);
}
