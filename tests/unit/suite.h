/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_SUITE_H
#define NEST_TESTS_UNIT_SUITE_H

#include <stdlib.h>

#include <check.h>

/* Each test runs in a process of its own and is killed after this many seconds. */
#define NEST_SUITE_TIMEOUT_S 20

/*
 * Runs @tcase (taken) as a suite, each test in a process of its own (unless CK_FORK=no, for
 * debuggers); the exit code of the program. For tests in loops, or with a time limit of their own.
 */
static inline int nest_suite_run_case(const char *name, TCase *tcase)
{
	Suite *suite = suite_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The same with @n tests, between @enter and @leave (or NULL). */
static inline int nest_suite_run(const char *name, void (*enter)(void), void (*leave)(void),
	const TTest *const *tests, size_t n)
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, enter, leave);
	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	return nest_suite_run_case(name, tcase);
}

/* The main function of a test program: NEST_SUITE("base/err", first_test, second_test). */
#define NEST_SUITE(name, ...) NEST_SUITE_WITH(name, NULL, NULL, __VA_ARGS__)

/* The same with what each test does before and after: NEST_SUITE_WITH("a/b", enter, leave, ...). */
#define NEST_SUITE_WITH(name, enter, leave, ...)                                      \
	int main(void)                                                                \
	{                                                                             \
		const TTest *const tests[] = { __VA_ARGS__ };                         \
		return nest_suite_run(                                                \
			name, enter, leave, tests, sizeof(tests) / sizeof(tests[0])); \
	}

#endif
