/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_CHANNEL_H
#define NEST_RUNTIME_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/frame.h"

struct nest_err;

struct nest_wire;

/* The host's end of one worker's socket: whole frames in, whole frames out. */
struct nest_channel;

struct nest_channel_events {
	/* One frame, valid during the call. The channel may be closed in it. */
	void (*frame)(void *arg, const struct nest_frame *frame);
	/*
	 * Called once, last: the worker closed its end (UV_EOF), the socket failed, or a frame was
	 * none (-EPROTO). Nothing is read or sent any more. Never in a call of ours but
	 * nest_channel_finish().
	 */
	void (*gone)(void *arg, int code, const struct nest_err *why);
};

/* Opens a channel on the connected, non-blocking socket @fd, which it takes on success. */
int nest_channel_open(struct nest_wire *wire, int fd, const struct nest_channel_events *events,
	void *arg, struct nest_channel **ret, struct nest_err *err);

/*
 * No event follows; what was not sent is dropped. Calls @cb once when it is freed, on a later turn.
 */
void nest_channel_close(struct nest_channel *channel, void (*cb)(void *arg), void *arg);

/*
 * Queues one frame: its header, then *@ret_payload for @length bytes that the caller fills in at
 * once. It is sent at the end of this turn. -ENOMEM; -EPIPE once the channel is gone.
 */
int nest_channel_put(struct nest_channel *channel, enum nest_frame_type type, bool fin,
	uint32_t stream, uint32_t length, char **ret_payload);

/* Bytes queued since the channel was opened, and bytes that the socket has taken of them. */
uint64_t nest_channel_queued(const struct nest_channel *channel);
uint64_t nest_channel_sent(const struct nest_channel *channel);

/*
 * Reads all that a worker that is gone has left in the socket; gone is called before this returns.
 */
void nest_channel_finish(struct nest_channel *channel);

/* Sends what is queued now instead of at the end of the turn. */
void nest_channel_flush(struct nest_channel *channel);

#endif
