/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_DEADLINE_H
#define NEST_RUNTIME_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct nest_err;

/*
 * Many deadlines on one libuv timer: a binary heap. Deadlines that are set in rising order, as
 * those of one function's calls are, cost one comparison each. With no deadline set nothing wakes
 * the loop.
 */
struct nest_deadlines;

/* One moment at which @cb is called. Zeroed storage with cb and arg filled in is unset. */
struct nest_deadline {
	uint64_t at_us; /* of CLOCK_MONOTONIC */
	size_t slot;	/* place in the heap plus one; 0: not set */
	void (*cb)(void *arg);
	void *arg;
};

/* Opens an empty set. */
int nest_deadlines_open(uv_loop_t *loop, struct nest_deadlines **ret, struct nest_err *err);

/* Forgets all deadlines, calls @cb once its handle is closed, and frees. */
void nest_deadlines_close(struct nest_deadlines *set, void (*cb)(void *arg), void *arg);

/*
 * Makes room for @n more deadlines to be set at a time, so that setting them can't fail. -ENOMEM.
 */
int nest_deadlines_reserve(struct nest_deadlines *set, unsigned n);

/* Gives the room for @n deadlines back; none of them is set any more. */
void nest_deadlines_release(struct nest_deadlines *set, unsigned n);

/*
 * Sets @deadline, for which room was reserved, set or not, to @at_us; 0 or a moment that has passed
 * is due on the next turn of the loop. Borrows it until it is due or cleared.
 */
void nest_deadlines_set(struct nest_deadlines *set, struct nest_deadline *deadline, uint64_t at_us);

/* Unsets @deadline; one that isn't set is fine. */
void nest_deadlines_clear(struct nest_deadlines *set, struct nest_deadline *deadline);

static inline bool nest_deadline_is_set(const struct nest_deadline *deadline)
{
	return deadline->slot != 0;
}

#endif
