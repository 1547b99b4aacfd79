/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "agent/admin_request.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"
#include "runtime/host.h"

/* The code cache: what is in it, and an operator's hand on it. */

static void refuse(struct nest_admin_request *request, const struct nest_err *err)
{
	static const struct nest_admin_refusal rows[] = {
		{ -EINVAL, 400, "Request.Invalid" },
		{ -EBUSY, 409, "Cache.InUse" },
		{ -ENOSPC, 507, "Host.DiskFull" },
		{ -ENOMEM, 500, "Host.OutOfMemory" },
		{ -ECANCELED, 503, "Host.Stopping" },
		{ 0, 422, "Cache.LoadFailed" },
	};

	nest_admin_request_refuse_as(request, rows, err);
}

static bool add_tree(void *arg, const struct nest_host_tree *tree)
{
	cJSON *row = cJSON_CreateObject();

	cJSON_AddStringToObject(row, "digest", tree->digest);
	cJSON_AddStringToObject(row, "kind", tree->image ? "image" : "directory");
	cJSON_AddNumberToObject(row, "bytes", (double)tree->bytes);
	cJSON_AddBoolToObject(row, "inUse", tree->in_use);
	cJSON_AddItemToArray(arg, row);
	return true;
}

void nest_admin_cache_list(struct nest_admin_request *request)
{
	struct nest_host_stats stats;
	cJSON *json = cJSON_CreateObject();

	nest_host_stats(request->env->host, &stats);
	cJSON_AddNumberToObject(json, "bytes", (double)stats.cache_bytes);
	nest_host_each_tree(request->env->host, add_tree, cJSON_AddArrayToObject(json, "trees"));
	nest_admin_request_answer(request, 200, json);
}

void nest_admin_cache_remove(struct nest_admin_request *request)
{
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_host_cache_remove(request->env->host, request->name, &err);

	if (r == 1)
		nest_admin_request_refuse(request, 404, "Cache.NotFound",
			"no code %s is in the cache", request->name);
	else if (r < 0)
		refuse(request, &err);
	else
		nest_admin_request_answer(request, 200, cJSON_CreateObject());
}

/* ---- verify: the digests of what is damaged are gathered until all has been read ---- */

struct verification {
	struct nest_admin_request *request;
	cJSON *damaged;
};

static void on_damaged(void *arg, const char *digest)
{
	struct verification *v = arg;

	cJSON_AddItemToArray(v->damaged, cJSON_CreateString(digest));
}

static void on_verified(
	void *arg, const struct nest_host_verified *totals, const struct nest_err *err)
{
	struct verification *v = arg;
	struct nest_admin_request *request = v->request;
	cJSON *damaged = nest_take_ptr(v->damaged);
	cJSON *json;

	free(v);
	if (err) {
		cJSON_Delete(damaged);
		refuse(request, err);
		return;
	}
	json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "trees", (double)totals->trees);
	cJSON_AddNumberToObject(json, "recorded", (double)totals->recorded);
	cJSON_AddNumberToObject(json, "removed", (double)totals->removed);
	cJSON_AddNumberToObject(json, "inUse", (double)totals->in_use);
	if (!cJSON_AddItemToObject(json, "damaged", damaged))
		cJSON_Delete(damaged);
	nest_admin_request_answer(request, 200, json);
}

void nest_admin_cache_verify(struct nest_admin_request *request)
{
	struct verification *v = calloc(1, sizeof(*v));
	struct nest_err err = NEST_ERR_INIT;
	int r = v ? 0 : nest_err_set(&err, -ENOMEM, "verify the code cache");

	if (r == 0) {
		v->request = request;
		v->damaged = cJSON_CreateArray();
		r = nest_host_cache_verify(request->env->host, on_damaged, on_verified, v, &err);
	}
	if (r < 0) {
		if (v)
			cJSON_Delete(v->damaged);
		free(v);
		refuse(request, &err);
		return;
	}
	request->state = request; /* answered later, also when the client leaves */
}

/* ---- prefetch ---- */

static void on_prefetched(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err)
{
	struct nest_admin_request *request = arg;
	cJSON *json;

	if (!digest) {
		refuse(request, err);
		return;
	}
	json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "digest", digest);
	cJSON_AddNumberToObject(json, "bytes", (double)bytes);
	nest_admin_request_answer(request, 200, json);
}

void nest_admin_cache_prefetch(struct nest_admin_request *request)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const char *url = NULL;
	const char *digest = NULL;
	int64_t size = 0;
	int r = nest_json_parse(nest_buf_bytes(&request->body), request->body.len, &json, &err);

	if (r == 0 && !cJSON_IsObject(json))
		r = nest_err_say(&err, -EINVAL,
			"a reference is a JSON object with 'url', 'digest' and 'size', not %s",
			nest_json_type_name(json));
	if (r == 0)
		r = nest_json_get_string(json, "url", &url, &err);
	if (r == 1)
		r = nest_err_say(&err, -EINVAL, "a reference needs a 'url'");
	if (r == 0)
		r = nest_json_get_string(json, "digest", &digest, &err);
	if (r >= 0)
		r = nest_json_get_int(json, "size", 1, NEST_FUNCTION_CODE_BYTES_MAX, &size, &err);
	if (r >= 0)
		r = nest_host_cache_prefetch(request->env->host, url, digest, (uint64_t)size,
			on_prefetched, request, &err);
	if (r < 0)
		refuse(request, &err);
	else
		request->state = request; /* answered later, also when the client leaves */
}
