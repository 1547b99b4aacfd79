/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_RESERVE_H
#define NEST_RUNTIME_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

struct nest_dispatch;
struct nest_services;
struct nest_worker;
struct nest_worker_plan;

/*
 * The clones of one version that stand by: restored ahead, and frozen before their first request.
 * When there is to be one more, and when one has to go, runtime/standby.h decides.
 */
struct nest_reserve;

/* Makes an empty one. Borrows all; @dispatch is held while a clone of it stands. -ENOMEM. */
int nest_reserve_new(struct nest_services *services, struct nest_dispatch *dispatch,
	const struct nest_worker_plan *plan, struct nest_reserve **ret);

/* Frees one that is empty. NULL is fine. */
void nest_reserve_free(struct nest_reserve *reserve);

/*
 * A worker is needed: a clone, which the caller wakes, and for which it releases the dispatch; NULL:
 * none stands by. Either is noted as a use.
 */
struct nest_worker *nest_reserve_take(struct nest_reserve *reserve);

/* The version was used. */
void nest_reserve_touch(struct nest_reserve *reserve);

/* Whether the version is one that others call: only then may clones stand by. Closing ends them. */
void nest_reserve_set_open(struct nest_reserve *reserve, bool open);

/* Ends all of them. */
void nest_reserve_clear(struct nest_reserve *reserve, const char *message);

/* Calls @cb for each until it returns false; false then. */
bool nest_reserve_each(const struct nest_reserve *reserve,
	bool (*cb)(void *arg, struct nest_worker *worker), void *arg);

/* ---- for who decides ---- */

/* How one stands now. */
struct nest_reserve_view {
	struct nest_dispatch *dispatch;
	uint32_t standing;
	uint32_t restoring;
	uint32_t wanted;	   /* 0: none can be, or may be just now */
	bool unwanted;		   /* it is called no more, or has no snapshot */
	uint64_t used_us;	   /* when it was used last */
	uint64_t started_us;	   /* when its last burst of starts began; 0: there was none */
	uint64_t before_us;	   /* the same of the burst before */
	uint32_t prefetched;	   /* of those that stand, or are being restored */
	bool learnt;		   /* it is known what one more would have to copy ahead */
	uint32_t unmeasured;	   /* of those that stand, those that were not measured yet */
	uint64_t bytes;		   /* measured, of all that stand */
	uint64_t bytes_each;	   /* what one more would take, as far as is known; 0: not known */
	uint64_t bytes_prefetched; /* the same of one that is prefetched */
	uint64_t wanted_at_us; /* where it may have none just now: when it may; 0: not by waiting */
};
void nest_reserve_view(const struct nest_reserve *reserve, struct nest_reserve_view *ret);

/* Measures those that stand and never were; their reserve is looked at again then. */
void nest_reserve_measure(struct nest_reserve *reserve);

/*
 * Has one more restored; @prefetch: with what its first request will write to copied. -EAGAIN: there is no
 * cell or memory for it; -ENOENT: no snapshot.
 */
int nest_reserve_add(struct nest_reserve *reserve, bool prefetch);

/* Ends one; @for_cell: since somebody waits for its cell. False: there is none. */
bool nest_reserve_drop(struct nest_reserve *reserve, bool for_cell);

/* Ends one that stands and is prefetched, if there is one. */
void nest_reserve_drop_prefetched(struct nest_reserve *reserve);

/* Links for who keeps them in a list. */
struct nest_reserve_link {
	struct nest_reserve *reserve;
	struct nest_reserve_link *prev, *next;
};
struct nest_reserve_link *nest_reserve_link(struct nest_reserve *reserve);

#endif
