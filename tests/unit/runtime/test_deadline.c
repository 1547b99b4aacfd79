/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/clock.h"
#include "runtime/deadline.h"
#include "tests/unit/suite.h"

#define MANY 2000

static uv_loop_t loop;
static struct nest_deadlines *set;

static void enter(void)
{
	uv_loop_init(&loop);
	ck_assert_int_eq(nest_deadlines_open(&loop, &set, NULL), 0);
	ck_assert_int_eq(nest_deadlines_reserve(set, MANY), 0);
}

static void ignore(void *arg)
{
	(void)arg;
}

static void leave(void)
{
	nest_deadlines_close(set, ignore, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

struct item {
	struct nest_deadline deadline;
	uint64_t due_us;
	uint64_t came_us;
};

static uint64_t last_due_us;
static unsigned came;

static void on_due(void *arg)
{
	struct item *item = arg;

	item->came_us = nest_clock_mono_us();
	ck_assert_uint_eq(item->came_us >= item->due_us, 1);
	ck_assert_uint_ge(item->due_us, last_due_us);
	last_due_us = item->due_us;
	came++;
}

START_TEST(they_come_in_order_and_never_early)
{
	static struct item items[MANY];
	uint64_t now_us = nest_clock_mono_us();
	unsigned cleared = 0;

	srand(7);
	for (int i = 0; i < MANY; i++) {
		items[i].deadline.cb = on_due;
		items[i].deadline.arg = &items[i];
		items[i].due_us = now_us + (uint64_t)(rand() % 100000);
		nest_deadlines_set(set, &items[i].deadline, items[i].due_us);
	}
	for (int i = 0; i < MANY; i += 3) {
		nest_deadlines_clear(set, &items[i].deadline);
		ck_assert(!nest_deadline_is_set(&items[i].deadline));
		cleared++;
	}
	for (int i = 1; i < MANY; i += 3) {
		items[i].due_us = now_us + (uint64_t)(rand() % 100000);
		nest_deadlines_set(set, &items[i].deadline, items[i].due_us);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(came, MANY - cleared);
}
END_TEST

static void set_again(void *arg)
{
	struct item *item = arg;

	came++;
	if (came < 5)
		nest_deadlines_set(set, &item->deadline, 0);
}

static void on_check(uv_check_t *check)
{
	unsigned *turns = check->data;

	++*turns;
	if (came >= 5)
		uv_check_stop(check);
}

START_TEST(one_that_is_set_again_for_now_waits_for_the_next_turn)
{
	struct item item = { .deadline = { .cb = set_again } };
	unsigned turns = 0;
	static uv_check_t check;

	item.deadline.arg = &item;
	uv_check_init(&loop, &check);
	check.data = &turns;
	uv_check_start(&check, on_check);
	uv_unref((uv_handle_t *)&check);
	nest_deadlines_set(set, &item.deadline, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(came, 5);
	ck_assert_uint_ge(turns, 4);
	uv_close((uv_handle_t *)&check, NULL);
}
END_TEST

START_TEST(with_nothing_set_the_loop_has_nothing_to_do)
{
	struct item item = { .deadline = { .cb = on_due } };

	item.deadline.arg = &item;
	nest_deadlines_set(set, &item.deadline, nest_clock_mono_us() + 20000);
	nest_deadlines_clear(set, &item.deadline);
	nest_deadlines_clear(set, &item.deadline);
	uv_run(&loop, UV_RUN_DEFAULT); /* fires once for nothing, then ends */
	ck_assert_uint_eq(came, 0);
}
END_TEST

NEST_SUITE_WITH("runtime/deadline", enter, leave, they_come_in_order_and_never_early,
	one_that_is_set_again_for_now_waits_for_the_next_turn,
	with_nothing_set_the_loop_has_nothing_to_do)
