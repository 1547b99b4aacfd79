/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_DECODE_H
#define NEST_LOADER_DECODE_H

#include <stddef.h>
#include <sys/types.h>

#include "loader/unpack.h"

struct nest_err;
struct nest_pipeline_sink;

/* A source whose bytes are those of another one, decompressed. */
struct nest_decode;

enum nest_decode_kind {
	NEST_DECODE_NONE,
	NEST_DECODE_GZIP,
	NEST_DECODE_ZSTD,
	NEST_DECODE_LZ4,
};

/* How bytes that begin with these are compressed. Any thread. */
enum nest_decode_kind nest_decode_kind(const void *bytes, size_t n);

/*
 * Decompresses @source (borrowed), which is not NEST_DECODE_NONE. zstd and LZ4 are decompressed on
 * all CPUs, ahead of who reads, by threads of the decoder's own: these call @source, one at a time,
 * until the decoder is freed. Their frames are shown to @sink (borrowed; NULL: to nobody). The caller
 * owns @ret. Any thread.
 */
int nest_decode_new(enum nest_decode_kind kind, const struct nest_unpack_source *source,
	const struct nest_pipeline_sink *sink, struct nest_decode **ret, struct nest_err *err);

/* NULL is fine. Blocks while the source does. Any thread. */
void nest_decode_free(struct nest_decode *decode);

/*
 * The next bytes, valid until the next call: their count, 0 at the end, or -errno, and then
 * nest_decode_why() has the words (-EFBIG: no stream of code shrinks that well). Every checksum that the stream has is checked by the time it
 * returns 0. Blocks on the source. Any thread.
 */
ssize_t nest_decode_read(struct nest_decode *decode, const void **ret_bytes);

/*
 * What the last read gave, for nest_pipeline_hold() (loader/pipeline.h); NULL: it can't be held. All
 * must be let go before @decode is freed.
 */
void *nest_decode_bytes(const struct nest_decode *decode);

/* What went wrong. Lives as long as @decode. */
const char *nest_decode_why(const struct nest_decode *decode);

static inline void nest_decode_cleanup(struct nest_decode **p)
{
	nest_decode_free(*p);
}
#define nest_autodecode __attribute__((cleanup(nest_decode_cleanup)))

#endif
