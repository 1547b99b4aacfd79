/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/deadline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"

struct entry {
	uint64_t at_us;
	struct nest_deadline *deadline;
};

struct nest_deadlines {
	uv_timer_t timer;
	struct entry *heap;
	size_t n;
	size_t cap;
	size_t reserved;   /* of cap */
	uint64_t armed_us; /* what the timer waits for; UINT64_MAX: it is stopped */
	uint64_t turn_us;  /* the callbacks' now while they are called; the timer is armed after */
	void (*closed)(void *arg);
	void *closed_arg;
};

static void on_timer(uv_timer_t *timer);

int nest_deadlines_open(uv_loop_t *loop, struct nest_deadlines **ret, struct nest_err *err)
{
	struct nest_deadlines *set = calloc(1, sizeof(*set));

	if (!set)
		return nest_err_set(err, -ENOMEM, "open the deadlines");
	uv_timer_init(loop, &set->timer);
	set->timer.data = set;
	set->armed_us = UINT64_MAX;
	*ret = set;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct nest_deadlines *set = handle->data;
	void (*cb)(void *arg) = set->closed;
	void *arg = set->closed_arg;

	free(set->heap);
	free(set);
	cb(arg);
}

void nest_deadlines_close(struct nest_deadlines *set, void (*cb)(void *arg), void *arg)
{
	for (size_t i = 0; i < set->n; i++)
		set->heap[i].deadline->slot = 0;
	set->n = 0;
	set->closed = cb;
	set->closed_arg = arg;
	uv_close((uv_handle_t *)&set->timer, on_closed);
}

static void place(struct nest_deadlines *set, size_t i, struct entry entry)
{
	set->heap[i] = entry;
	entry.deadline->slot = i + 1;
}

static void sift_up(struct nest_deadlines *set, size_t i, struct entry entry)
{
	while (i > 0 && set->heap[(i - 1) / 2].at_us > entry.at_us) {
		place(set, i, set->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	place(set, i, entry);
}

static void sift_down(struct nest_deadlines *set, size_t i, struct entry entry)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= set->n)
			break;
		if (child + 1 < set->n && set->heap[child + 1].at_us < set->heap[child].at_us)
			child++;
		if (set->heap[child].at_us >= entry.at_us)
			break;
		place(set, i, set->heap[child]);
		i = child;
	}
	place(set, i, entry);
}

static void settle(struct nest_deadlines *set, size_t i, struct entry entry)
{
	if (i > 0 && set->heap[(i - 1) / 2].at_us > entry.at_us)
		sift_up(set, i, entry);
	else
		sift_down(set, i, entry);
}

/*
 * The timer is moved only to an earlier moment: where the first deadline is cleared it fires once
 * for nothing, which is cheaper than moving it with every request.
 */
static void arm(struct nest_deadlines *set)
{
	uint64_t now_ms, at_ms;

	if (set->turn_us || set->n == 0 || set->heap[0].at_us >= set->armed_us)
		return;
	set->armed_us = set->heap[0].at_us;
	/* The loop's clock may lag behind, so the delay is reckoned from it, rounded up. */
	now_ms = uv_now(set->timer.loop);
	at_ms = set->armed_us / 1000 + 1;
	uv_timer_start(&set->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

int nest_deadlines_reserve(struct nest_deadlines *set, unsigned n)
{
	size_t cap = set->cap ? set->cap : 64;
	struct entry *heap;

	while (cap < set->reserved + n)
		cap *= 2;
	if (cap > set->cap) {
		heap = reallocarray(set->heap, cap, sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		set->heap = heap;
		set->cap = cap;
	}
	set->reserved += n;
	return 0;
}

void nest_deadlines_release(struct nest_deadlines *set, unsigned n)
{
	set->reserved -= n;
}

void nest_deadlines_set(struct nest_deadlines *set, struct nest_deadline *deadline, uint64_t at_us)
{
	struct entry entry = { .deadline = deadline };

	/*
	 * One that is set by a callback for now waits for the next turn: none keeps the loop here.
	 */
	deadline->at_us = entry.at_us = at_us > set->turn_us ? at_us : set->turn_us;
	if (deadline->slot) {
		settle(set, deadline->slot - 1, entry);
	} else {
		assert(set->n < set->reserved);
		sift_up(set, set->n++, entry);
	}
	arm(set);
}

void nest_deadlines_clear(struct nest_deadlines *set, struct nest_deadline *deadline)
{
	size_t i = deadline->slot;

	if (i == 0)
		return;
	deadline->slot = 0;
	set->n--;
	if (i - 1 != set->n)
		settle(set, i - 1, set->heap[set->n]);
}

static void on_timer(uv_timer_t *timer)
{
	struct nest_deadlines *set = timer->data;

	set->armed_us = UINT64_MAX;
	set->turn_us = nest_clock_mono_us();
	while (set->n > 0 && set->heap[0].at_us < set->turn_us) {
		struct nest_deadline *deadline = set->heap[0].deadline;

		nest_deadlines_clear(set, deadline);
		deadline->cb(deadline->arg);
	}
	set->turn_us = 0;
	arm(set);
}
