/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/worth.h"

#define COLD_UNKNOWN_US 100000u
#define MEMORY_LEAST (1u << 20)

double nest_worth_of(const struct nest_worth *worth)
{
	double gap_s = (double)worth->age_us / 1e6 / (double)(worth->requests + 1);
	double next_s = gap_s + (double)worth->idle_us / 1e6 + 1e-3;
	double cold_s = (double)(worth->cold_us ? worth->cold_us : COLD_UNKNOWN_US) / 1e6;
	uint64_t bytes = worth->memory_bytes > MEMORY_LEAST ? worth->memory_bytes : MEMORY_LEAST;

	return cold_s / next_s / ((double)bytes / (1 << 20));
}
