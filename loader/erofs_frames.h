/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_EROFS_FRAMES_H
#define NEST_LOADER_EROFS_FRAMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;
struct nest_frames;

/*
 * zstd frames on their way into an image, as they came: what the kernel then sees is one file, the
 * image's packed inode, that holds the stream which they decompress to. Its limits are EROFS's:
 * Z_EROFS_PCLUSTER_MAX_SIZE for a frame, Z_EROFS_ZSTD_MAX_DICT_SIZE for its window.
 */

#define NEST_EROFS_FRAMES_MAX (1u << 20) /* bytes of a frame, of its content and its window */

struct nest_erofs_frame {
	uint64_t at;	/* its content's first byte in the stream */
	uint32_t block; /* its first in the image */
	uint32_t blocks;
};

struct nest_erofs_frames {
	int fd; /* of the image, borrowed */
	struct nest_erofs_frame *frames;
	size_t n;
	size_t room;
	uint64_t content;    /* bytes of the stream */
	uint32_t block;	     /* the next frame's */
	atomic_bool refused; /* the stream can't be in an image */
};

/* Whether a stream that begins with these bytes may be fit for an image. Any thread. */
bool nest_erofs_frames_fit(const void *bytes, size_t n);

/* Begins behind @block of the image in @fd (borrowed). */
void nest_erofs_frames_start(struct nest_erofs_frames *frames, int fd, uint32_t block);

/* Frees what it holds. */
void nest_erofs_frames_end(struct nest_erofs_frames *frames);

/*
 * Writes the next frame, whose headers are @head and whose bytes are @bytes; NULL: it is too long to
 * be had in one piece. -ENOTSUP with `refused` set: an image can't hold it. Blocks on the disk. One
 * thread at a time.
 */
int nest_erofs_frames_take(struct nest_erofs_frames *frames, const struct nest_frames *head,
	const void *bytes, struct nest_err *err);

/* All are there. -ENOTSUP as above. */
int nest_erofs_frames_finish(struct nest_erofs_frames *frames, struct nest_err *err);

/* One index for each block of the stream. */
#define NEST_EROFS_FRAMES_INDEX 8u
uint64_t nest_erofs_frames_count(const struct nest_erofs_frames *frames);

/* The index of block @i of the stream; @at is 0 for the first, then whatever it was left. */
void nest_erofs_frames_index(const struct nest_erofs_frames *frames, uint64_t i, size_t *at,
	unsigned char ret[NEST_EROFS_FRAMES_INDEX]);

#endif
