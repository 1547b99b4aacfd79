/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/recycle.h"

enum nest_recycle_cause nest_recycle_due(
	const struct nest_recycle_terms *terms, const struct nest_recycle_sample *sample)
{
	if (terms->requests > 0 && sample->requests >= terms->requests)
		return NEST_RECYCLE_REQUESTS;
	if (terms->age_ms > 0 && sample->age_us >= terms->age_ms * 1000ull)
		return NEST_RECYCLE_AGE;
	if (terms->memory_bytes > 0 && sample->memory_bytes >= terms->memory_bytes)
		return NEST_RECYCLE_MEMORY;
	return NEST_RECYCLE_NONE;
}

const char *nest_recycle_cause_name(enum nest_recycle_cause cause)
{
	static const char *const names[NEST_RECYCLE_CAUSES] = {
		[NEST_RECYCLE_NONE] = "none",
		[NEST_RECYCLE_REQUESTS] = "requests",
		[NEST_RECYCLE_AGE] = "age",
		[NEST_RECYCLE_MEMORY] = "memory",
	};

	return names[cause];
}
