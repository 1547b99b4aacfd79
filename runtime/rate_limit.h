/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_RATE_LIMIT_H
#define NEST_RUNTIME_RATE_LIMIT_H

#include <stdint.h>

/*
 * A token bucket, as one number: the moment at which it would be full again (the generic cell rate
 * algorithm of ITU-T I.371). Zeroed: full. It knows no clock: whoever asks says when.
 */
struct nest_rate_limit {
	uint64_t full_ns;
};

/*
 * Takes a token at @now_us from a bucket of @burst (from 1) that gets @rate_milli thousandths of a
 * token a second (from 1). 0: taken; else so many microseconds until there is one. Any thread.
 */
uint64_t nest_rate_limit_take(
	struct nest_rate_limit *limit, uint32_t rate_milli, uint32_t burst, uint64_t now_us);

#endif
