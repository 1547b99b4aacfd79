/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REGISTRY_IMPL_H
#define NEST_AGENT_REGISTRY_IMPL_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "agent/registry.h"

/*
 * What the files of the registry share. A *part* is one owner's functions by name; the registry has
 * one for each owner.
 */
struct nest_registry_version {
	struct nest_function_spec *spec;
	char *file; /* of the config; NULL: another's */
	unsigned line;
	uint64_t order; /* rises from the oldest to the newest of a function */
	struct nest_registry_version *prev, *next;
};

struct nest_alias;

struct nest_registry_alias {
	struct nest_alias *alias;
	struct nest_registry_alias *prev, *next;
};

struct nest_registry_function {
	char *name;
	enum nest_registry_owner owner;
	struct nest_registry_version *versions; /* oldest first; never empty once in a part */
	struct nest_registry_version *live;
	struct nest_registry_version *before; /* the one that was live before; or NULL */
	struct nest_registry_alias *aliases; /* by name; "live" only where it is more than a name */
	uint64_t next;			     /* the number for the next version without one */
	uint64_t last_order;
	UT_hash_handle hh;
};

struct nest_registry_part {
	enum nest_registry_owner owner;
	struct nest_registry_function *by_name;
};

struct nest_registry {
	struct nest_registry_part config;
	struct nest_registry_part admin;
	struct nest_registry_part scaler;
	struct nest_registry_plan *plans; /* pending ones */
	char *path;
	uint32_t keep;
};

/* The function @name of @part, or NULL. */
struct nest_registry_function *nest_registry_part_find(
	const struct nest_registry_part *part, const char *name);

/* The same, made without a version when it is missing. NULL on lack of memory. */
struct nest_registry_function *nest_registry_part_need(
	struct nest_registry_part *part, const char *name);

/* Takes a function out of its part and frees it with its versions. */
void nest_registry_part_remove(
	struct nest_registry_part *part, struct nest_registry_function *function);

/* Frees all functions of @part. */
void nest_registry_part_clear(struct nest_registry_part *part);

/* Sorts @part by name. */
void nest_registry_part_sort(struct nest_registry_part *part);

/* The version @version of @function (may be NULL), or NULL. */
struct nest_registry_version *nest_registry_function_find(
	const struct nest_registry_function *function, const char *version);

/* Appends a version and counts its number. Takes @spec where it succeeds. NULL on lack of memory. */
struct nest_registry_version *nest_registry_function_add(
	struct nest_registry_function *function, struct nest_function_spec *spec);

/* Puts a version that was taken out of @function back to its place. */
void nest_registry_function_restore(
	struct nest_registry_function *function, struct nest_registry_version *version);

/* -EPERM where the config has @name, -EBUSY where a plan for it is pending. */
int nest_registry_check_change(
	const struct nest_registry *registry, const char *name, struct nest_err *err);

/* ---- registry_alias.c ---- */

/* What a change to where names point replaced, until it is on disk. */
struct nest_registry_undo {
	struct nest_registry_function *function;
	struct nest_registry_version *live, *before;
	struct nest_registry_alias *added, *replaced;
};

/* Begins a change of @function's names that may have to be undone. */
struct nest_registry_undo nest_registry_alias_begin(struct nest_registry_function *function);

/* Sets @alias (taken), whose versions are @function's; once for each undo. -ENOMEM: taken too. */
int nest_registry_alias_point(struct nest_registry_undo *undo, struct nest_alias *alias);

/* The change is on disk; or it is undone. */
void nest_registry_alias_done(struct nest_registry_undo *undo);
void nest_registry_alias_undo(struct nest_registry_undo *undo);

/* The name of an alias that names @version, or NULL. */
const char *nest_registry_alias_of(
	const struct nest_registry_function *function, const struct nest_registry_version *version);

/* The alias of this name, or NULL. */
struct nest_registry_alias *nest_registry_alias_find(
	const struct nest_registry_function *function, const char *name);

/* Adds an alias as it was read from the disk; takes it. -ENOMEM, or -EINVAL and why. */
int nest_registry_alias_add(
	struct nest_registry_function *function, struct nest_alias *alias, struct nest_err *err);

/* Frees all aliases of @function. */
void nest_registry_alias_clear(struct nest_registry_function *function);

/* Frees a version that is in no list. */
void nest_registry_version_free(struct nest_registry_version *version);

/* Fills @part (empty) from the registry's file; a missing one is fine. */
int nest_registry_store_read(
	const char *path, struct nest_registry_part *part, struct nest_err *err);

/* Writes @part but for @without (may be NULL) to the registry's file, atomically. */
int nest_registry_store_write(const char *path, struct nest_registry_part *part,
	const struct nest_registry_function *without, struct nest_err *err);

/* Removes temporary files beside @path that a crash left there. */
int nest_registry_store_sweep(const char *path, struct nest_err *err);

#endif
