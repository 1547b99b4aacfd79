/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/registry_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/err.h"
#include "runtime/function.h"

/* A config's part that stands beside the old one until it is committed. */
struct nest_registry_reload {
	struct nest_registry *registry;
	struct nest_registry_part part;
};

/* ---- building the new part ---- */

/*
 * The number for a version that the config leaves unnamed. The shadowed versions of the admin API
 * are passed over too: they may still be deployed when this one is.
 */
static uint64_t next_number(const struct nest_registry *registry,
	const struct nest_registry_function *function, const char *name)
{
	const struct nest_registry_function *others[] = {
		nest_registry_part_find(&registry->config, name),
		nest_registry_part_find(&registry->admin, name),
	};
	uint64_t next = function->next;

	for (size_t i = 0; i < 2; i++) {
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

/* -EEXIST where a version of either owner stands with another spec. */
static int check_unchanged(const struct nest_registry *registry,
	const struct nest_function_spec *spec, struct nest_err *err)
{
	const struct nest_registry_part *parts[] = { &registry->config, &registry->admin };

	for (size_t i = 0; i < 2; i++) {
		const struct nest_registry_version *version = nest_registry_function_find(
			nest_registry_part_find(parts[i], spec->name), spec->version);

		if (version && !nest_function_equal(version->spec, spec))
			return nest_err_say(err, -EEXIST,
				"version '%s' of function '%s' stands with another spec, and "
				"versions don't change: give it another version, or leave the "
				"version out",
				spec->version, spec->name);
	}
	return 0;
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
	rc = check_unchanged(reload->registry, spec, err);
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

int nest_registry_reload(struct nest_registry *registry,
	const struct nest_config_function *functions, size_t n, struct nest_registry_reload **ret,
	struct nest_err *err)
{
	struct nest_registry_reload *reload = calloc(1, sizeof(*reload));
	int rc = 0;

	if (!reload)
		return nest_err_set(err, -ENOMEM, "read the config's functions");
	reload->registry = registry;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_function(reload, &functions[i], err);
	if (rc < 0) {
		nest_registry_reload_abandon(reload);
		return rc;
	}
	*ret = reload;
	return 0;
}

/* ---- what it changes ---- */

/* What counts for @name where @config is the config's part. */
static const struct nest_registry_function *effective(const struct nest_registry *registry,
	const struct nest_registry_part *config, const char *name)
{
	const struct nest_registry_function *function = nest_registry_part_find(config, name);

	return function ? function : nest_registry_part_find(&registry->admin, name);
}

struct changes {
	void (*cb)(
		void *arg, enum nest_registry_change change, const struct nest_function_spec *spec);
	void *arg;
};

/* Reports the versions that @has has and @lacks (may be NULL) lacks. */
static void report_versions(const struct changes *changes, enum nest_registry_change change,
	const struct nest_registry_function *has, const struct nest_registry_function *lacks)
{
	const struct nest_registry_version *version;

	if (!has)
		return;
	DL_FOREACH(has->versions, version) {
		if (!nest_registry_function_find(lacks, version->spec->version))
			changes->cb(changes->arg, change, version->spec);
	}
}

/* Whether @new has a version that @old (may be NULL) lacks. */
static bool has_more(
	const struct nest_registry_function *new, const struct nest_registry_function *old)
{
	const struct nest_registry_version *version;

	DL_FOREACH(new->versions, version) {
		if (!nest_registry_function_find(old, version->spec->version))
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
	const struct nest_registry *registry = reload->registry;
	const struct nest_registry_function *old = effective(registry, &registry->config, name);
	const struct nest_registry_function *new = effective(registry, &reload->part, name);

	if (change == NEST_REGISTRY_REMOVE)
		report_versions(changes, change, old, new);
	else if (change == NEST_REGISTRY_DEPLOY)
		report_versions(changes, change, new, old);
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
		HASH_ITER(hh, reload->registry->config.by_name, function, next) {
			if (!nest_registry_part_find(&reload->part, function->name))
				report_function(reload, &changes, order[i], function->name);
		}
	}
}

void nest_registry_reload_commit(struct nest_registry_reload *reload)
{
	struct nest_registry_part old = reload->registry->config;

	reload->registry->config = reload->part;
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
