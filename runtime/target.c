/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "loader/loader.h"
#include "runtime/dispatch.h"
#include "runtime/frozen.h"
#include "runtime/frozen_key.h"
#include "runtime/funclog.h"
#include "runtime/function.h"
#include "runtime/manifest.h"
#include "runtime/mounts.h"
#include "runtime/runtime_snapshot.h"
#include "runtime/services.h"
#include "runtime/worker.h"

struct nest_target {
	struct nest_dispatch *dispatch;
	struct nest_function_spec *spec;
	struct nest_tree *tree;
	struct nest_mount *mount; /* of the tree, if it is an image */
	struct nest_manifest_command *command;
	char *init;
	char *frozen_init; /* of the worker that its snapshot is made of */
	struct nest_frozen *frozen;
	struct nest_worker_plan plan;
	struct nest_tally tally;
};

static const char *const interface_names[] = {
	[NEST_FUNCTION_EVENT] = "event",
	[NEST_FUNCTION_HTTP] = "http",
	[NEST_FUNCTION_WSGI] = "wsgi",
	[NEST_FUNCTION_ASGI] = "asgi",
};

/* INIT's payload (docs/worker-protocol.md). */
static char *init_json(const struct nest_function_spec *spec,
	const struct nest_manifest_values *values, bool snapshot)
{
	nest_autojson cJSON *init = cJSON_CreateObject();

	if (!init || !cJSON_AddStringToObject(init, "function", spec->name) ||
		!cJSON_AddStringToObject(init, "version", spec->version) ||
		!cJSON_AddStringToObject(init, "handler", values->handler) ||
		!cJSON_AddStringToObject(init, "interface", interface_names[spec->interface]) ||
		!cJSON_AddNumberToObject(init, "memoryMb", (double)(values->memory_bytes >> 20)) ||
		!cJSON_AddNumberToObject(init, "timeoutMs", spec->timeout_ms) ||
		!cJSON_AddNumberToObject(init, "concurrency", values->concurrency) ||
		!cJSON_AddNumberToObject(init, "initTimeoutMs", spec->init_timeout_ms))
		return NULL;
	if (snapshot && !cJSON_AddTrueToObject(init, "snapshot"))
		return NULL;
	return cJSON_PrintUnformatted(init);
}

/* What cells get as their code: the tree's directory, or its image as the spawner knows it. */
static int open_code(struct nest_target *target, struct nest_err *err)
{
	int fd;

	if (!target->mount)
		return nest_tree_open(target->tree, &target->plan.code_fd, err);
	fd = fcntl(nest_mounts_fd(target->mount), F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return nest_err_set(err, -errno, "keep the code's image");
	target->plan.code_fd = fd;
	return 0;
}

static int make_plan(struct nest_target *target, const struct nest_manifests *manifests,
	const struct nest_manifest **ret, struct nest_err *err)
{
	const char *env[NEST_RUNTIME_SNAPSHOT_ENV_MAX];
	const struct nest_manifest *manifest;
	struct nest_manifest_values values;
	int r;

	r = nest_manifests_settle(manifests, target->spec, &manifest, &values, err);
	if (r < 0)
		return r;
	*ret = manifest;
	nest_runtime_snapshot_env(manifest, target->spec, env);
	r = nest_manifest_expand(manifest, &values, target->spec->env, env, &target->command, err);
	if (r < 0)
		return r;
	target->init = init_json(target->spec, &values, false);
	if (manifest->snapshots && !target->spec->snapshot_off)
		target->frozen_init = init_json(target->spec, &values, true);
	if (!target->init)
		return nest_err_set(err, -ENOMEM, "write INIT");
	target->plan.argv = target->command->argv;
	target->plan.envp = target->command->envp;
	target->plan.init = target->init;
	target->plan.init_len = (uint32_t)strlen(target->init);
	target->plan.mapped = manifest->memory != 0;
	target->plan.concurrency = values.concurrency;
	target->plan.memory_bytes = values.memory_bytes;
	return open_code(target, err);
}

/* A function that can't be frozen is served all the same. */
static void make_frozen(struct nest_target *target, const struct nest_manifest *manifest,
	struct nest_services *services)
{
	struct nest_err err = NEST_ERR_INIT;
	char key[NEST_SNAPSHOT_KEY_CHARS + 1];
	struct nest_frozen_subject subject = {
		.plan = &target->plan,
		.key = key,
		.init = target->frozen_init,
		.dispatch = target->dispatch,
	};
	int r;

	if (!services->freezer || !target->frozen_init)
		return;
	target->plan.runtime = nest_runtime_snapshots_for(
		services->runtimes, manifest, target->spec, &target->plan);
	if (services->config->snapshot_layers)
		subject.parent = target->plan.runtime;
	r = nest_frozen_key_make(&target->plan, nest_tree_digest(target->tree), target->frozen_init,
		subject.parent ? nest_frozen_name(subject.parent) : NULL, services, key, &err);
	if (r == 0 && nest_frozen_new(services->freezer, &subject, &target->frozen) < 0)
		r = nest_err_set(&err, -ENOMEM, "prepare a snapshot");
	if (r < 0) {
		nest_services_event(services, NEST_LOG_WARN, "no snapshot of function '%s': %s",
			target->spec->name, nest_err_text(&err));
		return;
	}
	target->plan.frozen = target->frozen;
	nest_frozen_want(target->frozen);
}

int nest_target_new(struct nest_services *services, const struct nest_manifests *manifests,
	struct nest_funclog *log, uid_t uid, struct nest_function_spec *spec,
	struct nest_tree *tree, struct nest_mount *mount, struct nest_target **ret,
	struct nest_err *err)
{
	struct nest_target *target = calloc(1, sizeof(*target));
	const struct nest_manifest *manifest = NULL;
	int r;

	if (!target) {
		nest_function_free(spec);
		nest_mounts_put(mount);
		nest_tree_unref(tree);
		return nest_err_set(err, -ENOMEM, "deploy a function");
	}
	target->spec = spec;
	target->tree = tree;
	target->mount = mount;
	target->plan = (struct nest_worker_plan){
		.spec = spec,
		.code_fd = -1,
		.uid = uid,
		.log = log,
		.tally = &target->tally,
	};
	r = make_plan(target, manifests, &manifest, err);
	if (r == 0 && nest_dispatch_new(services, &target->plan, &target->dispatch) < 0)
		r = nest_err_set(err, -ENOMEM, "deploy a function");
	if (r < 0) {
		nest_target_free(target);
		return r;
	}
	make_frozen(target, manifest, services);
	*ret = target;
	return 0;
}

void nest_target_free(struct nest_target *target)
{
	if (!target)
		return;
	nest_frozen_free(target->frozen);
	nest_dispatch_free(target->dispatch);
	nest_cleanup_close(&target->plan.code_fd);
	nest_mounts_put(target->mount);
	nest_tree_unref(target->tree);
	cJSON_free(target->init);
	cJSON_free(target->frozen_init);
	free(target->command);
	nest_function_free(target->spec);
	free(target);
}

struct nest_dispatch *nest_target_dispatch(const struct nest_target *target)
{
	return target->dispatch;
}

const struct nest_function_spec *nest_target_spec(const struct nest_target *target)
{
	return target->spec;
}

void nest_target_set_scale(struct nest_target *target, const struct nest_target_scale *scale)
{
	nest_dispatch_set_scale(target->dispatch, scale);
}

void nest_target_stats(const struct nest_target *target, struct nest_target_stats *ret)
{
	const struct nest_tally *tally = &target->tally;

	*ret = (struct nest_target_stats){
		.spec = target->spec,
		.cold_starts_total = tally->cold_starts_total,
		.duration = tally->duration,
		.cold_start = tally->cold_start,
		.log_dropped_bytes_total = nest_funclog_dropped_bytes(target->plan.log),
	};
	memcpy(ret->requests_total, tally->requests_total, sizeof(ret->requests_total));
	memcpy(ret->rungs_total, tally->rungs_total, sizeof(ret->rungs_total));
	memcpy(ret->restarts_total, tally->restarts_total, sizeof(ret->restarts_total));
	memcpy(ret->last_failure, tally->last_failure, sizeof(ret->last_failure));
	nest_dispatch_stats(target->dispatch, ret);
	ret->snapshot.state = "off";
	if (target->frozen)
		nest_frozen_view(target->frozen, &ret->snapshot);
}

void nest_target_end(struct nest_target *target)
{
	if (target->frozen)
		nest_frozen_end(target->frozen);
}

struct nest_frozen *nest_target_frozen(const struct nest_target *target)
{
	return target->frozen;
}
