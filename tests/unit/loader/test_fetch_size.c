/* SPDX-License-Identifier: Apache-2.0 */
/* Downloads whose length is known before the server is asked, or thought to be. */
#include "loader/loader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "loader/reference.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/loader/web.h"
#include "tests/unit/suite.h"

#define FAR "0.2"	  /* a server that isn't next door */
#define CONNECTIONS 4u	  /* web_enter()'s, and server.py's TOGETHER */
#define RANGE_MIN 262144u /* a connection isn't worth less */
#define TINY 2000u	  /* in an archive of 4096 */
#define HARDLY 600000u	  /* worth three connections */

static void serve_sized(uint64_t size)
{
	web_serve_after(FAR);
	web.size = size;
}

/* Loads without a retry, with so many requests. */
static void loads_at_once(const char *mode, unsigned requests)
{
	serve_sized(web.bytes);
	web_loads(web_url(mode));
	ck_assert_uint_eq(web_stats().fetch_retries_total, 0);
	ck_assert_uint_eq(web_ask("count", mode), requests);
	web_close_loader();
}

START_TEST(all_ranges_are_asked_for_before_there_is_an_answer)
{
	loads_at_once("together", CONNECTIONS);
}
END_TEST

START_TEST(the_ranges_are_the_whole_file_and_no_more)
{
	serve_sized(web.bytes);
	web_loads(web_url("good"));
	ck_assert_uint_eq(web_stats().fetched_bytes_total, web.bytes);
	ck_assert_uint_eq(web_ask("count", "good"), CONNECTIONS);
	web_close_loader();
}
END_TEST

START_TEST(more_than_a_round_of_ranges_is_loaded)
{
	web_make_archive("a.tar", 30000000);
	serve_sized(web.bytes);
	web_loads(web_url("good"));
	ck_assert_uint_eq(web_stats().fetched_bytes_total, web.bytes);
	ck_assert_uint_gt(web_ask("count", "good"), CONNECTIONS);
	ck_assert_uint_le(web_ask("most", "good"), CONNECTIONS);
	web_close_loader();
}
END_TEST

START_TEST(a_tiny_file_is_asked_for_once)
{
	web_make_archive("a.tar", TINY);
	loads_at_once("good", 1);
}
END_TEST

START_TEST(a_small_file_is_not_worth_all_connections)
{
	web_make_archive("a.tar", HARDLY);
	loads_at_once("good", (unsigned)(web.bytes / RANGE_MIN) + 1);
}
END_TEST

START_TEST(one_connection_takes_it_all)
{
	web.config.fetch.connections = 1;
	loads_at_once("good", 1);
}
END_TEST

START_TEST(a_range_that_drops_is_resumed)
{
	serve_sized(web.bytes);
	web_loads(web_url("drops"));
	ck_assert_uint_gt(web_stats().fetch_retries_total, 0);
	web_close_loader();
}
END_TEST

START_TEST(a_busy_server_is_asked_again)
{
	serve_sized(web.bytes);
	web_loads(web_url("busy"));
	ck_assert_uint_eq(web_stats().fetch_retries_total, 2);
	web_close_loader();
}
END_TEST

/* ---- servers without ranges ---- */

START_TEST(a_server_without_ranges_sends_it_over_one_connection)
{
	loads_at_once("whole", CONNECTIONS);
}
END_TEST

START_TEST(a_later_request_may_be_the_one_that_gets_it_all)
{
	loads_at_once("late-whole", CONNECTIONS);
}
END_TEST

START_TEST(a_stream_without_ranges_that_drops_begins_again)
{
	serve_sized(web.bytes);
	web_loads(web_url("drops-whole"));
	ck_assert_uint_le(web_stats().fetch_retries_total, 1);
	web_close_loader();
}
END_TEST

START_TEST(a_chunked_answer_without_length_is_loaded)
{
	loads_at_once("bare", CONNECTIONS);
}
END_TEST

/* ---- redirects ---- */

START_TEST(a_redirect_is_followed_once_by_all)
{
	loads_at_once("moved", CONNECTIONS);
}
END_TEST

START_TEST(the_first_redirect_counts_for_all)
{
	unsigned mirrors = 0;

	serve_sized(web.bytes);
	web_loads(web_url("moved-anywhere"));
	ck_assert_uint_eq(web_ask("count", "moved-anywhere"), CONNECTIONS);
	for (unsigned i = 1; i <= CONNECTIONS; i++) {
		char mode[16];

		snprintf(mode, sizeof(mode), "mirror%u", i);
		mirrors += web_ask("count", mode) > 0;
	}
	ck_assert_uint_eq(mirrors, 1);
	web_close_loader();
}
END_TEST

START_TEST(redirects_of_one_round_are_one_redirect)
{
	web.config.fetch.connections = 12; /* more than the redirects that are followed */
	loads_at_once("moves-on", 12);
}
END_TEST

START_TEST(a_redirect_that_loops_is_ended)
{
	serve_sized(web.bytes);
	web_fails(web_url("loops"), -EPROTO, "6th redirect");
	ck_assert_uint_le(web_ask("count", "loops"), 6 * CONNECTIONS);
}
END_TEST

/* ---- another length than the reference says ---- */

/* Fails at once, with both lengths, nothing taken, nothing tried again. */
static void refuses(const char *mode, uint64_t size)
{
	char words[96];

	serve_sized(size);
	snprintf(words, sizeof(words), "it is %llu bytes long, not %llu",
		(unsigned long long)web.bytes, (unsigned long long)size);
	web_fails_open(web_url(mode), -EKEYREJECTED, words);
	ck_assert_uint_eq(web_stats().fetched_bytes_total, 0);
	ck_assert_uint_eq(web_stats().fetch_retries_total, 0);
	ck_assert_uint_le(web_ask("count", mode), CONNECTIONS);
	web_close_loader();
}

START_TEST(a_file_that_is_longer_is_refused)
{
	refuses("good", web.bytes - 1);
}
END_TEST

START_TEST(a_file_that_is_shorter_is_refused)
{
	refuses("good", web.bytes + 1);
}
END_TEST

START_TEST(a_file_that_ends_before_most_ranges_is_refused)
{
	/* these ranges are answered with 416, before the first one is */
	refuses("late", web.bytes * CONNECTIONS);
}
END_TEST

START_TEST(a_range_behind_an_end_that_is_not_told_is_refused)
{
	serve_sized(web.bytes * CONNECTIONS);
	web_fails(web_url("late-416"), -EREMOTEIO, "the server answered 416");
}
END_TEST

START_TEST(another_length_without_ranges_is_refused)
{
	refuses("whole", web.bytes - 1);
}
END_TEST

START_TEST(another_length_over_one_connection_is_refused)
{
	web.config.fetch.connections = 1;
	refuses("good", web.bytes + 1);
}
END_TEST

START_TEST(a_chunked_answer_that_ends_early_is_refused)
{
	char words[96];

	serve_sized(web.bytes + 1);
	snprintf(words, sizeof(words), "it is %llu bytes long, not %llu",
		(unsigned long long)web.bytes, (unsigned long long)web.size);
	web_fails_open(web_url("bare"), -EKEYREJECTED, words);
	ck_assert_uint_eq(web_stats().fetch_retries_total, 0);
	web_close_loader();
}
END_TEST

START_TEST(a_chunked_answer_that_does_not_end_is_refused)
{
	char words[96];

	serve_sized(web.bytes - 1000000);
	snprintf(words, sizeof(words), "bytes long, not %llu", (unsigned long long)web.size);
	web_fails_open(web_url("bare"), -EKEYREJECTED, words);
	ck_assert_uint_eq(web_stats().fetch_retries_total, 0);
	web_close_loader();
}
END_TEST

START_TEST(an_empty_file_is_refused)
{
	kit_write(kit_path("files/a.tar"), "", 0, 0644);
	web.bytes = 0;
	refuses("good", 4096);
}
END_TEST

START_TEST(a_length_beyond_the_limit_is_refused_unasked)
{
	web.config.fetch.max_bytes = web.bytes - 1;
	serve_sized(web.bytes);
	web_fails(web_url("good"), -EFBIG, "are allowed");
	ck_assert_uint_eq(web_ask("count", "good"), 0);
}
END_TEST

START_TEST(a_file_that_changes_between_two_answers_is_noticed)
{
	serve_sized(web.bytes);
	web_fails(
		web_url("changes"), -ESTALE, "changed on the server while it was downloaded (ETag");
}
END_TEST

START_TEST(other_lengths_are_other_downloads)
{
	struct nest_reference right = { .url = NULL };
	struct nest_reference wrong;
	struct web_result results[2];

	serve_sized(web.bytes);
	web.config.allow_unverified = true;
	web_open_loader();
	right = (struct nest_reference){ .url = web_url("good"), .size = web.bytes };
	wrong = (struct nest_reference){ .url = right.url, .size = web.bytes + 1 };
	web_start(&right, 1, &results[0]);
	web_start(&wrong, 1, &results[1]);
	web_finish(&results[0]);
	web_finish(&results[1]);
	ck_assert_msg(results[0].tree != NULL, "%s", nest_err_text(&results[0].err));
	ck_assert_ptr_null(results[1].tree);
	ck_assert_int_eq(results[1].err.code, -EKEYREJECTED);
	nest_tree_unref(results[0].tree);
	web_close_loader();
}
END_TEST

/* ---- local files ---- */

START_TEST(a_local_file_must_have_its_length_too)
{
	struct nest_reference reference = { .url = kit_path("files/a.tar"), .size = web.bytes };
	struct web_result result;

	web_open_loader();
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	nest_tree_unref(result.tree);
	reference.size--;
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -EKEYREJECTED);
	ck_assert_ptr_nonnull(strstr(result.err.text, "bytes long, not"));
	reference.url = kit_path("files");
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -EINVAL);
	ck_assert_ptr_nonnull(strstr(result.err.text, "sha256 and size"));
	web_close_loader();
}
END_TEST

NEST_SUITE_WITH("loader/fetch_size", web_enter, web_leave,
	all_ranges_are_asked_for_before_there_is_an_answer,
	the_ranges_are_the_whole_file_and_no_more, more_than_a_round_of_ranges_is_loaded,
	a_tiny_file_is_asked_for_once, a_small_file_is_not_worth_all_connections,
	one_connection_takes_it_all, a_range_that_drops_is_resumed, a_busy_server_is_asked_again,
	a_server_without_ranges_sends_it_over_one_connection,
	a_later_request_may_be_the_one_that_gets_it_all,
	a_stream_without_ranges_that_drops_begins_again, a_chunked_answer_without_length_is_loaded,
	a_redirect_is_followed_once_by_all, the_first_redirect_counts_for_all,
	redirects_of_one_round_are_one_redirect, a_redirect_that_loops_is_ended,
	a_file_that_is_longer_is_refused, a_file_that_is_shorter_is_refused,
	a_file_that_ends_before_most_ranges_is_refused,
	a_range_behind_an_end_that_is_not_told_is_refused, another_length_without_ranges_is_refused,
	another_length_over_one_connection_is_refused, a_chunked_answer_that_ends_early_is_refused,
	a_chunked_answer_that_does_not_end_is_refused, an_empty_file_is_refused,
	a_length_beyond_the_limit_is_refused_unasked,
	a_file_that_changes_between_two_answers_is_noticed, other_lengths_are_other_downloads,
	a_local_file_must_have_its_length_too)
