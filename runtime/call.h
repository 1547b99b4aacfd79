/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_CALL_H
#define NEST_RUNTIME_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/failure.h"

/*
 * One request on its way through the host: from the gateway, through a function's queue, to a
 * worker and back. The caller feeds the body and gets events; both sides are flow-controlled.
 *
 *      start --> queued --> with a worker --> response --> body* --> end
 *        \          \             \               \----------------> fail
 *         \          \-------------\--------------------------------> fail
 *          refused (fail event, on a later turn of the loop)
 *
 * Exactly one of end and fail is delivered, last, and never before nest_call_start() returns;
 * unless the caller cancels: then nothing more is delivered. After it @call is gone.
 */
struct nest_call;
struct nest_host;
struct nest_target;

struct nest_call_header {
	const char *name; /* lower case */
	const char *value;
	uint32_t name_len;
	uint32_t value_len;
};

struct nest_call_request {
	const char *id;				/* request id, 1..128 visible ASCII */
	bool http;				/* an HTTP request, else an event */
	const char *trace;			/* traceparent or NULL */
	const char *client_context;		/* base64 as received, or NULL */
	const char *method;			/* HTTP */
	const char *target;			/* HTTP: path and query */
	const struct nest_call_header *headers; /* HTTP, hop-by-hop ones already left out */
	size_t nheaders;
	const char *body; /* the first body bytes */
	size_t body_len;
	bool body_done;	      /* the body is complete with these */
	uint64_t deadline_ms; /* the caller's own, Unix epoch; 0: none */
	bool want_log_tail;   /* keep the last 4 KiB of what this request logs */
};

struct nest_call_stats {
	bool cold;	      /* it waited for a worker to come up */
	uint64_t queue_us;    /* from start until a worker got it */
	uint64_t run_us;      /* from then to its end */
	const char *log_tail; /* with want_log_tail; NULL otherwise */
	size_t log_tail_len;
};

struct nest_call_events {
	/* The head of the response; @status is 0 for an event's result. Slices live for the call only. */
	void (*response)(void *arg, unsigned status, const struct nest_call_header *headers,
		size_t nheaders);
	/*
	 * Body bytes, valid for the duration of the call; each must be given back by
	 * nest_call_consumed() once the client has taken it, or the worker's credit runs dry.
	 * @last: the end event follows in this same turn (so that one write can carry all).
	 */
	void (*body)(void *arg, const char *bytes, size_t n, bool last);
	void (*end)(void *arg, const struct nest_call_stats *stats);
	void (*fail)(
		void *arg, const struct nest_failure *why, const struct nest_call_stats *stats);
	/* After nest_call_write() returned 1: more body may be written. */
	void (*writable)(void *arg);
};

/*
 * Starts a request to @target (from nest_host_find). Copies what it needs. 0 and *@ret; -ENOMEM;
 * -EMSGSIZE: method, target and headers together are larger than 1 MiB. Every other
 * trouble (queue full, draining) comes as a fail event.
 */
int nest_call_start(struct nest_target *target, const struct nest_call_request *request,
	const struct nest_call_events *events, void *arg, struct nest_call **ret);

struct nest_dispatch;

/*
 * Makes one that goes to a worker without a queue and is counted nowhere; @http: its handler takes
 * HTTP requests. As nest_call_start() otherwise.
 */
int nest_call_make_warmup(struct nest_dispatch *dispatch, bool http,
	const struct nest_call_request *request, const struct nest_call_events *events, void *arg,
	struct nest_call **ret);

/* More request body, copied or sent on. 0; 1: taken, but pause until writable; -ENOMEM. */
int nest_call_write(struct nest_call *call, const void *bytes, size_t n);

/* The request body is complete. */
void nest_call_finish(struct nest_call *call);

/* @n response body bytes have been taken by the client. */
void nest_call_consumed(struct nest_call *call, size_t n);

/* The caller no longer wants it: the worker is told, no event follows, @call is gone. */
void nest_call_cancel(struct nest_call *call);

#endif
