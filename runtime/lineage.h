/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_LINEAGE_H
#define NEST_RUNTIME_LINEAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uthash.h>

#include "runtime/host.h"

struct nest_alias;
struct nest_alias_asker;
struct nest_err;
struct nest_funclog;
struct nest_lineage_alias;
struct nest_uids;

/* One version among those of its name. */
struct nest_lineage_version {
	struct nest_target *target;
	struct nest_lineage *lineage;
	struct nest_host *host;			  /* whom its end concerns */
	uint64_t number;			  /* rises with each deployment */
	bool removed;				  /* it only finishes what it has */
	struct nest_lineage_version *prev, *next; /* by version */
};

/*
 * All versions of one function's name: they share its uid and its log, and one of them is live.
 * Aliases name others, and may share the live one's requests out. A version that an alias names,
 * as one that is live, keeps its workers_min workers.
 */
struct nest_lineage {
	char *name;
	uid_t uid;
	struct nest_funclog *log;
	struct nest_lineage_version *versions;
	struct nest_lineage_version *live; /* NULL: none is deployed */
	struct nest_lineage_alias *aliases;
	struct nest_lineage_alias *split; /* of these, the live one's, if it is not only a name */
	uint64_t last_number;
	uint32_t bound_min; /* of the live version's workers; see nest_dispatch_set_bounds() */
	uint32_t bound_max;
	UT_hash_handle hh; /* of the host's, by name */
};

/* Makes one without versions; takes a uid, and a reference on @log. */
int nest_lineage_new(const char *name, struct nest_uids *uids, struct nest_funclog *log,
	struct nest_lineage **ret, struct nest_err *err);

/* Frees one without versions, and gives its uid back; its log is the caller's. */
void nest_lineage_free(struct nest_lineage *lineage, struct nest_uids *uids);

/* Adds @target, whose spec names its version. -ENOMEM. */
int nest_lineage_add(struct nest_lineage *lineage, struct nest_target *target,
	struct nest_lineage_version **ret);

/* The version called @version that is not removed, or NULL. */
struct nest_lineage_version *nest_lineage_find(
	const struct nest_lineage *lineage, const char *version);

/* Makes @version (NULL: none) the live one, all of it, and tells the dispatches. */
void nest_lineage_set_live(struct nest_lineage *lineage, struct nest_lineage_version *version);

/* Bounds the workers of the live version, and of those that become it. */
void nest_lineage_set_bounds(struct nest_lineage *lineage, uint32_t min, uint32_t max);

/*
 * Sets an alias, in place of one of its name; takes @alias, also when it fails. The live one's main
 * version becomes the live one. 1: a version that it names is not there; -ENOMEM.
 */
int nest_lineage_set_alias(struct nest_lineage *lineage, struct nest_alias *alias);

/* Forgets an alias; of the live one, that it is shared. 1: there is none. */
int nest_lineage_remove_alias(struct nest_lineage *lineage, const char *name);

/*
 * The version that a request for alias @name (NULL: the live one) goes to; without @asker the main
 * one. NULL: there is none.
 */
struct nest_lineage_version *nest_lineage_choose(
	struct nest_lineage *lineage, const char *name, const struct nest_alias_asker *asker);

/* Whether requests for the live alias go to @version, if it is only some of them. */
bool nest_lineage_is_live(
	const struct nest_lineage *lineage, const struct nest_lineage_version *version);

/* Has aliases that name @version, which is going, forgotten. */
void nest_lineage_forget_aliases(
	struct nest_lineage *lineage, const struct nest_lineage_version *version);

/* The newest and the oldest version that is not removed, or NULL. */
struct nest_lineage_version *nest_lineage_newest(const struct nest_lineage *lineage);
struct nest_lineage_version *nest_lineage_oldest(const struct nest_lineage *lineage);

/* Takes @version off and frees it and its target, which has no calls and no workers. */
void nest_lineage_drop(struct nest_lineage *lineage, struct nest_lineage_version *version);

#endif
