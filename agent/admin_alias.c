/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/admin_request.h"
#include "agent/deployer.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/alias.h"
#include "runtime/function.h"

/* Where names point: aliases, "live" among them, and rollback. */

static void refuse(struct nest_admin_request *request, const struct nest_err *err)
{
	static const struct nest_admin_refusal rows[] = {
		{ -EINVAL, 400, "Request.Invalid" },
		{ -ENOENT, 404, "Function.NotFound" },
		{ -EEXIST, 409, "Function.Exists" },
		{ -EPERM, 403, "Function.OwnedByConfig" },
		{ -EBUSY, 409, "Function.Busy" },
		{ -ECANCELED, 422, "Function.NotReady" },
		{ -ENOSPC, 507, "Host.DiskFull" },
		{ -ENOMEM, 500, "Host.OutOfMemory" },
		{ 0, 500, "Host.Error" },
	};

	nest_admin_request_refuse_as(request, rows, err);
}

static bool add_alias(void *arg, const char *name, const struct nest_alias *alias)
{
	cJSON *array = arg, *object = cJSON_CreateObject();
	const cJSON *item;

	(void)name;
	if (!cJSON_AddStringToObject(object, "name", alias->name) ||
		!cJSON_AddItemToArray(array, object)) {
		cJSON_Delete(object);
		return false;
	}
	cJSON_ArrayForEach(item, alias->json) {
		cJSON *copy = cJSON_Duplicate(item, true);

		if (!cJSON_AddItemToObject(object, item->string, copy))
			cJSON_Delete(copy);
	}
	return true;
}

int nest_admin_alias_describe(
	const struct nest_admin_request *request, cJSON *object, struct nest_err *err)
{
	return nest_deployer_each_alias(request->env->deployer, request->name, add_alias,
		cJSON_AddArrayToObject(object, "aliases"), err);
}

void nest_admin_alias_list(struct nest_admin_request *request)
{
	cJSON *json = cJSON_CreateObject();
	struct nest_err err = NEST_ERR_INIT;

	if (nest_admin_alias_describe(request, json, &err) < 0) {
		cJSON_Delete(json);
		refuse(request, &err);
		return;
	}
	nest_admin_request_answer(request, 200, json);
}

static void on_set(void *arg, const struct nest_err *err)
{
	struct nest_admin_request *request = arg;

	if (err)
		refuse(request, err);
	else
		nest_admin_request_answer(request, 200, cJSON_CreateObject());
}

void nest_admin_alias_set(struct nest_admin_request *request)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *alias = NULL;
	int r;

	r = nest_json_parse(nest_buf_bytes(&request->body), request->body.len, &json, &err);
	if (r == 0)
		r = nest_alias_parse(request->part, json, &alias, NULL, &err);
	if (r == 0) {
		request->state = request; /* answered later, also when the client leaves */
		r = nest_deployer_set_alias(
			request->env->deployer, request->name, alias, on_set, request, &err);
	}
	nest_alias_free(alias);
	if (r < 0)
		refuse(request, &err);
}

void nest_admin_alias_remove(struct nest_admin_request *request)
{
	struct nest_err err = NEST_ERR_INIT;

	if (nest_deployer_remove_alias(request->env->deployer, request->name, request->part, &err) <
		0)
		refuse(request, &err);
	else
		nest_admin_request_answer(request, 200, cJSON_CreateObject());
}

/* ---- rollback: the request's state is the version that is to be live ---- */

struct rollback {
	struct nest_admin_request *request;
	char version[NEST_FUNCTION_VERSION_MAX + 1];
};

static void on_rolled_back(void *arg, const struct nest_err *err)
{
	struct rollback *rollback = arg;
	struct nest_admin_request *request = rollback->request;
	cJSON *json;

	if (err) {
		refuse(request, err);
	} else {
		json = cJSON_CreateObject();
		cJSON_AddStringToObject(json, "name", request->name);
		cJSON_AddStringToObject(json, "version", rollback->version);
		nest_admin_request_answer(request, 200, json);
	}
	free(rollback);
}

void nest_admin_alias_rollback(struct nest_admin_request *request)
{
	struct rollback *rollback = calloc(1, sizeof(*rollback));
	struct nest_err err = NEST_ERR_INIT;

	if (!rollback) {
		nest_admin_request_answer(request, 500, NULL);
		return;
	}
	rollback->request = request;
	request->state = request;
	if (nest_deployer_rollback(request->env->deployer, request->name, rollback->version,
		    on_rolled_back, rollback, &err) == 0)
		return;
	free(rollback);
	refuse(request, &err);
}
