/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_BREAKER_H
#define NEST_RUNTIME_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A circuit breaker: keeps requests from a function that fails them all.
 *
 *      CLOSED --failures in a row--> OPEN --its time is over--> HALF_OPEN --all probes well--> CLOSED
 *                                     ^-------one probe failed-----/
 *
 * Zeroed: closed. It knows no clock: whoever asks says when.
 */
enum nest_breaker_state {
	NEST_BREAKER_CLOSED,
	NEST_BREAKER_OPEN,
	NEST_BREAKER_HALF_OPEN,
	NEST_BREAKER_STATES
};

struct nest_breaker_terms {
	uint32_t failures; /* in a row that open it; 0: there is no breaker */
	uint32_t open_ms;
	uint32_t probes; /* from 1: let through when half-open, and all must go well */
};

struct nest_breaker {
	enum nest_breaker_state state;
	uint32_t failures; /* in a row */
	uint32_t period;   /* of being half-open, so that a late probe of another one is known */
	uint32_t sent;	   /* probes of this period */
	uint32_t well;	   /* of these, gone well */
	uint64_t until_us; /* open */
	uint64_t opened_total;
};

/* How a request that was let through ended. */
enum nest_breaker_outcome {
	NEST_BREAKER_WELL,
	NEST_BREAKER_FAILED,
	NEST_BREAKER_UNTRIED, /* the function had no part in it */
};

/* "closed", "open", "half-open". Any thread. */
const char *nest_breaker_state_name(enum nest_breaker_state state);

/*
 * Whether a request may pass at @now_us. Then *@ret_probe is what to give nest_breaker_note() at its
 * end (0: it is no probe); else *@ret_wait_us is how long to wait before another try. Any thread.
 */
bool nest_breaker_admit(struct nest_breaker *breaker, const struct nest_breaker_terms *terms,
	uint64_t now_us, uint32_t *ret_probe, uint64_t *ret_wait_us);

/* A request that was let through has ended. True: with that the breaker has opened. Any thread. */
bool nest_breaker_note(struct nest_breaker *breaker, const struct nest_breaker_terms *terms,
	uint32_t probe, enum nest_breaker_outcome outcome, uint64_t now_us);

#endif
