/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/tree.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/err.h"
#include "loader/cache.h"
#include "loader/tree_image.h"

struct nest_tree *nest_tree_ref(struct nest_tree *tree)
{
	if (tree->refs++ == 0)
		nest_cache_begin_use(tree->cache, tree);
	return tree;
}

void nest_tree_unref(struct nest_tree *tree)
{
	if (!tree)
		return;
	assert(tree->refs > 0);
	if (--tree->refs == 0)
		nest_cache_end_use(tree->cache, tree);
}

const char *nest_tree_digest(const struct nest_tree *tree)
{
	return tree->digest;
}

uint64_t nest_tree_bytes(const struct nest_tree *tree)
{
	return tree->bytes;
}

enum nest_tree_kind nest_tree_kind(const struct nest_tree *tree)
{
	return tree->image ? NEST_TREE_IMAGE : NEST_TREE_DIRECTORY;
}

bool nest_tree_in_use(const struct nest_tree *tree)
{
	return tree->refs > 0;
}

int nest_tree_open_image(const struct nest_tree *tree, int *ret_fd, struct nest_err *err)
{
	char name[NEST_DIGEST_HEX_LEN + sizeof("/" NEST_TREE_IMAGE_NAME)];
	int fd;

	snprintf(name, sizeof(name), "%s/" NEST_TREE_IMAGE_NAME, nest_tree_hex(tree));
	fd = openat(nest_cache_trees_fd(tree->cache), name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return nest_err_set(err, -errno, "open code image '%s'", tree->digest);
	*ret_fd = fd;
	return 0;
}

int nest_tree_open(const struct nest_tree *tree, int *ret_fd, struct nest_err *err)
{
	int fd = openat(nest_cache_trees_fd(tree->cache), nest_tree_hex(tree),
		O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(err, -errno, "open code tree '%s'", tree->digest);
	*ret_fd = fd;
	return 0;
}
