/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/warm.h"

#include <string.h>

#include "base/err.h"
#include "tests/unit/suite.h"

struct outcome {
	int calls;
	bool well;
	char why[64];
	struct nest_warm *warm; /* where the callback adds another; or NULL */
};

static void on_over(void *arg, const struct nest_err *why)
{
	struct outcome *outcome = arg;

	outcome->calls++;
	outcome->well = why == NULL;
	if (why)
		strncpy(outcome->why, nest_err_text(why), sizeof(outcome->why) - 1);
	if (outcome->warm)
		ck_assert_int_eq(nest_warm_add(outcome->warm, 1, on_over, outcome), 0);
	outcome->warm = NULL;
}

START_TEST(each_waits_for_its_own_number)
{
	struct nest_warm warm = { .waiters = NULL };
	struct outcome one = { 0 }, three = { 0 };

	ck_assert_uint_eq(nest_warm_wants(&warm), 0);
	ck_assert(!nest_warm_note_ready(&warm, 9));
	ck_assert_int_eq(nest_warm_add(&warm, 1, on_over, &one), 0);
	ck_assert_int_eq(nest_warm_add(&warm, 3, on_over, &three), 0);
	ck_assert_uint_eq(nest_warm_wants(&warm), 3);
	ck_assert(!nest_warm_note_ready(&warm, 0));
	ck_assert(nest_warm_note_ready(&warm, 1));
	ck_assert_int_eq(one.calls, 0);
	nest_warm_tell(&warm);
	ck_assert_int_eq(one.calls, 1);
	ck_assert(one.well);
	ck_assert_int_eq(three.calls, 0);
	ck_assert(nest_warm_note_ready(&warm, 3));
	ck_assert_uint_eq(nest_warm_wants(&warm), 3); /* until it is told */
	nest_warm_tell(&warm);
	ck_assert_int_eq(three.calls, 1);
	ck_assert_uint_eq(nest_warm_wants(&warm), 0);
}
END_TEST

START_TEST(a_failure_without_any_worker_is_told_with_its_reason)
{
	struct nest_warm warm = { .waiters = NULL };
	struct outcome one = { 0 };

	ck_assert(!nest_warm_note_end(&warm, 0, "nobody waits"));
	ck_assert_int_eq(nest_warm_add(&warm, 2, on_over, &one), 0);
	ck_assert(nest_warm_note_end(&warm, 0, "it crashed"));
	nest_warm_tell(&warm);
	ck_assert_int_eq(one.calls, 1);
	ck_assert(!one.well);
	ck_assert_str_eq(one.why, "it crashed");
}
END_TEST

START_TEST(some_workers_or_no_cells_have_to_do)
{
	struct nest_warm warm = { .waiters = NULL };
	struct outcome some = { 0 }, starved = { 0 };

	ck_assert_int_eq(nest_warm_add(&warm, 3, on_over, &some), 0);
	ck_assert(nest_warm_note_end(&warm, 1, "the second crashed"));
	ck_assert_uint_eq(nest_warm_wants(&warm), 1);
	nest_warm_tell(&warm);
	ck_assert(some.calls == 1 && some.well);
	ck_assert_int_eq(nest_warm_add(&warm, 3, on_over, &starved), 0);
	ck_assert(nest_warm_note_end(&warm, 0, NULL));
	nest_warm_tell(&warm);
	ck_assert(starved.calls == 1 && starved.well);
}
END_TEST

START_TEST(a_callback_may_wait_again)
{
	struct nest_warm warm = { .waiters = NULL };
	struct outcome one = { .warm = &warm };

	ck_assert_int_eq(nest_warm_add(&warm, 1, on_over, &one), 0);
	ck_assert(nest_warm_note_ready(&warm, 1));
	nest_warm_tell(&warm);
	ck_assert_int_eq(one.calls, 1);
	ck_assert_uint_eq(nest_warm_wants(&warm), 1);
	ck_assert(nest_warm_note_ready(&warm, 1));
	nest_warm_tell(&warm);
	ck_assert_int_eq(one.calls, 2);
}
END_TEST

NEST_SUITE("runtime/warm", each_waits_for_its_own_number,
	a_failure_without_any_worker_is_told_with_its_reason, some_workers_or_no_cells_have_to_do,
	a_callback_may_wait_again)
