/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/loader.h"
#include "runtime/dispatch.h"
#include "runtime/freezer.h"
#include "runtime/frozen.h"
#include "runtime/funclog.h"
#include "runtime/function.h"
#include "runtime/host_impl.h"
#include "runtime/manifest.h"
#include "runtime/mounts.h"
#include "runtime/runtime_snapshot.h"
#include "runtime/target.h"
#include "runtime/uids.h"
#include "runtime/worker.h"

/* ---- finding ---- */

struct nest_lineage *nest_host_lineage(const struct nest_host *host, const char *name)
{
	struct nest_lineage *lineage;

	HASH_FIND_STR(host->lineages, name, lineage);
	return lineage;
}

/* ---- deploying ---- */

/* A deployment under way: its code is being fetched, or its answer waits for the next turn. */
struct nest_deployment {
	struct nest_host *host;
	struct nest_function_spec *spec;
	struct nest_tree *tree;
	struct nest_mount *mount; /* of the tree, if it is an image */
	struct nest_deadline later;
	void (*cb)(void *arg, struct nest_target *target, const struct nest_err *err);
	void *arg;
};

static void free_deployment(struct nest_deployment *deployment)
{
	nest_deadlines_release(deployment->host->services.deadlines, 1);
	nest_function_free(deployment->spec);
	nest_mounts_put(deployment->mount);
	nest_tree_unref(deployment->tree);
	free(deployment);
}

static int compare_names(const struct nest_lineage *a, const struct nest_lineage *b)
{
	return strcmp(a->name, b->name);
}

/* The lineage of @spec's name, made if it is its first version. */
static int get_lineage(struct nest_host *host, const struct nest_function_spec *spec,
	struct nest_lineage **ret, struct nest_err *err)
{
	struct nest_lineage *lineage = nest_host_lineage(host, spec->name);
	struct nest_funclog *log;
	int r;

	r = nest_funclog_get(host->logs, spec->name, spec->log_bytes, &log, err);
	if (r < 0)
		return r;
	if (lineage) {
		nest_funclog_put(log); /* asked for only to set its limit */
		*ret = lineage;
		return 0;
	}
	r = nest_lineage_new(spec->name, host->uids, log, &lineage, err);
	if (r < 0) {
		nest_funclog_put(log);
		return r;
	}
	HASH_ADD_KEYPTR(hh, host->lineages, lineage->name, strlen(lineage->name), lineage);
	if (!lineage->hh.tbl) {
		nest_funclog_put(log);
		nest_lineage_free(lineage, host->uids);
		return nest_err_set(err, -ENOMEM, "deploy function '%s'", spec->name);
	}
	HASH_SRT(hh, host->lineages, compare_names);
	*ret = lineage;
	return 0;
}

static void drop_lineage_if_empty(
	struct nest_host *host, struct nest_lineage *lineage, bool removed)
{
	if (lineage->versions)
		return;
	HASH_DEL(host->lineages, lineage);
	if (removed)
		nest_funclog_remove(lineage->log);
	else
		nest_funclog_put(lineage->log);
	nest_lineage_free(lineage, host->uids);
}

static int add_version(
	struct nest_deployment *deployment, struct nest_target **ret, struct nest_err *err)
{
	struct nest_host *host = deployment->host;
	struct nest_lineage_version *version;
	struct nest_lineage *lineage = NULL;
	struct nest_target *target;
	int r = get_lineage(host, deployment->spec, &lineage, err);

	if (r < 0)
		return r;
	r = nest_target_new(&host->services, host->manifests, lineage->log, lineage->uid,
		nest_take_ptr(deployment->spec), nest_take_ptr(deployment->tree),
		nest_take_ptr(deployment->mount), &target, err);
	if (r == 0 && nest_lineage_add(lineage, target, &version) < 0) {
		r = nest_err_set(err, -ENOMEM, "deploy function '%s'", lineage->name);
		nest_target_free(target);
	}
	if (r < 0) {
		drop_lineage_if_empty(host, lineage, false);
		return r;
	}
	if (!lineage->live) {
		nest_lineage_set_live(lineage, version);
		nest_host_reroute(host);
	}
	*ret = target;
	return 0;
}

/* 1: that version stands already, and says the same: *@ret is it. 0: it does not stand. */
static int find_equal(struct nest_host *host, const struct nest_function_spec *spec,
	struct nest_target **ret, struct nest_err *err)
{
	struct nest_lineage *lineage = nest_host_lineage(host, spec->name);
	struct nest_lineage_version *version =
		lineage ? nest_lineage_find(lineage, spec->version) : NULL;

	if (!version)
		return 0;
	if (!nest_function_equal(nest_target_spec(version->target), spec))
		return nest_err_say(err, -EEXIST,
			"version '%s' of function '%s' is deployed already and says something "
			"else: "
			"give this one another version",
			spec->version, spec->name);
	*ret = version->target;
	return 1;
}

static void complete(struct nest_deployment *deployment)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_target *target = NULL;
	int r = find_equal(deployment->host, deployment->spec, &target, &err);

	if (r == 0 && deployment->host->services.closing)
		r = nest_err_say(&err, -ECANCELED, "the host is going away");
	/* it stood when it was asked for, so that no code was fetched, and was removed since */
	if (r == 0 && !deployment->tree)
		r = nest_err_say(&err, -ECANCELED,
			"version '%s' of function '%s' was removed meanwhile: deploy it again",
			deployment->spec->version, deployment->spec->name);
	if (r == 0)
		r = add_version(deployment, &target, &err);
	deployment->cb(deployment->arg, r < 0 ? NULL : target, r < 0 ? &err : NULL);
	free_deployment(deployment);
}

static void give_up(struct nest_deployment *deployment, const struct nest_err *err)
{
	struct nest_err why = *err;

	nest_err_wrap(&why, "deploy function '%s'", deployment->spec->name);
	deployment->cb(deployment->arg, NULL, &why);
	free_deployment(deployment);
}

static void on_code(void *arg, struct nest_tree *tree, const struct nest_err *err);

/* An image that can't be mounted: this host's config, or the machine, may have been others. */
static void unpack(struct nest_deployment *deployment, const struct nest_err *why)
{
	struct nest_tree *tree = nest_take_ptr(deployment->tree);
	struct nest_err err = NEST_ERR_INIT;
	int r;

	nest_services_event(&deployment->host->services, NEST_LOG_WARN,
		"the code of function '%s' is unpacked, as its image can't be mounted: %s",
		deployment->spec->name, nest_err_text(why));
	r = nest_loader_unpack(deployment->host->loader, tree, on_code, deployment, &err);
	nest_tree_unref(tree);
	if (r < 0)
		give_up(deployment, &err);
}

static void on_mount(void *arg, struct nest_mount *mount, const struct nest_err *err)
{
	struct nest_deployment *deployment = arg;

	deployment->mount = mount;
	if (mount)
		complete(deployment);
	else
		unpack(deployment, err);
}

/* The code is in the cache: an image must be mounted yet. */
static void on_later(void *arg)
{
	struct nest_deployment *deployment = arg;
	struct nest_err err = NEST_ERR_INIT;

	if (!deployment->tree || nest_tree_kind(deployment->tree) == NEST_TREE_DIRECTORY)
		complete(deployment);
	else if (nest_mounts_get(&deployment->host->services, deployment->tree, on_mount,
			 deployment, &err) < 0)
		unpack(deployment, &err);
}

static void on_code(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct nest_deployment *deployment = arg;

	if (!tree) {
		give_up(deployment, err);
		return;
	}
	deployment->tree = tree;
	on_later(deployment);
}

static int fetch_code(struct nest_deployment *deployment, struct nest_err *err)
{
	const struct nest_function_code *codes[NEST_FUNCTION_LAYERS_MAX + 1];
	const struct nest_function_spec *spec = deployment->spec;
	size_t n = 0;
	int r;

	for (; n < spec->nlayers; n++)
		codes[n] = &spec->layers[n];
	codes[n++] = &spec->code;
	r = nest_host_load_code(deployment->host, codes, n, on_code, deployment, err);
	return r < 0 ? nest_err_wrap(err, "deploy function '%s'", spec->name) : 0;
}

int nest_host_deploy(struct nest_host *host, const struct nest_function_spec *spec,
	void (*cb)(void *arg, struct nest_target *target, const struct nest_err *err), void *arg,
	struct nest_err *err)
{
	struct nest_manifest_values values;
	struct nest_deployment *deployment;
	struct nest_target *target;
	int r = nest_manifests_settle(host->manifests, spec, NULL, &values, err);

	if (r < 0)
		return r;
	if (host->services.draining)
		return nest_err_say(err, -ECANCELED, "the host is going away");
	deployment = calloc(1, sizeof(*deployment));
	if (!deployment || nest_deadlines_reserve(host->services.deadlines, 1) < 0) {
		free(deployment);
		return nest_err_set(err, -ENOMEM, "deploy function '%s'", spec->name);
	}
	deployment->host = host;
	deployment->cb = cb;
	deployment->arg = arg;
	deployment->later.cb = on_later;
	deployment->later.arg = deployment;
	r = nest_function_with_version(spec, spec->version, &deployment->spec, err);
	if (r == 0)
		r = find_equal(host, spec, &target, err);
	if (r > 0)
		nest_deadlines_set(host->services.deadlines, &deployment->later, 0);
	else if (r == 0)
		r = fetch_code(deployment, err);
	if (r < 0)
		free_deployment(deployment);
	return r < 0 ? r : 0;
}

/* ---- removing ---- */

void nest_host_drop(struct nest_host *host, struct nest_lineage_version *version, bool removed)
{
	struct nest_lineage *lineage = version->lineage;

	nest_lineage_drop(lineage, version);
	drop_lineage_if_empty(host, lineage, removed);
}

static void on_retired(void *arg)
{
	struct nest_lineage_version *version = arg;

	nest_host_drop(version->host, version, true);
}

static void remove_version(struct nest_host *host, struct nest_lineage_version *version)
{
	struct nest_lineage *lineage = version->lineage;

	version->removed = true;
	version->host = host;
	nest_lineage_forget_aliases(lineage, version);
	if (lineage->live == version)
		nest_lineage_set_live(lineage, nest_lineage_newest(lineage));
	nest_host_reroute(host);
	nest_target_end(version->target);
	nest_dispatch_retire(nest_target_dispatch(version->target), on_retired, version);
}

int nest_host_remove(struct nest_host *host, const char *name, const char *version)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_lineage_version *v;
	int r = 1;

	/* The newest last: no other version becomes live for a moment. */
	while (lineage && (v = version ? nest_lineage_find(lineage, version)
				       : nest_lineage_oldest(lineage))) {
		remove_version(host, v);
		r = 0;
	}
	return r;
}

/* ---- snapshots ---- */

static int find_frozen(const struct nest_host *host, const char *name, const char *version,
	struct nest_frozen **ret)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_lineage_version *v;

	if (!lineage)
		return 1;
	v = version ? nest_lineage_find(lineage, version) : lineage->live;
	if (!v)
		return 1;
	*ret = nest_target_frozen(v->target);
	return *ret && !nest_freezer_barred(host->services.freezer) ? 0 : 2;
}

int nest_host_snapshot_renew(struct nest_host *host, const char *name, const char *version)
{
	struct nest_frozen *frozen;
	int r = find_frozen(host, name, version, &frozen);

	if (r == 0)
		nest_frozen_renew(frozen);
	return r;
}

int nest_host_snapshot_forget(struct nest_host *host, const char *name, const char *version)
{
	struct nest_frozen *frozen;
	int r = find_frozen(host, name, version, &frozen);

	if (r == 0)
		nest_frozen_forget(frozen);
	return r;
}

void nest_host_each_runtime_snapshot(struct nest_host *host,
	bool (*cb)(void *arg, const struct nest_runtime_stats *stats), void *arg)
{
	if (host->services.runtimes)
		nest_runtime_snapshots_each(host->services.runtimes, cb, arg);
}

int nest_host_build_runtime_snapshot(
	struct nest_host *host, const struct nest_function_spec *spec, struct nest_err *err)
{
	nest_autofree struct nest_manifest_command *command = NULL;
	const char *env[NEST_RUNTIME_SNAPSHOT_ENV_MAX];
	const struct nest_manifest *manifest;
	struct nest_manifest_values values;
	struct nest_worker_plan plan = { .spec = spec };
	struct nest_frozen *frozen;
	int r = nest_manifests_settle(host->manifests, spec, &manifest, &values, err);

	if (r < 0)
		return r;
	if (!host->services.runtimes || nest_freezer_barred(host->services.freezer))
		return 1;
	nest_runtime_snapshot_env(manifest, spec, env);
	r = nest_manifest_expand(manifest, &values, spec->env, env, &command, err);
	if (r < 0)
		return r;
	plan.argv = command->argv;
	plan.envp = command->envp;
	plan.mapped = manifest->memory != 0;
	plan.concurrency = values.concurrency;
	plan.memory_bytes = values.memory_bytes;
	frozen = nest_runtime_snapshots_for(host->services.runtimes, manifest, spec, &plan);
	if (!frozen)
		return 1;
	if (!nest_frozen_key(frozen) && !nest_frozen_is_pending(frozen))
		nest_frozen_renew(frozen);
	return 0;
}

int nest_host_set_bounds(struct nest_host *host, const char *name, uint32_t min, uint32_t max)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);

	if (!lineage)
		return 1;
	nest_lineage_set_bounds(lineage, min, max);
	return 0;
}
