/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FRAME_H
#define NEST_RUNTIME_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/call.h"

struct nest_err;

/*
 * The bytes of the worker protocol (docs/worker-protocol.md): frames and heads to and from memory,
 * nothing else. Parsers work in place and trust no byte.
 */
#define NEST_FRAME_HEADER 12u
#define NEST_FRAME_PAYLOAD_MAX (1u << 20)
#define NEST_FRAME_BODY_MAX 65536u
#define NEST_FRAME_CREDIT 262144u   /* of a direction of a stream at its birth */
#define NEST_FRAME_HEADERS_MAX 256u /* fields of one response head */
#define NEST_FRAME_FIN 1u

enum nest_frame_type {
	NEST_FRAME_HELLO = 1,
	NEST_FRAME_INIT,
	NEST_FRAME_READY,
	NEST_FRAME_REQUEST,
	NEST_FRAME_RESPONSE,
	NEST_FRAME_BODY,
	NEST_FRAME_ERROR,
	NEST_FRAME_CREDIT_MORE,
	NEST_FRAME_CANCEL,
	NEST_FRAME_LOG,
	NEST_FRAME_PING,
	NEST_FRAME_PONG,
	NEST_FRAME_DRAIN,
	NEST_FRAME_CHECKPOINT,
	NEST_FRAME_RESTORED,
	NEST_FRAME_TYPES
};

/* One frame as received; @payload lies in the reader's buffer. */
struct nest_frame {
	uint32_t length;
	uint32_t stream;
	uint8_t type;
	bool fin;
	const char *payload;
};

/* "RESPONSE", ...; "unknown" for a number that is no type. Any thread. */
const char *nest_frame_name(unsigned type);

/*
 * Parses the frame that @n bytes from a worker begin with. 0: *@ret is it, NEST_FRAME_HEADER +
 * length bytes long. 1: more bytes are needed, *@ret_need in all (may be NULL). -EPROTO: no worker
 * may send this; @err says what is wrong. Any thread.
 */
int nest_frame_parse(const char *bytes, size_t n, struct nest_frame *ret, size_t *ret_need,
	struct nest_err *err);

/* Writes a frame's header to @to. Any thread. */
void nest_frame_put_header(char to[static NEST_FRAME_HEADER], enum nest_frame_type type, bool fin,
	uint32_t stream, uint32_t length);

/*
 * Bytes of the head that nest_frame_put_request() writes for @request; 0: it does not fit into a
 * frame. Any thread.
 */
size_t nest_frame_request_size(const struct nest_call_request *request);

/* Writes the request head, with a deadline of 0, to @to. Any thread. */
void nest_frame_put_request(char *to, const struct nest_call_request *request);

/* Sets the deadline in a request head. Any thread. */
void nest_frame_set_deadline(char *head, uint64_t deadline_ms);

/* A response as a worker sent it; slices of the frame. */
struct nest_frame_response {
	unsigned status;
	size_t nheaders;
	const char *body;
	uint32_t body_len;
};

/*
 * Parses a RESPONSE payload; @http says whether the request was. Header names must be lower-case
 * tokens, values free of control characters. -EPROTO with a reason otherwise. Any thread.
 */
int nest_frame_parse_response(const struct nest_frame *frame, bool http,
	struct nest_call_header headers[static NEST_FRAME_HEADERS_MAX],
	struct nest_frame_response *ret, struct nest_err *err);

/* A worker's LOG frame. */
struct nest_frame_log {
	int stream;	   /* 1 stdout, 2 stderr */
	const char *level; /* "info", ...; NULL: none */
	const char *text;
	uint32_t len;
};

/* Parses a LOG payload. -EPROTO with a reason. Any thread. */
int nest_frame_parse_log(
	const struct nest_frame *frame, struct nest_frame_log *ret, struct nest_err *err);

/* The number in a CREDIT frame; 0 is never valid. Any thread. */
uint32_t nest_frame_credit(const struct nest_frame *frame);

/* Writes a u32 as frames carry it. Any thread. */
void nest_frame_put_u32(char to[static 4], uint32_t value);

#endif
