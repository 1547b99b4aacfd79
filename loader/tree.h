/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_TREE_H
#define NEST_LOADER_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "loader/digest.h"
#include "loader/loader.h"

struct nest_cache;

/* The inside of a published tree, for the loader's own files. */
struct nest_tree {
	struct nest_cache *cache; /* a reference to it is held while refs > 0 */
	unsigned refs;
	uint64_t bytes;
	uint64_t entries;
	uint64_t disk;
	bool image; /* it holds one file-system image, to be mounted, */
	bool made;  /* which was made here of an archive, whose digest the tree has */
	char content
		[NEST_DIGEST_HEX_LEN]; /* digest of what is in the directory; "": not taken yet */
	bool unsettled;	 /* not durable: what is known of it mustn't be written down yet */
	bool tried;	 /* loader/record.c has had a look at it */
	int64_t used_ns; /* when it was used last, before this process: the order at open */
	struct nest_tree *prev, *next; /* in the cache's list of the unused */
	UT_hash_handle hh;	       /* by hex */
	char digest[NEST_TREE_DIGEST_LEN];
};

/* The digits of the digest, which are the tree's key and its directory's name. */
static inline const char *nest_tree_hex(const struct nest_tree *tree)
{
	return tree->digest + sizeof(NEST_DIGEST_PREFIX) - 1;
}

#endif
