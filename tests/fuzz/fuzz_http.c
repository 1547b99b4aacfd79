/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a client sends, over a socket pair into a connection. The first byte says how the owner behaves, 0xff where
 * the client's writes are cut. The owner checks what the server promises about requests.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/http_conn.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

#define BODY_MAX 3000u

enum {
	MODE_STREAM = 1u << 0, /* answers in pieces, else whole */
	MODE_LATE = 1u << 1,   /* when the loop has turned, else in the event */
	MODE_EARLY = 1u << 2,  /* before the body is complete */
	MODE_PAUSE = 1u << 3,  /* pauses each upload for a turn */
	MODE_DEAF = 1u << 4,   /* the client reads nothing until the end */
};

static struct {
	struct nest_http_server *server;
	struct nest_http_exchange *exchange;
	unsigned mode;
	size_t body;
	bool complete;
} at;

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void answer(void)
{
	struct nest_http_exchange *exchange = at.exchange;

	if (!exchange || !(at.complete || (at.mode & MODE_EARLY)))
		return;
	at.exchange = NULL;
	if (!(at.mode & MODE_STREAM)) {
		require(nest_http_respond(exchange, 200, NULL, 0, "whole", 5) == 0);
		return;
	}
	require(nest_http_respond_head(exchange, 200, NULL, 0, -1) == 0);
	nest_http_send(exchange, "piece", 5);
	nest_http_send_end(exchange);
}

static void took(size_t n, bool complete)
{
	require(!at.complete);
	at.body += n;
	at.complete = complete;
	require(at.body <= BODY_MAX);
	if (!(at.mode & MODE_LATE))
		answer();
}

static void check_text(const char *text, size_t n)
{
	require(text && text[n] == '\0');
	for (size_t i = 0; i < n; i++)
		require((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

static void on_request(void *arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, const char *body, size_t n, bool complete)
{
	(void)arg;
	(void)body;
	require(!at.exchange);
	at.exchange = exchange;
	at.body = 0;
	at.complete = false;
	nest_http_set_owner(exchange, &at);
	check_text(request->method, strlen(request->method));
	check_text(request->target, strlen(request->target));
	require(request->path[0] == '/' || strcmp(request->target, "*") == 0);
	require(strlen(request->path) + strlen(request->query) <= strlen(request->target));
	for (size_t i = 0; i < request->nheaders; i++) {
		check_text(request->headers[i].name, request->headers[i].name_len);
		check_text(request->headers[i].value, request->headers[i].value_len);
		for (const char *c = request->headers[i].name; *c; c++)
			require(*c < 'A' || *c > 'Z');
	}
	if (at.mode & MODE_PAUSE)
		nest_http_pause(exchange, true);
	took(n, complete);
}

static void on_body(void *owner, const char *bytes, size_t n, bool complete)
{
	require(owner == &at && at.exchange);
	(void)bytes;
	took(n, complete);
}

static void on_writable(void *owner)
{
	require(owner == &at);
}

static void on_gone(void *owner)
{
	require(owner == &at && at.exchange);
	at.exchange = NULL;
}

static void start(uv_loop_t *loop)
{
	static const struct nest_http_events events = {
		.request = on_request, .body = on_body, .writable = on_writable, .gone = on_gone
	};
	static const struct nest_http_limits limits = { .connections = 4,
		.header_bytes = 2048,
		.header_count = 12,
		.body_bytes = BODY_MAX,
		.header_timeout_ms = 60000,
		.body_idle_ms = 60000,
		.keepalive_ms = 60000,
		.write_idle_ms = 60000 };

	require(uv_loop_init(loop) == 0);
	require(nest_http_server_open(loop, &limits, &events, NULL, &at.server, NULL) == 0);
}

static void turn(uv_loop_t *loop, int client)
{
	char answer_bytes[4096];

	uv_run(loop, UV_RUN_NOWAIT);
	if (at.mode & MODE_LATE)
		answer();
	if (at.exchange && (at.mode & MODE_PAUSE))
		nest_http_pause(at.exchange, false);
	uv_run(loop, UV_RUN_NOWAIT);
	while (!(at.mode & MODE_DEAF) &&
		recv(client, answer_bytes, sizeof(answer_bytes), MSG_DONTWAIT) > 0)
		;
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n)
{
	static uv_loop_t loop;
	int fds[2];

	if (!at.server)
		start(&loop);
	if (n == 0 || n > 16384)
		return 0;
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	require(nest_http_conn_open(at.server, fds[1]) == 0);
	at.mode = bytes[0];
	for (size_t from = 1; from < n;) {
		const unsigned char *cut = memchr(bytes + from, 0xff, n - from);
		size_t len = cut ? (size_t)(cut - bytes) - from : n - from;

		if (send(fds[0], bytes + from, len, MSG_NOSIGNAL) < 0)
			break;
		turn(&loop, fds[0]);
		from += len + 1;
	}
	close(fds[0]);
	for (int i = 0; i < 1000 && nest_http_connections(at.server) > 0; i++)
		turn(&loop, -1);
	uv_run(&loop, UV_RUN_NOWAIT);
	require(nest_http_connections(at.server) == 0 && !at.exchange);
	return 0;
}
