/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decompression, apart from what the bytes mean: so that a stream is always read to its end, where
 * its checksum is (a tar reader stops before), and so that decoders can take each other's place:
 * zstd and LZ4 go through loader/pipeline.c, gzip, which has no frames that could be told apart,
 * through zlib.
 */
#include "loader/decode.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include <zlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/frames.h"
#include "loader/pipeline.h"

#define CHUNK (256u * 1024)

/*
 * What decompresses to more than this many times its size is no code but a bomb. gzip can't reach
 * it. It isn't looked at before there is enough to judge by.
 */
#define MAX_RATIO 1100u
#define RATIO_AFTER (64u << 20)

struct nest_decode {
	struct nest_unpack_source source;
	struct nest_pipeline *pipeline; /* zstd, LZ4 */
	_Atomic uint64_t bytes_in;	/* counted by the thread that reads the source */
	uint64_t bytes_out;
	z_stream gzip;
	bool gzip_ready;
	bool gzip_between; /* at the end of a member */
	Bytef *out;
	struct nest_err err;
};

enum nest_decode_kind nest_decode_kind(const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
		return NEST_DECODE_GZIP;
	switch (nest_frames_kind(p, n)) {
	case NEST_FRAMES_ZSTD:
	case NEST_FRAMES_SKIP: /* which kind of frame follows it decides what may follow that */
		return NEST_DECODE_ZSTD;
	case NEST_FRAMES_LZ4:
		return NEST_DECODE_LZ4;
	default:
		return NEST_DECODE_NONE;
	}
}

static ssize_t count_read(void *arg, const void **ret_bytes)
{
	struct nest_decode *decode = arg;
	ssize_t n = decode->source.read(decode->source.arg, ret_bytes);

	if (n > 0)
		atomic_fetch_add_explicit(&decode->bytes_in, (uint64_t)n, memory_order_relaxed);
	return n;
}

static void stop_read(void *arg)
{
	struct nest_decode *decode = arg;

	decode->source.stop(decode->source.arg);
}

static int begin_gzip(struct nest_decode *decode)
{
	decode->out = malloc(CHUNK);
	/* 16: a gzip header and trailer, and nothing else. */
	if (!decode->out || inflateInit2(&decode->gzip, 16 + MAX_WBITS) != Z_OK)
		return nest_err_set(&decode->err, -ENOMEM, "decompress");
	decode->gzip_ready = true;
	return 0;
}

static int begin_frames(struct nest_decode *decode, const struct nest_pipeline_sink *sink)
{
	struct nest_unpack_source counted = {
		.read = count_read, .stop = decode->source.stop ? stop_read : NULL, .arg = decode
	};

	return nest_pipeline_new(&counted, sink, &decode->pipeline, &decode->err);
}

int nest_decode_new(enum nest_decode_kind kind, const struct nest_unpack_source *source,
	const struct nest_pipeline_sink *sink, struct nest_decode **ret, struct nest_err *err)
{
	nest_autodecode struct nest_decode *decode = calloc(1, sizeof(*decode));
	int rc;

	if (!decode)
		return nest_err_set(err, -ENOMEM, "decompress");
	decode->source = *source;
	rc = kind == NEST_DECODE_GZIP ? begin_gzip(decode) : begin_frames(decode, sink);
	if (rc < 0) {
		if (err)
			*err = decode->err;
		return rc;
	}
	*ret = nest_take_ptr(decode);
	return 0;
}

void nest_decode_free(struct nest_decode *decode)
{
	if (!decode)
		return;
	nest_pipeline_free(decode->pipeline);
	if (decode->gzip_ready)
		inflateEnd(&decode->gzip);
	free(decode->out);
	free(decode);
}

const char *nest_decode_why(const struct nest_decode *decode)
{
	return nest_err_text(&decode->err);
}

/* More input for inflate: 1 when there is some, 0 at the end of the source. */
static int refill_gzip(struct nest_decode *decode)
{
	const void *bytes;
	ssize_t n;

	if (decode->gzip.avail_in > 0)
		return 1;
	n = count_read(decode, &bytes);
	if (n < 0)
		return nest_err_set(&decode->err, (int)n, "read");
	decode->gzip.next_in = (Bytef *)bytes;
	decode->gzip.avail_in = (uInt)n;
	return n > 0;
}

/* One call of inflate; a member's end begins the next one. */
static int step_gzip(struct nest_decode *decode)
{
	int rc;

	if (decode->gzip_between && inflateReset(&decode->gzip) != Z_OK)
		return nest_err_say(&decode->err, -EIO, "zlib gave up");
	decode->gzip_between = false;
	rc = inflate(&decode->gzip, Z_NO_FLUSH);
	decode->gzip_between = rc == Z_STREAM_END;
	if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR)
		return 0;
	return nest_err_say(&decode->err, rc == Z_MEM_ERROR ? -ENOMEM : -EBADMSG,
		"damaged gzip data: %s", decode->gzip.msg ? decode->gzip.msg : "no more is known");
}

static ssize_t read_gzip(struct nest_decode *decode, const void **ret_bytes)
{
	decode->gzip.next_out = decode->out;
	decode->gzip.avail_out = CHUNK;
	while (decode->gzip.avail_out == CHUNK) {
		int rc = refill_gzip(decode);

		if (rc < 0)
			return rc;
		if (rc == 0)
			return decode->gzip_between ? 0
						    : nest_err_say(&decode->err, -EBADMSG,
							      "truncated gzip data");
		rc = step_gzip(decode);
		if (rc < 0)
			return rc;
	}
	*ret_bytes = decode->out;
	return CHUNK - decode->gzip.avail_out;
}

ssize_t nest_decode_read(struct nest_decode *decode, const void **ret_bytes)
{
	uint64_t in;
	ssize_t n = decode->pipeline ? nest_pipeline_read(decode->pipeline, ret_bytes, &decode->err)
				     : read_gzip(decode, ret_bytes);

	if (n <= 0)
		return n;
	decode->bytes_out += (uint64_t)n;
	in = atomic_load_explicit(&decode->bytes_in, memory_order_relaxed);
	if (decode->bytes_out > RATIO_AFTER && decode->bytes_out / MAX_RATIO > in)
		return nest_err_say(&decode->err, -EFBIG,
			"it decompresses to more than %u times its size, as only a bomb does",
			MAX_RATIO);
	return n;
}

void *nest_decode_bytes(const struct nest_decode *decode)
{
	return decode->pipeline ? nest_pipeline_bytes(decode->pipeline) : NULL;
}
