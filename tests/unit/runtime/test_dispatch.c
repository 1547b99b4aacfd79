/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/unit/runtime/kit.h"
#include "tests/unit/suite.h"

#define MANY 60

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

static void expect_failure(struct nest_target *target, const char *body,
	enum nest_failure_kind kind, const char *words)
{
	struct kit_call c = { .over = false };

	kit_call(&c, target, body);
	ck_assert_str_eq(nest_failure_outcome(c.failure), nest_failure_outcome(kind));
	ck_assert_msg(strstr(c.message, words) != NULL, "'%s' lacks '%s'", c.message, words);
	kit_free(&c);
}

struct in_flight {
	struct nest_target *target;
	uint32_t n;
};

static bool has_in_flight(void *arg)
{
	struct in_flight *f = arg;

	return kit_stats(f->target).in_flight == f->n;
}

static void wait_in_flight(struct nest_target *target, uint32_t n)
{
	struct in_flight f = { target, n };

	kit_run_while_not(has_in_flight, &f, 5000);
}

static bool has_workers(void *arg)
{
	struct in_flight *f = arg;
	struct nest_target_stats stats = kit_stats(f->target);

	return stats.workers[NEST_WORKER_IDLE] + stats.workers[NEST_WORKER_BUSY] == f->n &&
	       stats.workers[NEST_WORKER_STARTING] + stats.workers[NEST_WORKER_DRAINING] == 0;
}

static void wait_workers(struct nest_target *target, uint32_t n)
{
	struct in_flight f = { target, n };

	kit_run_while_not(has_workers, &f, 5000);
}

START_TEST(the_first_request_starts_a_worker_and_the_second_finds_it)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "echo\nhello");
	ck_assert_str_eq(kit_body(&c), "hello");
	ck_assert(c.cold);
	kit_free(&c);
	kit_call(&c, f, "echo\nagain");
	ck_assert_str_eq(kit_body(&c), "again");
	ck_assert(!c.cold);
	kit_free(&c);
	ck_assert_uint_eq(kit_stats(f).cold_starts_total, 1);
	ck_assert_uint_eq(kit_stats(f).requests_total[NEST_FAILURE_NONE], 2);
}
END_TEST

START_TEST(a_worker_never_has_more_requests_than_its_concurrency)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":3,\"workers\":{\"max\":1}}");
	static struct kit_call held[3], waiting[MANY];
	struct kit_call c = { .over = false };

	for (int i = 0; i < 3; i++)
		kit_start(&held[i], f, "hold");
	wait_in_flight(f, 3);
	for (int i = 0; i < MANY; i++)
		kit_start(&waiting[i], f, i == MANY - 1 ? "most" : "echo\nx");
	ck_assert_uint_eq(kit_stats(f).in_flight, 3);
	ck_assert_uint_eq(kit_stats(f).queued, MANY);
	nest_call_cancel(held[0].call);
	for (int i = 0; i < MANY; i++)
		kit_finish(&waiting[i]);
	ck_assert_str_eq(kit_body(&waiting[MANY - 1]), "3");
	kit_call(&c, f, "release");
	kit_finish(&held[1]);
	kit_finish(&held[2]);
	ck_assert_str_eq(kit_body(&held[2]), "held");
	kit_free(&c);
	for (int i = 0; i < MANY; i++)
		kit_free(&waiting[i]);
	for (int i = 0; i < 3; i++)
		kit_free(&held[i]);
	ck_assert_uint_eq(kit_stats(f).requests_total[NEST_FAILURE_CANCELLED], 1);
}
END_TEST

START_TEST(a_full_queue_refuses)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":1,"
					   "\"workers\":{\"max\":1},\"queue\":{\"length\":2}}");
	struct kit_call a = { .over = false }, b = { .over = false }, c = { .over = false };

	kit_start(&a, f, "hold");
	wait_in_flight(f, 1);
	kit_start(&b, f, "echo\nb");
	kit_start(&c, f, "echo\nc");
	expect_failure(f, "echo\nd", NEST_FAILURE_THROTTLED, "queue of function 'f' is full");
	nest_call_cancel(a.call);
	kit_finish(&b);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "c");
	kit_free(&b);
	kit_free(&c);
}
END_TEST

START_TEST(waiting_has_an_end)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1},"
			   "\"queue\":{\"waitMs\":50}}");
	struct kit_call a = { .over = false }, b = { .over = false };

	kit_start(&a, f, "hold");
	wait_in_flight(f, 1);
	kit_call(&b, f, "echo\nb");
	ck_assert_int_eq(b.failure, NEST_FAILURE_UNAVAILABLE);
	ck_assert_uint_eq(b.retry_after_s, 1);
	ck_assert_uint_ge(b.queue_us, 50000);
	ck_assert_str_eq(b.message, "no worker of function 'f' was free within 50 ms");
	kit_free(&b);
	b.request.deadline_ms = nest_clock_wall_ms() + 20;
	kit_call(&b, f, "echo\nb");
	ck_assert_int_eq(b.failure, NEST_FAILURE_TIMEOUT);
	kit_free(&b);
	nest_call_cancel(a.call);
}
END_TEST

START_TEST(load_starts_workers_up_to_the_most_and_idleness_ends_them)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,"
					   "\"workers\":{\"max\":3,\"min\":1,\"idleMs\":100}}");
	static struct kit_call held[8];
	struct kit_call c = { .over = false };

	wait_workers(f, 1);
	for (int i = 0; i < 8; i++)
		kit_start(&held[i], f, "hold");
	wait_in_flight(f, 6);
	ck_assert_uint_eq(kit_stats(f).queued, 2);
	ck_assert_uint_eq(kit_stats(f).workers[NEST_WORKER_BUSY], 3);
	for (int i = 0; i < 8; i++)
		nest_call_cancel(held[i].call);
	wait_workers(f, 1);
	kit_call(&c, f, "echo\nok");
	ck_assert(!c.cold);
	kit_free(&c);
	for (int i = 0; i < NEST_RESTART_CAUSES; i++)
		ck_assert_uint_eq(kit_stats(f).restarts_total[i], 0);
}
END_TEST

START_TEST(a_deadline_fails_the_request_and_frees_the_slot)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,"
					   "\"workers\":{\"max\":1},\"timeoutMs\":100}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "hold");
	ck_assert_int_eq(c.failure, NEST_FAILURE_TIMEOUT);
	ck_assert_str_eq(c.message, "function 'f' did not answer within 100 ms");
	ck_assert_uint_ge(c.run_us, 100000);
	kit_free(&c);
	/* It answers CANCEL, so it is kept. */
	wait_in_flight(f, 0);
	kit_call(&c, f, "echo\nok");
	ck_assert(!c.cold);
	kit_free(&c);
}
END_TEST

START_TEST(a_worker_that_does_not_stop_is_killed_when_it_harms_nobody)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,"
					   "\"workers\":{\"max\":1},\"timeoutMs\":400}");
	struct kit_call stuck = { .over = false }, good = { .over = false };

	kit_start(&stuck, f, "never");
	wait_in_flight(f, 1);
	kit_finish(&stuck);
	ck_assert_int_eq(stuck.failure, NEST_FAILURE_TIMEOUT);
	/* Within the grace another request may still come to it, and gets its answer. */
	kit_start(&good, f, "hold");
	wait_in_flight(f, 2);
	kit_finish(&good);
	ck_assert_int_eq(good.failure, NEST_FAILURE_TIMEOUT);
	wait_in_flight(f, 0);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_TIMEOUT], 1);
	expect_body(f, "echo\nback", "back");
	kit_free(&stuck);
	kit_free(&good);
}
END_TEST

START_TEST(a_blocked_worker_is_killed_and_the_others_are_told)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":2,"
					   "\"workers\":{\"max\":1},\"timeoutMs\":300}");
	struct kit_call blocked = { .over = false }, other = { .over = false };

	expect_body(f, "echo\nup", "up");
	kit_start(&blocked, f, "block");
	kit_run_for(200);
	kit_start(&other, f, "echo\nx");
	kit_finish(&blocked);
	ck_assert_int_eq(blocked.failure, NEST_FAILURE_TIMEOUT);
	kit_finish(&other);
	ck_assert_int_ne(other.failure, NEST_FAILURE_NONE);
	wait_in_flight(f, 0);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_TIMEOUT], 1);
	expect_body(f, "echo\nback", "back");
	kit_free(&blocked);
	kit_free(&other);
}
END_TEST

START_TEST(one_request_at_a_time_is_killed_at_its_deadline)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":1,"
					   "\"workers\":{\"max\":1},\"timeoutMs\":100}");

	expect_failure(f, "block", NEST_FAILURE_TIMEOUT, "did not answer within 100 ms");
	expect_body(f, "echo\nback", "back");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_TIMEOUT], 1);
}
END_TEST

START_TEST(a_crash_names_its_cause)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"memoryMb\":32}");

	expect_failure(f, "exit 9", NEST_FAILURE_CRASHED,
		"function 'f' exited with code 9 while it had the request");
	expect_failure(f, "raise 6", NEST_FAILURE_CRASHED, "was killed by signal 6 (SIGABRT)");
	expect_failure(f, "half", NEST_FAILURE_CRASHED, "exited with code 7");
	expect_failure(f, "hog", NEST_FAILURE_OOM, "used more than its 32 MB of memory");
	expect_body(f, "echo\nback", "back");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_EXIT], 2);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_SIGNAL], 1);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_OOM], 1);
	ck_assert_ptr_nonnull(strstr(kit_events(), "signal 6"));
}
END_TEST

START_TEST(last_words_are_heard)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");

	for (int i = 0; i < 5; i++) {
		expect_body(f, "last", "last words");
		wait_workers(f, 0);
	}
}
END_TEST

START_TEST(handlers_errors_pass_through)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "error");
	ck_assert_int_eq(c.failure, NEST_FAILURE_ERROR);
	ck_assert_str_eq(c.error_json, "{\"errorType\":\"Oops\",\"errorMessage\":\"no\"}");
	kit_free(&c);
	expect_body(f, "echo\nstill", "still");
}
END_TEST

static bool kill_worker(void *arg, const struct nest_worker_stats *stats)
{
	(void)arg;
	ck_assert_int_gt(stats->pid, 0);
	ck_assert_int_eq(kill(stats->pid, SIGKILL), 0);
	return true;
}

struct pile {
	struct kit_call calls[8];
	struct nest_target *target;
	unsigned over;
};

static bool moved(void *arg)
{
	struct pile *pile = arg;
	struct nest_target_stats stats = kit_stats(pile->target);

	pile->over = 0;
	for (int i = 0; i < 8; i++)
		pile->over += pile->calls[i].over;
	return stats.cold_starts_total == 2 && stats.in_flight == 8 - pile->over;
}

START_TEST(what_no_worker_began_goes_to_another_once)
{
	static struct pile pile;
	static char body[200001];

	/* It reads nothing: the socket takes the first requests, the others stay in the host. */
	pile.target = kit_deploy("{\"name\":\"f\",\"concurrency\":8,\"workers\":{\"max\":1},"
				 "\"env\":{\"FAKE_START\":\"deaf\"}}");
	memset(body, 'x', sizeof(body) - 1);
	for (int i = 0; i < 8; i++)
		kit_start(&pile.calls[i], pile.target, body);
	wait_in_flight(pile.target, 8);
	kit_run_for(20);
	nest_host_each_worker(kit_host, kill_worker, NULL);
	kit_run_while_not(moved, &pile, 5000);
	ck_assert_uint_gt(pile.over, 0);
	ck_assert_uint_lt(pile.over, 8);
	for (unsigned i = 0; i < pile.over; i++) {
		ck_assert(pile.calls[i].over);
		ck_assert_int_eq(pile.calls[i].failure, NEST_FAILURE_CRASHED);
	}
	kit_run_for(20);
	nest_host_each_worker(kit_host, kill_worker, NULL);
	for (int i = 0; i < 8; i++) {
		kit_finish(&pile.calls[i]);
		ck_assert_int_eq(pile.calls[i].failure, NEST_FAILURE_CRASHED);
		ck_assert_ptr_nonnull(strstr(pile.calls[i].message, "signal 9 (SIGKILL)"));
		kit_free(&pile.calls[i]);
	}
}
END_TEST

START_TEST(a_worker_that_dies_as_soon_as_it_is_ready_is_not_started_without_end)
{
	struct nest_target *f = kit_deploy(
		"{\"name\":\"f\",\"workers\":{\"min\":1},\"env\":{\"FAKE_START\":\"quit\"}}");

	kit_run_for(500);
	/* At 0, 100, 300 ms and so on. */
	ck_assert_uint_ge(kit_stats(f).restarts_total[NEST_RESTART_EXIT], 2);
	ck_assert_uint_le(kit_stats(f).restarts_total[NEST_RESTART_EXIT], 4);
}
END_TEST

START_TEST(random_frames_never_harm_the_host)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":10}");
	static struct kit_call calls[10];

	for (int seed = 1; seed <= 40; seed++) {
		char body[32];

		snprintf(body, sizeof(body), "random %d", seed);
		for (int i = 0; i < 10; i++)
			kit_start(&calls[i], f, i == 9 ? body : "hold");
		for (int i = 0; i < 10; i++) {
			kit_finish(&calls[i]);
			kit_free(&calls[i]);
		}
	}
	expect_body(f, "echo\nback", "back");
}
END_TEST

START_TEST(an_init_error_is_told_with_its_text)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"env\":{\"FAKE_START\":\"error\"}}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "echo\nx");
	ck_assert_int_eq(c.failure, NEST_FAILURE_INIT);
	ck_assert_str_eq(c.error_json, "{\"errorType\":\"Syntax\",\"errorMessage\":\"line 1\"}");
	kit_free(&c);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_INIT], 1);
	ck_assert_str_eq(
		kit_stats(f).last_failure, "function 'f' could not be initialised: Syntax: line 1");
}
END_TEST

START_TEST(a_start_that_dies_is_tried_once_more)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"env\":{\"FAKE_START\":\"exit\"}}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "echo\nx");
	ck_assert_int_eq(c.failure, NEST_FAILURE_INIT);
	ck_assert_str_eq(c.message, "function 'f' exited with code 3 before it was ready");
	/* The second start waited for the back-off. */
	ck_assert_uint_ge(c.queue_us, 100000);
	kit_free(&c);
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_EXIT], 2);
}
END_TEST

START_TEST(who_cannot_wait_for_the_next_try_is_told_when_to_come_back)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"env\":{\"FAKE_START\":\"hang\"},"
					   "\"initTimeoutMs\":30,\"queue\":{\"waitMs\":10}}");
	struct kit_call c = { .over = false };

	expect_failure(f, "echo\nx", NEST_FAILURE_INIT, "was not ready within 30 ms");
	kit_call(&c, f, "echo\nx");
	ck_assert_int_eq(c.failure, NEST_FAILURE_UNAVAILABLE);
	ck_assert_uint_eq(c.retry_after_s, 1);
	ck_assert_ptr_nonnull(strstr(c.message, "can't be started just now"));
	ck_assert_ptr_nonnull(strstr(c.message, "not ready within 30 ms"));
	kit_free(&c);
}
END_TEST

START_TEST(breaking_the_protocol_costs_the_worker)
{
	static const char *const ways[] = { "type", "length", "flags", "stream", "twice", "status",
		"body-first", "ready", "credit", "flood", "header", "garbage" };
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct kit_call c = { .over = false };
		char body[32];

		snprintf(body, sizeof(body), "bad %s", ways[i]);
		c.hold_body = true;
		kit_call(&c, f, body);
		ck_assert_msg(
			c.failure == NEST_FAILURE_INVALID || c.failure == NEST_FAILURE_CRASHED,
			"%s: %s", body, nest_failure_outcome(c.failure));
		ck_assert_msg(strstr(c.message, "protocol") != NULL, "%s: %s", body, c.message);
		kit_free(&c);
		ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_PROTOCOL], i + 1);
	}
	expect_body(f, "echo\nback", "back");
}
END_TEST

START_TEST(breaking_the_protocol_at_the_start_fails_it)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"env\":{\"FAKE_START\":\"garbage\"}}");
	struct nest_target *g = kit_deploy("{\"name\":\"g\",\"env\":{\"FAKE_START\":\"early\"}}");

	expect_failure(f, "echo\nx", NEST_FAILURE_INIT, "broke the worker protocol");
	expect_failure(g, "echo\nx", NEST_FAILURE_INIT, "instead of HELLO");
}
END_TEST

START_TEST(a_request_may_be_cancelled_anywhere)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1}}");
	struct kit_call a = { .over = false }, b = { .over = false }, c = { .over = false };

	kit_start(&a, f, "echo\na"); /* while it waits for a cold start */
	nest_call_cancel(a.call);
	kit_start(&b, f, "hold");
	wait_in_flight(f, 1);
	kit_start(&c, f, "echo\nc"); /* while it waits for a slot */
	nest_call_cancel(c.call);
	nest_call_cancel(b.call); /* while it runs */
	ck_assert_uint_eq(kit_stats(f).queued, 0);
	expect_body(f, "echo\nok", "ok");
	ck_assert_uint_eq(kit_stats(f).cold_starts_total, 1);
	ck_assert_uint_eq(kit_stats(f).requests_total[NEST_FAILURE_CANCELLED], 3);
}
END_TEST

START_TEST(a_cancelled_request_that_goes_on_costs_a_worker_of_one_its_life)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1}}");
	struct kit_call a = { .over = false };

	kit_start(&a, f, "never");
	wait_in_flight(f, 1);
	nest_call_cancel(a.call);
	expect_body(f, "echo\nok", "ok");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_TIMEOUT], 1);
}
END_TEST

START_TEST(a_cell_is_made_free_for_another_function)
{
	struct nest_target *f, *g;
	struct kit_call held = { .over = false };

	kit_close();
	kit_prepare();
	kit_config.max_cells = 1;
	kit_open();
	f = kit_deploy("{\"name\":\"f\"}");
	g = kit_deploy("{\"name\":\"g\"}");
	expect_body(f, "echo\nf", "f");
	expect_body(g, "echo\ng", "g");
	expect_body(f, "echo\nf", "f");
	/* A busy one is not taken away: who wants its cell waits until it is idle. */
	kit_start(&held, f, "hold");
	wait_in_flight(f, 1);
	nest_call_cancel(held.call);
	expect_body(g, "echo\ng", "g");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_EXIT], 0);
}
END_TEST

START_TEST(a_hung_worker_is_found_before_the_next_request)
{
	struct nest_target *f;

	kit_close();
	kit_prepare();
	kit_config.ping_interval_ms = 50;
	kit_config.ping_timeout_ms = 50;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"workers\":{\"min\":1,\"max\":1},"
		       "\"env\":{\"FAKE_START\":\"deaf\"}}");
	wait_workers(f, 1);
	wait_workers(f, 0);
	ck_assert_uint_ge(kit_stats(f).restarts_total[NEST_RESTART_HUNG], 1);
	ck_assert_ptr_nonnull(strstr(kit_events(), "is hung"));
}
END_TEST

START_TEST(a_handler_that_computes_is_not_hung)
{
	struct nest_target *f;

	kit_close();
	kit_prepare();
	/* long enough for a worker that is well, also on a loaded machine under sanitizers */
	kit_config.ping_interval_ms = 50;
	kit_config.ping_timeout_ms = 2000;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"timeoutMs\":4000,\"concurrency\":1}");
	expect_failure(f, "block", NEST_FAILURE_TIMEOUT, "did not answer within 4000 ms");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_HUNG], 0);
}
END_TEST

NEST_SUITE_WITH("runtime/dispatch", enter, leave,
	the_first_request_starts_a_worker_and_the_second_finds_it,
	a_worker_never_has_more_requests_than_its_concurrency, a_full_queue_refuses,
	waiting_has_an_end, load_starts_workers_up_to_the_most_and_idleness_ends_them,
	a_deadline_fails_the_request_and_frees_the_slot,
	a_worker_that_does_not_stop_is_killed_when_it_harms_nobody,
	a_blocked_worker_is_killed_and_the_others_are_told,
	one_request_at_a_time_is_killed_at_its_deadline, a_crash_names_its_cause,
	last_words_are_heard, handlers_errors_pass_through,
	what_no_worker_began_goes_to_another_once,
	a_worker_that_dies_as_soon_as_it_is_ready_is_not_started_without_end,
	random_frames_never_harm_the_host, an_init_error_is_told_with_its_text,
	a_start_that_dies_is_tried_once_more,
	who_cannot_wait_for_the_next_try_is_told_when_to_come_back,
	breaking_the_protocol_costs_the_worker, breaking_the_protocol_at_the_start_fails_it,
	a_request_may_be_cancelled_anywhere,
	a_cancelled_request_that_goes_on_costs_a_worker_of_one_its_life,
	a_cell_is_made_free_for_another_function, a_hung_worker_is_found_before_the_next_request,
	a_handler_that_computes_is_not_hung)
