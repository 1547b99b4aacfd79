/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_BACKOFF_H
#define NEST_RUNTIME_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

/*
 * When a function whose workers don't come up is tried again: after 100 ms and twice as long each
 * time, up to 10 s; from so many failures in a row on it is in quarantine, and the pauses grow
 * further. Zeroed: its workers do well. It knows no clock: whoever asks says when.
 */
struct nest_backoff_terms {
	uint32_t failures; /* in a row, for the quarantine; 0: there is none */
	uint32_t max_ms;   /* of a pause in quarantine */
};

struct nest_backoff {
	uint32_t failures; /* in a row; 0: they do well */
	uint32_t pause_ms;
	uint64_t until_us;
};

/* One more start has failed, at @now_us. True: with this one the quarantine begins. Any thread. */
bool nest_backoff_fail(
	struct nest_backoff *backoff, const struct nest_backoff_terms *terms, uint64_t now_us);

/* The workers do well. True: a quarantine has ended. Any thread. */
bool nest_backoff_clear(struct nest_backoff *backoff, const struct nest_backoff_terms *terms);

/* Whether it is in quarantine. Any thread. */
bool nest_backoff_quarantined(
	const struct nest_backoff *backoff, const struct nest_backoff_terms *terms);

#endif
