/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_EROFS_H
#define NEST_BASE_EROFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;

/*
 * What Nestlet itself reads of an EROFS image: the fixed fields of its superblock, as
 * fs/erofs/erofs_fs.h of Linux lays them out. Nothing here follows an offset that the image names.
 */

#define NEST_EROFS_OFFSET 1024u /* of the superblock */
#define NEST_EROFS_BYTES 128u	/* of its fixed part */
#define NEST_EROFS_BLOCK 4096u
#define NEST_EROFS_BLOCK_BITS 12 /* the one size that every kernel's pages can hold */
#define NEST_EROFS_MAGIC 0xe0f5e1e2u

/* How an image may be compressed: bits of its superblock. */
#define NEST_EROFS_LZ4 (1u << 0)
#define NEST_EROFS_ZSTD (1u << 3)

/* Whether the @n bytes at NEST_EROFS_OFFSET begin an image. Any thread. */
bool nest_erofs_is_image(const void *bytes, size_t n);

/*
 * Checks the superblock in @bytes (NEST_EROFS_BYTES of them) of an image file of @file_bytes: its
 * blocks are of 4096 bytes and lie in the file, it needs no feature that isn't known here, no other
 * device, and no compression but @algorithms. 0, or -EINVAL that says what is wrong. Any thread.
 */
int nest_erofs_check(
	const void *bytes, uint64_t file_bytes, unsigned algorithms, struct nest_err *err);

/*
 * Reads the superblock of @fd, a regular file, and checks it. 1: it is no EROFS image. Blocks on
 * the disk. Any thread.
 */
int nest_erofs_check_file(int fd, unsigned algorithms, uint64_t *ret_bytes, struct nest_err *err);

#endif
