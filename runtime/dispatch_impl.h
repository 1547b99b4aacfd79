/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_DISPATCH_IMPL_H
#define NEST_RUNTIME_DISPATCH_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/deadline.h"
#include "runtime/dispatch.h"

struct nest_reserve;
struct nest_worker_link;

/* The inside of a dispatch, for the files that its work is spread over. */
struct nest_dispatch {
	struct nest_services *services;
	const struct nest_worker_plan *plan;
	uint64_t id;
	struct nest_call *queue;
	struct nest_worker_link *workers; /* all whose cells are not gone */
	struct nest_reserve *reserve;	  /* those that stand by are not among them */
	uint32_t queued;
	uint32_t starting;
	uint32_t holds;
	uint32_t ready;
	struct nest_target_scale scale;
	uint32_t bound_min; /* instead of the spec's, unless bound_max is 0 */
	uint32_t bound_max;
	bool live;
	bool fading; /* live no more: its present workers go */
	bool retiring;
	bool starved; /* it wants a cell or memory, and there is none */
	bool pumping;
	uint32_t backoff_ms; /* 0: the workers do well */
	uint64_t backoff_until_us;
	char failure[192]; /* of the last start, fit for callers */
	struct nest_deadline retry;
	struct nest_deadline retired;
	struct nest_deadline overdue; /* of what still runs when it is retired */
	void (*on_retired)(void *arg);
	void *on_retired_arg;
	struct nest_dispatch *prev, *next; /* all of the host's */
};

/* Gives what waits to free slots, then starts workers for what still waits. */
void nest_dispatch_pump(struct nest_dispatch *dispatch);

/* How many workers it is due, whatever it has to do. */
uint32_t nest_dispatch_least(const struct nest_dispatch *dispatch);

/* How many it may have. */
uint32_t nest_dispatch_most(const struct nest_dispatch *dispatch);

/* How many it keeps while they are idle, and starts before they are needed. */
uint32_t nest_dispatch_keep(const struct nest_dispatch *dispatch);

/* @worker was idle for its time: it goes unless it is to be kept. */
void nest_dispatch_rest(struct nest_dispatch *dispatch, struct nest_worker *worker);

#endif
