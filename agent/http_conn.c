/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/http_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"

/*
 * A connection polls for itself instead of being a libuv stream: so a hang-up is seen while nothing is read (a paused
 * upload), one readable event costs one recv(2), and an idle connection holds no buffer.
 */

static bool unparsed(const struct nest_http_exchange *conn)
{
	return conn->pos < conn->len;
}

static bool answer_due(const struct nest_http_exchange *conn)
{
	return conn->delivered && conn->answer != NEST_HTTP_ANSWER_OVER;
}

static void on_poll_closed(uv_handle_t *handle)
{
	struct nest_http_exchange *conn = handle->data;
	struct nest_http_server *server = conn->server;

	free(conn);
	nest_http_handle_closed(server);
}

void nest_http_conn_close(struct nest_http_exchange *conn, bool quietly)
{
	struct nest_http_server *server = conn->server;
	bool tell = !quietly && answer_due(conn);

	if (conn->closing)
		return;
	conn->closing = true;
	nest_http_wait(conn, NEST_HTTP_WAIT_NOTHING);
	nest_http_write_forget(conn);
	DL_DELETE(server->connections, conn);
	server->nconnections--;
	uv_close((uv_handle_t *)&conn->poll, on_poll_closed);
	close(conn->fd);
	conn->fd = -1;
	if (tell)
		server->events.gone(conn->owner); /* it may look at the request a last time */
	nest_http_block_give(server, nest_take_ptr(conn->block));
	free(nest_take_ptr(conn->long_path));
	nest_buf_done(&conn->out);
	if (server->nconnections == 0)
		nest_http_block_free_spares(server);
	nest_http_accept_resume(server);
}

/* The request is answered and gone from the wire: the next one, if any, begins at conn->pos. */
static void next_request(struct nest_http_exchange *conn)
{
	free(nest_take_ptr(conn->long_path));
	conn->phase = NEST_HTTP_HEAD;
	conn->answer = NEST_HTTP_ANSWER_NONE;
	conn->delivered = false;
	conn->discard = false;
	conn->paused = false;
	conn->owner = NULL;
	if (unparsed(conn)) {
		nest_http_parse_begin(conn);
		return;
	}
	conn->pos = 0;
	conn->len = 0;
	nest_http_block_give(conn->server, nest_take_ptr(conn->block));
}

/* The server's own answer, where the owner of the server has none. */
static void respond_plainly(struct nest_http_exchange *conn, unsigned status, const char *why)
{
	static const struct nest_http_header type = { .name = "content-type",
		.value = "application/json",
		.name_len = sizeof("content-type") - 1,
		.value_len = sizeof("application/json") - 1 };
	const struct nest_http_events *events = &conn->server->events;
	const char *body = NULL;

	if (events->refuse)
		body = events->refuse(conn->server->arg, status, why);
	if (!body)
		body = "{\"errorType\":\"Request.Invalid\",\"errorMessage\":\"the request was "
		       "refused\"}";
	nest_http_respond(conn, status, &type, 1, body, strlen(body));
}

void nest_http_conn_refuse(struct nest_http_exchange *conn, unsigned status, const char *why)
{
	const struct nest_http_events *events = &conn->server->events;
	const struct nest_http_request *request =
		conn->phase == NEST_HTTP_HEAD ? NULL : &conn->request;
	bool pumping = conn->pumping;

	if (conn->answer != NEST_HTTP_ANSWER_NONE) {
		nest_http_conn_close(conn, false);
		return;
	}
	conn->keepalive = false;
	conn->linger = true;
	conn->expects = false;
	if (answer_due(conn))
		events->gone(conn->owner);
	conn->owner = NULL;
	conn->delivered = false;
	conn->phase = NEST_HTTP_DONE;
	conn->pos = conn->len;
	conn->head_end = conn->len;
	conn->pumping = true; /* what the answer changes is looked at once, below */
	if (!request)
		conn->request.method = "";
	if (events->refused)
		events->refused(conn->server->arg, conn, request, status, why);
	if (!conn->closing && conn->answer != NEST_HTTP_ANSWER_OVER)
		respond_plainly(conn, status, why);
	conn->pumping = pumping;
	if (!conn->closing && conn->answer != NEST_HTTP_ANSWER_OVER)
		nest_http_conn_close(conn, true);
}

/* Body bytes that lie in the block; false when more have to come first, or the request was refused. */
static bool take_body(struct nest_http_exchange *conn, char **ret_bytes, size_t *ret_n)
{
	char *bytes = conn->block->bytes + conn->pos;
	size_t n = conn->len - conn->pos, used = n;
	const char *why;
	bool complete;
	int status;

	*ret_bytes = bytes;
	if (!conn->chunked_in) {
		if (n > conn->body_left)
			n = (size_t)conn->body_left;
		conn->body_left -= n;
		conn->pos += (uint32_t)n;
		complete = conn->body_left == 0;
	} else {
		status = nest_http_parse_chunked(conn, bytes, n, &n, &used, &complete, &why);
		conn->body_total += n;
		if (status == 0 && conn->body_total > conn->server->limits.body_bytes) {
			status = 413;
			why = "the body is longer than the limit";
		}
		if (status != 0) {
			nest_http_conn_refuse(conn, (unsigned)status, why);
			return false;
		}
		conn->pos += (uint32_t)used;
	}
	*ret_n = n;
	if (complete)
		conn->phase = NEST_HTTP_DONE;
	return true;
}

/* The head is complete: the owner gets it with what has come of the body. */
static void deliver_head(struct nest_http_exchange *conn)
{
	struct nest_http_server *server = conn->server;
	char *body;
	size_t n;

	nest_http_wait(conn, NEST_HTTP_WAIT_NOTHING);
	conn->phase = NEST_HTTP_BODY;
	conn->fresh = false;
	conn->head_end = conn->pos;
	conn->body_total = 0;
	if (conn->body_left > server->limits.body_bytes) {
		nest_http_conn_refuse(conn, 413, "the announced body is longer than the limit");
		return;
	}
	if (!take_body(conn, &body, &n))
		return;
	if (n > 0 || conn->phase == NEST_HTTP_DONE)
		conn->expects = false;
	conn->delivered = true;
	server->events.request(
		server->arg, conn, &conn->request, body, n, conn->phase == NEST_HTTP_DONE);
}

static bool step_head(struct nest_http_exchange *conn)
{
	const char *why = NULL;
	int status;

	if (!unparsed(conn))
		return false;
	status = nest_http_parse_head(conn, &why);
	if (status == 0)
		deliver_head(conn);
	else if (status > 1)
		nest_http_conn_refuse(conn, (unsigned)status, why);
	return status != 1;
}

static void deliver_body(struct nest_http_exchange *conn, const char *bytes, size_t n)
{
	conn->expects = false;
	if (conn->answer != NEST_HTTP_ANSWER_OVER && (n > 0 || conn->phase == NEST_HTTP_DONE))
		conn->server->events.body(conn->owner, bytes, n, conn->phase == NEST_HTTP_DONE);
}

static bool step_body(struct nest_http_exchange *conn)
{
	char *bytes;
	size_t n;

	if (conn->answer == NEST_HTTP_ANSWER_OVER && !conn->discard) {
		/* nobody wants the rest: a short one is skipped, a long one costs the connection */
		conn->discard = conn->keepalive && !conn->chunked_in && !conn->expects &&
				conn->body_left <= NEST_HTTP_SKIP_BYTES;
		conn->paused = false;
		if (!conn->discard) {
			conn->keepalive = false;
			conn->linger = true;
			conn->phase = NEST_HTTP_DONE;
			conn->pos = conn->len;
			return true;
		}
	}
	if (conn->paused || !unparsed(conn))
		return false;
	if (take_body(conn, &bytes, &n))
		deliver_body(conn, bytes, n);
	return true;
}

/* Does one thing that can be done with what is here; false when there is nothing. */
static bool step(struct nest_http_exchange *conn)
{
	if (conn->tell_writable && conn->answer == NEST_HTTP_ANSWER_STREAM &&
		conn->out.len <= NEST_HTTP_LOW_BYTES) {
		conn->tell_writable = false;
		conn->server->events.writable(conn->owner);
		return true;
	}
	switch (conn->phase) {
	case NEST_HTTP_HEAD:
		return step_head(conn);
	case NEST_HTTP_BODY:
		return step_body(conn);
	case NEST_HTTP_DONE:
		/* a client that pipelines but does not read waits for itself */
		if (conn->answer != NEST_HTTP_ANSWER_OVER || !conn->keepalive ||
			conn->out.len > NEST_HTTP_HIGH_BYTES)
			return false;
		next_request(conn);
		return true;
	default:
		return false;
	}
}

/* The last answer is written: closes, or lets the client read before it. */
static void finish(struct nest_http_exchange *conn)
{
	if (!conn->linger || conn->input_ended || shutdown(conn->fd, SHUT_WR) < 0) {
		nest_http_conn_close(conn, true);
		return;
	}
	conn->phase = NEST_HTTP_LINGER;
	nest_http_block_give(conn->server, nest_take_ptr(conn->block));
	free(nest_take_ptr(conn->long_path));
	conn->pos = 0;
	conn->len = 0;
}

static bool idle(const struct nest_http_exchange *conn)
{
	return conn->phase == NEST_HTTP_HEAD && !conn->block && conn->out.len == 0;
}

static enum nest_http_wait wait_wanted(const struct nest_http_exchange *conn)
{
	if (conn->phase == NEST_HTTP_LINGER)
		return NEST_HTTP_WAIT_LINGER;
	if (conn->blocked)
		return NEST_HTTP_WAIT_WRITE;
	if (conn->phase == NEST_HTTP_HEAD)
		return conn->block || conn->fresh ? NEST_HTTP_WAIT_HEADER : NEST_HTTP_WAIT_IDLE;
	if (conn->phase == NEST_HTTP_BODY && !conn->paused)
		return NEST_HTTP_WAIT_BODY;
	return NEST_HTTP_WAIT_NOTHING;
}

/* Whether a read now would have somewhere to go. */
static bool may_read(const struct nest_http_exchange *conn)
{
	switch (conn->phase) {
	case NEST_HTTP_HEAD:
	case NEST_HTTP_LINGER:
		return true;
	case NEST_HTTP_BODY:
		return !conn->paused && !unparsed(conn);
	default:
		return !conn->block || conn->len < conn->block->cap;
	}
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void watch(struct nest_http_exchange *conn)
{
	int events = conn->blocked ? UV_WRITABLE : 0;

	if (!conn->input_ended)
		events |= UV_DISCONNECT | (may_read(conn) ? UV_READABLE : 0);
	if (events == conn->events)
		return;
	conn->events = events;
	if (events == 0)
		uv_poll_stop(&conn->poll);
	else if (uv_poll_start(&conn->poll, events, on_poll) < 0)
		nest_http_conn_close(conn, false);
}

/* With nothing left to do now: writes, decides about the connection, and what to wait for. */
static void settle(struct nest_http_exchange *conn)
{
	bool over = conn->answer == NEST_HTTP_ANSWER_OVER || conn->phase == NEST_HTTP_HEAD;

	if (conn->expects && conn->phase == NEST_HTTP_BODY && !conn->paused &&
		conn->answer == NEST_HTTP_ANSWER_NONE) {
		static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

		conn->expects = false;
		nest_http_write_raw(conn, go_on, sizeof(go_on) - 1);
	}
	if (over && conn->out.len > 0 && !conn->blocked && nest_http_write_flush(conn) < 0)
		conn->broken = true;
	if (conn->broken) {
		nest_http_conn_close(conn, false);
		return;
	}
	if (conn->out.len == 0)
		nest_http_write_release(conn);
	if (over && conn->out.len == 0) {
		if (conn->phase == NEST_HTTP_DONE && !conn->keepalive)
			finish(conn);
		else if (conn->phase == NEST_HTTP_HEAD &&
			 (conn->input_ended || (idle(conn) && conn->server->draining)))
			nest_http_conn_close(conn, true);
	}
	if (conn->closing)
		return;
	nest_http_wait(conn, wait_wanted(conn));
	watch(conn);
}

void nest_http_conn_advance(struct nest_http_exchange *conn)
{
	if (conn->pumping || conn->closing)
		return;
	do {
		conn->pumping = true;
		while (!conn->closing && step(conn))
			;
		conn->pumping = false;
		if (!conn->closing)
			settle(conn);
		/* what was written may have made room to go on */
	} while (!conn->closing && conn->phase == NEST_HTTP_DONE && conn->keepalive &&
		 conn->answer == NEST_HTTP_ANSWER_OVER && conn->out.len <= NEST_HTTP_HIGH_BYTES);
}

/* No more bytes will come from the client. */
static void input_ended(struct nest_http_exchange *conn)
{
	conn->input_ended = true;
	if (answer_due(conn) || conn->phase == NEST_HTTP_LINGER || conn->out.len == 0)
		nest_http_conn_close(conn, false);
}

static void read_failed(struct nest_http_exchange *conn, ssize_t n)
{
	if (n == 0)
		input_ended(conn);
	else if (errno != EAGAIN && errno != EINTR)
		nest_http_conn_close(conn, false);
}

/* Bytes of an announced body, or thrown away: through the server's scratch, nothing is kept. */
static void read_through(struct nest_http_exchange *conn, bool keep)
{
	size_t max = NEST_HTTP_SCRATCH_BYTES;
	ssize_t n;

	if (keep && conn->body_left < max)
		max = (size_t)conn->body_left;
	n = recv(conn->fd, conn->server->scratch, max, 0);
	if (n <= 0) {
		read_failed(conn, n);
		return;
	}
	if (!keep) {
		conn->lingered += (uint64_t)n;
		if (conn->lingered > NEST_HTTP_LINGER_BYTES)
			nest_http_conn_close(conn, true);
		return;
	}
	nest_http_wait(conn, NEST_HTTP_WAIT_NOTHING); /* it moves: the time begins anew */
	conn->body_left -= (uint64_t)n;
	if (conn->body_left == 0)
		conn->phase = NEST_HTTP_DONE;
	conn->pumping = true;
	deliver_body(conn, conn->server->scratch, (size_t)n);
	conn->pumping = false;
}

static void read_block(struct nest_http_exchange *conn)
{
	struct nest_http_server *server = conn->server;
	ssize_t n;

	if (!conn->block) {
		conn->block = nest_http_block_take(server);
		if (conn->block && conn->phase == NEST_HTTP_HEAD)
			nest_http_parse_begin(conn);
	}
	if (conn->phase != NEST_HTTP_HEAD && !unparsed(conn)) {
		conn->pos = conn->head_end;
		conn->len = conn->head_end;
	}
	if (!conn->block || (conn->phase == NEST_HTTP_HEAD &&
				    nest_http_block_reserve(conn, NEST_HTTP_READ_ROOM) < 0)) {
		nest_http_conn_close(conn, false);
		return;
	}
	n = recv(conn->fd, conn->block->bytes + conn->len, conn->block->cap - conn->len, 0);
	if (n <= 0) {
		if (conn->phase == NEST_HTTP_HEAD && conn->len == 0)
			nest_http_block_give(server, nest_take_ptr(conn->block));
		read_failed(conn, n);
		return;
	}
	conn->len += (uint32_t)n;
	if (conn->phase == NEST_HTTP_BODY)
		nest_http_wait(conn, NEST_HTTP_WAIT_NOTHING);
}

static void read_some(struct nest_http_exchange *conn)
{
	if (!may_read(conn))
		return; /* paused since the poll handle was set */
	if (conn->phase == NEST_HTTP_LINGER)
		read_through(conn, false);
	else if (conn->phase == NEST_HTTP_BODY && !conn->chunked_in)
		read_through(conn, true);
	else
		read_block(conn);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
	struct nest_http_exchange *conn = handle->data;

	if (conn->closing)
		return;
	if (status < 0) {
		nest_http_conn_close(conn, false);
		return;
	}
	if (events & UV_WRITABLE) {
		conn->blocked = false;
		if (nest_http_write_flush(conn) < 0)
			conn->broken = true;
	}
	if (events & UV_READABLE)
		read_some(conn);
	else if (events & UV_DISCONNECT)
		input_ended(conn);
	nest_http_conn_advance(conn);
}

void nest_http_conn_drain(struct nest_http_exchange *conn)
{
	/* a request that is on its way in is answered, not lost */
	if (idle(conn) && !conn->pumping)
		read_some(conn);
	nest_http_conn_advance(conn);
}

int nest_http_conn_open(struct nest_http_server *server, int fd)
{
	struct nest_http_exchange *conn = calloc(1, sizeof(*conn));
	int r = conn ? uv_poll_init(server->loop, &conn->poll, fd) : -ENOMEM;

	if (r < 0) {
		free(conn);
		close(fd);
		return r;
	}
	conn->server = server;
	conn->fd = fd;
	conn->poll.data = conn;
	conn->fresh = true;
	conn->wait = NEST_HTTP_WAIT_NOTHING;
	DL_APPEND(server->connections, conn);
	server->nconnections++;
	server->connections_total++;
	server->open_handles++;
	nest_http_conn_advance(conn);
	return 0;
}

void nest_http_conn_expired(struct nest_http_exchange *conn)
{
	switch (conn->wait) {
	case NEST_HTTP_WAIT_HEADER:
		if (!conn->block)
			nest_http_conn_close(conn, true);
		else
			nest_http_conn_refuse(conn, 408, "the request's head came too slowly");
		break;
	case NEST_HTTP_WAIT_BODY:
		if (conn->discard)
			nest_http_conn_close(conn, true);
		else
			nest_http_conn_refuse(conn, 408, "the request's body came too slowly");
		break;
	default:
		nest_http_conn_close(conn, false);
		break;
	}
	nest_http_conn_advance(conn);
}

void nest_http_set_owner(struct nest_http_exchange *exchange, void *owner)
{
	exchange->owner = owner;
}

void nest_http_pause(struct nest_http_exchange *conn, bool pause)
{
	if (conn->paused == pause || conn->closing)
		return;
	conn->paused = pause;
	nest_http_write_later(conn);
}

void nest_http_abort(struct nest_http_exchange *conn)
{
	if (conn->closing)
		return;
	conn->answer = NEST_HTTP_ANSWER_OVER;
	conn->keepalive = false;
	/* the client may have what was meant for it, then sees it cut */
	nest_http_write_flush(conn);
	if (conn->old_client) {
		/* without length or chunks only a reset tells a cut answer from a whole one */
		const struct linger cut = { .l_onoff = 1 };

		setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &cut, sizeof(cut));
	}
	nest_http_conn_close(conn, true);
}
