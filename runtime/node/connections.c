/* SPDX-License-Identifier: Apache-2.0 */

/*
 * TCP connections of a worker that is about to be frozen. They can't be its clones', so park() ends
 * them, and puts a connection that its peer has closed in the place of each. Whoever waits for one
 * in an epoll does not notice yet, else it would connect anew, and be frozen with that; announce(),
 * in the clone, has them notice. Reading then ends, writing fails with EPIPE: what every program
 * that keeps connections expects of them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/node/node_api.h"

/* An entry of an epoll for a connection. */
struct watch {
	struct watch *next;
	int epoll, fd;
	struct epoll_event event;
};

static struct watch *parked;

/*
 * A connection that was begun, and has perhaps ended: a socket that never was one says ENOTCONN, and
 * may be used yet.
 */
static bool is_connection(int fd)
{
	int domain = 0, type = 0, listens = 0;
	socklen_t n = sizeof(int);
	struct tcp_info info = { .tcpi_state = 0 };
	socklen_t info_n = sizeof(info);
	char byte;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 ||
		(domain != AF_INET && domain != AF_INET6) ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) < 0 || listens ||
		getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_n) < 0)
		return false;
	return info.tcpi_state != TCP_CLOSE || recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
	       errno != ENOTCONN;
}

static int replace(int fd)
{
	int flags = fcntl(fd, F_GETFL), own = fcntl(fd, F_GETFD);
	int pair[2];
	int r = 0;

	if (flags < 0 || own < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	close(pair[1]);
	if (fcntl(pair[0], F_SETFL, flags & O_NONBLOCK) < 0 ||
		dup3(pair[0], fd, own & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		r = -errno;
	close(pair[0]);
	return r;
}

/* Notes who waits for @fd in @epoll: a line of its fdinfo for each descriptor. */
static int note_watches(int epoll, int fd)
{
	char path[64], *line = NULL;
	size_t room = 0;
	FILE *file;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
	file = fopen(path, "re");
	while (r == 0 && file && getline(&line, &room, file) > 0) {
		unsigned long long data;
		unsigned int events;
		struct watch *watch;
		int watched;

		if (sscanf(line, "tfd: %d events: %x data: %llx", &watched, &events, &data) != 3 ||
			watched != fd)
			continue;
		watch = malloc(sizeof(*watch));
		if (!watch) {
			r = -ENOMEM;
			break;
		}
		*watch = (struct watch){ .next = parked, .epoll = epoll, .fd = fd };
		watch->event.events = events;
		watch->event.data.u64 = data;
		parked = watch;
	}
	free(line);
	if (file)
		fclose(file);
	return r;
}

static int each_descriptor(int (*visit)(int fd, int arg), int arg)
{
	DIR *list = opendir("/proc/self/fd");
	struct dirent *entry;
	int r = list ? 0 : -errno;

	while (r == 0 && (entry = readdir(list))) {
		int fd = (int)strtol(entry->d_name, NULL, 10);

		if (entry->d_name[0] != '.' && fd != dirfd(list))
			r = visit(fd, arg);
	}
	if (list)
		closedir(list);
	return r;
}

static int visit_epoll(int fd, int connection)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = '\0';
	return strcmp(link, "anon_inode:[eventpoll]") == 0 ? note_watches(fd, connection) : 0;
}

static int visit(int fd, int arg)
{
	int r;

	(void)arg;
	if (!is_connection(fd))
		return 0;
	r = each_descriptor(visit_epoll, fd);
	return r < 0 ? r : replace(fd);
}

static napi_value park(napi_env env, napi_callback_info info)
{
	int r = each_descriptor(visit, 0);

	(void)info;
	if (r < 0)
		napi_throw_error(env, NULL, strerror(-r));
	return NULL;
}

static napi_value announce(napi_env env, napi_callback_info info)
{
	(void)env;
	(void)info;
	while (parked) {
		struct watch *watch = parked;

		parked = watch->next;
		/* one that was closed since has nobody who waits for it */
		epoll_ctl(watch->epoll, EPOLL_CTL_ADD, watch->fd, &watch->event);
		free(watch);
	}
	return NULL;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	napi_value function;

	if (napi_create_function(env, "park", 4, park, NULL, &function) != 0 ||
		napi_set_named_property(env, exports, "park", function) != 0 ||
		napi_create_function(env, "announce", 8, announce, NULL, &function) != 0 ||
		napi_set_named_property(env, exports, "announce", function) != 0)
		return NULL;
	return exports;
}
