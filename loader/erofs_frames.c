/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a compressed file of EROFS is laid out (fs/erofs/erofs_fs.h of Linux, "full" indexes): its
 * content is cut into blocks, and each has an index of 8 bytes:
 *
 *	HEAD	a frame's content begins in this block: from which byte on, and the frame's first block
 *	other	how far the HEAD is back, and the next one ahead; the first one behind a HEAD has the
 *		count of the frame's blocks in place of the former
 *
 * So a block has room for one beginning of a frame, and a frame of more than one block must reach
 * beyond the block that it begins in. A frame ends where its last block does, with zeros before it.
 */
#include "loader/erofs_frames.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/erofs.h"
#include "base/err.h"
#include "base/fd.h"
#include "loader/frames.h"

#define BLOCK NEST_EROFS_BLOCK

enum {
	TYPE_HEAD = 1,
	TYPE_OTHER = 2,
	COUNT_OF_BLOCKS = 1 << 11,
};

bool nest_erofs_frames_fit(const void *bytes, size_t n)
{
	struct nest_frames head = { 0 };

	return nest_frames_walk(&head, bytes, n, NULL) >= 0 && head.kind == NEST_FRAMES_ZSTD &&
	       head.at > 0 && head.content <= NEST_EROFS_FRAMES_MAX &&
	       head.window <= NEST_EROFS_FRAMES_MAX;
}

void nest_erofs_frames_start(struct nest_erofs_frames *frames, int fd, uint32_t block)
{
	*frames = (struct nest_erofs_frames){ .fd = fd, .block = block };
}

void nest_erofs_frames_end(struct nest_erofs_frames *frames)
{
	free(frames->frames);
	frames->frames = NULL;
}

static int refuse(struct nest_erofs_frames *frames, struct nest_err *err)
{
	atomic_store(&frames->refused, true);
	return nest_err_say(err, -ENOTSUP, "its frames can't be those of an image");
}

/* Whether the last frame, behind which the block @next begins another one, can be found by its index. */
static bool has_room(const struct nest_erofs_frames *frames, uint64_t next)
{
	const struct nest_erofs_frame *last = &frames->frames[frames->n - 1];
	uint64_t head = last->at / BLOCK;

	return next > head && (last->blocks == 1 || next > head + 1);
}

static int reserve(struct nest_erofs_frames *frames, struct nest_err *err)
{
	size_t room = frames->room ? 2 * frames->room : 64;
	struct nest_erofs_frame *more;

	if (frames->n < frames->room)
		return 0;
	more = realloc(frames->frames, room * sizeof(*more));
	if (!more)
		return nest_err_set(err, -ENOMEM, "make an image");
	frames->frames = more;
	frames->room = room;
	return 0;
}

int nest_erofs_frames_take(struct nest_erofs_frames *frames, const struct nest_frames *head,
	const void *bytes, struct nest_err *err)
{
	uint64_t blocks = (head->need + BLOCK - 1) / BLOCK;
	int rc;

	if (!bytes || head->kind != NEST_FRAMES_ZSTD || head->content > NEST_EROFS_FRAMES_MAX ||
		head->window > NEST_EROFS_FRAMES_MAX || blocks * BLOCK > NEST_EROFS_FRAMES_MAX ||
		blocks > UINT32_MAX - frames->block)
		return refuse(frames, err);
	if (head->content == 0)
		return 0;
	if (frames->n > 0 && !has_room(frames, frames->content / BLOCK))
		return refuse(frames, err);
	rc = reserve(frames, err);
	if (rc == 0)
		rc = nest_fd_pwrite_all(frames->fd, bytes, (size_t)head->need,
			(uint64_t)(frames->block + blocks) * BLOCK - head->need, err);
	if (rc < 0)
		return rc;
	frames->frames[frames->n++] = (struct nest_erofs_frame){
		.at = frames->content, .block = frames->block, .blocks = (uint32_t)blocks
	};
	frames->content += head->content;
	frames->block += (uint32_t)blocks;
	return 0;
}

uint64_t nest_erofs_frames_count(const struct nest_erofs_frames *frames)
{
	return (frames->content + BLOCK - 1) / BLOCK;
}

int nest_erofs_frames_finish(struct nest_erofs_frames *frames, struct nest_err *err)
{
	if (frames->n == 0 || !has_room(frames, nest_erofs_frames_count(frames)))
		return refuse(frames, err);
	return 0;
}

void nest_erofs_frames_index(const struct nest_erofs_frames *frames, uint64_t i, size_t *at,
	unsigned char ret[NEST_EROFS_FRAMES_INDEX])
{
	const struct nest_erofs_frame *frame;
	uint64_t head;
	uint64_t next;
	uint16_t words[4] = { 0 };

	while (*at + 1 < frames->n && frames->frames[*at + 1].at / BLOCK <= i)
		++*at;
	frame = &frames->frames[*at];
	head = frame->at / BLOCK;
	next = *at + 1 < frames->n ? frame[1].at / BLOCK : nest_erofs_frames_count(frames);
	if (i == head) {
		words[0] = TYPE_HEAD;
		words[1] = (uint16_t)(frame->at % BLOCK);
		words[2] = (uint16_t)frame->block;
		words[3] = (uint16_t)(frame->block >> 16);
	} else {
		words[0] = TYPE_OTHER;
		words[2] = (uint16_t)(i == head + 1 ? COUNT_OF_BLOCKS | frame->blocks : i - head);
		words[3] = (uint16_t)(next - i);
	}
	for (size_t k = 0; k < 4; k++)
		words[k] = htole16(words[k]);
	memcpy(ret, words, sizeof(words));
}
