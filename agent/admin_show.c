/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/admin_request.h"
#include "agent/config.h"
#include "agent/deployer.h"
#include "agent/feature_table.h"
#include "agent/reporting.h"
#include "base/err.h"
#include "runtime/function.h"
#include "runtime/host.h"

/* The reading side of the admin API: what is deployed, what runs, how the host is. */

static void add_workers(cJSON *object, const struct nest_target_stats *stats)
{
	cJSON *workers = cJSON_AddObjectToObject(object, "workers");

	for (int s = 0; s < NEST_WORKER_STATES; s++)
		cJSON_AddNumberToObject(workers, nest_worker_state_name(s), stats->workers[s]);
}

static double failed_total(const struct nest_target_stats *stats)
{
	double n = 0;

	for (int k = 0; k < NEST_FAILURE_KINDS; k++)
		n += k == NEST_FAILURE_NONE ? 0 : (double)stats->requests_total[k];
	return n;
}

void nest_admin_show_snapshot(cJSON *object, const struct nest_snapshot_stats *stats)
{
	cJSON *snapshot = cJSON_AddObjectToObject(object, "snapshot");

	cJSON_AddStringToObject(snapshot, "state", stats->state);
	if (!stats->key)
		return;
	cJSON_AddStringToObject(snapshot, "key", stats->key);
	cJSON_AddNumberToObject(snapshot, "bytes", (double)stats->bytes);
	cJSON_AddNumberToObject(snapshot, "madeAt", (double)stats->made_s);
	cJSON_AddNumberToObject(snapshot, "restoresTotal", (double)stats->restores_total);
	if (*stats->why)
		cJSON_AddStringToObject(snapshot, "lastFailure", stats->why);
}

static cJSON *target_json(const struct nest_target_stats *stats)
{
	cJSON *object = cJSON_CreateObject();
	double failed = failed_total(stats);

	cJSON_AddStringToObject(object, "name", stats->spec->name);
	cJSON_AddStringToObject(object, "version", stats->spec->version);
	cJSON_AddBoolToObject(object, "live", stats->live);
	cJSON_AddStringToObject(object, "runtime", stats->spec->runtime);
	cJSON_AddStringToObject(object, "state", stats->quarantined ? "quarantined" : "deployed");
	add_workers(object, stats);
	cJSON_AddNumberToObject(object, "workersFrozen", stats->paused);
	cJSON_AddNumberToObject(object, "workersDesired", stats->desired);
	cJSON_AddNumberToObject(object, "inFlight", stats->in_flight);
	cJSON_AddNumberToObject(object, "queued", stats->queued);
	cJSON_AddNumberToObject(
		object, "requestsTotal", (double)stats->requests_total[NEST_FAILURE_NONE] + failed);
	cJSON_AddNumberToObject(object, "failedTotal", failed);
	cJSON_AddNumberToObject(object, "coldStartsTotal", (double)stats->cold_starts_total);
	if (stats->snapshot.state)
		nest_admin_show_snapshot(object, &stats->snapshot);
	if (stats->last_failure[0])
		cJSON_AddStringToObject(object, "lastFailure", stats->last_failure);
	cJSON_AddStringToObject(object, "breaker", stats->breaker);
	return object;
}

/* A walk over targets that fills an array: of all live ones, or of all versions of one name. */
struct target_walk {
	cJSON *array;
	const char *name; /* NULL: every live version */
	cJSON *spec;	  /* of the live version of @name */
	bool failed;
};

static bool each_target(
	void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct target_walk *walk = arg;

	(void)target;
	if (walk->name ? strcmp(walk->name, stats->spec->name) != 0 : !stats->live)
		return true;
	if (walk->name && stats->live)
		walk->spec = cJSON_Duplicate(stats->spec->json, true);
	if (!cJSON_AddItemToArray(walk->array, target_json(stats)))
		walk->failed = true;
	return !walk->failed;
}

/* What should be deployed and is not: a line of the list with the reason. */
static bool each_failure(
	void *arg, const char *name, const char *version, const char *runtime, const char *why)
{
	struct target_walk *walk = arg;
	cJSON *object;

	if (walk->name && strcmp(walk->name, name) != 0)
		return true;
	object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "name", name);
	cJSON_AddStringToObject(object, "version", version);
	cJSON_AddStringToObject(object, "runtime", runtime);
	cJSON_AddStringToObject(object, "state", "failed");
	cJSON_AddStringToObject(object, "lastFailure", why);
	cJSON_AddItemToArray(walk->array, object);
	return true;
}

void nest_admin_show_functions(struct nest_admin_request *request)
{
	cJSON *json = cJSON_CreateObject();
	struct target_walk walk = { .array = cJSON_AddArrayToObject(json, "functions") };

	nest_host_each_target(request->env->host, each_target, &walk);
	nest_deployer_each_failure(request->env->deployer, each_failure, &walk);
	nest_admin_request_answer(request, 200, json);
}

/* ---- workers: measured anew before they are shown ---- */

struct worker_walk {
	cJSON *array;
	const char *name; /* NULL: all functions' */
};

static bool each_worker(void *arg, const struct nest_worker_stats *stats)
{
	struct worker_walk *walk = arg;
	cJSON *object;

	if (walk->name && strcmp(walk->name, stats->function) != 0)
		return true;
	object = cJSON_CreateObject();
	cJSON_AddNumberToObject(object, "id", (double)stats->id);
	cJSON_AddNumberToObject(object, "pid", stats->pid);
	cJSON_AddStringToObject(object, "function", stats->function);
	cJSON_AddStringToObject(object, "version", stats->version);
	cJSON_AddStringToObject(object, "state", nest_worker_state_name(stats->state));
	cJSON_AddBoolToObject(object, "frozen", stats->paused);
	cJSON_AddBoolToObject(object, "prefetched", stats->prefetched);
	cJSON_AddNumberToObject(object, "inFlight", stats->in_flight);
	cJSON_AddNumberToObject(object, "requestsTotal", (double)stats->requests_total);
	cJSON_AddNumberToObject(object, "ageMs", (double)stats->age_ms);
	cJSON_AddNumberToObject(object, "memoryBytes", (double)stats->memory_bytes);
	cJSON_AddNumberToObject(object, "memoryPeakBytes", (double)stats->memory_peak_bytes);
	cJSON_AddNumberToObject(object, "privateBytes", (double)stats->private_bytes);
	cJSON_AddNumberToObject(object, "sharedBytes", (double)stats->shared_bytes);
	cJSON_AddNumberToObject(object, "cpuUs", (double)stats->cpu_us);
	return cJSON_AddItemToArray(walk->array, object);
}

static void workers_measured(void *arg)
{
	struct nest_admin_request *request = arg;
	cJSON *json = cJSON_CreateObject();
	struct worker_walk walk = { .array = cJSON_AddArrayToObject(json, "workers") };

	nest_host_each_worker(request->env->host, each_worker, &walk);
	nest_admin_request_answer(request, 200, json);
}

static void function_measured(void *arg)
{
	struct nest_admin_request *request = arg;
	cJSON *json = cJSON_CreateObject();
	struct target_walk walk = { .name = request->name };
	struct worker_walk workers = { .name = request->name };
	struct nest_err err = NEST_ERR_INIT;

	cJSON_AddStringToObject(json, "name", request->name);
	walk.array = cJSON_AddArrayToObject(json, "versions");
	workers.array = cJSON_AddArrayToObject(json, "workers");
	nest_host_each_target(request->env->host, each_target, &walk);
	nest_deployer_each_failure(request->env->deployer, each_failure, &walk);
	nest_host_each_worker(request->env->host, each_worker, &workers);
	nest_admin_alias_describe(request, json, &err); /* of none that is not there */
	if (walk.spec)
		cJSON_AddItemToObject(json, "spec", walk.spec);
	if (cJSON_GetArraySize(walk.array) == 0) {
		cJSON_Delete(json);
		nest_admin_request_refuse(request, 404, "Function.NotFound",
			"no function '%s' is deployed", request->name);
		return;
	}
	nest_admin_request_answer(request, 200, json);
}

/* Measures, then goes on with @cb; the request is kept alive by its state. */
static void measure_then(struct nest_admin_request *request, void (*cb)(void *arg))
{
	int r;

	request->state = request;
	r = nest_host_refresh(request->env->host, cb, request);
	if (r < 0) {
		request->state = NULL;
		nest_admin_request_answer(request, 500, NULL);
	}
}

void nest_admin_show_workers(struct nest_admin_request *request)
{
	measure_then(request, workers_measured);
}

void nest_admin_show_function(struct nest_admin_request *request)
{
	measure_then(request, function_measured);
}

/* ---- the host ---- */

void nest_admin_show_host(struct nest_admin_request *request)
{
	const struct nest_admin_env *env = request->env;
	const struct nest_config *config = env->config(env->daemon);
	struct nest_metrics_daemon daemon;
	struct nest_host_stats stats;
	cJSON *json = cJSON_CreateObject();
	cJSON *runtimes, *snapshots;

	env->metrics(env->daemon, &daemon);
	nest_host_stats(env->host, &stats);
	cJSON_AddStringToObject(json, "version", PACKAGE_VERSION);
	cJSON_AddNumberToObject(json, "pid", getpid());
	cJSON_AddNumberToObject(json, "startTimeMs", (double)daemon.start_time_ms);
	cJSON_AddStringToObject(json, "state",
		daemon.draining ? "draining"
		: daemon.ready	? "ready"
				: "starting");
	cJSON_AddStringToObject(json, "gatewaySocket", config->gateway_socket);
	cJSON_AddNumberToObject(json, "workers", stats.workers);
	cJSON_AddNumberToObject(json, "cellsPrepared", stats.cells_prepared);
	cJSON_AddNumberToObject(json, "cacheBytes", (double)stats.cache_bytes);
	snapshots = cJSON_AddObjectToObject(json, "snapshots");
	cJSON_AddStringToObject(snapshots, "state", stats.snapshots);
	cJSON_AddStringToObject(snapshots, "detail", stats.snapshots_why);
	runtimes = cJSON_AddArrayToObject(json, "runtimes");
	for (const char *const *r = nest_host_runtimes(env->host); *r; r++)
		cJSON_AddItemToArray(runtimes, cJSON_CreateString(*r));
	nest_admin_request_answer(request, 200, json);
}

void nest_admin_show_features(struct nest_admin_request *request)
{
	size_t n;
	const struct nest_feature_row *rows = nest_host_features(request->env->host, &n);
	cJSON *json = cJSON_CreateObject();

	cJSON_AddItemToObject(json, "features", nest_feature_table_json(rows, n));
	nest_admin_request_answer(request, 200, json);
}

static void on_metrics(void *arg, const char *text, size_t n)
{
	struct nest_admin_request *request = arg;

	if (text)
		nest_admin_request_text(
			request, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
	else
		nest_admin_request_answer(request, 500, NULL);
}

void nest_admin_show_metrics(struct nest_admin_request *request)
{
	const struct nest_admin_env *env = request->env;
	struct nest_metrics_daemon daemon;

	env->metrics(env->daemon, &daemon);
	request->state = request; /* which keeps it */
	if (nest_metrics_render(env->host, &daemon, on_metrics, request) == 0)
		return;
	request->state = NULL;
	nest_admin_request_answer(request, 500, NULL);
}

void nest_admin_show_healthz(struct nest_admin_request *request)
{
	nest_admin_request_text(request, 200, "text/plain", "ok\n", 3);
}

void nest_admin_show_readyz(struct nest_admin_request *request)
{
	char text[256];
	enum nest_report_state state =
		nest_reporting_state(request->env->reporting, text, sizeof(text));

	nest_admin_request_text(
		request, state == NEST_REPORT_READY ? 200 : 503, "text/plain", text, strlen(text));
}

void nest_admin_show_stats(struct nest_admin_request *request)
{
	struct nest_buf text = NEST_BUF_INIT;

	if (nest_reporting_stats(request->env->reporting, &text) < 0)
		nest_admin_request_answer(request, 500, NULL);
	else
		nest_admin_request_text(
			request, 200, "application/json", nest_buf_bytes(&text), text.len);
	nest_buf_done(&text);
}

void nest_admin_show_scaler(struct nest_admin_request *request)
{
	nest_admin_request_answer(
		request, 200, nest_reporting_scaler_json(request->env->reporting));
}
