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
	struct nest_registry_version *prev, *next;
};

struct nest_registry_function {
	char *name;
	enum nest_registry_owner owner;
	struct nest_registry_version *versions; /* oldest first; never empty once in a part */
	struct nest_registry_version *live;
	uint64_t next; /* the number for the next version without one */
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
