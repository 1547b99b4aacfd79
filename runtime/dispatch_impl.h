/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_DISPATCH_IMPL_H
#define NEST_RUNTIME_DISPATCH_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/backoff.h"
#include "runtime/deadline.h"
#include "runtime/dispatch.h"
#include "runtime/protection.h"
#include "runtime/warm.h"

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
	struct nest_backoff backoff;
	char failure[192]; /* of the last start, fit for callers */
	struct nest_deadline retry;
	struct nest_deadline retired;
	struct nest_deadline overdue; /* of what still runs when it is retired */
	struct nest_protection_state protection;
	struct nest_worker *worn;  /* replaced as soon as another one is ready; or NULL */
	struct nest_deadline aged; /* a worker may be too old */
	uint64_t measured_us;	   /* when its workers' memory was last asked for */
	uint64_t recycled_total[NEST_RECYCLE_CAUSES];
	struct nest_warm warm;
	bool warm_held; /* until the snapshot stands that those workers are to come from */
	struct nest_deadline warmed; /* someone's wait for workers is over */
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

/* @over: someone's wait for workers is, and is told so on a later turn. */
void nest_dispatch_warm_over(struct nest_dispatch *dispatch, bool over);

/* ---- dispatch_protect.c ---- */

/* Fills the part of @ret that tells what protects the function. */
void nest_dispatch_protection_stats(
	const struct nest_dispatch *dispatch, struct nest_target_stats *ret);

/* Whether @call may go on; if not, it is refused. */
bool nest_dispatch_admit(struct nest_dispatch *dispatch, struct nest_call *call);

/* Whether as many requests are with workers as there may be. */
bool nest_dispatch_saturated(const struct nest_dispatch *dispatch);

/* A start failed: puts off the next one. */
void nest_dispatch_back_off(
	struct nest_dispatch *dispatch, const char *message, const char *detail);

/* A request has ended: its workers do well. */
void nest_dispatch_recover(struct nest_dispatch *dispatch);

/* A worker is ready: the worn one goes, and its own age is watched. */
void nest_dispatch_relieve(struct nest_dispatch *dispatch);

/* @worker has less to do: whether it is worn, and another one should take its place. */
void nest_dispatch_wear(struct nest_dispatch *dispatch, struct nest_worker *worker);

/* @worker takes no more requests. */
void nest_dispatch_forget_worn(struct nest_dispatch *dispatch, const struct nest_worker *worker);

/* A worker may be too old; @arg is the dispatch. */
void nest_dispatch_on_aged(void *arg);

#endif
