/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
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

static void expect_body(struct nest_target *target, const char *body, const char *expected)
{
	struct kit_call c = { .over = false };

	kit_call(&c, target, body);
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	ck_assert_str_eq(kit_body(&c), expected);
	kit_free(&c);
}

/* @body fails so; the seconds of its Retry-After. */
static unsigned expect_failure(struct nest_target *target, const char *body,
	enum nest_failure_kind kind, const char *words)
{
	struct kit_call c = { .over = false };
	unsigned retry_after_s;

	kit_call(&c, target, body);
	ck_assert_str_eq(nest_failure_outcome(c.failure), nest_failure_outcome(kind));
	ck_assert_msg(strstr(c.message, words) != NULL, "'%s' lacks '%s'", c.message, words);
	retry_after_s = c.retry_after_s;
	kit_free(&c);
	return retry_after_s;
}

/* ---- limits ---- */

START_TEST(a_rate_limit_refuses_before_anything_is_started)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"limits\":{\"rate\":0.1}}");

	expect_body(f, "echo\na", "a");
	ck_assert_uint_ge(expect_failure(f, "echo\nb", NEST_FAILURE_THROTTLED, "0.1 requests"), 9);
	ck_assert_uint_eq(kit_stats(f).limited_total, 1);
	ck_assert_uint_eq(kit_stats(f).cold_starts_total, 1);
}
END_TEST

static bool holds_two(void *arg)
{
	struct nest_target_stats stats = kit_stats(arg);

	return stats.in_flight == 2 && stats.queued == 3;
}

static bool has_none(void *arg)
{
	return kit_stats(arg).in_flight == 0;
}

START_TEST(a_cap_on_concurrency_has_the_others_wait)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":4,\"workers\":{\"max\":4},"
			   "\"limits\":{\"concurrency\":2}}");
	struct kit_call calls[5] = { { .over = false } };

	for (int i = 0; i < 5; i++)
		kit_start(&calls[i], f, i < 2 ? "hold" : i == 2 ? "most" : "echo\nx");
	kit_run_while_not(holds_two, f, 5000);
	ck_assert_uint_eq(kit_stats(f).workers[NEST_WORKER_BUSY], 1);
	nest_call_cancel(calls[0].call); /* its slot is free: those that wait take it in turn */
	for (int i = 2; i < 5; i++) {
		kit_finish(&calls[i]);
		ck_assert_msg(calls[i].failure == NEST_FAILURE_NONE, "%s", calls[i].message);
	}
	ck_assert_str_eq(kit_body(&calls[2]), "2");
	nest_call_cancel(calls[1].call);
	kit_run_while_not(has_none, f, 5000);
	for (int i = 0; i < 5; i++)
		kit_free(&calls[i]);
}
END_TEST

/* ---- the breaker ---- */

START_TEST(failures_in_a_row_open_the_breaker_and_a_probe_closes_it)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":1,"
					   "\"breaker\":{\"failures\":2,\"openMs\":200}}");

	expect_failure(f, "error", NEST_FAILURE_ERROR, "");
	expect_body(f, "echo\nwell", "well");
	expect_failure(f, "error", NEST_FAILURE_ERROR, "");
	expect_failure(f, "exit 3", NEST_FAILURE_CRASHED, "code 3");
	ck_assert_str_eq(kit_stats(f).breaker, "open");
	ck_assert_uint_eq(
		expect_failure(f, "echo\nx", NEST_FAILURE_UNAVAILABLE, "circuit breaker"), 1);
	ck_assert_ptr_nonnull(strstr(kit_events(), "the circuit breaker is open for 200 ms"));
	kit_run_for(220);
	expect_body(f, "echo\nprobe", "probe");
	ck_assert_str_eq(kit_stats(f).breaker, "closed");
	ck_assert_uint_eq(kit_stats(f).broken_total, 1);
}
END_TEST

START_TEST(a_probe_whose_caller_leaves_gives_its_place_back)
{
	struct nest_target *f = kit_deploy(
		"{\"name\":\"f\",\"concurrency\":4,\"breaker\":{\"failures\":1,\"openMs\":1}}");
	struct kit_call probe = { .over = false };

	expect_failure(f, "error", NEST_FAILURE_ERROR, "");
	kit_run_for(5);
	kit_start(&probe, f, "hold");
	expect_failure(f, "echo\nx", NEST_FAILURE_UNAVAILABLE, "circuit breaker");
	nest_call_cancel(probe.call);
	kit_free(&probe);
	expect_body(f, "echo\nnext", "next");
	ck_assert_str_eq(kit_stats(f).breaker, "closed");
}
END_TEST

/* ---- the fallback ---- */

START_TEST(a_fallback_is_the_answer_to_what_failed)
{
	struct nest_target *f = kit_deploy(
		"{\"name\":\"f\",\"concurrency\":1,\"timeoutMs\":200,\"fallback\":{\"status\":203,"
		"\"headers\":{\"x-a\":\"b\"},\"body\":\"stale\"}}");
	static const char *const bodies[] = { "error", "exit 3", "never" };
	static const char *const words[] = { "error", "crashed", "timeout" };

	for (int i = 0; i < 3; i++) {
		struct kit_call c = { .over = false };
		char headers[128];

		kit_call(&c, f, bodies[i]);
		ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
		ck_assert_uint_eq(c.status, 0); /* an event's */
		ck_assert_str_eq(kit_body(&c), "stale");
		snprintf(headers, sizeof(headers), "x-nestlet-fallback: %s\nx-a: b\n", words[i]);
		ck_assert_str_eq(c.headers, headers);
		kit_free(&c);
	}
	ck_assert_uint_eq(kit_stats(f).fallbacks_total, 3);
	ck_assert_uint_eq(kit_stats(f).requests_total[NEST_FAILURE_NONE], 0);
}
END_TEST

START_TEST(what_has_begun_to_answer_gets_no_fallback)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"fallback\":{\"status\":200}}");

	expect_failure(f, "half", NEST_FAILURE_CRASHED, "code 7");
	ck_assert_uint_eq(kit_stats(f).fallbacks_total, 0);
}
END_TEST

/* ---- recycling ---- */

static bool is_recycled(void *arg)
{
	struct nest_target_stats stats = kit_stats(arg);

	return stats.cold_starts_total == 2 && stats.workers[NEST_WORKER_DRAINING] == 0;
}

START_TEST(a_worn_worker_goes_when_its_successor_is_ready)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,"
					   "\"workers\":{\"max\":1},\"recycle\":{\"requests\":3}}");
	struct kit_call held = { .over = false };
	struct nest_target_stats stats;

	kit_start(&held, f, "hold");
	for (int i = 0; i < 2; i++)
		expect_body(f, "echo\nx", "x");
	ck_assert_uint_eq(kit_stats(f).recycled_total[NEST_RECYCLE_REQUESTS], 1);
	nest_call_cancel(held.call); /* what it has it may end; here it ends at once */
	kit_free(&held);
	kit_run_while_not(is_recycled, f, 5000);
	expect_body(f, "echo\nfresh", "fresh");
	stats = kit_stats(f);
	for (int i = 0; i < NEST_RESTART_CAUSES; i++)
		ck_assert_uint_eq(stats.restarts_total[i], 0);
}
END_TEST

/* ---- quarantine ---- */

static bool is_quarantined(void *arg)
{
	return kit_stats(arg).quarantined;
}

START_TEST(workers_that_never_come_up_are_put_into_quarantine)
{
	struct nest_target *f = kit_deploy(
		"{\"name\":\"f\",\"env\":{\"FAKE_START\":\"exit\"},"
		"\"workers\":{\"min\":1},\"quarantine\":{\"failures\":3,\"maxMs\":60000}}");

	kit_run_while_not(is_quarantined, f, 5000); /* 100 ms, 200 ms */
	ck_assert_ptr_nonnull(strstr(kit_events(), "is in quarantine: 3 starts of a worker"));
	ck_assert_uint_ge(
		expect_failure(f, "echo\nx", NEST_FAILURE_UNAVAILABLE, "can't be started"), 1);
	ck_assert_uint_eq(kit_stats(f).queued, 0);
}
END_TEST

/* ---- workers up beforehand ---- */

struct warmth {
	bool over;
	bool well;
	char why[256];
};

static void on_warm(void *arg, const struct nest_err *why)
{
	struct warmth *warmth = arg;

	warmth->over = true;
	warmth->well = !why;
	snprintf(warmth->why, sizeof(warmth->why), "%s", why ? nest_err_text(why) : "");
}

static struct warmth warm(const char *version, uint32_t weight)
{
	static struct warmth warmth;

	warmth = (struct warmth){ .over = false };
	ck_assert_int_eq(nest_host_warm(kit_host, "f", version, weight, 100, on_warm, &warmth), 0);
	ck_assert(!warmth.over);
	kit_run_until(&warmth.over, 5000);
	return warmth;
}

START_TEST(a_version_is_warmed_to_its_share_of_the_live_one_s_workers)
{
	struct nest_target *one = kit_deploy(
		"{\"name\":\"f\",\"version\":\"1\",\"concurrency\":1,\"workers\":{\"max\":3}}");
	struct nest_target *two = kit_deploy("{\"name\":\"f\",\"version\":\"2\"}");
	struct nest_target *three =
		kit_deploy("{\"name\":\"f\",\"version\":\"3\",\"workers\":{\"max\":2}}");
	struct kit_call calls[3] = { { .over = false } };

	ck_assert(warm("2", 100).well); /* of nothing */
	ck_assert_uint_eq(kit_stats(two).workers[NEST_WORKER_IDLE], 0);
	for (int i = 0; i < 3; i++)
		kit_start(&calls[i], one, "hold");
	ck_assert(warm("2", 50).well);
	ck_assert_uint_eq(kit_stats(two).workers[NEST_WORKER_IDLE], 2);
	ck_assert(warm("3", 100).well);
	ck_assert_uint_eq(kit_stats(three).workers[NEST_WORKER_IDLE], 2); /* its most */
	ck_assert_int_eq(nest_host_warm(kit_host, "f", "4", 1, 1, on_warm, NULL), 1);
	for (int i = 0; i < 3; i++) {
		nest_call_cancel(calls[i].call);
		kit_free(&calls[i]);
	}
	kit_run_while_not(has_none, one, 5000);
}
END_TEST

START_TEST(a_version_that_can_not_start_is_not_warm)
{
	struct warmth warmth;

	kit_deploy("{\"name\":\"f\",\"version\":\"1\"}");
	kit_deploy("{\"name\":\"f\",\"version\":\"2\",\"workers\":{\"min\":1},"
		   "\"env\":{\"FAKE_START\":\"exit\"}}");
	warmth = warm("2", 100);
	ck_assert(!warmth.well);
	ck_assert_msg(strstr(warmth.why, "before it was ready") != NULL, "%s", warmth.why);
}
END_TEST

NEST_SUITE_WITH("runtime/dispatch_protect", enter, leave,
	a_rate_limit_refuses_before_anything_is_started, a_cap_on_concurrency_has_the_others_wait,
	failures_in_a_row_open_the_breaker_and_a_probe_closes_it,
	a_probe_whose_caller_leaves_gives_its_place_back, a_fallback_is_the_answer_to_what_failed,
	what_has_begun_to_answer_gets_no_fallback, a_worn_worker_goes_when_its_successor_is_ready,
	workers_that_never_come_up_are_put_into_quarantine,
	a_version_is_warmed_to_its_share_of_the_live_one_s_workers,
	a_version_that_can_not_start_is_not_warm)
