/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row comes from trying the thing, in a child where it changes the caller: what a kernel was
 * built with, what a sysctl forbids, what an outer container's seccomp profile refuses, and what
 * our privilege doesn't reach can't be told apart by reading about it.
 */
#include "sandbox/feature.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <limits.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_find.h"
#include "sandbox/feature_criu.h"
#include "sandbox/landlock.h"
#include "sandbox/privilege.h"
#include "sandbox/seccomp.h"
#include "sandbox/selftest.h"

#define MAX_ROWS 64
#define MAX_PROC_FILE (256u << 10)
#define CHILD_SECONDS 2 /* a trial that takes longer hangs */
/* A tenth of a second of CPU time, which may be long in coming at the lowest priority. */
#define SELFTEST_MS 60000

#ifndef CLONE_NEWTIME /* Linux 5.6 */
#define CLONE_NEWTIME 0x00000080
#endif

struct table {
	struct nest_feature *rows;
	size_t n;
};

static struct nest_feature *add_row(struct table *table, const char *name, bool required)
{
	struct nest_feature *row = &table->rows[table->n];

	if (table->n < MAX_ROWS - 1) /* else the last row is overwritten, which a test would see */
		table->n++;
	*row = (struct nest_feature){ .required = required };
	snprintf(row->name, sizeof(row->name), "%s", name);
	return row;
}

__attribute__((format(printf, 2, 3))) static void say_yes(
	struct nest_feature *row, const char *fmt, ...)
{
	va_list ap;

	row->yes = true;
	va_start(ap, fmt);
	vsnprintf(row->detail, sizeof(row->detail), fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 3, 4))) static void say_no(
	struct nest_feature *row, const char *remedy, const char *fmt, ...)
{
	va_list ap;

	row->yes = false;
	snprintf(row->remedy, sizeof(row->remedy), "%s", remedy);
	va_start(ap, fmt);
	vsnprintf(row->detail, sizeof(row->detail), fmt, ap);
	va_end(ap);
}

/* Tries something in the calling process, which ends after. 0, or -errno with its text. */
typedef int trial(struct nest_err *err);

static void end_of_trial(int fd, const struct nest_err *err)
{
	nest_fd_write_all(fd, err, sizeof(*err), NULL);
	_exit(0);
}

static int read_verdict(int fd, pid_t pid, struct nest_err *err)
{
	struct nest_err theirs;
	ssize_t n;
	int status;

	do
		n = read(fd, &theirs, sizeof(theirs));
	while (n < 0 && errno == EINTR);
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	if (n == (ssize_t)sizeof(theirs)) {
		*err = theirs;
		return err->code;
	}
	if (WIFSIGNALED(status))
		return nest_err_say(err, -EIO, "the attempt was ended by SIG%s",
			sigabbrev_np(WTERMSIG(status)));
	return nest_err_say(err, -EIO, "the attempt ended without a result");
}

static int in_child(trial *try_it, struct nest_err *err)
{
	nest_autoclose int in = -1, out = -1;
	int fds[2], r;
	pid_t pid;

	r = nest_fd_pipe(0, fds, err);
	if (r < 0)
		return r;
	in = fds[0];
	out = fds[1];
	pid = fork();
	if (pid < 0)
		return nest_err_set(err, -errno, "fork");
	if (pid == 0) {
		struct nest_err theirs = NEST_ERR_INIT;

		alarm(CHILD_SECONDS);
		if (try_it(&theirs) < 0 && theirs.code == 0)
			nest_err_say(&theirs, -EIO, "it failed without a reason");
		end_of_trial(out, &theirs);
	}
	close(nest_take_fd(out));
	return read_verdict(in, pid, err);
}

static int enter(int flag, const char *name, struct nest_err *err)
{
	if (unshare(flag) < 0)
		return nest_err_set(err, -errno, "unshare(%s)", name);
	return 0;
}

static int try_mount_namespace(struct nest_err *err)
{
	int r = enter(CLONE_NEWNS, "CLONE_NEWNS", err);

	if (r < 0)
		return r;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return nest_err_set(err, -errno, "make mounts private");
	if (mount("tmpfs", "/", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k") < 0)
		return nest_err_set(err, -errno, "mount a tmpfs");
	return 0;
}

static int try_pid_namespace(struct nest_err *err)
{
	int r = enter(CLONE_NEWPID, "CLONE_NEWPID", err);
	pid_t pid;
	int status;

	if (r < 0)
		return r;
	pid = fork();
	if (pid < 0)
		return nest_err_set(err, -errno, "fork into it");
	if (pid == 0)
		_exit(getpid() != 1);
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		return nest_err_say(err, -EIO, "its first process is not process 1");
	return 0;
}

static int try_ipc_namespace(struct nest_err *err)
{
	return enter(CLONE_NEWIPC, "CLONE_NEWIPC", err);
}

static int try_uts_namespace(struct nest_err *err)
{
	int r = enter(CLONE_NEWUTS, "CLONE_NEWUTS", err);

	if (r == 0 && sethostname("cell", strlen("cell")) < 0)
		return nest_err_set(err, -errno, "set its host name");
	return r;
}

static int try_net_namespace(struct nest_err *err)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	nest_autoclose int fd = -1;
	int r = enter(CLONE_NEWNET, "CLONE_NEWNET", err);

	if (r < 0)
		return r;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return nest_err_set(err, -errno, "make a socket");
	if (ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return nest_err_set(err, -errno, "bring lo up");
	return 0;
}

static int try_user_namespace(struct nest_err *err)
{
	return enter(CLONE_NEWUSER, "CLONE_NEWUSER", err);
}

static int try_time_namespace(struct nest_err *err)
{
	return enter(CLONE_NEWTIME, "CLONE_NEWTIME", err);
}

static int try_no_new_privs(struct nest_err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return nest_err_set(err, -errno, "set no_new_privs");
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return nest_err_say(err, -EIO, "the flag does not stay");
	return 0;
}

/* The very filter of workers, and three calls that tell whether it is in force. */
static int try_seccomp(struct nest_err *err)
{
	struct nest_seccomp *seccomp;
	int r = nest_seccomp_new(&seccomp, err);

	if (r < 0)
		return r;
	r = nest_seccomp_install(seccomp, err);
	nest_seccomp_free(seccomp);
	if (r < 0)
		return r;
	if (syscall(SYS_unshare, 0) == 0 || errno != EPERM)
		return nest_err_say(err, -EIO, "the filter lets unshare through");
	if (syscall(SYS_clone3, NULL, 0) == 0 || errno != ENOSYS)
		return nest_err_say(err, -EIO, "the filter lets clone3 through");
	if (syscall(SYS_getppid) < 0)
		return nest_err_set(err, -errno, "call getppid under the filter");
	return 0;
}

static int try_landlock(struct nest_err *err)
{
	int r = nest_landlock_confine(err);

	if (r != NEST_LANDLOCK_ABSENT)
		return r;
	if (nest_landlock_abi() == 0)
		return nest_err_say(err, -ENOSYS, "the kernel has none, or it is off");
	return nest_err_say(err, -ENOSYS,
		"ABI %d has no scopes: cells with network \"pod\" can "
		"reach the pod's abstract unix sockets",
		nest_landlock_abi());
}

/* As the cells' root file system is made: a clone of a tree, read-only, attached elsewhere. */
static int try_mount_api(struct nest_err *err)
{
	struct {
		uint64_t set, clear, propagation, userns;
	} attr = { .set = 1 /* MOUNT_ATTR_RDONLY */ };
	nest_autoclose int tree = -1, fs = -1;
	int r = enter(CLONE_NEWNS, "CLONE_NEWNS", err);

	if (r < 0)
		return r;
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC);
	if (tree < 0)
		return nest_err_set(err, -errno, "open_tree");
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return nest_err_set(err, -errno, "mount_setattr");
	fs = (int)syscall(SYS_fsopen, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
	if (fs < 0)
		return nest_err_set(err, -errno, "fsopen");
	return 0;
}

static int try_clone3(struct nest_err *err)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		return nest_err_set(err, -errno, "clone3");
	if (pid == 0)
		_exit(0);
	waitpid((pid_t)pid, NULL, 0);
	return 0;
}

static int try_pidfd(struct nest_err *err)
{
	nest_autoclose int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0)
		return nest_err_set(err, -errno, "pidfd_open");
	if (syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0)
		return nest_err_set(err, -errno, "pidfd_send_signal");
	return 0;
}

static int try_close_range(struct nest_err *err)
{
	if (syscall(SYS_close_range, INT_MAX, INT_MAX, 0) < 0)
		return nest_err_set(err, -errno, "close_range");
	return 0;
}

static int try_userfaultfd(struct nest_err *err)
{
	nest_autoclose int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(err, -errno, "userfaultfd");
	return 0;
}

/* Opening a file system context loads its module, as the first mount would. */
static int try_file_system(const char *name, struct nest_err *err)
{
	nest_autoclose int fs = (int)syscall(SYS_fsopen, name, 1 /* FSOPEN_CLOEXEC */);

	if (fs >= 0)
		return 0;
	return nest_err_set(err, -errno, "fsopen '%s'", name);
}

static int try_overlayfs(struct nest_err *err)
{
	return try_file_system("overlay", err);
}

static int try_erofs(struct nest_err *err)
{
	struct utsname uts;
	int major, minor, r = try_file_system("erofs", err);

	if (r < 0)
		return r;
	if (uname(&uts) < 0 || sscanf(uts.release, "%d.%d", &major, &minor) != 2)
		return nest_err_say(err, -EIO, "the kernel does not tell its version");
	if (major < 6 || (major == 6 && minor < 12))
		return nest_err_say(err, -ENOSYS, "Linux %d.%d mounts it from block devices only",
			major, minor);
	return 0;
}

#define REMEDY_ADMIN                                                                       \
	"add SYS_ADMIN to securityContext.capabilities.add, and set a seccompProfile and " \
	"AppArmor "                                                                        \
	"profile that allow mount and unshare (type: Unconfined)"
#define REMEDY_PROFILE "use a seccompProfile that allows the call (type: Unconfined)"

struct attempt {
	const char *name;
	bool required;
	trial *try_it;
	const char *detail;  /* if yes: what it is for */
	const char *allowed; /* remedy where it is refused */
	const char *present; /* remedy where the kernel lacks it */
};

static const struct attempt attempts[] = {
	{ "pid namespace", true, try_pid_namespace, "cells don't see each other's processes",
		REMEDY_ADMIN, "use a kernel with CONFIG_PID_NS" },
	{ "mount namespace", true, try_mount_namespace, "each cell has its own root file system",
		REMEDY_ADMIN, "use a kernel with CONFIG_NAMESPACES" },
	{ "ipc namespace", true, try_ipc_namespace, "each cell has its own System V and POSIX IPC",
		REMEDY_ADMIN, "use a kernel with CONFIG_IPC_NS" },
	{ "uts namespace", true, try_uts_namespace, "each cell has its own host name", REMEDY_ADMIN,
		"use a kernel with CONFIG_UTS_NS" },
	{ "net namespace", false, try_net_namespace, "for functions with network \"none\"",
		"add SYS_ADMIN and NET_ADMIN to securityContext.capabilities.add",
		"use a kernel with CONFIG_NET_NS" },
	{ "user namespace", false, try_user_namespace, "not used by cells",
		"not needed: cells use none", "not needed: cells use none" },
	{ "time namespace", false, try_time_namespace, "restored workers' clocks go on",
		REMEDY_ADMIN, "use Linux 5.6 or later with CONFIG_TIME_NS" },
	{ "seccomp", true, try_seccomp, "the workers' filter loads and holds", REMEDY_PROFILE,
		"use a kernel with CONFIG_SECCOMP_FILTER" },
	{ "no_new_privs", true, try_no_new_privs, "workers gain nothing by set-uid programs",
		REMEDY_PROFILE, "use Linux 3.5 or later" },
	{ "Landlock", false, try_landlock, "scopes abstract unix sockets and signals",
		REMEDY_PROFILE,
		"use Linux 6.12 or later with landlock in its lsm= list, or network \"none\"" },
	{ "new mount API", true, try_mount_api, "open_tree, mount_setattr and fsopen", REMEDY_ADMIN,
		"use Linux 5.12 or later" },
	{ "clone3", false, try_clone3, "CRIU gives restored processes their pids with it",
		REMEDY_PROFILE, "use Linux 5.3 or later, and a seccompProfile that allows clone3" },
	{ "pidfd", true, try_pidfd, "processes are waited for and killed without races",
		REMEDY_PROFILE, "use Linux 5.3 or later" },
	{ "close_range", true, try_close_range, "descriptors are closed at one stroke",
		REMEDY_PROFILE, "use Linux 5.9 or later" },
	{ "EROFS", false, try_erofs, "mounted straight from a file", REMEDY_ADMIN,
		"use Linux 6.12 or later and load the erofs module on the node" },
	{ "overlayfs", false, try_overlayfs, "layers can be stacked", REMEDY_ADMIN,
		"load the overlay module on the node" },
	{ "userfaultfd", false, try_userfaultfd, "memory can be restored as it is touched",
		"add SYS_PTRACE to securityContext.capabilities.add, or set "
		"vm.unprivileged_userfaultfd=1",
		"use a kernel with CONFIG_USERFAULTFD" },
};

static const char *remedy_for(const struct attempt *attempt, int code)
{
	switch (code) {
	case -ENOSYS:
	case -EINVAL:
	case -ENODEV:
	case -EOPNOTSUPP:
		return attempt->present;
	case -ENOSPC:
		return "raise the limit in /proc/sys/user/max_*_namespaces on the node";
	case -EMFILE:
	case -ENFILE:
	case -EAGAIN:
	case -ENOMEM:
		return "raise the pod's limits: the host ran out of them while trying";
	default:
		return attempt->allowed;
	}
}

static void add_attempt(struct table *table, const struct attempt *attempt)
{
	struct nest_feature *row = add_row(table, attempt->name, attempt->required);
	struct nest_err err = NEST_ERR_INIT;
	int r = in_child(attempt->try_it, &err);

	if (r < 0)
		say_no(row, remedy_for(attempt, r), "%s", nest_err_text(&err));
	else if (attempt->try_it == try_landlock)
		say_yes(row, "ABI %d: %s", nest_landlock_abi(), attempt->detail);
	else
		say_yes(row, "%s", attempt->detail);
}

static void add_user(struct table *table)
{
	struct nest_feature *row = add_row(table, "user", true);

	if (geteuid() == 0)
		say_yes(row, "root; workers and the agent run as others");
	else
		say_no(row, "set securityContext.runAsUser: 0; the agent gives root up by itself",
			"uid %u can't give functions users of their own", geteuid());
}

static void add_capability(
	struct table *table, const char *name, int cap, const char *reason, bool required)
{
	struct nest_feature *row = add_row(table, name, required);
	char remedy[sizeof(row->remedy)];

	if (nest_privilege_has(cap)) {
		say_yes(row, "%s", reason);
		return;
	}
	snprintf(remedy, sizeof(remedy), "add %s to securityContext.capabilities.add",
		name + strlen("CAP_"));
	say_no(row, remedy, "not held; it %s", reason);
}

static void add_capabilities(struct table *table)
{
	for (const struct nest_privilege *p = nest_privilege_kept(false); p->name; p++)
		/* what net namespaces need is needed by functions with network "none" only */
		add_capability(table, p->name, p->cap, p->reason, p->cap != CAP_NET_ADMIN);
	add_capability(
		table, "CAP_SYS_PTRACE", CAP_SYS_PTRACE, "lets CRIU read a worker's memory", false);
	add_capability(table, "CAP_CHECKPOINT_RESTORE", CAP_CHECKPOINT_RESTORE,
		"lets CRIU choose the pids of what it restores", false);
}

/* The file that tells whether a child cgroup has the controller. */
static const struct {
	enum nest_cgroup_controller controller;
	const char *v1_file;
} controllers[] = {
	{ NEST_CGROUP_MEMORY, "memory.limit_in_bytes" },
	{ NEST_CGROUP_PIDS, "pids.max" },
	{ NEST_CGROUP_CPU, "cpu.cfs_quota_us" },
	{ NEST_CGROUP_FREEZER, "freezer.state" },
};

#define PROBE_CGROUP "nestlet-probe-"
#define PROBE_CGROUP_STALE_S 60 /* a probe takes well below a second */

#define REMEDY_CGROUP_WRITABLE                                                               \
	"mount /sys/fs/cgroup writable: securityContext.privileged: true, or the container " \
	"runtime's writable cgroups"

/*
 * Removes what a probe left that was killed midway. By age, for the probes of other hosts, in pid
 * namespaces that we don't see, may be at it now; by rmdir, which takes no cgroup in use.
 */
static void sweep_children(int dir)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(dir, ".");
	struct dirent *entry;
	struct stat st;

	while (list && (entry = readdir(list)))
		if (strncmp(entry->d_name, PROBE_CGROUP, strlen(PROBE_CGROUP)) == 0 &&
			fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			st.st_mtime + PROBE_CGROUP_STALE_S < time(NULL))
			unlinkat(dir, entry->d_name, AT_REMOVEDIR);
}

/* Makes a cgroup below @dir, looks whether @file is in it, and removes it. */
static int try_child_cgroup(int dir, const char *file, struct nest_err *err)
{
	char name[32], path[64];
	int r = 0;

	sweep_children(dir);
	snprintf(name, sizeof(name), PROBE_CGROUP "%d", getpid());
	snprintf(path, sizeof(path), "%s/%s", name, file);
	if (mkdirat(dir, name, 0755) < 0)
		return nest_err_set(err, -errno, "make a cgroup");
	if (faccessat(dir, path, W_OK, AT_EACCESS) < 0)
		r = nest_err_set(err, -errno, "open '%s' of a cgroup for writing", file);
	unlinkat(dir, name, AT_REMOVEDIR);
	return r;
}

static bool lists_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at += len)
		if ((at == list || at[-1] == ' ') && strchr(" \n", at[len]))
			return true;
	return false;
}

/*
 * v2 shows a controller's files in a child only once it is enabled for children, which the spawner
 * does when it starts; here cgroup.controllers tells, and cgroup.procs whether one can be made.
 */
static int try_v2(int dir, const char *name, bool freezer, struct nest_err *err)
{
	nest_autofree char *list = NULL;
	int r;

	if (freezer)
		return try_child_cgroup(dir, "cgroup.freeze", err);
	r = nest_file_read(dir, "cgroup.controllers", MAX_PROC_FILE, &list, NULL, err);
	if (r < 0)
		return r;
	if (!lists_word(list, name))
		return nest_err_say(err, -ENODEV, "not among this cgroup's controllers");
	return try_child_cgroup(dir, "cgroup.procs", err);
}

static int try_controller(
	const struct nest_cgroup_find_place *place, size_t which, struct nest_err *err)
{
	enum nest_cgroup_controller controller = controllers[which].controller;
	char path[2 * PATH_MAX];
	nest_autoclose int dir = -1;

	snprintf(path, sizeof(path), "%s%s", place->mount, place->own);
	dir = open(path, O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return nest_err_set(err, -errno, "open '%.100s'", path);
	if (place->version == 1)
		return try_child_cgroup(dir, controllers[which].v1_file, err);
	return try_v2(dir, nest_cgroup_controller_name(controller),
		controller == NEST_CGROUP_FREEZER, err);
}

static bool carries(const struct nest_cgroup_find_place *place, int version, size_t which)
{
	if (place->version != version)
		return false;
	return version == 2 || (place->controllers & (1u << controllers[which].controller));
}

static void add_controller(struct table *table, const struct nest_cgroup_find_place *places,
	size_t n, int version, size_t which)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_feature *row;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "cgroup v%d %s", version,
		nest_cgroup_controller_name(controllers[which].controller));
	row = add_row(table, name, false);
	for (size_t i = 0; i < n; i++) {
		if (!carries(&places[i], version, which))
			continue;
		r = try_controller(&places[i], which, &err);
		if (r == 0)
			say_yes(row, "%.60s%.90s", places[i].mount, places[i].own);
		else
			say_no(row,
				r == -ENODEV ? "delegate the controller to the pod's cgroup"
					     : REMEDY_CGROUP_WRITABLE,
				"%.60s: %s", places[i].mount, nest_err_text(&err));
		return;
	}
	say_no(row, "mount it at /sys/fs/cgroup, or use the other version", "not mounted here");
}

/*
 * A controller has to be somewhere: where both versions lack it, both rows are required. The
 * freezer is a comfort. The other version's row of a pair says so instead of a remedy.
 */
static void settle_pair(struct nest_feature *v1, struct nest_feature *v2, bool needed)
{
	if (!v1->yes && !v2->yes) {
		v1->required = needed;
		v2->required = needed;
		return;
	}
	if (!v1->yes)
		snprintf(v1->remedy, sizeof(v1->remedy), "not needed: v2 has it");
	if (!v2->yes)
		snprintf(v2->remedy, sizeof(v2->remedy), "not needed: v1 has it");
}

static int find_places(
	struct nest_cgroup_find_place *ret, size_t max, size_t *ret_n, struct nest_err *err)
{
	nest_autofree char *mountinfo = NULL;
	nest_autofree char *own = NULL;
	int r = nest_file_read(
		AT_FDCWD, "/proc/self/mountinfo", 16 * MAX_PROC_FILE, &mountinfo, NULL, err);

	if (r == 0)
		r = nest_file_read(AT_FDCWD, "/proc/self/cgroup", MAX_PROC_FILE, &own, NULL, err);
	if (r == 0)
		*ret_n = nest_cgroup_find_places(mountinfo, own, ret, max);
	return r;
}

static int add_cgroups(struct table *table, struct nest_err *err)
{
	enum {
		MAX_PLACES = NEST_CGROUP_MAX_HIERARCHIES,
		PAIRS = NEST_ARRAY_SIZE(controllers)
	};
	nest_autofree struct nest_cgroup_find_place *places = calloc(MAX_PLACES, sizeof(*places));
	size_t n = 0, first = table->n;

	if (!places)
		return nest_err_set(err, -ENOMEM, "look for cgroups");
	if (find_places(places, MAX_PLACES, &n, err) < 0)
		return nest_err_wrap(err, "look for cgroups");
	for (int version = 1; version <= 2; version++)
		for (size_t i = 0; i < PAIRS; i++)
			add_controller(table, places, n, version, i);
	for (size_t i = 0; i < PAIRS; i++)
		settle_pair(&table->rows[first + i], &table->rows[first + PAIRS + i],
			controllers[i].controller != NEST_CGROUP_FREEZER);
	return 0;
}

/*
 * Twice: a failure is for the host's life, and on a machine that is busy one may be of the moment. Without
 * stand-ins: this is about the machine, and the spawner does without those that don't serve.
 */
static int test_snapshots(const char *criu, uint64_t *ret_us, struct nest_err *err)
{
	int r = nest_selftest_run(criu, false, SELFTEST_MS, ret_us, err);

	return r < 0 && r != -ETIME ? nest_selftest_run(criu, false, SELFTEST_MS, ret_us, err) : r;
}

static void add_snapshots(struct table *table, const struct nest_feature_wish *wish)
{
	struct nest_feature *row = add_row(table, NEST_FEATURE_SNAPSHOTS, false);
	struct nest_err err = NEST_ERR_INIT;
	uint64_t us;

	if (!wish->snapshots)
		say_no(row, "set snapshots.enabled to true", "the config turns them off");
	else if (test_snapshots(wish->criu, &us, &err) == 0)
		say_yes(row, "a process was frozen and restored in %.1f ms", (double)us / 1000);
	else
		say_no(row, "see the rows above; functions are started plainly", "%s",
			nest_err_text(&err));
}

int nest_feature_probe(const struct nest_feature_wish *wish, struct nest_feature **ret,
	size_t *ret_n, struct nest_err *err)
{
	nest_autofree struct nest_feature *rows = calloc(MAX_ROWS, sizeof(*rows));
	struct table table = { .rows = rows };
	int r;

	if (!rows)
		return nest_err_set(err, -ENOMEM, "list features");
	add_user(&table);
	add_capabilities(&table);
	r = add_cgroups(&table, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(attempts); i++)
		add_attempt(&table, &attempts[i]);
	nest_feature_criu_probe(wish->criu, add_row(&table, "CRIU", false));
	add_snapshots(&table, wish);
	*ret_n = table.n;
	*ret = nest_take_ptr(rows);
	return 0;
}
