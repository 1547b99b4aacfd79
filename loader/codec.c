/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/codec.h"

#include <errno.h>
#include <stdlib.h>

#include <lz4frame.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/err.h"

#define WINDOW_LOG 23 /* NEST_FRAMES_MAX_WINDOW */

/* Each side is made when it is first needed: LZ4's holds two blocks. */
struct nest_codec {
	ZSTD_DCtx *zstd;
	LZ4F_dctx *lz4;
};

int nest_codec_new(struct nest_codec **ret, struct nest_err *err)
{
	struct nest_codec *codec = calloc(1, sizeof(*codec));

	if (!codec)
		return nest_err_set(err, -ENOMEM, "decompress");
	*ret = codec;
	return 0;
}

void nest_codec_free(struct nest_codec *codec)
{
	if (!codec)
		return;
	ZSTD_freeDCtx(codec->zstd);
	LZ4F_freeDecompressionContext(codec->lz4);
	free(codec);
}

/* The one place where the libraries' failures become ours. */
static int adapt_zstd(size_t code, struct nest_err *err)
{
	ZSTD_ErrorCode kind = ZSTD_getErrorCode(code);

	if (kind == ZSTD_error_memory_allocation)
		return nest_err_set(err, -ENOMEM, "decompress zstd data");
	return nest_err_say(err, -EBADMSG, "damaged zstd data: %s", ZSTD_getErrorString(kind));
}

static int adapt_lz4(size_t code, struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG, "damaged LZ4 data: %s", LZ4F_getErrorName(code));
}

static int need_zstd(struct nest_codec *codec, struct nest_err *err)
{
	if (codec->zstd)
		return 0;
	codec->zstd = ZSTD_createDCtx();
	if (!codec->zstd)
		return nest_err_set(err, -ENOMEM, "decompress zstd data");
	ZSTD_DCtx_setParameter(codec->zstd, ZSTD_d_windowLogMax, WINDOW_LOG);
	return 0;
}

static int need_lz4(struct nest_codec *codec, struct nest_err *err)
{
	if (!codec->lz4 && LZ4F_isError(LZ4F_createDecompressionContext(&codec->lz4, LZ4F_VERSION)))
		return nest_err_set(err, -ENOMEM, "decompress LZ4 data");
	return 0;
}

static int stream_zstd(struct nest_codec *codec, const void *in, size_t *in_n, void *out,
	size_t *out_n, struct nest_err *err)
{
	ZSTD_inBuffer from = { .src = in, .size = *in_n };
	ZSTD_outBuffer to = { .dst = out, .size = *out_n };
	int rc = need_zstd(codec, err);
	size_t left;

	if (rc < 0)
		return rc;
	left = ZSTD_decompressStream(codec->zstd, &to, &from);
	if (ZSTD_isError(left))
		return adapt_zstd(left, err);
	*in_n = from.pos;
	*out_n = to.pos;
	return left > 0;
}

static int stream_lz4(struct nest_codec *codec, const void *in, size_t *in_n, void *out,
	size_t *out_n, struct nest_err *err)
{
	int rc = need_lz4(codec, err);
	size_t left;

	if (rc < 0)
		return rc;
	left = LZ4F_decompress(codec->lz4, out, out_n, in, in_n, NULL);
	if (LZ4F_isError(left))
		return adapt_lz4(left, err);
	return left > 0;
}

int nest_codec_stream(struct nest_codec *codec, enum nest_frames_kind kind, const void *in,
	size_t *in_n, void *out, size_t *out_n, struct nest_err *err)
{
	return kind == NEST_FRAMES_ZSTD ? stream_zstd(codec, in, in_n, out, out_n, err)
					: stream_lz4(codec, in, in_n, out, out_n, err);
}

static int whole_lz4(struct nest_codec *codec, const void *in, size_t in_len, void *out, size_t cap,
	size_t *ret_n, struct nest_err *err)
{
	size_t in_n = in_len;
	int rc;

	*ret_n = cap;
	rc = stream_lz4(codec, in, &in_n, out, ret_n, err);
	if (rc == 0 && in_n == in_len)
		return 0;
	if (codec->lz4)
		LZ4F_resetDecompressionContext(codec->lz4);
	return rc < 0 ? rc
		      : nest_err_say(err, -EBADMSG,
				"damaged LZ4 data: more in a frame than its headers say");
}

int nest_codec_whole(struct nest_codec *codec, enum nest_frames_kind kind, const void *in,
	size_t in_len, void *out, size_t cap, size_t *ret_n, struct nest_err *err)
{
	size_t n;
	int rc;

	if (kind == NEST_FRAMES_LZ4)
		return whole_lz4(codec, in, in_len, out, cap, ret_n, err);
	rc = need_zstd(codec, err);
	if (rc < 0)
		return rc;
	n = ZSTD_decompressDCtx(codec->zstd, out, cap, in, in_len);
	if (ZSTD_isError(n))
		return adapt_zstd(n, err);
	*ret_n = n;
	return 0;
}
