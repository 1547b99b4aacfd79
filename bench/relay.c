/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slow link for bench/loader, where the kernel has no netem:
 *
 *	relay TARGET_PORT
 *
 * Listens on a port of 127.0.0.1, which it prints, and passes each connection on to TARGET_PORT: there
 * and back takes LATENCY_US, as does the handshake, and each direction of each connection carries RATE
 * bytes a second. All of it once a millisecond in one thread, so that what is measured keeps its CPUs.
 * Slow start, which a real link adds, is not there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#define LATENCY_US 20000u
#define RATE 50u /* bytes a microsecond */
#define TICK_NS 1000000L
#define BURST (RATE * 3000u) /* what a late tick may catch up on */
#define LANE (2u << 20)	     /* more than what is on its way at RATE */
#define MARKS 256u

/* Bytes that came together. */
struct mark {
	uint64_t due_us;
	size_t n;
};

/* One direction of a connection: a ring of bytes on their way. */
struct lane {
	int from;
	int to;
	uint64_t open_us; /* nothing enters before */
	size_t head;
	size_t len;
	unsigned first;
	unsigned n_marks;
	uint64_t credit;
	bool ended; /* @from has */
	bool shut;  /* @to was told */
	struct mark marks[MARKS];
	char bytes[LANE];
};

struct connection {
	struct connection *prev, *next;
	uint64_t ticked_us;
	struct lane lanes[2];
};

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* -1: the connection broke. */
static int take(struct lane *lane, uint64_t now)
{
	size_t tail = (lane->head + lane->len) % LANE;
	size_t room = least(LANE - lane->len, LANE - tail);
	ssize_t n;

	if (lane->ended || now < lane->open_us || lane->n_marks == MARKS || room == 0)
		return 0;
	n = recv(lane->from, lane->bytes + tail, room, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	lane->ended = n == 0;
	if (n > 0) {
		lane->marks[(lane->first + lane->n_marks++) % MARKS] =
			(struct mark){ .due_us = now + LATENCY_US / 2, .n = (size_t)n };
		lane->len += (size_t)n;
	}
	return 0;
}

static size_t count_due(const struct lane *lane, uint64_t now)
{
	size_t due = 0;

	for (unsigned i = 0; i < lane->n_marks; i++) {
		const struct mark *mark = &lane->marks[(lane->first + i) % MARKS];

		if (mark->due_us > now)
			break;
		due += mark->n;
	}
	return due;
}

static void forget(struct lane *lane, size_t n)
{
	lane->len -= n;
	lane->head = lane->len > 0 ? (lane->head + n) % LANE : 0;
	lane->credit -= n;
	while (n > 0) {
		struct mark *mark = &lane->marks[lane->first];
		size_t step = least(n, mark->n);

		mark->n -= step;
		n -= step;
		if (mark->n > 0)
			break;
		lane->first = (lane->first + 1) % MARKS;
		lane->n_marks--;
	}
}

static int give(struct lane *lane, uint64_t now)
{
	size_t due = least(count_due(lane, now), least(lane->credit, LANE - lane->head));
	ssize_t n = 0;

	if (due > 0)
		n = send(lane->to, lane->bytes + lane->head, due, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	forget(lane, (size_t)n);
	if (lane->ended && lane->len == 0 && !lane->shut) {
		shutdown(lane->to, SHUT_WR);
		lane->shut = true;
	}
	return 0;
}

/* Whether the connection goes on. */
static bool tick(struct connection *connection, uint64_t now)
{
	uint64_t passed = now - connection->ticked_us;
	int rc = 0;

	connection->ticked_us = now;
	for (int i = 0; rc == 0 && i < 2; i++) {
		struct lane *lane = &connection->lanes[i];

		lane->credit = least(lane->credit + passed * RATE, BURST);
		rc = take(lane, now);
		if (rc == 0)
			rc = give(lane, now);
	}
	return rc == 0 && !(connection->lanes[0].shut && connection->lanes[1].shut);
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void open_connection(struct connection **all, int client, uint16_t port)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int server = connection ? connect_to(port) : -1;
	int on = 1;

	if (server < 0) {
		perror("relay: pass a connection on");
		free(connection);
		close(client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	connection->ticked_us = now_us();
	connection->lanes[0].from = connection->lanes[1].to = client;
	connection->lanes[0].to = connection->lanes[1].from = server;
	connection->lanes[0].open_us = connection->ticked_us + LATENCY_US;
	DL_APPEND(*all, connection);
}

static void close_connection(struct connection **all, struct connection *connection)
{
	DL_DELETE(*all, connection);
	close(connection->lanes[0].from);
	close(connection->lanes[0].to);
	free(connection);
}

static void run(int listener, uint16_t target)
{
	const struct timespec pause = { .tv_nsec = TICK_NS };
	struct connection *all = NULL;

	for (;;) {
		struct pollfd wait = { .fd = listener, .events = POLLIN };
		struct connection *connection, *next;
		uint64_t now;

		if (poll(&wait, 1, all ? 0 : -1) > 0) {
			int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			if (client >= 0)
				open_connection(&all, client, target);
			continue;
		}
		now = now_us();
		DL_FOREACH_SAFE(all, connection, next)
			if (!tick(connection, now))
				close_connection(&all, connection);
		nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	long target = argc == 2 ? strtol(argv[1], NULL, 10) : 0;

	if (target <= 0 || target > 65535) {
		fprintf(stderr, "usage: relay TARGET_PORT\n");
		return 2;
	}
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(listener, 64) < 0 ||
		getsockname(listener, (struct sockaddr *)&address, &n) < 0) {
		perror("relay: listen");
		return 1;
	}
	printf("%u\n", (unsigned)ntohs(address.sin_port));
	fflush(stdout);
	run(listener, (uint16_t)target);
}
