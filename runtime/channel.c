/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "runtime/wire.h"

/*
 * Reading: one read into the wire's buffer, frames parsed in place, and only the cut-off rest kept
 * with the channel: an idle worker holds no buffer. Writing: see struct nest_wire.
 */
#define KEEP_OUT (64u * 1024) /* storage that an empty output buffer keeps */

struct nest_channel {
	struct nest_wire *wire;
	const struct nest_channel_events *events;
	void *arg;
	uv_poll_t poll;
	int fd;
	struct nest_wire_link link;
	bool blocked; /* the socket is full: waiting for it to be writable */
	bool gone;
	bool closing;
	struct nest_buf in; /* the beginning of a frame that is still coming */
	struct nest_buf out;
	uint64_t queued;
	uint64_t sent;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void become_gone(struct nest_channel *channel, int code, const struct nest_err *why)
{
	if (channel->gone || channel->closing)
		return;
	channel->gone = true;
	nest_wire_forget(channel->wire, &channel->link);
	uv_poll_stop(&channel->poll);
	nest_buf_done(&channel->in);
	nest_buf_done(&channel->out);
	channel->events->gone(channel->arg, code, why);
}

/* Hands on the whole frames in @bytes; returns how many bytes they were, or -EPROTO. */
static ssize_t deliver(struct nest_channel *channel, const char *bytes, size_t n, size_t *ret_need)
{
	struct nest_err err = NEST_ERR_INIT;
	size_t done = 0;

	while (!channel->closing && !channel->gone) {
		struct nest_frame frame;
		int r = nest_frame_parse(bytes + done, n - done, &frame, ret_need, &err);

		if (r > 0)
			break;
		if (r < 0) {
			become_gone(channel, r, &err);
			return r;
		}
		done += NEST_FRAME_HEADER + frame.length;
		channel->events->frame(channel->arg, &frame);
	}
	return (ssize_t)done;
}

/* Reads on into the channel's own buffer until the frame there is whole. */
static ssize_t read_rest(struct nest_channel *channel)
{
	size_t need = NEST_FRAME_HEADER;
	struct nest_frame frame;
	char *room;
	ssize_t n, done;

	if (nest_frame_parse(nest_buf_bytes(&channel->in), channel->in.len, &frame, &need, NULL) !=
		1)
		return -EPROTO; /* it was incomplete when it was put here */
	if (nest_buf_reserve(&channel->in, need - channel->in.len, &room) < 0)
		return -ENOMEM;
	n = read(channel->fd, room, need - channel->in.len);
	if (n <= 0)
		return n < 0 ? -errno : UV_EOF;
	nest_buf_commit(&channel->in, (size_t)n);
	if (channel->in.len < need)
		return 0;
	done = deliver(channel, nest_buf_bytes(&channel->in), channel->in.len, &need);
	if (done > 0 && !channel->gone && !channel->closing)
		nest_buf_consume(&channel->in, (size_t)done);
	if (channel->in.len == 0)
		nest_buf_clear(&channel->in, 0);
	return done < 0 ? 0 : 1;
}

static ssize_t read_fresh(struct nest_channel *channel)
{
	size_t size;
	char *scratch = nest_wire_scratch(channel->wire, &size);
	size_t need;
	ssize_t n, done;

	n = read(channel->fd, scratch, size);
	if (n <= 0)
		return n < 0 ? -errno : UV_EOF;
	done = deliver(channel, scratch, (size_t)n, &need);
	if (done < 0 || channel->gone || channel->closing || done == n)
		return 0;
	return nest_buf_append(&channel->in, scratch + done, (size_t)(n - done));
}

/* Whether there may be more to read at once. */
static bool on_readable(struct nest_channel *channel)
{
	ssize_t r;

	/* A frame that was cut is finished first, then once more is read: epoll calls again. */
	do {
		r = channel->in.len > 0 ? read_rest(channel) : read_fresh(channel);
	} while (r == 1 && !channel->closing && !channel->gone);
	if (r < 0 && r != -EAGAIN && r != -EINTR) {
		struct nest_err err = NEST_ERR_INIT;

		if (r == UV_EOF)
			nest_err_say(&err, -EPIPE, "it closed its channel");
		else
			nest_err_set(&err, (int)r, "read the worker's channel");
		become_gone(channel, (int)r, &err);
	}
	return r >= 0 && !channel->gone && !channel->closing;
}

void nest_channel_finish(struct nest_channel *channel)
{
	while (!channel->gone && !channel->closing && on_readable(channel))
		;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct nest_channel *channel = poll->data;

	/* An error on the socket is told by the read or the write itself. */
	if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)))
		on_readable(channel);
	if ((events & UV_WRITABLE) && !channel->closing && !channel->gone)
		nest_channel_flush(channel);
}

static void on_turn_end(struct nest_wire_link *link)
{
	nest_channel_flush(
		(struct nest_channel *)((char *)link - offsetof(struct nest_channel, link)));
}

int nest_channel_open(struct nest_wire *wire, int fd, const struct nest_channel_events *events,
	void *arg, struct nest_channel **ret, struct nest_err *err)
{
	nest_autofree struct nest_channel *channel = calloc(1, sizeof(*channel));
	int r;

	if (!channel)
		return nest_err_set(err, -ENOMEM, "open a worker's channel");
	r = uv_poll_init(nest_wire_loop(wire), &channel->poll, fd);
	if (r < 0)
		return nest_err_set(err, r, "watch a worker's channel");
	channel->poll.data = channel;
	channel->wire = wire;
	channel->events = events;
	channel->arg = arg;
	channel->fd = fd;
	channel->link.flush = on_turn_end;
	uv_poll_start(&channel->poll, UV_READABLE, on_poll);
	*ret = nest_take_ptr(channel);
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct nest_channel *channel = handle->data;
	void (*cb)(void *arg) = channel->closed;
	void *arg = channel->closed_arg;

	close(channel->fd);
	nest_buf_done(&channel->in);
	nest_buf_done(&channel->out);
	free(channel);
	if (cb)
		cb(arg);
}

void nest_channel_close(struct nest_channel *channel, void (*cb)(void *arg), void *arg)
{
	if (channel->closing)
		return;
	channel->closing = true;
	channel->closed = cb;
	channel->closed_arg = arg;
	nest_wire_forget(channel->wire, &channel->link);
	uv_close((uv_handle_t *)&channel->poll, on_closed);
}

int nest_channel_put(struct nest_channel *channel, enum nest_frame_type type, bool fin,
	uint32_t stream, uint32_t length, char **ret_payload)
{
	char *room;

	if (channel->gone || channel->closing)
		return -EPIPE;
	if (nest_buf_reserve(&channel->out, NEST_FRAME_HEADER + (size_t)length, &room) < 0)
		return -ENOMEM;
	nest_frame_put_header(room, type, fin, stream, length);
	nest_buf_commit(&channel->out, NEST_FRAME_HEADER + (size_t)length);
	channel->queued += NEST_FRAME_HEADER + (size_t)length;
	if (ret_payload)
		*ret_payload = room + NEST_FRAME_HEADER;
	if (!channel->blocked)
		nest_wire_wait(channel->wire, &channel->link);
	return 0;
}

uint64_t nest_channel_queued(const struct nest_channel *channel)
{
	return channel->queued;
}

uint64_t nest_channel_sent(const struct nest_channel *channel)
{
	return channel->sent;
}

static void wait_writable(struct nest_channel *channel, bool wait)
{
	if (channel->blocked == wait)
		return;
	channel->blocked = wait;
	uv_poll_start(&channel->poll, UV_READABLE | (wait ? UV_WRITABLE : 0), on_poll);
}

void nest_channel_flush(struct nest_channel *channel)
{
	ssize_t n;

	nest_wire_forget(channel->wire, &channel->link);
	if (channel->gone || channel->closing || channel->out.len == 0)
		return;
	n = send(channel->fd, nest_buf_bytes(&channel->out), channel->out.len,
		MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
		/*
		 * The reading side tells: what the worker sent before it went is still to be read.
		 * Nothing more is sent.
		 */
		nest_buf_clear(&channel->out, 0);
		wait_writable(channel, false);
		return;
	}
	if (n > 0) {
		channel->sent += (uint64_t)n;
		nest_buf_consume(&channel->out, (size_t)n);
	}
	wait_writable(channel, channel->out.len > 0);
	if (channel->out.len == 0)
		nest_buf_clear(&channel->out, KEEP_OUT);
}
