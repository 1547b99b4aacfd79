/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/warm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/err.h"

struct nest_warm_waiter {
	uint32_t n;
	bool over;
	bool failed;
	char why[192];
	void (*cb)(void *arg, const struct nest_err *why);
	void *arg;
	struct nest_warm_waiter *prev, *next;
};

int nest_warm_add(struct nest_warm *warm, uint32_t n,
	void (*cb)(void *arg, const struct nest_err *why), void *arg)
{
	struct nest_warm_waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter)
		return -ENOMEM;
	waiter->n = n;
	waiter->cb = cb;
	waiter->arg = arg;
	DL_APPEND(warm->waiters, waiter);
	return 0;
}

/* Those who are to be told count still: the workers must not go before requests come their way. */
uint32_t nest_warm_wants(const struct nest_warm *warm)
{
	const struct nest_warm_waiter *waiter;
	uint32_t most = 0;

	DL_FOREACH(warm->waiters, waiter) {
		if (waiter->n > most)
			most = waiter->n;
	}
	return most;
}

bool nest_warm_note_ready(struct nest_warm *warm, uint32_t ready)
{
	struct nest_warm_waiter *waiter;
	bool any = false;

	DL_FOREACH(warm->waiters, waiter) {
		if (waiter->n <= ready)
			waiter->over = true;
		any |= waiter->over;
	}
	return any;
}

bool nest_warm_note_end(struct nest_warm *warm, uint32_t ready, const char *why)
{
	struct nest_warm_waiter *waiter;

	DL_FOREACH(warm->waiters, waiter) {
		if (waiter->over)
			continue;
		waiter->over = true;
		waiter->n = ready;
		waiter->failed = why && ready == 0;
		snprintf(waiter->why, sizeof(waiter->why), "%s", why ? why : "");
	}
	return warm->waiters != NULL;
}

static struct nest_warm_waiter *first_over(const struct nest_warm *warm)
{
	struct nest_warm_waiter *waiter;

	DL_FOREACH(warm->waiters, waiter) {
		if (waiter->over)
			return waiter;
	}
	return NULL;
}

/* A callback may add others, and have others' waits end: so the list is looked at anew. */
void nest_warm_tell(struct nest_warm *warm)
{
	struct nest_warm_waiter *waiter;

	while ((waiter = first_over(warm))) {
		struct nest_err why = NEST_ERR_INIT;

		DL_DELETE(warm->waiters, waiter);
		if (waiter->failed)
			nest_err_say(&why, -ECANCELED, "%s", waiter->why);
		waiter->cb(waiter->arg, waiter->failed ? &why : NULL);
		free(waiter);
	}
}
