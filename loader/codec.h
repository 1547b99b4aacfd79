/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_CODEC_H
#define NEST_LOADER_CODEC_H

#include <stddef.h>

#include "loader/frames.h"

struct nest_err;

/* The two decompression libraries behind one face. Used by one thread at a time. */
struct nest_codec;

/* The caller owns @ret. Any thread. */
int nest_codec_new(struct nest_codec **ret, struct nest_err *err);

/* NULL is fine. Any thread. */
void nest_codec_free(struct nest_codec *codec);

/*
 * Decompresses one whole frame into at most @cap bytes, checks its checksums, and returns in
 * @ret_n how many it gave. Any thread.
 */
int nest_codec_whole(struct nest_codec *codec, enum nest_frames_kind kind, const void *in,
	size_t in_len, void *out, size_t cap, size_t *ret_n, struct nest_err *err);

/*
 * The same in pieces: takes from the @*in_n bytes at @in and writes to the @*out_n bytes at @out,
 * and sets both to what it used. 1: the frame goes on, 0: that was its end.
 * Any thread.
 */
int nest_codec_stream(struct nest_codec *codec, enum nest_frames_kind kind, const void *in,
	size_t *in_n, void *out, size_t *out_n, struct nest_err *err);

#endif
