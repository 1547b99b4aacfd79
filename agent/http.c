/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/http.h"

#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "agent/http_conn.h"
#include "base/err.h"

/* The server: limits, time, and the end. Connections are in http_conn.c, listeners in http_listen.c. */

static uint64_t wait_ms(const struct nest_http_server *server, enum nest_http_wait wait)
{
	switch (wait) {
	case NEST_HTTP_WAIT_HEADER:
		return server->limits.header_timeout_ms;
	case NEST_HTTP_WAIT_BODY:
		return server->limits.body_idle_ms;
	case NEST_HTTP_WAIT_IDLE:
		return server->limits.keepalive_ms;
	case NEST_HTTP_WAIT_WRITE:
		return server->limits.write_idle_ms;
	default:
		return NEST_HTTP_LINGER_MS;
	}
}

static void on_timer(uv_timer_t *timer);

/* Sees to it that the timer fires at @due_ms at the latest. */
static void arm(struct nest_http_server *server, uint64_t due_ms)
{
	uint64_t now = uv_now(server->loop);

	if (server->closing || (server->timer_due_ms != 0 && server->timer_due_ms <= due_ms))
		return;
	server->timer_due_ms = due_ms;
	uv_timer_start(&server->timer, on_timer, due_ms > now ? due_ms - now : 0, 0);
}

void nest_http_wait(struct nest_http_exchange *conn, enum nest_http_wait wait)
{
	struct nest_http_server *server = conn->server;

	if (conn->wait == wait)
		return;
	if (conn->wait != NEST_HTTP_WAIT_NOTHING)
		DL_DELETE2(server->waits[conn->wait], conn, wait_prev, wait_next);
	conn->wait = (uint8_t)wait;
	if (wait == NEST_HTTP_WAIT_NOTHING)
		return;
	conn->deadline_ms = uv_now(server->loop) + wait_ms(server, wait);
	DL_APPEND2(server->waits[wait], conn, wait_prev, wait_next);
	arm(server, conn->deadline_ms);
}

/* Ends what is over its time; the head of each list is the first that can be. */
static void expire(struct nest_http_server *server, enum nest_http_wait wait, uint64_t now)
{
	struct nest_http_exchange *conn;

	while ((conn = server->waits[wait]) && conn->deadline_ms <= now) {
		nest_http_conn_expired(conn);
		/* an answer may take the place of what expired, but never with the old deadline */
		if (server->waits[wait] == conn && conn->deadline_ms <= now)
			nest_http_conn_close(conn, false);
	}
	if (server->waits[wait])
		arm(server, server->waits[wait]->deadline_ms);
}

static void on_timer(uv_timer_t *timer)
{
	struct nest_http_server *server = timer->data;
	uint64_t now = uv_now(server->loop);

	server->timer_due_ms = 0;
	for (int wait = 0; wait < NEST_HTTP_WAITS; wait++)
		expire(server, (enum nest_http_wait)wait, now);
	if (server->accept_again_ms != 0 && server->accept_again_ms <= now) {
		server->accept_again_ms = 0;
		nest_http_accept_resume(server);
	} else if (server->accept_again_ms != 0) {
		arm(server, server->accept_again_ms);
	}
}

void nest_http_accept_pause(struct nest_http_server *server, unsigned ms)
{
	struct nest_http_listener *listener;

	for (listener = server->listeners; listener; listener = listener->next)
		nest_http_listen_pause(listener);
	if (ms == 0)
		return;
	server->accept_again_ms = uv_now(server->loop) + ms;
	arm(server, server->accept_again_ms);
}

void nest_http_accept_resume(struct nest_http_server *server)
{
	struct nest_http_listener *listener;

	if (server->closing || server->draining || server->accept_again_ms != 0 ||
		server->nconnections >= server->limits.connections)
		return;
	for (listener = server->listeners; listener; listener = listener->next)
		nest_http_listen_watch(listener);
}

/* Calls who waits for all answers to be sent, if they are. */
static void tell_sent(struct nest_http_server *server)
{
	void (*cb)(void *arg) = server->sent_cb;
	const struct nest_http_exchange *conn;

	if (!cb)
		return;
	DL_FOREACH(server->connections, conn) {
		if (conn->out.len > 0)
			return;
	}
	server->sent_cb = NULL;
	cb(server->sent_arg);
}

static void end_turn(struct nest_http_server *server)
{
	nest_http_write_turn(server);
	tell_sent(server);
}

static void on_prepare(uv_prepare_t *handle)
{
	end_turn(handle->data);
}

static void on_check(uv_check_t *handle)
{
	end_turn(handle->data);
}

/*
 * The turn ends twice: after the poll phase, where most is written, and before it, for what timers
 * and immediate callbacks wrote. Neither keeps the loop alive.
 */
static void start_turns(struct nest_http_server *server)
{
	uv_timer_init(server->loop, &server->timer);
	uv_prepare_init(server->loop, &server->prepare);
	uv_check_init(server->loop, &server->check);
	server->timer.data = server;
	server->prepare.data = server;
	server->check.data = server;
	uv_prepare_start(&server->prepare, on_prepare);
	uv_check_start(&server->check, on_check);
	uv_unref((uv_handle_t *)&server->prepare);
	uv_unref((uv_handle_t *)&server->check);
	server->open_handles = 3;
}

int nest_http_server_open(uv_loop_t *loop, const struct nest_http_limits *limits,
	const struct nest_http_events *events, void *server_arg, struct nest_http_server **ret,
	struct nest_err *err)
{
	struct nest_http_server *server = calloc(1, sizeof(*server));

	if (server)
		server->scratch = malloc(NEST_HTTP_SCRATCH_BYTES);
	if (!server || !server->scratch) {
		free(server);
		return nest_err_set(err, -ENOMEM, "open HTTP server");
	}
	server->loop = loop;
	server->limits = *limits;
	server->events = *events;
	server->arg = server_arg;
	start_turns(server);
	*ret = server;
	return 0;
}

void nest_http_set_limits(struct nest_http_server *server, const struct nest_http_limits *limits)
{
	bool other_table = server->limits.header_count != limits->header_count;

	server->limits = *limits;
	if (other_table)
		nest_http_block_free_spares(server); /* their header tables have another size */
	if (server->nconnections >= limits->connections)
		nest_http_accept_pause(server, 0);
	else
		nest_http_accept_resume(server);
}

void nest_http_drain(struct nest_http_server *server)
{
	struct nest_http_exchange *conn, *next;

	if (server->draining)
		return;
	server->draining = true;
	nest_http_listen_close_all(server);
	DL_FOREACH_SAFE(server->connections, conn, next) {
		nest_http_conn_drain(conn);
	}
}

void nest_http_when_sent(struct nest_http_server *server, void (*cb)(void *arg), void *arg)
{
	server->sent_cb = cb;
	server->sent_arg = arg;
}

static void on_handle_closed(uv_handle_t *handle)
{
	nest_http_handle_closed(handle->data);
}

void nest_http_server_close(struct nest_http_server *server, void (*cb)(void *arg), void *arg)
{
	server->closing = true;
	server->sent_cb = NULL;
	server->close_cb = cb;
	server->close_arg = arg;
	nest_http_listen_close_all(server);
	while (server->connections)
		nest_http_conn_close(server->connections, false);
	uv_close((uv_handle_t *)&server->timer, on_handle_closed);
	uv_close((uv_handle_t *)&server->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&server->check, on_handle_closed);
}

void nest_http_handle_closed(struct nest_http_server *server)
{
	void (*cb)(void *arg) = server->close_cb;
	void *arg = server->close_arg;

	if (--server->open_handles > 0)
		return;
	nest_http_block_free_spares(server);
	nest_buf_done(&server->head);
	nest_buf_done(&server->out);
	free(server->scratch);
	free(server);
	if (cb)
		cb(arg);
}

uint32_t nest_http_connections(const struct nest_http_server *server)
{
	return server->nconnections;
}

uint64_t nest_http_connections_total(const struct nest_http_server *server)
{
	return server->connections_total;
}
