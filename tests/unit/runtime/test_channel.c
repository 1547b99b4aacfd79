/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/fd.h"
#include "runtime/channel.h"
#include "runtime/wire.h"
#include "tests/unit/suite.h"

static uv_loop_t loop;
static struct nest_wire *wire;
static struct nest_channel *channel;
static int peer;

static struct nest_buf seen; /* "<type>:<stream>:<fin>:<payload>\n" of each frame */
static unsigned frames;
static int gone_code;
static bool gone;
static bool close_at_frame;

static void ignore(void *arg)
{
	(void)arg;
}

static void on_frame(void *arg, const struct nest_frame *frame)
{
	(void)arg;
	ck_assert(!gone);
	frames++;
	nest_buf_printf(&seen, "%u:%u:%d:", frame->type, frame->stream, frame->fin);
	nest_buf_append(&seen, frame->payload, frame->length);
	nest_buf_append(&seen, "\n", 1);
	if (close_at_frame)
		nest_channel_close(channel, ignore, NULL);
}

static void on_gone(void *arg, int code, const struct nest_err *why)
{
	(void)arg;
	ck_assert(!gone);
	ck_assert_str_ne(nest_err_text(why), "");
	gone = true;
	gone_code = code;
}

static const struct nest_channel_events events = { .frame = on_frame, .gone = on_gone };

static void enter(void)
{
	int fds[2];

	uv_loop_init(&loop);
	ck_assert_int_eq(nest_wire_open(&loop, &wire, NULL), 0);
	ck_assert_int_eq(nest_fd_socketpair(SOCK_STREAM, fds, NULL), 0);
	peer = fds[1];
	ck_assert_int_eq(nest_channel_open(wire, fds[0], &events, NULL, &channel, NULL), 0);
}

static void leave(void)
{
	if (!close_at_frame)
		nest_channel_close(channel, ignore, NULL);
	nest_wire_close(wire, ignore, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	nest_buf_done(&seen);
	close(peer);
}

static size_t put_frame(
	char *to, enum nest_frame_type type, bool fin, uint32_t stream, const char *payload)
{
	size_t n = strlen(payload);

	nest_frame_put_header(to, type, fin, stream, (uint32_t)n);
	memcpy(to + NEST_FRAME_HEADER, payload, n);
	return NEST_FRAME_HEADER + n;
}

static void turn(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
}

START_TEST(frames_arrive_whole_wherever_the_stream_is_cut)
{
	char bytes[256];
	size_t n = 0;

	n += put_frame(bytes + n, NEST_FRAME_HELLO, false, 0, "{\"protocol\":1}");
	n += put_frame(bytes + n, NEST_FRAME_BODY, false, 7, "");
	n += put_frame(bytes + n, NEST_FRAME_BODY, true, 7, "abc");
	for (size_t cut = 0; cut <= n; cut++) {
		nest_buf_clear(&seen, 0);
		ck_assert_int_eq(nest_fd_write_all(peer, bytes, cut, NULL), 0);
		turn();
		ck_assert_int_eq(nest_fd_write_all(peer, bytes + cut, n - cut, NULL), 0);
		turn();
		turn();
		nest_buf_append(&seen, "", 1);
		ck_assert_str_eq(
			nest_buf_bytes(&seen), "1:0:0:{\"protocol\":1}\n6:7:0:\n6:7:1:abc\n");
	}
	ck_assert(!gone);
}
END_TEST

START_TEST(frames_arrive_byte_by_byte)
{
	char bytes[128];
	size_t n = put_frame(bytes, NEST_FRAME_BODY, true, 3, "hello");

	n += put_frame(bytes + n, NEST_FRAME_BODY, true, 4, "you");
	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(write(peer, bytes + i, 1), 1);
		turn();
	}
	nest_buf_append(&seen, "", 1);
	ck_assert_str_eq(nest_buf_bytes(&seen), "6:3:1:hello\n6:4:1:you\n");
}
END_TEST

START_TEST(a_frame_larger_than_one_read_arrives)
{
	size_t n = NEST_FRAME_PAYLOAD_MAX, done = 0;
	char *bytes = calloc(1, NEST_FRAME_HEADER + n);

	nest_frame_put_header(bytes, NEST_FRAME_LOG, false, 1, (uint32_t)n);
	memset(bytes + NEST_FRAME_HEADER, 'x', n);
	nest_fd_set_nonblock(peer, 1, NULL);
	while (done < NEST_FRAME_HEADER + n) {
		ssize_t r = write(peer, bytes + done, NEST_FRAME_HEADER + n - done);

		if (r > 0)
			done += (size_t)r;
		turn();
	}
	while (frames == 0)
		turn();
	ck_assert_uint_eq(frames, 1);
	ck_assert_uint_gt(seen.len, n);
	free(bytes);
}
END_TEST

START_TEST(frames_of_one_turn_leave_in_one_write)
{
	char bytes[256], *payload;
	size_t n = 0;

	for (uint32_t i = 1; i <= 3; i++) {
		ck_assert_int_eq(
			nest_channel_put(channel, NEST_FRAME_BODY, i == 3, i, 2, &payload), 0);
		memcpy(payload, "ab", 2);
	}
	ck_assert_uint_eq(nest_channel_queued(channel), 3 * 14);
	ck_assert_uint_eq(nest_channel_sent(channel), 0);
	ck_assert_int_eq(recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT), -1);
	turn();
	ck_assert_uint_eq(nest_channel_sent(channel), 3 * 14);
	n = (size_t)recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT);
	ck_assert_uint_eq(n, 3 * 14);
	ck_assert_mem_eq(bytes + 28,
		"\x02\x00\x00\x00\x06\x01\x00\x00\x03\x00\x00\x00"
		"ab",
		14);
}
END_TEST

START_TEST(a_full_socket_is_waited_for_and_nothing_is_lost)
{
	static char got[65536];
	size_t total = 0, expected = 100 * (NEST_FRAME_HEADER + 65536);
	char *payload;

	for (uint32_t i = 0; i < 100; i++) {
		ck_assert_int_eq(
			nest_channel_put(channel, NEST_FRAME_BODY, false, 1, 65536, &payload), 0);
		memset(payload, (int)i, 65536);
	}
	turn();
	ck_assert_uint_lt(nest_channel_sent(channel), expected);
	while (total < expected) {
		ssize_t n = recv(peer, got, sizeof(got), MSG_DONTWAIT);

		if (n > 0) {
			for (ssize_t i = 0; i < n; i++) {
				size_t at = total + (size_t)i;
				size_t in = at % (NEST_FRAME_HEADER + 65536);

				/* no assertion a byte: millions of them outlast the time limit */
				if (in >= NEST_FRAME_HEADER &&
					got[i] != (char)(at / (NEST_FRAME_HEADER + 65536)))
					ck_abort_msg("byte %zu is %d", at, got[i]);
			}
			total += (size_t)n;
		}
		turn();
	}
	ck_assert_uint_eq(nest_channel_sent(channel), expected);
}
END_TEST

START_TEST(what_is_no_frame_ends_it)
{
	ck_assert_int_eq(nest_fd_write_all(peer, "GET / HTTP/1.1\r\n\r\n", 18, NULL), 0);
	turn();
	ck_assert(gone);
	ck_assert_int_eq(gone_code, -EPROTO);
	ck_assert_int_eq(nest_channel_put(channel, NEST_FRAME_PING, false, 0, 8, NULL), -EPIPE);
}
END_TEST

START_TEST(the_other_side_may_go_after_its_last_frame)
{
	char bytes[64];
	size_t n = put_frame(bytes, NEST_FRAME_BODY, true, 3, "bye");

	ck_assert_int_eq(nest_fd_write_all(peer, bytes, n, NULL), 0);
	shutdown(peer, SHUT_RDWR);
	/* Nothing can be sent any more; what was sent before is still read. */
	nest_channel_put(channel, NEST_FRAME_PING, false, 0, 8, NULL);
	nest_channel_flush(channel);
	nest_channel_finish(channel);
	ck_assert_uint_eq(frames, 1);
	ck_assert(gone);
	ck_assert_int_eq(gone_code, UV_EOF);
}
END_TEST

START_TEST(it_may_be_closed_in_its_own_callback)
{
	char bytes[64];
	size_t n = put_frame(bytes, NEST_FRAME_BODY, true, 3, "a");

	n += put_frame(bytes + n, NEST_FRAME_BODY, true, 4, "b");
	close_at_frame = true;
	ck_assert_int_eq(nest_fd_write_all(peer, bytes, n, NULL), 0);
	turn();
	ck_assert_uint_eq(frames, 1);
	ck_assert(!gone);
}
END_TEST

/* A socket of its own for each seed, so that garbage meets a fresh parser. */
START_TEST(random_bytes_never_do_more_than_end_it)
{
	for (unsigned seed = 1; seed <= 300; seed++) {
		leave();
		gone = false;
		frames = 0;
		enter();
		srand(seed);
		while (!gone) {
			char bytes[64];
			size_t n = NEST_FRAME_HEADER + (size_t)(rand() % 52);

			for (size_t i = 0; i < n; i++)
				bytes[i] = (char)rand();
			if (rand() % 8) /* a plausible header, so that it gets further */
				nest_frame_put_header(bytes,
					(enum nest_frame_type)(rand() % NEST_FRAME_TYPES), false,
					(uint32_t)(rand() % 3), (uint32_t)(rand() % 40));
			ck_assert_int_eq(send(peer, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
			turn();
		}
		ck_assert_int_eq(gone_code, -EPROTO);
	}
}
END_TEST

NEST_SUITE_WITH("runtime/channel", enter, leave, frames_arrive_whole_wherever_the_stream_is_cut,
	frames_arrive_byte_by_byte, a_frame_larger_than_one_read_arrives,
	frames_of_one_turn_leave_in_one_write, a_full_socket_is_waited_for_and_nothing_is_lost,
	what_is_no_frame_ends_it, the_other_side_may_go_after_its_last_frame,
	it_may_be_closed_in_its_own_callback, random_bytes_never_do_more_than_end_it)
