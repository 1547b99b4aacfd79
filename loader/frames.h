/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_FRAMES_H
#define NEST_LOADER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;

enum nest_frames_kind {
	NEST_FRAMES_NONE, /* not known yet */
	NEST_FRAMES_ZSTD,
	NEST_FRAMES_LZ4,
	NEST_FRAMES_SKIP, /* a skippable frame, such as a seek table: it has no content */
};

#define NEST_FRAMES_UNKNOWN UINT64_MAX
#define NEST_FRAMES_MAX_WINDOW (8u << 20)

/*
 * Where one compressed frame ends and what it claims, told from the headers of the frame and of its
 * blocks (RFC 8878; the LZ4 frame format 1.6) while its bytes arrive, without decompressing. All
 * zeros is the state before the first byte.
 */
struct nest_frames {
	enum nest_frames_kind kind;
	uint64_t need;	  /* bytes of the frame that the next step takes to be there */
	uint64_t content; /* bytes as declared, a stranger's word; or NEST_FRAMES_UNKNOWN */
	uint64_t bound;	  /* the most that the blocks seen so far can decompress to */
	uint64_t window;  /* bytes of memory that decompressing it as a stream takes */
	uint64_t at;	  /* the next block's header */
	uint32_t block_max;
	unsigned block_tail; /* bytes of checksum behind each block */
	unsigned tail;	     /* and behind the last one */
	bool last;	     /* no block follows: the frame is `need` bytes long */
};

/*
 * Goes on in a frame whose first @n bytes are @bytes: 0 when it is exactly `need` bytes long and
 * they are all there, 1 when more than @n are needed, or -EBADMSG (-ENOTSUP where it asks for a
 * dictionary or for more than NEST_FRAMES_MAX_WINDOW). Any thread.
 */
int nest_frames_walk(
	struct nest_frames *frames, const unsigned char *bytes, size_t n, struct nest_err *err);

/* The kind of the frame that begins with @n bytes, told by its first 4. Any thread. */
enum nest_frames_kind nest_frames_kind(const unsigned char *bytes, size_t n);

#endif
