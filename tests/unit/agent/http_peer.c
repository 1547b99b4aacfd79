/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/agent/http_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <check.h>

#include "agent/http_conn.h"
#include "base/clock.h"

static void start(struct peer *peer, uv_loop_t *loop, int fd)
{
	*peer = (struct peer){ .loop = loop, .fd = fd, .cap = 4096 };
	peer->in = calloc(1, peer->cap);
	ck_assert_ptr_nonnull(peer->in);
}

void peer_open(struct peer *peer, uv_loop_t *loop, struct nest_http_server *server)
{
	int fds[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	start(peer, loop, fds[0]);
	ck_assert_int_eq(nest_http_conn_open(server, fds[1]), 0);
}

void peer_connect(struct peer *peer, uv_loop_t *loop, const char *path, unsigned port)
{
	struct sockaddr_un file = { .sun_family = AF_UNIX };
	struct sockaddr_in tcp = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (path) {
		memcpy(file.sun_path, path, strlen(path));
		ck_assert_int_eq(connect(fd, (struct sockaddr *)&file, sizeof(file)), 0);
	} else {
		ck_assert_int_eq(connect(fd, (struct sockaddr *)&tcp, sizeof(tcp)), 0);
	}
	start(peer, loop, fd);
}

void peer_close(struct peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	free(peer->in);
	*peer = (struct peer){ .loop = peer->loop, .fd = -1 };
}

static void pull(struct peer *peer)
{
	while (!peer->eof) {
		ssize_t n;

		if (peer->cap - peer->n < 65536) {
			peer->cap = peer->cap * 2 + 65536;
			peer->in = realloc(peer->in, peer->cap);
			ck_assert_ptr_nonnull(peer->in);
		}
		n = recv(peer->fd, peer->in + peer->n, peer->cap - peer->n - 1, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			peer->eof = true;
		else
			peer->n += (size_t)n;
		peer->in[peer->n] = '\0';
	}
}

static void turn(struct peer *peer, bool listen)
{
	struct pollfd fds[] = { { .fd = uv_backend_fd(peer->loop), .events = POLLIN },
		{ .fd = listen && !peer->eof ? peer->fd : -1, .events = POLLIN } };
	int wait = uv_backend_timeout(peer->loop);

	if (wait < 0 || wait > 20)
		wait = 20;
	poll(fds, 2, wait);
	uv_run(peer->loop, UV_RUN_NOWAIT);
	if (listen)
		pull(peer);
}

void peer_turn(struct peer *peer)
{
	turn(peer, true);
}

void peer_turn_deaf(struct peer *peer)
{
	turn(peer, false);
}

void peer_send(struct peer *peer, const char *bytes, size_t n)
{
	uint64_t end = nest_clock_mono_us() + PEER_LIMIT_MS * 1000u;

	while (n > 0) {
		ssize_t sent = send(peer->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN)
			return;
		if (sent > 0) {
			bytes += sent;
			n -= (size_t)sent;
		}
		if (n > 0)
			peer_turn(peer);
		ck_assert_msg(nest_clock_mono_us() < end, "the server takes no bytes");
	}
}

void peer_puts(struct peer *peer, const char *text)
{
	peer_send(peer, text, strlen(text));
}

void peer_await(struct peer *peer, const char *text)
{
	uint64_t end = nest_clock_mono_us() + PEER_LIMIT_MS * 1000u;

	while (!memmem(peer->in, peer->n, text, strlen(text))) {
		ck_assert_msg(!peer->eof && nest_clock_mono_us() < end,
			"waited for '%s', got '%s'%s", text, peer->in, peer->eof ? " and EOF" : "");
		peer_turn(peer);
	}
}

void peer_await_eof(struct peer *peer)
{
	uint64_t end = nest_clock_mono_us() + PEER_LIMIT_MS * 1000u;

	while (!peer->eof) {
		ck_assert_msg(nest_clock_mono_us() < end, "the server does not close; got '%s'",
			peer->in);
		peer_turn(peer);
	}
}

void peer_await_true(struct peer *peer, const bool *flag)
{
	uint64_t end = nest_clock_mono_us() + PEER_LIMIT_MS * 1000u;

	while (!*flag) {
		ck_assert_msg(nest_clock_mono_us() < end, "waited in vain; got '%s'", peer->in);
		peer_turn_deaf(peer);
	}
}

unsigned peer_await_answer(struct peer *peer, const char **ret_body, size_t *ret_n)
{
	const char *length, *end;
	size_t n;

	peer_await(peer, "\r\n\r\n");
	end = strstr(peer->in, "\r\n\r\n") + 4;
	length = strstr(peer->in, "content-length: ");
	n = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
	while (peer->n < (size_t)(end - peer->in) + n && !peer->eof) {
		peer_turn(peer);
		end = strstr(peer->in, "\r\n\r\n") + 4;
	}
	ck_assert_uint_ge(peer->n, (size_t)(end - peer->in) + n);
	if (ret_body)
		*ret_body = end;
	if (ret_n)
		*ret_n = n;
	ck_assert_int_eq(strncmp(peer->in, "HTTP/1.1 ", 9), 0);
	return (unsigned)strtoul(peer->in + 9, NULL, 10);
}

void peer_drop(struct peer *peer)
{
	peer->n = 0;
	peer->in[0] = '\0';
}

size_t peer_count(const struct peer *peer, const char *text)
{
	size_t count = 0;

	for (const char *at = peer->in; (at = strstr(at, text)); at += strlen(text))
		count++;
	return count;
}

void peer_finish_loop(uv_loop_t *loop)
{
	uv_run(loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(loop), 0);
}
