/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/unit/runtime/kit.h"
#include "tests/unit/suite.h"

#define SIX_MB (6u << 20)
#define CREDIT 262144u

static void enter(void)
{
	kit_prepare();
	kit_open();
}

static void leave(void)
{
	kit_close();
}

static bool is_writable(void *arg)
{
	struct kit_call *c = arg;

	return c->writable || c->over;
}

/* Writes @n bytes in pieces, and waits whenever it is asked to. Returns how often that was. */
static unsigned upload(struct kit_call *c, size_t n, size_t piece)
{
	char *bytes = calloc(1, piece);
	unsigned pauses = 0;

	while (n > 0 && !c->over) {
		size_t now = n < piece ? n : piece;
		int r = nest_call_write(c->call, bytes, now);

		ck_assert_int_ge(r, 0);
		n -= now;
		if (r == 0)
			continue;
		pauses++;
		c->writable = false;
		kit_run_while_not(is_writable, c, 5000);
	}
	if (!c->over)
		nest_call_finish(c->call);
	free(bytes);
	return pauses;
}

START_TEST(six_megabytes_go_up_within_credit)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .request = { .body = "sink\n", .body_len = 5 } };

	kit_start(&c, f, NULL);
	ck_assert_uint_gt(upload(&c, SIX_MB, 100000), 5);
	kit_finish(&c);
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	ck_assert_str_eq(kit_body(&c), "6291456");
	kit_free(&c);
}
END_TEST

START_TEST(a_body_that_is_there_at_once_goes_up_whole)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .over = false };
	char *body = calloc(1, 1000001);

	memset(body, 'x', 1000000);
	memcpy(body, "sink\n", 5);
	kit_call(&c, f, body);
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	ck_assert_str_eq(kit_body(&c), "999995");
	free(body);
	kit_free(&c);
}
END_TEST

START_TEST(a_worker_that_takes_nothing_stops_its_own_stream_only)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"workers\":{\"max\":1}}");
	struct kit_call c = { .request = { .body = "stingy\n", .body_len = 7 } };
	struct kit_call other = { .over = false };
	static char bytes[CREDIT];

	kit_call(&other, f, "echo\nup");
	kit_free(&other);
	kit_start(&c, f, NULL);
	ck_assert_int_eq(nest_call_write(c.call, bytes, CREDIT - 7), 0);
	ck_assert_int_eq(nest_call_write(c.call, bytes, 1), 1);
	kit_call(&other, f, "echo\nfree");
	ck_assert_str_eq(kit_body(&other), "free");
	kit_free(&other);
	ck_assert(!c.writable);
	kit_call(&other, f, "release");
	kit_run_while_not(is_writable, &c, 5000);
	nest_call_finish(c.call);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "262138"); /* without its first line */
	kit_free(&other);
	kit_free(&c);
}
END_TEST

START_TEST(six_megabytes_come_down)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "source 6291456");
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	ck_assert_uint_eq(c.body.len, SIX_MB);
	kit_free(&c);
}
END_TEST

static bool has_credit_full(void *arg)
{
	struct kit_call *c = arg;

	return c->unconsumed >= CREDIT;
}

START_TEST(a_slow_client_gets_no_more_than_credit_and_holds_nobody_up)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"workers\":{\"max\":1}}");
	struct kit_call slow = { .hold_body = true }, other = { .over = false };

	kit_start(&slow, f, "source 1000000");
	kit_run_while_not(has_credit_full, &slow, 5000);
	kit_call(&other, f, "source 1000000");
	ck_assert_uint_eq(other.body.len, 1000000);
	ck_assert_uint_eq(slow.body.len, CREDIT);
	slow.hold_body = false;
	nest_call_consumed(slow.call, slow.unconsumed);
	kit_finish(&slow);
	ck_assert_uint_eq(slow.body.len, 1000000);
	kit_free(&slow);
	kit_free(&other);
}
END_TEST

START_TEST(a_client_that_goes_in_the_middle_frees_the_worker)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1}}");
	struct kit_call slow = { .hold_body = true }, other = { .over = false };

	kit_start(&slow, f, "source 100000000");
	kit_run_while_not(has_credit_full, &slow, 5000);
	nest_call_cancel(slow.call);
	kit_call(&other, f, "echo\nok");
	ck_assert_str_eq(kit_body(&other), "ok");
	ck_assert_uint_eq(kit_stats(f).restarts_total[NEST_RESTART_TIMEOUT], 0);
	kit_free(&slow);
	kit_free(&other);
}
END_TEST

START_TEST(body_waits_with_its_request_for_a_worker)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .request = { .body = "sink\n", .body_len = 5 } };
	static char bytes[CREDIT];

	kit_start(&c, f, NULL);
	ck_assert_int_eq(nest_call_write(c.call, bytes, 1000), 0);
	ck_assert_int_eq(nest_call_write(c.call, bytes, CREDIT - 1005), 1);
	kit_run_while_not(is_writable, &c, 5000);
	nest_call_finish(c.call);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "262139");
	kit_free(&c);
}
END_TEST

START_TEST(what_came_while_a_request_waited_goes_with_it)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .request = { .body = "first\n", .body_len = 6 } };
	static char bytes[CREDIT];

	kit_start(&c, f, NULL);
	ck_assert_int_eq(nest_call_write(c.call, bytes, 1000), 0);
	nest_call_finish(c.call);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "1000");
	kit_free(&c);
}
END_TEST

START_TEST(a_body_that_goes_on_is_no_whole_one)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .request = { .body = "first\n", .body_len = 6 } };
	static char bytes[CREDIT];

	kit_start(&c, f, NULL);
	ck_assert_int_eq(nest_call_write(c.call, bytes, 1000), 0);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "1000 of more");
	kit_free(&c);
}
END_TEST

START_TEST(an_answer_before_the_body_is_complete_ends_the_request)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1}}");
	struct kit_call c = { .request = { .body = "echo\nearly", .body_len = 10 } };
	struct kit_call other = { .over = false };

	kit_start(&c, f, NULL);
	kit_finish(&c);
	ck_assert_str_eq(kit_body(&c), "early");
	kit_call(&other, f, "echo\nnext");
	ck_assert_str_eq(kit_body(&other), "next");
	ck_assert(!other.cold);
	kit_free(&c);
	kit_free(&other);
}
END_TEST

START_TEST(an_events_result_has_a_limit)
{
	struct nest_target *f;
	struct kit_call c = { .over = false };

	kit_close();
	kit_prepare();
	kit_config.response_bytes = 100000;
	kit_open();
	f = kit_deploy("{\"name\":\"f\",\"concurrency\":1}");
	kit_call(&c, f, "source 100001");
	ck_assert_int_eq(c.failure, NEST_FAILURE_INVALID);
	ck_assert_str_eq(c.message, "the function's result is larger than 100000 bytes");
	kit_free(&c);
	kit_call(&c, f, "source 100000");
	ck_assert_int_eq(c.failure, NEST_FAILURE_NONE);
	kit_free(&c);
	ck_assert_uint_eq(kit_stats(f).cold_starts_total, 1);
}
END_TEST

START_TEST(an_http_request_gets_a_status)
{
	static const struct nest_call_header headers[] = {
		{ .name = "host", .value = "x", .name_len = 4, .value_len = 1 },
	};
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	struct kit_call c = { .request = { .http = true,
				      .method = "POST",
				      .target = "/a?b",
				      .headers = headers,
				      .nheaders = 1 } };

	kit_call(&c, f, "echo\nhi");
	ck_assert_uint_eq(c.status, 200);
	ck_assert_str_eq(kit_body(&c), "hi");
	kit_free(&c);
}
END_TEST

START_TEST(an_event_for_an_http_handler_is_a_post)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"interface\":\"http\"}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "echo\nhi");
	ck_assert_uint_eq(c.status, 200);
	ck_assert_str_eq(kit_body(&c), "hi");
	kit_free(&c);
}
END_TEST

START_TEST(the_tail_of_its_log_comes_with_the_answer)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":1}");
	struct kit_call c = { .request = { .want_log_tail = true } };

	kit_call(&c, f, "log something");
	ck_assert_str_eq(kit_body(&c), "logged");
	nest_buf_append(&c.tail, "", 1);
	ck_assert_ptr_nonnull(strstr(nest_buf_bytes(&c.tail), "something\n"));
	kit_free(&c);
	kit_call(&c, f, "log something");
	ck_assert_uint_eq(c.tail.len, 0);
	kit_free(&c);
}
END_TEST

START_TEST(the_environment_is_the_functions_and_the_hosts)
{
	struct nest_target *f = kit_deploy(
		"{\"name\":\"f\",\"env\":{\"MINE\":\"yes\",\"HOME\":\"/root\",\"LANG\":\"C\"}}");
	static const char *const expected[][2] = {
		{ "env MINE", "yes" },
		{ "env HOME", "/tmp" },
		{ "env LANG", "C" },
		{ "env PATH", "/usr/local/bin:/usr/bin:/bin" },
		{ "env NESTLET_CHANNEL_FD", "3" },
		{ "env NESTLET_FUNCTION_DIR", "/function" },
	};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		struct kit_call c = { .over = false };

		kit_call(&c, f, expected[i][0]);
		ck_assert_str_eq(kit_body(&c), expected[i][1]);
		kit_free(&c);
	}
}
END_TEST

NEST_SUITE_WITH("runtime/call", enter, leave, six_megabytes_go_up_within_credit,
	a_body_that_is_there_at_once_goes_up_whole,
	a_worker_that_takes_nothing_stops_its_own_stream_only, six_megabytes_come_down,
	a_slow_client_gets_no_more_than_credit_and_holds_nobody_up,
	a_client_that_goes_in_the_middle_frees_the_worker, body_waits_with_its_request_for_a_worker,
	what_came_while_a_request_waited_goes_with_it, a_body_that_goes_on_is_no_whole_one,
	an_answer_before_the_body_is_complete_ends_the_request, an_events_result_has_a_limit,
	an_http_request_gets_a_status, an_event_for_an_http_handler_is_a_post,
	the_tail_of_its_log_comes_with_the_answer, the_environment_is_the_functions_and_the_hosts)
