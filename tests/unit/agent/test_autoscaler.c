/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>

#include "agent/autoscaler.h"
#include "tests/unit/suite.h"

/* A load over simulated time, a sample a second. */
struct play {
	struct nest_autoscaler *scaler;
	struct nest_autoscaler_config config;
	struct nest_autoscaler_sample sample;
	struct nest_autoscaler_decision decision;
};

static const struct nest_autoscaler_config usual = {
	.max = 1000,
	.concurrency_milli = 10 * 1000,
	.utilization_milli = 700,
	.window_us = 60 * 1000000ull,
	.panic_window_us = 6 * 1000000ull,
	.panic_threshold_milli = 2000,
	.in_delay_us = 60 * 1000000ull,
	.idle_us = 300 * 1000000ull,
};

static void begin(struct play *play, const struct nest_autoscaler_config *config)
{
	memset(play, 0, sizeof(*play));
	play->config = *config;
	play->sample.now_us = 1000000000;
	ck_assert_int_eq(nest_autoscaler_new(&play->scaler), 0);
	nest_autoscaler_step(play->scaler, &play->config, &play->sample, &play->decision);
}

static void end(struct play *play)
{
	nest_autoscaler_free(play->scaler);
}

static void step(struct play *play, uint64_t us, double concurrency, double rps)
{
	play->sample.now_us += us;
	play->sample.load_us += (uint64_t)(concurrency * (double)us);
	play->sample.requests += (uint64_t)(rps * (double)us / 1e6);
	play->sample.quiet_us = concurrency > 0 ? 0 : play->sample.quiet_us + us;
	play->sample.needed = (uint32_t)(concurrency / 10 + 0.999);
	nest_autoscaler_step(play->scaler, &play->config, &play->sample, &play->decision);
	play->sample.ready = play->decision.desired;
}

static void seconds(struct play *play, unsigned n, double concurrency, double rps)
{
	while (n--)
		step(play, 1000000, concurrency, rps);
}

START_TEST(desired_is_average_by_target_and_utilisation)
{
	static const struct {
		double concurrency;
		uint32_t desired;
	} rows[] = { { 0.001, 1 }, { 6.9, 1 }, { 7, 1 }, { 7.1, 2 }, { 70, 10 }, { 700, 100 } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct play play;

		begin(&play, &usual);
		seconds(&play, 120, rows[i].concurrency, 0);
		ck_assert_uint_eq(play.decision.desired, rows[i].desired);
		ck_assert_double_eq_tol(play.decision.concurrency, rows[i].concurrency, 0.001);
		ck_assert_int_eq(play.decision.cause, NEST_AUTOSCALER_CONCURRENCY);
		end(&play);
	}
}
END_TEST

START_TEST(an_average_is_of_time_not_of_samples)
{
	struct play play;

	begin(&play, &usual);
	seconds(&play, 30, 100, 0);
	/* half a window in one sample, as when nobody looked */
	step(&play, 30 * 1000000, 20, 0);
	ck_assert_double_eq_tol(play.decision.concurrency, 60, 0.001);
	end(&play);
}
END_TEST

START_TEST(what_is_older_than_the_window_does_not_count)
{
	struct play play;

	begin(&play, &usual);
	seconds(&play, 60, 100, 0);
	seconds(&play, 60, 10, 0);
	ck_assert_double_eq_tol(play.decision.concurrency, 10, 0.001);
	end(&play);
}
END_TEST

START_TEST(windows_that_no_sample_meets_are_interpolated)
{
	struct play play;

	begin(&play, &usual);
	for (unsigned i = 0; i < 40; i++)
		step(&play, 7700000, 50, 0);
	ck_assert_double_eq_tol(play.decision.concurrency, 50, 0.001);
	end(&play);
}
END_TEST

START_TEST(many_samples_a_second_say_the_same)
{
	struct play play;

	begin(&play, &usual);
	for (unsigned i = 0; i < 20000; i++)
		step(&play, 10000, i % 2 ? 100 : 0, 0);
	ck_assert_double_eq_tol(play.decision.concurrency, 50, 0.1);
	end(&play);
}
END_TEST

START_TEST(one_long_first_request_starts_no_second_worker)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.concurrency_milli = 1000;
	begin(&play, &config);
	play.sample.ready = 1;
	seconds(&play, 3, 1, 0);
	ck_assert_uint_eq(play.decision.desired, 1);
	end(&play);
}
END_TEST

START_TEST(the_largest_metric_counts)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.rps_milli = 50 * 1000;
	config.cpu_milli = 500;
	config.memory_bytes = 100 << 20;
	begin(&play, &config);
	seconds(&play, 120, 7, 70); /* one by concurrency, two by requests */
	ck_assert_uint_eq(play.decision.desired, 2);
	ck_assert_int_eq(play.decision.cause, NEST_AUTOSCALER_REQUESTS);
	for (unsigned i = 0; i < 120; i++) {
		play.sample.cpu_us += 1400000; /* 1.4 cores: 4 workers at 0.35 each */
		step(&play, 1000000, 7, 70);
	}
	ck_assert_uint_eq(play.decision.desired, 4);
	ck_assert_int_eq(play.decision.cause, NEST_AUTOSCALER_CPU);
	play.sample.memory_bytes = 420 << 20;
	seconds(&play, 120, 7, 70);
	ck_assert_uint_eq(play.decision.desired, 6);
	ck_assert_int_eq(play.decision.cause, NEST_AUTOSCALER_MEMORY);
	end(&play);
}
END_TEST

START_TEST(min_and_max_bound_it)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.min = 4;
	config.max = 6;
	begin(&play, &config);
	ck_assert_uint_eq(play.decision.desired, 4);
	ck_assert_int_eq(play.decision.cause, NEST_AUTOSCALER_BOUND);
	seconds(&play, 60, 10000, 0);
	ck_assert_uint_eq(play.decision.desired, 6);
	ck_assert_uint_eq(play.decision.ceiling, 6);
	seconds(&play, 1000, 0, 0);
	ck_assert_uint_eq(play.decision.desired, 4);
	ck_assert_uint_eq(play.decision.ceiling, 4);
	end(&play);
}
END_TEST

START_TEST(it_scales_out_at_once_and_in_after_the_delay)
{
	struct play play;
	unsigned s;

	begin(&play, &usual);
	seconds(&play, 120, 70, 0);
	ck_assert_uint_eq(play.decision.desired, 10);
	seconds(&play, 10, 140, 0);
	ck_assert_uint_gt(play.decision.desired, 10);
	seconds(&play, 110, 140, 0);
	ck_assert_uint_eq(play.decision.desired, 20);
	for (s = 0; play.decision.desired == 20; s++)
		seconds(&play, 1, 7, 0);
	/* the delay, and until a minute's average has moved */
	ck_assert_uint_ge(s, 60);
	ck_assert_uint_le(s, 66);
	seconds(&play, 120, 7, 0);
	ck_assert_uint_eq(play.decision.desired, 1);
	end(&play);
}
END_TEST

START_TEST(without_a_delay_it_follows_the_window)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.in_delay_us = 0;
	config.panic_window_us = 0;
	begin(&play, &config);
	seconds(&play, 120, 70, 0);
	seconds(&play, 60, 7, 0);
	ck_assert_uint_eq(play.decision.desired, 1);
	ck_assert_uint_eq(play.decision.ceiling, 1);
	end(&play);
}
END_TEST

START_TEST(what_was_needed_at_once_is_not_sent_away_before_the_delay)
{
	struct play play;

	begin(&play, &usual);
	seconds(&play, 120, 1, 0);
	play.sample.needed = 0;
	step(&play, 1000000, 30, 0); /* three workers were busy, for a second */
	ck_assert_uint_eq(play.decision.desired, 1);
	ck_assert_uint_eq(play.decision.ceiling, 3);
	seconds(&play, 59, 1, 0);
	ck_assert_uint_eq(play.decision.ceiling, 3);
	seconds(&play, 5, 1, 0);
	ck_assert_uint_eq(play.decision.ceiling, 1);
	end(&play);
}
END_TEST

START_TEST(a_burst_is_a_panic_and_a_panic_scales_nothing_in)
{
	struct play play;
	uint32_t most = 0;

	begin(&play, &usual);
	seconds(&play, 120, 7, 0);
	ck_assert_uint_eq(play.decision.desired, 1);
	ck_assert(!play.decision.panic);
	seconds(&play, 6, 210, 0);
	ck_assert(play.decision.panic);
	/* the short window sees all of it, the long one a tenth */
	ck_assert_uint_eq(play.decision.desired, 30);
	ck_assert_double_lt(play.decision.concurrency, 30);
	for (unsigned s = 0; play.decision.panic; s++) {
		ck_assert_uint_ge(play.decision.desired, most);
		most = play.decision.desired;
		seconds(&play, 1, 1, 0);
		ck_assert_uint_lt(s, 70);
	}
	seconds(&play, 130, 1, 0);
	ck_assert_uint_eq(play.decision.desired, 1);
	end(&play);
}
END_TEST

START_TEST(quiet_for_the_idle_time_it_goes_to_zero_and_is_settled)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.idle_us = 10 * 1000000ull;
	begin(&play, &config);
	seconds(&play, 120, 70, 0);
	seconds(&play, 9, 0, 0);
	ck_assert_uint_eq(play.decision.desired, 10);
	ck_assert(!play.decision.settled);
	seconds(&play, 1, 0, 0);
	ck_assert_uint_eq(play.decision.desired, 0);
	ck_assert_uint_eq(play.decision.ceiling, 0);
	ck_assert(play.decision.settled);
	end(&play);
}
END_TEST

/* minimum 4 workers, threshold 100, utilisation 0.7, through a peak */
START_TEST(the_published_case_has_capacity_before_it_is_short)
{
	struct nest_autoscaler_config config = usual;
	struct play play;

	config.min = 4;
	config.concurrency_milli = 100 * 1000;
	begin(&play, &config);
	play.sample.ready = 4;
	for (unsigned s = 0; s < 600; s++) {
		double concurrency = s < 300 ? 100 + s * 3 : 100 + (600 - s) * 3;
		uint32_t before = play.decision.desired;

		seconds(&play, 1, concurrency, 0);
		ck_assert_uint_ge(before, 4);
		ck_assert_double_ge(before * 100.0, concurrency);
	}
	ck_assert_uint_le(play.decision.desired, 15);
	seconds(&play, 200, 100, 0);
	ck_assert_uint_eq(play.decision.desired, 4);
	end(&play);
}
END_TEST

START_TEST(every_cause_has_a_name)
{
	for (unsigned i = 0; i < NEST_AUTOSCALER_CAUSES; i++)
		ck_assert_ptr_nonnull(nest_autoscaler_cause_name((enum nest_autoscaler_cause)i));
}
END_TEST

NEST_SUITE("agent/autoscaler", desired_is_average_by_target_and_utilisation,
	an_average_is_of_time_not_of_samples, what_is_older_than_the_window_does_not_count,
	windows_that_no_sample_meets_are_interpolated, many_samples_a_second_say_the_same,
	one_long_first_request_starts_no_second_worker, the_largest_metric_counts,
	min_and_max_bound_it, it_scales_out_at_once_and_in_after_the_delay,
	without_a_delay_it_follows_the_window,
	what_was_needed_at_once_is_not_sent_away_before_the_delay,
	a_burst_is_a_panic_and_a_panic_scales_nothing_in,
	quiet_for_the_idle_time_it_goes_to_zero_and_is_settled,
	the_published_case_has_capacity_before_it_is_short, every_cause_has_a_name)
