/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/backoff.h"

#define PAUSE_MIN_MS 100u
#define PAUSE_MAX_MS 10000u /* outside of a quarantine */

bool nest_backoff_quarantined(
	const struct nest_backoff *backoff, const struct nest_backoff_terms *terms)
{
	return terms->failures > 0 && backoff->failures >= terms->failures;
}

/* Doubled from the first failure on, as the quarantine's pauses go on where the others were. */
static uint32_t pause_after(uint32_t failures, uint32_t max_ms)
{
	uint64_t ms = PAUSE_MIN_MS;

	while (--failures > 0 && ms < max_ms)
		ms *= 2;
	return ms < max_ms ? (uint32_t)ms : max_ms;
}

bool nest_backoff_fail(
	struct nest_backoff *backoff, const struct nest_backoff_terms *terms, uint64_t now_us)
{
	bool was = nest_backoff_quarantined(backoff, terms);
	bool is;

	if (backoff->failures < UINT32_MAX)
		backoff->failures++;
	is = nest_backoff_quarantined(backoff, terms);
	backoff->pause_ms = pause_after(backoff->failures, is ? terms->max_ms : PAUSE_MAX_MS);
	backoff->until_us = now_us + backoff->pause_ms * 1000ull;
	return is && !was;
}

bool nest_backoff_clear(struct nest_backoff *backoff, const struct nest_backoff_terms *terms)
{
	bool was = nest_backoff_quarantined(backoff, terms);

	*backoff = (struct nest_backoff){ 0 };
	return was;
}
