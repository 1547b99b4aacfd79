/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_INVOKE_H
#define NEST_AGENT_INVOKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/gateway.h"
#include "agent/http.h"
#include "agent/request_id.h"
#include "base/buf.h"
#include "runtime/call.h"
#include "runtime/function.h"
#include "runtime/host.h"

/*
 * The inside of the gateway, shared by gateway.c and invoke*.c. One *invoke* carries one request: it stands
 * between an HTTP exchange and a call of the host, and lives as long as either.
 *
 *     NOTHING --response--> HEAD --body, not the last, or the turn ends--> STREAM --end--> (done)
 *        |                    |                                              |
 *        | fail               | last body or end: answered whole             | fail: cut
 *        v                    v                                              v
 *      an error             ANSWERED --end--> (done)                       (done)
 *
 * The head waits in HEAD until the turn ends, so that a small response leaves with its length in one write.
 */

#define NEST_INVOKE_HELD_BYTES (6u << 20)  /* of a result held back for X-Amz-Log-Type: Tail */
#define NEST_INVOKE_HEAD_BYTES (64u << 10) /* of a function's response headers */

enum nest_invoke_kind {
	NEST_INVOKE_ROUTE, /* an HTTP request for a route */
	NEST_INVOKE_EVENT, /* the Invoke API */
	NEST_INVOKE_POST,  /* the Invoke API, on a function that takes HTTP requests */
};

enum nest_invoke_progress {
	NEST_INVOKE_NOTHING,
	NEST_INVOKE_HEAD,
	NEST_INVOKE_STREAM,
	NEST_INVOKE_ANSWERED,
};

struct nest_invoke {
	struct nest_gateway *gateway;
	struct nest_http_exchange *exchange;	 /* NULL: answered, or the client is gone */
	const struct nest_http_request *request; /* as long as the exchange */
	struct nest_call *call;			 /* NULL: ended */
	enum nest_invoke_kind kind;
	enum nest_invoke_progress progress;
	bool background; /* X-Amz-Invocation-Type: Event */
	bool tail;	 /* X-Amz-Log-Type: Tail */
	bool uploaded;	 /* the request's body is complete */
	bool head_waits; /* on gateway->heads */
	bool doomed;	 /* answered or cut by us: its call is cancelled when the turn ends */
	unsigned status;
	int64_t declared;  /* the function's content-length; -1: none */
	uint64_t bytes;	   /* of the response's body so far */
	size_t unconsumed; /* taken by the connection's buffer, not yet by the client */
	uint64_t started_us;
	struct nest_http_header *headers; /* of the answer; their text is in head */
	size_t nheaders;
	size_t headers_cap;
	struct nest_buf head;
	struct nest_buf held;			   /* the result so far, with tail */
	struct nest_invoke *prev, *next;	   /* all, or the spares */
	struct nest_invoke *head_prev, *head_next; /* gateway->heads */
	char id[NEST_REQUEST_ID_MAX + 1];
	char function[NEST_FUNCTION_NAME_MAX + 1];
	char version[NEST_FUNCTION_VERSION_MAX + 1];
};

struct nest_gateway {
	uv_loop_t *loop;
	struct nest_host *host;
	struct nest_http_server *http;
	struct nest_invoke *active;
	struct nest_invoke *spares;
	unsigned nspares;
	struct nest_invoke *heads;	       /* response heads that wait for the turn's end */
	struct nest_buf text;		       /* of error bodies and log results */
	struct nest_call_header *call_headers; /* where those of one request are gathered */
	size_t call_headers_cap;
	struct nest_request_id_source ids;
	struct nest_gateway_stats stats;
	uv_prepare_t prepare;
	uv_check_t check;
	bool access_log;
	bool draining;
	unsigned open_parts;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* The headers of a request that the gateway itself reads; NULL where absent. */
struct nest_invoke_wishes {
	const struct nest_http_header *request_id;
	const struct nest_http_header *amzn_request_id;
	const struct nest_http_header *traceparent;
	const struct nest_http_header *client_context;
	const struct nest_http_header *invocation_type;
	const struct nest_http_header *log_type;
	const struct nest_http_header *deadline;
	const struct nest_http_header *host;
	const struct nest_http_header *content_type;
	const struct nest_http_header *content_length;
	const struct nest_http_header *connection;
};

/* ---- invoke_request.c: what a request asks for ---- */

/* Finds the headers that matter. */
void nest_invoke_read_headers(
	const struct nest_http_request *request, struct nest_invoke_wishes *ret_wishes);

/* Whether @path is one of the Invoke API; @ret_segment is its still encoded function part. */
bool nest_invoke_path(const char *path, const char **ret_segment, size_t *ret_len);

/*
 * Reads function and qualifier from the path's segment ("name", "name:qualifier", or an ARN, percent-encoded) and
 * the query's Qualifier. 0, or -EINVAL and *@ret_why.
 */
int nest_invoke_parse_name(const char *segment, size_t len, const char *query,
	char ret_name[NEST_FUNCTION_NAME_MAX + 1],
	char ret_qualifier[NEST_FUNCTION_VERSION_MAX + 1], const char **ret_why);

/* Reads X-Nestlet-Deadline-Ms: 0 and *@ret_ms (0: none), or -EINVAL. */
int nest_invoke_parse_deadline(const struct nest_http_header *header, uint64_t *ret_ms);

/* Whether @value is of base64's alphabet. */
bool nest_invoke_base64_ok(const char *value);

/*
 * Gathers the headers that a function gets: all but the hop-by-hop ones for a route, the body's for a POST of
 * the gateway's own; and the request's id. In gateway->call_headers; 0 or -ENOMEM.
 */
int nest_invoke_gather_headers(
	const struct nest_invoke *invoke, const struct nest_invoke_wishes *wishes, size_t *ret_n);

/* Whether @name concerns one connection only, by its nature or by @connection (may be NULL). */
bool nest_invoke_hop_by_hop(const char *name, size_t name_len, const char *connection);

/* ---- invoke.c: its life and the relay ---- */

/* A fresh one for @exchange, its owner set; NULL on lack of memory. */
struct nest_invoke *nest_invoke_new(struct nest_gateway *gateway,
	struct nest_http_exchange *exchange, const struct nest_http_request *request,
	enum nest_invoke_kind kind, const char *id, const struct nest_function_spec *spec);

/* Ends it, cancelling its call; it may not be used any more. */
void nest_invoke_free(struct nest_invoke *invoke);

/* Starts its call on @target. 0, -ENOMEM, or -EMSGSIZE for a head that no worker can be sent. */
int nest_invoke_start(struct nest_invoke *invoke, struct nest_target *target,
	const struct nest_call_request *request);

/* Answers 202 where a background call's body is complete. */
void nest_invoke_accept(struct nest_invoke *invoke);

/* The turn ends: heads that waited are sent, doomed calls cancelled. */
void nest_invoke_turn(struct nest_gateway *gateway);

/* The HTTP server's events for an invoke. */
void nest_invoke_on_body(void *owner, const char *bytes, size_t n, bool complete);
void nest_invoke_on_writable(void *owner);
void nest_invoke_on_gone(void *owner);

/* ---- invoke_answer.c: answers ---- */

/* Who asked, for an error's body and the log; any may be NULL but the gateway and the id. */
struct nest_invoke_origin {
	struct nest_gateway *gateway;
	const struct nest_http_request *request;
	const char *id;
	const char *function;
	const char *version;
	uint64_t started_us;
	bool invoke_api;
};

/* Answers @exchange with an error; it is over. */
void nest_invoke_answer_refusal(const struct nest_invoke_origin *origin,
	struct nest_http_exchange *exchange, const struct nest_refusal *refusal,
	const char *message, unsigned retry_after_s);

/* Answers an invoke whose call failed before any byte went out. */
void nest_invoke_answer_failure(struct nest_invoke *invoke, const struct nest_failure *why,
	const struct nest_call_stats *stats);

/*
 * Makes invoke->headers of the function's own and the gateway's. 0, -ENOMEM, or -EINVAL for a head
 * that can't be sent.
 */
int nest_invoke_make_head(struct nest_invoke *invoke, unsigned status,
	const struct nest_call_header *headers, size_t n);

/* Answers whole with invoke->headers; the exchange is over. */
void nest_invoke_answer_whole(struct nest_invoke *invoke, const char *bytes, size_t n,
	const struct nest_call_stats *stats);

/*
 * Counts an answer and writes its line to the access log: before it, while @origin's request stands. @status 0: the
 * client left without one.
 */
void nest_invoke_answered(const struct nest_invoke_origin *origin, unsigned status, uint64_t bytes);

/* The origin of @invoke. */
struct nest_invoke_origin nest_invoke_origin(const struct nest_invoke *invoke);

#endif
