/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "runtime/dispatch.h"
#include "runtime/host_impl.h"
#include "runtime/room.h"
#include "runtime/target.h"
#include "runtime/worker.h"

/* What others see of the functions and workers. */

/*
 * Looking at the workers has them measured when the last time is so long ago; so nothing is
 * measured, and nothing wakes up, while nobody looks.
 */
#define MEASURE_EVERY_US 5000000u

static void nobody_waits(void *arg)
{
	(void)arg;
}

static void note_look(struct nest_host *host)
{
	if (nest_clock_mono_us() - host->measured_us > MEASURE_EVERY_US)
		nest_host_refresh(host, nobody_waits, NULL);
}

void nest_host_each_target(struct nest_host *host,
	bool (*cb)(void *arg, struct nest_target *target, const struct nest_target_stats *stats),
	void *arg)
{
	struct nest_lineage *lineage, *next;

	note_look(host);
	HASH_ITER(hh, host->lineages, lineage, next) {
		struct nest_lineage_version *version;

		DL_FOREACH(lineage->versions, version) {
			struct nest_target_stats stats;

			if (version->removed)
				continue;
			nest_target_stats(version->target, &stats);
			stats.live = lineage->live == version;
			if (!cb(arg, version->target, &stats))
				return;
		}
	}
}

/* Every worker of every version, those being removed too. */
static void each_worker(
	struct nest_host *host, bool (*cb)(void *arg, struct nest_worker *worker), void *arg)
{
	struct nest_lineage *lineage, *next;

	HASH_ITER(hh, host->lineages, lineage, next) {
		struct nest_lineage_version *version;

		DL_FOREACH(lineage->versions, version) {
			if (!nest_dispatch_each_worker(
				    nest_target_dispatch(version->target), cb, arg))
				return;
		}
	}
}

struct show {
	bool (*cb)(void *arg, const struct nest_worker_stats *stats);
	void *arg;
};

static bool show_worker(void *arg, struct nest_worker *worker)
{
	const struct show *show = arg;
	struct nest_worker_stats stats;

	nest_worker_stats(worker, &stats);
	return show->cb(show->arg, &stats);
}

void nest_host_each_worker(struct nest_host *host,
	bool (*cb)(void *arg, const struct nest_worker_stats *stats), void *arg)
{
	struct show show = { .cb = cb, .arg = arg };

	note_look(host);
	each_worker(host, show_worker, &show);
}

struct refresh {
	struct nest_services *services;
	unsigned pending;
	struct nest_deadline turn;
	void (*cb)(void *arg);
	void *arg;
};

static void on_measured(void *arg)
{
	struct refresh *refresh = arg;

	if (--refresh->pending > 0)
		return;
	nest_deadlines_release(refresh->services->deadlines, 1);
	nest_room_settle(refresh->services);
	refresh->cb(refresh->arg);
	free(refresh);
}

static bool measure_worker(void *arg, struct nest_worker *worker)
{
	struct refresh *refresh = arg;

	if (nest_worker_measure(worker, on_measured, refresh) == 0)
		refresh->pending++;
	return true;
}

int nest_host_refresh(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	struct refresh *refresh = calloc(1, sizeof(*refresh));

	if (!refresh || nest_deadlines_reserve(host->services.deadlines, 1) < 0) {
		free(refresh);
		return -ENOMEM;
	}
	refresh->services = &host->services;
	refresh->cb = cb;
	refresh->arg = arg;
	refresh->pending = 1;
	refresh->turn.cb = on_measured;
	refresh->turn.arg = refresh;
	nest_deadlines_set(refresh->services->deadlines, &refresh->turn, 0);
	host->measured_us = nest_clock_mono_us();
	each_worker(host, measure_worker, refresh);
	return 0;
}
