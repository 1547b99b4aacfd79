/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/suite.h"

static int open_fds(void)
{
	nest_autoclosedir DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	return n;
}

static void expect_flags(int fd, bool nonblock)
{
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, nonblock);
}

START_TEST(pairs_and_pipes_close_on_exec)
{
	int fds[2];

	ck_assert_int_eq(nest_fd_socketpair(SOCK_SEQPACKET | SOCK_NONBLOCK, fds, NULL), 0);
	expect_flags(fds[0], true);
	expect_flags(fds[1], true);
	ck_assert_int_eq(nest_fd_pipe(0, fds, NULL), 0);
	expect_flags(fds[0], false);
	expect_flags(fds[1], false);
}
END_TEST

START_TEST(a_failure_leaves_the_result_alone)
{
	struct nest_err err = NEST_ERR_INIT;
	int fds[2] = { -1, -1 };

	ck_assert_int_eq(nest_fd_socketpair(12345, fds, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "socket pair"));
	ck_assert_int_eq(fds[0], -1);
	ck_assert_int_eq(nest_fd_pipe(~0, fds, &err), -EINVAL);
	ck_assert_int_eq(fds[1], -1);
}
END_TEST

START_TEST(nonblock_is_switched)
{
	struct nest_err err = NEST_ERR_INIT;
	int fds[2];

	ck_assert_int_eq(nest_fd_pipe(0, fds, NULL), 0);
	ck_assert_int_eq(nest_fd_set_nonblock(fds[0], 1, NULL), 0);
	expect_flags(fds[0], true);
	ck_assert_int_eq(nest_fd_set_nonblock(fds[0], 0, NULL), 0);
	expect_flags(fds[0], false);
	close(fds[0]);
	ck_assert_int_eq(nest_fd_set_nonblock(fds[0], 1, &err), -EBADF);
}
END_TEST

#define BIG (4u << 20)

static void on_signal(int sig)
{
	(void)sig;
}

struct writer {
	int fd;
	char *bytes;
	int rc;
};

static void *write_big(void *arg)
{
	struct writer *writer = arg;

	writer->rc = nest_fd_write_all(writer->fd, writer->bytes, BIG, NULL);
	close(writer->fd);
	return NULL;
}

START_TEST(write_all_survives_short_writes_and_signals)
{
	struct sigaction act = { .sa_handler = on_signal }; /* no SA_RESTART: EINTR is seen */
	struct writer writer = { .bytes = malloc(BIG) };
	nest_autofree char *got = malloc(BIG);
	size_t have = 0;
	pthread_t thread;
	int fds[2];

	for (size_t i = 0; i < BIG; i++)
		writer.bytes[i] = (char)(i * 31 >> 7);
	sigaction(SIGUSR1, &act, NULL);
	ck_assert_int_eq(nest_fd_pipe(0, fds, NULL), 0);
	writer.fd = fds[1];
	ck_assert_int_eq(pthread_create(&thread, NULL, write_big, &writer), 0);
	while (have < BIG) {
		ssize_t n;

		pthread_kill(thread, SIGUSR1);
		n = read(fds[0], got + have, BIG - have > 5000 ? 5000 : BIG - have);
		ck_assert_int_gt(n, 0);
		have += (size_t)n;
	}
	pthread_join(thread, NULL);
	ck_assert_int_eq(writer.rc, 0);
	ck_assert_int_eq(memcmp(got, writer.bytes, BIG), 0);
	free(writer.bytes);
	close(fds[0]);
}
END_TEST

START_TEST(write_all_reports_a_closed_reader)
{
	struct nest_err err = NEST_ERR_INIT;
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(nest_fd_pipe(0, fds, NULL), 0);
	close(fds[0]);
	ck_assert_int_eq(nest_fd_write_all(fds[1], "x", 1, &err), -EPIPE);
	ck_assert_int_eq(err.code, -EPIPE);
}
END_TEST

START_TEST(a_message_carries_bytes_and_descriptors)
{
	int pair[2], pipe_fds[2], got[NEST_FD_MAX_PASSED];
	char bytes[16];
	size_t n = 99;

	ck_assert_int_eq(nest_fd_socketpair(SOCK_SEQPACKET, pair, NULL), 0);
	ck_assert_int_eq(nest_fd_pipe(0, pipe_fds, NULL), 0);
	ck_assert_int_eq(nest_fd_send(pair[0], "hello", 5, pipe_fds, 2), 0);
	ck_assert_int_eq(nest_fd_recv(pair[1], bytes, sizeof(bytes), got, 8, &n), 5);
	ck_assert_int_eq(memcmp(bytes, "hello", 5), 0);
	ck_assert_uint_eq(n, 2);
	expect_flags(got[0], false);
	expect_flags(got[1], false);
	ck_assert_int_eq(nest_fd_write_all(got[1], "y", 1, NULL), 0);
	ck_assert_int_eq(read(pipe_fds[0], bytes, 1), 1);
	ck_assert_int_eq(bytes[0], 'y');
}
END_TEST

START_TEST(the_end_of_the_stream_is_zero)
{
	int pair[2], got[1];
	size_t n = 99;
	char byte;

	ck_assert_int_eq(nest_fd_socketpair(SOCK_STREAM, pair, NULL), 0);
	close(pair[0]);
	ck_assert_int_eq(nest_fd_recv(pair[1], &byte, 1, got, 1, &n), 0);
	ck_assert_uint_eq(n, 0);
	signal(SIGPIPE, SIG_DFL);
	ck_assert_int_eq(nest_fd_send(pair[1], "x", 1, NULL, 0), -EPIPE);
}
END_TEST

/* Sends @nfds descriptors with 8 bytes to a receiver that has room for less of either. */
static void expect_refused(size_t cap, size_t nfds, size_t max_fds)
{
	int pair[2], got[NEST_FD_MAX_PASSED], fds[NEST_FD_MAX_PASSED] = { 0 };
	char bytes[8];
	size_t n = 99;
	int before;

	ck_assert_int_eq(nest_fd_socketpair(SOCK_SEQPACKET, pair, NULL), 0);
	before = open_fds();
	ck_assert_int_eq(nest_fd_send(pair[0], "12345678", 8, fds, nfds), 0);
	ck_assert_int_eq(nest_fd_recv(pair[1], bytes, cap, got, max_fds, &n), -EMSGSIZE);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(open_fds(), before);
	close(pair[0]);
	close(pair[1]);
}

START_TEST(what_does_not_fit_is_refused_and_leaks_nothing)
{
	expect_refused(8, 1, 0);
	expect_refused(8, 2, 1);
	expect_refused(8, 8, 7);
	expect_refused(7, 0, 0);
	expect_refused(4, 3, 8);
}
END_TEST

/* More descriptors than the receiver's control buffer can take: the kernel drops the rest. */
START_TEST(a_flood_of_descriptors_is_refused_and_leaks_nothing)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 100)];
	} control = { .bytes = { 0 } };
	struct iovec iov = { .iov_base = (void *)"x", .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int pair[2], got[NEST_FD_MAX_PASSED], before;
	size_t n;
	char byte;

	ck_assert_int_eq(nest_fd_socketpair(SOCK_STREAM, pair, NULL), 0);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int) * 100); /* all of them descriptor 0 */
	ck_assert_int_eq(sendmsg(pair[0], &msg, 0), 1);
	before = open_fds();
	ck_assert_int_eq(nest_fd_recv(pair[1], &byte, 1, got, NEST_FD_MAX_PASSED, &n), -EMSGSIZE);
	ck_assert_int_eq(open_fds(), before);
}
END_TEST

START_TEST(send_checks_its_arguments)
{
	int pair[2], fds[NEST_FD_MAX_PASSED + 1] = { 0 };

	ck_assert_int_eq(nest_fd_socketpair(SOCK_SEQPACKET, pair, NULL), 0);
	ck_assert_int_eq(nest_fd_send(pair[0], "x", 1, fds, NEST_FD_MAX_PASSED + 1), -EINVAL);
	ck_assert_int_eq(nest_fd_send(pair[0], "", 0, NULL, 0), -EINVAL);
}
END_TEST

START_TEST(a_full_socket_says_try_again)
{
	char block[4096] = { 0 };
	int pair[2], rc, sent = 0, received = 0;
	size_t n;

	ck_assert_int_eq(nest_fd_socketpair(SOCK_SEQPACKET | SOCK_NONBLOCK, pair, NULL), 0);
	while ((rc = nest_fd_send(pair[0], block, sizeof(block), NULL, 0)) == 0)
		sent++;
	ck_assert_int_eq(rc, -EAGAIN);
	while (nest_fd_recv(pair[1], block, sizeof(block), NULL, 0, &n) == sizeof(block))
		received++;
	ck_assert_int_eq(received, sent);
	ck_assert_int_eq(nest_fd_recv(pair[1], block, sizeof(block), NULL, 0, &n), -EAGAIN);
}
END_TEST

START_TEST(a_child_keeps_only_what_it_needs)
{
	int keep[3], status = -1;
	pid_t child;

	ck_assert_int_eq(nest_fd_pipe(0, keep, NULL), 0);
	keep[2] = keep[0]; /* named twice */
	ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		nest_fd_close_but(keep, 3);
		/* three of every process, the two kept, and the one that counts */
		_exit(open_fds() - 2);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(WEXITSTATUS(status), 6);
}
END_TEST

NEST_SUITE("base/fd", a_child_keeps_only_what_it_needs, pairs_and_pipes_close_on_exec,
	a_failure_leaves_the_result_alone, nonblock_is_switched,
	write_all_survives_short_writes_and_signals, write_all_reports_a_closed_reader,
	a_message_carries_bytes_and_descriptors, the_end_of_the_stream_is_zero,
	what_does_not_fit_is_refused_and_leaks_nothing,
	a_flood_of_descriptors_is_refused_and_leaks_nothing, send_checks_its_arguments,
	a_full_socket_says_try_again)
