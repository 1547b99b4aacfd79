/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/lineage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/err.h"
#include "runtime/dispatch.h"
#include "runtime/function.h"
#include "runtime/target.h"
#include "runtime/uids.h"

int nest_lineage_new(const char *name, struct nest_uids *uids, struct nest_funclog *log,
	struct nest_lineage **ret, struct nest_err *err)
{
	struct nest_lineage *lineage = calloc(1, sizeof(*lineage));
	int r;

	if (lineage)
		lineage->name = strdup(name);
	if (!lineage || !lineage->name) {
		free(lineage);
		return nest_err_set(err, -ENOMEM, "deploy function '%s'", name);
	}
	r = nest_uids_take(uids, name, &lineage->uid, err);
	if (r < 0) {
		free(lineage->name);
		free(lineage);
		return r;
	}
	lineage->log = log;
	*ret = lineage;
	return 0;
}

void nest_lineage_free(struct nest_lineage *lineage, struct nest_uids *uids)
{
	nest_uids_give(uids, lineage->uid);
	free(lineage->name);
	free(lineage);
}

static const char *version_of(const struct nest_lineage_version *version)
{
	return nest_target_spec(version->target)->version;
}

/* "9" before "10". */
static int compare(const struct nest_lineage_version *a, const struct nest_lineage_version *b)
{
	return strverscmp(version_of(a), version_of(b));
}

int nest_lineage_add(
	struct nest_lineage *lineage, struct nest_target *target, struct nest_lineage_version **ret)
{
	struct nest_lineage_version *version = calloc(1, sizeof(*version));

	if (!version)
		return -ENOMEM;
	version->target = target;
	version->lineage = lineage;
	version->number = ++lineage->last_number;
	DL_INSERT_INORDER(lineage->versions, version, compare);
	*ret = version;
	return 0;
}

struct nest_lineage_version *nest_lineage_find(
	const struct nest_lineage *lineage, const char *version)
{
	struct nest_lineage_version *v;

	DL_FOREACH(lineage->versions, v) {
		if (!v->removed && strcmp(version_of(v), version) == 0)
			return v;
	}
	return NULL;
}

void nest_lineage_set_bounds(struct nest_lineage *lineage, uint32_t min, uint32_t max)
{
	lineage->bound_min = min;
	lineage->bound_max = max;
	if (lineage->live)
		nest_dispatch_set_bounds(nest_target_dispatch(lineage->live->target), min, max);
}

struct nest_lineage_version *nest_lineage_newest(const struct nest_lineage *lineage)
{
	struct nest_lineage_version *newest = NULL, *v;

	DL_FOREACH(lineage->versions, v) {
		if (!v->removed && (!newest || v->number > newest->number))
			newest = v;
	}
	return newest;
}

struct nest_lineage_version *nest_lineage_oldest(const struct nest_lineage *lineage)
{
	struct nest_lineage_version *oldest = NULL, *v;

	DL_FOREACH(lineage->versions, v) {
		if (!v->removed && (!oldest || v->number < oldest->number))
			oldest = v;
	}
	return oldest;
}

void nest_lineage_drop(struct nest_lineage *lineage, struct nest_lineage_version *version)
{
	nest_lineage_forget_aliases(lineage, version);
	if (lineage->live == version)
		lineage->live = NULL;
	DL_DELETE(lineage->versions, version);
	nest_target_free(version->target);
	free(version);
}
