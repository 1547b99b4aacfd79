/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/registry_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "runtime/function.h"

/* A part, the config's or the scaler's, that stands beside the old one until it is committed. */
struct nest_registry_reload {
	struct nest_registry *registry;
	struct nest_registry_part *old;
	struct nest_registry_part part;
};

/* ---- building the new part ---- */

/*
 * The number for a version that the config leaves unnamed. The shadowed versions of other owners
 * are passed over too: they may still be deployed when this one is.
 */
static uint64_t next_number(const struct nest_registry *registry,
	const struct nest_registry_function *function, const char *name)
{
	const struct nest_registry_function *others[] = {
		nest_registry_part_find(&registry->config, name),
		nest_registry_part_find(&registry->admin, name),
		nest_registry_part_find(&registry->scaler, name),
	};
	uint64_t next = function->next;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(others); i++) {
		if (others[i] && others[i]->next > next)
			next = others[i]->next;
	}
	return next;
}

/* A copy of @spec with its version: that of the newest one that stands, where it is the same. */
static int copy_numbered(const struct nest_registry *registry,
	const struct nest_registry_function *function, const struct nest_function_spec *spec,
	struct nest_function_spec **ret, struct nest_err *err)
{
	const struct nest_registry_function *old =
		nest_registry_part_find(&registry->config, spec->name);
	char number[24];

	if (*spec->version)
		return nest_function_with_version(spec, spec->version, ret, err);
	if (old && nest_function_equal(old->versions->prev->spec, spec))
		return nest_function_with_version(
			spec, old->versions->prev->spec->version, ret, err);
	snprintf(number, sizeof(number), "%" PRIu64, next_number(registry, function, spec->name));
	return nest_function_with_version(spec, number, ret, err);
}

/*
 * -EEXIST where the version stands with another spec in @part. What the scaler placed is not asked
 * when the config is read: it must not keep a host from its config.
 */
static int check_unchanged(const struct nest_registry_part *part,
	const struct nest_function_spec *spec, struct nest_err *err)
{
	const struct nest_registry_version *version = nest_registry_function_find(
		nest_registry_part_find(part, spec->name), spec->version);

	if (!version || nest_function_equal(version->spec, spec))
		return 0;
	return nest_err_say(err, -EEXIST,
		"version '%s' of function '%s' stands with another spec, and versions don't "
		"change: give it another version, or leave the version out",
		spec->version, spec->name);
}

static int add_spec(struct nest_registry_reload *reload, const struct nest_config_function *given,
	struct nest_registry_function *function, struct nest_function_spec *spec,
	struct nest_err *err)
{
	struct nest_registry_version *version;
	char *file;
	int rc;

	if (nest_registry_function_find(function, spec->version))
		return nest_err_say(err, -EEXIST,
			"version '%s' of function '%s' is taken twice: give both a version",
			spec->version, spec->name);
	rc = check_unchanged(&reload->registry->config, spec, err);
	if (rc == 0)
		rc = check_unchanged(&reload->registry->admin, spec, err);
	if (rc < 0)
		return rc;
	file = strdup(given->file);
	version = file ? nest_registry_function_add(function, spec) : NULL;
	if (!version) {
		free(file);
		return nest_err_set(err, -ENOMEM, "read function '%s'", spec->name);
	}
	version->file = file;
	version->line = given->line;
	function->live = version;
	return 0;
}

static int add_function(struct nest_registry_reload *reload,
	const struct nest_config_function *given, struct nest_err *err)
{
	struct nest_registry_function *function =
		nest_registry_part_need(&reload->part, given->spec->name);
	struct nest_function_spec *spec = NULL;
	int rc;

	if (!function)
		return nest_err_set(err, -ENOMEM, "read function '%s'", given->spec->name);
	rc = copy_numbered(reload->registry, function, given->spec, &spec, err);
	if (rc == 0)
		rc = add_spec(reload, given, function, spec, err);
	if (rc == 0)
		return 0;
	nest_function_free(spec);
	nest_err_wrap(err, "%s: line %u", given->file, given->line);
	return rc;
}

static struct nest_registry_reload *begin(
	struct nest_registry *registry, struct nest_registry_part *old)
{
	struct nest_registry_reload *reload = calloc(1, sizeof(*reload));

	if (!reload)
		return NULL;
	reload->registry = registry;
	reload->old = old;
	reload->part.owner = old->owner;
	return reload;
}

int nest_registry_reload(struct nest_registry *registry,
	const struct nest_config_function *functions, size_t n, struct nest_registry_reload **ret,
	struct nest_err *err)
{
	struct nest_registry_reload *reload = begin(registry, &registry->config);
	int rc = 0;

	if (!reload)
		return nest_err_set(err, -ENOMEM, "read the config's functions");
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_function(reload, &functions[i], err);
	if (rc < 0) {
		nest_registry_reload_abandon(reload);
		return rc;
	}
	*ret = reload;
	return 0;
}

/* ---- the scaler's ---- */

/* Adds a copy of @spec, live from now on. */
static int add_copy(struct nest_registry_reload *reload, const struct nest_function_spec *spec,
	struct nest_err *err)
{
	struct nest_registry_function *function =
		nest_registry_part_need(&reload->part, spec->name);
	struct nest_registry_version *version = NULL;
	struct nest_function_spec *copy = NULL;
	int rc = function ? nest_function_with_version(spec, spec->version, &copy, err)
			  : nest_err_set(err, -ENOMEM, "place function '%s'", spec->name);

	if (rc == 0) {
		version = nest_registry_function_add(function, copy);
		if (!version)
			rc = nest_err_set(err, -ENOMEM, "place function '%s'", spec->name);
	}
	if (rc == 0) {
		function->live = version;
		return 0;
	}
	nest_function_free(copy);
	if (function && !function->versions)
		nest_registry_part_remove(&reload->part, function);
	return rc;
}

static int check_placement(const struct nest_registry_reload *reload,
	const struct nest_function_spec *spec, struct nest_err *err)
{
	if (!*spec->version)
		return nest_err_say(err, -EINVAL,
			"function '%s' has no version: a placed function must say its own",
			spec->name);
	if (nest_registry_function_find(
		    nest_registry_part_find(&reload->part, spec->name), spec->version))
		return nest_err_say(err, -EEXIST, "version '%s' of function '%s' is given twice",
			spec->version, spec->name);
	return check_unchanged(reload->old, spec, err);
}

/* What stands of @name stays beside what was taken anew, whose live version counts. */
static int keep_standing(
	struct nest_registry_reload *reload, const char *name, struct nest_err *err)
{
	const struct nest_registry_function *old = nest_registry_part_find(reload->old, name);
	struct nest_registry_function *new = nest_registry_part_find(&reload->part, name);
	struct nest_registry_version *live = new ? new->live : NULL;
	const struct nest_registry_version *version;
	int rc = 0;

	if (!old)
		return 0;
	DL_FOREACH(old->versions, version) {
		if (rc == 0 && !nest_registry_function_find(new, version->spec->version))
			rc = add_copy(reload, version->spec, err);
		new = nest_registry_part_find(&reload->part, name);
	}
	if (rc == 0)
		new->live =
			live ? live : nest_registry_function_find(new, old->live->spec->version);
	return rc;
}

int nest_registry_place(struct nest_registry *registry,
	const struct nest_registry_placement *placements, size_t n,
	void (*refused)(void *arg, size_t i, const struct nest_err *why), void *arg,
	struct nest_registry_reload **ret, struct nest_err *err)
{
	struct nest_registry_reload *reload = begin(registry, &registry->scaler);
	nest_autofree bool *bad = calloc(n + 1, sizeof(*bad));
	int rc = 0;

	if (!reload || !bad) {
		nest_registry_reload_abandon(reload);
		return nest_err_set(err, -ENOMEM, "place the scaler's functions");
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct nest_err why = NEST_ERR_INIT;

		bad[i] = !placements[i].spec;
		if (bad[i])
			continue;
		bad[i] = check_placement(reload, placements[i].spec, &why) < 0;
		if (bad[i])
			refused(arg, i, &why);
		else
			rc = add_copy(reload, placements[i].spec, err);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (bad[i])
			rc = keep_standing(reload, placements[i].name, err);
	}
	if (rc < 0) {
		nest_registry_reload_abandon(reload);
		return rc;
	}
	*ret = reload;
	return 0;
}

/* ---- what it changes ---- */

/* What counts for @name: before the reload, or once it is in force. */
static const struct nest_registry_function *effective(
	const struct nest_registry_reload *reload, bool after, const char *name)
{
	const struct nest_registry *registry = reload->registry;
	const struct nest_registry_part *parts[] = { &registry->config, &registry->admin,
		&registry->scaler };
	const struct nest_registry_function *function = NULL;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(parts) && !function; i++) {
		bool replaced = after && parts[i] == reload->old;

		function = nest_registry_part_find(replaced ? &reload->part : parts[i], name);
	}
	return function;
}

struct changes {
	void (*cb)(
		void *arg, enum nest_registry_change change, const struct nest_function_spec *spec);
	void *arg;
};

/* Whether @function (may be NULL) lacks @version, or another owner's of that name says something else. */
static bool is_new(
	const struct nest_registry_function *function, const struct nest_registry_version *version)
{
	const struct nest_registry_version *standing =
		nest_registry_function_find(function, version->spec->version);

	return !standing || !nest_function_equal(standing->spec, version->spec);
}

/* One that changes hands with another spec is deployed, and not removed: it takes the other's place. */
static void report_removals(const struct changes *changes, const struct nest_registry_function *old,
	const struct nest_registry_function *new)
{
	const struct nest_registry_version *version;

	if (!old)
		return;
	DL_FOREACH(old->versions, version) {
		if (!nest_registry_function_find(new, version->spec->version))
			changes->cb(changes->arg, NEST_REGISTRY_REMOVE, version->spec);
	}
}

static void report_deployments(const struct changes *changes,
	const struct nest_registry_function *old, const struct nest_registry_function *new)
{
	const struct nest_registry_version *version;

	if (!new)
		return;
	DL_FOREACH(new->versions, version) {
		if (is_new(old, version))
			changes->cb(changes->arg, NEST_REGISTRY_DEPLOY, version->spec);
	}
}

/* Whether @new has a version that @old (may be NULL) lacks. */
static bool has_more(
	const struct nest_registry_function *new, const struct nest_registry_function *old)
{
	const struct nest_registry_version *version;

	DL_FOREACH(new->versions, version) {
		if (is_new(old, version))
			return true;
	}
	return false;
}

/* A deployment makes its version live, in whatever order they end: so it is said after each. */
static void report_live(const struct changes *changes, const struct nest_registry_function *old,
	const struct nest_registry_function *new)
{
	if (!new)
		return;
	if (has_more(new, old) || strcmp(old->live->spec->version, new->live->spec->version) != 0)
		changes->cb(changes->arg, NEST_REGISTRY_SET_LIVE, new->live->spec);
}

/* Reports one kind of change of function @name. */
static void report_function(const struct nest_registry_reload *reload,
	const struct changes *changes, enum nest_registry_change change, const char *name)
{
	const struct nest_registry_function *old = effective(reload, false, name);
	const struct nest_registry_function *new = effective(reload, true, name);

	if (change == NEST_REGISTRY_REMOVE)
		report_removals(changes, old, new);
	else if (change == NEST_REGISTRY_DEPLOY)
		report_deployments(changes, old, new);
	else
		report_live(changes, old, new);
}

void nest_registry_reload_each(const struct nest_registry_reload *reload,
	void (*cb)(
		void *arg, enum nest_registry_change change, const struct nest_function_spec *spec),
	void *arg)
{
	static const enum nest_registry_change order[] = { NEST_REGISTRY_REMOVE,
		NEST_REGISTRY_DEPLOY, NEST_REGISTRY_SET_LIVE };
	const struct changes changes = { .cb = cb, .arg = arg };
	struct nest_registry_function *function, *next;

	for (size_t i = 0; i < 3; i++) {
		HASH_ITER(hh, reload->part.by_name, function, next)
			report_function(reload, &changes, order[i], function->name);
		/* names that only the old part has */
		HASH_ITER(hh, reload->old->by_name, function, next) {
			if (!nest_registry_part_find(&reload->part, function->name))
				report_function(reload, &changes, order[i], function->name);
		}
	}
}

void nest_registry_reload_commit(struct nest_registry_reload *reload)
{
	struct nest_registry_part old = *reload->old;

	*reload->old = reload->part;
	reload->part = old;
	nest_registry_reload_abandon(reload);
}

void nest_registry_reload_abandon(struct nest_registry_reload *reload)
{
	if (!reload)
		return;
	nest_registry_part_clear(&reload->part);
	free(reload);
}
