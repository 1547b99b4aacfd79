/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "tests/unit/agent/http_owner.h"
#include "tests/unit/suite.h"

#define HOST "Host: h\r\n"
#define SHORT_MS 60

/* What two readers could understand differently, or no reader should accept; each 400. */
static const char *const smuggled[] = {
	"POST / HTTP/1.1\r\n" HOST
	"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST
	"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: 4, 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: +4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: -4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Content-Length : 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST " Content-Length: 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "X: y\r\n Content-Length: 4\r\n\r\nabcd",
	"POST / HTTP/1.1\r\n" HOST "X: y\r\n\tfolded\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST
	"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\x0b"
	"chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
	"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
	"GET / HTTP/1.1\n" HOST "\r\n",
	"GET / HTTP/1.1\r\nHost: h\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\n\n",
	"GET / HTTP/1.1\r\nHost: h\r\n\rX",
	"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
	"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n",
	"GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n\r\n",
	"GET / HTTP/1.1\r\n" HOST "X(: a\r\n\r\n",
	"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n",
	"GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET * HTTP/1.1\r\n" HOST "\r\n",
	"GET x HTTP/1.1\r\n" HOST "\r\n",
	"GET /a#b HTTP/1.1\r\n" HOST "\r\n",
	"GET /a\x80 HTTP/1.1\r\n" HOST "\r\n",
	"GET /a b HTTP/1.1\r\n" HOST "\r\n",
	"GET  / HTTP/1.1\r\n" HOST "\r\n",
	"GET /  HTTP/1.1\r\n" HOST "\r\n",
	"GET /\r\n\r\n",
	"GET / HTTP/0.9\r\n\r\n",
	"GET / HTTP/1.2\r\n" HOST "\r\n",
	"GET / HTTP/2.0\r\n" HOST "\r\n",
	"GET / RTSP/1.0\r\n" HOST "\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"CONNECT h:80 HTTP/1.1\r\n" HOST "\r\n",
	"GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"BREW / HTTP/1.1\r\n" HOST "\r\n",
	"get / HTTP/1.1\r\n" HOST "\r\n",
	"\x16\x03\x01\x02",
	"hello\r\n\r\n",
};

static void expect_refusal(
	const struct nest_http_limits *limits, const char *request, size_t n, unsigned status)
{
	struct owner owner;
	struct peer peer;

	owner_start(&owner, limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_send(&peer, request, n);
	peer_puts(&peer, "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
	ck_assert_msg(peer_await_answer(&peer, NULL, NULL) == status, "'%.*s' got '%s'", (int)n,
		request, peer.in);
	peer_await_eof(&peer);
	ck_assert_msg(owner.requests == 0, "'%.*s' was taken", (int)n, request);
	ck_assert_uint_eq(owner.refusals, 1);
	ck_assert_uint_eq(peer_count(&peer, "connection: close\r\n"), 1);
	ck_assert_uint_eq(peer_count(&peer, "content-length: "), 1);
	peer_close(&peer);
	owner_done(&owner);
}

START_TEST(ambiguous_requests_are_refused)
{
	for (size_t i = 0; i < sizeof(smuggled) / sizeof(smuggled[0]); i++)
		expect_refusal(&owner_limits, smuggled[i], strlen(smuggled[i]), 400);
}
END_TEST

START_TEST(a_nul_is_refused_wherever_it_stands)
{
	static const char request[] = "GET /abc HTTP/1.1\r\nHost: h\r\nX-Y: value\r\n\r\n";

	for (size_t at = 0; at < sizeof(request) - 5; at++) {
		char copy[sizeof(request)];

		memcpy(copy, request, sizeof(copy));
		copy[at] = '\0';
		expect_refusal(&owner_limits, copy, sizeof(request) - 1, 400);
	}
}
END_TEST

START_TEST(an_unknown_expectation_is_417)
{
	static const char request[] = "POST / HTTP/1.1\r\n" HOST "Expect: magic\r\n\r\n";

	expect_refusal(&owner_limits, request, sizeof(request) - 1, 417);
}
END_TEST

START_TEST(a_head_too_long_is_431)
{
	static const char start[] = "GET / HTTP/1.1\r\n" HOST "X: ";
	struct nest_http_limits limits = owner_limits;
	static char request[60000];
	size_t n = sizeof(start) - 1;

	memcpy(request, start, n);
	memset(request + n, 'x', sizeof(request) - n);
	expect_refusal(&owner_limits, request, sizeof(request), 431);
	/* complete, and one byte over */
	limits.header_bytes = 1000;
	memcpy(request + 1001 - 4, "\r\n\r\n", 4);
	expect_refusal(&limits, request, 1001, 431);
}
END_TEST

START_TEST(a_head_may_be_as_long_as_the_limit)
{
	static const char start[] = "GET / HTTP/1.1\r\n" HOST "X: ";
	static char request[32768];
	struct owner owner;
	struct peer peer;

	memset(request, 'x', sizeof(request));
	memcpy(request, start, sizeof(start) - 1);
	memcpy(request + sizeof(request) - 4, "\r\n\r\n", 4);
	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	for (int i = 0; i < 3; i++) {
		peer_send(&peer, request, sizeof(request));
		peer_await(&peer, "GET / /  h 0:");
		peer_drop(&peer);
	}
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(too_many_headers_are_431)
{
	char request[8192];
	size_t n = (size_t)snprintf(request, sizeof(request), "GET / HTTP/1.1\r\n" HOST);

	for (int i = 0; i < 101; i++)
		n += (size_t)snprintf(request + n, sizeof(request) - n, "x-%d: y\r\n", i);
	n += (size_t)snprintf(request + n, sizeof(request) - n, "\r\n");
	expect_refusal(&owner_limits, request, n, 431);
}
END_TEST

START_TEST(an_announced_body_too_long_is_413_at_once)
{
	static const char huge[] = "POST / HTTP/1.1\r\n" HOST
				   "Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n";
	static const char beyond[] =
		"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\n";

	expect_refusal(&owner_limits, huge, sizeof(huge) - 1, 413);
	expect_refusal(&owner_limits, beyond, sizeof(beyond) - 1, 413);
}
END_TEST

START_TEST(a_client_that_sends_on_still_reads_the_413)
{
	static char piece[65536];
	struct owner owner;
	struct peer peer;

	owner_start(&owner, &owner_limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "POST / HTTP/1.1\r\n" HOST "Content-Length: 16777216\r\n\r\n");
	for (int i = 0; i < 256; i++)
		peer_send(&peer, piece, sizeof(piece));
	peer_await_eof(&peer);
	ck_assert_int_eq(strncmp(peer.in, "HTTP/1.1 413 ", 13), 0);
	ck_assert_uint_eq(owner.requests, 0);
	ck_assert(owner.refused_knew_request);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_chunked_body_too_long_is_413_on_the_way)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.body_bytes = 10;
	owner_start(&owner, &limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer,
		"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n");
	while (owner.requests == 0)
		peer_turn(&peer);
	peer_puts(&peer, "6\r\nabcdef\r\n");
	peer_await_true(&peer, &owner.gone);
	peer_await_eof(&peer);
	ck_assert_int_eq(strncmp(peer.in, "HTTP/1.1 413 ", 13), 0);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(chunk_extensions_and_trailers_are_bounded)
{
	static const char head[] = "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n";
	static char flood[40000];
	struct owner owner;
	struct peer peer;

	memset(flood, 'x', sizeof(flood));
	for (int trailers = 0; trailers < 2; trailers++) {
		owner_start(&owner, &owner_limits);
		peer_open(&peer, &owner.loop, owner.server);
		peer_puts(&peer, head);
		peer_puts(&peer, trailers ? "0\r\nx: " : "1;");
		peer_send(&peer, flood, sizeof(flood));
		peer_await(&peer, "HTTP/1.1 431 ");
		peer_await_eof(&peer);
		ck_assert(owner.gone || owner.requests == 0);
		peer_close(&peer);
		owner_done(&owner);
	}
}
END_TEST

START_TEST(a_slow_head_is_408)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.header_timeout_ms = SHORT_MS;
	owner_start(&owner, &limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HT");
	peer_await(&peer, "HTTP/1.1 408 ");
	peer_await_eof(&peer);
	peer_close(&peer);
	/* without a byte there is nobody to answer */
	peer_open(&peer, &owner.loop, owner.server);
	peer_await_eof(&peer);
	ck_assert_uint_eq(peer.n, 0);
	peer_close(&peer);
	/* and the second head of a connection has the same time */
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.1\r\n" HOST "\r\nGET");
	peer_await(&peer, "HTTP/1.1 408 ");
	ck_assert_uint_eq(peer_count(&peer, "HTTP/1.1 200 "), 1);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_trickled_head_gets_no_more_time)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.header_timeout_ms = 2 * SHORT_MS;
	owner_start(&owner, &limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 2000 && !peer.n && !peer.eof; i++) {
		peer_puts(&peer, "x: y\r\n");
		peer_turn(&peer);
		if (i == 60) /* of at most 20 ms each */
			break;
	}
	peer_await(&peer, "HTTP/1.1 4");
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_stuck_body_is_408_and_its_owner_hears)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.body_idle_ms = SHORT_MS;
	owner_start(&owner, &limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nab");
	peer_await_true(&peer, &owner.gone);
	peer_await(&peer, "HTTP/1.1 408 ");
	peer_await_eof(&peer);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(an_idle_connection_is_closed_silently)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.keepalive_ms = SHORT_MS;
	owner_start(&owner, &limits);
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.1\r\n" HOST "\r\n");
	peer_await(&peer, "200 OK");
	peer_drop(&peer);
	peer_await_eof(&peer);
	ck_assert_uint_eq(peer.n, 0);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

START_TEST(a_pending_answer_has_no_timeout_here)
{
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer busy, idle;

	limits.keepalive_ms = SHORT_MS;
	limits.header_timeout_ms = SHORT_MS;
	limits.body_idle_ms = SHORT_MS;
	owner_start(&owner, &limits);
	owner.hold = true;
	peer_open(&busy, &owner.loop, owner.server);
	peer_puts(&busy, "GET / HTTP/1.1\r\n" HOST "\r\n");
	peer_await_true(&busy, &owner.complete);
	peer_open(&idle, &owner.loop, owner.server);
	peer_await_eof(&idle);
	ck_assert(!owner.gone);
	owner_answer(&owner);
	peer_await(&busy, "200 OK");
	peer_close(&busy);
	peer_close(&idle);
	owner_done(&owner);
}
END_TEST

START_TEST(a_client_that_does_not_read_is_cut_off)
{
	static char piece[65536];
	struct nest_http_limits limits = owner_limits;
	struct owner owner;
	struct peer peer;

	limits.write_idle_ms = SHORT_MS;
	owner_start(&owner, &limits);
	owner.hold = true;
	peer_open(&peer, &owner.loop, owner.server);
	peer_puts(&peer, "GET / HTTP/1.1\r\n" HOST "\r\n");
	peer_await_true(&peer, &owner.complete);
	ck_assert_int_eq(nest_http_respond_head(owner.exchange, 200, NULL, 0, -1), 0);
	while (nest_http_send(owner.exchange, piece, sizeof(piece)) == 0)
		;
	peer_await_true(&peer, &owner.gone);
	ck_assert_uint_eq(nest_http_connections(owner.server), 0);
	peer_close(&peer);
	owner_done(&owner);
}
END_TEST

NEST_SUITE("agent/http limits", ambiguous_requests_are_refused, a_nul_is_refused_wherever_it_stands,
	an_unknown_expectation_is_417, a_head_too_long_is_431, a_head_may_be_as_long_as_the_limit,
	too_many_headers_are_431, an_announced_body_too_long_is_413_at_once,
	a_client_that_sends_on_still_reads_the_413, a_chunked_body_too_long_is_413_on_the_way,
	chunk_extensions_and_trailers_are_bounded, a_slow_head_is_408,
	a_trickled_head_gets_no_more_time, a_stuck_body_is_408_and_its_owner_hears,
	an_idle_connection_is_closed_silently, a_pending_answer_has_no_timeout_here,
	a_client_that_does_not_read_is_cut_off)
