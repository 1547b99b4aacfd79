/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_STANDBY_H
#define NEST_RUNTIME_STANDBY_H

#include <stdbool.h>

struct nest_err;
struct nest_reserve;
struct nest_services;

/*
 * Decides which functions have clones that stand by, within the host's memory for them: those used
 * last come first. One is restored at a time, while nobody waits for a worker; they are given up
 * first when a cell is needed or memory gets scarce, those used longest ago before others.
 */
struct nest_standby;

/* Opens it; nothing is restored before the first look. */
int nest_standby_open(
	struct nest_services *services, struct nest_standby **ret, struct nest_err *err);

/* Restores no more. The clones are their dispatches' to end. */
void nest_standby_stop(struct nest_standby *standby);

/* Frees a stopped one without reserves. NULL is fine. */
void nest_standby_free(struct nest_standby *standby);

/*
 * What follows does nothing where @services has no standby.
 */

/* Takes @reserve into account, until it is removed. */
void nest_standby_add(struct nest_services *services, struct nest_reserve *reserve);
void nest_standby_remove(struct nest_services *services, struct nest_reserve *reserve);

/* Something has changed: a use, a snapshot, a clone, a start. It is looked at on a later turn. */
void nest_standby_look(struct nest_services *services);

/* Has a clone give its cell to who waits for one. False: none stands by. */
bool nest_standby_yield(struct nest_services *services);

#endif
