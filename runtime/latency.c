/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/latency.h"

const double nest_latency_bounds_s[NEST_LATENCY_BUCKETS] = {
	0.0005,
	0.001,
	0.002,
	0.004,
	0.008,
	0.015,
	0.03,
	0.06,
	0.125,
	0.25,
	0.5,
	1,
	2.5,
	5,
	10,
	30,
};

void nest_latency_observe(struct nest_histogram *histogram, uint64_t us)
{
	double s = (double)us / 1e6;
	unsigned i = 0;

	while (i < NEST_LATENCY_BUCKETS && s > nest_latency_bounds_s[i])
		i++;
	histogram->count[i]++;
	histogram->sum_s += s;
}
