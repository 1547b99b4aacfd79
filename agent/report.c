/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "agent/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/compact.h"
#include "agent/deployer.h"
#include "agent/desired.h"
#include "agent/registry.h"
#include "agent/window.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "runtime/function.h"

#define PROTOCOL 1
#define REASONS_MAX 100 /* refusals and failures told in one report, of each */
#define REASON_BYTES_MAX 300

/* ---- identity ---- */

static void take_env(const char *name, char *ret, size_t n)
{
	const char *value = getenv(name);

	snprintf(ret, n, "%s", value ? value : "");
}

int nest_report_identify(struct nest_report_identity *ret, struct nest_err *err)
{
	unsigned char random[16];

	*ret = (struct nest_report_identity){ .start_time_ms = nest_clock_wall_ms(),
		.start_us = nest_clock_mono_us() };
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return nest_err_set(err, -errno, "make a boot id");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(ret->boot_id + 2 * i, 3, "%02x", random[i]);
	take_env("POD_NAME", ret->name, sizeof(ret->name));
	take_env("POD_NAMESPACE", ret->space, sizeof(ret->space));
	take_env("POD_UID", ret->uid, sizeof(ret->uid));
	take_env("NODE_NAME", ret->node, sizeof(ret->node));
	if (!*ret->name && gethostname(ret->name, sizeof(ret->name) - 1) < 0)
		return nest_err_set(err, -errno, "read the machine's name");
	return 0;
}

const char *nest_report_state_name(enum nest_report_state state)
{
	static const char *const names[] = {
		[NEST_REPORT_STARTING] = "starting",
		[NEST_REPORT_READY] = "ready",
		[NEST_REPORT_FULL] = "full",
		[NEST_REPORT_DRAINING] = "draining",
	};

	return names[state];
}

/* ---- the parts of a report ---- */

static void add_host(struct nest_compact *out, const struct nest_report_identity *identity)
{
	nest_compact_open(out, "host", '{');
	nest_compact_text(out, "name", identity->name);
	if (*identity->space)
		nest_compact_text(out, "namespace", identity->space);
	if (*identity->uid)
		nest_compact_text(out, "uid", identity->uid);
	if (*identity->node)
		nest_compact_text(out, "node", identity->node);
	nest_compact_word(out, "version", PACKAGE_VERSION);
	nest_compact_word(out, "bootId", identity->boot_id);
	nest_compact_number(out, "startTimeMs", identity->start_time_ms);
	nest_compact_close(out, '}');
}

static void add_capacity(struct nest_compact *out, const struct nest_report_env *env,
	const struct nest_host_stats *stats)
{
	struct nest_host_capacity capacity;

	if (env->capacity)
		capacity = *env->capacity;
	else
		nest_host_capacity(env->host, &capacity);
	nest_compact_open(out, "capacity", '{');
	nest_compact_number(out, "cpuMilli", capacity.cpu_milli);
	nest_compact_number(out, "memoryBytes", capacity.memory_bytes);
	nest_compact_number(out, "cells", stats->max_cells);
	nest_compact_close(out, '}');
	nest_compact_open(out, "use", '{');
	nest_compact_number(out, "cpuUs", capacity.cpu_used_us);
	nest_compact_number(out, "memoryBytes", capacity.memory_used_bytes);
	nest_compact_number(out, "cells", stats->workers);
	nest_compact_number(out, "cellsPrepared", stats->cells_prepared);
	nest_compact_number(out, "cacheBytes", stats->cache_bytes);
	nest_compact_close(out, '}');
}

static void add_totals(struct nest_compact *out, const struct nest_host_stats *stats,
	const struct nest_window_totals *totals)
{
	nest_compact_open(out, "totals", '{');
	nest_compact_number(out, "open", stats->calls);
	nest_compact_number(out, "requests", stats->calls_total);
	nest_compact_number(out, "openUs", stats->load_us);
	nest_compact_number(out, "spanUs", totals->span_us);
	nest_compact_milli(out, "rps", totals->rps_milli, true);
	nest_compact_milli(out, "concurrency", totals->concurrency_milli, true);
	nest_compact_close(out, '}');
}

static void add_reason(
	struct nest_compact *out, const char *name, const char *version, const char *why)
{
	char reason[REASON_BYTES_MAX + 1];

	snprintf(reason, sizeof(reason), "%s", why);
	nest_compact_open(out, NULL, '{');
	nest_compact_text(out, "function", name);
	if (*version)
		nest_compact_text(out, "version", version);
	nest_compact_text(out, "reason", reason);
	nest_compact_close(out, '}');
}

/* A list of reasons, of which only so many are told. */
struct reasons {
	struct nest_compact *out;
	const struct nest_registry *registry;
	size_t n;
};

static bool each_refusal(void *arg, const char *name, const char *version, const char *why)
{
	struct reasons *reasons = arg;

	if (reasons->n++ < REASONS_MAX)
		add_reason(reasons->out, name, version, why);
	return true;
}

static bool each_failure(
	void *arg, const char *name, const char *version, const char *runtime, const char *why)
{
	(void)runtime;
	return each_refusal(arg, name, version, why);
}

static void add_desired(struct nest_compact *out, const struct nest_report_env *env)
{
	struct reasons refused = { .out = out }, failed = { .out = out };

	nest_compact_open(out, "desired", '{');
	if (env->desired)
		nest_compact_number(out, "generation", nest_desired_generation(env->desired));
	if (nest_deployer_is_settled(env->deployer))
		nest_compact_true(out, "settled");
	nest_compact_open(out, "refused", '[');
	if (env->desired)
		nest_desired_each_refusal(env->desired, each_refusal, &refused);
	nest_compact_close(out, ']');
	nest_compact_count(out, "refusedTotal", refused.n);
	nest_compact_open(out, "failed", '[');
	nest_deployer_each_failure(env->deployer, each_failure, &failed);
	nest_compact_close(out, ']');
	nest_compact_count(out, "failedTotal", failed.n);
	nest_compact_close(out, '}');
}

/* ---- functions ---- */

static void add_workers(struct nest_compact *out, const struct nest_target_stats *stats)
{
	uint32_t all = 0;

	for (int s = 0; s < NEST_WORKER_STATES; s++)
		all += stats->workers[s];
	if (all == 0)
		return;
	nest_compact_open(out, "workers", '{');
	for (int s = 0; s < NEST_WORKER_STATES; s++)
		nest_compact_count(out, nest_worker_state_name(s), stats->workers[s]);
	nest_compact_close(out, '}');
}

static void add_requests(struct nest_compact *out, const struct nest_target_stats *stats,
	const struct nest_window_rates *rates)
{
	const struct nest_histogram *h = &stats->duration;
	size_t last = NEST_LATENCY_BUCKETS + 1;

	nest_compact_open(out, "requests", '{');
	for (int k = 0; k < NEST_FAILURE_KINDS; k++)
		nest_compact_count(out, nest_failure_outcome(k), stats->requests_total[k]);
	nest_compact_close(out, '}');
	nest_compact_number(out, "durationUs", (uint64_t)(h->sum_s * 1e6 + 0.5));
	nest_compact_open(out, "durations", '[');
	while (last > 0 && h->count[last - 1] == 0)
		last--;
	for (size_t i = 0; i < last; i++)
		nest_compact_number(out, NULL, h->count[i]);
	nest_compact_close(out, ']');
	if (rates->requests == 0)
		return;
	nest_compact_milli(out, "rps", rates->rps_milli, false);
	nest_compact_milli(out, "p50Ms", rates->p50_us, false);
	nest_compact_milli(out, "p95Ms", rates->p95_us, false);
	nest_compact_milli(out, "p99Ms", rates->p99_us, false);
}

/* By rung of the ladder. */
static void add_starts(struct nest_compact *out, const struct nest_target_stats *stats)
{
	uint64_t lost = 0;

	if (stats->cold_starts_total > 0) {
		nest_compact_open(out, "coldStarts", '{');
		for (int r = 0; r < NEST_RUNGS; r++)
			nest_compact_count(out, nest_worker_rung_name(r), stats->rungs_total[r]);
		nest_compact_number(out, "us", (uint64_t)(stats->cold_start.sum_s * 1e6 + 0.5));
		nest_compact_close(out, '}');
	}
	for (int c = 0; c < NEST_RESTART_CAUSES; c++)
		lost += stats->restarts_total[c];
	if (lost == 0)
		return;
	nest_compact_open(out, "restarts", '{');
	for (int c = 0; c < NEST_RESTART_CAUSES; c++)
		nest_compact_count(out, nest_restart_cause_name(c), stats->restarts_total[c]);
	nest_compact_close(out, '}');
}

struct walk {
	struct nest_compact *out;
	const struct nest_report_env *env;
	struct nest_window *window;
};

static bool each_target(
	void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct walk *walk = arg;
	struct nest_compact *out = walk->out;
	struct nest_registry_entry entry;
	struct nest_window_rates rates;
	uint64_t total = 0;

	(void)target;
	nest_window_add(walk->window, stats, &rates);
	nest_compact_open(out, NULL, '{');
	nest_compact_word(out, "name", stats->spec->name);
	nest_compact_word(out, "version", stats->spec->version);
	if (stats->live)
		nest_compact_true(out, "live");
	if (nest_registry_find(
		    walk->env->registry, stats->spec->name, stats->spec->version, &entry) == 0)
		nest_compact_word(out, "owner", nest_registry_owner_name(entry.owner));
	add_workers(out, stats);
	nest_compact_count(out, "inFlight", stats->in_flight);
	nest_compact_count(out, "queued", stats->queued);
	nest_compact_milli(out, "oldestWaitMs", stats->oldest_wait_us, false);
	for (int k = 0; k < NEST_FAILURE_KINDS; k++)
		total += stats->requests_total[k];
	if (total > 0)
		add_requests(out, stats, &rates);
	add_starts(out, stats);
	if (stats->last_failure[0])
		nest_compact_text(out, "lastFailure", stats->last_failure);
	nest_compact_close(out, '}');
	return !out->failed;
}

int nest_report_write(const struct nest_report_env *env, struct nest_window *window,
	uint64_t sequence, struct nest_buf *ret_json)
{
	struct nest_compact out = { .buf = ret_json };
	struct walk walk = { .out = &out, .env = env, .window = window };
	struct nest_window_totals totals;
	struct nest_host_stats stats;
	uint64_t now_us = nest_clock_mono_us();

	nest_host_stats(env->host, &stats);
	nest_window_begin(window, now_us, stats.calls_total, stats.load_us, &totals);
	nest_compact_open(&out, NULL, '{');
	nest_compact_number(&out, "protocol", PROTOCOL);
	nest_compact_number(&out, "sequence", sequence);
	nest_compact_number(&out, "timeMs", nest_clock_wall_ms());
	nest_compact_number(&out, "uptimeMs", (now_us - env->identity->start_us) / 1000);
	nest_compact_word(&out, "state", nest_report_state_name(env->state));
	add_host(&out, env->identity);
	add_capacity(&out, env, &stats);
	add_totals(&out, &stats, &totals);
	add_desired(&out, env);
	nest_compact_open(&out, "functions", '[');
	nest_host_each_target(env->host, each_target, &walk);
	nest_compact_close(&out, ']');
	nest_compact_close(&out, '}');
	nest_window_end(window);
	return out.failed ? -ENOMEM : 0;
}

/* ---- fullness ---- */

struct fullness {
	uint64_t idle;
	uint64_t queued;
};

static bool count_load(void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct fullness *fullness = arg;

	(void)target;
	fullness->idle += stats->workers[NEST_WORKER_IDLE];
	fullness->queued += stats->queued;
	return true;
}

int nest_report_is_full(struct nest_host *host, uint32_t max_requests, char *ret_why, size_t n)
{
	struct fullness fullness = { .idle = 0 };
	struct nest_host_stats stats;

	nest_host_stats(host, &stats);
	if (max_requests > 0 && stats.calls >= max_requests) {
		snprintf(ret_why, n, "%u requests of at most %u wait or run", stats.calls,
			max_requests);
		return 1;
	}
	if (stats.workers < stats.max_cells || stats.calls == 0)
		return 0;
	nest_host_each_target(host, count_load, &fullness);
	if (fullness.idle > 0 || fullness.queued == 0)
		return 0;
	snprintf(ret_why, n, "all %u cells are taken, none is idle, and %llu requests wait",
		stats.max_cells, (unsigned long long)fullness.queued);
	return 1;
}
