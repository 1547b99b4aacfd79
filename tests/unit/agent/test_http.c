/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/agent/http_owner.h"
#include "tests/unit/suite.h"

#define GET "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

static const struct {
	const char *request;
	const char *answer;
} samples[] = {
	{ "GET /a/b?c=d HTTP/1.1\r\nHost: example.org:80\r\nX-Long: a b\tc \r\n\r\n",
		"GET /a/b?c=d /a/b c=d example.org:80 0:" },
	{ "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nEmpty:\r\n\r\nhello world",
		"POST /p /p  h 11:hello world" },
	{ "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	  "5\r\nhello\r\n1;a=b\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n",
		"PUT / /  h 11:hello world" },
	{ "GET http://other:8080/x?y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /x?y /x y other:8080 0:" },
	{ "GET http://other?y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /?y / y other 0:" },
	{ "GET http://o?y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /?y / y o 0:" },
	{ "GET http://other HTTP/1.1\r\nHost: h\r\n\r\n", "GET / /  other 0:" },
	{ "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * *  h 0:" },
	{ "\r\nGET / HTTP/1.1\r\nhOsT: h\r\n\r\n", "GET / /  h 0:" },
	{ "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
		"GET / /  h 0:" },
};

START_TEST(a_request_may_be_split_anywhere)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	for (size_t s = 0; s < sizeof(samples) / sizeof(samples[0]); s++) {
		size_t n = strlen(samples[s].request);

		for (size_t cut = 1; cut <= n; cut++) {
			const char *body;
			size_t body_n;

			peer_send(&peer, samples[s].request, cut);
			uv_run(&owner.loop, UV_RUN_NOWAIT);
			peer_send(&peer, samples[s].request + cut, n - cut);
			ck_assert_uint_eq(peer_await_answer(&peer, &body, &body_n), 200);
			ck_assert_str_eq(body, samples[s].answer);
			peer_drop(&peer);
		}
	}
	ck_assert_uint_eq(nest_http_connections(owner.server), 1);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(bytes_may_come_one_by_one)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	for (size_t s = 0; s < sizeof(samples) / sizeof(samples[0]); s++) {
		for (const char *c = samples[s].request; *c; c++) {
			peer_send(&peer, c, 1);
			uv_run(&owner.loop, UV_RUN_NOWAIT);
		}
		peer_await(&peer, samples[s].answer);
		peer_drop(&peer);
	}
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
	struct owner owner;
	struct peer peer;
	char request[64];

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	for (int i = 0; i < 1000; i++) {
		snprintf(request, sizeof(request), "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
		peer_puts(&peer, request);
	}
	peer_await(&peer, "GET /999 ");
	ck_assert_uint_eq(owner.requests, 1000);
	for (int i = 1; i < 1000; i++) {
		char before[32], after[32];

		snprintf(before, sizeof(before), "GET /%d ", i - 1);
		snprintf(after, sizeof(after), "GET /%d ", i);
		ck_assert(strstr(peer.in, before) < strstr(peer.in, after));
	}
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_request_may_follow_a_chunked_one)
{
	struct owner owner;
	struct peer peer;
	char requests[1024];

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	snprintf(requests, sizeof(requests), "%s%s%s%s", samples[2].request, samples[2].request,
		samples[0].request, samples[2].request);
	peer_puts(&peer, requests);
	while (owner.requests < 4)
		peer_turn(&peer);
	peer_turn(&peer);
	ck_assert_uint_eq(peer_count(&peer, samples[2].answer), 3);
	ck_assert_uint_eq(peer_count(&peer, samples[0].answer), 1);
	ck_assert_uint_eq(owner.refusals, 0);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(an_early_answer_keeps_the_connection_if_little_is_left)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	owner.hold = true;
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
	while (!owner.exchange)
		peer_turn(&peer);
	owner_answer(&owner);
	peer_await(&peer, "5:hello");
	ck_assert_ptr_null(strstr(peer.in, "connection: close"));
	peer_drop(&peer);
	owner.hold = false;
	peer_puts(&peer, "world" GET);
	peer_await(&peer, "GET / /  h 0:");
	peer_drop(&peer);
	/* with much left it is closed, but the answer can be read */
	owner.hold = true;
	peer_puts(&peer, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhello");
	while (!owner.exchange)
		peer_turn(&peer);
	owner_answer(&owner);
	peer_puts(&peer, "more and more");
	peer_await_eof(&peer);
	ck_assert_ptr_nonnull(strstr(peer.in, "connection: close"));
	ck_assert_ptr_nonnull(strstr(peer.in, "5:hello"));
	ck_assert_uint_eq(owner.requests, 3);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(the_next_request_waits_for_the_answer_of_the_last)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	owner.hold = true;
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, GET "POST /two HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" GET);
	peer_await_true(&peer, &owner.complete);
	peer_turn(&peer);
	ck_assert_uint_eq(owner.requests, 1);
	owner_answer(&owner);
	ck_assert_uint_eq(owner.requests, 1); /* never from inside of the answer */
	peer_await(&peer, "GET / /");
	peer_turn(&peer);
	ck_assert_uint_eq(owner.requests, 2);
	owner_answer(&owner);
	peer_await(&peer, "3:abc");
	peer_turn(&peer);
	ck_assert_uint_eq(owner.requests, 3);
	owner_answer(&owner);
	peer_turn(&peer);
	ck_assert_uint_eq(peer_count(&peer, "HTTP/1.1 200"), 3);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(head_gets_the_length_and_no_body)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n" GET);
	peer_await(&peer, "GET / /");
	ck_assert_ptr_nonnull(strstr(peer.in, "content-length: 16\r\n"));
	ck_assert_ptr_null(strstr(peer.in, "HEAD /x"));
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_body_is_called_for_with_100_continue)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
			 "Content-Length: 2\r\n\r\n");
	peer_await(&peer, "HTTP/1.1 100 Continue\r\n\r\n");
	ck_assert_uint_eq(peer_count(&peer, "HTTP/1.1"), 1);
	peer_puts(&peer, "ok");
	peer_await(&peer, "2:ok");
	peer_drop(&peer);
	/* not while the owner pauses, and not when it answers without the body */
	owner.pause_at_once = true;
	peer_puts(&peer, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
			 "Content-Length: 2\r\n\r\n");
	peer_turn(&peer);
	peer_turn(&peer);
	ck_assert_uint_eq(peer.n, 0);
	owner_answer(&owner);
	peer_await_eof(&peer);
	ck_assert_ptr_null(strstr(peer.in, "100 Continue"));
	ck_assert_ptr_nonnull(strstr(peer.in, "connection: close"));
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(old_clients_are_served_and_closed)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	peer_await(&peer, "GET / /  - 0:");
	ck_assert_ptr_nonnull(strstr(peer.in, "connection: keep-alive"));
	peer_puts(&peer, "GET / HTTP/1.0\r\n\r\n");
	peer_await_eof(&peer);
	ck_assert_uint_eq(owner.requests, 2);
	ck_assert_uint_eq(peer_count(&peer, "connection: close"), 1);
	peer_close(&peer);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
	peer_await_eof(&peer);
	ck_assert_uint_eq(peer_count(&peer, "200 OK"), 1);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

static void hold_one(struct owner *owner, struct peer *peer, const char *request)
{
	owner->hold = true;
	peer_open(peer, &owner->loop, owner->server);
	peer_puts(peer, request);
	peer_await_true(peer, &owner->complete);
}

START_TEST(a_streamed_answer_is_chunked_and_gathered)
{
	struct owner owner;
	struct peer peer;
	struct nest_http_exchange *exchange;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, GET);
	exchange = owner.exchange;
	owner.exchange = NULL;
	ck_assert_int_eq(nest_http_respond_head(exchange, 200, NULL, 0, -1), 0);
	ck_assert_int_eq(nest_http_send(exchange, "first", 5), 0);
	ck_assert_int_eq(nest_http_send(exchange, "", 0), 0);
	peer_await(&peer, "5\r\nfirst\r\n");
	ck_assert_ptr_nonnull(strstr(peer.in, "transfer-encoding: chunked\r\n"));
	ck_assert_int_eq(nest_http_send(exchange, "second", 6), 0);
	nest_http_send_end(exchange);
	peer_await(&peer, "6\r\nsecond\r\n0\r\n\r\n");
	owner.hold = false;
	peer_drop(&peer);
	peer_puts(&peer, GET);
	peer_await(&peer, "200 OK");
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(an_announced_length_is_kept)
{
	struct owner owner;
	struct peer peer;
	struct nest_http_exchange *exchange;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, GET);
	exchange = owner.exchange;
	ck_assert_int_eq(nest_http_respond_head(exchange, 200, NULL, 0, 4), 0);
	ck_assert_int_eq(nest_http_send(exchange, "12", 2), 0);
	ck_assert_int_eq(nest_http_send(exchange, "345", 3), -EMSGSIZE);
	ck_assert_int_eq(nest_http_send(exchange, "34", 2), 0);
	owner.exchange = NULL;
	nest_http_send_end(exchange);
	peer_await(&peer, "\r\n\r\n1234");
	peer_drop(&peer);
	owner.complete = false;
	peer_puts(&peer, GET);
	peer_await_true(&peer, &owner.complete);
	exchange = owner.exchange;
	ck_assert_int_eq(nest_http_respond_head(exchange, 200, NULL, 0, 4), 0);
	ck_assert_int_eq(nest_http_send(exchange, "12", 2), 0);
	owner.exchange = NULL;
	nest_http_send_end(exchange); /* too short: the client must see that */
	peer_await_eof(&peer);
	ck_assert_ptr_nonnull(strstr(peer.in, "content-length: 4"));
	ck_assert(!owner.gone);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(an_old_client_gets_a_stream_until_the_end)
{
	struct owner owner;
	struct peer peer;
	struct nest_http_exchange *exchange;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, "GET / HTTP/1.0\r\n\r\n");
	exchange = owner.exchange;
	owner.exchange = NULL;
	ck_assert_int_eq(nest_http_respond_head(exchange, 200, NULL, 0, -1), 0);
	ck_assert_int_eq(nest_http_send(exchange, "all", 3), 0);
	nest_http_send_end(exchange);
	peer_await_eof(&peer);
	ck_assert_ptr_nonnull(strstr(peer.in, "\r\n\r\nall"));
	ck_assert_ptr_null(strstr(peer.in, "chunked"));
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_header_that_splits_the_answer_is_refused)
{
	static const struct nest_http_header bad[] = {
		{ "x", "a\r\nb: c", 1, 7 },
		{ "x", "a\nb", 1, 3 },
		{ "x", "a\0b", 1, 3 },
		{ "x y", "a", 3, 1 },
		{ "x:", "a", 2, 1 },
		{ "", "a", 0, 1 },
		{ "content-length", "3", 14, 1 },
		{ "transfer-encoding", "chunked", 17, 7 },
		{ "connection", "close", 10, 5 },
	};
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, GET);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(
			nest_http_respond(owner.exchange, 200, &bad[i], 1, "", 0), -EINVAL);
		ck_assert_int_eq(
			nest_http_respond_head(owner.exchange, 200, &bad[i], 1, -1), -EINVAL);
	}
	ck_assert_int_eq(nest_http_respond(owner.exchange, 101, NULL, 0, "", 0), -EINVAL);
	owner_answer(&owner);
	peer_await(&peer, "200 OK");
	ck_assert_uint_eq(peer_count(&peer, "HTTP/1.1"), 1);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_client_that_leaves_is_noticed)
{
	static const char upload[] =
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\nabc";
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, GET);
	close(peer.fd);
	peer.fd = -1;
	peer_await_true(&peer, &owner.gone);
	peer_close(&peer);
	/* one that only shuts its side down can't be told from it */
	owner.gone = false;
	owner.complete = false;
	hold_one(&owner, &peer, GET);
	shutdown(peer.fd, SHUT_WR);
	peer_await_true(&peer, &owner.gone);
	peer_close(&peer);
	/* and while its upload is paused */
	owner.gone = false;
	owner.pause_at_once = true;
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, upload);
	while (!owner.exchange)
		peer_turn(&peer);
	peer_puts(&peer, "more that is not read");
	peer_turn(&peer);
	close(peer.fd);
	peer.fd = -1;
	peer_await_true(&peer, &owner.gone);
	peer_close(&peer);
	ck_assert_uint_eq(nest_http_connections(owner.server), 0);
	owner_done(&owner);
}
END_TEST

START_TEST(a_paused_upload_is_bounded_and_goes_on)
{
	enum {
		TOTAL = 4 << 20
	};
	static char piece[65536];
	struct owner owner;
	struct peer peer;
	size_t sent = 0;

	owner_start(&owner, &owner_limits);
	owner.hold = true;
	owner.pause_at_once = true;
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4194304\r\n\r\n");
	memset(piece, 'x', sizeof(piece));
	for (int idle = 0; idle < 5;) {
		ssize_t n = send(peer.fd, piece, sizeof(piece), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		else
			idle++;
		peer_turn(&peer);
	}
	ck_assert_uint_lt(sent, 1u << 20); /* the kernel's buffers, and no more */
	ck_assert_uint_le(owner.body.len, NEST_HTTP_BLOCK_BYTES);
	nest_http_pause(owner.exchange, false);
	while (sent < TOTAL) {
		size_t n = TOTAL - sent < sizeof(piece) ? TOTAL - sent : sizeof(piece);

		peer_send(&peer, piece, n);
		sent += n;
	}
	peer_await_true(&peer, &owner.complete);
	ck_assert_uint_eq(owner.body.len, TOTAL);
	owner.body.len = 0;
	owner_answer(&owner);
	peer_await(&peer, "200 OK");
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

/* Sends pieces of counted bytes until told to pause; how many. */
static size_t send_until_full(struct nest_http_exchange *exchange, size_t total, size_t limit)
{
	char piece[4096];

	while (total < limit) {
		int r;

		for (size_t i = 0; i < sizeof(piece); i++)
			piece[i] = (char)('a' + (total + i) % 23);
		r = nest_http_send(exchange, piece, sizeof(piece));
		ck_assert_int_ge(r, 0);
		total += sizeof(piece);
		if (r == 1)
			break;
	}
	return total;
}

START_TEST(a_slow_reader_holds_only_itself)
{
	enum {
		TOTAL = 8 << 20
	};
	struct owner owner;
	struct peer slow, other;
	struct nest_http_exchange *exchange;
	const char *body;
	size_t sent, wrong = 0;

	owner_start(&owner, &owner_limits);
	hold_one(&owner, &slow, GET);
	exchange = owner.exchange;
	ck_assert_int_eq(nest_http_respond_head(exchange, 200, NULL, 0, TOTAL), 0);
	sent = send_until_full(exchange, 0, TOTAL);
	ck_assert_uint_lt(sent, 1u << 20);
	ck_assert_uint_le(exchange->out.len, 2 * NEST_HTTP_HIGH_BYTES);
	for (int i = 0; i < 5; i++)
		peer_turn_deaf(&slow);
	ck_assert(!owner.writable);
	owner.exchange = NULL;
	owner.hold = false;
	peer_open(&other, &owner.loop, owner.server);
	peer_puts(&other, GET);
	peer_await(&other, "200 OK");
	owner.exchange = exchange;
	while (sent < TOTAL) {
		while (!owner.writable)
			peer_turn(&slow);
		owner.writable = false;
		sent = send_until_full(exchange, sent, TOTAL);
	}
	owner.exchange = NULL;
	nest_http_send_end(exchange);
	body = strstr(slow.in, "\r\n\r\n") + 4;
	while (slow.n < (size_t)(body - slow.in) + TOTAL) {
		peer_turn(&slow);
		body = strstr(slow.in, "\r\n\r\n") + 4;
	}
	for (size_t i = 0; i < TOTAL; i++)
		wrong += body[i] != (char)('a' + i % 23);
	ck_assert_uint_eq(wrong, 0);
	peer_close(&slow);
	peer_close(&other);
	owner_done(&owner);
}
END_TEST

START_TEST(a_large_answer_whole_reaches_a_slow_reader)
{
	enum {
		TOTAL = 6 << 20
	};
	struct owner owner;
	struct peer peer;
	struct nest_http_exchange *exchange;
	char *body = malloc(TOTAL);
	size_t n;
	const char *got;

	ck_assert_ptr_nonnull(body);
	for (size_t i = 0; i < TOTAL; i++)
		body[i] = (char)('a' + i % 19);
	owner_start(&owner, &owner_limits);
	hold_one(&owner, &peer, GET);
	exchange = owner.exchange;
	owner.exchange = NULL;
	ck_assert_int_eq(nest_http_respond(exchange, 200, NULL, 0, body, TOTAL), 0);
	ck_assert_uint_eq(peer_await_answer(&peer, &got, &n), 200);
	ck_assert_uint_eq(n, TOTAL);
	ck_assert_int_eq(memcmp(got, body, TOTAL), 0);
	free(body);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_drained_server_closes_what_idles_and_finishes_the_rest)
{
	struct owner owner;
	struct peer idle, busy;

	owner_start(&owner, &owner_limits);
	peer_open(&idle, &owner.loop, owner.server);
	hold_one(&owner, &busy, GET);
	nest_http_drain(owner.server);
	peer_await_eof(&idle);
	ck_assert_uint_eq(nest_http_connections(owner.server), 1);
	owner_answer(&owner);
	peer_await_eof(&busy);
	ck_assert_ptr_nonnull(strstr(busy.in, "connection: close"));
	peer_close(&idle);
	peer_close(&busy);
	owner_done(&owner);
}
END_TEST

START_TEST(memory_does_not_grow_with_requests)
{
	struct owner owner;
	struct peer peer;
	size_t before = 0;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	for (int i = 0; i < 1010; i++) {
		if (i == 10)
			before = mallinfo2().uordblks;
		peer_puts(&peer, samples[1].request);
		peer_await(&peer, samples[1].answer);
		peer_drop(&peer);
	}
	ck_assert_uint_le(mallinfo2().uordblks, before);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(an_idle_connection_is_small)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, samples[2].request);
	peer_await(&peer, samples[2].answer);
	ck_assert_ptr_null(owner.server->connections->block);
	ck_assert_ptr_null(owner.server->connections->out.data);
	ck_assert_uint_lt(sizeof(struct nest_http_exchange), 2048);
	peer_close(&peer);
	owner_done(&owner);
	/* nothing is left in the loop by a server without connections: peer_finish_loop() ended */
}
END_TEST

START_TEST(a_socket_file_is_made_whole_and_removed)
{
	struct nest_err err = NEST_ERR_INIT;
	char dir[] = "/tmp/nest-http-XXXXXX", path[64], text[sizeof(path) + 8];
	struct owner owner, second;
	struct peer peer;
	struct stat st;
	FILE *file;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	owner_start(&owner, &owner_limits);
	ck_assert_int_eq(nest_http_listen_unix(owner.server, path, 0640, &err), 0);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFSOCK | 0640);
	peer_connect(&peer, &owner.loop, path, 0);
	peer_puts(&peer, GET);
	peer_await(&peer, "200 OK");
	/* a live one is not taken over */
	owner_start(&second, &owner_limits);
	ck_assert_int_eq(nest_http_listen_unix(second.server, path, 0600, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), path));
	peer_close(&peer);
	owner_done(&owner);
	ck_assert_int_eq(lstat(path, &st), -1);
	/* a dead one is; and its successor's file is not removed by it */
	owner_start(&owner, &owner_limits);
	ck_assert_int_eq(nest_http_listen_unix(owner.server, path, 0600, &err), 0);
	shutdown(owner.server->listeners->fd, SHUT_RDWR);
	ck_assert_int_eq(nest_http_listen_unix(second.server, path, 0600, &err), 0);
	owner_done(&owner);
	ck_assert_int_eq(lstat(path, &st), 0);
	owner_done(&second);
	ck_assert_int_eq(lstat(path, &st), -1);
	/* another kind of file stays */
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fclose(file);
	owner_start(&owner, &owner_limits);
	ck_assert_int_eq(nest_http_listen_unix(owner.server, path, 0600, &err), -EEXIST);
	snprintf(text, sizeof(text), "%s/no/s", dir);
	ck_assert_int_eq(nest_http_listen_unix(owner.server, text, 0600, &err), -ENOENT);
	owner_done(&owner);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0); /* no temporary name is left */
}
END_TEST

START_TEST(tcp_is_for_loopback_only)
{
	static const char *const bad[] = { "0.0.0.0:80", "10.0.0.1:80", "[::]:80", "localhost:80",
		"127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:8x", ":80", "" };
	struct nest_err err = NEST_ERR_INIT;
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(nest_http_listen_tcp(owner.server, bad[i], &err), -EINVAL);
	ck_assert_int_eq(nest_http_listen_tcp(owner.server, "127.0.0.1:0", &err), 0);
	peer_connect(&peer, &owner.loop, NULL, nest_http_listen_port(owner.server));
	peer_puts(&peer, GET);
	peer_await(&peer, "200 OK");
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(connections_over_the_limit_wait)
{
	struct nest_http_limits limits = owner_limits;
	struct nest_err err = NEST_ERR_INIT;
	struct owner owner;
	struct peer first, second;
	unsigned port;

	limits.connections = 1;
	owner_start(&owner, &limits);
	ck_assert_int_eq(nest_http_listen_tcp(owner.server, "127.0.0.1:0", &err), 0);
	port = nest_http_listen_port(owner.server);
	peer_connect(&first, &owner.loop, NULL, port);
	peer_puts(&first, GET);
	peer_await(&first, "200 OK");
	peer_connect(&second, &owner.loop, NULL, port);
	peer_puts(&second, GET);
	for (int i = 0; i < 5; i++)
		peer_turn(&second);
	ck_assert_uint_eq(second.n, 0);
	ck_assert_uint_eq(nest_http_connections(owner.server), 1);
	peer_close(&first);
	peer_await(&second, "200 OK");
	peer_close(&second);
	owner_done(&owner);
}
END_TEST

START_TEST(running_out_of_descriptors_only_delays)
{
	struct nest_err err = NEST_ERR_INIT;
	struct rlimit limit = { 0 };
	struct owner owner;
	struct peer peer;
	int last, none;

	owner_start(&owner, &owner_limits);
	ck_assert_int_eq(nest_http_listen_tcp(owner.server, "127.0.0.1:0", &err), 0);
	peer_connect(&peer, &owner.loop, NULL, nest_http_listen_port(owner.server));
	peer_puts(&peer, GET);
	last = dup(0);
	ck_assert_int_ge(last, 0);
	close(last);
	getrlimit(RLIMIT_NOFILE, &limit);
	none = (int)limit.rlim_cur;
	limit.rlim_cur = (rlim_t)last;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 5; i++)
		peer_turn(&peer);
	ck_assert_uint_eq(nest_http_connections(owner.server), 0);
	ck_assert_uint_ne(owner.server->accept_again_ms, 0);
	limit.rlim_cur = (rlim_t)none;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	peer_await(&peer, "200 OK");
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

NEST_SUITE("agent/http", a_request_may_be_split_anywhere, bytes_may_come_one_by_one,
	pipelined_requests_are_answered_in_order, a_request_may_follow_a_chunked_one,
	an_early_answer_keeps_the_connection_if_little_is_left,
	the_next_request_waits_for_the_answer_of_the_last, head_gets_the_length_and_no_body,
	a_body_is_called_for_with_100_continue, old_clients_are_served_and_closed,
	a_streamed_answer_is_chunked_and_gathered, an_announced_length_is_kept,
	an_old_client_gets_a_stream_until_the_end, a_header_that_splits_the_answer_is_refused,
	a_client_that_leaves_is_noticed, a_paused_upload_is_bounded_and_goes_on,
	a_slow_reader_holds_only_itself, a_large_answer_whole_reaches_a_slow_reader,
	a_drained_server_closes_what_idles_and_finishes_the_rest,
	memory_does_not_grow_with_requests, an_idle_connection_is_small,
	a_socket_file_is_made_whole_and_removed, tcp_is_for_loopback_only,
	connections_over_the_limit_wait, running_out_of_descriptors_only_delays)
