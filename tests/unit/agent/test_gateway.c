/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/request_id.h"
#include "tests/unit/agent/gateway_bench.h"
#include "tests/unit/suite.h"

START_TEST(an_event_is_invoked_and_answered_in_one_piece)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench,
		POST_HELLO "Content-Length: 7\r\nTraceparent: 00-aa-bb-01\r\n\r\n{\"a\":1}");
	ck_assert(!fake.call->http);
	ck_assert(fake.call->body_done);
	ck_assert(!fake.call->want_log_tail);
	ck_assert_uint_eq(fake.call->deadline_ms, 0);
	ck_assert_str_eq(fake.call->trace, "00-aa-bb-01");
	ck_assert_uint_eq(fake.call->body.len, 7);
	fake_answer(0, "", "{\"b\":2}");
	ck_assert_uint_eq(bench_answered(&bench, &body), 200);
	ck_assert_str_eq(body, "{\"b\":2}");
	bench_expect_header(&bench, "content-length: 7");
	bench_expect_header(&bench, "content-type: application/json");
	bench_expect_header(&bench, "x-amz-executed-version: 7");
	bench_expect_no_header(&bench, "transfer-encoding");
	bench_expect_no_header(&bench, "x-amz-function-error");
	bench_done(&bench);
}
END_TEST

START_TEST(names_may_be_qualified_encoded_or_arns)
{
	static const struct {
		const char *segment;
		const char *version;
	} good[] = {
		{ "hello", "7" },
		{ "hello:3.1", "3.1" },
		{ "hello%3A3.1", "3.1" },
		{ "hello:$LATEST", "7" },
		{ "hello:%24LATEST", "7" },
		{ "h%65llo", "7" },
		{ "arn:aws:lambda:eu-west-1:123456789012:function:hello", "7" },
		{ "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Ahello%3A3.1", "3.1" },
		{ "123456789012:function:hello:3.1", "3.1" },
		{ "function:hello", "7" },
		{ "hello/invocations?Qualifier=3.1&x=", "3.1" },
		{ "hello:3.1/invocations?a=b&Qualifier=3%2e1&x=", "3.1" },
	};
	struct bench bench;
	char request[512], line[64];

	bench_start(&bench);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(request, sizeof(request),
			"POST " INVOKE "%s%s HTTP/1.1\r\nHost: h\r\n\r\n", good[i].segment,
			strchr(good[i].segment, '/') ? "" : "/invocations");
		bench_call(&bench, request);
		fake_answer(0, "", "null");
		ck_assert_uint_eq(bench_answered(&bench, NULL), 200);
		snprintf(line, sizeof(line), "x-amz-executed-version: %s", good[i].version);
		bench_expect_header(&bench, line);
	}
	bench_done(&bench);
}
END_TEST

START_TEST(what_is_not_a_call_is_refused)
{
	static const struct {
		unsigned status;
		const char *type;
		const char *request;
	} bad[] = {
		{ 404, "Function.NotFound",
			"POST " INVOKE "nobody/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 404, "Function.NotFound",
			"POST " INVOKE "hello:9/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 404, "Function.NotFound", "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 404, "Function.NotFound", "GET " INVOKE " HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 404, "Function.NotFound", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"GET " INVOKE "hello/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "a%00b/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "a%2/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "a%zz/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "a.b/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "..%2f..%2f/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE "hello:/invocations HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid",
			"POST " INVOKE
			"hello:7/invocations?Qualifier=3.1 HTTP/1.1\r\nHost: h\r\n\r\n" },
		{ 400, "Request.Invalid", POST_HELLO "X-Amz-Invocation-Type: Sometimes\r\n\r\n" },
		{ 400, "Request.Invalid", POST_HELLO "X-Amz-Log-Type: Head\r\n\r\n" },
		{ 400, "Request.Invalid", POST_HELLO "X-Amz-Client-Context: {}\r\n\r\n" },
		{ 400, "Request.Invalid", POST_HELLO "X-Nestlet-Deadline-Ms: soon\r\n\r\n" },
		{ 400, "Request.Invalid", POST_HELLO "X-Nestlet-Deadline-Ms: -1\r\n\r\n" },
		{ 400, "Request.Invalid",
			POST_HELLO "X-Nestlet-Deadline-Ms: 99999999999999999999\r\n\r\n" },
	};
	struct nest_gateway_stats stats;
	struct bench bench;
	const char *body;

	bench_start(&bench);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(bench_ask(&bench, bad[i].request, &body) == bad[i].status, "%s: %s",
			bad[i].request, bench.peer.in);
		bench_expect_member(body, "errorType", bad[i].type);
		bench_expect_member(body, "component", "gateway");
		bench_expect_header(&bench, "content-type: application/json");
	}
	ck_assert_uint_eq(fake.started, 0);
	nest_gateway_stats(bench.gateway, &stats);
	ck_assert_uint_eq(stats.responses_total[4], sizeof(bad) / sizeof(bad[0]));
	ck_assert_uint_eq(stats.refused_total[NEST_REFUSAL_NOT_FOUND], 5);
	ck_assert_uint_eq(stats.connections_total, 1);
	/* names and ids are the caller's; nothing of them can break the JSON */
	ck_assert_uint_eq(bench_ask(&bench,
				  "POST " INVOKE "nobody:1/invocations HTTP/1.1\r\nHost: h\r\n"
				  "X-Request-Id: a\"b\\c\r\n\r\n",
				  &body),
		404);
	bench_expect_member(body, "function", "nobody");
	bench_expect_member(body, "version", "1");
	bench_expect_member(body, "requestId", "a\"b\\c");
	bench_done(&bench);
}
END_TEST

START_TEST(what_is_not_http_gets_the_same_error_body)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	ck_assert_uint_eq(bench_ask(&bench, "hello\r\n\r\n", &body), 400);
	bench_expect_member(body, "errorType", "Request.Invalid");
	bench_expect_member(body, "function", NULL);
	bench_expect_header(&bench, "connection: close");
	peer_close(&bench.peer);
	peer_connect(&bench.peer, &bench.loop, bench.path, 0);
	ck_assert_uint_eq(
		bench_ask(&bench,
			POST_HELLO "Content-Length: 1048577\r\nX-Request-Id: mine\r\n\r\n", &body),
		413);
	bench_expect_member(body, "errorType", "Request.TooLarge");
	bench_expect_member(body, "requestId", "mine");
	bench_expect_header(&bench, "x-request-id: mine");
	bench_expect_header(&bench, "x-amzn-requestid: mine");
	bench_done(&bench);
}
END_TEST

static void expect_id(struct bench *bench, const char *headers, const char *want)
{
	char request[512], line[300];
	bool minted = !want;

	snprintf(request, sizeof(request), POST_HELLO "%s\r\n", headers);
	bench_call(bench, request);
	if (minted) {
		ck_assert_uint_eq(strlen(fake.call->id), 36);
		ck_assert_int_eq(fake.call->id[14], '4');
		ck_assert_ptr_nonnull(strchr("89ab", fake.call->id[19]));
	} else {
		ck_assert_str_eq(fake.call->id, want);
	}
	snprintf(line, sizeof(line), "x-request-id: %s", fake.call->id);
	fake_answer(0, "x-request-id: forged\n", "1");
	bench_answered(bench, NULL);
	bench_expect_header(bench, line);
	ck_assert_ptr_null(strstr(bench->peer.in, "forged"));
}

START_TEST(a_request_id_is_taken_or_made)
{
	struct nest_request_id_source source = { .left = 0 };
	char longest[132], headers[200], a[37], b[37];
	struct bench bench;

	bench_start(&bench);
	expect_id(&bench, "", NULL);
	expect_id(&bench, "X-Request-Id: abc-123\r\n", "abc-123");
	expect_id(&bench, "X-Amzn-RequestId: amzn\r\n", "amzn");
	expect_id(&bench, "X-Request-Id:\r\nX-Amzn-RequestId: second\r\n", "second");
	expect_id(&bench, "X-Request-Id: with blank\r\n", NULL);
	expect_id(&bench, "X-Request-Id: caf\xc3\xa9\r\n", NULL);
	memset(longest, 'x', 129);
	longest[128] = '\0';
	snprintf(headers, sizeof(headers), "X-Request-Id: %s\r\n", longest);
	expect_id(&bench, headers, longest);
	snprintf(headers, sizeof(headers), "X-Request-Id: %sy\r\n", longest);
	expect_id(&bench, headers, NULL);
	for (int i = 0; i < 1000; i++) {
		nest_request_id_make(&source, a);
		nest_request_id_make(&source, b);
		ck_assert_str_ne(a, b);
	}
	bench_done(&bench);
}
END_TEST

START_TEST(a_dry_run_checks_and_calls_nobody)
{
	struct bench bench;

	bench_start(&bench);
	ck_assert_uint_eq(
		bench_ask(&bench, POST_HELLO "X-Amz-Invocation-Type: DryRun\r\n\r\n", NULL), 204);
	bench_expect_header(&bench, "x-amz-executed-version: 7");
	ck_assert_uint_eq(fake.started, 0);
	bench_done(&bench);
}
END_TEST

START_TEST(a_background_call_is_accepted_and_goes_on)
{
	struct nest_gateway_stats stats;
	struct bench bench;

	bench_start(&bench);
	bench_call(
		&bench, POST_HELLO "X-Amz-Invocation-Type: Event\r\nContent-Length: 2\r\n\r\n{}");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 202);
	/* the caller may go, and others be served */
	nest_gateway_stats(bench.gateway, &stats);
	ck_assert_uint_eq(stats.in_flight, 1);
	fake_response(0, "");
	fake_body("ignored", 7, false);
	ck_assert_uint_eq(fake.call->consumed, 7);
	fake_fail(NEST_FAILURE_CRASHED, "gone", NULL);
	nest_gateway_stats(bench.gateway, &stats);
	ck_assert_uint_eq(stats.in_flight, 0);
	ck_assert_uint_eq(stats.background_failed_total, 1);
	ck_assert_uint_eq(fake.cancelled, 0);
	/* the answer waits for the whole event, and tells what failed before it was complete */
	bench_call(
		&bench, POST_HELLO "X-Amz-Invocation-Type: Event\r\nContent-Length: 4\r\n\r\n{}");
	peer_turn(&bench.peer);
	ck_assert_uint_eq(bench.peer.n, 0);
	peer_puts(&bench.peer, "  ");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 202);
	ck_assert(fake.call->body_done);
	fake_answer(0, "", "1");
	bench_call(
		&bench, POST_HELLO "X-Amz-Invocation-Type: Event\r\nContent-Length: 4\r\n\r\n{}");
	fake_fail(NEST_FAILURE_THROTTLED, "full", NULL);
	ck_assert_uint_eq(bench_answered(&bench, NULL), 429);
	bench_done(&bench);
}
END_TEST

START_TEST(the_log_tail_comes_as_a_header)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "X-Amz-Log-Type: Tail\r\nX-Amz-Client-Context: e30=\r\n\r\n");
	ck_assert(fake.call->want_log_tail);
	ck_assert_str_eq(fake.call->client_context, "e30=");
	fake_response(0, "");
	fake_body("[1,", 3, false);
	ck_assert_uint_eq(fake.call->consumed, 3);
	peer_turn(&bench.peer);
	ck_assert_uint_eq(bench.peer.n, 0);
	fake_body("2]", 2, true);
	fake_end("hello log");
	ck_assert_uint_eq(bench_answered(&bench, &body), 200);
	ck_assert_str_eq(body, "[1,2]");
	bench_expect_header(&bench, "x-amz-log-result: aGVsbG8gbG9n");
	bench_done(&bench);
}
END_TEST

START_TEST(a_result_too_long_to_hold_is_an_error)
{
	static char piece[1 << 20];
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "X-Amz-Log-Type: Tail\r\n\r\n");
	fake_response(0, "");
	for (int i = 0; i < 7; i++)
		fake_body(piece, sizeof(piece), false);
	ck_assert_uint_eq(bench_answered(&bench, &body), 502);
	bench_expect_member(body, "errorType", "Function.InvalidResponse");
	ck_assert_uint_eq(fake.cancelled, 1);
	bench_done(&bench);
}
END_TEST

START_TEST(a_handlers_error_is_200_to_invoke_and_502_to_a_route)
{
	static const char error[] = "{\"errorType\":\"TypeError\",\"errorMessage\":\"x\"}";
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench, POST_HELLO "\r\n");
	fake_fail(NEST_FAILURE_ERROR, "the handler threw TypeError", error);
	ck_assert_uint_eq(bench_answered(&bench, &body), 200);
	ck_assert_str_eq(body, error);
	bench_expect_header(&bench, "x-amz-function-error: Unhandled");
	bench_expect_header(&bench, "x-amz-executed-version: 7");
	bench_call(&bench, "GET /web/x HTTP/1.1\r\nHost: h\r\n\r\n");
	fake_fail(NEST_FAILURE_ERROR, "the handler threw TypeError", error);
	ck_assert_uint_eq(bench_answered(&bench, &body), 502);
	bench_expect_member(body, "errorType", "Function.Error");
	bench_expect_member(body, "errorMessage", "the handler threw TypeError");
	bench_expect_no_header(&bench, "x-amz-function-error");
	bench_done(&bench);
}
END_TEST

START_TEST(every_failure_has_its_row)
{
	static const struct {
		enum nest_failure_kind kind;
		unsigned status;
		const char *component;
		const char *retry;
	} rows[] = {
		{ NEST_FAILURE_THROTTLED, 429, "host", "retry-after: 7" },
		{ NEST_FAILURE_UNAVAILABLE, 503, "host", "retry-after: 1" },
		{ NEST_FAILURE_DRAINING, 503, "host", "retry-after: 1" },
		{ NEST_FAILURE_INIT, 502, "function", NULL },
		{ NEST_FAILURE_CRASHED, 502, "function", NULL },
		{ NEST_FAILURE_OOM, 502, "function", NULL },
		{ NEST_FAILURE_TIMEOUT, 504, "function", NULL },
		{ NEST_FAILURE_INVALID, 502, "function", NULL },
	};
	struct bench bench;
	const char *body;

	bench_start(&bench);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bench_call(&bench, POST_HELLO "X-Request-Id: id-1\r\n\r\n");
		fake_fail(rows[i].kind, "what happened", "{\"errorType\":\"secret\"}");
		ck_assert_uint_eq(bench_answered(&bench, &body), rows[i].status);
		/* the runtime's name for it and the table's are one */
		bench_expect_member(body, "errorType", nest_failure_type(rows[i].kind));
		bench_expect_member(body, "errorMessage", "what happened");
		bench_expect_member(body, "component", rows[i].component);
		bench_expect_member(body, "function", "hello");
		bench_expect_member(body, "version", "7");
		bench_expect_member(body, "requestId", "id-1");
		bench_expect_header(&bench, "x-request-id: id-1");
		bench_expect_header(&bench, "x-amzn-requestid: id-1");
		if (rows[i].retry)
			bench_expect_header(&bench, rows[i].retry);
		else
			bench_expect_no_header(&bench, "retry-after");
		ck_assert_ptr_null(strstr(body, "secret"));
	}
	fake.no_memory = true;
	ck_assert_uint_eq(bench_ask(&bench, POST_HELLO "\r\n", &body), 503);
	bench_expect_member(body, "errorType", "Function.Unavailable");
	fake.no_memory = false;
	bench_done(&bench);
}
END_TEST

START_TEST(a_route_passes_the_request_on)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench,
		"PUT /web/a%20b?c=d HTTP/1.1\r\nHost: h:80\r\nX-Request-Id: id-2\r\n"
		"Connection: keep-alive, X-Secret, Host, Content-Length\r\nX-Secret: s\r\nTE: "
		"trailers\r\n"
		"Proxy-Authorization: p\r\nKeep-Alive: 5\r\nX-Forwarded-For: 10.0.0.1\r\n"
		"X-Nestlet-Deadline-Ms: 1999999999999\r\nCookie: a=b\r\nContent-Length: "
		"2\r\n\r\nhi");
	ck_assert(fake.call->http);
	ck_assert_str_eq(fake.call->method, "PUT");
	ck_assert_str_eq(fake.call->target_text, "/web/a%20b?c=d");
	ck_assert_uint_eq(fake.call->deadline_ms, 1999999999999u);
	ck_assert_str_eq(fake.call->headers,
		"x-request-id: id-2\nhost: h:80\nx-forwarded-for: 10.0.0.1\ncookie: a=b\n"
		"content-length: 2\n");
	fake_answer(201,
		"X-Custom: y\nconnection: x-hop\nx-hop: 1\nkeep-alive: 5\nset-cookie: a=1\n"
		"set-cookie: b=2\ncontent-length: 4\nupgrade: h2c\n",
		"body");
	ck_assert_uint_eq(bench_answered(&bench, &body), 201);
	ck_assert_str_eq(body, "body");
	bench_expect_header(&bench, "x-custom: y");
	bench_expect_header(&bench, "set-cookie: a=1");
	bench_expect_header(&bench, "set-cookie: b=2");
	bench_expect_header(&bench, "x-request-id: id-2");
	bench_expect_no_header(&bench, "x-hop");
	bench_expect_no_header(&bench, "keep-alive");
	bench_expect_no_header(&bench, "upgrade");
	bench_expect_no_header(&bench, "connection");
	bench_expect_no_header(&bench, "x-amzn-requestid");
	ck_assert_uint_eq(peer_count(&bench.peer, "content-length"), 1);
	/* a virtual host, with its port */
	bench_call(&bench, "GET /any HTTP/1.1\r\nHost: web.example.org:8443\r\n\r\n");
	fake_answer(200, "", "");
	ck_assert_uint_eq(bench_answered(&bench, NULL), 200);
	bench_done(&bench);
}
END_TEST

START_TEST(an_http_function_is_invoked_by_a_post)
{
	struct bench bench;
	const char *body;

	bench_start(&bench);
	bench_call(&bench,
		"POST " INVOKE
		"web/invocations HTTP/1.1\r\nHost: h\r\nX-Request-Id: i\r\nCookie: no\r\n"
		"Content-Length: 2\r\n\r\n{}");
	ck_assert(fake.call->http);
	ck_assert_str_eq(fake.call->method, "POST");
	ck_assert_str_eq(fake.call->target_text, "/");
	ck_assert_str_eq(fake.call->headers,
		"x-request-id: i\nhost: h\ncontent-length: 2\ncontent-type: application/json\n");
	fake_answer(418, "content-type: text/plain\nx-amz-function-error: forged\n", "tea");
	ck_assert_uint_eq(bench_answered(&bench, &body), 418);
	ck_assert_str_eq(body, "tea");
	bench_expect_header(&bench, "content-type: text/plain");
	bench_expect_header(&bench, "x-amz-executed-version: 1");
	ck_assert_ptr_null(strstr(bench.peer.in, "forged"));
	bench_done(&bench);
}
END_TEST

NEST_SUITE("agent/gateway", an_event_is_invoked_and_answered_in_one_piece,
	names_may_be_qualified_encoded_or_arns, what_is_not_a_call_is_refused,
	what_is_not_http_gets_the_same_error_body, a_request_id_is_taken_or_made,
	a_dry_run_checks_and_calls_nobody, a_background_call_is_accepted_and_goes_on,
	the_log_tail_comes_as_a_header, a_result_too_long_to_hold_is_an_error,
	a_handlers_error_is_200_to_invoke_and_502_to_a_route, every_failure_has_its_row,
	a_route_passes_the_request_on, an_http_function_is_invoked_by_a_post)
