/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/mount.h"

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
/* a device node is used through its mount, so these may not say "no devices" */
#define DEVICE (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
#define SCRATCH (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define TEMPLATE_BYTES (256u << 10) /* it holds mount points and links only */
#define TEMPLATE_INODES 512
#define RUN_BYTES (64u << 10)
#define RUN_INODES 64
#define TMP_MIN_INODES 1024

static const char *const directories[] = { "dev", "dev/shm", "function", "parent-snapshot", "proc",
	"run", "runtime", "snapshot", "tmp" };

static const char *const devices[] = { "full", "null", "random", "urandom", "zero" };

static const struct link {
	const char *name;
	const char *target;
} device_links[] = {
	{ "dev/fd", "/proc/self/fd" },
	{ "dev/stdin", "/proc/self/fd/0" },
	{ "dev/stdout", "/proc/self/fd/1" },
	{ "dev/stderr", "/proc/self/fd/2" },
};

/* Belongs to the host alone, wherever the operator lets cells see /etc. */
static const char *const host_secrets[] = { "/etc/shadow", "/etc/shadow-", "/etc/gshadow",
	"/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private",
	"/etc/nestlet", NEST_SYSCONFDIR "/nestlet" };

/* Makes the directories above the last component of @path, and their mode is what a cell may see. */
static int make_parents(int root, const char *path, struct nest_err *err)
{
	char part[PATH_MAX];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (mkdirat(root, part, 0755) < 0 && errno != EEXIST && errno != EROFS)
			return nest_err_set(err, -errno, "make mount point '/%s'", part);
	}
	return 0;
}

static int make_link(int root, const char *path, struct nest_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return nest_err_set(err, -errno, "read link '%s'", path);
	target[n] = '\0';
	if (symlinkat(target, root, path + 1) < 0 && errno != EEXIST && errno != EROFS)
		return nest_err_set(err, -errno, "make link '%s'", path);
	return 0;
}

/* Where a bind of a directory or a file goes. One that lies in an earlier bind is there already. */
static int make_mount_point(int root, const char *path, mode_t mode, struct nest_err *err)
{
	int r = make_parents(root, path, err);
	int fd;

	if (r < 0)
		return r;
	if (S_ISDIR(mode)) {
		if (mkdirat(root, path, 0755) < 0 && errno != EEXIST && errno != EROFS)
			return nest_err_set(err, -errno, "make mount point '/%s'", path);
		return 0;
	}
	fd = openat(root, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0)
		return errno == EEXIST || errno == EROFS
			       ? 0
			       : nest_err_set(err, -errno, "make mount point '/%s'", path);
	close(fd);
	return 0;
}

/*
 * Safe because the clone is detached while it is made read-only with all mounts below it: no
 * process ever sees a writable one.
 */
static int bind_read_only(int root, const char *from, const char *to, struct nest_err *err)
{
	nest_autoclose int tree = -1;
	struct stat st;
	int r;

	if (lstat(from, &st) < 0)
		return errno == ENOENT ? 1 : nest_err_set(err, -errno, "look at '%s'", from);
	if (S_ISLNK(st.st_mode))
		return make_link(root, from, err);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return nest_err_say(err, -EINVAL, "'%s' is neither a directory nor a file", from);
	r = nest_mount_clone(AT_FDCWD, from, true, &tree, err);
	if (r == 0)
		r = nest_mount_restrict(tree, READ_ONLY, true, err);
	if (r == 0)
		r = make_mount_point(root, to, st.st_mode, err);
	return r < 0 ? r : nest_mount_attach(tree, root, to, err);
}

static int make_directories(int root, struct nest_err *err)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(directories); i++)
		if (mkdirat(root, directories[i], 0755) < 0)
			return nest_err_set(err, -errno, "make '/%s'", directories[i]);
	return 0;
}

/*
 * Safe because each of these devices is open to every user anyway, and none keeps state of a
 * function's. There is no terminal, no memory and no disk among them.
 */
static int make_devices(int root, struct nest_err *err)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(devices); i++) {
		nest_autoclose int node = -1;
		char from[32];
		int r;

		snprintf(from, sizeof(from), "/dev/%s", devices[i]);
		r = nest_mount_clone(AT_FDCWD, from, false, &node, err);
		if (r == 0)
			r = nest_mount_restrict(node, DEVICE, false, err);
		if (r == 0)
			r = make_mount_point(root, from + 1, S_IFREG, err);
		if (r == 0)
			r = nest_mount_attach(node, root, from + 1, err);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(device_links); i++)
		if (symlinkat(device_links[i].target, root, device_links[i].name) < 0)
			return nest_err_set(err, -errno, "make '/%s'", device_links[i].name);
	return 0;
}

/* Covers what a cell may not see, if it would: a directory by an empty one, a file by /dev/null. */
static int mask(int root, const char *path, struct nest_err *err)
{
	const char *below = path + 1;
	struct stat st;

	if (fstatat(root, below, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(st.st_mode))
		return nest_mount_bind(root, "function", below, READ_ONLY, err);
	if (S_ISREG(st.st_mode))
		return nest_mount_bind(root, "dev/null", below, DEVICE, err);
	return 0;
}

/*
 * Where CRIU keeps what it has found out about the kernel, for which it wants a tmpfs. Safe to be
 * shared by all cells: root alone may write it, and no function's process is root.
 */
static int make_run(int root, struct nest_err *err)
{
	nest_autoclose int run = -1;
	int r = nest_mount_new_tmpfs(RUN_BYTES, RUN_INODES, 0755,
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, &run, err);

	return r < 0 ? r : nest_mount_attach(run, root, "run", err);
}

static int fill_template(int root, const char *const *root_paths, const char *runtimes_dir,
	const char *state_dir, struct nest_err *err)
{
	int r = make_directories(root, err);

	if (r == 0)
		r = make_run(root, err);
	if (r == 0)
		r = make_devices(root, err);
	for (const char *const *path = root_paths; r >= 0 && *path; path++)
		r = bind_read_only(root, *path, *path + 1, err);
	if (r >= 0)
		r = bind_read_only(root, runtimes_dir, "runtime", err);
	if (r == 1)
		return nest_err_set(err, -ENOENT, "runtimes directory '%s'", runtimes_dir);
	if (r == 0)
		r = mask(root, state_dir, err);
	for (size_t i = 0; r == 0 && i < NEST_ARRAY_SIZE(host_secrets); i++)
		r = mask(root, host_secrets[i], err);
	return r;
}

/*
 * Swaps the root for @template and drops the old one. Safe because it happens in a mount namespace
 * of our own, and since what is left of the host in it are the read-only binds.
 */
static int become_root(int template, struct nest_err *err)
{
	if (fchdir(template) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return nest_err_set(err, -errno, "pivot to the cells' root");
	/* the old root lies on top of the new one now */
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return nest_err_set(err, -errno, "leave the host's root");
	return 0;
}

static int open_namespace(int *ret, struct nest_err *err)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(err, -errno, "open '/proc/self/ns/mnt'");
	*ret = fd;
	return 0;
}

/*
 * The template is attached on top of "/", where it hides nothing from us: a look-up that begins at
 * our root doesn't climb onto what is mounted over it.
 */
static int build(const char *const *root_paths, const char *runtimes_dir, const char *state_dir,
	struct nest_err *err)
{
	nest_autoclose int template = -1;
	int r;

	/* private, not slave: no mount of ours goes out, and none of the host's comes in */
	if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return nest_err_set(err, -errno, "make mounts private");
	r = nest_mount_new_tmpfs(TEMPLATE_BYTES, TEMPLATE_INODES, 0755,
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, &template, err);
	if (r == 0)
		r = nest_mount_attach(template, AT_FDCWD, "/", err);
	if (r == 0)
		r = fill_template(template, root_paths, runtimes_dir, state_dir, err);
	if (r == 0)
		r = nest_mount_restrict(template, READ_ONLY, false, err);
	return r < 0 ? r : become_root(template, err);
}

int nest_rootfs_enter(const char *const *root_paths, const char *runtimes_dir,
	const char *state_dir, struct nest_rootfs *ret, struct nest_err *err)
{
	nest_autoclose int host = -1;
	nest_autoclose int own = -1;
	mode_t old_mask;
	int r = open_namespace(&host, err);

	if (r < 0)
		return r;
	if (unshare(CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "make a mount namespace");
	r = open_namespace(&own, err);
	if (r < 0)
		return r;
	old_mask = umask(0);
	r = build(root_paths, runtimes_dir, state_dir, err);
	umask(old_mask);
	if (r < 0)
		return nest_err_wrap(err, "build the cells' root");
	ret->host_mounts = nest_take_fd(host);
	ret->own_mounts = nest_take_fd(own);
	return 0;
}

/*
 * The kernel clones only mounts of the caller's namespace, and the agent's descriptor is of the
 * host's: so we step over there for one system call, by descriptor, resolving no path. Safe since
 * what comes back is read-only, without devices and set-uid programs, and holds nothing mounted
 * below the directory.
 */
int nest_rootfs_clone_code(
	const struct nest_rootfs *rootfs, int code_fd, int *ret_mount, struct nest_err *err)
{
	nest_autoclose int mount = -1;
	int r;

	if (setns(rootfs->host_mounts, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the host's mount namespace");
	r = nest_mount_clone(code_fd, "", false, &mount, err);
	/* without the way back every later cell would be born with the host's root */
	if (setns(rootfs->own_mounts, CLONE_NEWNS) < 0)
		return nest_err_set(
			err, -ENOTRECOVERABLE, "return from the host's mount namespace");
	if (r == 0)
		r = nest_mount_restrict(mount, READ_ONLY, false, err);
	if (r < 0)
		return nest_err_wrap(err, "mount the code");
	*ret_mount = nest_take_fd(mount);
	return 0;
}

/*
 * Safe because it shows the cell's own pid namespace. PID 1 has another user, and hidepid makes it
 * invisible besides.
 */
int nest_rootfs_mount_proc(struct nest_err *err)
{
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible") <
		0)
		return nest_err_set(err, -errno, "mount '/proc'");
	return 0;
}

/* What OCI runtimes mask, and for the same reasons: it tells of the host, or acts on it. */
static const char *const hidden[] = { "/proc/acpi", "/proc/asound", "/proc/interrupts",
	"/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sysrq-trigger" };
static const char *const locked[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys" };

int nest_rootfs_mask_proc(struct nest_err *err)
{
	uint64_t read_only = READ_ONLY | MOUNT_ATTR_NOEXEC;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(hidden); i++) {
		int r = mask(AT_FDCWD, hidden[i], err);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(locked); i++) {
		int r;

		if (faccessat(AT_FDCWD, locked[i], F_OK, 0) < 0)
			continue;
		r = nest_mount_bind(AT_FDCWD, locked[i], locked[i], read_only, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int nest_rootfs_attach_code(int code_mount, struct nest_err *err)
{
	return nest_mount_attach(code_mount, AT_FDCWD, "/function", err);
}

/* A tmpfs inode costs the kernel about a kilobyte, which the memory limit pays. */
static uint64_t tmp_inodes(uint64_t bytes)
{
	return bytes / 4096 < TMP_MIN_INODES ? TMP_MIN_INODES : bytes / 4096;
}

/*
 * One file system for both, so that one limit holds for their sum. Only an attached mount can be
 * cloned (Linux 6.15 lifts that), so its root, in which they are two directories, is attached where
 * /dev/shm then covers it for good: taking it away instead would wait for an RCU grace period.
 */
int nest_rootfs_mount_tmp(uint64_t bytes, struct nest_err *err)
{
	nest_autoclose int whole = -1;
	nest_autoclose int tmp = -1;
	nest_autoclose int shm = -1;
	int r = nest_mount_new_tmpfs(
		bytes ? bytes : TEMPLATE_BYTES, tmp_inodes(bytes), 0755, SCRATCH, &whole, err);

	if (r < 0)
		return r;
	if (mkdirat(whole, "tmp", 0700) < 0 || fchmodat(whole, "tmp", 01777, 0) < 0 ||
		mkdirat(whole, "shm", 0700) < 0 || fchmodat(whole, "shm", 01777, 0) < 0)
		return nest_err_set(err, -errno, "make '/tmp'");
	r = nest_mount_attach(whole, AT_FDCWD, "/dev/shm", err);
	if (r == 0)
		r = nest_mount_clone(whole, "tmp", false, &tmp, err);
	if (r == 0)
		r = nest_mount_clone(whole, "shm", false, &shm, err);
	if (r == 0)
		r = nest_mount_attach(tmp, AT_FDCWD, "/tmp", err);
	return r < 0 ? r : nest_mount_attach(shm, AT_FDCWD, "/dev/shm", err);
}

int nest_rootfs_size_tmp(uint64_t bytes, struct nest_err *err)
{
	return nest_mount_size_tmpfs("/tmp", bytes, tmp_inodes(bytes), err);
}
