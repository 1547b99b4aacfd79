/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subject of the test is a program of ours, a nobody under the workers' filter, that counts what it
 * is asked.
 *
 *	caller --> usher: takes mount and pid namespaces
 *	             \--> PID 1: all the rest, which the kernel ends with it
 *	                    |--> restorer, primed as in a prepared cell
 *	                    |--> subject, asked once
 *	                    |--> dumper, which dumps the subject; the subject is killed
 *	                    \--> the subject again, by the restorer; asked once more
 */
#include "sandbox/selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/criu_rpc.h"
#include "sandbox/image_gate.h"
#include "sandbox/image_rewrite.h"
#include "sandbox/image_wires.h"
#include "sandbox/privilege.h"
#include "sandbox/seccomp.h"

#define IMAGES "/run/images"
#define SUBJECT "/run/subject"
#define CHANNEL_FD 3
#define LIFTED_FD 16
#define LOG_MAX (1u << 20)
#define NOBODY 65534
/* So that the subject's pid is free when it comes back. */
#define LAST_PID "1000"

struct verdict {
	struct nest_err err;
	uint64_t us;
};

struct trial {
	struct nest_criu_rpc_program program;
	struct nest_seccomp *seccomp;
	int images;
	struct nest_image_gate gate;
	int log;      /* of the restorer */
	int restorer; /* sockets to the two */
	int dumper;
	int channel[2]; /* to the subject, and to what comes back */
	uint64_t wires[NEST_CRIU_RPC_WIRES];
};

/* sandbox/subject.c */
static const unsigned char subject_program[] = {
#include <sandbox/subject.inc> /* generated, as config.h is */
};

static const int no_wires[NEST_CRIU_RPC_WIRES] = { -1, -1, -1 };

/* ---- PID 1 ---- */

static int write_subject(struct nest_err *err)
{
	nest_autoclose int fd = open(SUBJECT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

	if (fd < 0 || fchmod(fd, 0755) < 0)
		return nest_err_set(err, -errno, "make '%s'", SUBJECT);
	return nest_fd_write_all(fd, subject_program, sizeof(subject_program), err);
}

/*
 * Safe: in a mount namespace that no other process is in. CRIU keeps what it detects in /run, and makes a
 * directory in /tmp to detect it, which may be read-only here.
 */
static int make_ground(struct trial *trial, struct nest_err *err)
{
	static const struct {
		const char *type, *path;
	} mounts[] = { { "proc", "/proc" }, { "tmpfs", "/run" }, { "tmpfs", "/tmp" } };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(mounts); i++)
		if (mount(mounts[i].type, mounts[i].path, mounts[i].type, MS_NOSUID | MS_NODEV,
			    NULL) < 0)
			return nest_err_set(err, -errno, "mount '%s'", mounts[i].path);
	/* the caller's directory may have been covered just now */
	if (chdir("/") < 0 || mkdir(IMAGES, 0700) < 0)
		return nest_err_set(err, -errno, "make '%s'", IMAGES);
	if (write_subject(err) < 0)
		return err->code;
	trial->images = open(IMAGES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	trial->log = memfd_create("criu", MFD_CLOEXEC);
	if (trial->images < 0 || trial->log < 0)
		return nest_err_set(err, -errno, "open '%s'", IMAGES);
	return 0;
}

static void close_wires(const int wires[NEST_CRIU_RPC_WIRES])
{
	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++)
		if (wires[i] >= 0)
			close(wires[i]);
}

/*
 * What the subject, or what comes back (@which), has of its channel and outputs. Nobody reads the
 * outputs: the other ends are closed.
 */
static int make_wires(
	struct trial *trial, int which, int ret[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	int r = 0;

	for (int i = 0; r == 0 && i < NEST_CRIU_RPC_WIRES; i++) {
		bool channel = i == NEST_CRIU_RPC_CHANNEL;
		int pair[2];

		r = channel ? nest_fd_socketpair(SOCK_STREAM, pair, err)
			    : nest_fd_pipe(0, pair, err);
		if (r < 0)
			break;
		if (channel)
			trial->channel[which] = pair[0];
		else
			close(pair[0]);
		ret[i] = pair[1];
	}
	return r;
}

static int start_restorer(struct trial *trial, struct nest_err *err)
{
	int wires[NEST_CRIU_RPC_WIRES] = { -1, -1, -1 };
	int pair[2];
	int r = make_wires(trial, 1, wires, err);
	pid_t pid;

	if (r == 0)
		r = nest_fd_socketpair(SOCK_SEQPACKET, pair, err);
	if (r < 0)
		return r;
	pid = fork();
	if (pid == 0) {
		nest_criu_rpc_become(&trial->program, pair[1], -1, wires, trial->log);
		_exit(127);
	}
	trial->restorer = pair[0];
	close(pair[1]);
	close_wires(wires);
	if (pid < 0)
		return nest_err_set(err, -errno, "fork the restorer");
	r = nest_image_gate_make(&trial->gate, IMAGES, err);
	if (r == 0)
		r = nest_criu_rpc_prime(trial->restorer, err);
	if (r == 0)
		r = nest_criu_rpc_restore(trial->restorer, trial->gate.dir, err);
	if (r == 0)
		r = nest_criu_rpc_await_primed(trial->restorer, err);
	return r < 0 ? nest_err_wrap(err, "detect the kernel's features") : 0;
}

static int take_descriptors(const int wires[NEST_CRIU_RPC_WIRES])
{
	static const int places[NEST_CRIU_RPC_WIRES] = { 3, 1, 2 };
	int lifted[NEST_CRIU_RPC_WIRES];

	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++) {
		lifted[i] = fcntl(wires[i], F_DUPFD_CLOEXEC, LIFTED_FD);
		if (lifted[i] < 0)
			return -errno;
	}
	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++)
		if (dup2(lifted[i], places[i]) < 0)
			return -errno;
	/* what the caller reads from may be anything */
	close(STDIN_FILENO);
	if (open("/dev/null", O_RDONLY) != STDIN_FILENO)
		return -EBADF;
	return close_range(CHANNEL_FD + 1, ~0u, 0) < 0 ? -errno : 0;
}

/* Confined as a worker is: that it comes back so is part of what is tried. */
static _Noreturn void become_subject(
	const struct trial *trial, const int wires[NEST_CRIU_RPC_WIRES])
{
	static char name[] = SUBJECT;
	static char *const argv[] = { name, NULL };
	static char *const envp[] = { NULL };

	if (setsid() >= 0 && take_descriptors(wires) == 0 &&
		nest_privilege_drop(true, NOBODY, NULL) == 0 &&
		nest_seccomp_install(trial->seccomp, NULL) == 0)
		execve(SUBJECT, argv, envp);
	_exit(EXIT_FAILURE);
}

/* Whether it is the @nth question that the subject is asked on @channel. */
static int ask(int channel, unsigned char nth, struct nest_err *err)
{
	unsigned char count = 0;

	if (write(channel, "?", 1) != 1 || read(channel, &count, 1) != 1)
		return nest_err_say(err, -EPIPE, "it does not answer");
	if (count != nth)
		return nest_err_say(
			err, -EIO, "it has been asked %u times, not %u as it should", count, nth);
	return 0;
}

static int note_wires(
	struct trial *trial, const int wires[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	struct stat st;

	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++) {
		if (fstat(wires[i], &st) < 0)
			return nest_err_set(err, -errno, "look at the subject's descriptors");
		trial->wires[i] = st.st_ino;
	}
	return 0;
}

static pid_t start_subject(struct trial *trial, struct nest_err *err)
{
	int wires[NEST_CRIU_RPC_WIRES] = { -1, -1, -1 };
	int r = nest_file_write(
		AT_FDCWD, "/proc/sys/kernel/ns_last_pid", LAST_PID, strlen(LAST_PID), err);
	pid_t pid;

	if (r == 0)
		r = make_wires(trial, 0, wires, err);
	if (r == 0)
		r = note_wires(trial, wires, err);
	if (r < 0)
		return r;
	pid = fork();
	if (pid == 0)
		become_subject(trial, wires);
	close_wires(wires);
	return pid < 0 ? nest_err_set(err, -errno, "fork the process to freeze") : pid;
}

static int start_dumper(struct trial *trial, struct nest_err *err)
{
	int pair[2];
	int r = nest_fd_socketpair(SOCK_SEQPACKET, pair, err);
	pid_t pid;

	if (r < 0)
		return r;
	pid = fork();
	if (pid == 0) {
		if (setresgid(NOBODY, 0, 0) == 0 && setresuid(NOBODY, 0, 0) == 0)
			nest_criu_rpc_become(&trial->program, pair[1], trial->images, no_wires, -1);
		_exit(127);
	}
	trial->dumper = pair[0];
	close(pair[1]);
	return pid < 0 ? nest_err_set(err, -errno, "fork the dumper") : 0;
}

static int freeze(struct trial *trial, pid_t subject, struct nest_err *err)
{
	nest_autofree char *log = NULL;
	int r = start_dumper(trial, err);

	if (r < 0)
		return r;
	r = nest_criu_rpc_dump(
		trial->dumper, -1, subject, trial->wires[NEST_CRIU_RPC_CHANNEL], err);
	if (r < 0 &&
		nest_file_read(trial->images, NEST_CRIU_RPC_LOG, LOG_MAX, &log, NULL, NULL) == 0)
		nest_criu_rpc_name_cause(log, err);
	if (r == 0)
		r = nest_image_wires_renumber(trial->images, trial->wires, err);
	if (r == 0)
		r = nest_image_rewrite_map(
			trial->images, IMAGES "/" NEST_IMAGE_REWRITE_FILE, -1, err);
	if (r == 0)
		r = nest_image_rewrite_add_room(trial->images, err);
	kill(subject, SIGKILL);
	waitpid(subject, NULL, 0);
	return r < 0 ? nest_err_wrap(err, "freeze a process") : 0;
}

static int revive(struct trial *trial, struct nest_err *err)
{
	static char log[16384];
	ssize_t n;
	pid_t pid;
	int r = nest_image_gate_pass(
		&trial->gate, trial->images, IMAGES, NEST_IMAGE_GATE_OWNER_STAYS, err);

	if (r == 0)
		r = nest_criu_rpc_await_restored(trial->restorer, &pid, err);
	n = r < 0 ? pread(trial->log, log, sizeof(log) - 1, 0) : 0;
	if (n > 0)
		nest_criu_rpc_name_cause(log, err);
	return r < 0 ? nest_err_wrap(err, "restore a process") : 0;
}

static int try_all(struct trial *trial, struct verdict *ret)
{
	struct nest_err *err = &ret->err;
	uint64_t began;
	pid_t subject;
	int r = make_ground(trial, err);

	if (r == 0)
		r = nest_privilege_reduce(nest_privilege_kept(true), err);
	if (r == 0)
		r = start_restorer(trial, err);
	if (r < 0)
		return r;
	subject = start_subject(trial, err);
	if (subject < 0)
		return subject;
	r = ask(trial->channel[0], 1, err);
	if (r < 0)
		return nest_err_wrap(err, "start a process to freeze");
	began = nest_clock_mono_us();
	r = freeze(trial, subject, err);
	if (r == 0)
		r = revive(trial, err);
	if (r < 0)
		return r;
	r = ask(trial->channel[1], 2, err);
	ret->us = nest_clock_mono_us() - began;
	return r < 0 ? nest_err_wrap(err, "ask the restored process") : 0;
}

/* ---- the usher ---- */

/* Ends with the one above, whose end the kernel makes the end of all below. */
static void tie_to_parent(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static _Noreturn void usher(struct trial *trial, int out)
{
	struct verdict verdict = { .err = NEST_ERR_INIT };
	pid_t pid;
	int r = 0;

	tie_to_parent();
	if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) < 0)
		r = nest_err_set(&verdict.err, -errno, "take namespaces");
	else if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		r = nest_err_set(&verdict.err, -errno, "make mounts private");
	pid = r < 0 ? 0 : fork();
	if (pid < 0)
		r = nest_err_set(&verdict.err, -errno, "fork");
	if (pid > 0) {
		waitpid(pid, NULL, 0);
		_exit(EXIT_SUCCESS);
	}
	if (r == 0) {
		tie_to_parent();
		r = try_all(trial, &verdict);
	}
	verdict.err.code = r;
	_exit(nest_fd_write_all(out, &verdict, sizeof(verdict), NULL) < 0);
}

/* ---- the caller ---- */

static int await_verdict(int in, uint32_t limit_ms, struct verdict *ret, struct nest_err *err)
{
	uint64_t until = nest_clock_mono_us() + limit_ms * 1000ull;
	struct pollfd polled = { .fd = in, .events = POLLIN };

	for (;;) {
		uint64_t now = nest_clock_mono_us();
		int n = poll(&polled, 1, now < until ? (int)((until - now) / 1000 + 1) : 0);

		if (n == 0)
			return nest_err_say(err, -ETIME,
				"freezing and restoring a process took more than %u ms", limit_ms);
		if (n > 0)
			break;
	}
	/* smaller than PIPE_BUF, so in one piece */
	if (read(in, ret, sizeof(*ret)) != (ssize_t)sizeof(*ret))
		return nest_err_say(err, -EIO, "the test of CRIU ended without a result");
	return 0;
}

int nest_selftest_run(
	const char *criu, bool standins, uint32_t limit_ms, uint64_t *ret_us, struct nest_err *err)
{
	struct trial trial = { .gate = NEST_IMAGE_GATE_INIT };
	struct verdict verdict = { .err = NEST_ERR_INIT };
	nest_autoclose int in = -1;
	int pipe[2];
	int r = nest_criu_rpc_find(criu, &trial.program, err);
	pid_t pid;

	if (!standins)
		trial.program.standins[0] = '\0';
	if (r == 0)
		r = nest_seccomp_new(&trial.seccomp, err);
	if (r == 0)
		r = nest_fd_pipe(0, pipe, err);
	if (r < 0) {
		nest_seccomp_free(trial.seccomp);
		return r;
	}
	in = pipe[0];
	pid = fork();
	if (pid == 0)
		usher(&trial, pipe[1]);
	close(pipe[1]);
	nest_seccomp_free(trial.seccomp);
	if (pid < 0)
		return nest_err_set(err, -errno, "fork");
	r = await_verdict(in, limit_ms, &verdict, err);
	kill(pid, SIGKILL); /* one that has told ends anyhow */
	waitpid(pid, NULL, 0);
	if (r < 0)
		return r;
	if (verdict.err.code < 0) {
		*err = verdict.err;
		return verdict.err.code;
	}
	*ret_us = verdict.us;
	return 0;
}
