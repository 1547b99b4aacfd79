/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/breaker.h"

const char *nest_breaker_state_name(enum nest_breaker_state state)
{
	static const char *const names[NEST_BREAKER_STATES] = {
		[NEST_BREAKER_CLOSED] = "closed",
		[NEST_BREAKER_OPEN] = "open",
		[NEST_BREAKER_HALF_OPEN] = "half-open",
	};

	return names[state];
}

/* 0 is no period: that of requests that are no probes. */
static void half_open(struct nest_breaker *breaker)
{
	breaker->state = NEST_BREAKER_HALF_OPEN;
	breaker->sent = 0;
	breaker->well = 0;
	if (++breaker->period == 0)
		breaker->period = 1;
}

bool nest_breaker_admit(struct nest_breaker *breaker, const struct nest_breaker_terms *terms,
	uint64_t now_us, uint32_t *ret_probe, uint64_t *ret_wait_us)
{
	*ret_probe = 0;
	*ret_wait_us = 0;
	if (terms->failures == 0 || breaker->state == NEST_BREAKER_CLOSED)
		return true;
	if (breaker->state == NEST_BREAKER_OPEN && now_us < breaker->until_us) {
		*ret_wait_us = breaker->until_us - now_us;
		return false;
	}
	if (breaker->state == NEST_BREAKER_OPEN)
		half_open(breaker);
	if (breaker->sent >= terms->probes)
		return false; /* until those that are out have ended, which nobody knows */
	breaker->sent++;
	*ret_probe = breaker->period;
	return true;
}

static bool open_up(
	struct nest_breaker *breaker, const struct nest_breaker_terms *terms, uint64_t now_us)
{
	breaker->state = NEST_BREAKER_OPEN;
	breaker->until_us = now_us + terms->open_ms * 1000ull;
	breaker->failures = 0;
	breaker->opened_total++;
	return true;
}

static bool note_probe(struct nest_breaker *breaker, const struct nest_breaker_terms *terms,
	enum nest_breaker_outcome outcome, uint64_t now_us)
{
	if (outcome == NEST_BREAKER_FAILED)
		return open_up(breaker, terms, now_us);
	if (outcome == NEST_BREAKER_UNTRIED)
		breaker->sent--; /* another one may try */
	else if (++breaker->well >= terms->probes)
		breaker->state = NEST_BREAKER_CLOSED;
	return false;
}

bool nest_breaker_note(struct nest_breaker *breaker, const struct nest_breaker_terms *terms,
	uint32_t probe, enum nest_breaker_outcome outcome, uint64_t now_us)
{
	if (terms->failures == 0)
		return false;
	if (breaker->state == NEST_BREAKER_HALF_OPEN && probe == breaker->period)
		return note_probe(breaker, terms, outcome, now_us);
	/* what was let through before it opened tells nothing new */
	if (breaker->state != NEST_BREAKER_CLOSED || outcome == NEST_BREAKER_UNTRIED)
		return false;
	if (outcome == NEST_BREAKER_WELL)
		breaker->failures = 0;
	else if (++breaker->failures >= terms->failures)
		return open_up(breaker, terms, now_us);
	return false;
}
