/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <llhttp.h>

#include "base/clock.h"

/*
 * A closed-loop HTTP/1.1 load generator for unix sockets, single-threaded: every connection has one
 * request out, and sends the next when its answer is complete. Prints one JSON object. An answer
 * that is not 200, or a connection that breaks, counts as an error and is never timed.
 */

enum {
	LOAD_CONNECTIONS_MAX = 4096
};

struct connection {
	int fd;
	llhttp_t parser;
	uint64_t sent_us;
	size_t out; /* bytes of the request written so far */
	bool complete;
};

struct load {
	struct connection *connections;
	unsigned nconnections;
	int epoll;
	const char *request;
	size_t request_len;
	struct sockaddr_un addr;
	uint64_t *latencies_us;
	size_t nlatencies;
	size_t cap;
	uint64_t measure_from_us;
	uint64_t ok;
	uint64_t errors;
};

static int on_complete(llhttp_t *parser)
{
	((struct connection *)parser->data)->complete = true;
	return HPE_PAUSED;
}

static llhttp_settings_t settings;

static int connection_open(struct load *load, struct connection *c)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&load->addr, sizeof(load->addr)) != 0)
		return -errno;
	llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
	c->parser.data = c;
	return epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) == 0 ? 0 : -errno;
}

static int send_request(struct load *load, struct connection *c)
{
	c->sent_us = nest_clock_mono_us();
	c->complete = false;
	for (c->out = 0; c->out < load->request_len;) {
		ssize_t n = send(
			c->fd, load->request + c->out, load->request_len - c->out, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		c->out += (size_t)n;
	}
	return 0;
}

static void record(struct load *load, struct connection *c)
{
	uint64_t now = nest_clock_mono_us();

	if (c->parser.status_code != 200) {
		load->errors++;
		return;
	}
	if (c->sent_us < load->measure_from_us)
		return;
	load->ok++;
	if (load->nlatencies < load->cap)
		load->latencies_us[load->nlatencies++] = now - c->sent_us;
}

static void reconnect(struct load *load, struct connection *c)
{
	load->errors++;
	close(c->fd);
	if (connection_open(load, c) < 0 || send_request(load, c) < 0) {
		perror("reconnect");
		exit(1);
	}
}

static void on_readable(struct load *load, struct connection *c)
{
	static char bytes[65536];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
	enum llhttp_errno e;

	if (n <= 0) {
		reconnect(load, c);
		return;
	}
	e = llhttp_execute(&c->parser, bytes, (size_t)n);
	if (e != HPE_OK && e != HPE_PAUSED) {
		reconnect(load, c);
		return;
	}
	if (!c->complete)
		return;
	record(load, c);
	if (!llhttp_should_keep_alive(&c->parser)) {
		reconnect(load, c);
		return;
	}
	llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
	c->parser.data = c;
	if (send_request(load, c) < 0)
		reconnect(load, c);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double percentile_ms(const struct load *load, double p)
{
	size_t i = (size_t)(p * (double)load->nlatencies);

	if (load->nlatencies == 0)
		return 0;
	return (double)load->latencies_us[i < load->nlatencies ? i : load->nlatencies - 1] / 1e3;
}

static void run(struct load *load, double warmup_s, double seconds)
{
	uint64_t start = nest_clock_mono_us();
	uint64_t end = start + (uint64_t)((warmup_s + seconds) * 1e6);
	struct epoll_event events[256];

	load->measure_from_us = start + (uint64_t)(warmup_s * 1e6);
	for (unsigned i = 0; i < load->nconnections; i++) {
		if (connection_open(load, &load->connections[i]) < 0 ||
			send_request(load, &load->connections[i]) < 0) {
			perror(load->addr.sun_path);
			exit(1);
		}
	}
	while (nest_clock_mono_us() < end) {
		int n = epoll_wait(load->epoll, events, 256, 100);

		for (int i = 0; i < n; i++)
			on_readable(load, events[i].data.ptr);
	}
	qsort(load->latencies_us, load->nlatencies, sizeof(*load->latencies_us), by_value);
	printf("{\"rps\":%.1f,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"ok\":%llu,\"errors\":%llu}"
	       "\n",
		(double)load->ok / seconds, percentile_ms(load, 0.5), percentile_ms(load, 0.9),
		percentile_ms(load, 0.99), (unsigned long long)load->ok,
		(unsigned long long)load->errors);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "unix", required_argument, NULL, 'u' },
		{ "connections", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 's' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "path", required_argument, NULL, 'p' }, { "body", required_argument, NULL, 'b' },
		{ .name = NULL } };
	const char *path = "/", *body = "{}", *socket_path = NULL;
	struct load load = { .nconnections = 64, .cap = 8u << 20 };
	double seconds = 5, warmup = 1;
	char *request;
	int got;

	while ((got = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (got) {
		case 'u':
			socket_path = optarg;
			break;
		case 'c':
			load.nconnections = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			seconds = strtod(optarg, NULL);
			break;
		case 'w':
			warmup = strtod(optarg, NULL);
			break;
		case 'p':
			path = optarg;
			break;
		case 'b':
			body = optarg;
			break;
		default:
			return 2;
		}
	}
	if (!socket_path || strlen(socket_path) >= sizeof(load.addr.sun_path) ||
		load.nconnections == 0 || load.nconnections > LOAD_CONNECTIONS_MAX) {
		fprintf(stderr, "usage: load --unix SOCKET [--connections N] [--seconds S] "
				"[--warmup S] [--path PATH] [--body JSON]\n");
		return 2;
	}
	load.addr.sun_family = AF_UNIX;
	memcpy(load.addr.sun_path, socket_path, strlen(socket_path));
	load.request_len = (size_t)asprintf(&request,
		"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
		"content-length: %zu\r\n\r\n%s",
		path, strlen(body), body);
	load.request = request;
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	load.connections = calloc(load.nconnections, sizeof(*load.connections));
	load.latencies_us = malloc(load.cap * sizeof(*load.latencies_us));
	if (load.epoll < 0 || !load.connections || !load.latencies_us)
		return 1;
	llhttp_settings_init(&settings);
	settings.on_message_complete = on_complete;
	run(&load, warmup, seconds);
	return 0;
}
