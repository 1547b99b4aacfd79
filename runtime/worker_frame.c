/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/call_impl.h"
#include "runtime/frozen.h"
#include "runtime/function.h"
#include "runtime/latency.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

#define PROTOCOL_VERSION 1

static int on_hello(
	struct nest_worker *worker, const struct nest_frame *frame, struct nest_err *err)
{
	nest_autojson cJSON *hello = NULL;
	int64_t protocol = 0;

	if (worker->greeted)
		return nest_err_say(err, -EPROTO, "it sent HELLO twice");
	if (nest_json_parse(frame->payload, frame->length, &hello, NULL) < 0 ||
		nest_json_get_int(hello, "protocol", 0, INT32_MAX, &protocol, NULL) != 0)
		return nest_err_say(err, -EPROTO, "its HELLO names no protocol version");
	if (protocol != PROTOCOL_VERSION)
		return nest_err_say(err, -EPROTO, "it speaks version %lld, this host version %d",
			(long long)protocol, PROTOCOL_VERSION);
	worker->greeted = true;
	if (!worker->plan->init)
		nest_worker_begin_bare(worker);
	return 0;
}

static void count_start(const struct nest_worker *worker)
{
	struct nest_tally *tally = worker->plan->tally;
	enum nest_rung rung = !worker->clone  ? NEST_RUNG_PLAIN
			      : worker->bare  ? NEST_RUNG_RUNTIME
			      : worker->stood ? NEST_RUNG_STANDBY
					      : NEST_RUNG_SNAPSHOT;

	tally->cold_starts_total++;
	tally->rungs_total[rung]++;
	if (worker->clone)
		nest_frozen_restored(worker->source);
	if (rung == NEST_RUNG_SNAPSHOT)
		nest_frozen_timed(worker->plan->frozen, worker->ready_us - worker->start_us);
}

static int on_ready(struct nest_worker *worker, struct nest_err *err)
{
	if (worker->stage != NEST_WORKER_STAGE_STARTING)
		return nest_err_say(err, -EPROTO, "it sent READY twice");
	nest_deadlines_clear(worker->services->deadlines, &worker->stage_deadline);
	worker->stage = NEST_WORKER_STAGE_READY;
	worker->ready_us = nest_clock_mono_us();
	count_start(worker);
	nest_latency_observe(&worker->plan->tally->cold_start, worker->ready_us - worker->start_us);
	nest_worker_watch(worker);
	worker->events->ready(worker->arg, worker);
	nest_worker_rest(worker);
	return 0;
}

/* What an ERROR says, in one line for the operator; whatever it is, it is only shown. */
static void describe_error(const struct nest_frame *frame, char *ret, size_t n)
{
	nest_autojson cJSON *json = NULL;
	const char *type = "", *message = "";

	if (nest_json_parse(frame->payload, frame->length, &json, NULL) == 0 &&
		nest_json_get_string(json, "errorType", &type, NULL) >= 0 &&
		nest_json_get_string(json, "errorMessage", &message, NULL) >= 0)
		snprintf(ret, n, "%s: %s", type, message);
	else
		snprintf(ret, n, "%.*s", (int)frame->length, frame->payload);
}

/* ERROR on stream 0: its code could not be loaded, and would not be by another try. */
static int on_start_error(
	struct nest_worker *worker, const struct nest_frame *frame, struct nest_err *err)
{
	char message[256], detail[400];
	struct nest_worker_end end = {
		.kind = NEST_FAILURE_INIT,
		.final = true,
		.message = message,
		.detail = detail,
		.error_json = frame->payload,
		.error_json_len = frame->length,
	};

	if (worker->stage != NEST_WORKER_STAGE_STARTING &&
		worker->stage != NEST_WORKER_STAGE_RESTING)
		return nest_err_say(err, -EPROTO, "it sent ERROR on stream 0 after READY");
	/* its own word may be faster than its cell's */
	worker->born = true;
	snprintf(message, sizeof(message), "function '%s' could not be initialised",
		worker->plan->spec->name);
	nest_worker_count_restart(worker, NEST_RESTART_INIT);
	describe_error(frame, detail, sizeof(detail));
	if (worker->clone || worker->plan->to_freeze)
		end.detail = detail;
	nest_worker_report(worker, message, detail);
	nest_worker_await_exit(worker);
	nest_worker_end(worker, &end);
	return 0;
}

static int on_log(struct nest_worker *worker, const struct nest_frame *frame, struct nest_err *err)
{
	struct nest_call *call = nest_streams_find(&worker->streams, frame->stream);
	struct nest_frame_log log;
	struct nest_funclog_origin origin;
	int r = nest_frame_parse_log(frame, &log, err);

	if (r < 0)
		return r;
	origin = (struct nest_funclog_origin){
		.version = worker->plan->spec->version,
		.worker = worker->id,
		.stream = log.stream,
		.level = log.level,
		.request_id = call ? call->id : NULL,
	};
	nest_funclog_write(worker->plan->log, &origin, log.text, log.len);
	if (call) {
		nest_call_log(call, log.text, log.len);
		if (log.len > 0 && log.text[log.len - 1] != '\n')
			nest_call_log(call, "\n", 1);
	}
	return 0;
}

static int on_stream(struct nest_worker *worker, const struct nest_frame *frame,
	struct nest_call **ret_culprit, struct nest_err *err)
{
	int r;

	if (!worker->ready_us)
		return nest_err_say(
			err, -EPROTO, "it sent %s before READY", nest_frame_name(frame->type));
	r = nest_streams_frame(&worker->streams, frame, ret_culprit, err);
	if (r > 0)
		nest_worker_slot_freed(worker);
	return r;
}

static int act(struct nest_worker *worker, const struct nest_frame *frame,
	struct nest_call **ret_culprit, struct nest_err *err)
{
	if (!worker->greeted && frame->type != NEST_FRAME_HELLO)
		return nest_err_say(err, -EPROTO, "its first frame was %s instead of HELLO",
			nest_frame_name(frame->type));
	switch (frame->type) {
	case NEST_FRAME_HELLO:
		return on_hello(worker, frame, err);
	case NEST_FRAME_READY:
		return on_ready(worker, err);
	case NEST_FRAME_CHECKPOINT:
		return nest_worker_on_checkpoint(worker, err);
	case NEST_FRAME_LOG:
		return on_log(worker, frame, err);
	case NEST_FRAME_PONG:
		return 0; /* heard from is all that is asked of it */
	case NEST_FRAME_ERROR:
		if (frame->stream == 0)
			return on_start_error(worker, frame, err);
		/* fall through */
	default:
		return on_stream(worker, frame, ret_culprit, err);
	}
}

static void fail_culprit(
	struct nest_worker *worker, struct nest_call *call, const struct nest_err *err)
{
	nest_streams_forget(&worker->streams, call);
	if (!call->detached)
		nest_call_fail(call, NEST_FAILURE_INVALID, 0,
			"the worker of function '%s' broke the protocol: %s",
			worker->plan->spec->name, nest_err_text(err));
	nest_call_free(call);
}

void nest_worker_frame(struct nest_worker *worker, const struct nest_frame *frame)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_call *culprit = NULL;
	char message[640];

	if (worker->stage == NEST_WORKER_STAGE_DYING)
		return;
	worker->heard = true;
	if (act(worker, frame, &culprit, &err) >= 0)
		return;
	if (culprit)
		fail_culprit(worker, culprit, &err);
	snprintf(message, sizeof(message), "function '%s' broke the worker protocol: %s",
		worker->plan->spec->name, nest_err_text(&err));
	nest_worker_doom(worker, NEST_RESTART_PROTOCOL, message);
}

void nest_worker_output(struct nest_worker *worker, int stream, const char *bytes, size_t n)
{
	struct nest_call *only = worker->streams.open == 1 ? worker->streams.calls : NULL;
	struct nest_funclog_origin origin = {
		.version = worker->plan->spec->version,
		.worker = worker->id,
		.stream = stream,
		.request_id = only ? only->id : NULL,
	};

	nest_funclog_feed(worker->plan->log, &worker->pipes[stream - 1], &origin, bytes, n);
	if (only)
		nest_call_log(only, bytes, n);
}
