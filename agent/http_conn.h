/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_HTTP_CONN_H
#define NEST_AGENT_HTTP_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <llhttp.h>
#include <uv.h>

#include "agent/http.h"
#include "base/buf.h"

/*
 * The inside of the HTTP server, shared by the http*.c files and by tests; others use http.h.
 *
 * A connection *is* its exchange: requests of one connection are served one after the other. It holds
 * no buffer while it idles: a block (below) comes from the server's spares with the first byte and
 * goes back when the last request that was read is answered.
 *
 *            first byte            head complete          body complete
 *   HEAD (idle) -----> HEAD ---------------> BODY ---------------> DONE
 *     ^                  | bad                | bad or too large     |
 *     |                  v                    v                      | answer over and written
 *     |               LINGER <----------------+----------------------+-----> (closed)
 *     +--------------------------------------------------------------+
 *
 * The owner's side of it is @answer: NONE until it responds, STREAM between respond_head and send_end,
 * OVER when it has no more to say. A new request is parsed only when the last is DONE and OVER.
 */

#define NEST_HTTP_BLOCK_BYTES 16384u   /* what one connection reads of heads and pipelined bytes */
#define NEST_HTTP_SCRATCH_BYTES 65536u /* what one read takes of a body */
#define NEST_HTTP_SPARE_BLOCKS 64u     /* kept for reuse while connections are open */
#define NEST_HTTP_READ_ROOM 2048u      /* the least that is worth a read */
#define NEST_HTTP_SKIP_BYTES (64u << 10)   /* of a body nobody wants, to keep its connection */
#define NEST_HTTP_LINGER_BYTES (64u << 20) /* thrown away before the client is cut off */
#define NEST_HTTP_LINGER_MS 5000u
#define NEST_HTTP_HIGH_BYTES (128u << 10) /* unsent bytes at which senders are told to pause */
#define NEST_HTTP_LOW_BYTES (32u << 10)	  /* and at which they may go on */

struct nest_http_block {
	struct nest_http_block *next;
	struct nest_http_header *headers;
	uint32_t headers_cap;
	uint32_t cap;	      /* of bytes */
	char short_path[256]; /* a path cut from its query, where it fits */
	char *bytes;
};

enum nest_http_phase {
	NEST_HTTP_HEAD,
	NEST_HTTP_BODY,
	NEST_HTTP_DONE,
	NEST_HTTP_LINGER, /* the answer is out; what still comes is thrown away so that it is not lost */
};

enum nest_http_answer {
	NEST_HTTP_ANSWER_NONE,
	NEST_HTTP_ANSWER_STREAM,
	NEST_HTTP_ANSWER_OVER,
};

/* Timeouts of one class have one length, so each list is in the order of its deadlines. */
enum nest_http_wait {
	NEST_HTTP_WAIT_HEADER,
	NEST_HTTP_WAIT_BODY,
	NEST_HTTP_WAIT_IDLE,
	NEST_HTTP_WAIT_WRITE,
	NEST_HTTP_WAIT_LINGER,
	NEST_HTTP_WAITS,
	NEST_HTTP_WAIT_NOTHING = NEST_HTTP_WAITS,
};

struct nest_http_exchange {
	struct nest_http_server *server;
	void *owner;
	struct nest_http_block *block; /* NULL while idle */
	uint32_t pos;		       /* block->bytes[pos..len) is not parsed yet */
	uint32_t len;
	uint32_t head_start; /* where the current head begins in the block */
	uint32_t head_end; /* and where it ends: below it nothing moves until the answer is over */
	uint32_t nheaders;
	uint32_t target_len;
	uint64_t body_left;    /* of content-length */
	uint64_t body_total;   /* so far, chunked */
	uint32_t framing_left; /* bytes that chunk extensions and trailers may still take */
	int events;	       /* what the poll handle watches */
	uint8_t phase;
	uint8_t answer;
	uint8_t wait;
	bool pumping : 1; /* in the parse loop: answers gather */
	bool closing : 1;
	bool broken : 1;      /* the socket failed; it closes when the turn ends */
	bool input_ended : 1; /* end of stream was read, or is not waited for */
	bool paused : 1;      /* by the owner */
	bool chunked_in : 1;
	bool chunked_out : 1;
	bool no_body_out : 1; /* HEAD, 204, 304: body bytes are swallowed */
	bool keepalive : 1;   /* after this exchange */
	bool fresh : 1;	      /* no byte came yet */
	bool old_client : 1;  /* HTTP/1.0 */
	bool expects : 1;     /* 100-continue, not sent yet */
	bool name_open : 1;   /* the parser is inside a header's name */
	bool head_done : 1;   /* what the parser sees from here on are trailers */
	bool message_done : 1;
	bool delivered : 1; /* the owner knows of this exchange */
	bool linger : 1;    /* close only after the client had time to read the answer */
	bool tell_writable : 1;
	bool dirty : 1;	     /* on the server's list of those to flush */
	bool blocked : 1;    /* the socket takes no more: waits for POLLOUT */
	bool discard : 1;    /* the answer is over, the body's rest is thrown away */
	int64_t length_left; /* of an announced response body; -1: not announced */
	struct nest_buf out; /* unsent bytes */
	uint64_t deadline_ms;
	struct nest_http_exchange *wait_prev, *wait_next;
	struct nest_http_exchange *prev, *next; /* all connections */
	struct nest_http_exchange *dirty_prev, *dirty_next;
	const char *why; /* what a parser callback refused */
	uint16_t why_status;
	char *decoded; /* end of a chunked body's bytes, decoded in place */
	char *long_path;
	uint64_t lingered;
	int fd;
	struct nest_http_request request;
	llhttp_t parser;
	uv_poll_t poll;
};

struct nest_http_listener {
	struct nest_http_listener *next;
	struct nest_http_server *server;
	uv_poll_t poll;
	int fd;
	bool watching;
	char *path; /* unix: removed at close while it is still this file */
	dev_t dev;
	ino_t ino;
};

struct nest_http_server {
	uv_loop_t *loop;
	struct nest_http_limits limits;
	struct nest_http_events events;
	void *arg;
	struct nest_http_listener *listeners;
	struct nest_http_exchange *connections;
	struct nest_http_exchange *waits[NEST_HTTP_WAITS];
	struct nest_http_exchange *dirty;
	struct nest_http_block *spares;
	uint32_t nspares;
	uint32_t nconnections;
	uint64_t connections_total;
	struct nest_buf head; /* where response heads are made */
	struct nest_buf out;  /* a spare for connections' output */
	char *scratch;	      /* NEST_HTTP_SCRATCH_BYTES, shared by all reads of bodies */
	uv_timer_t timer;
	uv_prepare_t prepare;
	uv_check_t check;
	uint64_t timer_due_ms;	  /* 0: not armed */
	uint64_t accept_again_ms; /* out of descriptors until then; 0: not */
	uint64_t date_at_ms;
	char date[32];
	uint32_t open_handles;
	bool draining;
	bool closing;
	void (*sent_cb)(void *arg); /* NULL: nobody waits for it */
	void *sent_arg;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* ---- http.c: the server ---- */

/* Puts @conn on the list of @wait, from now on; NEST_HTTP_WAIT_NOTHING takes it off. */
void nest_http_wait(struct nest_http_exchange *conn, enum nest_http_wait wait);

/* Stops accepting: for @ms, or (0) until a connection closes. */
void nest_http_accept_pause(struct nest_http_server *server, unsigned ms);

/* Begins to accept again where the limits and draining allow it. */
void nest_http_accept_resume(struct nest_http_server *server);

/* Counts a closed handle or connection; the last one ends a closing server. */
void nest_http_handle_closed(struct nest_http_server *server);

/* ---- http_listen.c ---- */

/* Stops watching; the listener keeps its socket. */
void nest_http_listen_pause(struct nest_http_listener *listener);
void nest_http_listen_watch(struct nest_http_listener *listener);

/* Closes all listeners of @server and removes their socket files. */
void nest_http_listen_close_all(struct nest_http_server *server);

/* The port of the first TCP listener, for tests that bind port 0; 0 if there is none. */
unsigned nest_http_listen_port(const struct nest_http_server *server);

/* ---- http_conn.c: one connection ---- */

/* Takes @fd, a connected non-blocking stream socket, as a new connection. 0 or -errno, @fd then closed. */
int nest_http_conn_open(struct nest_http_server *server, int fd);

/* Closes at once; an owner that still waits hears gone unless @quietly. Freed on a later turn. */
void nest_http_conn_close(struct nest_http_exchange *conn, bool quietly);

/* After anything changed: parses what is there, then sets polling and timers. */
void nest_http_conn_advance(struct nest_http_exchange *conn);

/* Closes it if it idles, also with nothing unread; for a server that drains. */
void nest_http_conn_drain(struct nest_http_exchange *conn);

/* The deadline of @conn passed. */
void nest_http_conn_expired(struct nest_http_exchange *conn);

/* Answers with an error of the server's own and closes afterwards; an owner hears gone first. */
void nest_http_conn_refuse(struct nest_http_exchange *conn, unsigned status, const char *why);

/* ---- http_block.c ---- */

/* A block with room for the server's limits; NULL on lack of memory. */
struct nest_http_block *nest_http_block_take(struct nest_http_server *server);

/* Back to the spares, or freed. NULL is fine. */
void nest_http_block_give(struct nest_http_server *server, struct nest_http_block *block);

/*
 * Makes sure that @conn's block has @n free bytes behind its input, moving or growing it; the head's
 * slices move along. 0 or -ENOMEM.
 */
int nest_http_block_reserve(struct nest_http_exchange *conn, uint32_t n);

/* Frees the spares. */
void nest_http_block_free_spares(struct nest_http_server *server);

/* ---- http_parse.c ---- */

/* Makes the parser ready for a new head at conn->pos. */
void nest_http_parse_begin(struct nest_http_exchange *conn);

/*
 * Parses the head from what is unparsed: 0 it is complete and checked, 1 more bytes are needed, or the
 * status (400, ...) to refuse it with, *@ret_why set.
 */
int nest_http_parse_head(struct nest_http_exchange *conn, const char **ret_why);

/*
 * Decodes chunked bytes in place: *@ret_n decoded bytes now begin at @bytes, *@ret_used of @n were
 * taken, *@ret_complete says that the body has ended. 0 or the status to refuse it with.
 */
int nest_http_parse_chunked(struct nest_http_exchange *conn, char *bytes, size_t n, size_t *ret_n,
	size_t *ret_used, bool *ret_complete, const char **ret_why);

/* ---- http_head.c: checks of a complete head ---- */

/* Checks and normalises target, host and framing headers. 0 or the status, *@ret_why set. */
int nest_http_head_check(struct nest_http_exchange *conn, const char **ret_why);

/* ---- http_write.c ---- */

/* Writes what is unsent. -errno when the socket failed (EAGAIN is no failure). */
int nest_http_write_flush(struct nest_http_exchange *conn);

/* Puts raw bytes out ("100 Continue"). 0 or -errno. */
int nest_http_write_raw(struct nest_http_exchange *conn, const char *bytes, size_t n);

/* Has @conn flushed and advanced when this turn of the loop ends. */
void nest_http_write_later(struct nest_http_exchange *conn);

/* Gives the output storage back once it is empty. */
void nest_http_write_release(struct nest_http_exchange *conn);

/* Takes @conn off the list of those to flush. */
void nest_http_write_forget(struct nest_http_exchange *conn);

/* The server's turn ends: flushes all that were written to in it. */
void nest_http_write_turn(struct nest_http_server *server);

#endif
