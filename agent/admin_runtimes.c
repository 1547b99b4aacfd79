/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "agent/admin_request.h"
#include "agent/config.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"

/* Runtimes, and their snapshots without a function. */

static bool add_one(void *arg, const struct nest_runtime_stats *stats)
{
	cJSON *object = cJSON_CreateObject();

	cJSON_AddStringToObject(object, "runtime", stats->runtime);
	cJSON_AddNumberToObject(object, "memoryMb", (double)(stats->memory_bytes >> 20));
	nest_admin_show_snapshot(object, &stats->snapshot);
	cJSON_AddItemToArray(arg, object);
	return true;
}

void nest_admin_runtimes_list(struct nest_admin_request *request)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *runtimes = cJSON_AddArrayToObject(json, "runtimes");

	nest_host_each_runtime_snapshot(request->env->host, add_one, runtimes);
	nest_admin_request_answer(request, 200, json);
}

/* What a function of @runtime that says nothing else is like. */
static int plain_spec(const struct nest_admin_request *request, const char *runtime,
	struct nest_function_spec **ret, struct nest_err *err)
{
	const struct nest_config *config = request->env->config(request->env->daemon);
	nest_autojson cJSON *json = cJSON_CreateObject();
	cJSON *code = cJSON_AddObjectToObject(json, "code");

	if (!cJSON_AddStringToObject(code, "path", "/") ||
		!cJSON_AddStringToObject(json, "name", "runtime") ||
		!cJSON_AddStringToObject(json, "version", "0") ||
		!cJSON_AddStringToObject(json, "handler", "index.handler") ||
		!cJSON_AddStringToObject(json, "runtime", runtime))
		return nest_err_set(err, -ENOMEM, "describe a worker of runtime '%s'", runtime);
	return nest_function_parse(json, config->function_defaults, ret, err);
}

static void build(struct nest_admin_request *request, const char *runtime, cJSON *skipped)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_function_spec *spec = NULL;
	cJSON *object;
	int r = plain_spec(request, runtime, &spec, &err);

	if (r == 0)
		r = nest_host_build_runtime_snapshot(request->env->host, spec, &err);
	nest_function_free(spec);
	if (r == 0)
		return;
	object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "runtime", runtime);
	cJSON_AddStringToObject(object, "reason",
		r < 0 ? nest_err_text(&err)
		      : "its manifest does not say runtimeSnapshots, or this host makes no "
			"snapshots");
	cJSON_AddItemToArray(skipped, object);
}

void nest_admin_runtimes_build(struct nest_admin_request *request)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *skipped = cJSON_AddArrayToObject(json, "skipped");

	for (const char *const *r = nest_host_runtimes(request->env->host); *r; r++)
		build(request, *r, skipped);
	nest_admin_request_answer(request, 202, json);
}
