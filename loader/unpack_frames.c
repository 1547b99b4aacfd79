/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/unpack_frames.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "loader/erofs_frames.h"
#include "loader/erofs_write.h"
#include "loader/frames.h"
#include "loader/unpack.h"

#define BLOCK NEST_EROFS_BLOCK
#define AT_META_BLOCK 40 /* of the superblock: the first block behind the frames */

struct source {
	int fd;
	uint64_t at; /* the next frame, with the zeros before it */
	uint64_t end;
	unsigned char *bytes; /* NEST_EROFS_FRAMES_MAX, frames at the end of their blocks */
	size_t begin;	      /* where it lies in them, if it is there */
	size_t n;	      /* how many bytes are */
};

/* Where the frame begins that is the first in the @n bytes, and how long it is. */
static int find_frame(const unsigned char *bytes, size_t n, size_t *ret_at, size_t *ret_n)
{
	struct nest_frames head = { 0 };
	size_t at = 0;

	while (at < n && at < BLOCK && bytes[at] == 0)
		at++;
	if (at == n || nest_frames_walk(&head, bytes + at, n - at, NULL) != 0 ||
		head.kind != NEST_FRAMES_ZSTD || (at + head.need) % BLOCK != 0)
		return -EBADMSG;
	*ret_at = at;
	*ret_n = (size_t)head.need;
	return 0;
}

static int refill(struct source *source)
{
	uint64_t left = source->end - source->at;
	size_t want = left < NEST_EROFS_FRAMES_MAX ? (size_t)left : NEST_EROFS_FRAMES_MAX;
	ssize_t got;

	do
		got = pread(source->fd, source->bytes, want, (off_t)source->at);
	while (got < 0 && errno == EINTR);
	source->begin = 0;
	source->n = got < 0 ? 0 : (size_t)got;
	return got < 0 ? -errno : 0;
}

static ssize_t read_frame(void *arg, const void **ret_bytes)
{
	struct source *source = arg;
	const unsigned char *bytes = source->bytes + source->begin;
	size_t at;
	size_t n;
	int rc = 0;

	if (source->at == source->end)
		return 0;
	/* thousands of small ones come in one piece */
	if (find_frame(bytes, source->n - source->begin, &at, &n) < 0) {
		rc = refill(source);
		bytes = source->bytes;
		if (rc == 0)
			rc = find_frame(bytes, source->n, &at, &n);
	}
	if (rc < 0)
		return rc;
	source->at += at + n;
	source->begin += at + n;
	*ret_bytes = bytes + at;
	return (ssize_t)n;
}

static int open_source(struct source *source, struct nest_err *err)
{
	uint32_t block;
	uint64_t bytes;
	int rc = nest_erofs_check_file(source->fd, NEST_EROFS_ZSTD, &bytes, err);

	if (rc != 0)
		return rc < 0 ? rc : nest_err_say(err, -EBADMSG, "it is no EROFS image");
	if (pread(source->fd, &block, sizeof(block), NEST_EROFS_OFFSET + AT_META_BLOCK) !=
		sizeof(block))
		return nest_err_set(err, -EIO, "read the image");
	source->at = (uint64_t)NEST_EROFS_WRITE_FIRST * BLOCK;
	source->end = (uint64_t)le32toh(block) * BLOCK;
	if (source->end < source->at)
		return nest_err_say(err, -EBADMSG, "damaged image: it has no frames");
	source->bytes = malloc(NEST_EROFS_FRAMES_MAX);
	return source->bytes ? 0 : nest_err_set(err, -ENOMEM, "unpack the image");
}

int nest_unpack_frames(int fd, struct nest_draft *draft, struct nest_err *err)
{
	struct source source = { .fd = fd };
	const struct nest_unpack_source frames = { .read = read_frame, .arg = &source };
	int rc = open_source(&source, err);

	if (rc == 0)
		rc = nest_unpack_run(&frames, draft, err);
	free(source.bytes);
	return rc;
}
