/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_HTTP_H
#define NEST_AGENT_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct nest_err;

/*
 * An HTTP/1.1 server on a unix socket or on loopback TCP, parsed by llhttp: what the gateway and the admin
 * API both stand on. Keep-alive and pipelining (requests of one connection are served one after the
 * other, answers in order), chunked bodies both ways, Expect: 100-continue, limits on all that a
 * client controls. Loop thread only.
 *
 * One request is an *exchange*. Its owner gets request -> body* -> complete, answers with
 * nest_http_respond*(), and hears gone if the client leaves first.
 */
struct nest_http_server;
struct nest_http_exchange;

struct nest_http_limits {
	uint32_t connections;	    /* at once; above it a new one waits in the kernel's backlog */
	uint32_t header_bytes;	    /* request line and headers together: 431 above */
	uint32_t header_count;	    /* 431 above */
	uint64_t body_bytes;	    /* 413 above, before a byte of it is read when announced */
	uint32_t header_timeout_ms; /* from first byte (or accept) to the end of the headers: 408 */
	uint32_t body_idle_ms;	    /* a request body that stops coming: 408, then closed */
	uint32_t keepalive_ms;	    /* idle between requests: closed */
	uint32_t write_idle_ms;	    /* a client that takes no response bytes: closed */
};

struct nest_http_header {
	const char *name;  /* lower case, NUL-terminated */
	const char *value; /* NUL-terminated, no control characters */
	uint32_t name_len;
	uint32_t value_len;
};

/* Valid until the exchange is answered and complete. */
struct nest_http_request {
	const char *method; /* "GET" */
	const char *target; /* as received */
	const char *path;   /* target up to '?', NUL-terminated, still percent-encoded */
	const char *query;  /* behind '?', or "" */
	const struct nest_http_header *headers;
	size_t nheaders;
	int64_t content_length; /* -1: chunked; 0: no body */
};

/* The value of the first header @name (lower case), or NULL. */
const char *nest_http_header_get(const struct nest_http_request *request, const char *name);

/*
 * Whether the comma-separated list @value holds @token (lower case) in any case of letters; what follows a
 * ';' in an element does not count. Any thread.
 */
bool nest_http_has_token(const char *value, const char *token);

struct nest_http_events {
	/*
	 * The head is complete. @body holds the body bytes that came in the same read, and @complete says that
	 * they are all of it; else body events follow. Answer now or later; set your own state with
	 * nest_http_set_owner().
	 */
	void (*request)(void *server_arg, struct nest_http_exchange *exchange,
		const struct nest_http_request *request, const char *body, size_t n, bool complete);
	/* More body; @complete with the last bytes (n may be 0 then). nest_http_pause() stops these. */
	void (*body)(void *owner, const char *bytes, size_t n, bool complete);
	/*
	 * All response bytes written so far have been taken by the client's socket down to the low mark: after
	 * nest_http_send() returned 1.
	 */
	void (*writable)(void *owner);
	/*
	 * The client is gone before the answer was complete; the exchange is dead after this. Not called once the answer
	 * was completed by the owner.
	 */
	void (*gone)(void *owner);
	/*
	 * The request could not be parsed or broke a limit and will be answered with @status and closed;
	 * fills @ret_body (a JSON error, static or the server's arg's storage). Optional.
	 */
	const char *(*refuse)(void *server_arg, unsigned status, const char *why);
	/*
	 * Instead of refuse, where set: the callee answers itself, now, with nest_http_respond() (headers of its own). @request is NULL
	 * where the head was not understood. An owner that had the exchange has heard gone before.
	 */
	void (*refused)(void *server_arg, struct nest_http_exchange *exchange,
		const struct nest_http_request *request, unsigned status, const char *why);
};

/* Opens a server without listeners. @events and @limits are copied. */
int nest_http_server_open(uv_loop_t *loop, const struct nest_http_limits *limits,
	const struct nest_http_events *events, void *server_arg, struct nest_http_server **ret,
	struct nest_err *err);

/*
 * Listens on a unix socket. A stale socket file (nobody accepts) is replaced, a live one is -EADDRINUSE; the file gets
 * @mode before anyone can connect, and is removed at close.
 */
int nest_http_listen_unix(
	struct nest_http_server *server, const char *path, unsigned mode, struct nest_err *err);

/* Listens on "127.0.0.1:8080" or "[::1]:8080"; other addresses are -EINVAL. */
int nest_http_listen_tcp(
	struct nest_http_server *server, const char *address, struct nest_err *err);

/*
 * Listens on any address of the machine's: "0.0.0.0:9090", "[::]:9090", or ":9090" for both of
 * these. For what everybody may read; others are -EINVAL.
 */
int nest_http_listen_anywhere(
	struct nest_http_server *server, const char *address, struct nest_err *err);

/* Replaces the limits for requests to come. */
void nest_http_set_limits(struct nest_http_server *server, const struct nest_http_limits *limits);

/* No new connections, and idle ones closed; each answer from now on says "connection: close". */
void nest_http_drain(struct nest_http_server *server);

/* Calls @cb once, on a later turn, when no connection has bytes of an answer left to send; never once it is closed. */
void nest_http_when_sent(struct nest_http_server *server, void (*cb)(void *arg), void *arg);

/* Closes everything (owners of open exchanges hear gone), then calls @cb and frees. */
void nest_http_server_close(struct nest_http_server *server, void (*cb)(void *arg), void *arg);

/* Connections open now. */
uint32_t nest_http_connections(const struct nest_http_server *server);

/* Connections accepted since the server was opened. */
uint64_t nest_http_connections_total(const struct nest_http_server *server);

/* What the exchange's events are called with; NULL until it is set. */
void nest_http_set_owner(struct nest_http_exchange *exchange, void *owner);

/* Stops (and lets go on) the request body's events; what is buffered meanwhile is bounded by one read. */
void nest_http_pause(struct nest_http_exchange *exchange, bool pause);

/* Whether the answers below take @header: a token, a value without control characters, not one of ours. */
bool nest_http_header_ok(const struct nest_http_header *header);

/*
 * Answers whole in one write: head and body (copied). Headers must not contain content-length, transfer-encoding or
 * connection: those are made here. The exchange is over for its owner.
 */
int nest_http_respond(struct nest_http_exchange *exchange, unsigned status,
	const struct nest_http_header *headers, size_t nheaders, const void *body, size_t n);

/*
 * Begins a streamed answer. @content_length >= 0 is announced and enforced; -1 means chunked (or until close for HTTP/1.0).
 * The bytes are gathered and written at the latest at the end of this loop turn. 0 or -errno.
 */
int nest_http_respond_head(struct nest_http_exchange *exchange, unsigned status,
	const struct nest_http_header *headers, size_t nheaders, int64_t content_length);

/* Body bytes (copied). 0; 1: taken, but pause until writable; -errno. */
int nest_http_send(struct nest_http_exchange *exchange, const void *bytes, size_t n);

/* The streamed answer is complete; the exchange is over for its owner. */
void nest_http_send_end(struct nest_http_exchange *exchange);

/* Breaks the connection so that the client sees the answer was cut; over for its owner. */
void nest_http_abort(struct nest_http_exchange *exchange);

/* The reason phrase of a status. Any thread. */
const char *nest_http_reason(unsigned status);

#endif
