/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/switch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/registry.h"
#include "base/err.h"
#include "runtime/alias.h"
#include "runtime/function.h"
#include "runtime/host.h"

/* ---- what the registry says ---- */

struct assertion {
	struct nest_host *host;
	const char *name; /* NULL: of every function */
};

static bool assert_alias(void *arg, const char *name, const struct nest_alias *alias)
{
	const struct assertion *assertion = arg;

	/* without one of its versions, which could not be deployed, "live" is still the main one */
	if (nest_host_set_alias(assertion->host, name, alias) == 1 &&
		strcmp(alias->name, NEST_ALIAS_LIVE) == 0)
		nest_host_set_live(assertion->host, name, alias->parts[0].version);
	return true;
}

/*
 * One that could not be deployed is not there to be made live: its failure was logged. One that is
 * shared out is never made the whole for a moment: others would let their workers go.
 */
static bool assert_live(void *arg, const struct nest_registry_entry *entry)
{
	const struct assertion *assertion = arg;

	if (entry->live && !entry->shared &&
		(!assertion->name || strcmp(assertion->name, entry->spec->name) == 0))
		nest_host_set_live(assertion->host, entry->spec->name, entry->spec->version);
	return true;
}

void nest_switch_assert(struct nest_host *host, struct nest_registry *registry, const char *name)
{
	struct assertion assertion = { .host = host, .name = name };
	struct nest_registry_entry entry;

	nest_registry_each_alias(registry, name, assert_alias, &assertion);
	if (!name)
		nest_registry_each(registry, assert_live, &assertion);
	else if (nest_registry_find(registry, name, NULL, &entry) == 0)
		assert_live(&assertion, &entry);
}

/* ---- changing it ---- */

struct change {
	struct nest_host *host;
	struct nest_registry *registry;
	char name[NEST_FUNCTION_NAME_MAX + 1];
	struct nest_alias *alias;
	uint32_t pending; /* versions whose workers are not up */
	struct nest_err err;
	void (*cb)(void *arg, const struct nest_err *err);
	void *arg;
};

static void change_free(struct change *change)
{
	nest_alias_free(change->alias);
	free(change);
}

static void on_warm(void *arg, const struct nest_err *why)
{
	struct change *change = arg;

	if (why && change->err.code == 0) {
		change->err = *why;
		nest_err_wrap(&change->err,
			"not every version of alias '%s' got ready, so it stays as it was",
			change->alias->name);
	}
	if (--change->pending > 0)
		return;
	if (change->err.code == 0)
		nest_registry_set_alias(
			change->registry, change->name, change->alias, &change->err);
	if (change->err.code == 0)
		nest_switch_assert(change->host, change->registry, change->name);
	change->cb(change->arg, change->err.code ? &change->err : NULL);
	change_free(change);
}

static int warm_part(
	struct change *change, const struct nest_alias_part *part, struct nest_err *err)
{
	int r = nest_host_warm(change->host, change->name, part->version, part->weight,
		change->alias->total, on_warm, change);

	if (r == 1)
		return nest_err_say(err, -ENOENT,
			"version '%s' of function '%s' is not deployed: deploy it again",
			part->version, change->name);
	if (r < 0)
		return nest_err_set(err, r, "set alias '%s'", change->alias->name);
	change->pending++;
	return 0;
}

/* What was begun before a failure ends all the same, and frees the change; nobody is told then. */
static void nobody_waits(void *arg, const struct nest_err *err)
{
	(void)arg;
	(void)err;
}

int nest_switch_start(struct nest_host *host, struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, void (*cb)(void *arg, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	struct change *change;
	int r = nest_registry_check_alias(registry, name, alias, err);

	if (r < 0)
		return r;
	change = calloc(1, sizeof(*change));
	if (!change)
		return nest_err_set(err, -ENOMEM, "set alias '%s'", alias->name);
	change->host = host;
	change->registry = registry;
	strncpy(change->name, name, sizeof(change->name) - 1);
	change->cb = cb;
	change->arg = arg;
	r = nest_alias_parse(alias->name, alias->json, &change->alias, NULL, err);
	for (uint32_t i = 0; r == 0 && i < alias->nparts; i++)
		r = warm_part(change, &change->alias->parts[i], err);
	if (r == 0)
		return 0;
	if (change->pending == 0) {
		change_free(change);
		return r;
	}
	nest_err_set(&change->err, r, "set alias '%s'", alias->name);
	change->cb = nobody_waits;
	return r;
}
