/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "runtime/load.h"
#include "runtime/worth.h"
#include "tests/unit/suite.h"

#define S 1000000ull

static const struct nest_worth usual = {
	.idle_us = 10 * S,
	.age_us = 600 * S,
	.requests = 60,
	.cold_us = S / 4,
	.memory_bytes = 64 << 20,
};

START_TEST(what_saves_more_time_is_worth_more)
{
	struct nest_worth worth = usual;

	worth.cold_us = S;
	ck_assert_double_gt(nest_worth_of(&worth), nest_worth_of(&usual));
	worth = usual;
	worth.requests = 600;
	ck_assert_double_gt(nest_worth_of(&worth), nest_worth_of(&usual));
	worth = usual;
	worth.idle_us = S;
	ck_assert_double_gt(nest_worth_of(&worth), nest_worth_of(&usual));
	worth = usual;
	worth.memory_bytes = 128 << 20;
	ck_assert_double_lt(nest_worth_of(&worth), nest_worth_of(&usual));
}
END_TEST

START_TEST(between_equals_the_one_used_last_stays)
{
	struct nest_worth first = usual, second = usual;

	first.idle_us = 500000;
	second.idle_us = 500001;
	ck_assert_double_gt(nest_worth_of(&first), nest_worth_of(&second));
}
END_TEST

START_TEST(what_is_unknown_is_worth_something)
{
	struct nest_worth fresh = { .age_us = 0 };

	ck_assert_double_gt(nest_worth_of(&fresh), 0);
	ck_assert_double_lt(nest_worth_of(&fresh), 1e9);
}
END_TEST

START_TEST(a_load_is_the_time_of_all_calls)
{
	struct nest_load load = { .came = 0 };

	ck_assert_uint_eq(nest_load_us(&load, 5 * S), 0);
	nest_load_enter(&load, 10 * S);
	nest_load_enter(&load, 11 * S);
	ck_assert_uint_eq(nest_load_us(&load, 12 * S), 3 * S);
	ck_assert_uint_eq(nest_load_quiet_us(&load, 12 * S), 0);
	nest_load_leave(&load, 13 * S);
	ck_assert_uint_eq(nest_load_us(&load, 13 * S), 5 * S);
	ck_assert_uint_eq(nest_load_us(&load, 20 * S), 12 * S);
	nest_load_leave(&load, 20 * S);
	ck_assert_uint_eq(nest_load_us(&load, 100 * S), 12 * S);
	ck_assert_uint_eq(nest_load_quiet_us(&load, 100 * S), 80 * S);
	ck_assert_uint_eq(load.peak, 2);
}
END_TEST

NEST_SUITE("runtime/worth", what_saves_more_time_is_worth_more,
	between_equals_the_one_used_last_stays, what_is_unknown_is_worth_something,
	a_load_is_the_time_of_all_calls)
