/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/admin_request.h"
#include "agent/config.h"
#include "agent/deployer.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/host.h"

/* The changing side of the admin API: deploys, removals, uploads, reload and drain. */

/* The status and type that fit a refused change. */
static void refuse_change(struct nest_admin_request *request, const struct nest_err *err)
{
	static const struct nest_admin_refusal rows[] = {
		{ -EINVAL, 400, "Request.Invalid" },
		{ -EEXIST, 409, "Function.Exists" },
		{ -EPERM, 403, "Function.OwnedByConfig" },
		{ -EREMOTE, 403, "Function.OwnedByScaler" },
		{ -EBUSY, 409, "Function.Busy" },
		{ -EFBIG, 413, "Request.TooLarge" },
		{ -ENOSPC, 507, "Host.DiskFull" },
		{ -ENOMEM, 500, "Host.OutOfMemory" },
		{ 0, 422, "Function.DeployFailed" },
	};

	nest_admin_request_refuse_as(request, rows, err);
}

static void on_deployed(void *arg, const char *version, bool created, const struct nest_err *err)
{
	struct nest_admin_request *request = arg;
	cJSON *json;

	if (!version) {
		refuse_change(request, err);
		return;
	}
	json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "name", request->name);
	cJSON_AddStringToObject(json, "version", version);
	cJSON_AddBoolToObject(json, "created", created);
	nest_admin_request_answer(request, created ? 201 : 200, json);
}

/* The query's share: of 100 requests for the live version, those that the new one gets. */
static int read_share(const struct nest_admin_request *request, uint32_t *ret, struct nest_err *err)
{
	char text[16];

	*ret = 100;
	if (!nest_admin_request_query(request, "share", text, sizeof(text)))
		return 0;
	*ret = (uint32_t)strtoul(text, NULL, 10);
	if (*text && strlen(text) <= 3 && strspn(text, "0123456789") == strlen(text) && *ret <= 100)
		return 0;
	return nest_err_say(err, -EINVAL, "share is a number from 0 to 100, not '%s'", text);
}

void nest_admin_change_put(struct nest_admin_request *request)
{
	const struct nest_admin_env *env = request->env;
	nest_autojson cJSON *spec = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const char *name = NULL;
	uint32_t share;
	int r = read_share(request, &share, &err);

	if (r == 0)
		r = nest_json_parse(nest_buf_bytes(&request->body), request->body.len, &spec, &err);
	if (r == 0 && !cJSON_IsObject(spec))
		r = nest_err_say(&err, -EINVAL, "a spec is a JSON object, not %s",
			nest_json_type_name(spec));
	if (r == 0)
		r = nest_json_get_string(spec, "name", &name, &err);
	if (r == 1 && !cJSON_AddStringToObject(spec, "name", request->name))
		r = nest_err_set(&err, -ENOMEM, "take a spec");
	else if (r == 0 && strcmp(name, request->name) != 0)
		r = nest_err_say(&err, -EINVAL, "the path names function '%s', the spec '%s'",
			request->name, name);
	if (r >= 0) {
		request->state = request; /* answered later, also when the client leaves */
		r = nest_deployer_put_share(env->deployer, spec,
			env->config(env->daemon)->function_defaults, share, on_deployed, request,
			&err);
	}
	if (r < 0)
		refuse_change(request, &err);
}

void nest_admin_change_delete(struct nest_admin_request *request)
{
	struct nest_err err = NEST_ERR_INIT;
	char version[64];
	bool one = nest_admin_request_query(request, "version", version, sizeof(version));
	int r = nest_deployer_remove(
		request->env->deployer, request->name, one ? version : NULL, &err);

	if (r == 1)
		nest_admin_request_refuse(request, 404, "Function.NotFound",
			"no function '%s'%s%s is deployed", request->name, one ? " version " : "",
			one ? version : "");
	else if (r < 0)
		refuse_change(request, &err);
	else
		nest_admin_request_answer(request, 200, cJSON_CreateObject());
}

/* @change does it: 1: no such version; 2: snapshots are off for it. */
static void change_snapshot(struct nest_admin_request *request, unsigned status,
	int (*change)(struct nest_host *host, const char *name, const char *version))
{
	char version[64];
	bool one = nest_admin_request_query(request, "version", version, sizeof(version));
	int r = change(request->env->host, request->name, one ? version : NULL);

	if (r == 0)
		nest_admin_request_answer(request, status, cJSON_CreateObject());
	else if (r == 1)
		nest_admin_request_refuse(request, 404, "Function.NotFound",
			"no function '%s'%s%s is deployed", request->name, one ? " version " : "",
			one ? version : "");
	else
		nest_admin_request_refuse(request, 409, "Snapshot.Off",
			"function '%s' has no snapshots: its spec, its runtime or this host has "
			"them off",
			request->name);
}

void nest_admin_change_snapshot_build(struct nest_admin_request *request)
{
	change_snapshot(request, 202, nest_host_snapshot_renew);
}

void nest_admin_change_snapshot_remove(struct nest_admin_request *request)
{
	change_snapshot(request, 200, nest_host_snapshot_forget);
}

void nest_admin_change_reload(struct nest_admin_request *request)
{
	struct nest_err err = NEST_ERR_INIT;

	if (request->env->reload(request->env->daemon, &err) < 0)
		nest_admin_request_refuse(
			request, 422, "Config.Invalid", "%s", nest_err_text(&err));
	else
		nest_admin_request_answer(request, 200, cJSON_CreateObject());
}

void nest_admin_change_drain(struct nest_admin_request *request)
{
	const struct nest_admin_env env = *request->env;

	/* answered first: an idle host is gone right after */
	nest_admin_request_answer(request, 202, cJSON_CreateObject());
	env.drain(env.daemon);
}

/* ---- artifacts: the request's state is the upload until it is finished ---- */

static void artifact_gone(struct nest_admin_request *request)
{
	nest_host_upload_abort(request->state);
	nest_admin_request_free(request);
}

static void on_artifact(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err)
{
	struct nest_admin_request *request = arg;
	cJSON *json;

	if (!digest) {
		refuse_change(request, err);
		return;
	}
	json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "digest", digest);
	cJSON_AddNumberToObject(json, "bytes", (double)bytes);
	nest_admin_request_answer(request, 201, json);
}

bool nest_admin_change_artifact_piece(
	struct nest_admin_request *request, const char *bytes, size_t n)
{
	struct nest_host_upload *upload = request->state;
	struct nest_err err = NEST_ERR_INIT;
	int r = 0;

	if (!upload) {
		r = nest_host_upload_open(request->env->host, &upload, &err);
		request->state = upload;
		request->on_gone = artifact_gone;
	}
	if (r == 0)
		r = nest_host_upload_write(upload, bytes, n, &err);
	if (r == 0)
		return true;
	if (upload)
		nest_host_upload_abort(upload);
	refuse_change(request, &err);
	return false;
}

void nest_admin_change_artifact(struct nest_admin_request *request)
{
	struct nest_host_upload *upload = request->state;

	if (!upload) {
		nest_admin_request_refuse(
			request, 400, "Request.Invalid", "the artifact has no bytes");
		return;
	}
	request->on_gone = NULL; /* from here it is unpacked whether the client stays or not */
	request->state = request;
	nest_host_upload_finish(upload, on_artifact, request);
}
