/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_ROOM_H
#define NEST_RUNTIME_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct nest_dispatch;
struct nest_services;
struct nest_worker_plan;

/*
 * Cells and memory are the pod's, and every function wants some. A worker is charged what others of
 * its function use until it is measured; room that functions have reserved is nobody else's.
 */

/* What a new worker of @plan will probably use. */
uint64_t nest_room_estimate(const struct nest_worker_plan *plan);

/* How many workers of @dispatch nobody else's need ends. */
uint32_t nest_room_due(const struct nest_dispatch *dispatch);

/* Whether there is room for one more worker of @dispatch. */
bool nest_room_has(const struct nest_dispatch *dispatch);

/*
 * Ends the idle worker of another function that is worth least, for @dispatch, which is starved;
 * not more of them at a time than functions are.
 */
void nest_room_make(const struct nest_dispatch *dispatch);

/* Workers have been measured: where they use more than there is, ends idle ones, worth least first. */
void nest_room_settle(struct nest_services *services);

#endif
