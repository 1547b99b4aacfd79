/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "runtime/alias.h"
#include "runtime/dispatch.h"
#include "runtime/lineage.h"
#include "runtime/target.h"

/* An alias with its versions looked up, so that a request finds its own by an index. */
struct nest_lineage_alias {
	struct nest_alias *alias;
	uint64_t turn;
	struct nest_lineage_alias *prev, *next;
	struct nest_lineage_version *versions[];
};

static bool names(
	const struct nest_lineage_alias *entry, const struct nest_lineage_version *version)
{
	for (uint32_t i = 0; i < entry->alias->nparts; i++) {
		if (entry->versions[i] == version)
			return true;
	}
	return false;
}

bool nest_lineage_is_live(
	const struct nest_lineage *lineage, const struct nest_lineage_version *version)
{
	return version == lineage->live || (lineage->split && names(lineage->split, version));
}

static bool is_wanted(
	const struct nest_lineage *lineage, const struct nest_lineage_version *version)
{
	const struct nest_lineage_alias *entry;

	if (version == lineage->live)
		return true;
	DL_FOREACH(lineage->aliases, entry) {
		if (names(entry, version))
			return true;
	}
	return false;
}

/* Those that are no longer wanted are told first: what they have they finish. */
static void tell_dispatches(struct nest_lineage *lineage)
{
	struct nest_lineage_version *version;

	if (lineage->live)
		nest_dispatch_set_bounds(nest_target_dispatch(lineage->live->target),
			lineage->bound_min, lineage->bound_max);
	for (int wanted = 0; wanted < 2; wanted++) {
		DL_FOREACH(lineage->versions, version) {
			if (is_wanted(lineage, version) == (wanted == 1))
				nest_dispatch_set_live(
					nest_target_dispatch(version->target), wanted == 1);
		}
	}
}

static void drop(struct nest_lineage *lineage, struct nest_lineage_alias *entry)
{
	if (lineage->split == entry)
		lineage->split = NULL;
	DL_DELETE(lineage->aliases, entry);
	nest_alias_free(entry->alias);
	free(entry);
}

static struct nest_lineage_alias *find(const struct nest_lineage *lineage, const char *name)
{
	struct nest_lineage_alias *entry;

	DL_FOREACH(lineage->aliases, entry) {
		if (strcmp(entry->alias->name, name) == 0)
			return entry;
	}
	return NULL;
}

void nest_lineage_set_live(struct nest_lineage *lineage, struct nest_lineage_version *version)
{
	if (lineage->live == version && !lineage->split)
		return;
	if (lineage->split)
		drop(lineage, lineage->split);
	lineage->live = version;
	tell_dispatches(lineage);
}

static int look_up(const struct nest_lineage *lineage, struct nest_lineage_alias *entry)
{
	for (uint32_t i = 0; i < entry->alias->nparts; i++) {
		entry->versions[i] = nest_lineage_find(lineage, entry->alias->parts[i].version);
		if (!entry->versions[i])
			return 1;
	}
	return 0;
}

int nest_lineage_set_alias(struct nest_lineage *lineage, struct nest_alias *alias)
{
	struct nest_lineage_alias *before = find(lineage, alias->name);
	struct nest_lineage_alias *entry =
		calloc(1, sizeof(*entry) + alias->nparts * sizeof(entry->versions[0]));
	bool live = strcmp(alias->name, NEST_ALIAS_LIVE) == 0;
	int r = -ENOMEM;

	if (entry) {
		entry->alias = alias;
		r = look_up(lineage, entry);
	}
	if (r != 0) {
		nest_alias_free(alias);
		free(entry);
		return r;
	}
	DL_APPEND(lineage->aliases, entry);
	if (before)
		drop(lineage, before);
	if (live) {
		lineage->live = entry->versions[0];
		lineage->split = entry;
	}
	if (live && nest_alias_is_plain(alias))
		drop(lineage, entry);
	tell_dispatches(lineage);
	return 0;
}

int nest_lineage_remove_alias(struct nest_lineage *lineage, const char *name)
{
	struct nest_lineage_alias *entry = find(lineage, name);

	if (!entry)
		return 1;
	drop(lineage, entry);
	tell_dispatches(lineage);
	return 0;
}

struct nest_lineage_version *nest_lineage_choose(
	struct nest_lineage *lineage, const char *name, const struct nest_alias_asker *asker)
{
	bool live = !name || strcmp(name, NEST_ALIAS_LIVE) == 0;
	struct nest_lineage_alias *entry = live ? lineage->split : find(lineage, name);

	if (!entry)
		return live ? lineage->live : NULL;
	if (!asker)
		return entry->versions[0];
	return entry->versions[nest_alias_choose(entry->alias, entry->turn++, asker)];
}

void nest_lineage_forget_aliases(
	struct nest_lineage *lineage, const struct nest_lineage_version *version)
{
	struct nest_lineage_alias *entry, *next;
	bool dropped = false;

	DL_FOREACH_SAFE(lineage->aliases, entry, next) {
		if (!names(entry, version))
			continue;
		drop(lineage, entry);
		dropped = true;
	}
	if (dropped)
		tell_dispatches(lineage);
}
