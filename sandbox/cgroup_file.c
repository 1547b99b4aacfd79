/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

int nest_cgroup_file_write(int dir, const char *name, struct nest_err *err, const char *fmt, ...)
{
	nest_autoclose int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	char text[128];
	va_list ap;
	int len;

	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", name);
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (write(fd, text, (size_t)len) < 0)
		return nest_err_set(err, -errno, "write '%s' to '%s'", text, name);
	return 0;
}

int nest_cgroup_file_read(int dir, const char *name, char *ret, size_t cap)
{
	nest_autoclose int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return -errno;
	while (len < cap - 1) {
		ssize_t n = read(fd, ret + len, cap - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	ret[len] = '\0';
	return (int)len;
}

static int parse_number(const char *text, uint64_t *ret)
{
	unsigned long long value;
	char *end;

	if (*text < '0' || *text > '9')
		return -ENODATA;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || (*end != '\n' && *end != '\0'))
		return -ENODATA;
	*ret = value;
	return 0;
}

int nest_cgroup_file_number(int dir, const char *name, uint64_t *ret)
{
	char text[32];
	int r = nest_cgroup_file_read(dir, name, text, sizeof(text));

	return r < 0 ? r : parse_number(text, ret);
}

int nest_cgroup_file_keyed(int dir, const char *name, const char *key, uint64_t *ret)
{
	char text[2048];
	size_t n = strlen(key);
	int r = nest_cgroup_file_read(dir, name, text, sizeof(text));

	if (r < 0)
		return r;
	for (const char *line = text; *line; line += *line ? 1 : 0) {
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			return parse_number(line + n + 1, ret);
		line += strcspn(line, "\n");
	}
	return -ENODATA;
}

int nest_cgroup_file_kill_listed(int dir)
{
	nest_autoclose int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	nest_autofclose FILE *file = NULL;
	int count = 0;
	int pid;

	if (fd < 0)
		return -errno;
	file = fdopen(fd, "re");
	if (!file)
		return -errno;
	fd = -1; /* @file has it now */
	while (fscanf(file, "%d", &pid) == 1) {
		/* 0 is a process of a pid namespace that we can't see, and kill(0) would be us */
		if (pid <= 0)
			continue;
		kill(pid, SIGKILL);
		count++;
	}
	return count;
}
