/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/touch.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/suite.h"

#define PROGRAM "/usr/bin/python3"

/* A process that has just executed the program, and has run nothing of it yet. */
static pid_t start_stopped(void)
{
	char name[] = PROGRAM;
	char *const argv[] = { name, NULL };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execv(PROGRAM, argv);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	return pid;
}

/* Has the whole file in memory. */
static void warm(const char *path)
{
	char bytes[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	while (read(fd, bytes, sizeof(bytes)) > 0)
		continue;
	close(fd);
}

/* Of what it has mapped from files, in kB. */
static unsigned long resident_of_files(pid_t pid)
{
	char path[64], line[256];
	unsigned long kb = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "RssFile: %lu", &kb) == 1)
			break;
	fclose(file);
	return kb;
}

START_TEST(what_is_in_memory_of_a_program_is_mapped_for_it)
{
	pid_t pid = start_stopped();
	unsigned long before = resident_of_files(pid);

	warm(PROGRAM);
	nest_touch_programs(pid);
	/* its code has some megabytes */
	ck_assert_uint_gt(resident_of_files(pid), before + 1024);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

START_TEST(one_that_is_gone_is_no_matter)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	nest_touch_programs(pid);
}
END_TEST

NEST_SUITE("sandbox/touch", what_is_in_memory_of_a_program_is_mapped_for_it,
	one_that_is_gone_is_no_matter)
