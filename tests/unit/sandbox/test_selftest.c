/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/selftest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "tests/unit/suite.h"

#define LIMIT_MS 30000

/* not in /tmp, which the test of CRIU has a new one of */
static char dir[] = "/var/tmp/nest-test-selftest-XXXXXX";
static char fake[64];

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chmod(dir, 0755), 0);
	snprintf(fake, sizeof(fake), "%s/criu", dir);
}

static void teardown(void)
{
	nest_file_remove_tree(AT_FDCWD, dir, NULL);
}

/* A program that stands for CRIU. */
static void write_fake(const char *script)
{
	FILE *f = fopen(fake, "we");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "#!/bin/sh\n%s\n", script);
	fclose(f);
	ck_assert_int_eq(chmod(fake, 0755), 0);
}

static void assert_nothing_left(int fd_before)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	ck_assert_int_eq(fd, fd_before);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}

static int next_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

START_TEST(a_process_is_frozen_and_restored)
{
	struct nest_err err = NEST_ERR_INIT;
	int fd = next_fd();
	uint64_t us = 0;

	for (int i = 0; i < 3; i++)
		ck_assert_msg(nest_selftest_run(NULL, i % 2, LIMIT_MS, &us, &err) == 0, "%s",
			nest_err_text(&err));
	ck_assert_uint_gt(us, 0);
	assert_nothing_left(fd);
	ck_assert_int_ne(access("/run/images", F_OK), 0);
	ck_assert_int_ne(access("/run/subject", F_OK), 0);
}
END_TEST

static void assert_refused(const char *criu, const char *reason)
{
	struct nest_err err = NEST_ERR_INIT;
	int fd = next_fd();
	uint64_t us;

	ck_assert_int_lt(nest_selftest_run(criu, false, LIMIT_MS, &us, &err), 0);
	ck_assert_msg(strstr(nest_err_text(&err), reason), "'%s' lacks '%s'", nest_err_text(&err),
		reason);
	assert_nothing_left(fd);
}

START_TEST(a_criu_that_is_none_is_named)
{
	assert_refused(
		"/nonexistent/criu", "'/nonexistent/criu' is neither a program nor a prefix");
	assert_refused(dir, "is neither a program nor a prefix");
	write_fake("exit 3");
	assert_refused(fake, "CRIU ended without an answer");
}
END_TEST

START_TEST(a_criu_that_hangs_is_ended_in_time)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t us, began = nest_clock_mono_us();
	int fd = next_fd();

	write_fake("exec sleep 1000");
	ck_assert_int_eq(nest_selftest_run(fake, false, 300, &us, &err), -ETIME);
	ck_assert_uint_lt(nest_clock_mono_us() - began, 20000000);
	assert_nothing_left(fd);
}
END_TEST

START_TEST(without_privilege_the_reason_is_told)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct nest_err err = NEST_ERR_INIT;
		uint64_t us;

		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 ||
			setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(nest_selftest_run(NULL, false, LIMIT_MS, &us, &err) == 0 ||
			!strstr(nest_err_text(&err), "take namespaces"));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("selftest");

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_process_is_frozen_and_restored);
	tcase_add_test(tcase, a_criu_that_is_none_is_named);
	tcase_add_test(tcase, a_criu_that_hangs_is_ended_in_time);
	tcase_add_test(tcase, without_privilege_the_reason_is_told);
	return nest_suite_run_case("selftest", tcase);
}
