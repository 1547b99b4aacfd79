/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/decode.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include <lz4frame.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

/* A stream, what it decompresses to, and how it is given out. */
struct input {
	struct nest_buf stream;
	struct nest_buf content;
	size_t at;
	size_t step;
	uint32_t seed;
};

static uint32_t next_random(struct input *input)
{
	input->seed = input->seed * 1664525u + 1013904223u;
	return input->seed >> 8;
}

static void add_content(struct input *input, size_t n)
{
	char piece[4096];

	while (n > 0) {
		size_t len = n < sizeof(piece) ? n : sizeof(piece);

		for (size_t i = 0; i < len; i++)
			piece[i] = (char)('a' + next_random(input) % 11);
		ck_assert_int_eq(nest_buf_append(&input->content, piece, len), 0);
		n -= len;
	}
}

/* One frame of @n new bytes. */
static void add_zstd(struct input *input, size_t n, bool sized, int window_log)
{
	nest_autofree char *out = malloc(ZSTD_compressBound(n));
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	size_t len;

	add_content(input, n);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 1);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, sized);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, 1);
	if (window_log)
		ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, window_log);
	len = ZSTD_compress2(cctx, out, ZSTD_compressBound(n),
		nest_buf_bytes(&input->content) + input->content.len - n, n);
	ck_assert(!ZSTD_isError(len));
	nest_buf_append(&input->stream, out, len);
	ZSTD_freeCCtx(cctx);
}

static void add_lz4(struct input *input, size_t n, bool sized, LZ4F_blockMode_t mode)
{
	LZ4F_preferences_t how = { .frameInfo = { .blockMode = mode,
					   .contentChecksumFlag = LZ4F_contentChecksumEnabled,
					   .contentSize = sized ? n : 0 } };
	size_t cap = LZ4F_compressFrameBound(n, &how);
	nest_autofree char *out = malloc(cap);
	size_t len;

	add_content(input, n);
	len = LZ4F_compressFrame(
		out, cap, nest_buf_bytes(&input->content) + input->content.len - n, n, &how);
	ck_assert(!LZ4F_isError(len));
	nest_buf_append(&input->stream, out, len);
}

static void add_skippable(struct input *input, const char *magic, uint32_t n)
{
	nest_buf_append(&input->stream, magic, 4);
	nest_buf_append(&input->stream, &n, 4);
	for (uint32_t i = 0; i < n; i++)
		nest_buf_append(&input->stream, "s", 1);
}

static ssize_t read_input(void *arg, const void **ret_bytes)
{
	struct input *input = arg;
	size_t n = input->stream.len - input->at;

	if (n > input->step)
		n = input->step;
	*ret_bytes = nest_buf_bytes(&input->stream) + input->at;
	input->at += n;
	return (ssize_t)n;
}

static void input_done(struct input *input)
{
	nest_buf_done(&input->stream);
	nest_buf_done(&input->content);
}

/* Decompresses all; what comes must be the beginning of the content. 0 or the error. */
static int decode_all(struct input *input, uint64_t *ret_n, struct nest_err *err)
{
	struct nest_unpack_source source = { .read = read_input, .arg = input };
	nest_autodecode struct nest_decode *decode = NULL;
	const void *bytes;
	uint64_t all = 0;
	ssize_t n;

	input->at = 0;
	kit_ok(nest_decode_new(nest_decode_kind(nest_buf_bytes(&input->stream), input->stream.len),
		       &source, NULL, &decode, err),
		err);
	while ((n = nest_decode_read(decode, &bytes)) > 0) {
		ck_assert_uint_le(all + (uint64_t)n, input->content.len);
		ck_assert(memcmp(nest_buf_bytes(&input->content) + all, bytes, (size_t)n) == 0);
		all += (uint64_t)n;
	}
	if (n < 0)
		nest_err_say(err, (int)n, "%s", nest_decode_why(decode));
	*ret_n = all;
	return (int)n;
}

static void expect_content(struct input *input, size_t step)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t n = 0;

	input->step = step;
	kit_ok(decode_all(input, &n, &err), &err);
	ck_assert_uint_eq(n, input->content.len);
}

static void expect_error(struct input *input, int code, const char *words)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t n = 0;

	input->step = 5000;
	ck_assert_int_eq(decode_all(input, &n, &err), code);
	ck_assert_msg(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
}

START_TEST(many_frames_come_out_in_their_order)
{
	struct input zstd = { .seed = 1 };
	struct input lz4 = { .seed = 2 };

	for (unsigned i = 0; i < 120; i++) {
		size_t n = next_random(&zstd) % 200000;

		add_zstd(&zstd, i % 10 == 0 ? 0 : n, i % 3, 0);
		add_lz4(&lz4, i % 10 == 0 ? 0 : n, i % 3,
			i % 2 ? LZ4F_blockLinked : LZ4F_blockIndependent);
		if (i % 7 == 0)
			add_skippable(&zstd, "\x50\x2a\x4d\x18", i);
	}
	add_skippable(&zstd, "\x5e\x2a\x4d\x18", 1000);
	for (size_t step = 3; step < 10000000; step *= 91) {
		expect_content(&zstd, step);
		expect_content(&lz4, step);
	}
	input_done(&zstd);
	input_done(&lz4);
}
END_TEST

START_TEST(long_frames_are_decompressed_as_a_stream)
{
	for (unsigned i = 0; i < 4; i++) {
		struct input zstd = { .seed = 3 };
		struct input lz4 = { .seed = 4 };

		add_zstd(&zstd, 1000, true, 0);
		add_zstd(&zstd, 20u << 20, i & 1, 20);
		add_zstd(&zstd, 3000, true, 0);
		add_lz4(&lz4, 20u << 20, i & 1, i & 2 ? LZ4F_blockLinked : LZ4F_blockIndependent);
		add_lz4(&lz4, 3000, true, LZ4F_blockLinked);
		expect_content(&zstd, i & 2 ? 4096 : 300000);
		expect_content(&lz4, i & 2 ? 4096 : 300000);
		input_done(&zstd);
		input_done(&lz4);
	}
}
END_TEST

START_TEST(a_stream_may_begin_with_a_skippable_frame)
{
	struct input zstd = { .seed = 5 };
	struct input lz4 = { .seed = 6 };

	add_skippable(&zstd, "\x50\x2a\x4d\x18", 4);
	add_zstd(&zstd, 100000, false, 0);
	add_skippable(&lz4, "\x51\x2a\x4d\x18", 0);
	add_lz4(&lz4, 100000, false, LZ4F_blockLinked);
	expect_content(&zstd, 10);
	expect_content(&lz4, 10);
	input_done(&zstd);
	input_done(&lz4);
}
END_TEST

START_TEST(frames_of_two_kinds_are_refused)
{
	struct input input = { .seed = 7 };

	add_zstd(&input, 1000, true, 0);
	add_lz4(&input, 1000, true, LZ4F_blockLinked);
	expect_error(&input, -EBADMSG, "both zstd and LZ4");
	input_done(&input);
}
END_TEST

START_TEST(a_frame_that_lies_about_its_size_is_refused)
{
	struct input input = { .seed = 8 };
	char *bytes;

	/* Sized, not a single segment: 4 magic, descriptor, window, content size in 4 bytes. */
	add_zstd(&input, 300000, true, 17);
	bytes = nest_buf_bytes(&input.stream);
	ck_assert_int_eq(bytes[4] & 0xe0, 0x80);
	ck_assert_int_eq(memcmp(bytes + 6, "\xe0\x93\x04\x00", 4), 0);
	bytes[7] = 0x92; /* less than there is */
	expect_error(&input, -EBADMSG, "damaged zstd data");
	bytes[7] = 0x94; /* more */
	expect_error(&input, -EBADMSG, "damaged zstd data");
	bytes[9] = 0x7f; /* 2 GiB: memory isn't taken on its word */
	expect_error(&input, -EBADMSG, "damaged zstd data");
	input_done(&input);
}
END_TEST

START_TEST(a_window_above_the_limit_is_refused)
{
	struct input input = { .seed = 9 };

	add_zstd(&input, 20u << 20, false, 24);
	expect_error(&input, -ENOTSUP, "a window of 16777216 bytes, and 8388608 are allowed");
	input_done(&input);
}
END_TEST

static void cut(struct input *input)
{
	size_t full = input->stream.len;
	uint64_t n;

	input->step = 1000;
	for (size_t len = 5; len < full; len += len < 300 ? 1 : 997) {
		struct nest_err err = NEST_ERR_INIT;

		input->stream.len = len;
		if (decode_all(input, &n, &err) == 0)
			ck_assert_uint_lt(n, input->content.len);
		else
			ck_assert_str_ne(err.text, "");
	}
	input->stream.len = full;
	input_done(input);
}

START_TEST(cut_streams_are_refused)
{
	struct input zstd = { .seed = 10 };
	struct input lz4 = { .seed = 11 };
	struct input whole = { .seed = 12 };

	add_zstd(&whole, 1000, true, 0);
	whole.stream.len--;
	expect_error(&whole, -EBADMSG, "truncated");
	input_done(&whole);
	add_zstd(&zstd, 100, false, 0);
	add_zstd(&zstd, 100000, true, 0);
	add_lz4(&lz4, 100, false, LZ4F_blockLinked);
	add_lz4(&lz4, 100000, true, LZ4F_blockIndependent);
	cut(&zstd);
	cut(&lz4);
}
END_TEST

/* Both have checksums, so that whatever isn't refused is right; decode_all() compares. */
static void flip(struct input *input)
{
	unsigned refused = 0;
	uint64_t n;

	input->step = 1000;
	for (size_t i = 4; i < input->stream.len; i += i < 300 ? 1 : 97) {
		struct nest_err err = NEST_ERR_INIT;

		nest_buf_bytes(&input->stream)[i] ^= (char)(1 << (i % 8));
		refused += decode_all(input, &n, &err) < 0;
		nest_buf_bytes(&input->stream)[i] ^= (char)(1 << (i % 8));
	}
	ck_assert_uint_gt(refused, 300);
	input_done(input);
}

START_TEST(flipped_bits_are_noticed)
{
	struct input zstd = { .seed = 13 };
	struct input lz4 = { .seed = 14 };

	add_zstd(&zstd, 100, true, 0);
	add_zstd(&zstd, 60000, true, 0);
	add_lz4(&lz4, 100, true, LZ4F_blockLinked);
	add_lz4(&lz4, 60000, true, LZ4F_blockIndependent);
	flip(&zstd);
	flip(&lz4);
}
END_TEST

START_TEST(bytes_behind_the_last_frame_are_refused)
{
	struct input input = { .seed = 15 };

	add_zstd(&input, 1000, true, 0);
	nest_buf_append(&input.stream, "garbage", 7);
	expect_error(&input, -EBADMSG, "neither a zstd nor an LZ4 frame");
	input_done(&input);
}
END_TEST

/* The same frame of zeros again and again, from a source that makes it as it is read. */
struct bomb {
	char frame[8192];
	size_t len;
	uint64_t frames;
	uint64_t given;
};

static ssize_t read_bomb(void *arg, const void **ret_bytes)
{
	struct bomb *bomb = arg;

	if (bomb->given == bomb->frames)
		return 0;
	bomb->given++;
	*ret_bytes = bomb->frame;
	return (ssize_t)bomb->len;
}

static void arm(struct bomb *bomb, size_t frame_bytes, uint64_t frames)
{
	static char zeros[64u << 20];

	bomb->len = ZSTD_compress(bomb->frame, sizeof(bomb->frame), zeros, frame_bytes, 1);
	ck_assert(!ZSTD_isError(bomb->len));
	bomb->frames = frames;
}

START_TEST(a_bomb_is_stopped_by_its_ratio)
{
	static const size_t sizes[] = { 1u << 20, 64u << 20 };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(sizes); i++) {
		struct bomb bomb = { .len = 0 };
		struct nest_unpack_source source = { .read = read_bomb, .arg = &bomb };
		nest_autodecode struct nest_decode *decode = NULL;
		struct nest_err err = NEST_ERR_INIT;
		const void *bytes;
		uint64_t all = 0;
		ssize_t n;

		arm(&bomb, sizes[i], UINT64_C(1) << 30);
		kit_ok(nest_decode_new(NEST_DECODE_ZSTD, &source, NULL, &decode, &err), &err);
		while ((n = nest_decode_read(decode, &bytes)) > 0)
			all += (uint64_t)n;
		ck_assert_int_eq((int)n, -EFBIG);
		ck_assert_ptr_nonnull(strstr(nest_decode_why(decode), "a bomb"));
		ck_assert_uint_lt(all, 80u << 20);
	}
}
END_TEST

/* One frame, given out again and again. */
struct repeat {
	struct input input;
	unsigned left;
};

static ssize_t read_repeat(void *arg, const void **ret_bytes)
{
	struct repeat *repeat = arg;

	if (repeat->left == 0)
		return 0;
	repeat->left--;
	*ret_bytes = nest_buf_bytes(&repeat->input.stream);
	return (ssize_t)repeat->input.stream.len;
}

START_TEST(memory_stays_bounded_however_much_there_is)
{
	struct repeat repeat = { .input = { .seed = 16 }, .left = 512 };
	struct nest_unpack_source source = { .read = read_repeat, .arg = &repeat };
	nest_autodecode struct nest_decode *decode = NULL;
	struct nest_err err = NEST_ERR_INIT;
	struct rusage before;
	struct rusage after;
	const void *bytes;
	uint64_t all = 0;
	ssize_t n;

	add_zstd(&repeat.input, 1u << 20, true, 0);
	ck_assert_int_eq(getrusage(RUSAGE_SELF, &before), 0);
	kit_ok(nest_decode_new(NEST_DECODE_ZSTD, &source, NULL, &decode, &err), &err);
	while ((n = nest_decode_read(decode, &bytes)) > 0)
		all += (uint64_t)n;
	ck_assert_int_eq((int)n, 0);
	ck_assert_uint_eq(all, UINT64_C(512) << 20);
	ck_assert_int_eq(getrusage(RUSAGE_SELF, &after), 0);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what is freed */
	ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 40 << 10);
#endif
	input_done(&repeat.input);
}
END_TEST

/* A source that has nothing more to give until it is stopped. */
struct stall {
	struct input input;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	bool waiting;
	bool stopped;
};

static ssize_t read_stall(void *arg, const void **ret_bytes)
{
	struct stall *stall = arg;
	ssize_t n = read_input(&stall->input, ret_bytes);

	if (n > 0)
		return n;
	pthread_mutex_lock(&stall->lock);
	stall->waiting = true;
	pthread_cond_broadcast(&stall->moved);
	while (!stall->stopped)
		pthread_cond_wait(&stall->moved, &stall->lock);
	pthread_mutex_unlock(&stall->lock);
	return -ECANCELED;
}

static void stop_stall(void *arg)
{
	struct stall *stall = arg;

	pthread_mutex_lock(&stall->lock);
	stall->stopped = true;
	pthread_cond_broadcast(&stall->moved);
	pthread_mutex_unlock(&stall->lock);
}

START_TEST(who_gives_up_does_not_wait_for_the_source)
{
	struct stall stall = { .input = { .seed = 17, .step = 1000 },
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.moved = PTHREAD_COND_INITIALIZER };
	struct nest_unpack_source source = {
		.read = read_stall, .stop = stop_stall, .arg = &stall
	};
	struct nest_decode *decode = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const void *bytes;

	for (unsigned i = 0; i < 5; i++)
		add_zstd(&stall.input, 100000, true, 0);
	kit_ok(nest_decode_new(NEST_DECODE_ZSTD, &source, NULL, &decode, &err), &err);
	ck_assert_int_gt((int)nest_decode_read(decode, &bytes), 0);
	pthread_mutex_lock(&stall.lock);
	while (!stall.waiting)
		pthread_cond_wait(&stall.moved, &stall.lock);
	pthread_mutex_unlock(&stall.lock);
	nest_decode_free(decode);
	ck_assert(stall.stopped);
	input_done(&stall.input);
}
END_TEST

START_TEST(who_gives_up_leaves_a_full_queue_behind)
{
	struct input input = { .seed = 18, .step = 1u << 20 };
	struct nest_unpack_source source = { .read = read_input, .arg = &input };
	struct nest_decode *decode = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const void *bytes;

	for (unsigned i = 0; i < 50; i++)
		add_zstd(&input, 1u << 20, true, 0);
	for (unsigned reads = 0; reads < 3; reads++) {
		input.at = 0;
		kit_ok(nest_decode_new(NEST_DECODE_ZSTD, &source, NULL, &decode, &err), &err);
		for (unsigned i = 0; i < reads; i++)
			ck_assert_int_gt((int)nest_decode_read(decode, &bytes), 0);
		nest_decode_free(decode);
	}
	input_done(&input);
}
END_TEST

static ssize_t read_failure(void *arg, const void **ret_bytes)
{
	struct input *input = arg;
	ssize_t n = read_input(input, ret_bytes);

	return n > 0 ? n : -EIO;
}

START_TEST(what_came_before_a_source_failed_is_given_out)
{
	struct input input = { .seed = 19, .step = 100 };
	struct nest_unpack_source source = { .read = read_failure, .arg = &input };
	nest_autodecode struct nest_decode *decode = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const void *bytes;

	add_zstd(&input, 5000, true, 0);
	kit_ok(nest_decode_new(NEST_DECODE_ZSTD, &source, NULL, &decode, &err), &err);
	ck_assert_int_eq((int)nest_decode_read(decode, &bytes), 5000);
	ck_assert_int_eq((int)nest_decode_read(decode, &bytes), -EIO);
	ck_assert_ptr_nonnull(strstr(nest_decode_why(decode), "Input/output error"));
	input_done(&input);
}
END_TEST

NEST_SUITE_WITH("loader/decode", kit_enter, kit_leave, many_frames_come_out_in_their_order,
	long_frames_are_decompressed_as_a_stream, a_stream_may_begin_with_a_skippable_frame,
	frames_of_two_kinds_are_refused, a_frame_that_lies_about_its_size_is_refused,
	a_window_above_the_limit_is_refused, cut_streams_are_refused, flipped_bits_are_noticed,
	bytes_behind_the_last_frame_are_refused, a_bomb_is_stopped_by_its_ratio,
	memory_stays_bounded_however_much_there_is, who_gives_up_does_not_wait_for_the_source,
	who_gives_up_leaves_a_full_queue_behind, what_came_before_a_source_failed_is_given_out)
