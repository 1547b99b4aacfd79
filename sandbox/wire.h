/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_WIRE_H
#define NEST_SANDBOX_WIRE_H

#include <stddef.h>
#include <stdint.h>

struct nest_buf;

/*
 * The wire form of protocol buffers, which CRIU's requests and images have: a message is a run of
 * fields, read and written one at a time. What a reader doesn't know it can copy as it is, so that a
 * rewritten image keeps the fields of a later CRIU. Any thread.
 */

enum nest_wire_type {
	NEST_WIRE_VARINT = 0,
	NEST_WIRE_FIXED64 = 1,
	NEST_WIRE_BYTES = 2,
	NEST_WIRE_FIXED32 = 5,
};

/* What is left to read of a message. */
struct nest_wire {
	const uint8_t *at;
	size_t left;
};

struct nest_wire_field {
	uint32_t number;
	enum nest_wire_type type;
	uint64_t value;	      /* but of NEST_WIRE_BYTES */
	struct nest_wire in;  /* of NEST_WIRE_BYTES: its bytes */
	struct nest_wire raw; /* the whole field, its tag too */
};

/* Takes the next field. 1: *@ret is one; 0: the message is over; -EBADMSG: it is none. */
int nest_wire_next(struct nest_wire *wire, struct nest_wire_field *ret);

/* Append a field; 0 or -ENOMEM. */
int nest_wire_put_varint(struct nest_buf *out, uint32_t number, uint64_t value);
int nest_wire_put_bytes(struct nest_buf *out, uint32_t number, const void *bytes, size_t n);
int nest_wire_put_string(struct nest_buf *out, uint32_t number, const char *text);
int nest_wire_put_raw(struct nest_buf *out, const struct nest_wire *raw);

/*
 * Appends message @in as @put makes it, which is called for each field and appends that, something else
 * or nothing; 0, -ENOMEM, -EBADMSG, or what @put fails with.
 */
typedef int nest_wire_put_cb(
	struct nest_buf *out, const struct nest_wire_field *field, const void *arg);
int nest_wire_put_with(
	struct nest_buf *out, struct nest_wire in, nest_wire_put_cb *put, const void *arg);

/* The same for @field, which is a message. For use in such a callback. */
int nest_wire_put_inside(struct nest_buf *out, const struct nest_wire_field *field,
	nest_wire_put_cb *put, const void *arg);

#endif
