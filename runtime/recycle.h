/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_RECYCLE_H
#define NEST_RUNTIME_RECYCLE_H

#include <stdint.h>

/* When a worker is worn out and another one takes its place. */
enum nest_recycle_cause {
	NEST_RECYCLE_NONE,
	NEST_RECYCLE_REQUESTS,
	NEST_RECYCLE_AGE,
	NEST_RECYCLE_MEMORY,
	NEST_RECYCLE_CAUSES
};

struct nest_recycle_terms { /* 0: not by this */
	uint32_t requests;
	uint32_t age_ms;
	uint64_t memory_bytes;
};

struct nest_recycle_sample {
	uint64_t requests;
	uint64_t age_us;
	uint64_t memory_bytes; /* as last measured; 0: not yet */
};

/* Why a worker is worn out, or NONE. Any thread. */
enum nest_recycle_cause nest_recycle_due(
	const struct nest_recycle_terms *terms, const struct nest_recycle_sample *sample);

/* "requests", "age", "memory". Any thread. */
const char *nest_recycle_cause_name(enum nest_recycle_cause cause);

#endif
