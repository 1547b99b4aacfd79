/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/runtime_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/freezer.h"
#include "runtime/frozen.h"
#include "runtime/frozen_key.h"
#include "runtime/funclog.h"
#include "runtime/function.h"
#include "runtime/manifest.h"
#include "runtime/services.h"
#include "runtime/uids.h"
#include "runtime/worker.h"

/* Kinds of cells for which a runtime is frozen; functions of others start as before. */
#define MOST 64u
#define LOG_BYTES (256u << 10)
#define SPEC_NAME "runtime"
#define OWN_NAME "runtime@" /* of their log and uid: no function can have the name */

struct runtime_snapshot {
	struct nest_function_spec *spec; /* of no function: limits alone */
	struct nest_manifest_command *command;
	struct nest_tally tally;
	struct nest_worker_plan plan;
	struct nest_frozen *frozen;
	char key[NEST_SNAPSHOT_KEY_CHARS + 1];
	struct runtime_snapshot *next;
};

struct nest_runtime_snapshots {
	struct nest_services *services;
	struct nest_uids *uids;
	struct nest_funclog *log; /* of all their workers */
	int empty_fd;
	uid_t uid; /* of all their workers, which run no code but the runtime's; 0: none yet */
	unsigned n;
	struct runtime_snapshot *all;
};

/* ---- what a worker finds in its environment ---- */

/* Whatever the function's own says. Where its code lies the sandbox adds. */
static const char *const host_env[] = {
	"NESTLET_CHANNEL_FD=3",
	"HOME=/tmp",
	"TMPDIR=/tmp",
};

/* Unless the manifest or the function says otherwise. */
static const char *const base_env[] = {
	"PATH=/usr/local/bin:/usr/bin:/bin",
	"LANG=C.UTF-8",
};

/* What any runtime's loader and C library read when a process starts. */
static const char *const start_env[] = { "LD_", "GLIBC_", "MALLOC_", "LANG", "LC_", NULL };

_Static_assert(
	NEST_ARRAY_SIZE(host_env) + NEST_ARRAY_SIZE(base_env) + 1 == NEST_RUNTIME_SNAPSHOT_ENV_MAX,
	"room for all");

static bool names_variable(const char *const *env, const char *entry)
{
	size_t n = strcspn(entry, "=") + 1;

	for (; env && *env; env++) {
		if (strncmp(*env, entry, n) == 0)
			return true;
	}
	return false;
}

void nest_runtime_snapshot_env(const struct nest_manifest *manifest,
	const struct nest_function_spec *spec, const char **ret)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(host_env); i++)
		*ret++ = host_env[i];
	for (size_t i = 0; i < NEST_ARRAY_SIZE(base_env); i++) {
		if (!names_variable(manifest->env, base_env[i]) &&
			!names_variable(spec->env, base_env[i]))
			*ret++ = base_env[i];
	}
	*ret = NULL;
}

/* ---- who may start from one ---- */

static bool begins_with_any(const char *entry, const char *const *prefixes)
{
	for (; *prefixes; prefixes++) {
		if (strncmp(entry, *prefixes, strlen(*prefixes)) == 0)
			return true;
	}
	return false;
}

static bool has(const char *const *texts, const char *text)
{
	for (; *texts; texts++) {
		if (strcmp(*texts, text) == 0)
			return true;
	}
	return false;
}

/* "!NAME" among the beginnings is one variable that none of them means. */
static bool is_excepted(const char *entry, const char *const *prefixes)
{
	size_t n = strcspn(entry, "=");

	for (; *prefixes; prefixes++) {
		if (**prefixes == '!' && strlen(*prefixes) == n + 1 &&
			strncmp(*prefixes + 1, entry, n) == 0)
			return true;
	}
	return false;
}

static bool is_read_at_start(const struct nest_manifest *manifest, const char *entry)
{
	return begins_with_any(entry, start_env) ||
	       (begins_with_any(entry, manifest->start_env) &&
		       !is_excepted(entry, manifest->start_env));
}

/* Whether what @one has and @other hasn't can be told to a process that runs already. */
static bool can_differ(
	const struct nest_manifest *manifest, const char *const *one, const char *const *other)
{
	for (; *one; one++) {
		if (!has(other, *one) && is_read_at_start(manifest, *one))
			return false;
	}
	return true;
}

static bool same_words(const char *const *one, const char *const *other)
{
	for (; *one && *other; one++, other++) {
		if (strcmp(*one, *other) != 0)
			return false;
	}
	return !*one && !*other;
}

static bool fits(const struct runtime_snapshot *runtime, const struct nest_manifest *manifest,
	const struct nest_worker_plan *plan)
{
	return same_words(runtime->plan.argv, plan->argv) &&
	       can_differ(manifest, runtime->plan.envp, plan->envp) &&
	       can_differ(manifest, plan->envp, runtime->plan.envp);
}

/* ---- one ---- */

static void free_one(struct runtime_snapshot *runtime)
{
	if (!runtime)
		return;
	nest_frozen_free(runtime->frozen);
	free(runtime->command);
	nest_function_free(runtime->spec);
	free(runtime);
}

static void cleanup_one(struct runtime_snapshot **runtime)
{
	free_one(*runtime);
}
#define autoruntime __attribute__((cleanup(cleanup_one)))

/* A spec with nothing but @like's runtime and limits. */
static int make_spec(const struct nest_function_spec *like, struct nest_function_spec **ret,
	struct nest_err *err)
{
	nest_autojson cJSON *json = cJSON_CreateObject();
	cJSON *code = json ? cJSON_AddObjectToObject(json, "code") : NULL;
	int r;

	if (!code || !cJSON_AddStringToObject(code, "path", "/") ||
		!cJSON_AddStringToObject(json, "name", SPEC_NAME) ||
		!cJSON_AddStringToObject(json, "version", "0") ||
		!cJSON_AddStringToObject(json, "runtime", like->runtime))
		return nest_err_set(err, -ENOMEM, "describe a runtime's worker");
	r = nest_function_parse(json, NULL, ret, err);
	if (r < 0)
		return r;
	(*ret)->tmp_bytes = like->tmp_bytes;
	(*ret)->cpu_milli = like->cpu_milli;
	(*ret)->pids = like->pids;
	(*ret)->nofile = like->nofile;
	(*ret)->network_none = like->network_none;
	return 0;
}

static int expand(struct runtime_snapshot *runtime, const struct nest_manifest *manifest,
	const struct nest_worker_plan *plan, struct nest_err *err)
{
	const char *env[NEST_RUNTIME_SNAPSHOT_ENV_MAX];
	struct nest_manifest_values values = {
		.function = "",
		.version = "",
		.handler = "",
		.concurrency = plan->concurrency,
		.memory_bytes = plan->memory_bytes,
	};
	int r;

	nest_runtime_snapshot_env(manifest, runtime->spec, env);
	r = nest_manifest_expand(manifest, &values, NULL, env, &runtime->command, err);
	if (r < 0)
		return r;
	runtime->plan = (struct nest_worker_plan){
		.spec = runtime->spec,
		.argv = runtime->command->argv,
		.envp = runtime->command->envp,
		.concurrency = 1,
		.memory_bytes = plan->memory_bytes,
		.mapped = plan->mapped,
		.tally = &runtime->tally,
	};
	return 0;
}

static int find_uid(struct nest_runtime_snapshots *set, struct nest_err *err)
{
	return set->uid ? 0 : nest_uids_take(set->uids, OWN_NAME, &set->uid, err);
}

/* Gives @runtime what only one that will be made needs. */
static int complete(
	struct nest_runtime_snapshots *set, struct runtime_snapshot *runtime, struct nest_err *err)
{
	struct nest_frozen_subject subject = { .plan = &runtime->plan, .key = runtime->key };
	int r = find_uid(set, err);

	if (r < 0)
		return r;
	runtime->plan.uid = set->uid;
	runtime->plan.code_fd = set->empty_fd;
	runtime->plan.log = set->log;
	if (nest_frozen_new(set->services->freezer, &subject, &runtime->frozen) < 0)
		return nest_err_set(err, -ENOMEM, "prepare a snapshot");
	nest_frozen_want(runtime->frozen);
	return 0;
}

static struct runtime_snapshot *find(const struct nest_runtime_snapshots *set, const char *key)
{
	for (struct runtime_snapshot *runtime = set->all; runtime; runtime = runtime->next) {
		if (strcmp(runtime->key, key) == 0)
			return runtime;
	}
	return NULL;
}

/* 0: *@ret is the one, or NULL: none fits. */
static int get(struct nest_runtime_snapshots *set, const struct nest_manifest *manifest,
	const struct nest_function_spec *spec, const struct nest_worker_plan *plan,
	struct nest_frozen **ret, struct nest_err *err)
{
	autoruntime struct runtime_snapshot *runtime = calloc(1, sizeof(*runtime));
	struct runtime_snapshot *known;
	int r;

	if (!runtime)
		return nest_err_set(err, -ENOMEM, "prepare a snapshot");
	r = make_spec(spec, &runtime->spec, err);
	if (r == 0)
		r = expand(runtime, manifest, plan, err);
	if (r < 0 || !fits(runtime, manifest, plan))
		return r;
	r = nest_frozen_key_make(
		&runtime->plan, NULL, NULL, NULL, set->services, runtime->key, err);
	if (r < 0)
		return r;
	known = find(set, runtime->key);
	if (known || set->n >= MOST) {
		*ret = known ? known->frozen : NULL;
		return 0;
	}
	r = complete(set, runtime, err);
	if (r < 0)
		return r;
	*ret = runtime->frozen;
	set->n++;
	LL_APPEND(set->all, runtime);
	runtime = NULL;
	return 0;
}

/* ---- all ---- */

int nest_runtime_snapshots_new(struct nest_services *services, struct nest_uids *uids,
	struct nest_funclog_store *logs, int empty_fd, struct nest_runtime_snapshots **ret,
	struct nest_err *err)
{
	struct nest_runtime_snapshots *set = calloc(1, sizeof(*set));
	int r;

	if (!set)
		return nest_err_set(err, -ENOMEM, "prepare snapshots of runtimes");
	r = nest_funclog_get(logs, OWN_NAME, LOG_BYTES, &set->log, err);
	if (r < 0) {
		free(set);
		return r;
	}
	set->services = services;
	set->uids = uids;
	set->empty_fd = empty_fd;
	*ret = set;
	return 0;
}

void nest_runtime_snapshots_free(struct nest_runtime_snapshots *set)
{
	struct runtime_snapshot *runtime, *next;

	if (!set)
		return;
	LL_FOREACH_SAFE(set->all, runtime, next)
		free_one(runtime);
	if (set->uid)
		nest_uids_give(set->uids, set->uid);
	nest_funclog_put(set->log);
	nest_cleanup_close(&set->empty_fd);
	free(set);
}

struct nest_frozen *nest_runtime_snapshots_for(struct nest_runtime_snapshots *set,
	const struct nest_manifest *manifest, const struct nest_function_spec *spec,
	const struct nest_worker_plan *plan)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_frozen *frozen = NULL;

	if (!manifest->snapshots || !manifest->runtime_snapshots)
		return NULL;
	if (get(set, manifest, spec, plan, &frozen, &err) < 0)
		nest_services_event(set->services, NEST_LOG_WARN, "no snapshot of runtime '%s': %s",
			manifest->name, nest_err_text(&err));
	return frozen;
}

void nest_runtime_snapshots_each(const struct nest_runtime_snapshots *set,
	bool (*cb)(void *arg, const struct nest_runtime_stats *stats), void *arg)
{
	for (const struct runtime_snapshot *runtime = set->all; runtime; runtime = runtime->next) {
		struct nest_runtime_stats stats = {
			.runtime = runtime->spec->runtime,
			.memory_bytes = runtime->plan.memory_bytes,
		};

		nest_frozen_view(runtime->frozen, &stats.snapshot);
		if (!cb(arg, &stats))
			return;
	}
}
