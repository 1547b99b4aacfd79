/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file is a row of records: a head, the path below its root, the content. A directory comes
 * before what is in it. Who writes it is the dump, who reads it a cell's PID 1 before anything of the
 * function runs; digests guard it in between. Its paths are the function's choice: each is opened
 * beneath its root without following a link.
 */
#include "sandbox/tmp_image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"

#define MAGIC 0x504d544eu /* "NTMP" */
#define DEPTH_MAX 64
#define ENTRIES_MAX 65536u
#define PATH_CAP 4096
#define SEND_MOST (1u << 20)
#define MODES 01777u

static const char *const roots[] = { "/tmp", "/dev/shm" };

struct record {
	uint32_t magic;
	uint32_t root; /* which of the roots */
	uint32_t mode; /* as stat(2) has it */
	uint32_t path_len;
	uint64_t size; /* of the content: a file's bytes, a link's target */
	int64_t mtime_s;
	int64_t mtime_ns;
};

/* ---- saving ---- */

struct saver {
	int out; /* -1 until there is something to be saved */
	int images;
	uint32_t root;
	uint32_t entries;
	char path[PATH_CAP]; /* below the root */
};

static int refuse(const struct saver *saver, const char *why, struct nest_err *err)
{
	return nest_err_say(
		err, -EOPNOTSUPP, "'%s/%.128s' %s", roots[saver->root], saver->path, why);
}

static int open_out(struct saver *saver, struct nest_err *err)
{
	if (saver->out >= 0)
		return 0;
	saver->out = openat(saver->images, NEST_TMP_IMAGE,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return saver->out < 0 ? nest_err_set(err, -errno, "make '" NEST_TMP_IMAGE "'") : 0;
}

static int put_head(struct saver *saver, const struct stat *st, uint64_t size, struct nest_err *err)
{
	const struct record record = {
		.magic = MAGIC,
		.root = saver->root,
		.mode = st->st_mode,
		.path_len = (uint32_t)strlen(saver->path),
		.size = size,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = st->st_mtim.tv_nsec,
	};
	int r = open_out(saver, err);

	if (r == 0)
		r = nest_fd_write_all(saver->out, &record, sizeof(record), err);
	return r < 0 ? r : nest_fd_write_all(saver->out, saver->path, record.path_len, err);
}

/* @left bytes from @in on; both are left where the copy ended. */
static int copy_bytes(int in, int out, uint64_t left, struct nest_err *err)
{
	while (left > 0) {
		ssize_t n = sendfile(out, in, NULL, left < SEND_MOST ? left : SEND_MOST);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nest_err_set(err, -errno, "copy a file of /tmp");
		if (n == 0)
			return nest_err_say(err, -EBADMSG, "a file of /tmp is cut short");
		left -= (uint64_t)n;
	}
	return 0;
}

static int save_file(
	struct saver *saver, int dir, const char *name, const struct stat *st, struct nest_err *err)
{
	nest_autoclose int in = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int r;

	if (in < 0)
		return nest_err_set(
			err, -errno, "open '%s/%.128s'", roots[saver->root], saver->path);
	r = put_head(saver, st, (uint64_t)st->st_size, err);
	return r < 0 ? r : copy_bytes(in, saver->out, (uint64_t)st->st_size, err);
}

static int save_link(
	struct saver *saver, int dir, const char *name, const struct stat *st, struct nest_err *err)
{
	char target[PATH_CAP];
	ssize_t n = readlinkat(dir, name, target, sizeof(target));
	int r;

	if (n < 0)
		return nest_err_set(err, -errno, "read link '%.128s'", saver->path);
	r = put_head(saver, st, (uint64_t)n, err);
	return r < 0 ? r : nest_fd_write_all(saver->out, target, (size_t)n, err);
}

static int save_dir(struct saver *saver, int fd, int depth, struct nest_err *err);

static int save_entry(
	struct saver *saver, int dir, const char *name, int depth, struct nest_err *err)
{
	nest_autoclose int below = -1;
	struct stat st;
	int r;

	if (++saver->entries > ENTRIES_MAX || depth > DEPTH_MAX)
		return refuse(saver, "is too much or too deep to be kept in a snapshot", err);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return nest_err_set(err, -errno, "look at '%.128s'", saver->path);
	if (S_ISREG(st.st_mode))
		return save_file(saver, dir, name, &st, err);
	if (S_ISLNK(st.st_mode))
		return save_link(saver, dir, name, &st, err);
	if (!S_ISDIR(st.st_mode))
		return refuse(saver, "is neither a file nor a directory nor a link", err);
	below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (below < 0)
		return nest_err_set(err, -errno, "open '%.128s'", saver->path);
	r = put_head(saver, &st, 0, err);
	return r < 0 ? r : save_dir(saver, below, depth + 1, err);
}

static int save_dir(struct saver *saver, int fd, int depth, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(fd, ".");
	size_t len = strlen(saver->path);
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list '%.128s'", saver->path);
	while (r == 0 && (entry = readdir(list))) {
		int n;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		n = snprintf(saver->path + len, sizeof(saver->path) - len, "%s%s", len ? "/" : "",
			entry->d_name);
		if ((size_t)n >= sizeof(saver->path) - len)
			r = refuse(saver, "has too long a path", err);
		if (r == 0)
			r = save_entry(saver, fd, entry->d_name, depth, err);
		saver->path[len] = '\0';
	}
	return r;
}

int nest_tmp_image_save(int images, struct nest_err *err)
{
	struct saver saver = { .out = -1, .images = images };
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < NEST_ARRAY_SIZE(roots); i++) {
		nest_autoclose int root = open(roots[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		saver.root = i;
		r = root < 0 ? nest_err_set(err, -errno, "open '%s'", roots[i])
			     : save_dir(&saver, root, 1, err);
	}
	if (saver.out >= 0)
		close(saver.out);
	return r;
}

/* ---- loading ---- */

static int open_beneath(int dir, const char *path, int *ret)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	*ret = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	return *ret < 0 ? -errno : 0;
}

/* Opens where @path's last part is to be made; *@ret_name points to that part. */
static int open_parent(int root, char *path, const char **ret_name, int *ret, struct nest_err *err)
{
	char *slash = strrchr(path, '/');
	int r;

	*ret_name = slash ? slash + 1 : path;
	if (slash)
		*slash = '\0';
	r = open_beneath(root, slash ? path : ".", ret);
	if (r < 0)
		return nest_err_set(err, r, "open a directory of /tmp");
	if (!**ret_name || strcmp(*ret_name, ".") == 0 || strcmp(*ret_name, "..") == 0)
		return nest_err_say(err, -EBADMSG, "'" NEST_TMP_IMAGE "' names no file");
	return 0;
}

static int make_file(
	const struct record *record, int in, int dir, const char *name, struct nest_err *err)
{
	nest_autoclose int out =
		openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (out < 0)
		return nest_err_set(err, -errno, "make a file of /tmp");
	return copy_bytes(in, out, record->size, err);
}

static int make_link(
	const struct record *record, int in, int dir, const char *name, struct nest_err *err)
{
	char target[PATH_CAP];

	if (record->size == 0 || record->size >= sizeof(target) ||
		read(in, target, (size_t)record->size) != (ssize_t)record->size)
		return nest_err_say(err, -EBADMSG, "'" NEST_TMP_IMAGE "' has a malformed link");
	target[record->size] = '\0';
	return symlinkat(target, dir, name) < 0 ? nest_err_set(err, -errno, "make a link of /tmp")
						: 0;
}

/* Safe: the directory is opened beneath the root, and the last part is made, or is not followed. */
static int make_entry(const struct record *record, int in, int dir, const char *name, uid_t uid,
	struct nest_err *err)
{
	const struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = record->mtime_s, .tv_nsec = record->mtime_ns },
	};
	mode_t mode = record->mode & MODES;
	int r = 0;

	if (S_ISREG(record->mode))
		r = make_file(record, in, dir, name, err);
	else if (S_ISLNK(record->mode))
		r = make_link(record, in, dir, name, err);
	else if (!S_ISDIR(record->mode) || record->size > 0)
		r = nest_err_say(err, -EBADMSG, "'" NEST_TMP_IMAGE "' has an unknown kind of file");
	else if (mkdirat(dir, name, 0700) < 0)
		r = nest_err_set(err, -errno, "make a directory of /tmp");
	if (r < 0)
		return r;
	if (!S_ISLNK(record->mode) && fchmodat(dir, name, mode, 0) < 0)
		return nest_err_set(err, -errno, "set a mode in /tmp");
	if (fchownat(dir, name, uid, uid, AT_SYMLINK_NOFOLLOW) < 0 ||
		utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return nest_err_set(err, -errno, "give a file of /tmp to its owner");
	return 0;
}

/* 1: there was one, 0: that was the last. */
static int load_next(int in, const int *tops, uid_t uid, struct nest_err *err)
{
	nest_autoclose int dir = -1;
	struct record record;
	char path[PATH_CAP];
	const char *name;
	ssize_t n = read(in, &record, sizeof(record));
	int r;

	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(record) || record.magic != MAGIC ||
		record.root >= NEST_ARRAY_SIZE(roots) || record.path_len == 0 ||
		record.path_len >= sizeof(path) ||
		read(in, path, record.path_len) != (ssize_t)record.path_len)
		return nest_err_say(err, -EBADMSG, "'" NEST_TMP_IMAGE "' is malformed");
	path[record.path_len] = '\0';
	r = open_parent(tops[record.root], path, &name, &dir, err);
	if (r == 0)
		r = make_entry(&record, in, dir, name, uid, err);
	return r < 0 ? r : 1;
}

int nest_tmp_image_load(int images, uid_t uid, struct nest_err *err)
{
	nest_autoclose int in = openat(images, NEST_TMP_IMAGE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	nest_autoclose int tmp = -1;
	nest_autoclose int shm = -1;
	int tops[NEST_ARRAY_SIZE(roots)];
	int r = 1;

	if (in < 0)
		return errno == ENOENT ? 0 : nest_err_set(err, -errno, "open '" NEST_TMP_IMAGE "'");
	tops[0] = tmp = open(roots[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	tops[1] = shm = open(roots[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (tmp < 0 || shm < 0)
		return nest_err_set(err, -errno, "open /tmp and /dev/shm");
	while (r > 0)
		r = load_next(in, tops, uid, err);
	return r;
}
