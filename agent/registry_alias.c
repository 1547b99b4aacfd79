/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/registry_impl.h"
#include "base/err.h"
#include "runtime/alias.h"
#include "runtime/function.h"

/* Where names point, which changes, beside the versions, which don't. */

static int by_name(const struct nest_registry_alias *a, const struct nest_registry_alias *b)
{
	return strcmp(a->alias->name, b->alias->name);
}

static void free_entry(struct nest_registry_alias *entry)
{
	if (!entry)
		return;
	nest_alias_free(entry->alias);
	free(entry);
}

struct nest_registry_alias *nest_registry_alias_find(
	const struct nest_registry_function *function, const char *name)
{
	struct nest_registry_alias *entry;

	DL_FOREACH(function->aliases, entry) {
		if (strcmp(entry->alias->name, name) == 0)
			return entry;
	}
	return NULL;
}

const char *nest_registry_alias_of(
	const struct nest_registry_function *function, const struct nest_registry_version *version)
{
	const struct nest_registry_alias *entry;

	if (version == function->live)
		return NEST_ALIAS_LIVE;
	DL_FOREACH(function->aliases, entry) {
		if (nest_alias_find(entry->alias, version->spec->version) >= 0)
			return entry->alias->name;
	}
	return NULL;
}

void nest_registry_alias_clear(struct nest_registry_function *function)
{
	struct nest_registry_alias *entry, *next;

	DL_FOREACH_SAFE(function->aliases, entry, next) {
		DL_DELETE(function->aliases, entry);
		free_entry(entry);
	}
}

static int check_versions(const struct nest_registry_function *function,
	const struct nest_alias *alias, int code, struct nest_err *err)
{
	for (uint32_t i = 0; i < alias->nparts; i++) {
		if (!nest_registry_function_find(function, alias->parts[i].version))
			return nest_err_say(err, code, "function '%s' has no version '%s'",
				function->name, alias->parts[i].version);
	}
	return 0;
}

static struct nest_registry_alias *new_entry(struct nest_alias *alias)
{
	struct nest_registry_alias *entry = calloc(1, sizeof(*entry));

	if (entry)
		entry->alias = alias;
	else
		nest_alias_free(alias);
	return entry;
}

int nest_registry_alias_add(
	struct nest_registry_function *function, struct nest_alias *alias, struct nest_err *err)
{
	struct nest_registry_alias *entry;
	int rc = check_versions(function, alias, -EINVAL, err);

	if (rc == 0 && nest_registry_alias_find(function, alias->name))
		rc = nest_err_say(err, -EINVAL, "alias '%s' is there twice", alias->name);
	if (rc == 0 && strcmp(alias->name, NEST_ALIAS_LIVE) == 0 &&
		strcmp(alias->parts[0].version, function->live->spec->version) != 0)
		rc = nest_err_say(err, -EINVAL, "alias 'live' is not of the live version first");
	if (rc < 0) {
		nest_alias_free(alias);
		return rc;
	}
	entry = new_entry(alias);
	if (!entry)
		return nest_err_set(err, -ENOMEM, "read an alias");
	DL_INSERT_INORDER(function->aliases, entry, by_name);
	return 0;
}

/* ---- changing ---- */

struct nest_registry_undo nest_registry_alias_begin(struct nest_registry_function *function)
{
	return (struct nest_registry_undo){
		.function = function,
		.live = function->live,
		.before = function->before,
	};
}

static void take_out(struct nest_registry_undo *undo, const char *name)
{
	undo->replaced = nest_registry_alias_find(undo->function, name);
	if (undo->replaced)
		DL_DELETE(undo->function->aliases, undo->replaced);
}

int nest_registry_alias_point(struct nest_registry_undo *undo, struct nest_alias *alias)
{
	struct nest_registry_function *function = undo->function;
	bool live = strcmp(alias->name, NEST_ALIAS_LIVE) == 0;
	struct nest_registry_version *main =
		nest_registry_function_find(function, alias->parts[0].version);
	struct nest_registry_alias *entry = new_entry(alias);

	if (!entry)
		return -ENOMEM;
	take_out(undo, alias->name);
	if (live && main != function->live) {
		function->before = function->live;
		function->live = main;
	}
	if (live && nest_alias_is_plain(alias)) {
		free_entry(entry);
		return 0;
	}
	DL_INSERT_INORDER(function->aliases, entry, by_name);
	undo->added = entry;
	return 0;
}

void nest_registry_alias_done(struct nest_registry_undo *undo)
{
	free_entry(undo->replaced);
}

void nest_registry_alias_undo(struct nest_registry_undo *undo)
{
	struct nest_registry_function *function = undo->function;

	if (undo->added)
		DL_DELETE(function->aliases, undo->added);
	free_entry(undo->added);
	if (undo->replaced)
		DL_INSERT_INORDER(function->aliases, undo->replaced, by_name);
	function->live = undo->live;
	function->before = undo->before;
}

static int write_or_undo(
	struct nest_registry *registry, struct nest_registry_undo *undo, struct nest_err *err)
{
	int rc = nest_registry_store_write(registry->path, &registry->admin, NULL, err);

	if (rc == 0)
		nest_registry_alias_done(undo);
	else
		nest_registry_alias_undo(undo);
	return rc;
}

static int find_function(const struct nest_registry *registry, const char *name,
	struct nest_registry_function **ret, struct nest_err *err)
{
	int rc = nest_registry_check_change(registry, name, err);

	if (rc < 0)
		return rc;
	*ret = nest_registry_part_find(&registry->admin, name);
	return *ret ? 0 : nest_err_say(err, -ENOENT, "no function '%s' is deployed", name);
}

static int check_alias(const struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, struct nest_registry_function **ret, struct nest_err *err)
{
	int rc = find_function(registry, name, ret, err);

	if (rc < 0)
		return rc;
	if (nest_registry_function_find(*ret, alias->name))
		return nest_err_say(err, -EEXIST,
			"function '%s' has a version '%s': give the alias another name", name,
			alias->name);
	return check_versions(*ret, alias, -ENOENT, err);
}

int nest_registry_check_alias(const struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, struct nest_err *err)
{
	struct nest_registry_function *function;

	return check_alias(registry, name, alias, &function, err);
}

int nest_registry_set_alias(struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, struct nest_err *err)
{
	struct nest_registry_function *function;
	struct nest_registry_undo undo;
	struct nest_alias *copy = NULL;
	int rc = check_alias(registry, name, alias, &function, err);

	if (rc == 0)
		rc = nest_alias_parse(alias->name, alias->json, &copy, NULL, err);
	if (rc < 0)
		return rc;
	undo = nest_registry_alias_begin(function);
	if (nest_registry_alias_point(&undo, copy) < 0)
		return nest_err_set(err, -ENOMEM, "set alias '%s'", alias->name);
	return write_or_undo(registry, &undo, err);
}

int nest_registry_remove_alias(
	struct nest_registry *registry, const char *name, const char *alias, struct nest_err *err)
{
	struct nest_registry_function *function;
	struct nest_registry_undo undo;
	int rc = find_function(registry, name, &function, err);

	if (rc < 0)
		return rc;
	if (strcmp(alias, NEST_ALIAS_LIVE) == 0)
		return nest_err_say(err, -EBUSY,
			"a function always has its alias 'live': set it to one version to stop "
			"sharing out, or remove the function");
	if (!nest_registry_alias_find(function, alias))
		return nest_err_say(err, -ENOENT, "function '%s' has no alias '%s'", name, alias);
	undo = nest_registry_alias_begin(function);
	take_out(&undo, alias);
	return write_or_undo(registry, &undo, err);
}

int nest_registry_set_live(
	struct nest_registry *registry, const char *name, const char *version, struct nest_err *err)
{
	struct nest_registry_function *function;
	struct nest_registry_undo undo;
	struct nest_alias *alias = NULL;
	int rc = nest_registry_check_change(registry, name, err);

	if (rc < 0)
		return rc;
	function = nest_registry_part_find(&registry->admin, name);
	if (!nest_registry_function_find(function, version))
		return 1;
	if (strcmp(function->live->spec->version, version) == 0 &&
		!nest_registry_alias_find(function, NEST_ALIAS_LIVE))
		return 0;
	rc = nest_alias_make(NEST_ALIAS_LIVE, NULL, version, 100, &alias, err);
	if (rc < 0)
		return rc;
	undo = nest_registry_alias_begin(function);
	if (nest_registry_alias_point(&undo, alias) < 0)
		return nest_err_set(err, -ENOMEM, "make version '%s' live", version);
	return write_or_undo(registry, &undo, err);
}

/* ---- looking ---- */

int nest_registry_find_before(
	const struct nest_registry *registry, const char *name, struct nest_registry_entry *ret)
{
	const struct nest_registry_function *function =
		nest_registry_part_find(&registry->admin, name);
	const struct nest_registry_version *version;

	if (!function || nest_registry_part_find(&registry->config, name))
		return 1;
	version = nest_registry_alias_find(function, NEST_ALIAS_LIVE) ? function->live
								      : function->before;
	if (!version)
		return 1;
	*ret = (struct nest_registry_entry){
		.spec = version->spec,
		.live = version == function->live,
	};
	return 0;
}

void nest_registry_each_alias(const struct nest_registry *registry, const char *name,
	bool (*cb)(void *arg, const char *name, const struct nest_alias *alias), void *arg)
{
	struct nest_registry_function *function, *next;

	HASH_ITER(hh, registry->admin.by_name, function, next) {
		const struct nest_registry_alias *entry;

		if ((name && strcmp(name, function->name) != 0) ||
			nest_registry_part_find(&registry->config, function->name))
			continue;
		DL_FOREACH(function->aliases, entry) {
			if (!cb(arg, function->name, entry->alias))
				return;
		}
	}
}
