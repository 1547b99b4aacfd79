/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/descend.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "sandbox/cgroup_file.h"

#define KERNEL_STACK_KIB 16 /* of a thread, on every machine that we run on */

/* A child hangs on the thread that made it, so each thread has a list. */
static void list_thread(int tasks, const char *tid, int proc,
	void (*each)(int proc, pid_t child, void *arg), void *arg)
{
	char path[300];
	nest_autoclose int fd = -1;
	nest_autofclose FILE *file = NULL;
	int child;

	snprintf(path, sizeof(path), "%s/children", tid);
	fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
	file = fd < 0 ? NULL : fdopen(fd, "re");
	if (!file)
		return;
	fd = -1; /* @file has it now */
	while (fscanf(file, "%d", &child) == 1)
		each(proc, child, arg);
}

void nest_descend_children(
	int proc, pid_t pid, void (*each)(int proc, pid_t child, void *arg), void *arg)
{
	nest_autoclosedir DIR *tasks = NULL;
	struct dirent *entry;
	char path[32];

	snprintf(path, sizeof(path), "%d/task", pid);
	tasks = nest_file_open_dir(proc, path);
	while (tasks && (entry = readdir(tasks)))
		if (entry->d_name[0] != '.')
			list_thread(dirfd(tasks), entry->d_name, proc, each, arg);
}

/* The number of kB, or of what else, behind @key in the text of /proc/<pid>/status. */
static uint64_t status_value(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	unsigned long long value = 0;

	if (at)
		sscanf(at + strlen(key), " %llu", &value);
	return value;
}

void nest_descend_memory(int proc, pid_t pid, uint64_t *private_bytes, uint64_t *shared_bytes)
{
	char path[32];
	char text[2048];

	snprintf(path, sizeof(path), "%d/status", pid);
	if (nest_cgroup_file_read(proc, path, text, sizeof(text)) <= 0)
		return;
	*shared_bytes += status_value(text, "\nRssFile:") * 1024;
	*private_bytes += (status_value(text, "\nRssAnon:") + status_value(text, "\nRssShmem:") +
				  status_value(text, "\nVmPTE:") +
				  status_value(text, "\nThreads:") * KERNEL_STACK_KIB) *
			  1024;
}

static void add_process(int proc, pid_t pid, void *arg)
{
	struct nest_cgroup_usage *sum = arg;
	unsigned long resident = 0;
	unsigned long user = 0;
	unsigned long system = 0;
	char path[32];
	char text[1024];
	const char *after_name;

	snprintf(path, sizeof(path), "%d/statm", pid);
	if (nest_cgroup_file_read(proc, path, text, sizeof(text)) > 0 &&
		sscanf(text, "%*u %lu", &resident) == 1)
		sum->memory_bytes += resident * (unsigned long)sysconf(_SC_PAGESIZE);
	snprintf(path, sizeof(path), "%d/stat", pid);
	if (nest_cgroup_file_read(proc, path, text, sizeof(text)) > 0) {
		/* the name may hold blanks and parentheses: the last one ends it */
		after_name = strrchr(text, ')');
		if (after_name && sscanf(after_name + 1,
					  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
					  &user, &system) == 2)
			sum->cpu_us +=
				(user + system) * 1000000 / (unsigned long)sysconf(_SC_CLK_TCK);
	}
	nest_descend_memory(proc, pid, &sum->private_bytes, &sum->shared_bytes);
	sum->pids++;
	nest_descend_children(proc, pid, add_process, arg);
}

void nest_descend_usage(int proc, pid_t pid, struct nest_cgroup_usage *ret)
{
	*ret = (struct nest_cgroup_usage){ .pids = 0 };
	nest_descend_children(proc, pid, add_process, ret);
}
