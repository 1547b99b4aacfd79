/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <utlist.h>

#include "agent/http_conn.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"

#define BACKLOG 1024
#define ACCEPT_MAX 16	    /* in one go, so that a flood of new ones does not starve the old */
#define ACCEPT_PAUSE_MS 200 /* when descriptors or memory ran out */

static void accept_failed(struct nest_http_server *server)
{
	switch (errno) {
	case EAGAIN:
	case EINTR:
	case ECONNABORTED:
		return;
	default:
		nest_log(NEST_LOG_WARN, "http",
			"accept a connection: %s; trying again in %d ms (%u are open)",
			strerror(errno), ACCEPT_PAUSE_MS, server->nconnections);
		nest_http_accept_pause(server, ACCEPT_PAUSE_MS);
	}
}

static void on_listener(uv_poll_t *handle, int status, int events)
{
	struct nest_http_listener *listener = handle->data;
	struct nest_http_server *server = listener->server;

	(void)events;
	for (int i = 0; i < ACCEPT_MAX && status == 0 && listener->watching; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			accept_failed(server);
			return;
		}
		if (nest_http_conn_open(server, fd) < 0) {
			errno = ENOMEM;
			accept_failed(server);
			return;
		}
		if (server->nconnections >= server->limits.connections)
			nest_http_accept_pause(server, 0);
	}
}

void nest_http_listen_pause(struct nest_http_listener *listener)
{
	if (!listener->watching)
		return;
	listener->watching = false;
	uv_poll_stop(&listener->poll);
}

void nest_http_listen_watch(struct nest_http_listener *listener)
{
	if (!listener->watching)
		listener->watching = uv_poll_start(&listener->poll, UV_READABLE, on_listener) == 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct nest_http_listener *listener = handle->data;
	struct nest_http_server *server = listener->server;

	free(listener->path);
	free(listener);
	nest_http_handle_closed(server);
}

/* Removes the socket's file unless another host has put its own in its place. */
static void remove_file(const struct nest_http_listener *listener)
{
	struct stat st;

	if (listener->path && lstat(listener->path, &st) == 0 && st.st_dev == listener->dev &&
		st.st_ino == listener->ino)
		unlink(listener->path);
}

void nest_http_listen_close_all(struct nest_http_server *server)
{
	struct nest_http_listener *listener, *next;

	LL_FOREACH_SAFE(server->listeners, listener, next) {
		remove_file(listener);
		uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
		close(listener->fd);
	}
	server->listeners = NULL;
}

/* Listens on bound @fd. Takes @fd on success. */
static int listener_add(struct nest_http_server *server, int fd, const char *path,
	const struct stat *st, struct nest_err *err)
{
	struct nest_http_listener *listener = calloc(1, sizeof(*listener));
	int r = -ENOMEM;

	if (listener && path && !(listener->path = strdup(path))) {
		free(listener);
		listener = NULL;
	}
	if (listener)
		r = uv_poll_init(server->loop, &listener->poll, fd);
	if (r < 0) {
		if (listener)
			free(listener->path);
		free(listener);
		return nest_err_set(err, r, "watch listening socket");
	}
	listener->server = server;
	listener->fd = fd;
	listener->poll.data = listener;
	if (path) {
		listener->dev = st->st_dev;
		listener->ino = st->st_ino;
	}
	LL_PREPEND(server->listeners, listener);
	server->open_handles++;
	nest_http_accept_resume(server);
	return 0;
}

/* 0: nothing is at @path, or a socket that nobody serves any more. */
static int check_vacant(const char *path, const struct sockaddr_un *address, struct nest_err *err)
{
	nest_autoclose int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : nest_err_set(err, -errno, "stat '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return nest_err_say(err, -EEXIST,
			"listen on '%s': this is another kind of file; remove it or choose another "
			"path",
			path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return nest_err_set(err, -errno, "make socket");
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		(errno == ECONNREFUSED || errno == ENOENT))
		return 0;
	return nest_err_say(err, -EADDRINUSE,
		"listen on '%s': another process accepts connections there; stop it or choose "
		"another path",
		path);
}

/*
 * Binds under a name of our own, sets the mode while connect(2) is still refused (there is no listen(2) yet), and renames
 * over what a dead host left: at no time is there a moment without mode, or without a file.
 */
static int bind_and_rename(
	int fd, const char *path, unsigned mode, struct stat *ret_st, struct nest_err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s.%d", path, (int)getpid());
	int code;

	if (n < 0 || (size_t)n >= sizeof(address.sun_path))
		return nest_err_say(err, -ENAMETOOLONG,
			"listen on '%s': a socket's path may have at most 96 bytes", path);
	unlink(address.sun_path); /* of an earlier process with our pid */
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return nest_err_set(err, -errno, "bind '%s'", address.sun_path);
	if (chmod(address.sun_path, (mode_t)mode) < 0 || lstat(address.sun_path, ret_st) < 0 ||
		listen(fd, BACKLOG) < 0 || rename(address.sun_path, path) < 0) {
		code = -errno;
		unlink(address.sun_path);
		return nest_err_set(err, code, "listen on '%s'", path);
	}
	return 0;
}

int nest_http_listen_unix(
	struct nest_http_server *server, const char *path, unsigned mode, struct nest_err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	nest_autoclose int fd = -1;
	struct stat st;
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return nest_err_say(err, -ENAMETOOLONG,
			"listen on '%s': a socket's path may have at most 96 bytes", path);
	memcpy(address.sun_path, path, strlen(path));
	r = check_vacant(path, &address, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return nest_err_set(err, -errno, "make socket");
	r = bind_and_rename(fd, path, mode, &st, err);
	if (r < 0)
		return r;
	r = listener_add(server, fd, path, &st, err);
	if (r < 0) {
		unlink(path);
		return r;
	}
	nest_take_fd(fd);
	return 0;
}

/* "127.0.0.1:8080", "[::1]:8080" or ":8080" -> socket address; false for all others. */
static bool parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	const char *colon = strrchr(text, ':');
	char host[64];
	size_t len;
	int port;

	if (!colon || (size_t)(colon - text) >= sizeof(host) || !colon[1] ||
		strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5)
		return false;
	port = (int)strtol(colon + 1, NULL, 10);
	len = (size_t)(colon - text);
	memcpy(host, text, len);
	host[len] = '\0';
	if (port > 65535)
		return false;
	*ret_len = sizeof(*v6);
	if (len == 0)
		return uv_ip6_addr("::", port, v6) == 0;
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		return uv_ip6_addr(host + 1, port, v6) == 0;
	}
	*ret_len = sizeof(*v4);
	return uv_ip4_addr(host, port, v4) == 0;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static int listen_tcp(struct nest_http_server *server, const char *address,
	const struct sockaddr_storage *where, socklen_t len, struct nest_err *err)
{
	nest_autoclose int fd = -1;
	const int on = 1;
	int r;

	fd = socket(where->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return nest_err_set(err, -errno, "make socket");
	/* TCP_NODELAY is inherited by what is accepted */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
		bind(fd, (const struct sockaddr *)where, len) < 0 || listen(fd, BACKLOG) < 0)
		return nest_err_set(err, -errno, "listen on '%s'", address);
	r = listener_add(server, fd, NULL, NULL, err);
	if (r == 0)
		nest_take_fd(fd);
	return r;
}

int nest_http_listen_tcp(struct nest_http_server *server, const char *address, struct nest_err *err)
{
	struct sockaddr_storage where = { .ss_family = AF_UNSPEC };
	socklen_t len;

	if (!parse_address(address, &where, &len) || !is_loopback(&where))
		return nest_err_say(err, -EINVAL,
			"listen on '%s': only loopback is allowed, as in '127.0.0.1:8080' or "
			"'[::1]:8080'",
			address);
	return listen_tcp(server, address, &where, len, err);
}

int nest_http_listen_anywhere(
	struct nest_http_server *server, const char *address, struct nest_err *err)
{
	struct sockaddr_storage where = { .ss_family = AF_UNSPEC };
	socklen_t len;

	if (!parse_address(address, &where, &len))
		return nest_err_say(err, -EINVAL,
			"listen on '%s': this must be an address and a port, as in '0.0.0.0:9090' "
			"or '[::]:9090', or a port alone, as in ':9090'",
			address);
	return listen_tcp(server, address, &where, len, err);
}

unsigned nest_http_listen_port(const struct nest_http_server *server)
{
	const struct nest_http_listener *listener;
	struct sockaddr_storage where;
	socklen_t len = sizeof(where);

	LL_FOREACH(server->listeners, listener) {
		if (listener->path ||
			getsockname(listener->fd, (struct sockaddr *)&where, &len) < 0)
			continue;
		if (where.ss_family == AF_INET)
			return ntohs(((struct sockaddr_in *)&where)->sin_port);
		return ntohs(((struct sockaddr_in6 *)&where)->sin6_port);
	}
	return 0;
}
