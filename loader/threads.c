/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/threads.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

#define FILE_MAX 4096u

/* The numbers at the beginning of a cgroup's file; -1 where there are none ("max"). */
static void read_numbers(const char *path, long long ret[2])
{
	char text[64];
	char *rest = text;
	nest_autofclose FILE *file = fopen(path, "re");

	ret[0] = ret[1] = -1;
	if (!file || !fgets(text, sizeof(text), file))
		return;
	for (int i = 0; i < 2 && *rest >= '0' && *rest <= '9'; i++) {
		ret[i] = strtoll(rest, &rest, 10);
		rest += *rest == ' ';
	}
}

static unsigned to_cpus(long long quota_us, long long period_us)
{
	long long cpus;

	if (quota_us <= 0 || period_us <= 0)
		return NEST_THREADS_MAX;
	cpus = (quota_us + period_us - 1) / period_us;
	return cpus < NEST_THREADS_MAX ? (unsigned)cpus : NEST_THREADS_MAX;
}

static unsigned quota_at(const char *mount, const char *path, bool unified)
{
	char name[FILE_MAX + 64];
	long long quota[2];
	long long period[2];

	snprintf(name, sizeof(name), "%s%s/%s", mount, path,
		unified ? "cpu.max" : "cpu.cfs_quota_us");
	read_numbers(name, quota);
	if (unified)
		return to_cpus(quota[0], quota[1]);
	snprintf(name, sizeof(name), "%s%s/cpu.cfs_period_us", mount, path);
	read_numbers(name, period);
	return to_cpus(quota[0], period[0]);
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/*
 * In a cgroup namespace of our own our cgroup is the mount's root; elsewhere it lies at the path
 * that the kernel names. The one that doesn't exist sets no limit.
 */
static unsigned allowed_by_quota(void)
{
	unsigned cpus = least(
		quota_at("/sys/fs/cgroup", "", true), quota_at("/sys/fs/cgroup/cpu", "", false));
	nest_autofclose FILE *file = fopen("/proc/self/cgroup", "re");
	char line[FILE_MAX];

	while (file && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		if (controllers[1] == '\0')
			cpus = least(cpus, quota_at("/sys/fs/cgroup", path, true));
		else if (strcmp(controllers, ":cpu") == 0 || strncmp(controllers, ":cpu,", 5) == 0)
			cpus = least(cpus, quota_at("/sys/fs/cgroup/cpu", path, false));
	}
	return cpus;
}

unsigned nest_threads_count(void)
{
	unsigned cpus = allowed_by_quota();
	cpu_set_t set;

	/* Fails where there are more CPUs than the set has room for: more than enough. */
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		cpus = least(cpus, (unsigned)CPU_COUNT(&set));
	return cpus > 0 ? cpus : 1;
}

int nest_threads_start(
	pthread_t *ret, void *(*run)(void *arg), void *arg, const char *name, struct nest_err *err)
{
	sigset_t all;
	sigset_t before;
	int rc;

	/* Inherited by the thread: signals are the loop thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(ret, NULL, run, arg);
	if (rc == 0)
		(void)pthread_setname_np(*ret, name);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return nest_err_set(err, -rc, "start a thread to %s", name);
	return 0;
}
