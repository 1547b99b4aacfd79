/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/loader/kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <check.h>
#include <seccomp.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/copy.h"
#include "loader/unpack.h"

static char top[64];
static unsigned fds_before;
static char *strings[4096];
static size_t n_strings;

unsigned kit_count(const char *path)
{
	nest_autoclosedir DIR *dir = opendir(path);
	unsigned n = 0;

	ck_assert_msg(dir != NULL, "open %s: %s", path, strerror(errno));
	while (readdir(dir))
		n++;
	return n - 2;
}

/* A disk of its own for the test, in memory: quick, and as small as a full one must be. */
void kit_mount(const char *path, const char *options)
{
	ck_assert_msg(unshare(CLONE_NEWNS) == 0 &&
			      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
			      mount("kit", path, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0,
		"mount a tmpfs (this needs root): %s", strerror(errno));
}

void kit_settle(void)
{
	fds_before = kit_count("/proc/self/fd");
}

void kit_enter(void)
{
	strcpy(top, "/tmp/nest-loader-XXXXXX");
	ck_assert(mkdtemp(top));
	if (geteuid() == 0) {
		ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
		ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
		kit_mount(top, "mode=0700");
	}
	kit_settle();
}

void kit_leave(void)
{
	for (size_t i = 0; i < n_strings; i++)
		free(strings[i]);
	n_strings = 0;
	if (geteuid() == 0)
		ck_assert_int_eq(umount2(top, MNT_DETACH), 0);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, top, NULL), 0);
	ck_assert_uint_eq(kit_count("/proc/self/fd"), fds_before);
}

const char *kit_path(const char *fmt, ...)
{
	char name[8192];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	ck_assert_uint_lt(n_strings, NEST_ARRAY_SIZE(strings));
	ck_assert_int_gt(asprintf(&strings[n_strings], "%s/%s", top, name), 0);
	return strings[n_strings++];
}

void kit_mkdir(const char *path)
{
	ck_assert_msg(mkdir(path, 0700) == 0, "mkdir %s: %s", path, strerror(errno));
}

void kit_write(const char *path, const char *bytes, size_t n, unsigned mode)
{
	nest_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_msg(fd >= 0, "create %s: %s", path, strerror(errno));
	ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
	ck_assert_int_eq(fchmod(fd, mode), 0);
}

static void write_entry(struct archive *archive, const struct kit_entry *from)
{
	struct archive_entry *entry = archive_entry_new();
	bool sized = from->size && !from->sparse; /* such a body may lack a NUL */
	size_t body_len = sized ? from->size : from->body ? strlen(from->body) : 0;

	archive_entry_set_pathname(entry, from->name);
	archive_entry_set_filetype(entry, from->type ? from->type : AE_IFREG);
	archive_entry_set_perm(entry, from->mode ? from->mode : 0644);
	archive_entry_set_mtime(entry, from->mtime, 0);
	archive_entry_set_size(entry, (la_int64_t)(from->size ? from->size : body_len));
	if (from->link)
		archive_entry_set_symlink(entry, from->link);
	if (from->hardlink)
		archive_entry_set_hardlink(entry, from->hardlink);
	if (from->type == AE_IFCHR || from->type == AE_IFBLK)
		archive_entry_set_rdev(entry, 259);
	if (from->sparse)
		archive_entry_sparse_add_entry(entry, 0, (la_int64_t)body_len);
	archive_entry_xattr_add_entry(entry, "user.kit", "x", 1);
	ck_assert_msg(archive_write_header(archive, entry) >= ARCHIVE_WARN, "%s: %s", from->name,
		archive_error_string(archive));
	if (from->body)
		ck_assert_int_ge(archive_write_data(archive, from->body, body_len), 0);
	archive_entry_free(entry);
}

void kit_archive(const char *format, const char *filter, const struct kit_entry *entries, size_t n,
	struct nest_buf *ret)
{
	struct archive *archive = archive_write_new();
	nest_autoclose int fd = memfd_create("archive", MFD_CLOEXEC);
	off_t size;
	char *room;

	ck_assert_int_eq(archive_write_set_format_by_name(archive, format), ARCHIVE_OK);
	if (filter)
		ck_assert_int_eq(archive_write_add_filter_by_name(archive, filter), ARCHIVE_OK);
	ck_assert_int_eq(archive_write_open_fd(archive, fd), ARCHIVE_OK);
	for (size_t i = 0; i < n; i++)
		write_entry(archive, &entries[i]);
	ck_assert_int_eq(archive_write_close(archive), ARCHIVE_OK);
	archive_write_free(archive);
	size = lseek(fd, 0, SEEK_END);
	ck_assert_int_eq(nest_buf_reserve(ret, (size_t)size, &room), 0);
	ck_assert_int_eq(pread(fd, room, (size_t)size, 0), size);
	nest_buf_commit(ret, (size_t)size);
}

static void fill(struct nest_buf *buf, char byte, size_t n)
{
	char *room;

	ck_assert_int_eq(nest_buf_reserve(buf, n, &room), 0);
	memset(room, byte, n);
	nest_buf_commit(buf, n);
}

void kit_tar_entry(struct nest_buf *tar, const char *name, char type, uint64_t size,
	const char *link, bool body)
{
	char header[513] = "";
	unsigned sum = 0;

	strncpy(header, name, 100);
	memcpy(header + 100, "0000644", 8);
	memcpy(header + 108, "0000000", 8);
	memcpy(header + 116, "0000000", 8);
	snprintf(header + 124, 12, "%011llo", (unsigned long long)size);
	memcpy(header + 136, "00000000000", 12);
	memset(header + 148, ' ', 8);
	header[156] = type;
	if (link)
		strncpy(header + 157, link, 100);
	memcpy(header + 257, "ustar", 6);
	memcpy(header + 263, "00", 2);
	for (size_t i = 0; i < 512; i++)
		sum += (unsigned char)header[i];
	snprintf(header + 148, 8, "%06o", sum);
	ck_assert_int_eq(nest_buf_append(tar, header, 512), 0);
	if (body) {
		fill(tar, 'x', size);
		fill(tar, '\0', (512 - size % 512) % 512);
	}
}

void kit_tar_end(struct nest_buf *tar)
{
	fill(tar, '\0', 1024);
}

int kit_unpack(const struct nest_buf *archive, const char *name,
	const struct nest_draft_limits *limits, struct nest_draft_totals *ret_totals,
	struct nest_err *err)
{
	static const struct nest_draft_limits generous = { .max_bytes = 1u << 30,
		.max_entries = 200000 };
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nest_autoclose int fd = memfd_create("archive", MFD_CLOEXEC);
	int rc;

	ck_assert_int_eq(write(fd, nest_buf_bytes(archive), archive->len), (ssize_t)archive->len);
	kit_ok(nest_draft_new(dir, name, limits ? limits : &generous, &draft, err), err);
	rc = nest_unpack_file(fd, draft, err);
	if (ret_totals)
		nest_draft_totals(draft, ret_totals);
	return rc;
}

static int check_entry(const char *path, const struct stat *st, int flag, struct FTW *at)
{
	char names[16];

	(void)at;
	ck_assert_msg(flag == FTW_F || flag == FTW_D || flag == FTW_SL || flag == FTW_SLN,
		"%s can't be read", path);
	ck_assert_msg(st->st_uid == geteuid(), "%s has another owner", path);
	ck_assert_msg(llistxattr(path, names, sizeof(names)) <= 0, "%s has xattrs", path);
	if (S_ISLNK(st->st_mode))
		return 0;
	ck_assert_msg(S_ISDIR(st->st_mode) || S_ISREG(st->st_mode), "%s is a device", path);
	ck_assert_msg((st->st_mode & 07777) == 0755 ||
			      (S_ISREG(st->st_mode) && (st->st_mode & 07777) == 0644),
		"%s has mode %o", path, st->st_mode);
	ck_assert_msg(st->st_mtim.tv_sec >= 0 && st->st_mtim.tv_sec <= time(NULL) + 1,
		"%s has time %lld", path, (long long)st->st_mtim.tv_sec);
	return 0;
}

void kit_check_tree(const char *path)
{
	ck_assert_int_eq(nftw(path, check_entry, 16, FTW_PHYS), 0);
}

void kit_digest_dir(const char *path, char ret_hex[65])
{
	struct nest_draft_limits limits = { .max_bytes = 1u << 30, .max_entries = 200000 };
	struct nest_err err = NEST_ERR_INIT;

	kit_ok(nest_copy_dir(path, &limits, NULL, ret_hex, &err), &err);
}

void kit_without_openat2(void (*fn)(void))
{
	pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

		if (!filter ||
			seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0) ||
			seccomp_load(filter))
			_exit(99);
		seccomp_release(filter);
		fn();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "without openat2: status %#x",
		(unsigned)status);
}
