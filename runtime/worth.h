/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_WORTH_H
#define NEST_RUNTIME_WORTH_H

#include <stdint.h>

/* What is known of an idle worker. */
struct nest_worth {
	uint64_t idle_us; /* for so long it has had no request */
	uint64_t age_us;
	uint64_t requests;
	uint64_t cold_us; /* what a request would wait for another one; 0: unknown */
	uint64_t memory_bytes;
};

/*
 * What it is worth to keep: the time that it is expected to save, a second and MiB. The next request
 * is expected as far away as requests came apart, and as the last one is past: what has long been idle
 * will be for long. (Greedy-dual caches weigh frequency, cost and size alike; Fuerst and Sharma,
 * ASPLOS 2021, for functions.) Any thread.
 */
double nest_worth_of(const struct nest_worth *worth);

#endif
