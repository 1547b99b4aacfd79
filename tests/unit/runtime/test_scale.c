/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "tests/unit/runtime/kit.h"
#include "tests/unit/suite.h"

static void enter(void)
{
	kit_prepare();
	kit_open();
}

static void leave(void)
{
	kit_close();
}

struct wanted {
	struct nest_target *target;
	uint32_t ready;
	uint32_t in_flight;
};

static bool is_as_wanted(void *arg)
{
	const struct wanted *wanted = arg;
	struct nest_target_stats stats = kit_stats(wanted->target);

	return stats.workers[NEST_WORKER_IDLE] + stats.workers[NEST_WORKER_BUSY] == wanted->ready &&
	       stats.workers[NEST_WORKER_STARTING] + stats.workers[NEST_WORKER_DRAINING] == 0 &&
	       stats.in_flight == wanted->in_flight;
}

static void wait_for(struct nest_target *target, uint32_t ready, uint32_t in_flight)
{
	struct wanted wanted = { target, ready, in_flight };

	kit_run_while_not(is_as_wanted, &wanted, 5000);
}

static void set(struct nest_target *target, uint32_t least, uint32_t desired, uint32_t ceiling)
{
	struct nest_target_scale scale = { least, desired, ceiling };

	nest_target_set_scale(target, &scale);
}

static void echo(struct nest_target *target)
{
	struct kit_call c = { .over = false };

	kit_call(&c, target, "echo\nx");
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	kit_free(&c);
}

START_TEST(desired_workers_are_started_at_once_and_stay_while_idle)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"workers\":{\"max\":3,\"idleMs\":60000}}");

	set(f, 0, 2, UINT32_MAX);
	wait_for(f, 0, 0); /* a first one is for requests to ask for */
	echo(f);
	wait_for(f, 2, 0);
	ck_assert_uint_eq(kit_stats(f).desired, 2);
	set(f, 0, 9, UINT32_MAX); /* workers.max holds */
	wait_for(f, 3, 0);
}
END_TEST

START_TEST(what_is_quiet_for_its_idle_time_keeps_only_the_least)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"workers\":{\"max\":4,\"idleMs\":50}}");

	echo(f);
	set(f, 1, 3, UINT32_MAX);
	wait_for(f, 1, 0);
	ck_assert_uint_eq(kit_stats(f).desired, 1);
	set(f, 0, 0, UINT32_MAX); /* the schedule ends: nobody tells the worker that it was idle */
	wait_for(f, 0, 0);
}
END_TEST

START_TEST(above_the_ceiling_the_least_loaded_go_and_nothing_fails)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":4,\"workers\":{\"max\":3}}");
	static struct kit_call held[6];
	struct kit_call c = { .over = false };

	echo(f);
	set(f, 0, 3, UINT32_MAX);
	wait_for(f, 3, 0);
	for (int i = 0; i < 6; i++)
		kit_start(&held[i], f, "hold");
	wait_for(f, 3, 6); /* two on each */
	set(f, 0, 1, 1);
	wait_for(f, 3, 6); /* all are busy: none has gone */
	nest_call_cancel(held[0].call);
	nest_call_cancel(held[1].call);
	nest_call_cancel(held[2].call);
	nest_call_cancel(held[3].call);
	nest_call_cancel(held[4].call);
	kit_call(&c, f, "echo\nx");
	ck_assert_int_eq(c.failure, NEST_FAILURE_NONE);
	ck_assert(!c.cold);
	kit_free(&c);
	ck_assert(!held[5].over);
	nest_call_cancel(held[5].call);
	wait_for(f, 1, 0);
	for (int i = 0; i < NEST_RESTART_CAUSES; i++)
		ck_assert_uint_eq(kit_stats(f).restarts_total[i], 0);
}
END_TEST

START_TEST(surplus_workers_help_where_the_others_are_full)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,\"queue\":{"
					   "\"length\":0},\"workers\":{\"max\":2}}");
	static struct kit_call held[4];

	echo(f);
	set(f, 0, 2, UINT32_MAX);
	wait_for(f, 2, 0);
	kit_start(&held[0], f, "hold");
	kit_start(&held[1], f, "hold");
	wait_for(f, 2, 2);
	set(f, 0, 1, 1);
	kit_start(&held[2], f, "hold");
	kit_start(&held[3], f, "hold");
	wait_for(f, 2, 4);
	for (int i = 0; i < 4; i++)
		nest_call_cancel(held[i].call);
	wait_for(f, 1, 0);
}
END_TEST

static struct nest_target_load found;
static unsigned nfound;

static void on_load(void *arg, const struct nest_target_load *load)
{
	(void)arg;
	found = *load;
	nfound++;
}

static void look(void)
{
	nfound = 0;
	nest_host_each_load(kit_host, on_load, NULL);
}

START_TEST(load_is_told_of_live_versions)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2}");
	static struct kit_call held[5];
	uint64_t load_us;

	look();
	ck_assert_uint_eq(nfound, 1);
	ck_assert_ptr_eq(found.target, f);
	ck_assert_uint_eq(found.slots, 2);
	ck_assert_uint_eq(found.needed, 0);
	for (int i = 0; i < 5; i++)
		kit_start(&held[i], f, "hold");
	wait_for(f, 3, 5);
	look();
	load_us = found.load_us;
	ck_assert_uint_gt(load_us, 0);
	ck_assert_uint_eq(found.requests, 5);
	ck_assert_uint_eq(found.needed, 3);
	ck_assert_uint_eq(found.ready, 3);
	ck_assert_uint_eq(found.quiet_us, 0);
	ck_assert_uint_gt(found.memory_bytes, 0);
	for (int i = 0; i < 5; i++)
		nest_call_cancel(held[i].call);
	look();
	ck_assert_uint_gt(found.load_us, load_us);
	ck_assert_uint_eq(found.needed, 3); /* at the beginning of this time */
	load_us = found.load_us;
	kit_run_for(20);
	look();
	ck_assert_uint_eq(found.load_us, load_us);
	ck_assert_uint_eq(found.needed, 0);
	ck_assert_uint_ge(found.quiet_us, 20000);
}
END_TEST

static void count(void *arg)
{
	++*(unsigned *)arg;
}

START_TEST(a_host_stirs_once_for_who_waits)
{
	struct nest_target *f;
	unsigned stirs = 0;

	nest_host_on_stir(kit_host, count, &stirs);
	f = kit_deploy("{\"name\":\"f\"}");
	ck_assert_uint_eq(stirs, 1);
	echo(f);
	ck_assert_uint_eq(stirs, 1);
	nest_host_on_stir(kit_host, count, &stirs);
	echo(f);
	echo(f);
	ck_assert_uint_eq(stirs, 2);
	nest_host_on_stir(kit_host, count, &stirs);
	nest_host_on_stir(kit_host, NULL, NULL);
	echo(f);
	ck_assert_uint_eq(stirs, 2);
}
END_TEST

START_TEST(reserved_room_is_nobody_elses)
{
	struct nest_target *f, *g;
	static struct kit_call held[3];

	kit_close();
	kit_prepare();
	kit_config.max_cells = 3;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"workers\":{\"reserved\":2}}");
	g = kit_deploy("{\"name\":\"g\",\"concurrency\":1}");
	for (int i = 0; i < 3; i++)
		kit_start(&held[i], g, "hold");
	wait_for(g, 1, 1);
	ck_assert_uint_eq(kit_stats(g).queued, 2);
	echo(f);
	set(f, 0, 2, UINT32_MAX);
	wait_for(f, 2, 0);
	/* idle, and yet not taken away */
	ck_assert_uint_eq(kit_stats(g).queued, 2);
	for (int i = 0; i < 3; i++)
		nest_call_cancel(held[i].call);
	wait_for(f, 2, 0);
}
END_TEST

START_TEST(no_room_is_kept_for_what_the_bounds_forbid)
{
	struct nest_target *g;
	static struct kit_call held[3];

	kit_close();
	kit_prepare();
	kit_config.max_cells = 3;
	kit_open();
	kit_deploy("{\"name\":\"f\",\"workers\":{\"reserved\":2}}");
	g = kit_deploy("{\"name\":\"g\",\"concurrency\":1}");
	for (int i = 0; i < 3; i++)
		kit_start(&held[i], g, "hold");
	wait_for(g, 1, 1);
	ck_assert_uint_eq(kit_stats(g).queued, 2);
	ck_assert_int_eq(nest_host_set_bounds(kit_host, "f", 0, 1), 0);
	wait_for(g, 2, 2);
	ck_assert_uint_eq(kit_stats(g).queued, 1);
	for (int i = 0; i < 3; i++)
		nest_call_cancel(held[i].call);
}
END_TEST

START_TEST(what_is_wanted_ahead_takes_nothing_from_others)
{
	struct nest_target *f, *g;
	static struct kit_call held[2];

	kit_close();
	kit_prepare();
	kit_config.max_cells = 2;
	kit_open();
	f = kit_deploy("{\"name\":\"f\"}");
	g = kit_deploy("{\"name\":\"g\",\"concurrency\":2}");
	echo(g);
	echo(f);
	set(f, 0, 2, UINT32_MAX);
	wait_for(f, 1, 0);
	wait_for(g, 1, 0);
	/* what it is due it does */
	set(f, 2, 2, UINT32_MAX);
	wait_for(f, 2, 0);
	wait_for(g, 0, 0);
	/* and it is not taken back while it is due */
	kit_start(&held[0], g, "hold");
	kit_run_for(100);
	wait_for(f, 2, 0);
	set(f, 0, 2, UINT32_MAX);
	kit_start(&held[1], g, "hold");
	wait_for(g, 1, 2);
	wait_for(f, 1, 0);
	nest_call_cancel(held[0].call);
	nest_call_cancel(held[1].call);
}
END_TEST

START_TEST(beyond_the_memory_no_worker_is_started)
{
	struct nest_target *f, *g;
	struct kit_call held = { .over = false }, waiting = { .over = false };

	kit_close();
	kit_prepare();
	/* one unknown worker is taken for 64 MiB: none fits beside another, however small that is */
	kit_config.workers_bytes = 64 << 20;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"memoryMb\":512}");
	g = kit_deploy("{\"name\":\"g\",\"concurrency\":1,\"memoryMb\":512}");
	kit_start(&held, f, "hold");
	wait_for(f, 1, 1);
	kit_start(&waiting, g, "echo\nx");
	wait_for(g, 0, 0);
	ck_assert_uint_eq(kit_stats(g).queued, 1);
	nest_call_cancel(held.call);
	/* idle, it makes room */
	kit_run_until(&waiting.over, 5000);
	ck_assert_int_eq(waiting.failure, NEST_FAILURE_NONE);
	kit_free(&waiting);
}
END_TEST

static bool is_paused(void *arg)
{
	return kit_stats(arg).paused == 1;
}

/* It leaves soon after it was frozen: on a busy machine between two looks. */
static bool is_paused_or_gone(void *arg)
{
	return is_paused(arg) || kit_stats(arg).workers[NEST_WORKER_IDLE] == 0;
}

START_TEST(an_idle_worker_is_frozen_and_goes_on_with_its_next_request)
{
	struct nest_target *f, *g;

	kit_close();
	kit_prepare();
	kit_config.ping_interval_ms = 50;
	/* on a busy machine one that is not frozen may take its time, too */
	kit_config.ping_timeout_ms = 1500;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"workers\":{\"freezeMs\":20}}");
	g = kit_deploy("{\"name\":\"g\",\"workers\":{\"freezeMs\":20,\"idleMs\":200}}");
	for (int i = 0; i < 5; i++) {
		echo(f);
		ck_assert_uint_eq(kit_stats(f).paused, 0);
		kit_run_while_not(is_paused, f, 5000);
	}
	/* it can't answer, and that is not held against it */
	kit_run_for(1800);
	echo(f);
	ck_assert_uint_eq(kit_stats(f).cold_starts_total, 1);
	/* a frozen one can leave */
	echo(g);
	kit_run_while_not(is_paused_or_gone, g, 5000);
	wait_for(g, 0, 0);
	for (int i = 0; i < NEST_RESTART_CAUSES; i++)
		ck_assert_uint_eq(
			kit_stats(f).restarts_total[i] + kit_stats(g).restarts_total[i], 0);
}
END_TEST

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(idle_workers_go_when_memory_is_found_short)
{
	struct nest_target *f;
	bool measured = false;

	kit_close();
	kit_prepare();
	kit_config.workers_bytes = 1 << 16; /* less than any has */
	kit_open();
	f = kit_deploy("{\"name\":\"f\"}");
	echo(f);
	ck_assert_int_eq(nest_host_refresh(kit_host, set_flag, &measured), 0);
	kit_run_until(&measured, 5000);
	wait_for(f, 0, 0);
	echo(f); /* the first worker of all is always started */
}
END_TEST

NEST_SUITE_WITH("runtime/scale", enter, leave,
	desired_workers_are_started_at_once_and_stay_while_idle,
	what_is_quiet_for_its_idle_time_keeps_only_the_least,
	above_the_ceiling_the_least_loaded_go_and_nothing_fails,
	surplus_workers_help_where_the_others_are_full, load_is_told_of_live_versions,
	a_host_stirs_once_for_who_waits, reserved_room_is_nobody_elses,
	no_room_is_kept_for_what_the_bounds_forbid, what_is_wanted_ahead_takes_nothing_from_others,
	beyond_the_memory_no_worker_is_started, idle_workers_go_when_memory_is_found_short,
	an_idle_worker_is_frozen_and_goes_on_with_its_next_request)
