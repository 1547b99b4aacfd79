/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "agent/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "agent/gateway.h"
#include "agent/reporting.h"
#include "agent/scaler.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "runtime/function.h"
#include "runtime/host.h"

#define RUNTIME_NAME_MAX 32 /* as manifests have them */

/* A version's numbers, which may be gone when they are written. */
struct sampled {
	struct nest_target_stats stats;
	char name[NEST_FUNCTION_NAME_MAX + 1];
	char version[NEST_FUNCTION_VERSION_MAX + 1];
};

/*
 * A family's samples must stand together, so the functions' numbers, and the runtimes', are copied
 * once into an array and each family walks it.
 */
struct sample_set {
	struct sampled *targets;
	size_t n;
	size_t cap;
	bool failed;
};

/*
 * One for each runtime: it has several snapshots, whose limits need not differ in anything that a
 * label could name.
 */
struct sampled_runtime {
	struct nest_snapshot_stats snapshot;
	char name[RUNTIME_NAME_MAX + 1];
};

struct runtime_set {
	struct sampled_runtime *runtimes;
	size_t n;
	size_t cap;
	bool failed;
};

/* @rows with room for one more than @n, which may have moved; NULL: no memory, and they stay. */
static void *make_room(void *rows, size_t n, size_t *cap, size_t size)
{
	size_t more = *cap ? *cap * 2 : 16;
	void *grown;

	if (n < *cap)
		return rows;
	grown = reallocarray(rows, more, size);
	if (grown)
		*cap = more;
	return grown;
}

static bool collect(void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct sample_set *set = arg;
	void *targets = make_room(set->targets, set->n, &set->cap, sizeof(*set->targets));
	struct sampled *one;

	(void)target;
	set->failed = !targets;
	if (!targets)
		return false;
	set->targets = targets;
	one = &set->targets[set->n++];
	one->stats = *stats;
	one->stats.spec = NULL;
	snprintf(one->name, sizeof(one->name), "%s", stats->spec->name);
	snprintf(one->version, sizeof(one->version), "%s", stats->spec->version);
	return true;
}

static void add_snapshot(struct nest_snapshot_stats *sum, const struct nest_snapshot_stats *stats)
{
	sum->bytes += stats->bytes;
	sum->restores_total += stats->restores_total;
	for (int c = 0; c < NEST_SNAPSHOT_FAILURES; c++)
		sum->failures_total[c] += stats->failures_total[c];
	for (int b = 0; b <= NEST_LATENCY_BUCKETS; b++)
		sum->restore.count[b] += stats->restore.count[b];
	sum->restore.sum_s += stats->restore.sum_s;
}

static bool collect_runtime(void *arg, const struct nest_runtime_stats *stats)
{
	struct runtime_set *set = arg;
	struct sampled_runtime *one;
	void *runtimes;

	for (size_t i = 0; i < set->n; i++) {
		if (strcmp(set->runtimes[i].name, stats->runtime) == 0) {
			add_snapshot(&set->runtimes[i].snapshot, &stats->snapshot);
			return true;
		}
	}
	runtimes = make_room(set->runtimes, set->n, &set->cap, sizeof(*set->runtimes));
	set->failed = !runtimes;
	if (!runtimes)
		return false;
	set->runtimes = runtimes;
	one = &set->runtimes[set->n++];
	one->snapshot = stats->snapshot;
	snprintf(one->name, sizeof(one->name), "%s", stats->runtime);
	return true;
}

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(FILE *out, const char *name, const char *help, double value)
{
	family(out, name, "gauge", help);
	fprintf(out, "%s %.15g\n", name, value);
}

static void counter(FILE *out, const char *name, const char *help, uint64_t value)
{
	family(out, name, "counter", help);
	fprintf(out, "%s %llu\n", name, (unsigned long long)value);
}

/* One sample of a function's family: @label is a further label with its value, or "". */
static void sample(FILE *out, const char *name, const struct sampled *t, const char *label,
	const char *value, uint64_t n)
{
	fprintf(out, "%s{function=\"%s\",version=\"%s\"", name, t->name, t->version);
	if (*label)
		fprintf(out, ",%s=\"%s\"", label, value);
	fprintf(out, "} %llu\n", (unsigned long long)n);
}

static void render_requests(FILE *out, const struct sample_set *set)
{
	static const char name[] = "nestlet_requests_total";

	family(out, name, "counter", "Requests ended, by function, version and outcome.");
	for (size_t i = 0; i < set->n; i++) {
		const struct sampled *t = &set->targets[i];

		for (int k = 0; k < NEST_FAILURE_KINDS; k++) {
			if (k == NEST_FAILURE_NONE || t->stats.requests_total[k] > 0)
				sample(out, name, t, "outcome", nest_failure_outcome(k),
					t->stats.requests_total[k]);
		}
	}
}

/* The samples of one histogram, all with @labels. */
static void sample_histogram(
	FILE *out, const char *name, const char *labels, const struct nest_histogram *h)
{
	uint64_t below = 0;

	for (int b = 0; b < NEST_LATENCY_BUCKETS; b++) {
		below += h->count[b];
		fprintf(out, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels,
			nest_latency_bounds_s[b], (unsigned long long)below);
	}
	below += h->count[NEST_LATENCY_BUCKETS];
	fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %llu\n", name, labels, (unsigned long long)below);
	fprintf(out, "%s_sum{%s} %.9g\n", name, labels, h->sum_s);
	fprintf(out, "%s_count{%s} %llu\n", name, labels, (unsigned long long)below);
}

static void render_histogram(
	FILE *out, const char *name, const char *help, const struct sample_set *set, size_t offset)
{
	family(out, name, "histogram", help);
	for (size_t i = 0; i < set->n; i++) {
		const struct sampled *t = &set->targets[i];
		char labels[512];

		snprintf(labels, sizeof(labels), "function=\"%s\",version=\"%s\"", t->name,
			t->version);
		sample_histogram(out, name, labels,
			(const struct nest_histogram *)((const char *)&t->stats + offset));
	}
}

static void render_workers(FILE *out, const struct sample_set *set)
{
	family(out, "nestlet_workers", "gauge", "Workers by function, version and state.");
	for (size_t i = 0; i < set->n; i++) {
		for (int s = 0; s < NEST_WORKER_STATES; s++)
			sample(out, "nestlet_workers", &set->targets[i], "state",
				nest_worker_state_name(s), set->targets[i].stats.workers[s]);
	}
	family(out, "nestlet_workers_desired", "gauge",
		"Workers that the autoscaler, or a minimum, keeps.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_workers_desired", &set->targets[i], "", "",
			set->targets[i].stats.desired);
	family(out, "nestlet_workers_frozen", "gauge", "Idle workers that are frozen.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_workers_frozen", &set->targets[i], "", "",
			set->targets[i].stats.paused);
	family(out, "nestlet_workers_prefetched", "gauge",
		"Clones on standby that have what their first request will write to copied.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_workers_prefetched", &set->targets[i], "", "",
			set->targets[i].stats.prefetched);
	family(out, "nestlet_workers_memory_bytes", "gauge",
		"Memory of the workers as measured within seconds: private, what their end would "
		"give back; shared, mapped from files; standby, the private of clones on standby.");
	for (size_t i = 0; i < set->n; i++) {
		const struct sampled *t = &set->targets[i];

		sample(out, "nestlet_workers_memory_bytes", t, "kind", "private",
			t->stats.private_bytes);
		sample(out, "nestlet_workers_memory_bytes", t, "kind", "shared",
			t->stats.shared_bytes);
		sample(out, "nestlet_workers_memory_bytes", t, "kind", "standby",
			t->stats.standby_bytes);
	}
	family(out, "nestlet_worker_restarts_total", "counter",
		"Workers lost, by function, version and cause.");
	for (size_t i = 0; i < set->n; i++) {
		for (int c = 0; c < NEST_RESTART_CAUSES; c++)
			sample(out, "nestlet_worker_restarts_total", &set->targets[i], "cause",
				nest_restart_cause_name(c),
				set->targets[i].stats.restarts_total[c]);
	}
}

static void render_snapshots(FILE *out, const struct sample_set *set)
{
	family(out, "nestlet_cold_starts_by_rung_total", "counter",
		"Workers that came up, by how: from standby, from a snapshot, from that of their "
		"runtime, or started plainly.");
	for (size_t i = 0; i < set->n; i++) {
		for (int r = 0; r < NEST_RUNGS; r++)
			sample(out, "nestlet_cold_starts_by_rung_total", &set->targets[i], "rung",
				nest_worker_rung_name(r), set->targets[i].stats.rungs_total[r]);
	}
	render_histogram(out, "nestlet_restore_duration_seconds",
		"Time from asking for a clone to its being ready, or on standby.", set,
		offsetof(struct nest_target_stats, snapshot.restore));
	family(out, "nestlet_snapshot_bytes", "gauge", "Size of the snapshot; 0: there is none.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_snapshot_bytes", &set->targets[i], "", "",
			set->targets[i].stats.snapshot.bytes);
	family(out, "nestlet_snapshot_failures_total", "counter",
		"Snapshots not made, and restores given up for a plain start, by cause.");
	for (size_t i = 0; i < set->n; i++) {
		for (int c = 0; c < NEST_SNAPSHOT_FAILURES; c++)
			sample(out, "nestlet_snapshot_failures_total", &set->targets[i], "cause",
				nest_frozen_failure_name(c),
				set->targets[i].stats.snapshot.failures_total[c]);
	}
}

static void render_runtimes(FILE *out, const struct runtime_set *set)
{
	static const char bytes[] = "nestlet_runtime_snapshot_bytes";
	static const char restores[] = "nestlet_runtime_restore_duration_seconds";
	static const char failures[] = "nestlet_runtime_snapshot_failures_total";

	family(out, bytes, "gauge",
		"Size of the snapshots of a runtime that has loaded no function.");
	for (size_t i = 0; i < set->n; i++)
		fprintf(out, "%s{runtime=\"%s\"} %llu\n", bytes, set->runtimes[i].name,
			(unsigned long long)set->runtimes[i].snapshot.bytes);
	family(out, restores, "histogram",
		"Time from asking for a clone of a runtime to its being restored, before it loads "
		"its function.");
	for (size_t i = 0; i < set->n; i++) {
		char labels[300];

		snprintf(labels, sizeof(labels), "runtime=\"%s\"", set->runtimes[i].name);
		sample_histogram(out, restores, labels, &set->runtimes[i].snapshot.restore);
	}
	family(out, failures, "counter",
		"Snapshots of a runtime not made, and clones of it given up for a plain start, by "
		"cause.");
	for (size_t i = 0; i < set->n; i++) {
		for (int c = 0; c < NEST_SNAPSHOT_FAILURES; c++)
			fprintf(out, "%s{runtime=\"%s\",cause=\"%s\"} %llu\n", failures,
				set->runtimes[i].name, nest_frozen_failure_name(c),
				(unsigned long long)set->runtimes[i].snapshot.failures_total[c]);
	}
}

static void render_member(
	FILE *out, const char *name, const char *help, const struct sample_set *set, size_t offset)
{
	family(out, name, "counter", help);
	for (size_t i = 0; i < set->n; i++) {
		const char *at = (const char *)&set->targets[i].stats + offset;

		sample(out, name, &set->targets[i], "", "", *(const uint64_t *)at);
	}
}

static void render_protection(FILE *out, const struct sample_set *set)
{
	static const char recycled[] = "nestlet_workers_recycled_total";

	render_member(out, "nestlet_rate_limited_total", "Requests that the rate limit refused.",
		set, offsetof(struct nest_target_stats, limited_total));
	render_member(out, "nestlet_breaker_refused_total",
		"Requests that the open circuit breaker refused.", set,
		offsetof(struct nest_target_stats, broken_total));
	render_member(out, "nestlet_breaker_opened_total", "How often the circuit breaker opened.",
		set, offsetof(struct nest_target_stats, breaker_opened_total));
	family(out, "nestlet_breaker_open", "gauge",
		"Whether the circuit breaker is open, or half-open.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_breaker_open", &set->targets[i], "", "",
			strcmp(set->targets[i].stats.breaker, "closed") != 0);
	render_member(out, "nestlet_fallbacks_total",
		"Requests that were answered with the fallback result.", set,
		offsetof(struct nest_target_stats, fallbacks_total));
	family(out, "nestlet_quarantined", "gauge",
		"Whether the function is in quarantine as its workers don't come up.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_quarantined", &set->targets[i], "", "",
			set->targets[i].stats.quarantined);
	family(out, recycled, "counter", "Workers that were worn out, by cause.");
	for (size_t i = 0; i < set->n; i++) {
		for (int c = NEST_RECYCLE_NONE + 1; c < NEST_RECYCLE_CAUSES; c++)
			sample(out, recycled, &set->targets[i], "cause", nest_recycle_cause_name(c),
				set->targets[i].stats.recycled_total[c]);
	}
}

static void render_functions(FILE *out, const struct sample_set *set)
{
	render_requests(out, set);
	render_histogram(out, "nestlet_request_duration_seconds",
		"Time of a request in the host, from its head to its end.", set,
		offsetof(struct nest_target_stats, duration));
	render_histogram(out, "nestlet_cold_start_duration_seconds",
		"Time from asking for a worker to its being ready.", set,
		offsetof(struct nest_target_stats, cold_start));
	family(out, "nestlet_cold_starts_total", "counter",
		"Workers that were started and became ready.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_cold_starts_total", &set->targets[i], "", "",
			set->targets[i].stats.cold_starts_total);
	family(out, "nestlet_queue_depth", "gauge", "Requests that wait for a worker.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_queue_depth", &set->targets[i], "", "",
			set->targets[i].stats.queued);
	family(out, "nestlet_requests_in_flight", "gauge", "Requests that workers have.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_requests_in_flight", &set->targets[i], "", "",
			set->targets[i].stats.in_flight);
	render_workers(out, set);
	render_snapshots(out, set);
	render_protection(out, set);
	family(out, "nestlet_function_log_dropped_bytes_total", "counter",
		"Log text dropped: lines too long, or written too fast.");
	for (size_t i = 0; i < set->n; i++)
		sample(out, "nestlet_function_log_dropped_bytes_total", &set->targets[i], "", "",
			set->targets[i].stats.log_dropped_bytes_total);
}

/* The agent's own resident and CPU figures under the names that Prometheus' clients use. */
static void render_process(FILE *out, const struct nest_metrics_daemon *daemon)
{
	nest_autofree char *statm = NULL;
	unsigned long long size = 0, resident = 0;
	struct timespec cpu = { .tv_sec = 0 };

	if (nest_file_read(AT_FDCWD, "/proc/self/statm", 4096, &statm, NULL, NULL) == 0 &&
		sscanf(statm, "%llu %llu", &size, &resident) == 2) {
		double page = (double)sysconf(_SC_PAGESIZE);

		gauge(out, "process_resident_memory_bytes", "Resident memory of the agent process.",
			(double)resident * page);
		gauge(out, "process_virtual_memory_bytes", "Virtual memory of the agent process.",
			(double)size * page);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	family(out, "process_cpu_seconds_total", "counter", "CPU time of the agent process.");
	fprintf(out, "process_cpu_seconds_total %.6f\n",
		(double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
	gauge(out, "process_start_time_seconds", "Start of the agent, Unix time.",
		(double)daemon->start_time_ms / 1e3);
}

static void render_gateway_trouble(FILE *out, const struct nest_gateway_stats *stats)
{
	counter(out, "nestlet_gateway_aborted_total",
		"Responses broken off after their head was sent.", stats->aborted_total);
	counter(out, "nestlet_gateway_cancelled_total", "Requests whose client left first.",
		stats->cancelled_total);
	counter(out, "nestlet_gateway_background_failed_total",
		"Asynchronous invocations that failed after they were taken.",
		stats->background_failed_total);
	family(out, "nestlet_gateway_refused_total", "counter",
		"Requests refused by the gateway itself, by reason.");
	for (int r = 0; r < NEST_REFUSAL_REASONS; r++)
		fprintf(out, "nestlet_gateway_refused_total{reason=\"%s\"} %llu\n",
			nest_refusal_reason_name(r), (unsigned long long)stats->refused_total[r]);
}

static void render_gateway(FILE *out, const struct nest_gateway *gateway)
{
	struct nest_gateway_stats stats;

	nest_gateway_stats(gateway, &stats);
	gauge(out, "nestlet_gateway_connections", "Gateway connections open now.",
		stats.connections);
	counter(out, "nestlet_gateway_connections_total", "Gateway connections taken.",
		stats.connections_total);
	gauge(out, "nestlet_gateway_requests_in_flight",
		"Requests begun and not ended, asynchronous ones included.", stats.in_flight);
	family(out, "nestlet_gateway_responses_total", "counter",
		"Responses sent by the gateway, by class of status.");
	for (int c = 1; c <= 5; c++)
		fprintf(out, "nestlet_gateway_responses_total{code=\"%dxx\"} %llu\n", c,
			(unsigned long long)stats.responses_total[c]);
	render_gateway_trouble(out, &stats);
}

static void render_exchange(FILE *out, const struct nest_host_stats *stats)
{
	gauge(out, "nestlet_snapshots_available",
		"1: functions can start from snapshots on this host; 0: they are off or don't "
		"work.",
		strcmp(stats->snapshots, "available") == 0 ||
			strcmp(stats->snapshots, "untested") == 0);
	family(out, "nestlet_snapshots_exchanged_total", "counter",
		"Snapshots that came from the server which hosts share, or went there.");
	fprintf(out, "nestlet_snapshots_exchanged_total{way=\"fetched\"} %llu\n",
		(unsigned long long)stats->snapshots_fetched_total);
	fprintf(out, "nestlet_snapshots_exchanged_total{way=\"published\"} %llu\n",
		(unsigned long long)stats->snapshots_published_total);
	counter(out, "nestlet_snapshot_exchange_failures_total",
		"Snapshots that could not be fetched or published.",
		stats->snapshots_exchange_failures_total);
}

static void render_scaler(FILE *out, const struct nest_reporting *reporting)
{
	struct nest_scaler_status status = { .reports_total = 0 };

	if (reporting)
		nest_reporting_scaler(reporting, &status);
	counter(out, "nestlet_scaler_reports_total", "Reports begun.", status.reports_total);
	counter(out, "nestlet_scaler_failures_total",
		"Reports that were not answered as they should be.", status.failures_total);
	counter(out, "nestlet_scaler_old_generations_total",
		"Replies with a generation below the one in force.", status.old_total);
	gauge(out, "nestlet_scaler_generation", "The generation in force; 0: none.",
		reporting ? (double)nest_reporting_generation(reporting) : 0);
	gauge(out, "nestlet_scaler_last_contact_seconds",
		"When the scaler last answered as it should, Unix time; 0: never.",
		(double)status.contact_ms / 1e3);
	gauge(out, "nestlet_scaler_report_bytes", "Size of the last report, uncompressed.",
		(double)status.report_bytes);
	gauge(out, "nestlet_scaler_report_sent_bytes", "Size of the last report as sent.",
		(double)status.sent_bytes);
	gauge(out, "nestlet_scaler_report_seconds",
		"Time that the last report took the event loop to write and compress.",
		(double)status.report_us / 1e6);
}

static void render_host(FILE *out, struct nest_host *host, const struct nest_metrics_daemon *daemon)
{
	struct nest_host_stats stats;

	nest_host_stats(host, &stats);
	family(out, "nestlet_build_info", "gauge", "The version that runs; always 1.");
	fprintf(out, "nestlet_build_info{version=\"%s\"} 1\n", PACKAGE_VERSION);
	gauge(out, "nestlet_ready", "1 when the host takes requests.", daemon->ready);
	gauge(out, "nestlet_draining", "1 while the host drains.", daemon->draining);
	counter(out, "nestlet_config_reloads_total", "Config reloads that were taken.",
		daemon->reloads_total);
	counter(out, "nestlet_config_reload_failures_total", "Config reloads that were refused.",
		daemon->reload_failures_total);
	gauge(out, "nestlet_cells_prepared", "Cells ready for a worker.", stats.cells_prepared);
	gauge(out, "nestlet_code_cache_bytes", "Code in the cache.", (double)stats.cache_bytes);
	counter(out, "nestlet_code_cache_hits_total", "Code asked for that was in the cache.",
		stats.cache_hits_total);
	counter(out, "nestlet_code_cache_misses_total", "Code asked for that had to be loaded.",
		stats.cache_misses_total);
	counter(out, "nestlet_code_cache_failures_total", "Code that could not be loaded.",
		stats.cache_failures_total);
	family(out, "nestlet_code_load_failures_total", "counter",
		"Code that could not be loaded, by cause.");
	for (unsigned i = 0; nest_host_failure_cause(i); i++)
		fprintf(out, "nestlet_code_load_failures_total{cause=\"%s\"} %llu\n",
			nest_host_failure_cause(i), (unsigned long long)stats.failures_by_cause[i]);
	family(out, "nestlet_code_load_bytes_total", "counter",
		"Bytes of code by stage: fetch, as they came from servers; make, as unpacked "
		"files.");
	fprintf(out, "nestlet_code_load_bytes_total{stage=\"fetch\"} %llu\n",
		(unsigned long long)stats.fetched_bytes_total);
	fprintf(out, "nestlet_code_load_bytes_total{stage=\"make\"} %llu\n",
		(unsigned long long)stats.made_bytes_total);
	family(out, "nestlet_code_load_seconds_total", "counter",
		"Seconds by stage, which overlap; make is decoding, unpacking and publishing.");
	fprintf(out, "nestlet_code_load_seconds_total{stage=\"fetch\"} %.6f\n",
		(double)stats.fetch_us_total / 1e6);
	fprintf(out, "nestlet_code_load_seconds_total{stage=\"make\"} %.6f\n",
		(double)stats.make_us_total / 1e6);
	counter(out, "nestlet_code_fetch_retries_total", "Requests for code that were repeated.",
		stats.fetch_retries_total);
	render_exchange(out, &stats);
}

/* ---- a page ---- */

/* One that is being written: what the host and the daemon say at once, the rest by a thread. */
struct page {
	uv_work_t work;
	struct sample_set set;
	struct runtime_set runtimes;
	FILE *out;
	char *text;
	size_t n;
	bool failed;
	void (*cb)(void *arg, const char *text, size_t n);
	void *arg;
};

static void page_free(struct page *page)
{
	if (page->out)
		fclose(page->out);
	free(page->set.targets);
	free(page->runtimes.runtimes);
	free(page->text);
	free(page);
}

static void run_page(uv_work_t *work)
{
	struct page *page = work->data;

	render_functions(page->out, &page->set);
	render_runtimes(page->out, &page->runtimes);
	page->failed |= ferror(page->out) != 0;
	page->failed |= fclose(nest_take_ptr(page->out)) != 0;
}

static void on_page_done(uv_work_t *work, int status)
{
	struct page *page = work->data;

	(void)status; /* it is never cancelled */
	if (page->failed)
		page->cb(page->arg, NULL, 0);
	else
		page->cb(page->arg, page->text, page->n);
	page_free(page);
}

int nest_metrics_render(struct nest_host *host, const struct nest_metrics_daemon *daemon,
	void (*cb)(void *arg, const char *text, size_t n), void *arg)
{
	struct page *page = calloc(1, sizeof(*page));
	int r = page ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	page->cb = cb;
	page->arg = arg;
	page->work.data = page;
	page->out = open_memstream(&page->text, &page->n);
	if (page->out) {
		nest_host_each_target(host, collect, &page->set);
		nest_host_each_runtime_snapshot(host, collect_runtime, &page->runtimes);
		render_host(page->out, host, daemon);
		render_process(page->out, daemon);
		if (daemon->gateway)
			render_gateway(page->out, daemon->gateway);
		render_scaler(page->out, daemon->reporting);
	}
	if (!page->out || page->set.failed || page->runtimes.failed)
		r = -ENOMEM;
	if (r == 0)
		r = uv_queue_work(daemon->loop, &page->work, run_page, on_page_done);
	if (r < 0)
		page_free(page);
	return r;
}
