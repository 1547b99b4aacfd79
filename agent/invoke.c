/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/invoke.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define SPARES_MAX 128u
#define SPARE_TEXT_BYTES 4096u /* of header text that a spare keeps */

struct nest_invoke *nest_invoke_new(struct nest_gateway *gateway,
	struct nest_http_exchange *exchange, const struct nest_http_request *request,
	enum nest_invoke_kind kind, const char *id, const struct nest_function_spec *spec)
{
	struct nest_invoke *invoke = gateway->spares;

	if (invoke) {
		LL_DELETE(gateway->spares, invoke);
		gateway->nspares--;
	} else {
		invoke = calloc(1, sizeof(*invoke));
		if (!invoke)
			return NULL;
	}
	invoke->gateway = gateway;
	invoke->exchange = exchange;
	invoke->request = request;
	invoke->kind = kind;
	invoke->declared = -1;
	memcpy(invoke->id, id, strlen(id) + 1);
	strncpy(invoke->function, spec->name, sizeof(invoke->function) - 1);
	strncpy(invoke->version, spec->version, sizeof(invoke->version) - 1);
	if (nest_log_enabled(gateway->access_log ? NEST_LOG_INFO : NEST_LOG_DEBUG))
		invoke->started_us = nest_clock_mono_us();
	DL_APPEND(gateway->active, invoke);
	nest_http_set_owner(exchange, invoke);
	return invoke;
}

static void forget_head(struct nest_invoke *invoke)
{
	if (!invoke->head_waits)
		return;
	invoke->head_waits = false;
	DL_DELETE2(invoke->gateway->heads, invoke, head_prev, head_next);
}

/* Nothing in a spare may tell of the request before: all is cleared but its storage. */
static void reset(struct nest_invoke *invoke)
{
	struct nest_buf head = invoke->head;
	struct nest_http_header *headers = invoke->headers;
	size_t headers_cap = invoke->headers_cap;

	nest_buf_clear(&head, SPARE_TEXT_BYTES);
	*invoke = (struct nest_invoke){
		.head = head, .headers = headers, .headers_cap = headers_cap
	};
}

void nest_invoke_free(struct nest_invoke *invoke)
{
	struct nest_gateway *gateway = invoke->gateway;

	forget_head(invoke);
	if (invoke->call) {
		gateway->stats.in_flight--;
		nest_call_cancel(nest_take_ptr(invoke->call));
	}
	DL_DELETE(gateway->active, invoke);
	nest_buf_done(&invoke->held);
	if (gateway->nspares < SPARES_MAX) {
		reset(invoke);
		LL_PREPEND(gateway->spares, invoke);
		gateway->nspares++;
		return;
	}
	nest_buf_done(&invoke->head);
	free(invoke->headers);
	free(invoke);
}

/*
 * The answer is given or cut, but the call still runs: it is cancelled when the turn ends, as this may be inside
 * one of its events.
 */
static void doom(struct nest_invoke *invoke)
{
	forget_head(invoke);
	invoke->doomed = true;
	invoke->exchange = NULL;
	invoke->request = NULL;
	invoke->head_waits = true;
	DL_APPEND2(invoke->gateway->heads, invoke, head_prev, head_next);
}

/* The function's answer can't be passed on. */
static void invalid(struct nest_invoke *invoke, const char *message)
{
	const struct nest_failure why = { .kind = NEST_FAILURE_INVALID, .message = message };

	nest_log(NEST_LOG_WARN, "gateway", "function '%s' version '%s', request %s: %s",
		invoke->function, invoke->version, invoke->id, message);
	if (invoke->exchange && invoke->progress == NEST_INVOKE_STREAM) {
		struct nest_invoke_origin origin = nest_invoke_origin(invoke);

		invoke->gateway->stats.aborted_total++;
		nest_invoke_answered(&origin, invoke->status, invoke->bytes);
		nest_http_abort(nest_take_ptr(invoke->exchange));
	} else if (invoke->exchange) {
		nest_invoke_answer_failure(invoke, &why, NULL);
	}
	doom(invoke);
}

static void send_piece(struct nest_invoke *invoke, const char *bytes, size_t n)
{
	int r = nest_http_send(invoke->exchange, bytes, n);

	invoke->bytes += n;
	if (r == -EMSGSIZE)
		invalid(invoke, "the response is longer than its content-length");
	else if (r == 1)
		invoke->unconsumed += n;
	else
		nest_call_consumed(invoke->call, n);
}

/* The head goes out: the answer did not come whole in one turn. */
static void begin_stream(struct nest_invoke *invoke)
{
	forget_head(invoke);
	invoke->progress = NEST_INVOKE_STREAM;
	if (nest_http_respond_head(invoke->exchange, invoke->status, invoke->headers,
		    invoke->nheaders, invoke->declared) < 0) {
		nest_http_abort(invoke->exchange);
		doom(invoke);
	}
}

/* Whether the body of this answer is not for the wire, so that its length may differ from the announced. */
static bool bodyless(const struct nest_invoke *invoke)
{
	return invoke->status == 204 || invoke->status == 304 ||
	       (invoke->request && strcmp(invoke->request->method, "HEAD") == 0);
}

static void answer_whole(struct nest_invoke *invoke, const char *bytes, size_t n,
	const struct nest_call_stats *stats)
{
	forget_head(invoke);
	if (bodyless(invoke))
		n = 0;
	else if (invoke->declared >= 0 && (uint64_t)invoke->declared != n) {
		invalid(invoke, "the response's length is not that of its content-length");
		return;
	}
	invoke->bytes += n;
	nest_invoke_answer_whole(invoke, bytes, n, stats);
}

static void hold(struct nest_invoke *invoke, const char *bytes, size_t n)
{
	if (invoke->held.len + n > NEST_INVOKE_HELD_BYTES ||
		nest_buf_append(&invoke->held, bytes, n) < 0)
		invalid(invoke, "the result is longer than 6 MiB, which X-Amz-Log-Type: Tail can't "
				"hold back; call without it to have it streamed");
	else
		nest_call_consumed(invoke->call, n);
}

static void on_response(
	void *arg, unsigned status, const struct nest_call_header *headers, size_t nheaders)
{
	struct nest_invoke *invoke = arg;
	bool event = invoke->kind == NEST_INVOKE_EVENT;
	int r;

	if (!invoke->exchange)
		return;
	if (event ? status != 0 : status < 200 || status > 599) {
		invalid(invoke, event ? "the event's result came with an HTTP status"
				      : "the response's status is not one from 200 to 599");
		return;
	}
	r = nest_invoke_make_head(invoke, event ? 200 : status, headers, nheaders);
	if (r < 0) {
		invalid(invoke, r == -ENOMEM ? "there is no memory for the response's headers"
					     : "the response has a header that can't be sent");
		return;
	}
	invoke->progress = NEST_INVOKE_HEAD;
	if (invoke->tail)
		return; /* its log comes in a header: it waits for the end */
	invoke->head_waits = true;
	DL_APPEND2(invoke->gateway->heads, invoke, head_prev, head_next);
}

static void on_body(void *arg, const char *bytes, size_t n, bool last)
{
	struct nest_invoke *invoke = arg;

	if (!invoke->exchange || invoke->progress == NEST_INVOKE_NOTHING) {
		nest_call_consumed(invoke->call, n);
		return;
	}
	if (invoke->tail) {
		hold(invoke, bytes, n);
		return;
	}
	if (invoke->progress == NEST_INVOKE_HEAD && last) {
		answer_whole(invoke, bytes, n, NULL);
		nest_call_consumed(invoke->call, n);
		return;
	}
	if (invoke->progress == NEST_INVOKE_HEAD)
		begin_stream(invoke);
	if (invoke->exchange && n > 0)
		send_piece(invoke, bytes, n);
}

/* The stream is complete, or shorter than it said. */
static void end_stream(struct nest_invoke *invoke)
{
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);

	if (invoke->declared >= 0 && !bodyless(invoke) &&
		invoke->bytes != (uint64_t)invoke->declared) {
		invalid(invoke, "the response is shorter than its content-length");
		return;
	}
	nest_invoke_answered(&origin, invoke->status, invoke->bytes);
	nest_http_send_end(nest_take_ptr(invoke->exchange));
}

static void call_ended(struct nest_invoke *invoke)
{
	invoke->call = NULL;
	invoke->gateway->stats.in_flight--;
}

static void on_end(void *arg, const struct nest_call_stats *stats)
{
	struct nest_invoke *invoke = arg;

	call_ended(invoke);
	if (invoke->exchange) {
		if (invoke->progress == NEST_INVOKE_STREAM)
			end_stream(invoke);
		else if (invoke->progress == NEST_INVOKE_HEAD)
			answer_whole(
				invoke, nest_buf_bytes(&invoke->held), invoke->held.len, stats);
		else
			invalid(invoke, "the response ended before it began");
	}
	nest_invoke_free(invoke);
}

static void on_fail(void *arg, const struct nest_failure *why, const struct nest_call_stats *stats)
{
	struct nest_invoke *invoke = arg;
	struct nest_gateway *gateway = invoke->gateway;

	call_ended(invoke);
	if (invoke->background && !invoke->exchange) {
		gateway->stats.background_failed_total++;
		nest_log(NEST_LOG_WARN, "gateway",
			"function '%s' version '%s', background request %s: %s: %s",
			invoke->function, invoke->version, invoke->id,
			nest_refusal_of_failure(why->kind)->type, why->message);
	} else if (invoke->exchange && invoke->progress == NEST_INVOKE_STREAM) {
		struct nest_invoke_origin origin = nest_invoke_origin(invoke);

		gateway->stats.aborted_total++;
		nest_log(NEST_LOG_DEBUG, "gateway",
			"function '%s' version '%s', request %s: cut after %llu bytes: %s",
			invoke->function, invoke->version, invoke->id,
			(unsigned long long)invoke->bytes, why->message);
		nest_invoke_answered(&origin, invoke->status, invoke->bytes);
		nest_http_abort(nest_take_ptr(invoke->exchange));
	} else if (invoke->exchange) {
		nest_invoke_answer_failure(invoke, why, stats);
	}
	nest_invoke_free(invoke);
}

static void on_writable(void *arg)
{
	struct nest_invoke *invoke = arg;

	if (invoke->exchange && !invoke->uploaded)
		nest_http_pause(invoke->exchange, false);
}

int nest_invoke_start(struct nest_invoke *invoke, struct nest_target *target,
	const struct nest_call_request *request)
{
	static const struct nest_call_events events = { .response = on_response,
		.body = on_body,
		.end = on_end,
		.fail = on_fail,
		.writable = on_writable };
	int r = nest_call_start(target, request, &events, invoke, &invoke->call);

	if (r < 0) {
		invoke->call = NULL;
		return r;
	}
	invoke->gateway->stats.in_flight++;
	invoke->uploaded = request->body_done;
	return 0;
}

void nest_invoke_accept(struct nest_invoke *invoke)
{
	const struct nest_call_header none = { .name = NULL };

	if (nest_invoke_make_head(invoke, 202, &none, 0) < 0) {
		nest_http_abort(nest_take_ptr(invoke->exchange));
		doom(invoke);
		return;
	}
	nest_invoke_answer_whole(invoke, "", 0, NULL);
}

void nest_invoke_turn(struct nest_gateway *gateway)
{
	while (gateway->heads) {
		struct nest_invoke *invoke = gateway->heads;

		if (invoke->doomed)
			nest_invoke_free(invoke);
		else
			begin_stream(invoke);
	}
}

void nest_invoke_on_body(void *owner, const char *bytes, size_t n, bool complete)
{
	struct nest_invoke *invoke = owner;
	int r = n > 0 ? nest_call_write(invoke->call, bytes, n) : 0;

	if (r < 0) {
		/* no status fits: its worker may have begun, so this is not safe to send elsewhere */
		nest_log(NEST_LOG_WARN, "gateway",
			"function '%s' version '%s', request %s: its body was cut for lack of "
			"memory",
			invoke->function, invoke->version, invoke->id);
		invoke->gateway->stats.aborted_total++;
		nest_http_abort(nest_take_ptr(invoke->exchange));
		doom(invoke);
		return;
	}
	if (complete) {
		invoke->uploaded = true;
		nest_call_finish(invoke->call);
		if (invoke->background)
			nest_invoke_accept(invoke);
	} else if (r == 1) {
		nest_http_pause(invoke->exchange, true);
	}
}

void nest_invoke_on_writable(void *owner)
{
	struct nest_invoke *invoke = owner;
	size_t n = invoke->unconsumed;

	invoke->unconsumed = 0;
	if (invoke->call && n > 0)
		nest_call_consumed(invoke->call, n);
}

void nest_invoke_on_gone(void *owner)
{
	struct nest_invoke *invoke = owner;
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);

	invoke->gateway->stats.cancelled_total++;
	nest_invoke_answered(&origin, 0, invoke->bytes);
	invoke->exchange = NULL;
	invoke->request = NULL;
	nest_invoke_free(invoke);
}
