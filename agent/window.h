/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_WINDOW_H
#define NEST_AGENT_WINDOW_H

#include <stdint.h>

struct nest_target_stats;

/*
 * What the cumulative counters of a host grew by since an earlier look: rates and latency
 * quantiles. Nothing is kept or computed while nobody looks.
 *
 *	begin --> add for each version, by name --> end
 */
struct nest_window;

struct nest_window_rates {
	uint64_t span_us; /* the window's length */
	uint64_t requests;
	uint64_t failed;
	uint64_t rps_milli; /* requests a second, in thousandths */
	uint64_t p50_us; /* of requests' durations, estimated from the histogram; 0: no request */
	uint64_t p95_us;
	uint64_t p99_us;
};

/* What the host as a whole did. */
struct nest_window_totals {
	uint64_t span_us;
	uint64_t rps_milli;
	uint64_t concurrency_milli; /* average of calls open, weighted by time */
};

/*
 * Makes one whose window is from @least_us to twice that long, or, with 0, from one look to the
 * next. The first one begins at @start_us. The caller owns *@ret. -ENOMEM.
 */
int nest_window_new(uint64_t least_us, uint64_t start_us, struct nest_window **ret);

void nest_window_free(struct nest_window *window); /* NULL is fine */

/* A look at @now_us, where the host's counters are these (struct nest_host_stats). */
void nest_window_begin(struct nest_window *window, uint64_t now_us, uint64_t calls_total,
	uint64_t load_us, struct nest_window_totals *ret);

/* One version. Without memory its rates are 0, at this look or the next. */
void nest_window_add(struct nest_window *window, const struct nest_target_stats *stats,
	struct nest_window_rates *ret);

/* The look is over: the next one may be compared with it. */
void nest_window_end(struct nest_window *window);

#endif
