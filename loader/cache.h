/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_CACHE_H
#define NEST_LOADER_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/digest.h"

struct nest_draft_totals;
struct nest_err;
struct nest_tree;

/*
 * The cache directory and the index of what is published in it. The index belongs to the loop
 * thread; what says "any thread" touches only the directory.
 */
struct nest_cache;

#define NEST_CACHE_NAME_CAP 48

/*
 * Opens @dir, takes its lock (-EBUSY when another process has it), removes what a crash left, and
 * indexes the trees. Blocks on the disk. The caller owns one reference to @ret.
 */
int nest_cache_open(
	const char *dir, uint64_t max_bytes, struct nest_cache **ret, struct nest_err *err);

/* Drops the opener's reference: trees that are still in use keep the cache until they aren't. */
void nest_cache_unref(struct nest_cache *cache);

/* Calls @cb whenever unused trees make the cache larger than it may be; NULL ends that. */
void nest_cache_set_over_cb(struct nest_cache *cache, void (*cb)(void *arg), void *arg);

/* The directories, borrowed. Any thread. */
int nest_cache_staging_fd(const struct nest_cache *cache);
int nest_cache_trees_fd(const struct nest_cache *cache);

/* Writes a name that nothing in staging has, beginning with @kind. Any thread. */
void nest_cache_name(struct nest_cache *cache, const char *kind, char ret[NEST_CACHE_NAME_CAP]);

/*
 * Makes the directory @name in staging the tree @hex, durably: when this returns 0, it outlives a
 * crash; before, a crash leaves nothing. Blocks on the disk. Any thread, one at a time for each
 * @hex.
 */
int nest_cache_publish(struct nest_cache *cache, const char *name, const char *hex,
	const struct nest_draft_totals *totals, struct nest_err *err);

/*
 * The same in two steps. Placing makes the tree ready, with nothing durable: until it is settled, a
 * crash leaves nothing of it. A tree that couldn't be settled goes on as it is, and is gone at the
 * next open.
 */
int nest_cache_place(
	struct nest_cache *cache, const char *name, const char *hex, struct nest_err *err);
int nest_cache_settle(struct nest_cache *cache, const char *hex,
	const struct nest_draft_totals *totals, struct nest_err *err);

/* Puts a tree that was published into the index; *@ret is in use (one reference, the caller's). */
int nest_cache_add(struct nest_cache *cache, const char *hex,
	const struct nest_draft_totals *totals, struct nest_tree **ret, struct nest_err *err);

/* The tree @hex, borrowed; NULL when there is none. */
struct nest_tree *nest_cache_find(struct nest_cache *cache, const char *hex);

/*
 * Calls @cb for each tree until it returns false, the unused ones first, least recently used first;
 * it may not add or remove any.
 */
void nest_cache_each(
	struct nest_cache *cache, bool (*cb)(void *arg, struct nest_tree *tree), void *arg);

/* Takes one unused tree out. -EBUSY: it is in use. Its space comes back with the next sweep. */
int nest_cache_remove(struct nest_cache *cache, struct nest_tree *tree);

/*
 * Writes down the digest of what is in @tree's directory, durably or not at all; @tree is in use and
 * settled. Blocks on the disk. Any thread.
 */
int nest_cache_write_content(struct nest_cache *cache, const struct nest_tree *tree,
	const char *content, struct nest_err *err);

/* Takes it into the index, once it was written down. */
void nest_cache_note_content(struct nest_tree *tree, const char *content);

/*
 * Takes unused trees out, least recently used first, until the rest takes at most @keep_bytes of
 * disk; returns how many. Their space comes back with the next sweep.
 */
unsigned nest_cache_evict(struct nest_cache *cache, uint64_t keep_bytes);

/* The same down to the cache's own limit. */
unsigned nest_cache_shrink(struct nest_cache *cache);

/* Marks @name in staging (a missing one is fine) for the next sweep. Any thread. */
void nest_cache_discard(struct nest_cache *cache, const char *name);

/* Removes what was evicted or discarded. Blocks on the disk. Any thread. */
void nest_cache_sweep(struct nest_cache *cache);

struct nest_cache_totals {
	uint64_t trees;
	uint64_t disk;
	uint64_t evictions;
};

/* What is indexed now, and how many trees were ever evicted. */
void nest_cache_totals(const struct nest_cache *cache, struct nest_cache_totals *ret);

/* For loader/tree.c: @tree's first reference was taken, its last one dropped. */
void nest_cache_begin_use(struct nest_cache *cache, struct nest_tree *tree);
void nest_cache_end_use(struct nest_cache *cache, struct nest_tree *tree);

#endif
