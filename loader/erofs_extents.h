/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_EROFS_EXTENTS_H
#define NEST_LOADER_EROFS_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_erofs_image;
struct nest_erofs_inode;
struct nest_err;

enum nest_erofs_extent_kind {
	NEST_EROFS_EXTENT_PLAIN,
	NEST_EROFS_EXTENT_TURNED, /* plain: each byte at its offset's place in the block */
	NEST_EROFS_EXTENT_LZ4,
};

/* Bytes of a file that were compressed as one. */
struct nest_erofs_extent {
	enum nest_erofs_extent_kind kind;
	uint64_t offset; /* in the file */
	size_t n;
	uint64_t at; /* in the image */
	size_t packed;
};

/* The most that one may hold, as for the kernel. */
#define NEST_EROFS_EXTENT_MAX (12u << 20)
#define NEST_EROFS_EXTENT_PACKED_MAX (1u << 20)

/* The extents of a compressed file, one after the other. */
struct nest_erofs_extents {
	struct nest_erofs_image *image;
	const struct nest_erofs_inode *inode;
	uint64_t index_at;
	uint64_t blocks; /* of the file: there is an index for each */
	uint64_t fours;	 /* those at the beginning with 4 bytes in the compact form, */
	uint64_t twos;	 /* and those behind them with 2 */
	unsigned advice;
	size_t inlined; /* bytes of the last extent, which lies behind the indexes; or 0 */
	uint64_t next;	/* index to be read */
	struct nest_erofs_extent open; /* that began, whose end isn't known yet; n 0: none did */
	bool began;
	uint64_t began_at; /* its index */
};

/*
 * Begins to walk the extents of @inode, whose layout is a compressed one, and which is borrowed as
 * the image is. -ENOTSUP: compressed in a way that isn't known here. Blocks on the disk.
 */
int nest_erofs_extents_start(struct nest_erofs_extents *walk, struct nest_erofs_image *image,
	const struct nest_erofs_inode *inode, struct nest_err *err);

/*
 * The next extent, which begins where the last one ended; the last one ends at the file's end. 1: there is no
 * more. Blocks on the disk.
 */
int nest_erofs_extents_next(
	struct nest_erofs_extents *walk, struct nest_erofs_extent *ret, struct nest_err *err);

#endif
