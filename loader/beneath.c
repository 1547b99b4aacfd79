/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Set once the kernel (before 5.6) or a seccomp filter around the pod has said no to openat2. */
static atomic_bool without_openat2;

/* Component by component. Can go when openat2 may be relied on everywhere a pod runs. */
static int walk(int root_fd, const char *clean, int flags)
{
	nest_autoclose int held = -1;
	int dir = root_fd;
	const char *part = clean;

	for (;;) {
		size_t n = strcspn(part, "/");
		bool last = part[n] == '\0';
		char name[NAME_MAX + 1];
		int fd;

		if (n >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, part, n);
		name[n] = '\0';
		fd = openat(
			dir, name, (last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (last)
			return fd;
		if (held >= 0)
			close(held);
		held = dir = fd;
		part += n + 1;
	}
}

int nest_beneath_open(int root_fd, const char *clean, int flags)
{
	struct open_how how = {
		.flags = (__u64)(unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	if (clean[0] == '\0')
		clean = ".";
	if (atomic_load_explicit(&without_openat2, memory_order_relaxed))
		return walk(root_fd, clean, flags);
	fd = syscall(SYS_openat2, root_fd, clean, &how, sizeof(how));
	if (fd >= 0)
		return (int)fd;
	/*
	 * EPERM: what container runtimes' older seccomp profiles answer for calls they don't
	 * know.
	 */
	if (errno != ENOSYS && errno != EPERM)
		return -errno;
	if (errno == ENOSYS)
		atomic_store_explicit(&without_openat2, true, memory_order_relaxed);
	return walk(root_fd, clean, flags);
}
