/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_LOAD_H
#define NEST_RUNTIME_LOAD_H

#include <stdint.h>

/*
 * The calls that a version has had: how many, and for how long all together. An open call adds now
 * - start, whatever now is: so starts and ends are summed up apart, and nothing is done in between.
 * Sums that wrap around still have the right differences.
 */
struct nest_load {
	uint64_t came;
	uint64_t came_us; /* the sum of their starts */
	uint64_t went;
	uint64_t went_us; /* the sum of their ends */
	uint64_t last_us; /* the end of the last one; 0: none yet */
	uint64_t peak;	  /* the most that were open at once since this was set to what is open */
};

static inline uint64_t nest_load_open(const struct nest_load *load)
{
	return load->came - load->went;
}

static inline void nest_load_enter(struct nest_load *load, uint64_t now_us)
{
	load->came++;
	load->came_us += now_us;
	if (nest_load_open(load) > load->peak)
		load->peak = nest_load_open(load);
}

static inline void nest_load_leave(struct nest_load *load, uint64_t now_us)
{
	load->went++;
	load->went_us += now_us;
	load->last_us = now_us;
}

/* Grows by the average of how many are open, times the time between. */
static inline uint64_t nest_load_us(const struct nest_load *load, uint64_t now_us)
{
	return load->went_us - load->came_us + nest_load_open(load) * now_us;
}

/* For how long none has been open; 0: one is. */
static inline uint64_t nest_load_quiet_us(const struct nest_load *load, uint64_t now_us)
{
	return nest_load_open(load) > 0 ? 0 : now_us - load->last_us;
}

#endif
