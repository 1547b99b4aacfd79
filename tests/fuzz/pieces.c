/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/pieces.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>

#include "loader/unpack.h"

#define PIECE 700u

static ssize_t read_piece(void *arg, const void **ret_bytes)
{
	struct pieces *pieces = arg;
	size_t n = pieces->n - pieces->at;

	if (n > PIECE)
		n = PIECE;
	*ret_bytes = (const char *)pieces->bytes + pieces->at;
	pieces->at += n;
	return (ssize_t)n;
}

static int64_t seek(void *arg, int64_t offset, int whence)
{
	struct pieces *pieces = arg;

	if (whence == SEEK_CUR)
		offset += (int64_t)pieces->at;
	if (whence == SEEK_END)
		offset += (int64_t)pieces->n;
	if (offset < 0 || (uint64_t)offset > pieces->n)
		return -EINVAL;
	pieces->at = (size_t)offset;
	return offset;
}

struct nest_unpack_source pieces_source(struct pieces *pieces, bool seekable)
{
	return (struct nest_unpack_source){
		.read = read_piece,
		.seek = seekable ? seek : NULL,
		.arg = pieces,
	};
}
