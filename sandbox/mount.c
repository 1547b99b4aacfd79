/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

int nest_mount_clone(int dir, const char *path, bool recursive, int *ret, struct nest_err *err)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW |
			 (*path ? 0 : AT_EMPTY_PATH) | (recursive ? AT_RECURSIVE : 0);
	int fd = open_tree(dir, path, flags);

	if (fd < 0)
		return nest_err_set(err, -errno, "clone the mount of '%s'", path);
	*ret = fd;
	return 0;
}

int nest_mount_restrict(int mount, uint64_t attributes, bool recursive, struct nest_err *err)
{
	struct mount_attr attr = { .attr_set = attributes };
	unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);

	if (mount_setattr(mount, "", flags, &attr, sizeof(attr)) < 0)
		return nest_err_set(err, -errno, "restrict a mount");
	return 0;
}

int nest_mount_attach(int mount, int dir, const char *path, struct nest_err *err)
{
	if (move_mount(mount, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return nest_err_set(err, -errno, "attach a mount at '%s'", path);
	return 0;
}

int nest_mount_bind(
	int dir, const char *from, const char *to, uint64_t attributes, struct nest_err *err)
{
	nest_autoclose int mount = -1;
	int r = nest_mount_clone(dir, from, false, &mount, err);

	if (r == 0)
		r = nest_mount_restrict(mount, attributes, false, err);
	return r < 0 ? r : nest_mount_attach(mount, dir, to, err);
}

static int set_bounds(int context, uint64_t bytes, uint64_t inodes)
{
	char size[32];
	char count[32];

	snprintf(size, sizeof(size), "%lu", (unsigned long)bytes);
	snprintf(count, sizeof(count), "%lu", (unsigned long)inodes);
	if (fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) < 0)
		return -errno;
	return fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", count, 0) < 0 ? -errno : 0;
}

int nest_mount_new_tmpfs(uint64_t bytes, uint64_t inodes, unsigned mode, uint64_t attributes,
	int *ret, struct nest_err *err)
{
	nest_autoclose int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
	char octal[16];
	int fd;

	if (context < 0)
		return nest_err_set(err, -errno, "open a tmpfs");
	snprintf(octal, sizeof(octal), "%o", mode);
	if (set_bounds(context, bytes, inodes) < 0 ||
		fsconfig(context, FSCONFIG_SET_STRING, "mode", octal, 0) < 0 ||
		fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return nest_err_set(err, -errno, "make a tmpfs of %lu bytes", (unsigned long)bytes);
	fd = fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
	if (fd < 0)
		return nest_err_set(err, -errno, "mount a tmpfs");
	*ret = fd;
	return 0;
}

int nest_mount_size_tmpfs(const char *path, uint64_t bytes, uint64_t inodes, struct nest_err *err)
{
	nest_autoclose int context = fspick(AT_FDCWD, path, FSPICK_CLOEXEC);

	if (context < 0)
		return nest_err_set(err, -errno, "pick the tmpfs at '%s'", path);
	if (set_bounds(context, bytes, inodes) < 0 ||
		fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return nest_err_set(
			err, -errno, "bound '%s' to %lu bytes", path, (unsigned long)bytes);
	return 0;
}
