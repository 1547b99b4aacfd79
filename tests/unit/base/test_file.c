/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "tests/unit/suite.h"

static char scratch[] = "/tmp/nest-test-file-XXXXXX";
static int root = -1; /* the scratch directory */

static void enter(void)
{
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	root = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(root, 0);
}

static void leave(void)
{
	close(root);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, scratch, NULL), 0);
	ck_assert_int_lt(access(scratch, F_OK), 0);
}

static void put(const char *path, const char *text)
{
	nest_autoclose int fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static int count_entries(const char *path)
{
	nest_autoclosedir DIR *dir = fdopendir(openat(root, path, O_RDONLY | O_DIRECTORY));
	struct dirent *entry;
	int n = 0;

	while ((entry = readdir(dir)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	return n;
}

static bool exists(const char *path)
{
	struct stat st;

	return fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

START_TEST(read_gives_a_whole_file)
{
	nest_autofree char *bytes = NULL;
	nest_autofree char *empty = NULL;
	size_t len = 99;

	put("a", "hello");
	ck_assert_int_eq(nest_file_read(root, "a", 5, &bytes, &len, NULL), 0);
	ck_assert_str_eq(bytes, "hello");
	ck_assert_uint_eq(len, 5);
	put("b", "");
	ck_assert_int_eq(nest_file_read(root, "b", 0, &empty, &len, NULL), 0);
	ck_assert_str_eq(empty, "");
	ck_assert_uint_eq(len, 0);
}
END_TEST

START_TEST(read_takes_files_without_a_size)
{
	nest_autofree char *bytes = NULL;
	nest_autofree char *maps = NULL;
	size_t len = 0;

	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/status", SIZE_MAX, &bytes, NULL, NULL), 0);
	ck_assert_int_eq(strncmp(bytes, "Name:\t", 6), 0);
	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/smaps", 1u << 22, &maps, &len, NULL), 0);
	ck_assert_uint_gt(len, 4096);
	ck_assert_uint_eq(strlen(maps), len);
}
END_TEST

START_TEST(read_refuses_and_names_the_file)
{
	struct nest_err err = NEST_ERR_INIT;
	char *bytes = NULL;

	put("a", "123456");
	ck_assert_int_eq(nest_file_read(root, "a", 5, &bytes, NULL, &err), -EFBIG);
	ck_assert_str_eq(nest_err_text(&err), "read 'a': larger than 5 bytes");
	ck_assert_int_eq(nest_file_read(root, "none", 5, &bytes, NULL, &err), -ENOENT);
	ck_assert_str_eq(nest_err_text(&err), "open 'none': No such file or directory");
	ck_assert_int_eq(nest_file_read(root, ".", 5, &bytes, NULL, &err), -EISDIR);
	ck_assert_int_eq(mkfifoat(root, "fifo", 0600), 0);
	ck_assert_int_eq(nest_file_read(root, "fifo", 5, &bytes, NULL, &err), -EINVAL);
	ck_assert_ptr_null(bytes);
}
END_TEST

START_TEST(write_atomic_replaces_and_sets_the_mode)
{
	nest_autofree char *bytes = NULL;
	struct stat st;

	put("a", "old and longer");
	umask(077);
	ck_assert_int_eq(nest_file_write_atomic(root, "a", "new", 3, 0644, NULL), 0);
	ck_assert_int_eq(nest_file_read(root, "a", 100, &bytes, NULL, NULL), 0);
	ck_assert_str_eq(bytes, "new");
	ck_assert_int_eq(fstatat(root, "a", &st, 0), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0644);
	ck_assert_int_eq(count_entries("."), 1);
}
END_TEST

START_TEST(write_atomic_replaces_a_link_not_its_target)
{
	nest_autofree char *bytes = NULL;

	put("target", "kept");
	ck_assert_int_eq(symlinkat("target", root, "link"), 0);
	ck_assert_int_eq(nest_file_write_atomic(root, "link", "new", 3, 0600, NULL), 0);
	ck_assert_int_eq(nest_file_read(root, "target", 100, &bytes, NULL, NULL), 0);
	ck_assert_str_eq(bytes, "kept");
}
END_TEST

START_TEST(write_atomic_leaves_nothing_when_it_fails)
{
	struct rlimit limit = { .rlim_cur = 10, .rlim_max = 10 };
	struct nest_err err = NEST_ERR_INIT;
	nest_autofree char *bytes = NULL;

	ck_assert_int_eq(mkdirat(root, "d", 0755), 0);
	ck_assert_int_eq(mkdirat(root, "d/taken", 0755), 0);
	ck_assert_int_eq(nest_file_write_atomic(root, "d/taken", "x", 1, 0600, &err), -EISDIR);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "'d/taken'"));
	ck_assert_int_eq(count_entries("d"), 1);

	put("d/file", "old");
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(
		nest_file_write_atomic(root, "d/file", "more than ten bytes", 19, 0600, &err),
		-EFBIG);
	ck_assert_int_eq(count_entries("d"), 2);
	ck_assert_int_eq(nest_file_read(root, "d/file", 100, &bytes, NULL, NULL), 0);
	ck_assert_str_eq(bytes, "old");

	ck_assert_int_eq(nest_file_write_atomic(root, "none/x", "x", 1, 0600, &err), -ENOENT);
	ck_assert_int_eq(nest_file_write_atomic(root, "d/", "x", 1, 0600, &err), -EINVAL);
	ck_assert_int_eq(nest_file_write_atomic(root, "", "x", 1, 0600, &err), -EINVAL);
}
END_TEST

START_TEST(write_goes_to_existing_files_only)
{
	struct nest_err err = NEST_ERR_INIT;
	nest_autofree char *bytes = NULL;

	put("a", "12345");
	ck_assert_int_eq(nest_file_write(root, "a", "ab", 2, NULL), 0);
	ck_assert_int_eq(nest_file_read(root, "a", 100, &bytes, NULL, NULL), 0);
	ck_assert_str_eq(bytes, "ab345");
	ck_assert_int_eq(nest_file_write(root, "none", "ab", 2, &err), -ENOENT);
	ck_assert(!exists("none"));
	ck_assert_int_eq(nest_file_write(AT_FDCWD, "/dev/full", "ab", 2, &err), -ENOSPC);
	ck_assert_str_eq(nest_err_text(&err), "write 'ab' to '/dev/full': No space left on device");
}
END_TEST

START_TEST(mkdirs_makes_what_is_missing)
{
	struct nest_err err = NEST_ERR_INIT;
	char path[256];

	snprintf(path, sizeof(path), "%s/a//b/c/", scratch);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, NULL), 0);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, NULL), 0);
	ck_assert(exists("a/b/c"));
	put("a/file", "");
	snprintf(path, sizeof(path), "%s/a/file", scratch);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, &err), -ENOTDIR);
	snprintf(path, sizeof(path), "%s/a/file/below", scratch);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, &err), -ENOTDIR);
	ck_assert_int_eq(nest_file_mkdirs("/", 0755, NULL), 0);
	ck_assert_int_eq(nest_file_mkdirs("", 0755, &err), -ENOENT);
}
END_TEST

START_TEST(remove_takes_files_trees_and_nothing)
{
	ck_assert_int_eq(nest_file_remove_tree(root, "none", NULL), 0);
	put("file", "x");
	ck_assert_int_eq(nest_file_remove_tree(root, "file", NULL), 0);
	ck_assert_int_eq(mkdirat(root, "t", 0755), 0);
	ck_assert_int_eq(mkdirat(root, "t/a", 0755), 0);
	ck_assert_int_eq(mkdirat(root, "t/a/b", 0755), 0);
	put("t/a/f", "x");
	put("t/a/b/f", "x");
	ck_assert_int_eq(mkfifoat(root, "t/fifo", 0600), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "t", NULL), 0);
	ck_assert_int_eq(count_entries("."), 0);
}
END_TEST

START_TEST(remove_follows_no_link)
{
	ck_assert_int_eq(mkdirat(root, "kept", 0755), 0);
	put("kept/file", "x");
	ck_assert_int_eq(mkdirat(root, "t", 0755), 0);
	ck_assert_int_eq(symlinkat("../kept", root, "t/link"), 0);
	ck_assert_int_eq(symlinkat(scratch, root, "t/absolute"), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "t", NULL), 0);
	ck_assert(exists("kept/file"));
	ck_assert_int_eq(symlinkat("kept", root, "link"), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "link", NULL), 0);
	ck_assert(!exists("link"));
	ck_assert(exists("kept/file"));
}
END_TEST

#define LEVELS 5000

/* Long names, thousands of levels, and a sibling on each: no path to it can even be written. */
static void build_abyss(const char *name)
{
	char deep[NAME_MAX + 1];
	int at = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	memset(deep, 'd', NAME_MAX);
	deep[NAME_MAX] = '\0';
	for (int i = 0; i < LEVELS; i++) {
		int next, file;

		ck_assert_int_eq(mkdirat(at, deep, 0755), 0);
		file = openat(at, ".nest-rm-0", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		ck_assert_int_ge(file, 0);
		close(file);
		next = openat(at, deep, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ck_assert_int_ge(next, 0);
		close(at);
		at = next;
	}
	close(at);
}

START_TEST(remove_survives_any_depth_with_few_descriptors)
{
	struct rlimit files = { .rlim_cur = 60, .rlim_max = 60 };
	struct rlimit stack = { .rlim_cur = 256 << 10, .rlim_max = 256 << 10 };

	ck_assert_int_eq(mkdirat(root, "t", 0755), 0);
	build_abyss("t");
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_STACK, &stack), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "t", NULL), 0);
	ck_assert(!exists("t"));
}
END_TEST

START_TEST(remove_takes_wide_directories)
{
	char name[32];

	ck_assert_int_eq(mkdirat(root, "t", 0755), 0);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "t/%d", i);
		put(name, "");
	}
	ck_assert_int_eq(nest_file_remove_tree(root, "t", NULL), 0);
	ck_assert(!exists("t"));
}
END_TEST

/* In a child without root's power to ignore modes. */
START_TEST(remove_takes_directories_that_forbid_it)
{
	pid_t child;
	int status;

	ck_assert_int_eq(fchmod(root, 0777), 0);
	child = fork();
	if (child == 0) {
		bool ok;

		if (geteuid() == 0 &&
			(setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
			_exit(2);
		ok = mkdirat(root, "t", 0755) == 0 && mkdirat(root, "t/a", 0755) == 0 &&
		     mkdirat(root, "t/a/b", 0) == 0 && fchmodat(root, "t/a", 0500, 0) == 0 &&
		     fchmodat(root, "t", 0, 0) == 0;
		if (!ok)
			_exit(3);
		_exit(nest_file_remove_tree(root, "t", NULL) == 0 ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert(!exists("t"));
}
END_TEST

START_TEST(remove_stays_out_of_mounts)
{
	struct nest_err err = NEST_ERR_INIT;
	char kept[256], inside[256];

	ck_assert_int_eq(mkdirat(root, "kept", 0755), 0);
	put("kept/file", "x");
	ck_assert_int_eq(mkdirat(root, "t", 0755), 0);
	ck_assert_int_eq(mkdirat(root, "t/mounted", 0755), 0);
	put("t/other", "x");
	snprintf(kept, sizeof(kept), "%s/kept", scratch);
	snprintf(inside, sizeof(inside), "%s/t/mounted", scratch);
	/* a bind mount has the same device: only the mount tells it apart */
	ck_assert_msg(unshare(CLONE_NEWNS) == 0, "this test must run as root: %s", strerror(errno));
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount(kept, inside, NULL, MS_BIND, NULL), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "t", &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "'mounted'"));
	ck_assert(exists("kept/file"));
	ck_assert(!exists("t/other"));
	ck_assert_int_eq(umount2(inside, MNT_DETACH), 0);
	ck_assert_int_eq(nest_file_remove_tree(root, "t", NULL), 0);
	ck_assert(exists("kept/file"));
}
END_TEST

NEST_SUITE_WITH("base/file", enter, leave, read_gives_a_whole_file, read_takes_files_without_a_size,
	read_refuses_and_names_the_file, write_atomic_replaces_and_sets_the_mode,
	write_atomic_replaces_a_link_not_its_target, write_atomic_leaves_nothing_when_it_fails,
	write_goes_to_existing_files_only, mkdirs_makes_what_is_missing,
	remove_takes_files_trees_and_nothing, remove_follows_no_link,
	remove_survives_any_depth_with_few_descriptors, remove_takes_wide_directories,
	remove_takes_directories_that_forbid_it, remove_stays_out_of_mounts)
