/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_CALL_IMPL_H
#define NEST_RUNTIME_CALL_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "runtime/call.h"
#include "runtime/deadline.h"

struct nest_dispatch;
struct nest_worker;

/*
 * The inside of a call, for those who carry it on its way: the dispatch while it waits, the
 * worker's streams while it runs. One block holds it with the payload of its REQUEST frame.
 *
 * A call outlives its caller's interest in it while a worker still holds its stream: it is then
 * *detached*, and only occupies its slot.
 */
struct nest_call {
	/* on a worker */
	struct nest_worker *worker; /* NULL: it waits, or was refused */
	uint32_t stream;
	uint32_t request_credit;  /* body bytes that may be sent */
	uint32_t response_credit; /* body bytes that the worker may send */
	uint32_t consumed;	  /* taken by the caller, not yet given back as credit */
	uint64_t response_bytes;
	uint64_t sent_at; /* byte count of the channel behind its REQUEST frame */
	bool http;	  /* as the worker sees it */
	bool body_done;	  /* the caller has given all of the body */
	bool fin_sent;	  /* and it went into the channel */
	bool body_sent;	  /* a BODY frame was queued: the request can't move to another worker */
	bool answered;	  /* its last frame has come */
	bool responding;  /* the response head has come */
	bool buffered;	  /* an event's whole result, for which the host's limit holds */
	bool paused;	  /* the caller waits for writable */
	bool detached;
	bool cancelled; /* CANCEL was sent */

	/* before */
	bool queued;
	bool moved;	    /* was with one worker already that never began it */
	bool start_crashed; /* a worker that it waited for died before it was ready */
	bool until_caller;  /* its deadline while it waits is the caller's own */
	bool cold;
	bool broken;	 /* the circuit breaker refused it */
	uint32_t probe;	 /* what the circuit breaker is to be told at its end */
	unsigned status; /* of its response */
	bool warmup;	 /* nobody's: it is not counted */

	const struct nest_call_events *events;
	void *arg;
	struct nest_dispatch *dispatch;
	struct nest_deadline deadline; /* of waiting, then of running, then of the worker's grace */
	uint64_t start_us;
	uint64_t given_us; /* to a worker; 0: not yet */
	uint64_t run_until_us;
	uint64_t caller_deadline_ms;
	struct nest_call *prev, *next; /* in the queue, or among its worker's */
	struct nest_buf pending;       /* body for which there is no credit, or no worker yet */
	struct nest_buf *tail;	       /* with want_log_tail */
	const char *id;
	char *refusal; /* message of a failure to be delivered on the next turn */
	uint8_t refusal_kind;
	unsigned retry_after_s;
	uint32_t head_len; /* of payload: head, then the first body bytes */
	uint32_t payload_len;
	char payload[];
};

/* Gives the caller its end (@why NULL) or failure, counts it, and detaches it. Once. */
void nest_call_conclude(struct nest_call *call, const struct nest_failure *why);

/* The same with a failure of @kind and a printf message. */
void nest_call_fail(struct nest_call *call, enum nest_failure_kind kind, unsigned retry_after_s,
	const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Has it fail so on the next turn of the loop. */
void nest_call_refuse(struct nest_call *call, enum nest_failure_kind kind, unsigned retry_after_s,
	const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Frees a detached call that no queue and no worker knows, whose callbacks have returned. */
void nest_call_free(struct nest_call *call);

/* Keeps the end of what its request logs, where that is wanted. */
void nest_call_log(struct nest_call *call, const char *text, size_t n);

/* Tells the caller, if it waits for it, that more body may be written. */
void nest_call_tell_writable(struct nest_call *call);

#endif
