/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "runtime/call_impl.h"
#include "runtime/dispatch.h"
#include "runtime/frame.h"
#include "runtime/function.h"
#include "runtime/latency.h"
#include "runtime/protection.h"
#include "runtime/services.h"
#include "runtime/target.h"
#include "runtime/worker.h"

#define WAITING_MAX NEST_FRAME_CREDIT /* body bytes buffered before the caller is told to pause */
#define TAIL_MAX 4096u
#define TAIL_KEEP (2 * TAIL_MAX) /* the tail is cut to TAIL_MAX when it has grown to this */

/*
 * An event for a handler of HTTP requests is a POST of it. Its length is told where it is known:
 * frameworks take a request without one for one without a body.
 */
struct bridge {
	struct nest_call_header headers[2];
	char length[24];
	struct nest_call_request request;
};

static const struct nest_call_request *bridge_event(
	struct bridge *bridge, const struct nest_call_request *event)
{
	static const char type[] = "application/json";
	size_t n = 0;

	bridge->headers[n++] = (struct nest_call_header){
		.name = "content-type",
		.value = type,
		.name_len = sizeof("content-type") - 1,
		.value_len = sizeof(type) - 1,
	};
	if (event->body_done) {
		int len = snprintf(bridge->length, sizeof(bridge->length), "%zu", event->body_len);

		bridge->headers[n++] = (struct nest_call_header){
			.name = "content-length",
			.value = bridge->length,
			.name_len = sizeof("content-length") - 1,
			.value_len = (uint32_t)len,
		};
	}
	bridge->request = *event;
	bridge->request.http = true;
	bridge->request.method = "POST";
	bridge->request.target = "/";
	bridge->request.headers = bridge->headers;
	bridge->request.nheaders = n;
	return &bridge->request;
}

/* One block: the call, its REQUEST payload (head and first body bytes), and its id. */
static struct nest_call *new_call(const struct nest_call_request *request, size_t head, size_t body)
{
	size_t id = strlen(request->id) + 1;
	struct nest_call *call = malloc(sizeof(*call) + head + body + id);

	if (!call)
		return NULL;
	memset(call, 0, sizeof(*call));
	nest_frame_put_request(call->payload, request);
	if (body > 0)
		memcpy(call->payload + head, request->body, body);
	memcpy(call->payload + head + body, request->id, id);
	call->id = call->payload + head + body;
	call->head_len = (uint32_t)head;
	call->payload_len = (uint32_t)(head + body);
	call->http = request->http;
	call->body_done = request->body_done;
	call->caller_deadline_ms = request->deadline_ms;
	return call;
}

/* How much of the body fits into the REQUEST frame: what credit and the frame's limit leave. */
static size_t first_body(const struct nest_call_request *request, size_t head)
{
	size_t most = NEST_FRAME_PAYLOAD_MAX - head;

	if (most > NEST_FRAME_CREDIT)
		most = NEST_FRAME_CREDIT;
	return request->body_len < most ? request->body_len : most;
}

static struct nest_call *make_call(const struct nest_call_request *request, size_t head)
{
	size_t first = first_body(request, head);
	struct nest_call *call = new_call(request, head, first);

	if (!call)
		return NULL;
	if (request->body_len > first && nest_buf_append(&call->pending, request->body + first,
						 request->body_len - first) < 0) {
		free(call);
		return NULL;
	}
	if (request->want_log_tail)
		call->tail = calloc(1, sizeof(*call->tail));
	return call;
}

static void on_refused(void *arg)
{
	struct nest_call *call = arg;

	nest_call_fail(call, call->refusal_kind, call->retry_after_s, "%s",
		call->refusal ? call->refusal : "the request was refused");
	nest_call_free(call);
}

void nest_call_refuse(struct nest_call *call, enum nest_failure_kind kind, unsigned retry_after_s,
	const char *fmt, ...)
{
	struct nest_services *services = nest_dispatch_services(call->dispatch);
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&call->refusal, fmt, ap) < 0)
		call->refusal = NULL;
	va_end(ap);
	call->refusal_kind = (uint8_t)kind;
	call->retry_after_s = retry_after_s;
	call->deadline.cb = on_refused;
	call->deadline.arg = call;
	nest_deadlines_set(services->deadlines, &call->deadline, 0);
}

static int open_call(struct nest_dispatch *dispatch, bool http,
	const struct nest_call_request *request, const struct nest_call_events *events, void *arg,
	struct nest_call **ret)
{
	struct nest_services *services = nest_dispatch_services(dispatch);
	struct bridge bridge;
	struct nest_call *call;
	size_t head;

	if (!request->http && http)
		request = bridge_event(&bridge, request);
	head = nest_frame_request_size(request);
	if (head == 0)
		return -EMSGSIZE;
	if (nest_deadlines_reserve(services->deadlines, 1) < 0)
		return -ENOMEM;
	call = make_call(request, head);
	if (!call) {
		nest_deadlines_release(services->deadlines, 1);
		return -ENOMEM;
	}
	call->dispatch = dispatch;
	call->events = events;
	call->arg = arg;
	call->start_us = nest_clock_mono_us();
	nest_services_call_opened(services, call->start_us);
	*ret = call;
	return 0;
}

int nest_call_start(struct nest_target *target, const struct nest_call_request *request,
	const struct nest_call_events *events, void *arg, struct nest_call **ret)
{
	struct nest_dispatch *dispatch = nest_target_dispatch(target);
	bool http = nest_target_spec(target)->interface != NEST_FUNCTION_EVENT;
	int r = open_call(dispatch, http, request, events, arg, ret);

	if (r < 0)
		return r;
	nest_load_enter(&nest_dispatch_tally(dispatch)->load, (*ret)->start_us);
	if (nest_dispatch_services(dispatch)->on_stir)
		nest_services_stir(nest_dispatch_services(dispatch));
	nest_dispatch_submit(dispatch, *ret);
	return 0;
}

int nest_call_make_warmup(struct nest_dispatch *dispatch, bool http,
	const struct nest_call_request *request, const struct nest_call_events *events, void *arg,
	struct nest_call **ret)
{
	int r = open_call(dispatch, http, request, events, arg, ret);

	if (r == 0)
		(*ret)->warmup = true;
	return r;
}

int nest_call_write(struct nest_call *call, const void *bytes, size_t n)
{
	if (nest_buf_append(&call->pending, bytes, n) < 0)
		return -ENOMEM;
	if (call->worker) {
		nest_worker_push(call->worker, call);
		call->paused = call->pending.len > 0;
	} else {
		call->paused =
			call->pending.len + call->payload_len - call->head_len >= WAITING_MAX;
	}
	return call->paused ? 1 : 0;
}

void nest_call_finish(struct nest_call *call)
{
	call->body_done = true;
	if (call->worker)
		nest_worker_push(call->worker, call);
}

void nest_call_consumed(struct nest_call *call, size_t n)
{
	if (call->worker && !call->detached)
		nest_worker_consumed(call->worker, call, n);
}

static void count(struct nest_call *call, enum nest_failure_kind kind, uint64_t now_us)
{
	struct nest_tally *tally = nest_dispatch_tally(call->dispatch);

	if (call->warmup)
		return;
	tally->requests_total[kind]++;
	nest_load_leave(&tally->load, now_us);
	nest_latency_observe(&tally->duration, now_us - call->start_us);
	nest_dispatch_note(call->dispatch, call, kind, now_us);
}

void nest_call_cancel(struct nest_call *call)
{
	struct nest_services *services = nest_dispatch_services(call->dispatch);
	uint64_t now_us = nest_clock_mono_us();

	count(call, NEST_FAILURE_CANCELLED, now_us);
	nest_deadlines_clear(services->deadlines, &call->deadline);
	if (call->worker) {
		nest_worker_abandon(call->worker, call);
		call->detached = true;
	} else {
		if (call->queued)
			nest_dispatch_withdraw(call->dispatch, call);
		call->detached = true;
		nest_call_free(call);
	}
	nest_services_call_closed(services, now_us);
}

static void fill_stats(const struct nest_call *call, uint64_t now_us, struct nest_call_stats *ret)
{
	uint64_t given_us = call->given_us ? call->given_us : now_us;

	*ret = (struct nest_call_stats){
		.cold = call->cold,
		.queue_us = given_us - call->start_us,
		.run_us = now_us - given_us,
	};
	if (call->tail && call->tail->len > 0) {
		size_t n = call->tail->len < TAIL_MAX ? call->tail->len : TAIL_MAX;

		ret->log_tail = nest_buf_bytes(call->tail) + call->tail->len - n;
		ret->log_tail_len = n;
	}
}

/* The fallback result in place of the function's: whole, and in one turn. */
static void fall_back(
	struct nest_call *call, enum nest_failure_kind kind, const struct nest_call_stats *stats)
{
	const struct nest_protection *terms = nest_dispatch_protection(call->dispatch);
	struct nest_call_header headers[NEST_PROTECTION_HEADERS_MAX + 1];
	size_t n = nest_protection_headers(terms, kind, headers);

	call->events->response(call->arg, call->http ? terms->fallback_status : 0, headers, n);
	call->events->body(call->arg, terms->fallback_body, strlen(terms->fallback_body), true);
	call->events->end(call->arg, stats);
}

/* Nothing of the function's own response has gone out. */
static bool falls_back(struct nest_call *call, const struct nest_failure *why)
{
	return why && !call->responding && !call->warmup &&
	       nest_dispatch_falls_back(call->dispatch, call, why->kind);
}

void nest_call_conclude(struct nest_call *call, const struct nest_failure *why)
{
	struct nest_services *services = nest_dispatch_services(call->dispatch);
	uint64_t now_us = nest_clock_mono_us();
	struct nest_call_stats stats;

	count(call, why ? why->kind : NEST_FAILURE_NONE, now_us);
	nest_deadlines_clear(services->deadlines, &call->deadline);
	fill_stats(call, now_us, &stats);
	call->detached = true;
	if (falls_back(call, why))
		fall_back(call, why->kind, &stats);
	else if (why)
		call->events->fail(call->arg, why, &stats);
	else
		call->events->end(call->arg, &stats);
	nest_services_call_closed(services, now_us);
}

void nest_call_fail(struct nest_call *call, enum nest_failure_kind kind, unsigned retry_after_s,
	const char *fmt, ...)
{
	struct nest_failure why = { .kind = kind, .retry_after_s = retry_after_s };
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	why.message = message;
	nest_call_conclude(call, &why);
}

void nest_call_free(struct nest_call *call)
{
	struct nest_services *services = nest_dispatch_services(call->dispatch);

	nest_deadlines_clear(services->deadlines, &call->deadline);
	nest_deadlines_release(services->deadlines, 1);
	nest_buf_done(&call->pending);
	if (call->tail)
		nest_buf_done(call->tail);
	free(call->tail);
	free(call->refusal);
	free(call);
}

void nest_call_log(struct nest_call *call, const char *text, size_t n)
{
	if (!call->tail || call->detached)
		return;
	if (n > TAIL_MAX) {
		text += n - TAIL_MAX;
		n = TAIL_MAX;
	}
	if (call->tail->len + n > TAIL_KEEP)
		nest_buf_consume(call->tail, call->tail->len + n - TAIL_MAX);
	nest_buf_append(call->tail, text, n);
}

void nest_call_tell_writable(struct nest_call *call)
{
	if (!call->paused || call->detached)
		return;
	call->paused = false;
	call->events->writable(call->arg);
}
