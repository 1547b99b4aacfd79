/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sched.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/landlock.h"
#include "tests/unit/suite.h"

static struct sockaddr_un address;
static socklen_t address_len;

/* An abstract name that no other test has. */
static void name_socket(const char *what)
{
	int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "nest-test-%s-%d",
		what, getpid());

	address.sun_family = AF_UNIX;
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int listen_abstract(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, address_len) < 0 || listen(fd, 4) < 0)
		return -1;
	return fd;
}

static int connect_abstract(void)
{
	nest_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return connect(fd, (struct sockaddr *)&address, address_len) < 0 ? -errno : 0;
}

/* Runs @body in a confined child and returns its exit code. */
static int confined(int (*body)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(nest_landlock_confine(NULL) == 0 ? body() : 99);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int reach_out(void)
{
	if (connect_abstract() != -EPERM)
		return 1;
	if (kill(getppid(), 0) == 0 || errno != EPERM)
		return 2;
	return 0;
}

static int stay_inside(void)
{
	nest_autoclose int fd = -1;
	pid_t pid;

	name_socket("inside");
	fd = listen_abstract();
	if (fd < 0 || connect_abstract() < 0)
		return 1;
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	if (kill(pid, SIGKILL) < 0)
		return 2;
	return waitpid(pid, NULL, 0) == pid ? 0 : 3;
}

static int leave_nothing(void)
{
	nest_autoclose int fd = dup(0);
	int before = fd, after;

	close(nest_take_fd(fd));
	if (nest_landlock_confine(NULL) != 0) /* domains nest */
		return 1;
	after = dup(0);
	if (after != before)
		return 2;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 3;
}

static int go_on_mounting(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 1;
	return mount("tmpfs", "/mnt", "tmpfs", 0, "size=64k") < 0 ? 2 : 0;
}

START_TEST(a_confined_process_stays_in_its_scope)
{
	nest_autoclose int fd = -1;

	if (nest_landlock_abi() < NEST_LANDLOCK_ABI_SCOPES) { /* says so instead of failing */
		ck_assert_int_eq(nest_landlock_confine(NULL), NEST_LANDLOCK_ABSENT);
		return;
	}
	name_socket("outside");
	fd = listen_abstract();
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect_abstract(), 0);
	ck_assert_int_eq(confined(reach_out), 0);
	ck_assert_int_eq(confined(stay_inside), 0);
	ck_assert_int_eq(confined(leave_nothing), 0);
	ck_assert_int_eq(confined(go_on_mounting), 0);
}
END_TEST

/* The other way stays open: the host ends what is confined. */
START_TEST(a_confined_process_is_signalled_from_outside)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		raise(nest_landlock_confine(NULL) < 0 ? SIGABRT : SIGSTOP);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("all");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, a_confined_process_stays_in_its_scope);
	tcase_add_test(tcase, a_confined_process_is_signalled_from_outside);
	return nest_suite_run_case("landlock", tcase);
}
