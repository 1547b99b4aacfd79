/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/agent/gateway_bench.h"
#include "tests/unit/suite.h"

START_TEST(a_response_starts_with_its_head)
{
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "content-type: text/event-stream\n");
	peer_await(&bench.peer, "\r\n\r\n"); /* no body yet */
	bench_expect_header(&bench, "transfer-encoding: chunked");
	fake_body("data: 1\n\n", 9, false);
	peer_await(&bench.peer, "9\r\ndata: 1\n\n\r\n");
	ck_assert_uint_eq(fake.call->consumed, 9);
	fake_body("data: 2\n\n", 9, true);
	fake_end(NULL);
	peer_await(&bench.peer, "9\r\ndata: 2\n\n\r\n0\r\n\r\n");
	/* the connection lives on */
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(204, "");
	fake_end(NULL);
	ck_assert_uint_eq(bench_answered(&bench, NULL), 204);
	bench_done(&bench);
}
END_TEST

START_TEST(a_failure_after_the_head_cuts_the_answer)
{
	struct nest_gateway_stats stats;
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "");
	fake_body("part", 4, false);
	peer_await(&bench.peer, "part");
	fake_fail(NEST_FAILURE_CRASHED, "killed", NULL);
	peer_await_eof(&bench.peer);
	ck_assert_ptr_null(strstr(bench.peer.in, "\r\n0\r\n"));
	nest_gateway_stats(bench.gateway, &stats);
	ck_assert_uint_eq(stats.aborted_total, 1);
	ck_assert_uint_eq(stats.cancelled_total, 0);
	bench_done(&bench);
}
END_TEST

START_TEST(a_content_length_is_the_functions_promise)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	/* whole: nothing is out yet, so there is an error to read */
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "content-length: 5\n");
	fake_body("1234", 4, true);
	fake_end(NULL);
	ck_assert_uint_eq(bench_answered(&bench, &body), 502);
	bench_expect_member(body, "errorType", "Function.InvalidResponse");
	/* streamed as promised */
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "content-length: 8\n");
	fake_body("1234", 4, false);
	fake_body("5678", 4, true);
	fake_end(NULL);
	ck_assert_uint_eq(bench_answered(&bench, &body), 200);
	ck_assert_str_eq(body, "12345678");
	/* too short */
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "content-length: 8\n");
	fake_body("1234", 4, false);
	fake_end(NULL);
	peer_await_eof(&bench.peer);
	/* too long */
	peer_close(&bench.peer);
	peer_connect(&bench.peer, &bench.loop, bench.path, 0);
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "content-length: 2\n");
	fake_body("1234", 4, false);
	peer_await_eof(&bench.peer);
	ck_assert_ptr_null(strstr(bench.peer.in, "1234"));
	ck_assert_uint_eq(fake.cancelled, 1);
	bench_done(&bench);
}
END_TEST

START_TEST(a_head_request_has_a_length_and_no_body)
{
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, "HEAD /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	ck_assert_str_eq(fake.call->method, "HEAD");
	fake_answer(200, "content-length: 1000\n", "");
	peer_await(&bench.peer, "content-length: 1000\r\n");
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_answer(200, "", "next");
	peer_await(&bench.peer, "next");
	ck_assert_int_eq(strncmp(bench.peer.in, "HTTP/1.1 200", 12), 0);
	bench_done(&bench);
}
END_TEST

START_TEST(an_answer_that_cant_be_passed_on_is_502)
{
	static const struct {
		unsigned status;
		const char *headers;
	} bad[] = { { 0, "" }, { 101, "" }, { 199, "" }, { 600, "" }, { 200, "a b: c\n" },
		{ 200, "a: b\rc\n" }, { 200, "content-length: x\n" },
		{ 200, "content-length: 1\ncontent-length: 2\n" } };
	struct bench bench;
	const char *body;

	bench_start(&bench);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
		fake_response(bad[i].status, bad[i].headers);
		fake_body("x", 1, false);
		ck_assert_uint_eq(bench_answered(&bench, &body), 502);
		bench_expect_member(body, "errorType", "Function.InvalidResponse");
		peer_turn(&bench.peer);
		ck_assert_uint_eq(fake.cancelled, i + 1);
		ck_assert_ptr_null(fake.call);
	}
	/* an event's result has no status; and an end needs a beginning */
	bench_call(&bench, POST_HELLO "\r\n");
	fake_answer(200, "", "1");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 502);
	bench_call(&bench, POST_HELLO "\r\n");
	fake_end(NULL);
	ck_assert_uint_eq(bench_answered(&bench, NULL), 502);
	bench_done(&bench);
}
END_TEST

START_TEST(an_upload_waits_for_its_worker)
{
	static char piece[65536];
	struct bench bench;
	size_t before;

	bench_start(&bench);
	fake.full = true;
	bench_call(&bench, POST_HELLO "Content-Length: 1048576\r\n\r\n");
	memset(piece, 'x', sizeof(piece));
	peer_send(&bench.peer, piece, sizeof(piece));
	for (int i = 0; i < 20 && fake.call->body.len == 0; i++)
		peer_turn(&bench.peer);
	before = fake.call->body.len;
	ck_assert_uint_gt(before, 0);
	for (int i = 0; i < 5; i++)
		peer_turn(&bench.peer);
	peer_send(&bench.peer, piece, 1024);
	for (int i = 0; i < 5; i++)
		peer_turn(&bench.peer);
	ck_assert_uint_le(fake.call->body.len, before + sizeof(piece));
	fake.full = false;
	fake_writable();
	for (size_t sent = sizeof(piece) + 1024; sent < 1048576;) {
		size_t n = 1048576 - sent < sizeof(piece) ? 1048576 - sent : sizeof(piece);

		peer_send(&bench.peer, piece, n);
		sent += n;
	}
	for (int i = 0; i < 200 && !fake.call->body_done; i++)
		peer_turn(&bench.peer);
	ck_assert(fake.call->body_done);
	ck_assert_uint_eq(fake.call->body.len, 1048576);
	fake_answer(0, "", "1");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 200);
	bench_done(&bench);
}
END_TEST

START_TEST(a_worker_waits_for_a_slow_client)
{
	static char piece[65536];
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, "GET /web/ HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_response(200, "");
	for (int i = 0; i < 64 && fake.call->sent - fake.call->consumed < 131072; i++) {
		fake_body(piece, sizeof(piece), false);
		peer_turn_deaf(&bench.peer);
	}
	ck_assert_uint_lt(fake.call->consumed, fake.call->sent);
	for (int i = 0; i < 200 && fake.call->consumed < fake.call->sent; i++)
		peer_turn(&bench.peer);
	ck_assert_uint_eq(fake.call->consumed, fake.call->sent);
	fake_body(piece, 0, true);
	fake_end(NULL);
	peer_await(&bench.peer, "HTTP/1.1 200");
	bench_done(&bench);
}
END_TEST

START_TEST(a_client_that_leaves_cancels_its_call)
{
	struct nest_gateway_stats stats;
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "\r\n");
	peer_close(&bench.peer);
	for (int i = 0; i < 100 && fake.call; i++) {
		bench.peer.eof = true; /* there is no socket to wait on */
		peer_turn_deaf(&bench.peer);
	}
	ck_assert_ptr_null(fake.call);
	ck_assert_uint_eq(fake.cancelled, 1);
	nest_gateway_stats(bench.gateway, &stats);
	ck_assert_uint_eq(stats.cancelled_total, 1);
	ck_assert_uint_eq(stats.in_flight, 0);
	/* and so does one whose upload breaks a limit */
	peer_connect(&bench.peer, &bench.loop, bench.path, 0);
	bench_call(&bench, POST_HELLO "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
	peer_puts(&bench.peer, "zz\r\n");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 400);
	ck_assert_uint_eq(fake.cancelled, 2);
	bench_done(&bench);
}
END_TEST

START_TEST(a_draining_gateway_sends_callers_elsewhere)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "\r\n");
	/* the second request is in the connection already */
	peer_puts(&bench.peer, POST_HELLO "\r\n");
	peer_turn(&bench.peer);
	nest_gateway_drain(bench.gateway);
	ck_assert_int_eq(access(bench.path, F_OK), -1);
	fake_answer(0, "", "1");
	ck_assert_uint_eq(bench_answered(&bench, &body), 200);
	bench_expect_header(&bench, "connection: close");
	peer_await_eof(&bench.peer);
	ck_assert_uint_eq(fake.started, 1);
	bench_done(&bench);
}
END_TEST

START_TEST(a_request_that_was_begun_before_the_drain_is_refused)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	/* accepted, and its bytes still in the socket */
	peer_puts(&bench.peer, "POST " INVOKE "hello/invocations HTTP/1.1\r\n");
	peer_turn(&bench.peer);
	nest_gateway_drain(bench.gateway);
	ck_assert_uint_eq(bench_ask(&bench, "Host: h\r\n\r\n", &body), 503);
	bench_expect_member(body, "errorType", "Host.Draining");
	bench_expect_header(&bench, "connection: close");
	bench_expect_header(&bench, "retry-after: 1");
	peer_await_eof(&bench.peer);
	bench_done(&bench);
}
END_TEST

START_TEST(closing_cancels_what_runs)
{
	struct bench bench;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "X-Amz-Invocation-Type: Event\r\n\r\n");
	bench_call(&bench, POST_HELLO "\r\n");
	bench_done(&bench);
	ck_assert_uint_eq(fake.cancelled, 2);
}
END_TEST

START_TEST(a_gateway_needs_a_door)
{
	struct nest_gateway_config config = { .socket_mode = 0600 };
	struct nest_err err = NEST_ERR_INIT;
	struct nest_gateway *gateway;
	uv_loop_t loop;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_lt(nest_gateway_open(&loop, fake_host(), &config, &gateway, &err), 0);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "socket"));
	peer_finish_loop(&loop);
}
END_TEST

NEST_SUITE("agent/gateway streams", a_response_starts_with_its_head,
	a_failure_after_the_head_cuts_the_answer, a_content_length_is_the_functions_promise,
	a_head_request_has_a_length_and_no_body, an_answer_that_cant_be_passed_on_is_502,
	an_upload_waits_for_its_worker, a_worker_waits_for_a_slow_client,
	a_client_that_leaves_cancels_its_call, a_draining_gateway_sends_callers_elsewhere,
	a_request_that_was_begun_before_the_drain_is_refused, closing_cancels_what_runs,
	a_gateway_needs_a_door)
