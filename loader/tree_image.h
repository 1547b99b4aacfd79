/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_TREE_IMAGE_H
#define NEST_LOADER_TREE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

struct nest_draft_limits;
struct nest_draft_totals;
struct nest_err;

/*
 * Artifacts that are file-system images: they aren't unpacked, but kept as the one file of a tree,
 * for the kernel to mount. Which sources' images may be is the config's word.
 */

#define NEST_TREE_IMAGE_NAME "image.erofs"
#define NEST_TREE_IMAGE_SOURCE_ADMIN "admin" /* the source of what is uploaded */

/*
 * Whether images of @source, a URL or "admin", may be kept by @sources: a NULL-terminated list of
 * URL prefixes, "admin" or "*"; NULL is an empty one. Any thread.
 */
bool nest_tree_image_allowed(const char *const *sources, const char *source);

/*
 * Whether the @n bytes of an artifact's beginning are those of an image; with fewer than
 * NEST_TREE_IMAGE_LOOK, only if they are all there is. Any thread.
 */
#define NEST_TREE_IMAGE_LOOK 1152u
bool nest_tree_image_is(const void *bytes, size_t n);

/*
 * Makes the draft @draft in @staging_fd, a directory that exists, the tree of the image in staging
 * file @file, whose digest has been verified: its superblock is checked, and it is linked there.
 * 1: it is no image, nothing was done. Blocks on the disk. Any thread.
 */
int nest_tree_image_fill(int staging_fd, const char *file, const char *draft,
	const struct nest_draft_limits *limits, struct nest_draft_totals *ret,
	struct nest_err *err);

/*
 * The image that was made in @draft_fd, a draft's directory, is as it shall be: takes all rights to
 * write it away. Nobody may have it open for writing. Blocks on the disk. Any thread.
 */
int nest_tree_image_keep(int draft_fd, struct nest_draft_totals *ret, struct nest_err *err);

#endif
