/* SPDX-License-Identifier: Apache-2.0 */
/* Files, devices and sockets that a worker may not reach, and what it may not write. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/attack/probe.h"

static size_t walked;

static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Scratch space may be written; below /proc and /dev/fd lies the worker itself. */
static bool is_its_own(const char *path)
{
	return is_below(path, "/tmp") || is_below(path, "/dev/shm") || is_below(path, "/proc");
}

static void try_to_create_in(const char *directory)
{
	char path[4096 + 32];
	struct statvfs fs;
	int fd;

	walked++;
	snprintf(path, sizeof(path), "%s/nest-attack", directory);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd >= 0) {
		close(fd);
		unlink(path);
		probe_worked("made a file in %s", directory);
	}
	if (statvfs(directory, &fs) == 0)
		probe_hold(fs.f_flag & ST_RDONLY, "%s is on a writable mount", directory);
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	if (is_its_own(path))
		return FTW_SKIP_SUBTREE;
	if (type == FTW_D || type == FTW_DNR)
		try_to_create_in(path);
	return FTW_CONTINUE;
}

static void attack_write_outside_tmp(int argc, char **argv)
{
	static const char *const files[] = { "/etc/passwd", "/etc/hosts", "/bin/sh",
		"/function/probe", "/usr/bin/env", "/proc/self/exe" };
	nest_autoclose int tmp = open("/tmp/mine", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	(void)argc, (void)argv;
	if (tmp < 0)
		probe_broken("/tmp can't be written either: %s", strerror(errno));
	if (nftw("/", visit, 32, FTW_PHYS | FTW_ACTIONRETVAL) != 0)
		probe_broken("walk: %s", strerror(errno));
	if (walked < 10)
		probe_broken("walked %zu directories only", walked);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(files); i++) {
		struct stat st;

		if (stat(files[i], &st) == 0 && open(files[i], O_WRONLY | O_CLOEXEC) >= 0)
			probe_worked("opened %s for writing", files[i]);
		if (stat(files[i], &st) == 0 && chmod(files[i], 0777) == 0)
			probe_worked("changed the mode of %s", files[i]);
		if (rename(files[i], "/tmp/taken") == 0 || unlink(files[i]) == 0)
			probe_worked("took %s away", files[i]);
	}
}

static int visit_sysctl(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	if (type != FTW_F)
		return 0;
	walked++;
	if (open(path, O_WRONLY | O_CLOEXEC) >= 0)
		probe_worked("opened %s for writing", path);
	return 0;
}

/*
 * /proc files are open to their owner, and only the write is refused. What is written is what was
 * read, for where it works this is a machine that somebody needs.
 */
static void deny_write(const char *path)
{
	nest_autoclose int from = open(path, O_RDONLY | O_CLOEXEC);
	nest_autoclose int to = open(path, O_WRONLY | O_CLOEXEC);
	char bytes[512] = "h"; /* to /proc/sysrq-trigger, which can't be read: print the help */
	ssize_t n = read(from, bytes, sizeof(bytes));
	struct stat st;

	if (to >= 0 && write(to, bytes, n > 0 ? (size_t)n : 1) > 0 && fstat(to, &st) == 0 &&
		!S_ISCHR(st.st_mode))
		probe_worked("wrote %s", path);
}

static void attack_write_proc(int argc, char **argv)
{
	static const char *const paths[] = { "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern",
		"/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/sysrq",
		"/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/proc/mtrr",
		"/proc/self/uid_map", "/proc/self/timens_offsets", "/proc/1/oom_score_adj" };

	(void)argc, (void)argv;
	if (nftw("/proc/sys", visit_sysctl, 32, FTW_PHYS) != 0 || walked < 10)
		probe_broken("walked %zu files of /proc/sys: %s", walked, strerror(errno));
	for (size_t i = 0; i < NEST_ARRAY_SIZE(paths); i++)
		deny_write(paths[i]);
}

/* A file that is hidden is missing, unreadable, or empty. */
static void deny_content(const char *path)
{
	nest_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char byte;

	if (fd >= 0 && read(fd, &byte, 1) > 0)
		probe_worked("read %s", path);
}

static void deny_entries(const char *path)
{
	nest_autoclosedir DIR *dir = opendir(path);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			probe_worked("%s shows %s", path, entry->d_name);
}

static void attack_host_files(int argc, char **argv)
{
	static const char *const files[] = { "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg",
		"/dev/console", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/loop0", "/dev/fuse",
		"/dev/kvm", "/dev/net/tun", "/dev/ptmx", "/proc/kcore", "/proc/kmsg", "/proc/keys",
		"/proc/key-users", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats",
		"/proc/interrupts", "/proc/1/environ", "/proc/1/maps", "/proc/1/root/etc/passwd",
		"/etc/shadow", "/etc/gshadow", "/etc/sudoers" };
	static const char *const directories[] = { "/home", "/root", "/run", "/var", "/mnt",
		"/media", "/srv", "/boot", "/sys", "/opt", "/lost+found", "/proc/acpi",
		"/proc/scsi", "/proc/1/fd", "/proc/1/root", "/proc/1/cwd", "/dev/pts",
		"/dev/mapper", "/etc/ssl/private", "/run/secrets", "/sys/fs/cgroup",
		"/sys/firmware" };

	(void)argc, (void)argv;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(files); i++)
		deny_content(files[i]);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(directories); i++)
		deny_entries(directories[i]);
}

/* The paths in argv are there for the host: none may be there for a cell, by whatever way. */
static void attack_paths(int argc, char **argv)
{
	static const char *const ways[] = { "", "/proc/self/root", "/proc/1/root", "/proc/1/cwd",
		"../../../../../../../..", "/proc/self/cwd/../../../.." };
	struct stat st;

	if (argc == 0)
		probe_broken("no paths");
	for (int i = 0; i < argc; i++) {
		for (size_t w = 0; w < NEST_ARRAY_SIZE(ways); w++) {
			char path[1024];

			snprintf(path, sizeof(path), "%s%s", ways[w], argv[i]);
			if (lstat(path, &st) == 0)
				probe_worked("reached %s", path);
			else if (errno != ENOENT && errno != EACCES && errno != ENOTDIR)
				probe_broken("%s: %s", path, strerror(errno));
		}
	}
}

static int connect_unix(int type, const char *name, bool abstract)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	nest_autoclose int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	size_t len = strlen(name);

	if (fd < 0 || len + 1 > sizeof(addr.sun_path)) {
		probe_broken("socket for %s", name);
		return -1;
	}
	memcpy(addr.sun_path + abstract, name, len);
	return connect(fd, (struct sockaddr *)&addr,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + abstract + len + !abstract));
}

static void attack_unix_sockets(int argc, char **argv)
{
	if (argc == 0)
		probe_broken("no sockets");
	for (int i = 0; i < argc; i++)
		probe_deny_either(
			argv[i], connect_unix(SOCK_STREAM, argv[i], false), ENOENT, EACCES);
}

/* argv: abstract names that others listen on. One of our own has to work, or this says nothing. */
static void attack_abstract_sockets(int argc, char **argv)
{
	static const char own[] = "nest-attack-own";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	nest_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path + 1, own, strlen(own));
	if (bind(fd, (struct sockaddr *)&addr,
		    offsetof(struct sockaddr_un, sun_path) + 1 + sizeof(own) - 1) < 0 ||
		listen(fd, 1) < 0 || connect_unix(SOCK_STREAM, own, true) < 0)
		probe_broken("an abstract socket of the cell's own: %s", strerror(errno));
	if (argc == 0)
		probe_broken("no sockets");
	for (int i = 0; i < argc; i++)
		probe_deny_either(
			argv[i], connect_unix(SOCK_STREAM, argv[i], true), EPERM, ECONNREFUSED);
}

/* Listens on abstract socket argv[0] until the driver hangs up. */
static void attack_listen(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	nest_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc < 1 || strlen(argv[0]) + 1 > sizeof(addr.sun_path)) {
		probe_broken("no name");
		return;
	}
	memcpy(addr.sun_path + 1, argv[0], strlen(argv[0]));
	if (bind(fd, (struct sockaddr *)&addr,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[0]))) <
			0 ||
		listen(fd, 1) < 0)
		probe_broken("listen on %s: %s", argv[0], strerror(errno));
	probe_tell();
	while (probe_wait())
		;
}

/* What a worker is born with: the descriptors and the environment that it was given. */
static void attack_inheritance(int argc, char **argv)
{
	static const char *const environment[] = { "NEST_ATTACK=1",
		"NESTLET_FUNCTION_DIR=/function", "NESTLET_RUNTIME_DIR=/runtime" };
	nest_autoclosedir DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;

	(void)argc, (void)argv;
	if (!dir)
		probe_broken("/proc/self/fd: %s", strerror(errno));
	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir))
			probe_hold(fd <= 3, "descriptor %d is open", fd);
	}
	for (char **variable = environ; *variable; variable++) {
		bool given = false;

		for (size_t i = 0; i < NEST_ARRAY_SIZE(environment); i++)
			given |= strcmp(*variable, environment[i]) == 0;
		probe_hold(given, "%s is in the environment", *variable);
	}
	if (!getenv("NEST_ATTACK"))
		probe_broken("its own environment is missing");
}

const struct probe_case probe_files_cases[] = {
	{ "write-outside-tmp", attack_write_outside_tmp },
	{ "write-proc", attack_write_proc },
	{ "host-files", attack_host_files },
	{ "paths", attack_paths },
	{ "unix-sockets", attack_unix_sockets },
	{ "abstract-sockets", attack_abstract_sockets },
	{ "listen", attack_listen },
	{ "inheritance", attack_inheritance },
	{ NULL, NULL },
};
