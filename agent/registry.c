/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/registry.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/registry_impl.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "runtime/alias.h"
#include "runtime/function.h"

#define NUMBER_DIGITS_MAX 15 /* longer ones are words, not numbers to count on from */

struct nest_registry_plan {
	struct nest_registry *registry;
	struct nest_function_spec *spec;
	uint32_t share;
	struct nest_registry_plan *prev, *next;
};

/* ---- parts, functions, versions ---- */

struct nest_registry_function *nest_registry_part_find(
	const struct nest_registry_part *part, const char *name)
{
	struct nest_registry_function *found;

	HASH_FIND_STR(part->by_name, name, found);
	return found;
}

struct nest_registry_function *nest_registry_part_need(
	struct nest_registry_part *part, const char *name)
{
	struct nest_registry_function *function = nest_registry_part_find(part, name);

	if (function)
		return function;
	function = calloc(1, sizeof(*function));
	if (!function)
		return NULL;
	function->next = 1;
	function->owner = part->owner;
	function->name = strdup(name);
	if (function->name)
		HASH_ADD_KEYPTR(
			hh, part->by_name, function->name, strlen(function->name), function);
	if (!function->name || !function->hh.tbl) {
		free(function->name);
		free(function);
		return NULL;
	}
	return function;
}

void nest_registry_version_free(struct nest_registry_version *version)
{
	nest_function_free(version->spec);
	free(version->file);
	free(version);
}

void nest_registry_part_remove(
	struct nest_registry_part *part, struct nest_registry_function *function)
{
	struct nest_registry_version *version, *next;

	HASH_DEL(part->by_name, function);
	DL_FOREACH_SAFE(function->versions, version, next)
		nest_registry_version_free(version);
	nest_registry_alias_clear(function);
	free(function->name);
	free(function);
}

void nest_registry_part_clear(struct nest_registry_part *part)
{
	struct nest_registry_function *function, *next;

	HASH_ITER(hh, part->by_name, function, next)
		nest_registry_part_remove(part, function);
}

static int by_name(const struct nest_registry_function *a, const struct nest_registry_function *b)
{
	return strcmp(a->name, b->name);
}

void nest_registry_part_sort(struct nest_registry_part *part)
{
	HASH_SORT(part->by_name, by_name);
}

struct nest_registry_version *nest_registry_function_find(
	const struct nest_registry_function *function, const char *version)
{
	struct nest_registry_version *found;

	if (!function)
		return NULL;
	DL_FOREACH(function->versions, found) {
		if (strcmp(found->spec->version, version) == 0)
			return found;
	}
	return NULL;
}

/* The number that @version is, or 0. */
static uint64_t version_number(const char *version)
{
	size_t len = strlen(version);

	if (len == 0 || len > NUMBER_DIGITS_MAX || strspn(version, "0123456789") != len)
		return 0;
	return strtoull(version, NULL, 10);
}

struct nest_registry_version *nest_registry_function_add(
	struct nest_registry_function *function, struct nest_function_spec *spec)
{
	struct nest_registry_version *version = calloc(1, sizeof(*version));
	uint64_t number = version_number(spec->version);

	if (!version)
		return NULL;
	version->spec = spec;
	version->order = ++function->last_order;
	DL_APPEND(function->versions, version);
	if (number >= function->next)
		function->next = number + 1;
	return version;
}

static int by_order(const struct nest_registry_version *a, const struct nest_registry_version *b)
{
	return a->order < b->order ? -1 : a->order > b->order;
}

void nest_registry_function_restore(
	struct nest_registry_function *function, struct nest_registry_version *version)
{
	DL_INSERT_INORDER(function->versions, version, by_order);
}

static struct nest_registry_version *newest(const struct nest_registry_function *function)
{
	return function && function->versions ? function->versions->prev : NULL;
}

/* ---- the whole ---- */

const char *nest_registry_owner_name(enum nest_registry_owner owner)
{
	static const char *const names[] = {
		[NEST_REGISTRY_CONFIG] = "config",
		[NEST_REGISTRY_ADMIN] = "admin",
		[NEST_REGISTRY_SCALER] = "scaler",
	};

	return names[owner];
}

int nest_registry_open(
	const char *path, uint32_t keep, struct nest_registry **ret, struct nest_err *err)
{
	struct nest_registry *registry = calloc(1, sizeof(*registry));
	int rc;

	if (registry)
		registry->path = strdup(path);
	if (!registry || !registry->path) {
		free(registry);
		return nest_err_set(err, -ENOMEM, "open registry '%s'", path);
	}
	registry->config.owner = NEST_REGISTRY_CONFIG;
	registry->admin.owner = NEST_REGISTRY_ADMIN;
	registry->scaler.owner = NEST_REGISTRY_SCALER;
	nest_registry_set_keep(registry, keep);
	rc = nest_registry_store_sweep(path, err);
	if (rc == 0)
		rc = nest_registry_store_read(path, &registry->admin, err);
	if (rc < 0) {
		nest_registry_free(registry);
		return rc;
	}
	*ret = registry;
	return 0;
}

void nest_registry_free(struct nest_registry *registry)
{
	if (!registry)
		return;
	nest_registry_part_clear(&registry->config);
	nest_registry_part_clear(&registry->admin);
	nest_registry_part_clear(&registry->scaler);
	free(registry->path);
	free(registry);
}

void nest_registry_set_keep(struct nest_registry *registry, uint32_t keep)
{
	registry->keep = keep > 0 ? keep : 1;
}

static struct nest_registry_entry entry_of(
	const struct nest_registry_function *function, const struct nest_registry_version *version)
{
	return (struct nest_registry_entry){
		.spec = version->spec,
		.live = version == function->live,
		.shared = version == function->live &&
			  nest_registry_alias_find(function, NEST_ALIAS_LIVE),
		.owner = function->owner,
		.file = version->file,
		.line = version->line,
	};
}

static bool each_version(const struct nest_registry_function *function,
	bool (*cb)(void *arg, const struct nest_registry_entry *entry), void *arg)
{
	struct nest_registry_version *version, *next;

	DL_FOREACH_SAFE(function->versions, version, next) {
		struct nest_registry_entry entry = entry_of(function, version);

		if (!cb(arg, &entry))
			return false;
	}
	return true;
}

/* The parts are sorted; this walks them as one, and of equal names takes the first owner's. */
void nest_registry_each(struct nest_registry *registry,
	bool (*cb)(void *arg, const struct nest_registry_entry *entry), void *arg)
{
	struct nest_registry_part *parts[] = { &registry->config, &registry->admin,
		&registry->scaler };
	struct nest_registry_function *at[NEST_ARRAY_SIZE(parts)], *first;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(parts); i++) {
		nest_registry_part_sort(parts[i]);
		at[i] = parts[i]->by_name;
	}
	for (;;) {
		first = NULL;
		for (size_t i = 0; i < NEST_ARRAY_SIZE(parts); i++) {
			if (at[i] && (!first || strcmp(at[i]->name, first->name) < 0))
				first = at[i];
		}
		if (!first)
			return;
		for (size_t i = 0; i < NEST_ARRAY_SIZE(parts); i++) {
			if (at[i] && strcmp(at[i]->name, first->name) == 0)
				at[i] = at[i]->hh.next;
		}
		if (!each_version(first, cb, arg))
			return;
	}
}

int nest_registry_find(const struct nest_registry *registry, const char *name, const char *version,
	struct nest_registry_entry *ret)
{
	const struct nest_registry_function *function =
		nest_registry_part_find(&registry->config, name);
	const struct nest_registry_version *found;

	if (!function)
		function = nest_registry_part_find(&registry->admin, name);
	if (!function)
		function = nest_registry_part_find(&registry->scaler, name);
	if (!function)
		return 1;
	found = version ? nest_registry_function_find(function, version) : function->live;
	if (!found)
		return 1;
	*ret = entry_of(function, found);
	return 0;
}

int nest_registry_shadowed(struct nest_registry *registry, struct nest_buf *ret_names)
{
	struct nest_registry_function *function, *next;
	int n = 0;

	nest_registry_part_sort(&registry->admin);
	HASH_ITER(hh, registry->admin.by_name, function, next) {
		if (!nest_registry_part_find(&registry->config, function->name))
			continue;
		if (nest_buf_printf(ret_names, "%s%s", n ? ", " : "", function->name) < 0)
			return -ENOMEM;
		n++;
	}
	return n;
}

/* ---- the admin API's part ---- */

/* -EPERM where the config has @name, -EREMOTE where the scaler has, and the admin API hasn't. */
static int check_owner(const struct nest_registry *registry, const char *name, struct nest_err *err)
{
	const struct nest_registry_function *function =
		nest_registry_part_find(&registry->config, name);

	if (function)
		return nest_err_say(err, -EPERM,
			"function '%s' is set in '%s' line %u: change it there and reload", name,
			function->live->file, function->live->line);
	if (nest_registry_part_find(&registry->scaler, name) &&
		!nest_registry_part_find(&registry->admin, name))
		return nest_err_say(err, -EREMOTE,
			"function '%s' was placed by the scaler: have the scaler change it", name);
	return 0;
}

static int check_pending(
	const struct nest_registry *registry, const char *name, struct nest_err *err)
{
	const struct nest_registry_plan *plan;

	DL_FOREACH(registry->plans, plan) {
		if (strcmp(plan->spec->name, name) == 0)
			return nest_err_say(err, -EBUSY,
				"version '%s' of function '%s' is being deployed: try again when "
				"it is done",
				plan->spec->version, name);
	}
	return 0;
}

int nest_registry_check_change(
	const struct nest_registry *registry, const char *name, struct nest_err *err)
{
	int rc = check_owner(registry, name, err);

	return rc < 0 ? rc : check_pending(registry, name, err);
}

/* Whether @spec stands already: 1 and *@ret; 0: no; -EEXIST: its version stands, with another. */
static int find_standing(const struct nest_registry_function *function,
	const struct nest_function_spec *spec, struct nest_registry_version **ret,
	struct nest_err *err)
{
	struct nest_registry_version *version;

	if (!function)
		return 0;
	version = *spec->version ? nest_registry_function_find(function, spec->version)
				 : newest(function);
	if (version && nest_function_equal(version->spec, spec)) {
		*ret = version;
		return 1;
	}
	if (!version || !*spec->version)
		return 0;
	return nest_err_say(err, -EEXIST,
		"version '%s' of function '%s' stands with another spec, and versions don't "
		"change: deploy under a new version, or leave the version out",
		spec->version, spec->name);
}

static int copy_numbered(const struct nest_registry_function *function,
	const struct nest_function_spec *spec, struct nest_function_spec **ret,
	struct nest_err *err)
{
	char number[24];

	if (*spec->version)
		return nest_function_with_version(spec, spec->version, ret, err);
	snprintf(number, sizeof(number), "%" PRIu64, function ? function->next : 1);
	return nest_function_with_version(spec, number, ret, err);
}

int nest_registry_plan(struct nest_registry *registry, const struct nest_function_spec *spec,
	struct nest_registry_plan **ret_plan, struct nest_registry_entry *ret_entry,
	struct nest_err *err)
{
	struct nest_registry_function *function =
		nest_registry_part_find(&registry->admin, spec->name);
	struct nest_registry_version *standing = NULL;
	struct nest_registry_plan *plan;
	int rc;

	rc = nest_registry_check_change(registry, spec->name, err);
	if (rc < 0)
		return rc;
	rc = find_standing(function, spec, &standing, err);
	if (rc > 0)
		*ret_entry = entry_of(function, standing);
	if (rc != 0)
		return rc;
	if (function && nest_registry_alias_find(function, spec->version))
		return nest_err_say(err, -EEXIST,
			"function '%s' has an alias '%s': give the version another name",
			spec->name, spec->version);
	plan = calloc(1, sizeof(*plan));
	if (!plan)
		return nest_err_set(err, -ENOMEM, "plan function '%s'", spec->name);
	rc = copy_numbered(function, spec, &plan->spec, err);
	if (rc < 0) {
		free(plan);
		return rc;
	}
	plan->registry = registry;
	plan->share = 100;
	DL_APPEND(registry->plans, plan);
	*ret_plan = plan;
	return 0;
}

const struct nest_function_spec *nest_registry_plan_spec(const struct nest_registry_plan *plan)
{
	return plan->spec;
}

void nest_registry_plan_share(struct nest_registry_plan *plan, uint32_t share)
{
	plan->share = share;
}

void nest_registry_abandon(struct nest_registry_plan *plan)
{
	if (!plan)
		return;
	DL_DELETE(plan->registry->plans, plan);
	nest_function_free(plan->spec);
	free(plan);
}

/* Moves the oldest versions, but none with a name, out to *@ret_dropped, in their order. */
static void drop_oldest(struct nest_registry_function *function, uint32_t keep,
	struct nest_registry_version **ret_dropped)
{
	struct nest_registry_version *version, *next;
	uint32_t count;

	DL_COUNT(function->versions, version, count);
	DL_FOREACH_SAFE(function->versions, version, next) {
		if (count <= keep)
			return;
		if (nest_registry_alias_of(function, version) || version == newest(function))
			continue;
		if (function->before == version)
			function->before = NULL;
		DL_DELETE(function->versions, version);
		DL_APPEND(*ret_dropped, version);
		count--;
	}
}

static void report_dropped(struct nest_registry_version *dropped,
	void (*cb)(void *arg, const char *name, const char *version), void *arg)
{
	struct nest_registry_version *version, *next;

	DL_FOREACH_SAFE(dropped, version, next) {
		if (cb)
			cb(arg, version->spec->name, version->spec->version);
		nest_registry_version_free(version);
	}
}

static void undo_commit(struct nest_registry *registry, struct nest_registry_undo *undo,
	struct nest_registry_version *added, struct nest_registry_version *dropped)
{
	struct nest_registry_function *function = undo->function;
	struct nest_registry_version *version, *next;

	DL_DELETE(function->versions, added);
	nest_registry_version_free(added);
	DL_FOREACH_SAFE(dropped, version, next) {
		DL_DELETE(dropped, version);
		nest_registry_function_restore(function, version);
	}
	nest_registry_alias_undo(undo);
	if (!function->versions)
		nest_registry_part_remove(&registry->admin, function);
}

/* Gives the added version its share of the live one's requests. */
static int share_out(struct nest_registry_undo *undo, const struct nest_registry_version *added,
	uint32_t share, struct nest_err *err)
{
	struct nest_alias *alias = NULL;
	int rc;

	if (!undo->live)
		share = 100;
	if (share == 0)
		return 0;
	rc = nest_alias_make(NEST_ALIAS_LIVE, undo->live ? undo->live->spec->version : NULL,
		added->spec->version, share, &alias, err);
	if (rc == 0 && nest_registry_alias_point(undo, alias) < 0)
		rc = nest_err_set(err, -ENOMEM, "keep function '%s'", added->spec->name);
	return rc;
}

static int commit(struct nest_registry_plan *plan, struct nest_registry_version **ret_dropped,
	struct nest_err *err)
{
	struct nest_registry *registry = plan->registry;
	struct nest_registry_function *function =
		nest_registry_part_need(&registry->admin, plan->spec->name);
	struct nest_registry_version *added;
	struct nest_registry_undo undo;
	uint64_t next;
	int rc;

	if (!function)
		return nest_err_set(err, -ENOMEM, "keep function '%s'", plan->spec->name);
	undo = nest_registry_alias_begin(function);
	next = function->next;
	added = nest_registry_function_add(function, plan->spec);
	if (!added) {
		if (!function->versions)
			nest_registry_part_remove(&registry->admin, function);
		return nest_err_set(err, -ENOMEM, "keep function '%s'", plan->spec->name);
	}
	plan->spec = NULL; /* it is the version's now */
	rc = share_out(&undo, added, plan->share, err);
	if (rc == 0) {
		drop_oldest(function, registry->keep, ret_dropped);
		rc = nest_registry_store_write(registry->path, &registry->admin, NULL, err);
	}
	if (rc == 0) {
		nest_registry_alias_done(&undo);
		return 0;
	}
	function->next = next;
	undo_commit(registry, &undo, added, *ret_dropped);
	*ret_dropped = NULL;
	return rc;
}

int nest_registry_commit(struct nest_registry_plan *plan,
	void (*dropped)(void *arg, const char *name, const char *version), void *arg,
	struct nest_err *err)
{
	struct nest_registry_version *out = NULL;
	int rc = check_owner(plan->registry, plan->spec->name, err);

	if (rc == 0)
		rc = commit(plan, &out, err);
	nest_registry_abandon(plan);
	if (rc == 0)
		report_dropped(out, dropped, arg);
	return rc;
}

static int remove_function(struct nest_registry *registry, struct nest_registry_function *function,
	struct nest_err *err)
{
	int rc;

	rc = nest_registry_store_write(registry->path, &registry->admin, function, err);
	if (rc == 0)
		nest_registry_part_remove(&registry->admin, function);
	return rc;
}

static int remove_version(struct nest_registry *registry, struct nest_registry_function *function,
	struct nest_registry_version *version, struct nest_err *err)
{
	struct nest_registry_version *before = function->before;
	int rc;

	DL_DELETE(function->versions, version);
	if (before == version)
		function->before = NULL;
	rc = nest_registry_store_write(registry->path, &registry->admin, NULL, err);
	if (rc == 0) {
		nest_registry_version_free(version);
		return 0;
	}
	nest_registry_function_restore(function, version);
	function->before = before;
	return rc;
}

int nest_registry_remove(
	struct nest_registry *registry, const char *name, const char *version, struct nest_err *err)
{
	struct nest_registry_function *function;
	struct nest_registry_version *found;
	const char *alias;
	int rc = nest_registry_check_change(registry, name, err);

	if (rc < 0)
		return rc;
	function = nest_registry_part_find(&registry->admin, name);
	if (!function)
		return 1;
	if (!version)
		return remove_function(registry, function, err);
	found = nest_registry_function_find(function, version);
	if (!found)
		return 1;
	if (!function->versions->next)
		return remove_function(registry, function, err);
	if (found == function->live)
		return nest_err_say(err, -EBUSY,
			"version '%s' of function '%s' is live: deploy another one first, or "
			"remove the whole function",
			version, name);
	alias = nest_registry_alias_of(function, found);
	if (alias)
		return nest_err_say(err, -EBUSY,
			"alias '%s' of function '%s' names version '%s': set it to others first",
			alias, name, version);
	return remove_version(registry, function, found, err);
}
