/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_STREAMS_H
#define NEST_RUNTIME_STREAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/frame.h"

struct nest_call;
struct nest_channel;
struct nest_err;

/*
 * The requests that are open on one worker's channel, by stream number, with the flow control of
 * each. A number's low bits are its place in the table, so finding a stream is one look.
 */
struct nest_streams {
	struct nest_channel *channel;
	struct nest_call **table;
	struct nest_call *calls; /* those in the table, oldest first */
	uint32_t mask;
	uint32_t next;	       /* number */
	uint32_t open;	       /* slots taken */
	uint32_t live;	       /* of these, how many have a caller */
	uint32_t most;	       /* slots */
	bool wrapped;	       /* every number was given out once */
	uint64_t buffered_max; /* bytes of an event's buffered result; 0: any */
};

/* Makes @streams ready for @concurrency requests at once. -ENOMEM. */
int nest_streams_init(struct nest_streams *streams, uint32_t concurrency);

/* Frees the table, which must be empty. */
void nest_streams_done(struct nest_streams *streams);

/* Sends the request of @call, which has a free slot from then on; -ENOMEM or -EPIPE: it has not. */
int nest_streams_begin(struct nest_streams *streams, struct nest_call *call, uint64_t deadline_ms);

/* Sends on what @call has pending, as far as its credit goes. */
void nest_streams_push(struct nest_streams *streams, struct nest_call *call);

/* Gives back credit for @n response bytes. */
void nest_streams_consumed(struct nest_streams *streams, struct nest_call *call, size_t n);

/* Tells the worker that nobody waits for @call any more, just before the call is detached. */
void nest_streams_abandon(struct nest_streams *streams, struct nest_call *call);

/* Whether the whole REQUEST frame of @call has left the host. */
bool nest_streams_begun(const struct nest_streams *streams, const struct nest_call *call);

/* Takes @call off the table without a word to the worker. */
void nest_streams_forget(struct nest_streams *streams, struct nest_call *call);

/* The call of stream @stream, or NULL. */
struct nest_call *nest_streams_find(const struct nest_streams *streams, uint32_t stream);

/*
 * Acts on a RESPONSE, BODY, ERROR or CREDIT frame of a stream. 0: done; 1: done, and a slot is
 * free. -EPROTO: the worker may not send this, @err says why; *@ret_culprit is the call it was
 * about, or NULL.
 */
int nest_streams_frame(struct nest_streams *streams, const struct nest_frame *frame,
	struct nest_call **ret_culprit, struct nest_err *err);

#endif
