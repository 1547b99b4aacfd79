/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_WIRE_H
#define NEST_RUNTIME_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

struct nest_err;

/*
 * What all channels of a loop share: one big read buffer, and the list of those that have something
 * to send. What is queued in one turn of the loop leaves in one write per channel when the turn's
 * I/O has been handled, just before the loop would wait.
 */
struct nest_wire;

/* A place in the wire's list, inside whoever has something to send. Zeroed: not in it. */
struct nest_wire_link {
	/* Sends, and takes the link out of the list. */
	void (*flush)(struct nest_wire_link *link);
	bool waiting;
	struct nest_wire_link *prev, *next;
};

/* Opens a wire. */
int nest_wire_open(uv_loop_t *loop, struct nest_wire **ret, struct nest_err *err);

/* Calls @cb once its handles are closed, and frees. All its channels must be closed before. */
void nest_wire_close(struct nest_wire *wire, void (*cb)(void *arg), void *arg);

/* Room for one read, shared by everyone on the loop: valid until control returns to it. */
char *nest_wire_scratch(struct nest_wire *wire, size_t *ret_size);

/* The loop that it was opened on. */
uv_loop_t *nest_wire_loop(const struct nest_wire *wire);

/* @link's flush is called at the end of this turn; more calls do nothing. */
void nest_wire_wait(struct nest_wire *wire, struct nest_wire_link *link);

/* Takes @link out of the list, if it is in it. */
void nest_wire_forget(struct nest_wire *wire, struct nest_wire_link *link);

#endif
