/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/compact.h"
#include "agent/report.h"
#include "agent/window.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "runtime/function.h"

/*
 * The flat JSON: what a puller finds at a path that never changes, such as functions.hello.queued.
 * A name's versions are added up, as versions come and go; quantiles are the live version's.
 */
struct function_sum {
	const char *name; /* NULL: none yet */
	uint64_t workers[NEST_WORKER_STATES];
	uint64_t in_flight;
	uint64_t queued;
	uint64_t oldest_wait_us;
	uint64_t requests;
	uint64_t failed;
	uint64_t cold_starts;
	uint64_t oom_kills;
	uint64_t rps_milli;
	uint64_t p50_us;
	uint64_t p95_us;
	uint64_t p99_us;
};

struct walk {
	struct nest_compact *out;
	struct nest_window *window;
	struct function_sum sum;  /* of the name that the walk is at */
	struct function_sum host; /* of all */
};

static void add_up(struct function_sum *sum, const struct nest_target_stats *stats,
	const struct nest_window_rates *rates)
{
	for (int s = 0; s < NEST_WORKER_STATES; s++)
		sum->workers[s] += stats->workers[s];
	sum->in_flight += stats->in_flight;
	sum->queued += stats->queued;
	if (stats->oldest_wait_us > sum->oldest_wait_us)
		sum->oldest_wait_us = stats->oldest_wait_us;
	for (int k = 0; k < NEST_FAILURE_KINDS; k++) {
		sum->requests += stats->requests_total[k];
		sum->failed += k == NEST_FAILURE_NONE ? 0 : stats->requests_total[k];
	}
	sum->cold_starts += stats->cold_starts_total;
	sum->oom_kills += stats->restarts_total[NEST_RESTART_OOM];
	sum->rps_milli += rates->rps_milli;
}

static void write_sum(struct nest_compact *out, const struct function_sum *sum)
{
	static const char *const keys[] = {
		[NEST_WORKER_STARTING] = "workersStarting",
		[NEST_WORKER_IDLE] = "workersIdle",
		[NEST_WORKER_BUSY] = "workersBusy",
		[NEST_WORKER_DRAINING] = "workersDraining",
		[NEST_WORKER_STANDBY] = "workersStandby",
	};
	uint64_t workers = 0;

	static_assert(NEST_ARRAY_SIZE(keys) == NEST_WORKER_STATES, "a state has no key");
	for (int s = 0; s < NEST_WORKER_STATES; s++)
		workers += sum->workers[s];
	nest_compact_number(out, "workers", workers);
	for (int s = 0; s < NEST_WORKER_STATES; s++)
		nest_compact_number(out, keys[s], sum->workers[s]);
	nest_compact_number(out, "inFlight", sum->in_flight);
	nest_compact_number(out, "queued", sum->queued);
	nest_compact_number(out, "concurrency", sum->in_flight + sum->queued);
	nest_compact_milli(out, "oldestWaitMs", sum->oldest_wait_us, true);
	nest_compact_number(out, "requestsTotal", sum->requests);
	nest_compact_number(out, "failedTotal", sum->failed);
	nest_compact_number(out, "coldStartsTotal", sum->cold_starts);
	nest_compact_number(out, "oomKillsTotal", sum->oom_kills);
}

static void flush(struct walk *walk)
{
	struct nest_compact *out = walk->out;

	if (!walk->sum.name)
		return;
	nest_compact_open(out, walk->sum.name, '{');
	write_sum(out, &walk->sum);
	nest_compact_milli(out, "rps", walk->sum.rps_milli, true);
	nest_compact_milli(out, "p50Ms", walk->sum.p50_us, true);
	nest_compact_milli(out, "p95Ms", walk->sum.p95_us, true);
	nest_compact_milli(out, "p99Ms", walk->sum.p99_us, true);
	nest_compact_close(out, '}');
}

static bool each_target(
	void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct walk *walk = arg;
	struct nest_window_rates rates;

	(void)target;
	if (!walk->sum.name || strcmp(walk->sum.name, stats->spec->name) != 0) {
		flush(walk);
		walk->sum = (struct function_sum){ .name = stats->spec->name };
	}
	nest_window_add(walk->window, stats, &rates);
	add_up(&walk->sum, stats, &rates);
	add_up(&walk->host, stats, &rates);
	if (stats->live) {
		walk->sum.p50_us = rates.p50_us;
		walk->sum.p95_us = rates.p95_us;
		walk->sum.p99_us = rates.p99_us;
	}
	return true;
}

static void write_host(struct walk *walk, const struct nest_report_env *env,
	const struct nest_host_stats *stats, const struct nest_window_totals *totals)
{
	struct nest_compact *out = walk->out;
	struct nest_host_capacity capacity;

	nest_host_capacity(env->host, &capacity);
	nest_compact_open(out, "host", '{');
	nest_compact_number(out, "ready", env->state == NEST_REPORT_READY);
	nest_compact_number(out, "full", env->state == NEST_REPORT_FULL);
	nest_compact_number(out, "draining", env->state == NEST_REPORT_DRAINING);
	nest_compact_number(
		out, "uptimeMs", (nest_clock_mono_us() - env->identity->start_us) / 1000);
	nest_compact_number(out, "cpuMilli", capacity.cpu_milli);
	nest_compact_number(out, "cpuUsedUs", capacity.cpu_used_us);
	nest_compact_number(out, "memoryBytes", capacity.memory_bytes);
	nest_compact_number(out, "memoryUsedBytes", capacity.memory_used_bytes);
	nest_compact_number(out, "cells", stats->max_cells);
	nest_compact_number(out, "cellsUsed", stats->workers);
	nest_compact_number(out, "openRequests", stats->calls);
	nest_compact_milli(out, "rps", totals->rps_milli, true);
	nest_compact_milli(out, "averageConcurrency", totals->concurrency_milli, true);
	write_sum(out, &walk->host);
	nest_compact_close(out, '}');
}

int nest_report_flat(
	const struct nest_report_env *env, struct nest_window *window, struct nest_buf *ret_json)
{
	struct nest_compact out = { .buf = ret_json };
	struct walk walk = { .out = &out, .window = window };
	struct nest_window_totals totals;
	struct nest_host_stats stats;

	nest_host_stats(env->host, &stats);
	nest_window_begin(window, nest_clock_mono_us(), stats.calls_total, stats.load_us, &totals);
	nest_compact_open(&out, NULL, '{');
	nest_compact_open(&out, "functions", '{');
	nest_host_each_target(env->host, each_target, &walk);
	flush(&walk);
	nest_compact_close(&out, '}');
	write_host(&walk, env, &stats, &totals);
	nest_compact_close(&out, '}');
	nest_window_end(window);
	return out.failed ? -ENOMEM : 0;
}
