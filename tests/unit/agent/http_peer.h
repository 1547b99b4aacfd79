/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_AGENT_HTTP_PEER_H
#define NEST_TESTS_UNIT_AGENT_HTTP_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

struct nest_http_server;

#define PEER_LIMIT_MS 5000 /* nothing that a test waits for takes longer */

/* A client in the server's own process: raw bytes out, raw bytes in, one loop for both sides. */
struct peer {
	uv_loop_t *loop;
	int fd;
	char *in; /* NUL-terminated, all that came and was not dropped */
	size_t n;
	size_t cap;
	bool eof; /* or a reset */
};

/* Connects over a socket pair whose other end @server takes. */
void peer_open(struct peer *peer, uv_loop_t *loop, struct nest_http_server *server);
/* Connects to a socket file, or (@path NULL) to 127.0.0.1:@port. */
void peer_connect(struct peer *peer, uv_loop_t *loop, const char *path, unsigned port);
void peer_close(struct peer *peer);

/* Runs the loop once, waiting a moment at most for something to happen; then reads what came. */
void peer_turn(struct peer *peer);
/* The same without reading: a client that does not listen. */
void peer_turn_deaf(struct peer *peer);

/* Writes all, turning the loop while the socket is full; stops where the server closes. */
void peer_send(struct peer *peer, const char *bytes, size_t n);
void peer_puts(struct peer *peer, const char *text);

/* Waits until @text has come; fails the test after PEER_LIMIT_MS. */
void peer_await(struct peer *peer, const char *text);
void peer_await_eof(struct peer *peer);
void peer_await_true(struct peer *peer, const bool *flag);
/* Waits for a whole answer with content-length and returns its status; its body is *@ret_body of *@ret_n. */
unsigned peer_await_answer(struct peer *peer, const char **ret_body, size_t *ret_n);
/* Forgets what came. */
void peer_drop(struct peer *peer);
/* How often @text came. */
size_t peer_count(const struct peer *peer, const char *text);

/* Turns @loop until nothing is left in it, and closes it. */
void peer_finish_loop(uv_loop_t *loop);

#endif
