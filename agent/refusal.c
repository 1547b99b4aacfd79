/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/refusal.h"

#include <errno.h>
#include <string.h>

#define RETRY_S 1u /* where the runtime has no better guess */

static const struct nest_refusal reasons[NEST_REFUSAL_REASONS] = {
	[NEST_REFUSAL_INVALID] = { 400, "Request.Invalid", "gateway", 0 },
	[NEST_REFUSAL_NOT_FOUND] = { 404, "Function.NotFound", "gateway", 0 },
	[NEST_REFUSAL_TIMEOUT] = { 408, "Request.Timeout", "gateway", 0 },
	[NEST_REFUSAL_TOO_LARGE] = { 413, "Request.TooLarge", "gateway", 0 },
	[NEST_REFUSAL_HEADERS] = { 431, "Request.TooLarge", "gateway", 0 },
	[NEST_REFUSAL_UNAVAILABLE] = { 503, "Function.Unavailable", "host", RETRY_S },
	[NEST_REFUSAL_DRAINING] = { 503, "Host.Draining", "host", RETRY_S },
};

static const char *const names[NEST_REFUSAL_REASONS] = {
	[NEST_REFUSAL_INVALID] = "invalid",
	[NEST_REFUSAL_NOT_FOUND] = "not_found",
	[NEST_REFUSAL_TIMEOUT] = "timeout",
	[NEST_REFUSAL_TOO_LARGE] = "too_large",
	[NEST_REFUSAL_HEADERS] = "headers_too_large",
	[NEST_REFUSAL_UNAVAILABLE] = "unavailable",
	[NEST_REFUSAL_DRAINING] = "draining",
};

static const struct nest_refusal failures[NEST_FAILURE_KINDS] = {
	[NEST_FAILURE_THROTTLED] = { 429, "Function.Throttled", "host", RETRY_S },
	[NEST_FAILURE_UNAVAILABLE] = { 503, "Function.Unavailable", "host", RETRY_S },
	[NEST_FAILURE_DRAINING] = { 503, "Host.Draining", "host", RETRY_S },
	[NEST_FAILURE_INIT] = { 502, "Function.InitFailed", "function", 0 },
	[NEST_FAILURE_CRASHED] = { 502, "Function.Crashed", "function", 0 },
	[NEST_FAILURE_OOM] = { 502, "Function.OutOfMemory", "function", 0 },
	[NEST_FAILURE_TIMEOUT] = { 504, "Function.Timeout", "function", 0 },
	[NEST_FAILURE_INVALID] = { 502, "Function.InvalidResponse", "function", 0 },
	[NEST_FAILURE_ERROR] = { 502, "Function.Error", "function", 0 },
	/* only a caller that left is told of this, and it does not listen */
	[NEST_FAILURE_CANCELLED] = { 503, "Function.Unavailable", "host", RETRY_S },
};

const struct nest_refusal *nest_refusal_of_reason(enum nest_refusal_reason reason)
{
	return &reasons[reason];
}

const struct nest_refusal *nest_refusal_of_failure(enum nest_failure_kind kind)
{
	return &failures[kind];
}

enum nest_refusal_reason nest_refusal_reason_of_status(unsigned status)
{
	switch (status) {
	case 408:
		return NEST_REFUSAL_TIMEOUT;
	case 413:
		return NEST_REFUSAL_TOO_LARGE;
	case 431:
		return NEST_REFUSAL_HEADERS;
	case 503:
		return NEST_REFUSAL_UNAVAILABLE;
	default:
		return NEST_REFUSAL_INVALID;
	}
}

const char *nest_refusal_reason_name(enum nest_refusal_reason reason)
{
	return names[reason];
}

static int put_member(struct nest_buf *buf, const char *key, const char *value)
{
	if (nest_buf_puts(buf, key) < 0)
		return -ENOMEM;
	return value ? nest_buf_json_string(buf, value, strlen(value)) : nest_buf_puts(buf, "null");
}

int nest_refusal_json(struct nest_buf *buf, const struct nest_refusal *refusal, const char *message,
	const char *function, const char *version, const char *request_id)
{
	if (put_member(buf, "{\"errorType\":", refusal->type) < 0 ||
		put_member(buf, ",\"errorMessage\":", message) < 0 ||
		put_member(buf, ",\"component\":", refusal->component) < 0 ||
		put_member(buf, ",\"function\":", function) < 0 ||
		put_member(buf, ",\"version\":", version) < 0 ||
		put_member(buf, ",\"requestId\":", request_id) < 0)
		return -ENOMEM;
	return nest_buf_puts(buf, "}");
}
