/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_WARM_H
#define NEST_RUNTIME_WARM_H

#include <stdbool.h>
#include <stdint.h>

struct nest_err;

/*
 * Who waits for a version's workers to be up before requests are sent its way. Zeroed: nobody. The
 * version's dispatch keeps it, tells it how its workers fare, and passes the outcome on from a turn
 * of its own.
 */
struct nest_warm {
	struct nest_warm_waiter *waiters;
};

/* Adds one that waits for @n workers (from 1). -ENOMEM. */
int nest_warm_add(struct nest_warm *warm, uint32_t n,
	void (*cb)(void *arg, const struct nest_err *why), void *arg);

/* As many as are waited for; 0: nobody waits. */
uint32_t nest_warm_wants(const struct nest_warm *warm);

/* There are @ready workers now. True: someone's wait is over, to be told. */
bool nest_warm_note_ready(struct nest_warm *warm, uint32_t ready);

/*
 * No more will come up: because of @why, or (NULL) for want of cells. With @ready workers, or for
 * want of cells, the wait is over well: what is there has to do. True as above.
 */
bool nest_warm_note_end(struct nest_warm *warm, uint32_t ready, const char *why);

/* Calls back those whose wait is over. */
void nest_warm_tell(struct nest_warm *warm);

#endif
