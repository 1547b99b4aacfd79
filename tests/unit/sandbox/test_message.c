/* SPDX-License-Identifier: Apache-2.0 */
/* The check of a start request, which is all that stands between the agent and the spawner. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sandbox/message.h"

static union nest_message message;
static const struct nest_message_range uids = { .base = 1000, .count = 10 };
static struct nest_err err;

static size_t fill(void)
{
	static const char words[] = "/bin/x\0A=1\0B=2";
	struct nest_message_start *start = &message.start;

	memset(&message, 0, sizeof(message));
	memcpy(start->strings, words, sizeof(words));
	start->memory_bytes = 1u << 26;
	start->tmp_bytes = 1u << 20;
	start->uid = 1009;
	start->pids = 1;
	start->nofile = 64;
	start->argc = 1;
	start->envc = 2;
	start->strings_bytes = sizeof(words);
	strcpy(start->hostname, "h");
	nest_message_begin(&start->head, NEST_MESSAGE_START, sizeof(*start) + sizeof(words), 7);
	return start->head.size;
}

static int check(size_t n)
{
	err.code = 0;
	return nest_message_check_start(&message.start, n, &uids, &err);
}

START_TEST(a_good_start_passes)
{
	ck_assert_msg(check(fill()) == 0, "%s", nest_err_text(&err));
}
END_TEST

/* Every single field, put out of its range, is refused. */
START_TEST(each_bad_field_is_refused)
{
#define REFUSE(field, value)                                                           \
	do {                                                                           \
		size_t n_ = fill();                                                    \
		message.start.field = (value);                                         \
		ck_assert_msg(check(n_) == -EINVAL, "%s = %s passed", #field, #value); \
		ck_assert_int_ne(err.text[0], 0);                                      \
	} while (0)
	REFUSE(head.type, NEST_MESSAGE_KILL);
	REFUSE(head.size, 3);
	REFUSE(head.cell, 0);
	REFUSE(memory_bytes, (1u << 20) - 1);
	REFUSE(memory_bytes, UINT64_MAX);
	REFUSE(tmp_bytes, 0);
	REFUSE(tmp_bytes, UINT64_MAX);
	REFUSE(network, 2);
	REFUSE(uid, 999);
	REFUSE(uid, 1010);
	REFUSE(uid, 0);
	REFUSE(uid, UINT32_MAX);
	REFUSE(pids, 0);
	REFUSE(pids, UINT32_MAX);
	REFUSE(cpu_milli, 9);
	REFUSE(cpu_milli, UINT32_MAX);
	REFUSE(nofile, 0);
	REFUSE(nofile, UINT32_MAX);
	REFUSE(argc, 0);
	REFUSE(argc, 2);
	REFUSE(argc, UINT32_MAX);
	REFUSE(envc, 1);
	REFUSE(envc, UINT32_MAX);
	REFUSE(strings_bytes, 0);
	REFUSE(strings_bytes, 14);
	REFUSE(strings_bytes, 16);
	REFUSE(strings_bytes, UINT32_MAX);
	REFUSE(hostname[0], '\0');
	REFUSE(hostname[0], '/');
	REFUSE(hostname[1], '\n');
	REFUSE(strings[0], 'b');
	REFUSE(strings[14], 'x');
	REFUSE(strings[3], '\0');
#undef REFUSE
}
END_TEST

START_TEST(an_unterminated_host_name_is_refused)
{
	size_t n = fill();

	memset(message.start.hostname, 'h', sizeof(message.start.hostname));
	ck_assert_int_eq(check(n), -EINVAL);
}
END_TEST

START_TEST(a_cut_message_is_refused)
{
	size_t n = fill();

	/* heap memory of just that size: the sanitizer sees any look beyond it */
	for (size_t cut = sizeof(struct nest_message_head); cut < n; cut++) {
		nest_autofree struct nest_message_start *short_one = malloc(cut);

		memcpy(short_one, &message, cut);
		short_one->head.size = (uint32_t)cut;
		ck_assert_int_eq(nest_message_check_start(short_one, cut, &uids, NULL), -EINVAL);
	}
}
END_TEST

/* Whatever passes the check can be walked as strings without leaving the message. */
START_TEST(random_bytes_pass_only_if_they_are_whole)
{
	unsigned seed = 7;

	for (int i = 0; i < 200000; i++) {
		size_t n = fill();
		uint32_t ends = 0;

		for (int k = rand_r(&seed) % 3; k >= 0; k--)
			message.room[(size_t)rand_r(&seed) % n] = (char)rand_r(&seed);
		if (check(n) < 0)
			continue;
		for (size_t at = sizeof(message.start); at < n; at++)
			ends += message.room[at] == '\0';
		ck_assert_uint_eq(ends, message.start.argc + message.start.envc);
		ck_assert_int_eq(message.room[n - 1], '\0');
		ck_assert_uint_lt(message.start.uid - uids.base, uids.count);
		ck_assert_uint_lt(strlen(message.start.hostname), NEST_MESSAGE_HOSTNAME_MAX + 1);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("message");
	TCase *cases = tcase_create("message");

	tcase_set_timeout(cases, 30);
	tcase_add_test(cases, a_good_start_passes);
	tcase_add_test(cases, each_bad_field_is_refused);
	tcase_add_test(cases, an_unterminated_host_name_is_refused);
	tcase_add_test(cases, a_cut_message_is_refused);
	tcase_add_test(cases, random_bytes_pass_only_if_they_are_whole);
	suite_add_tcase(s, cases);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_set_fork_status(runner, CK_FORK);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
