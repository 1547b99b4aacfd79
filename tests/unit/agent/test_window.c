/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "agent/window.h"
#include "runtime/function.h"
#include "runtime/host.h"
#include "tests/unit/suite.h"

#define SECOND UINT64_C(1000000)

static struct nest_function_spec specs[] = { { .name = "a", .version = "1" },
	{ .name = "a", .version = "2" }, { .name = "b", .version = "1" } };

/* Cumulative: @fast requests of up to 1 ms, @slow of up to 0.5 s, @failed of them. */
static struct nest_target_stats stats_of(size_t i, uint64_t fast, uint64_t slow, uint64_t failed)
{
	struct nest_target_stats stats = { .spec = &specs[i] };

	stats.requests_total[NEST_FAILURE_NONE] = fast + slow - failed;
	stats.requests_total[NEST_FAILURE_TIMEOUT] = failed;
	stats.duration.count[1] = fast;
	stats.duration.count[10] = slow;
	return stats;
}

static struct nest_window_rates add(
	struct nest_window *window, size_t i, uint64_t fast, uint64_t slow, uint64_t failed)
{
	struct nest_target_stats stats = stats_of(i, fast, slow, failed);
	struct nest_window_rates rates;

	nest_window_add(window, &stats, &rates);
	return rates;
}

static struct nest_window *new_window(uint64_t least_us)
{
	struct nest_window *window = NULL;

	ck_assert_int_eq(nest_window_new(least_us, 10 * SECOND, &window), 0);
	return window;
}

START_TEST(rates_are_what_came_since_the_last_look)
{
	struct nest_window *window = new_window(0);
	struct nest_window_totals totals;
	struct nest_window_rates rates;

	nest_window_begin(window, 14 * SECOND, 8, 2 * SECOND, &totals);
	ck_assert_uint_eq(totals.span_us, 4 * SECOND);
	ck_assert_uint_eq(totals.rps_milli, 2000);
	ck_assert_uint_eq(totals.concurrency_milli, 500);
	ck_assert_uint_eq(add(window, 0, 8, 0, 0).rps_milli, 2000);
	nest_window_end(window);
	nest_window_begin(window, 15 * SECOND, 108, 5 * SECOND, &totals);
	ck_assert_uint_eq(totals.rps_milli, 100000);
	ck_assert_uint_eq(totals.concurrency_milli, 3000);
	rates = add(window, 0, 98, 10, 3);
	ck_assert_uint_eq(rates.requests, 100);
	ck_assert_uint_eq(rates.failed, 3);
	/* 90 lie in the bucket from 0.5 to 1 ms, 10 in that from 250 to 500 ms */
	ck_assert_uint_ge(rates.p50_us, 770);
	ck_assert_uint_le(rates.p50_us, 780);
	ck_assert_uint_ge(rates.p95_us, 374000);
	ck_assert_uint_le(rates.p95_us, 376000);
	ck_assert_uint_le(rates.p99_us, 500000);
	nest_window_end(window);
	nest_window_begin(window, 16 * SECOND, 108, 5 * SECOND, &totals);
	rates = add(window, 0, 98, 10, 3);
	ck_assert_uint_eq(rates.requests, 0);
	ck_assert_uint_eq(rates.p50_us, 0);
	nest_window_end(window);
	nest_window_free(window);
	nest_window_free(NULL);
}
END_TEST

START_TEST(versions_that_come_and_go_are_told_apart)
{
	struct nest_window *window = new_window(0);
	struct nest_window_totals totals;

	nest_window_begin(window, 11 * SECOND, 0, 0, &totals);
	add(window, 1, 5, 0, 0);
	add(window, 0, 100, 0, 0);
	add(window, 2, 50, 0, 0);
	nest_window_end(window);
	nest_window_begin(window, 12 * SECOND, 0, 0, &totals);
	ck_assert_uint_eq(add(window, 1, 7, 0, 0).requests, 2);
	ck_assert_uint_eq(add(window, 2, 51, 0, 0).requests, 1);
	nest_window_end(window);
	/* one that was away, and one that was deployed anew, begin at 0 */
	nest_window_begin(window, 13 * SECOND, 0, 0, &totals);
	ck_assert_uint_eq(add(window, 0, 3, 0, 0).requests, 3);
	ck_assert_uint_eq(add(window, 2, 4, 0, 0).requests, 4);
	nest_window_end(window);
	nest_window_free(window);
}
END_TEST

START_TEST(a_window_is_not_shortened_by_who_looks_often)
{
	struct nest_window *window = new_window(5 * SECOND);
	struct nest_window_totals totals;
	uint64_t shortest = UINT64_MAX, longest = 0;

	for (uint64_t s = 1; s <= 60; s++) {
		nest_window_begin(window, (10 + s) * SECOND, 10 * s, 0, &totals);
		ck_assert_uint_eq(totals.rps_milli, 10000);
		ck_assert_uint_eq(add(window, 0, 10 * s, 0, 0).rps_milli, 10000);
		nest_window_end(window);
		if (s < 10)
			continue;
		shortest = totals.span_us < shortest ? totals.span_us : shortest;
		longest = totals.span_us > longest ? totals.span_us : longest;
	}
	ck_assert_uint_ge(shortest, 5 * SECOND);
	ck_assert_uint_le(longest, 10 * SECOND);
	nest_window_free(window);
}
END_TEST

START_TEST(the_load_wraps_around)
{
	struct nest_window *window = new_window(0);
	struct nest_window_totals totals;

	nest_window_begin(window, 11 * SECOND, 0, UINT64_MAX - SECOND + 1, &totals);
	nest_window_end(window);
	nest_window_begin(window, 12 * SECOND, 0, SECOND, &totals);
	ck_assert_uint_eq(totals.concurrency_milli, 2000);
	nest_window_end(window);
	nest_window_free(window);
}
END_TEST

NEST_SUITE("agent/window", rates_are_what_came_since_the_last_look,
	versions_that_come_and_go_are_told_apart, a_window_is_not_shortened_by_who_looks_often,
	the_load_wraps_around)
