/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/streams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/err.h"
#include "base/json.h"
#include "runtime/call_impl.h"
#include "runtime/channel.h"

/* Credit goes back when a quarter of it was consumed: one CREDIT frame for that many bytes. */
#define CREDIT_STEP (NEST_FRAME_CREDIT / 4)

int nest_streams_init(struct nest_streams *streams, uint32_t concurrency)
{
	uint32_t size = 4;

	/* Twice the slots, so that the next number nearly always finds its place free. */
	while (size < 2 * concurrency)
		size *= 2;
	*streams = (struct nest_streams){ .mask = size - 1, .next = 1, .most = concurrency };
	streams->table = calloc(size, sizeof(struct nest_call *));
	return streams->table ? 0 : -ENOMEM;
}

void nest_streams_done(struct nest_streams *streams)
{
	free(streams->table);
	streams->table = NULL;
}

static struct nest_call **place_of(const struct nest_streams *streams, uint32_t stream)
{
	return &streams->table[stream & streams->mask];
}

struct nest_call *nest_streams_find(const struct nest_streams *streams, uint32_t stream)
{
	struct nest_call *call = *place_of(streams, stream);

	return call && call->stream == stream ? call : NULL;
}

static uint32_t take_number(struct nest_streams *streams)
{
	uint32_t number;

	do {
		number = streams->next++;
		if (streams->next == 0) {
			streams->next = 1;
			streams->wrapped = true;
		}
	} while (*place_of(streams, number));
	return number;
}

/* How much of what came while the request waited goes with it: all or nothing. */
static uint32_t joined(const struct nest_call *call)
{
	uint32_t credit = NEST_FRAME_CREDIT - (call->payload_len - call->head_len);
	uint32_t room = NEST_FRAME_PAYLOAD_MAX - call->payload_len;

	return call->pending.len <= credit && call->pending.len <= room
		       ? (uint32_t)call->pending.len
		       : 0;
}

int nest_streams_begin(struct nest_streams *streams, struct nest_call *call, uint64_t deadline_ms)
{
	uint32_t number = take_number(streams);
	uint32_t more = joined(call);
	bool fin = call->body_done && call->pending.len == more;
	char *payload;
	int r;

	r = nest_channel_put(streams->channel, NEST_FRAME_REQUEST, fin, number,
		call->payload_len + more, &payload);
	if (r < 0)
		return r;
	memcpy(payload, call->payload, call->payload_len);
	nest_frame_set_deadline(payload, deadline_ms);
	if (more > 0) {
		memcpy(payload + call->payload_len, nest_buf_bytes(&call->pending), more);
		nest_buf_clear(&call->pending, 0);
		call->body_sent = true;
	}
	call->stream = number;
	call->fin_sent = fin;
	call->request_credit = NEST_FRAME_CREDIT - (call->payload_len + more - call->head_len);
	call->response_credit = NEST_FRAME_CREDIT;
	call->sent_at = nest_channel_queued(streams->channel);
	*place_of(streams, number) = call;
	DL_APPEND(streams->calls, call);
	streams->open++;
	streams->live++;
	nest_streams_push(streams, call);
	return 0;
}

void nest_streams_push(struct nest_streams *streams, struct nest_call *call)
{
	while (!call->fin_sent && !call->cancelled) {
		size_t n = call->pending.len;
		bool fin;
		char *payload;

		if (n > call->request_credit)
			n = call->request_credit;
		if (n > NEST_FRAME_BODY_MAX)
			n = NEST_FRAME_BODY_MAX;
		fin = call->body_done && n == call->pending.len;
		if (n == 0 && !fin)
			return;
		if (nest_channel_put(streams->channel, NEST_FRAME_BODY, fin, call->stream,
			    (uint32_t)n, &payload) < 0)
			return;
		if (n > 0)
			memcpy(payload, nest_buf_bytes(&call->pending), n);
		nest_buf_consume(&call->pending, n);
		call->request_credit -= (uint32_t)n;
		call->body_sent = true;
		call->fin_sent = fin;
	}
	if (call->pending.len == 0)
		nest_buf_clear(&call->pending, 0);
}

static void give_credit(struct nest_streams *streams, struct nest_call *call)
{
	char *payload;

	if (call->answered || call->consumed < CREDIT_STEP ||
		nest_channel_put(streams->channel, NEST_FRAME_CREDIT_MORE, false, call->stream, 4,
			&payload) < 0)
		return;
	nest_frame_put_u32(payload, call->consumed);
	call->response_credit += call->consumed;
	call->consumed = 0;
}

void nest_streams_consumed(struct nest_streams *streams, struct nest_call *call, size_t n)
{
	/* Never more than was sent, whatever the caller says. */
	uint32_t most = NEST_FRAME_CREDIT - call->response_credit - call->consumed;

	call->consumed += n < most ? (uint32_t)n : most;
	give_credit(streams, call);
}

static void cancel(struct nest_streams *streams, struct nest_call *call)
{
	call->cancelled = true;
	nest_buf_done(&call->pending);
	nest_channel_put(
		streams->channel, NEST_FRAME_CANCEL, false, call->stream, 0, &(char *){ NULL });
	/* What its caller left unread is nobody's: the worker can get rid of the rest. */
	nest_streams_consumed(streams, call, NEST_FRAME_CREDIT);
}

void nest_streams_abandon(struct nest_streams *streams, struct nest_call *call)
{
	cancel(streams, call);
	streams->live--;
}

bool nest_streams_begun(const struct nest_streams *streams, const struct nest_call *call)
{
	return nest_channel_sent(streams->channel) >= call->sent_at;
}

void nest_streams_forget(struct nest_streams *streams, struct nest_call *call)
{
	*place_of(streams, call->stream) = NULL;
	DL_DELETE(streams->calls, call);
	streams->open--;
	if (!call->detached)
		streams->live--;
	call->worker = NULL;
}

/*
 * The worker's direction has ended. Where the host's has not, CANCEL says that no more will come,
 * and the worker, which has ended the stream, ignores it.
 */
static int end_stream(
	struct nest_streams *streams, struct nest_call *call, const struct nest_failure *why)
{
	if (!call->fin_sent && !call->cancelled)
		cancel(streams, call);
	nest_streams_forget(streams, call);
	if (!call->detached)
		nest_call_conclude(call, why);
	nest_call_free(call);
	return 1;
}

static void refuse_too_large(struct nest_streams *streams, struct nest_call *call)
{
	nest_streams_abandon(streams, call);
	nest_call_fail(call, NEST_FAILURE_INVALID, 0,
		"the function's result is larger than %llu bytes",
		(unsigned long long)streams->buffered_max);
}

/* Body bytes, and the credit that they use up. */
static void take_body(struct nest_streams *streams, struct nest_call *call, const char *bytes,
	uint32_t n, bool fin)
{
	call->answered = fin;
	call->response_credit -= n;
	call->response_bytes += n;
	if (call->detached) {
		nest_streams_consumed(streams, call, n);
	} else if (call->buffered && streams->buffered_max &&
		   call->response_bytes > streams->buffered_max) {
		refuse_too_large(streams, call);
	} else if (n > 0) {
		call->events->body(call->arg, bytes, n, fin);
	}
}

static int check_order(struct nest_streams *streams, const struct nest_call *call,
	const struct nest_frame *frame, struct nest_err *err)
{
	if (!nest_streams_begun(streams, call))
		return nest_err_say(err, -EPROTO,
			"it sent %s on stream %u, which it had not been given yet",
			nest_frame_name(frame->type), frame->stream);
	if (frame->type == NEST_FRAME_RESPONSE && call->responding)
		return nest_err_say(err, -EPROTO, "it answered the request twice");
	if (frame->type == NEST_FRAME_BODY && !call->responding)
		return nest_err_say(err, -EPROTO, "it sent a body before the response's head");
	return 0;
}

static int check_credit(const struct nest_call *call, uint32_t n, struct nest_err *err)
{
	if (n <= call->response_credit)
		return 0;
	return nest_err_say(err, -EPROTO, "it sent %u body bytes with a credit of %u", n,
		call->response_credit);
}

static int on_response(struct nest_streams *streams, struct nest_call *call,
	const struct nest_frame *frame, struct nest_err *err)
{
	struct nest_call_header headers[NEST_FRAME_HEADERS_MAX];
	struct nest_frame_response response;
	int r = nest_frame_parse_response(frame, call->http, headers, &response, err);

	if (r == 0)
		r = check_credit(call, response.body_len, err);
	if (r < 0)
		return r;
	call->responding = true;
	call->buffered = !call->http && response.nheaders == 0;
	call->status = response.status;
	if (!call->detached)
		call->events->response(call->arg, response.status, headers, response.nheaders);
	take_body(streams, call, response.body, response.body_len, frame->fin);
	return frame->fin ? end_stream(streams, call, NULL) : 0;
}

static int on_body(struct nest_streams *streams, struct nest_call *call,
	const struct nest_frame *frame, struct nest_err *err)
{
	int r = check_credit(call, frame->length, err);

	if (r < 0)
		return r;
	take_body(streams, call, frame->payload, frame->length, frame->fin);
	return frame->fin ? end_stream(streams, call, NULL) : 0;
}

/* The language's side has judged the handler's answer to be no HTTP response. */
static bool tells_invalid_response(const struct nest_frame *frame)
{
	nest_autojson cJSON *error = NULL;
	const char *type = "";

	if (nest_json_parse(frame->payload, frame->length, &error, NULL) < 0)
		return false;
	nest_json_get_string(error, "errorType", &type, NULL);
	return strcmp(type, nest_failure_type(NEST_FAILURE_INVALID)) == 0;
}

static int on_error(
	struct nest_streams *streams, struct nest_call *call, const struct nest_frame *frame)
{
	struct nest_failure why = {
		.kind = NEST_FAILURE_ERROR,
		.message = "the function's handler failed",
		.error_json = frame->payload,
		.error_json_len = frame->length,
	};

	if (call->http && tells_invalid_response(frame))
		why = (struct nest_failure){
			.kind = NEST_FAILURE_INVALID,
			.message = "the function's answer is not a valid HTTP response",
		};
	return end_stream(streams, call, &why);
}

static int on_credit(struct nest_streams *streams, struct nest_call *call,
	const struct nest_frame *frame, struct nest_err *err)
{
	uint32_t more = nest_frame_credit(frame);

	if (more == 0 || more > NEST_FRAME_CREDIT - call->request_credit)
		return nest_err_say(err, -EPROTO,
			"it gave %u bytes of credit where %u were outstanding", more,
			NEST_FRAME_CREDIT - call->request_credit);
	call->request_credit += more;
	nest_streams_push(streams, call);
	if (call->pending.len == 0 && !call->detached)
		nest_call_tell_writable(call);
	return 0;
}

int nest_streams_frame(struct nest_streams *streams, const struct nest_frame *frame,
	struct nest_call **ret_culprit, struct nest_err *err)
{
	struct nest_call *call = nest_streams_find(streams, frame->stream);
	int r;

	*ret_culprit = call;
	if (!call) {
		if (streams->wrapped || frame->stream < streams->next)
			return 0; /* it has ended: the frame crossed with that */
		return nest_err_say(err, -EPROTO, "it sent %s on stream %u, which was never opened",
			nest_frame_name(frame->type), frame->stream);
	}
	r = check_order(streams, call, frame, err);
	if (r < 0)
		return r;
	switch (frame->type) {
	case NEST_FRAME_RESPONSE:
		return on_response(streams, call, frame, err);
	case NEST_FRAME_BODY:
		return on_body(streams, call, frame, err);
	case NEST_FRAME_ERROR:
		return on_error(streams, call, frame);
	default:
		return on_credit(streams, call, frame, err);
	}
}
