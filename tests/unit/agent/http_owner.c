/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/agent/http_owner.h"

#include <stdio.h>
#include <string.h>

#include <check.h>

#include "base/err.h"

const struct nest_http_limits owner_limits = { .connections = 100,
	.header_bytes = 32768,
	.header_count = 100,
	.body_bytes = 8u << 20,
	.header_timeout_ms = 10000,
	.body_idle_ms = 10000,
	.keepalive_ms = 10000,
	.write_idle_ms = 10000 };

static const struct nest_http_header text_type = {
	.name = "content-type", .value = "text/plain", .name_len = 12, .value_len = 10
};

void owner_answer(struct owner *owner)
{
	struct nest_buf text = NEST_BUF_INIT;
	struct nest_http_exchange *exchange = owner->exchange;

	ck_assert_ptr_nonnull(exchange);
	ck_assert_int_eq(nest_buf_printf(&text, "%s %zu:", owner->head, owner->body.len), 0);
	ck_assert_int_eq(nest_buf_append(&text, nest_buf_bytes(&owner->body), owner->body.len), 0);
	owner->exchange = NULL;
	ck_assert_int_eq(
		nest_http_respond(exchange, 200, &text_type, 1, nest_buf_bytes(&text), text.len),
		0);
	nest_buf_done(&text);
}

static void take(struct owner *owner, const char *bytes, size_t n, bool complete)
{
	ck_assert(!owner->complete);
	ck_assert_int_eq(nest_buf_append(&owner->body, bytes, n), 0);
	owner->complete = complete;
	if (complete && !owner->hold)
		owner_answer(owner);
}

static void on_request(void *arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, const char *body, size_t n, bool complete)
{
	struct owner *owner = arg;
	const char *host = nest_http_header_get(request, "host");

	ck_assert_ptr_null(owner->exchange);
	owner->requests++;
	owner->exchange = exchange;
	owner->complete = false;
	owner->body.start = 0;
	owner->body.len = 0;
	snprintf(owner->head, sizeof(owner->head), "%s %s %s %s %s", request->method,
		request->target, request->path, request->query, host ? host : "-");
	for (size_t i = 0; i < request->nheaders; i++) {
		ck_assert_uint_eq(strlen(request->headers[i].name), request->headers[i].name_len);
		ck_assert_uint_eq(strlen(request->headers[i].value), request->headers[i].value_len);
	}
	nest_http_set_owner(exchange, owner);
	if (owner->pause_at_once)
		nest_http_pause(exchange, true);
	take(owner, body, n, complete);
}

static void on_body(void *arg, const char *bytes, size_t n, bool complete)
{
	take(arg, bytes, n, complete);
}

static void on_writable(void *arg)
{
	((struct owner *)arg)->writable = true;
}

static void on_gone(void *arg)
{
	struct owner *owner = arg;

	ck_assert_ptr_nonnull(owner->exchange);
	owner->exchange = NULL;
	owner->gone = true;
}

static void on_refused(void *arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, unsigned status, const char *why)
{
	struct owner *owner = arg;

	owner->refusals++;
	owner->refused_status = status;
	owner->refused_knew_request = request != NULL;
	ck_assert_int_eq(nest_http_respond(exchange, status, &text_type, 1, why, strlen(why)), 0);
}

void owner_start(struct owner *owner, const struct nest_http_limits *limits)
{
	static const struct nest_http_events events = { .request = on_request,
		.body = on_body,
		.writable = on_writable,
		.gone = on_gone,
		.refused = on_refused };
	struct nest_err err = NEST_ERR_INIT;

	memset(owner, 0, sizeof(*owner));
	ck_assert_int_eq(uv_loop_init(&owner->loop), 0);
	ck_assert_int_eq(
		nest_http_server_open(&owner->loop, limits, &events, owner, &owner->server, &err),
		0);
}

static void on_closed(void *arg)
{
	((struct owner *)arg)->closed = true;
}

void owner_done(struct owner *owner)
{
	nest_http_server_close(owner->server, on_closed, owner);
	peer_finish_loop(&owner->loop);
	ck_assert(owner->closed);
	ck_assert_ptr_null(owner->exchange);
	nest_buf_done(&owner->body);
}
