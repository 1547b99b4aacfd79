/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/frames.h"

#include <errno.h>
#include <string.h>

#include <lz4frame.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "tests/unit/suite.h"

static unsigned char content[300000];
static unsigned char frame[400000];

static void make_content(void)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (unsigned char)((i * i) >> 7);
}

/* However the bytes arrive, only the last one completes the frame, and `need` leads there. */
static void check_walk(size_t len, enum nest_frames_kind kind, uint64_t declared)
{
	struct nest_frames by_byte = { 0 };
	struct nest_frames by_need = { 0 };
	struct nest_err err = NEST_ERR_INIT;
	int rc = 1;

	for (size_t n = 0; n < len; n++) {
		ck_assert_int_eq(nest_frames_walk(&by_byte, frame, n, &err), 1);
		ck_assert_uint_gt(by_byte.need, n);
		ck_assert_uint_le(by_byte.need, len);
	}
	ck_assert_int_eq(nest_frames_walk(&by_byte, frame, len, &err), 0);
	ck_assert_uint_eq(by_byte.need, len);
	for (unsigned step = 0; rc == 1 && step < 1000; step++)
		rc = nest_frames_walk(&by_need, frame, by_need.need, &err);
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(by_need.need, len);
	ck_assert_int_eq((int)by_need.kind, (int)kind);
	ck_assert_uint_eq(by_need.content, declared);
}

static size_t make_zstd(size_t n, int window_log, int checksum, int sized)
{
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	size_t len;

	if (window_log)
		ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, window_log);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, checksum);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, sized);
	len = ZSTD_compress2(cctx, frame, sizeof(frame), content, n);
	ck_assert(!ZSTD_isError(len));
	ZSTD_freeCCtx(cctx);
	return len;
}

START_TEST(zstd_frames_end_where_they_end)
{
	static const size_t sizes[] = { 0, 1, 255, 256, 257, 65791, 65792, 131072, 300000 };

	make_content();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(sizes); i++) {
		for (int bits = 0; bits < 8; bits++) {
			bool sized = bits & 2;
			size_t len = make_zstd(sizes[i], bits & 1 ? 10 : 0, bits & 4, sized);

			ck_assert_uint_eq(ZSTD_findFrameCompressedSize(frame, len), len);
			check_walk(len, NEST_FRAMES_ZSTD, sized ? sizes[i] : NEST_FRAMES_UNKNOWN);
		}
	}
}
END_TEST

START_TEST(lz4_frames_end_where_they_end)
{
	static const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 300000 };

	make_content();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(sizes); i++) {
		for (unsigned bits = 0; bits < 16; bits++) {
			LZ4F_preferences_t how = { 0 };
			size_t len;

			how.frameInfo.blockSizeID = bits & 1 ? LZ4F_max64KB : LZ4F_max4MB;
			how.frameInfo.contentSize = bits & 2 ? sizes[i] : 0;
			how.frameInfo.contentChecksumFlag = bits & 4 ? 1 : 0;
			how.frameInfo.blockChecksumFlag = bits & 8 ? 1 : 0;
			len = LZ4F_compressFrame(frame, sizeof(frame), content, sizes[i], &how);
			ck_assert(!LZ4F_isError(len));
			check_walk(len, NEST_FRAMES_LZ4,
				(bits & 2) && sizes[i] ? sizes[i] : NEST_FRAMES_UNKNOWN);
		}
	}
}
END_TEST

START_TEST(the_bound_is_one)
{
	struct nest_frames frames = { 0 };
	struct nest_err err = NEST_ERR_INIT;
	size_t len;

	make_content();
	len = make_zstd(sizeof(content), 0, 1, 0);
	ck_assert_int_eq(nest_frames_walk(&frames, frame, len, &err), 0);
	ck_assert_uint_ge(frames.bound, sizeof(content));
	ck_assert_uint_le(frames.bound, sizeof(content) + 3 * 131072);
}
END_TEST

static void expect_refused(const char *bytes, size_t n, int code, const char *words)
{
	struct nest_frames frames = { 0 };
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_frames_walk(&frames, (const unsigned char *)bytes, n, &err), code);
	ck_assert_msg(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
}

START_TEST(what_is_not_decompressed_is_refused_by_its_header)
{
	/* Window descriptor 0x68: 8 MiB, the most; 0x69 is one step more, 0x88 128 MiB. */
	struct nest_frames frames = { 0 };
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(
		nest_frames_walk(&frames, (const unsigned char *)"\x28\xb5\x2f\xfd\0\x68", 6, &err),
		1);
	ck_assert_uint_eq(frames.window, NEST_FRAMES_MAX_WINDOW);
	expect_refused("\x28\xb5\x2f\xfd\0\x69", 6, -ENOTSUP, "a window of 9437184 bytes");
	expect_refused("\x28\xb5\x2f\xfd\0\x88", 6, -ENOTSUP, "without --long");
	expect_refused("\x28\xb5\x2f\xfd\x01\x50\x07", 7, -ENOTSUP, "dictionary");
	expect_refused("\x28\xb5\x2f\xfd\x08\x50", 6, -EBADMSG, "reserved");
	expect_refused("\x28\xb5\x2f\xfd\x00\x00\x07\x00\x00", 9, -EBADMSG, "zstd block");
	expect_refused("\x28\xb5\x2f\xfd\x00\x00\xf8\xff\xff", 9, -EBADMSG, "zstd block");
	expect_refused("\x04\x22\x4d\x18\x80\x40\0", 7, -EBADMSG, "unknown version");
	expect_refused("\x04\x22\x4d\x18\x41\x40\0\0\0\0\0", 11, -ENOTSUP, "dictionary");
	expect_refused("\x04\x22\x4d\x18\x40\x40\0\xff\xff\xff\x7f", 11, -EBADMSG, "LZ4 block");
	expect_refused("none", 4, -EBADMSG, "neither a zstd nor an LZ4 frame");
}
END_TEST

START_TEST(skippable_frames_are_as_long_as_they_say)
{
	struct nest_frames frames = { 0 };
	struct nest_err err = NEST_ERR_INIT;
	const unsigned char *bytes = (const unsigned char *)"\x5e\x2a\x4d\x18\xff\xff\xff\xff";

	ck_assert_int_eq(nest_frames_walk(&frames, bytes, 7, &err), 1);
	ck_assert(!frames.last);
	ck_assert_int_eq(nest_frames_walk(&frames, bytes, 8, &err), 1);
	ck_assert(frames.last);
	ck_assert_uint_eq(frames.need, UINT64_C(0xffffffff) + 8);
}
END_TEST

NEST_SUITE("loader/frames", zstd_frames_end_where_they_end, lz4_frames_end_where_they_end,
	the_bound_is_one, what_is_not_decompressed_is_refused_by_its_header,
	skippable_frames_are_as_long_as_they_say)
