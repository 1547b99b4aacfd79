/* SPDX-License-Identifier: Apache-2.0 */
/* Taking more than the share: processes, memory, disk, descriptors, time. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/attack/probe.h"

#define MIB (1024l * 1024)

/* argv[0]: the limit. Forks until refused; every child stays until the driver has looked. */
static void attack_fork_bomb(int argc, char **argv)
{
	int limit = argc > 0 ? atoi(argv[0]) : 0, n = 0;

	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
		n++;
		if (n > 2 * limit) {
			probe_worked("started %d processes", n);
			break;
		}
	}
	if (n <= 2 * limit && errno != EAGAIN)
		probe_broken("fork: %s", strerror(errno));
	if (n < limit / 2)
		probe_broken("started %d processes of %d", n, limit);
	probe_hold(n < limit, "started %d processes besides itself, allowed %d in all", n, limit);
	probe_tell();
	probe_wait();
}

/* Forks as fast as it can, and its children do, for ever: the driver ends it. */
static void attack_fork_storm(int argc, char **argv)
{
	(void)argc, (void)argv;
	probe_tell();
	for (;;)
		if (fork() < 0)
			sched_yield();
}

/* Touches memory for ever; to survive is a hole. argv[0]: a bound in MiB. */
static void attack_memory(int argc, char **argv)
{
	long bound = argc > 0 ? atol(argv[0]) : 0;

	for (long n = 0; n < bound; n++) {
		char *chunk =
			mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (chunk == MAP_FAILED) {
			probe_broken("mmap after %ld MiB: %s", n, strerror(errno));
			return;
		}
		memset(chunk, 1, MIB);
	}
	probe_worked("touched %ld MiB", bound);
}

/* The same with memory that is no process's: a memfd. */
static void attack_memfd(int argc, char **argv)
{
	static char zeros[MIB];
	long bound = argc > 0 ? atol(argv[0]) : 0;
	nest_autoclose int fd = (int)syscall(SYS_memfd_create, "x", 1 /* MFD_CLOEXEC */);

	for (long n = 0; n < bound; n++) {
		if (write(fd, zeros, sizeof(zeros)) < 0) {
			probe_broken("write after %ld MiB: %s", n, strerror(errno));
			return;
		}
	}
	probe_worked("filled a memfd with %ld MiB", bound);
}

/* argv[0]: the size of /tmp in MiB, of which /dev/shm is a part. */
static void attack_fill_tmp(int argc, char **argv)
{
	static const char *const paths[] = { "/tmp/fill", "/dev/shm/fill" };
	static char bytes[64 * 1024];
	long limit = argc > 0 ? atol(argv[0]) * MIB : 0, total = 0;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(paths); i++) {
		nest_autoclose int fd = open(paths[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		ssize_t n = 0;

		while (total <= limit && (n = write(fd, bytes, sizeof(bytes))) > 0)
			total += n;
		if (n < 0 && errno != ENOSPC)
			probe_broken("fill %s: %s", paths[i], strerror(errno));
	}
	probe_hold(total <= limit, "wrote %ld bytes of %ld", total, limit);
	if (total < limit / 2)
		probe_broken("wrote %ld bytes of %ld only", total, limit);
}

/* argv[0]: more inodes than /tmp should have. */
static void attack_fill_inodes(int argc, char **argv)
{
	long bound = argc > 0 ? atol(argv[0]) : 0, n;

	for (n = 0; n < bound; n++) {
		char path[32];
		int fd;

		snprintf(path, sizeof(path), "/tmp/%ld", n);
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			break;
		close(fd);
	}
	if (n < bound && errno != ENOSPC)
		probe_broken("make file %ld: %s", n, strerror(errno));
	probe_hold(n < bound, "made %ld files", n);
	if (n < 16)
		probe_broken("made %ld files only", n);
}

/* argv[0]: the limit. */
static void attack_descriptors(int argc, char **argv)
{
	struct rlimit more = { .rlim_cur = 1 << 20, .rlim_max = 1 << 20 };
	int limit = argc > 0 ? atoi(argv[0]) : 0, n = 0;

	probe_deny("raise RLIMIT_NOFILE", setrlimit(RLIMIT_NOFILE, &more), EPERM);
	probe_deny("raise it by prlimit", prlimit(0, RLIMIT_NOFILE, &more, NULL), EPERM);
	while (n <= limit && dup(0) >= 0)
		n++;
	if (n <= limit && errno != EMFILE)
		probe_broken("dup: %s", strerror(errno));
	probe_hold(n < limit, "opened %d descriptors", n);
	if (n < limit / 2)
		probe_broken("opened %d descriptors of %d only", n, limit);
}

static int64_t now_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* argv[0]: the limit in thousandths of a core. Burns 300 ms of it; half as slow as told: a hole. */
static void attack_spin(int argc, char **argv)
{
	const int64_t burn_us = 300000;
	int64_t start_us = now_us(CLOCK_MONOTONIC), took_us, milli = argc > 0 ? atol(argv[0]) : 0;

	if (milli < 1 || milli > 500) {
		probe_broken("no limit that tells");
		return;
	}
	while (now_us(CLOCK_PROCESS_CPUTIME_ID) < burn_us)
		;
	took_us = now_us(CLOCK_MONOTONIC) - start_us;
	probe_hold(took_us >= burn_us * 1000 / milli / 2, "300 ms of CPU time in %lld us",
		(long long)took_us);
}

/* Leaves a process behind that has cut every tie, and ends. The driver looks for it. */
static void attack_outlive(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int i = 0; i < 3; i++) {
		if (fork() == 0) {
			setsid();
			if (fork() > 0)
				_exit(0);
			signal(SIGTERM, SIG_IGN);
			signal(SIGHUP, SIG_IGN);
			for (int fd = 0; fd < 16; fd++)
				close(fd);
			for (;;)
				pause();
		}
	}
	while (wait(NULL) > 0)
		;
}

/* Ignores what can be ignored, and stops itself: only SIGKILL ends it. */
static void attack_stubborn(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int sig = 1; sig < 65; sig++)
		signal(sig, SIG_IGN);
	if (fork() == 0)
		for (;;)
			raise(SIGSTOP);
	probe_tell();
	for (;;)
		raise(SIGSTOP);
}

const struct probe_case probe_limits_cases[] = {
	{ "fork-bomb", attack_fork_bomb },
	{ "fork-storm", attack_fork_storm },
	{ "memory", attack_memory },
	{ "memfd", attack_memfd },
	{ "fill-tmp", attack_fill_tmp },
	{ "fill-inodes", attack_fill_inodes },
	{ "descriptors", attack_descriptors },
	{ "spin", attack_spin },
	{ "outlive", attack_outlive },
	{ "stubborn", attack_stubborn },
	{ NULL, NULL },
};
