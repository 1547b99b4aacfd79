/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/deployer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "agent/config.h"
#include "agent/registry.h"
#include "agent/switch.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "runtime/alias.h"
#include "runtime/function.h"
#include "runtime/host.h"

/*
 * Changes reach the host in an order that leaves no gap: what is new is deployed first, and has
 * workers up; once nothing is under way any more (`pending` is 0) every name is made to point where
 * the registry says, and the removals that waited are done.
 */

#define RETRY_MIN_MS 1000u
#define RETRY_MAX_MS 300000u

struct failure {
	char *name;
	char *version;
	char *runtime;
	char *why;
	uint32_t pause_ms; /* before the next attempt */
	uint64_t retry_ms; /* of the loop's clock; 0: one is under way */
	struct failure *prev;
	struct failure *next;
};

struct removal {
	char *name;
	char *version;
	struct removal *prev;
	struct removal *next;
};

struct nest_deployer {
	uv_timer_t *retry; /* freed by its own close: the deployer doesn't wait for it */
	struct nest_host *host;
	struct nest_registry *registry;
	struct failure *failures;
	struct removal *removals;
	struct deploy *deploys; /* under way */
	unsigned pending;	/* of those that a start or a reload began */
	void (*settled)(void *arg);
	void *settled_arg;
};

/* One version on its way into the host. */
struct deploy {
	struct nest_deployer *deployer;
	char *name;
	char *version;
	char *runtime;
	struct nest_registry_plan *plan; /* of a put that brings a new version */
	uint32_t share;			 /* of a put: how many of 100 requests it gets */
	/* a put's answer; NULL for a start's or a reload's deploy */
	void (*cb)(void *arg, const char *version, bool created, const struct nest_err *err);
	void *arg;
	struct deploy *prev;
	struct deploy *next;
};

int nest_deployer_new(uv_loop_t *loop, struct nest_host *host, struct nest_registry *registry,
	struct nest_deployer **ret, struct nest_err *err)
{
	struct nest_deployer *deployer = calloc(1, sizeof(*deployer));

	if (deployer)
		deployer->retry = calloc(1, sizeof(*deployer->retry));
	if (!deployer || !deployer->retry) {
		free(deployer);
		return nest_err_set(err, -ENOMEM, "make the deployer");
	}
	uv_timer_init(loop, deployer->retry);
	deployer->retry->data = deployer;
	deployer->host = host;
	deployer->registry = registry;
	*ret = deployer;
	return 0;
}

static void failure_free(struct nest_deployer *deployer, struct failure *failure)
{
	DL_DELETE(deployer->failures, failure);
	free(failure->name);
	free(failure->version);
	free(failure->runtime);
	free(failure->why);
	free(failure);
}

static void removal_free(struct nest_deployer *deployer, struct removal *removal)
{
	DL_DELETE(deployer->removals, removal);
	free(removal->name);
	free(removal->version);
	free(removal);
}

static void deploy_free(struct deploy *deploy)
{
	DL_DELETE(deploy->deployer->deploys, deploy);
	nest_registry_abandon(deploy->plan);
	free(deploy->name);
	free(deploy->version);
	free(deploy->runtime);
	free(deploy);
}

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

void nest_deployer_free(struct nest_deployer *deployer)
{
	struct failure *f, *f_next;
	struct removal *m, *m_next;
	struct deploy *d, *d_next;

	if (!deployer)
		return;
	DL_FOREACH_SAFE(deployer->failures, f, f_next)
		failure_free(deployer, f);
	DL_FOREACH_SAFE(deployer->removals, m, m_next)
		removal_free(deployer, m);
	DL_FOREACH_SAFE(deployer->deploys, d, d_next)
		deploy_free(d);
	uv_close((uv_handle_t *)deployer->retry, free_timer);
	free(deployer);
}

/* ---- what should be deployed and is not ---- */

static void failures_forget(struct nest_deployer *deployer, const char *name, const char *version)
{
	struct failure *failure, *next;

	DL_FOREACH_SAFE(deployer->failures, failure, next) {
		if (strcmp(failure->name, name) == 0 &&
			(!version || strcmp(failure->version, version) == 0))
			failure_free(deployer, failure);
	}
}

static struct failure *failures_find(
	const struct nest_deployer *deployer, const char *name, const char *version)
{
	struct failure *failure;

	DL_FOREACH(deployer->failures, failure) {
		if (strcmp(failure->name, name) == 0 && strcmp(failure->version, version) == 0)
			return failure;
	}
	return NULL;
}

static struct failure *failure_new(const struct deploy *deploy)
{
	struct failure *failure = calloc(1, sizeof(*failure));

	if (!failure)
		return NULL;
	DL_APPEND(deploy->deployer->failures, failure);
	failure->name = strdup(deploy->name);
	failure->version = strdup(deploy->version);
	failure->runtime = strdup(deploy->runtime);
	if (failure->name && failure->version && failure->runtime)
		return failure;
	failure_free(deploy->deployer, failure);
	return NULL;
}

static void retry_plan(struct nest_deployer *deployer);

static void failures_add(struct deploy *deploy, const struct nest_err *err)
{
	struct nest_deployer *deployer = deploy->deployer;
	struct failure *failure = failures_find(deployer, deploy->name, deploy->version);
	char *why = strdup(nest_err_text(err));
	bool news = !failure || !why || strcmp(failure->why, why) != 0;

	nest_log(news ? NEST_LOG_ERROR : NEST_LOG_DEBUG, "deployer",
		"deploy function '%s' version '%s': %s", deploy->name, deploy->version,
		nest_err_text(err));
	if (!failure)
		failure = failure_new(deploy);
	if (!failure || !why) {
		free(why);
		if (failure && !failure->why)
			failure_free(deployer, failure);
		return;
	}
	free(failure->why);
	failure->why = why;
	failure->pause_ms = failure->pause_ms ? failure->pause_ms * 2 : RETRY_MIN_MS;
	if (failure->pause_ms > RETRY_MAX_MS)
		failure->pause_ms = RETRY_MAX_MS;
	failure->retry_ms = uv_now(deployer->retry->loop) + failure->pause_ms;
	retry_plan(deployer);
}

void nest_deployer_each_failure(struct nest_deployer *deployer,
	bool (*cb)(void *arg, const char *name, const char *version, const char *runtime,
		const char *why),
	void *arg)
{
	struct failure *f;

	DL_FOREACH(deployer->failures, f) {
		if (!cb(arg, f->name, f->version, f->runtime, f->why))
			return;
	}
}

/* ---- settling: removals that waited, and live versions ---- */

static void settle(struct nest_deployer *deployer)
{
	struct removal *removal, *next;
	struct nest_registry_entry entry;
	void (*settled)(void *arg) = deployer->settled;

	nest_switch_assert(deployer->host, deployer->registry, NULL);
	DL_FOREACH_SAFE(deployer->removals, removal, next) {
		/* a later reload may have brought it back */
		if (nest_registry_find(
			    deployer->registry, removal->name, removal->version, &entry) == 1)
			nest_host_remove(deployer->host, removal->name, removal->version);
		removal_free(deployer, removal);
	}
	deployer->settled = NULL;
	if (settled)
		settled(deployer->settled_arg);
}

static void deploy_settled(struct nest_deployer *deployer)
{
	if (--deployer->pending == 0)
		settle(deployer);
}

static void version_dropped(void *arg, const char *name, const char *version)
{
	struct nest_deployer *deployer = arg;

	nest_host_remove(deployer->host, name, version);
}

/* ---- one deploy ---- */

/* A version that stands already gets its share. */
static int put_standing(struct deploy *deploy, struct nest_err *err)
{
	struct nest_registry *registry = deploy->deployer->registry;
	struct nest_registry_entry live;
	struct nest_alias *alias = NULL;
	int r;

	if (deploy->share == 0)
		return 0;
	if (nest_registry_find(registry, deploy->name, NULL, &live) != 0 || live.file)
		return 0; /* its file says which is live */
	if (deploy->share == 100)
		return nest_registry_set_live(registry, deploy->name, deploy->version, err);
	if (strcmp(live.spec->version, deploy->version) == 0)
		return 0;
	r = nest_alias_make(
		NEST_ALIAS_LIVE, live.spec->version, deploy->version, deploy->share, &alias, err);
	if (r == 0)
		r = nest_registry_set_alias(registry, deploy->name, alias, err);
	nest_alias_free(alias);
	return r;
}

/* A put's version stands in the host, ready for requests: makes it the registry's too. */
static int put_commit(struct deploy *deploy, struct nest_err *err)
{
	struct nest_deployer *deployer = deploy->deployer;
	int r;

	if (deploy->plan) {
		nest_registry_plan_share(deploy->plan, deploy->share);
		r = nest_registry_commit(
			nest_take_ptr(deploy->plan), version_dropped, deployer, err);
		if (r < 0)
			nest_host_remove(deployer->host, deploy->name, deploy->version);
	} else {
		r = put_standing(deploy, err);
	}
	nest_switch_assert(deployer->host, deployer->registry, deploy->name);
	return r < 0 ? r : 0;
}

static void put_done(struct deploy *deploy, bool created, const struct nest_err *err)
{
	deploy->cb(deploy->arg, err ? NULL : deploy->version, err ? false : created, err);
	deploy_free(deploy);
}

static void on_put_warm(void *arg, const struct nest_err *why)
{
	struct deploy *deploy = arg;
	bool created = deploy->plan != NULL;
	struct nest_err err = NEST_ERR_INIT;

	if (!why) {
		put_done(deploy, created, put_commit(deploy, &err) < 0 ? &err : NULL);
		return;
	}
	err = *why;
	nest_err_wrap(
		&err, "version '%s' did not get ready, so the live one stays", deploy->version);
	if (created)
		nest_host_remove(deploy->deployer->host, deploy->name, deploy->version);
	put_done(deploy, false, &err);
}

/* A version of the config is up, or can't be: it is the config that says it is to be live. */
static void on_begun_warm(void *arg, const struct nest_err *why)
{
	struct deploy *deploy = arg;
	struct nest_deployer *deployer = deploy->deployer;

	if (why)
		nest_log(NEST_LOG_WARN, "deployer",
			"function '%s' version '%s' is made live without a worker: %s",
			deploy->name, deploy->version, nest_err_text(why));
	nest_switch_assert(deployer->host, deployer->registry, deploy->name);
	deploy_free(deploy);
	deploy_settled(deployer);
}

/* Has workers up that take over from those of the live version; 1: there is nothing to take over. */
static int warm(struct deploy *deploy, const struct nest_target *target, uint32_t share,
	void (*cb)(void *arg, const struct nest_err *why))
{
	struct nest_host *host = deploy->deployer->host;

	if (share == 0 || nest_host_find(host, deploy->name, NULL) == target)
		return 1;
	return nest_host_warm(host, deploy->name, deploy->version, share, 100, cb, deploy);
}

/* One of those that a start or a reload began. */
static void begun_deployed(
	struct deploy *deploy, const struct nest_target *target, const struct nest_err *err)
{
	struct nest_deployer *deployer = deploy->deployer;
	struct nest_registry_entry entry;

	if (!target)
		failures_add(deploy, err);
	/* while the host starts there are no requests, and who waits for it waits for no worker */
	else if (!deployer->settled &&
		 nest_registry_find(deployer->registry, deploy->name, NULL, &entry) == 0 &&
		 strcmp(entry.spec->version, deploy->version) == 0 &&
		 warm(deploy, target, 100, on_begun_warm) == 0)
		return;
	deploy_free(deploy);
	deploy_settled(deployer);
}

static void on_deployed(void *arg, struct nest_target *target, const struct nest_err *err)
{
	struct deploy *deploy = arg;

	if (target)
		failures_forget(deploy->deployer, deploy->name, deploy->version);
	if (!deploy->cb)
		begun_deployed(deploy, target, err);
	else if (!target)
		put_done(deploy, false, err);
	else if (warm(deploy, target, deploy->share, on_put_warm) != 0)
		on_put_warm(deploy, NULL);
}

/* Begins a deploy of @spec; on failure @plan is the caller's still. */
static int deploy_begin(struct nest_deployer *deployer, const struct nest_function_spec *spec,
	struct nest_registry_plan *plan, uint32_t share,
	void (*cb)(void *arg, const char *version, bool created, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	struct deploy *deploy = calloc(1, sizeof(*deploy));
	int r;

	if (!deploy)
		return nest_err_set(err, -ENOMEM, "deploy function '%s'", spec->name);
	deploy->deployer = deployer;
	DL_APPEND(deployer->deploys, deploy);
	deploy->name = strdup(spec->name);
	deploy->version = strdup(spec->version);
	deploy->runtime = strdup(spec->runtime);
	deploy->share = share;
	deploy->cb = cb;
	deploy->arg = arg;
	if (!deploy->name || !deploy->version || !deploy->runtime)
		r = nest_err_set(err, -ENOMEM, "deploy function '%s'", spec->name);
	else
		r = nest_host_deploy(deployer->host, spec, on_deployed, deploy, err);
	if (r < 0) {
		if (!cb)
			failures_add(deploy, err);
		deploy_free(deploy);
		return r;
	}
	deploy->plan = plan;
	return 0;
}

int nest_deployer_put_share(struct nest_deployer *deployer, const cJSON *spec_json,
	const cJSON *defaults, uint32_t share,
	void (*cb)(void *arg, const char *version, bool created, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	struct nest_function_spec *spec = NULL;
	struct nest_registry_plan *plan = NULL;
	struct nest_registry_entry entry = { .spec = NULL };
	int r = nest_function_parse(spec_json, defaults, &spec, err);

	if (r < 0)
		return r;
	r = nest_registry_plan(deployer->registry, spec, &plan, &entry, err);
	nest_function_free(spec);
	if (r < 0)
		return r;
	/* what stands already is deployed again too: it may have failed when the host started */
	r = deploy_begin(deployer, plan ? nest_registry_plan_spec(plan) : entry.spec, plan, share,
		cb, arg, err);
	if (r < 0)
		nest_registry_abandon(plan);
	return r;
}

static void pending_begin(struct nest_deployer *deployer, const struct nest_function_spec *spec)
{
	struct nest_err err = NEST_ERR_INIT;

	if (deploy_begin(deployer, spec, NULL, 100, NULL, NULL, &err) == 0)
		deployer->pending++;
}

struct surfacing {
	struct nest_deployer *deployer;
	const char *name;
};

static bool surface_entry(void *arg, const struct nest_registry_entry *entry)
{
	const struct surfacing *surfacing = arg;

	if (strcmp(entry->spec->name, surfacing->name) == 0)
		pending_begin(surfacing->deployer, entry->spec);
	return true;
}

/* Of a name that its owner has let go another one's versions may have been waiting. */
static void surface(struct nest_deployer *deployer, const char *name)
{
	struct surfacing surfacing = { .deployer = deployer, .name = name };

	deployer->pending++;
	nest_registry_each(deployer->registry, surface_entry, &surfacing);
	deploy_settled(deployer);
}

int nest_deployer_remove(
	struct nest_deployer *deployer, const char *name, const char *version, struct nest_err *err)
{
	int r = nest_registry_remove(deployer->registry, name, version, err);

	if (r != 0)
		return r;
	failures_forget(deployer, name, version);
	nest_host_remove(deployer->host, name, version);
	nest_switch_assert(deployer->host, deployer->registry, name);
	if (!version)
		surface(deployer, name);
	return 0;
}

/* ---- names ---- */

int nest_deployer_set_alias(struct nest_deployer *deployer, const char *name,
	const struct nest_alias *alias, void (*cb)(void *arg, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	return nest_switch_start(deployer->host, deployer->registry, name, alias, cb, arg, err);
}

int nest_deployer_each_alias(struct nest_deployer *deployer, const char *name,
	bool (*cb)(void *arg, const char *name, const struct nest_alias *alias), void *arg,
	struct nest_err *err)
{
	struct nest_registry_entry live;
	struct nest_alias *alias = NULL;
	bool more = true;
	int r;

	if (nest_registry_find(deployer->registry, name, NULL, &live) == 1)
		return nest_err_say(err, -ENOENT, "no function '%s' is deployed", name);
	if (!live.shared) {
		r = nest_alias_make(NEST_ALIAS_LIVE, NULL, live.spec->version, 100, &alias, err);
		if (r < 0)
			return r;
		more = cb(arg, name, alias);
		nest_alias_free(alias);
	}
	if (more)
		nest_registry_each_alias(deployer->registry, name, cb, arg);
	return 0;
}

int nest_deployer_remove_alias(
	struct nest_deployer *deployer, const char *name, const char *alias, struct nest_err *err)
{
	int r = nest_registry_remove_alias(deployer->registry, name, alias, err);

	if (r == 0)
		nest_host_remove_alias(deployer->host, name, alias);
	return r;
}

int nest_deployer_rollback(struct nest_deployer *deployer, const char *name, char *ret_version,
	void (*cb)(void *arg, const struct nest_err *err), void *arg, struct nest_err *err)
{
	struct nest_registry_entry before;
	struct nest_alias *alias = NULL;
	int r;

	if (nest_registry_find_before(deployer->registry, name, &before) == 1)
		return nest_err_say(err, -ENOENT,
			"function '%s' has no version that was live before, or it is not the admin "
			"API's",
			name);
	r = nest_alias_make(NEST_ALIAS_LIVE, NULL, before.spec->version, 100, &alias, err);
	if (r < 0)
		return r;
	strcpy(ret_version, before.spec->version);
	r = nest_deployer_set_alias(deployer, name, alias, cb, arg, err);
	nest_alias_free(alias);
	return r;
}

/* ---- start and reload ---- */

static void remove_later(struct nest_deployer *deployer, const struct nest_function_spec *spec)
{
	struct removal *removal = calloc(1, sizeof(*removal));

	failures_forget(deployer, spec->name, spec->version);
	if (!removal) { /* with a gap, then, rather than not at all */
		nest_host_remove(deployer->host, spec->name, spec->version);
		return;
	}
	DL_APPEND(deployer->removals, removal);
	removal->name = strdup(spec->name);
	removal->version = strdup(spec->version);
	if (!removal->name || !removal->version) {
		removal_free(deployer, removal);
		nest_host_remove(deployer->host, spec->name, spec->version);
	}
}

static void on_retry(uv_timer_t *timer)
{
	struct nest_deployer *deployer = timer->data;
	uint64_t now_ms = uv_now(timer->loop);
	struct nest_registry_entry entry;
	struct failure *failure, *next;

	deployer->pending++; /* so that nothing settles, and no failure goes, within the walk */
	DL_FOREACH_SAFE(deployer->failures, failure, next) {
		if (failure->retry_ms == 0 || failure->retry_ms > now_ms)
			continue;
		failure->retry_ms = 0;
		if (nest_registry_find(
			    deployer->registry, failure->name, failure->version, &entry) == 0)
			pending_begin(deployer, entry.spec);
		else
			failure_free(deployer, failure);
	}
	retry_plan(deployer);
	deploy_settled(deployer);
}

/* Sets the timer to the next attempt; none is left running when there is none. */
static void retry_plan(struct nest_deployer *deployer)
{
	uint64_t now_ms = uv_now(deployer->retry->loop), due = UINT64_MAX;
	struct failure *failure;

	DL_FOREACH(deployer->failures, failure) {
		if (failure->retry_ms > 0 && failure->retry_ms < due)
			due = failure->retry_ms;
	}
	if (due == UINT64_MAX)
		uv_timer_stop(deployer->retry);
	else
		uv_timer_start(deployer->retry, on_retry, due > now_ms ? due - now_ms : 0, 0);
}

struct change_list {
	struct nest_deployer *deployer;
	bool removals; /* this walk is for them */
};

static void apply_change(
	void *arg, enum nest_registry_change change, const struct nest_function_spec *spec)
{
	struct change_list *list = arg;

	if (change == NEST_REGISTRY_DEPLOY && !list->removals)
		pending_begin(list->deployer, spec);
	else if (change == NEST_REGISTRY_REMOVE && list->removals)
		remove_later(list->deployer, spec);
}

/* A version that changes hands with another spec can't wait for its removal. */
static void make_room(
	void *arg, enum nest_registry_change change, const struct nest_function_spec *spec)
{
	struct nest_deployer *deployer = arg;

	if (change == NEST_REGISTRY_DEPLOY) {
		struct nest_target *standing =
			nest_host_find(deployer->host, spec->name, spec->version);

		if (standing && !nest_function_equal(nest_target_spec(standing), spec))
			nest_host_remove(deployer->host, spec->name, spec->version);
	}
}

static void warn_shadowed(struct nest_deployer *deployer)
{
	struct nest_buf names = NEST_BUF_INIT;

	if (nest_registry_shadowed(deployer->registry, &names) > 0)
		nest_log(NEST_LOG_WARN, "deployer",
			"deployed through the admin API, but the config has functions of the same "
			"name, which count: %.*s",
			(int)names.len, nest_buf_bytes(&names));
	nest_buf_done(&names);
}

void nest_deployer_apply(struct nest_deployer *deployer, struct nest_registry_reload *reload)
{
	struct change_list list = { .deployer = deployer };

	nest_registry_reload_each(reload, make_room, deployer);
	deployer->pending++; /* so that nothing settles while the changes are begun */
	nest_registry_reload_each(reload, apply_change, &list);
	list.removals = true;
	nest_registry_reload_each(reload, apply_change, &list);
	nest_registry_reload_commit(reload);
	deploy_settled(deployer);
}

bool nest_deployer_is_settled(const struct nest_deployer *deployer)
{
	return deployer->pending == 0;
}

int nest_deployer_reload(
	struct nest_deployer *deployer, const struct nest_config *config, struct nest_err *err)
{
	struct nest_registry_reload *reload;
	int r = nest_registry_reload(
		deployer->registry, config->functions, config->nfunctions, &reload, err);

	if (r < 0)
		return r;
	nest_registry_set_keep(deployer->registry, config->registry_versions);
	nest_deployer_apply(deployer, reload);
	warn_shadowed(deployer);
	return 0;
}

static bool deploy_entry(void *arg, const struct nest_registry_entry *entry)
{
	pending_begin(arg, entry->spec);
	return true;
}

int nest_deployer_start(struct nest_deployer *deployer, const struct nest_config *config,
	void (*cb)(void *arg), void *arg, struct nest_err *err)
{
	struct nest_registry_reload *reload;
	int r = nest_registry_reload(
		deployer->registry, config->functions, config->nfunctions, &reload, err);

	if (r < 0)
		return r;
	nest_registry_reload_commit(reload);
	warn_shadowed(deployer);
	nest_registry_each(deployer->registry, deploy_entry, deployer);
	if (deployer->pending == 0)
		return 1;
	deployer->settled = cb;
	deployer->settled_arg = arg;
	return 0;
}
