/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/host.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "loader/loader.h"
#include "runtime/capacity.h"
#include "runtime/channel.h"
#include "runtime/deadline.h"
#include "runtime/dispatch.h"
#include "runtime/features.h"
#include "runtime/exchange.h"
#include "runtime/freezer.h"
#include "runtime/funclog.h"
#include "runtime/host_impl.h"
#include "runtime/huge_text.h"
#include "runtime/manifest.h"
#include "runtime/route.h"
#include "runtime/runtime_snapshot.h"
#include "runtime/standby.h"
#include "runtime/target.h"
#include "runtime/uids.h"
#include "runtime/wire.h"
#include "sandbox/feature.h"
#include "sandbox/sandbox.h"
#include "sandbox/snapshot.h"

/*
 * Opening and closing. What is opened last is closed first: the functions' calls and workers with
 * the sandbox and the loader, then what these reported to (logs), then the wire and the deadlines.
 */

#define DEADLINES 2 /* a freed cell, closing */

struct nest_host_prefork {
	struct nest_sandbox_spawner spawner;
	struct nest_features *features;
};

/* ---- before threads and the drop of privilege ---- */

static int launch(const struct nest_host_config *config, struct nest_sandbox_spawner *ret,
	struct nest_err *err)
{
	const struct nest_sandbox_config sandbox = {
		.instance = config->instance,
		.state_dir = config->state_dir,
		.runtimes_dir = config->runtimes_dir,
		.root_paths = config->root_paths,
		.uid_base = config->uid_base,
		.uid_count = config->uid_count,
		.agent_uid = config->agent_uid,
		.agent_gid = config->agent_gid,
		.pool_size = config->pool_size,
		.pool_size_none = config->pool_size_none,
		.max_cells = config->max_cells,
		.spawner = config->spawner,
		.require_isolation = config->require_isolation,
		.mount_images = config->image_sources && config->image_sources[0],
		.snapshots = config->snapshots,
		.criu = config->criu,
		.snapshots_bytes = config->snapshots_bytes,
		.snapshots_secret = config->snapshots_store && *config->snapshots_store
					    ? config->snapshots_key_file
					    : NULL,
	};

	return nest_sandbox_launch(&sandbox, ret, err);
}

static struct nest_feature_wish wish_of(const struct nest_host_config *config)
{
	return (struct nest_feature_wish){ .snapshots = config->snapshots, .criu = config->criu };
}

static void free_prefork(struct nest_host_prefork *prefork)
{
	if (prefork->spawner.fd >= 0)
		nest_sandbox_dismiss(&prefork->spawner);
	if (prefork->features)
		nest_features_close(prefork->features);
	free(prefork);
}

int nest_host_prefork(
	const struct nest_host_config *config, struct nest_host_prefork **ret, struct nest_err *err)
{
	const struct nest_feature_wish wish = wish_of(config);
	struct nest_host_prefork *prefork = calloc(1, sizeof(*prefork));
	int r;

	if (!prefork)
		return nest_err_set(err, -ENOMEM, "start the host");
	prefork->spawner.fd = -1;
	/* Before the spawner: its end of the agent's socket must have no other holder. */
	r = nest_features_start(&wish, &prefork->features, err);
	if (r == 0)
		r = launch(config, &prefork->spawner, err);
	if (r < 0) {
		prefork->spawner.fd = -1;
		free_prefork(prefork);
		return r;
	}
	*ret = prefork;
	return 0;
}

int nest_host_probe(const struct nest_host_config *config, struct nest_feature_row **ret,
	size_t *ret_n, struct nest_err *err)
{
	const struct nest_feature_wish wish = wish_of(config);

	return nest_features_probe(&wish, ret, ret_n, err);
}

/* ---- opening ---- */

static int make_dir(const struct nest_host *host, const char *name, char ret_path[static 4096],
	struct nest_err *err)
{
	int n = snprintf(ret_path, 4096, "%s/%s", host->config.state_dir, name);

	if (n < 0 || n >= 4096)
		return nest_err_set(
			err, -ENAMETOOLONG, "state directory '%s'", host->config.state_dir);
	return nest_file_mkdirs(ret_path, 0700, err);
}

static struct nest_fetcher_config fetch_config(const struct nest_host *host)
{
	return (struct nest_fetcher_config){
		.connections = host->config.fetch_connections,
		.timeout_ms = host->config.fetch_timeout_ms,
		.connect_timeout_ms = host->config.fetch_connect_timeout_ms,
		.stall_ms = host->config.fetch_stall_ms,
		.retries = host->config.fetch_retries,
		.backoff_ms = host->config.fetch_backoff_ms,
		.max_bytes = host->config.upload_bytes,
		.ca_file = host->config.ca_file,
		.credentials_file = host->config.credentials_file,
	};
}

/* What the machine can't mount is unpacked, whatever the config says. */
static const char *const *image_sources(
	const struct nest_host *host, const struct nest_sandbox_spawner *spawner)
{
	const char *const *sources = host->config.image_sources;
	const char *why = nest_sandbox_no_images(spawner);
	char message[512];

	if (!sources || !sources[0] || !*why)
		return sources;
	snprintf(message, sizeof(message), "images are unpacked, none is mounted: %s", why);
	if (host->config.on_event)
		host->config.on_event(host->config.event_arg, NEST_LOG_WARN, message);
	return NULL;
}

static int open_loader(
	struct nest_host *host, const struct nest_sandbox_spawner *spawner, struct nest_err *err)
{
	char dir[4096];
	const struct nest_loader_config config = {
		.dir = dir,
		.max_bytes = host->config.cache_bytes,
		.max_tree_bytes = host->config.code_bytes,
		.max_tree_entries = host->config.code_entries,
		.allow_unverified = host->config.allow_unverified,
		.fetch = fetch_config(host),
		.image_sources = image_sources(host, spawner),
		.zstd_images = nest_sandbox_zstd_images(spawner),
	};
	int r = make_dir(host, "code", dir, err);

	return r < 0 ? r : nest_loader_open(host->services.loop, &config, &host->loader, err);
}

static int open_exchange(struct nest_host *host, struct nest_err *err)
{
	const struct nest_fetcher_config fetch = fetch_config(host);
	char dir[4096];
	const struct nest_publish_config config = { .staging = dir, .fetch = &fetch };
	int r = make_dir(host, "code", dir, err);

	return r < 0 ? r
		     : nest_exchange_open(&host->services, host->loader, &config,
			       host->config.snapshots_store, &host->services.exchange, err);
}

static int open_logs(struct nest_host *host, struct nest_err *err)
{
	char dir[4096];
	int r = make_dir(host, "logs", dir, err);

	if (r < 0)
		return r;
	return nest_funclog_store_open(
		host->services.loop, dir, host->config.log_line_bytes, &host->logs, err);
}

static int find_capacity(struct nest_host *host, struct nest_err *err)
{
	nest_autofree char *mounts = NULL;
	nest_autofree char *own = NULL;
	int r = nest_file_read(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &mounts, NULL, err);

	if (r == 0)
		r = nest_file_read(AT_FDCWD, "/proc/self/cgroup", 1 << 16, &own, NULL, err);
	return r < 0 ? r : nest_capacity_new(mounts, own, &host->capacity, err);
}

static void on_sandbox_lost(void *arg, const struct nest_err *why)
{
	struct nest_host *host = arg;

	host->services.draining = true;
	host->on_lost(host->on_lost_arg, why);
}

static void on_remark(void *arg, const char *remark)
{
	struct nest_host *host = arg;

	nest_services_event(&host->services, NEST_LOG_WARN, "%s", remark);
}

/* What a runtime without a function sees as its code: nothing. */
static int open_runtimes(struct nest_host *host, struct nest_err *err)
{
	nest_autofree char *path = NULL;
	int fd, r;

	if (asprintf(&path, "%s/empty", host->config.state_dir) < 0) {
		path = NULL;
		return nest_err_set(err, -ENOMEM, "open the host");
	}
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return nest_err_set(err, -errno, "make '%s'", path);
	fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	r = nest_runtime_snapshots_new(
		&host->services, host->uids, host->logs, fd, &host->services.runtimes, err);
	if (r < 0)
		close(fd);
	return r;
}

/* Where restores don't work, workers are started plainly: the operator is told why, once. */
static int open_freezer(struct nest_host *host, struct nest_err *err)
{
	struct nest_services *services = &host->services;
	const char *why = NULL;

	if (!host->config.snapshots)
		return 0;
	if (nest_snapshot_available(services->sandbox, &why)) {
		const char *store = host->config.snapshots_store;
		int r = store && *store ? open_exchange(host, err) : 0;

		if (r == 0)
			r = open_runtimes(host, err);
		return r < 0 ? r : nest_freezer_open(services, &services->freezer, err);
	}
	nest_services_event(services, NEST_LOG_WARN, "no snapshots on this machine: %s", why);
	return 0;
}

static int open_standby(struct nest_host *host, struct nest_err *err)
{
	struct nest_services *services = &host->services;

	if (!services->freezer || host->config.standby_bytes == 0 ||
		!nest_sandbox_can_freeze(services->sandbox))
		return 0;
	return nest_standby_open(services, &services->standby, err);
}

/* Before the first worker maps any of it. Nothing depends on it. */
static void load_huge_text(struct nest_host *host)
{
	const char *const *name = nest_manifests_names(host->manifests);

	for (; host->config.huge_text && *name; name++) {
		const struct nest_manifest *manifest = nest_manifests_find(host->manifests, *name);
		struct nest_err err = NEST_ERR_INIT;
		uint64_t bytes, huge;

		if (manifest->unavailable || manifest->argv[0][0] != '/')
			continue;
		if (nest_huge_text_load(manifest->argv[0], &bytes, &huge, &err) < 0)
			nest_services_event(
				&host->services, NEST_LOG_WARN, "%s", nest_err_text(&err));
		else if (bytes > 0)
			nest_services_event(&host->services, NEST_LOG_INFO,
				"huge pages hold %" PRIu64 " of %" PRIu64
				" MB of runtime %s's code",
				huge >> 20, bytes >> 20, *name);
	}
}

static int open_parts(
	struct nest_host *host, struct nest_host_prefork *prefork, struct nest_err *err)
{
	struct nest_services *services = &host->services;
	int r;

	r = nest_manifests_load(
		host->config.runtimes_dir, host->config.manifest_dirs, &host->manifests, err);
	if (r == 0)
		load_huge_text(host);
	if (r == 0 && nest_uids_new(host->config.uid_base, host->config.uid_count, &host->uids) < 0)
		r = nest_err_set(err, -ENOMEM, "open the host");
	if (r == 0)
		r = nest_deadlines_open(services->loop, &services->deadlines, err);
	if (r == 0 && nest_deadlines_reserve(services->deadlines, DEADLINES) < 0)
		r = nest_err_set(err, -ENOMEM, "open the host");
	if (r == 0)
		r = nest_wire_open(services->loop, &services->wire, err);
	if (r == 0)
		r = open_logs(host, err);
	if (r == 0)
		r = find_capacity(host, err);
	if (r == 0)
		r = open_loader(host, &prefork->spawner, err);
	if (r < 0)
		return r;
	r = nest_sandbox_open(
		services->loop, prefork->spawner, on_sandbox_lost, host, &services->sandbox, err);
	if (r < 0)
		return r;
	prefork->spawner.fd = -1;
	nest_sandbox_on_remark(services->sandbox, on_remark, host);
	r = open_freezer(host, err);
	return r < 0 ? r : open_standby(host, err);
}

/* What the test of freezing and restoring said; NULL: nothing yet. */
static const struct nest_feature_row *find_selftest(const struct nest_host *host)
{
	size_t n;
	const struct nest_feature_row *rows = nest_features_rows(host->features, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, NEST_FEATURE_SNAPSHOTS) == 0)
			return &rows[i];
	return NULL;
}

/* A clone that has come up says more than a test: then the test met something else. */
static void on_features(void *arg)
{
	struct nest_host *host = arg;
	const struct nest_feature_row *test = find_selftest(host);

	if (!host->services.freezer || !test || test->yes)
		return;
	if (nest_freezer_bar(host->services.freezer, test->detail))
		nest_services_event(&host->services, NEST_LOG_WARN,
			"no snapshots on this machine: %s", test->detail);
	else
		nest_services_event(&host->services, NEST_LOG_WARN,
			"the test of snapshots failed, but clones work: %s", test->detail);
}

static void close_parts(struct nest_host *host);

static void on_failed_open_closed(void *arg)
{
	(void)arg;
}

/* Each thing that weakens the isolation on this machine is worth a line in the host's log. */
static void tell_missing(const struct nest_host *host)
{
	const char *line = nest_sandbox_missing(host->services.sandbox);
	char message[512];

	while (*line && host->config.on_event) {
		size_t n = strcspn(line, "\n");

		snprintf(message, sizeof(message), "cells do without %.*s", (int)n, line);
		host->config.on_event(host->config.event_arg, NEST_LOG_WARN, message);
		line += n + (line[n] == '\n');
	}
}

int nest_host_open(uv_loop_t *loop, const struct nest_host_config *config,
	struct nest_host_prefork *prefork, void (*on_lost)(void *arg, const struct nest_err *why),
	void *arg, struct nest_host **ret, struct nest_err *err)
{
	struct nest_host *host = calloc(1, sizeof(*host));
	int r;

	if (!host) {
		free_prefork(prefork);
		return nest_err_set(err, -ENOMEM, "open the host");
	}
	host->config = *config;
	host->services.loop = loop;
	host->services.config = &host->config;
	host->services.cell_freed.cb = nest_dispatch_feed;
	host->services.cell_freed.arg = &host->services;
	host->on_lost = on_lost;
	host->on_lost_arg = arg;
	r = open_parts(host, prefork, err);
	host->features = nest_take_ptr(prefork->features);
	if (r == 0)
		r = nest_features_open(host->features, loop, on_features, host, err);
	free_prefork(prefork);
	if (r < 0) {
		/* The handles that were opened are closed when the loop runs once more. */
		host->on_closed = on_failed_open_closed;
		host->services.closing = true;
		close_parts(host);
		return r;
	}
	tell_missing(host);
	nest_host_preload(host);
	*ret = host;
	return 0;
}

/* ---- closing ---- */

static void free_host(struct nest_host *host)
{
	void (*cb)(void *arg) = host->on_closed;
	void *arg = host->on_closed_arg;

	nest_route_free(host->routes);
	nest_uids_free(host->uids);
	nest_manifests_free(host->manifests);
	nest_features_close(host->features);
	nest_capacity_free(host->capacity);
	free(host);
	cb(arg);
}

static void part_closed(struct nest_host *host, void (*then)(struct nest_host *host))
{
	if (--host->closing_parts == 0)
		then(host);
}

static void on_base_closed(void *arg)
{
	part_closed(arg, free_host);
}

static void close_base(struct nest_host *host)
{
	host->closing_parts = 1;
	if (host->services.wire) {
		host->closing_parts++;
		nest_wire_close(host->services.wire, on_base_closed, host);
	}
	if (host->services.deadlines) {
		host->closing_parts++;
		nest_deadlines_close(host->services.deadlines, on_base_closed, host);
	}
	part_closed(host, free_host);
}

static void on_logs_closed(void *arg)
{
	close_base(arg);
}

static void drop_all(struct nest_host *host)
{
	struct nest_lineage *lineage, *next;

	HASH_ITER(hh, host->lineages, lineage, next) {
		struct nest_lineage_version *version, *following;

		DL_FOREACH_SAFE(lineage->versions, version, following)
			nest_host_drop(host, version, false);
	}
}

/* No worker is left, and no handle of one: what they used can go. */
static void close_rest(struct nest_host *host)
{
	drop_all(host);
	nest_standby_free(host->services.standby);
	nest_runtime_snapshots_free(host->services.runtimes);
	nest_freezer_free(host->services.freezer);
	nest_exchange_free(host->services.exchange);
	nest_host_logs_end(host);
	if (host->logs)
		nest_funclog_store_close(host->logs, on_logs_closed, host);
	else
		close_base(host);
}

static void on_part_closed(void *arg)
{
	part_closed(arg, close_rest);
}

static void close_parts(struct nest_host *host)
{
	host->closing_parts = 1;
	if (host->services.sandbox) {
		host->closing_parts++;
		nest_sandbox_close(host->services.sandbox, on_part_closed, host);
	}
	if (host->loader) {
		host->closing_parts++;
		nest_loader_close(host->loader, on_part_closed, host);
	}
	if (host->services.handles > 0) {
		host->closing_parts++;
		host->services.on_closed = on_part_closed;
		host->services.on_closed_arg = host;
	}
	part_closed(host, close_rest);
}

void nest_host_break_off(struct nest_host *host)
{
	struct nest_lineage *lineage, *next;
	struct nest_lineage_version *version;

	if (host->services.freezer)
		nest_freezer_stop(host->services.freezer);
	if (host->services.exchange)
		nest_exchange_stop(host->services.exchange);
	if (host->services.standby)
		nest_standby_stop(host->services.standby);
	HASH_ITER(hh, host->lineages, lineage, next) {
		DL_FOREACH(lineage->versions, version)
			nest_dispatch_abort(
				nest_target_dispatch(version->target), "the host is going away");
	}
}

static void on_close(void *arg)
{
	struct nest_host *host = arg;

	host->services.closing = true;
	nest_host_break_off(host);
	close_parts(host);
}

/* On a later turn, so that no call of ours is left on the stack whose object is freed by it. */
void nest_host_close(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	host->on_closed = cb;
	host->on_closed_arg = arg;
	host->services.draining = true;
	host->services.on_idle = NULL;
	host->close_deadline.cb = on_close;
	host->close_deadline.arg = host;
	nest_deadlines_set(host->services.deadlines, &host->close_deadline, 0);
}

static void on_drained(void *arg)
{
	struct nest_host *host = arg;
	void (*cb)(void *arg) = host->services.on_idle;

	host->services.on_idle = NULL;
	if (cb)
		cb(host->services.on_idle_arg);
}

void nest_host_drain(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	host->services.draining = true;
	host->services.on_idle = cb;
	host->services.on_idle_arg = arg;
	if (host->services.calls > 0)
		return;
	host->close_deadline.cb = on_drained;
	host->close_deadline.arg = host;
	nest_deadlines_set(host->services.deadlines, &host->close_deadline, 0);
}

/* ---- what the agent shows ---- */

static void show_snapshots(const struct nest_host *host, struct nest_host_stats *ret)
{
	const struct nest_feature_row *test = find_selftest(host);

	ret->snapshots = "off";
	ret->snapshots_why = "the config turns them off";
	if (!host->config.snapshots)
		return;
	ret->snapshots = "unavailable";
	if (!nest_snapshot_available(host->services.sandbox, &ret->snapshots_why))
		return;
	ret->snapshots_why = nest_freezer_barred(host->services.freezer);
	if (ret->snapshots_why)
		return;
	ret->snapshots = test ? "available" : "untested";
	ret->snapshots_why = test ? test->detail : "";
}

void nest_host_stats(const struct nest_host *host, struct nest_host_stats *ret)
{
	struct nest_exchange_stats exchange = { .fetched_total = 0 };
	struct nest_loader_stats loader;

	nest_loader_stats(host->loader, &loader);
	*ret = (struct nest_host_stats){
		.cells_prepared = nest_sandbox_prepared(host->services.sandbox),
		.workers = host->services.workers,
		.max_cells = host->config.max_cells,
		.calls = host->services.calls,
		.calls_total = host->services.calls_total,
		.load_us = nest_services_load_us(&host->services, nest_clock_mono_us()),
		.cache_bytes = loader.bytes,
		.cache_hits_total = loader.hits_total,
		.cache_misses_total = loader.misses_total,
		.cache_failures_total = loader.failures_total,
		.fetched_bytes_total = loader.fetched_bytes_total,
		.fetch_us_total = loader.fetch_us_total,
		.fetch_retries_total = loader.fetch_retries_total,
		.made_bytes_total = loader.made_bytes_total,
		.make_us_total = loader.make_us_total,
	};
	static_assert(NEST_ARRAY_SIZE(loader.failures_by_cause) <=
			      NEST_ARRAY_SIZE(ret->failures_by_cause),
		"a cause has no place");
	memcpy(ret->failures_by_cause, loader.failures_by_cause, sizeof(loader.failures_by_cause));
	if (host->services.exchange)
		nest_exchange_stats(host->services.exchange, &exchange);
	show_snapshots(host, ret);
	ret->snapshots_fetched_total = exchange.fetched_total;
	ret->snapshots_published_total = exchange.published_total;
	ret->snapshots_exchange_failures_total = exchange.failures_total;
}

void nest_host_capacity(const struct nest_host *host, struct nest_host_capacity *ret)
{
	struct nest_capacity_figures figures;

	nest_capacity_read(host->capacity, &figures);
	*ret = (struct nest_host_capacity){
		.cpu_milli = figures.cpu_milli,
		.memory_bytes = figures.memory_bytes,
		.cpu_used_us = figures.cpu_used_us,
		.memory_used_bytes = figures.memory_used_bytes,
	};
}

const char *nest_host_failure_cause(unsigned i)
{
	return i < NEST_LOADER_CAUSES ? nest_loader_cause_name((enum nest_loader_cause)i) : NULL;
}

const char *const *nest_host_runtimes(const struct nest_host *host)
{
	return nest_manifests_names(host->manifests);
}

const struct nest_feature_row *nest_host_features(const struct nest_host *host, size_t *ret_n)
{
	return nest_features_rows(host->features, ret_n);
}
