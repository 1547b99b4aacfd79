/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REFUSAL_H
#define NEST_AGENT_REFUSAL_H

#include "base/buf.h"
#include "runtime/failure.h"

/*
 * The gateway's error table: what a caller is told when there is no answer of the function, as an
 * HTTP status and one JSON body.
 */

/* Why the gateway itself refuses a request, before any function has it. */
enum nest_refusal_reason {
	NEST_REFUSAL_INVALID,	  /* 400 Request.Invalid */
	NEST_REFUSAL_NOT_FOUND,	  /* 404 Function.NotFound */
	NEST_REFUSAL_TIMEOUT,	  /* 408 Request.Timeout: the request itself came too slowly */
	NEST_REFUSAL_TOO_LARGE,	  /* 413 Request.TooLarge */
	NEST_REFUSAL_HEADERS,	  /* 431 Request.TooLarge: the head over its limit */
	NEST_REFUSAL_UNAVAILABLE, /* 503 Function.Unavailable: no memory for it */
	NEST_REFUSAL_DRAINING,	  /* 503 Host.Draining */
	NEST_REFUSAL_REASONS
};

struct nest_refusal {
	unsigned status;
	const char *type;	/* errorType */
	const char *component;	/* "gateway", "function" or "host" */
	unsigned retry_after_s; /* Retry-After, seconds; 0: none */
};

/* The row of @reason. Any thread. */
const struct nest_refusal *nest_refusal_of_reason(enum nest_refusal_reason reason);

/* The row of a failed call; @kind is not NEST_FAILURE_NONE. Any thread. */
const struct nest_refusal *nest_refusal_of_failure(enum nest_failure_kind kind);

/* The reason that the HTTP server's @status (400, 408, 413, 417, 431) stands for. Any thread. */
enum nest_refusal_reason nest_refusal_reason_of_status(unsigned status);

/* A lower-case word for metrics and logs ("not_found"). Any thread. */
const char *nest_refusal_reason_name(enum nest_refusal_reason reason);

/*
 * Appends {"errorType","errorMessage","component","function","version","requestId"} to @buf;
 * @function and @version may be NULL (shown as null). 0 or -ENOMEM. Any thread, per buffer.
 */
int nest_refusal_json(struct nest_buf *buf, const struct nest_refusal *refusal, const char *message,
	const char *function, const char *version, const char *request_id);

#endif
