/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"

#define READ_STEP 4096

/* Reads to the end, or one byte beyond @max: enough to know that there is more. */
static int read_up_to(int fd, size_t hint, size_t max, struct nest_buf *buf)
{
	size_t step = hint;

	while (buf->len <= max) {
		size_t room = max - buf->len + 1;
		char *at;
		ssize_t n;

		if (room > step)
			room = step;
		if (nest_buf_reserve(buf, room, &at) < 0)
			return -ENOMEM;
		n = read(fd, at, room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		nest_buf_commit(buf, (size_t)n);
		step = READ_STEP;
	}
	return 0;
}

int nest_file_read(int dirfd, const char *path, size_t max, char **ret_bytes, size_t *ret_len,
	struct nest_err *err)
{
	struct nest_buf buf = NEST_BUF_INIT;
	nest_autoclose int fd = -1;
	struct stat st;
	size_t len;
	char *bytes;
	int rc;

	/* non-blocking: opening a FIFO must not wait for its writer */
	fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "stat '%s'", path);
	if (S_ISDIR(st.st_mode))
		return nest_err_set(err, -EISDIR, "read '%s'", path);
	if (!S_ISREG(st.st_mode))
		return nest_err_say(err, -EINVAL, "read '%s': not a regular file", path);
	/* files in /proc and /sys have size 0 and are read in steps; SIZE_MAX needs room for one more */
	if (max > (size_t)PTRDIFF_MAX - 1)
		max = (size_t)PTRDIFF_MAX - 1;
	rc = read_up_to(fd, st.st_size > 0 ? (size_t)st.st_size + 1 : READ_STEP, max, &buf);
	if (rc == 0 && buf.len > max) {
		nest_buf_done(&buf);
		return nest_err_say(err, -EFBIG, "read '%s': larger than %zu bytes", path, max);
	}
	len = buf.len;
	bytes = rc == 0 ? nest_buf_take_string(&buf) : NULL;
	nest_buf_done(&buf);
	if (!bytes)
		return nest_err_set(err, rc < 0 ? rc : -ENOMEM, "read '%s'", path);
	*ret_bytes = bytes;
	if (ret_len)
		*ret_len = len;
	return 0;
}

/* Opens the directory that @path's last component lies in, and points *@ret_name at that one. */
static int open_parent(int dirfd, const char *path, const char **ret_name, struct nest_err *err)
{
	const char *slash = strrchr(path, '/');
	nest_autofree char *parent = NULL;
	int fd;

	*ret_name = slash ? slash + 1 : path;
	if (**ret_name == '\0')
		return nest_err_say(err, -EINVAL, "'%s' does not name a file", path);
	if (!slash)
		parent = strdup(".");
	else
		parent = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!parent)
		return nest_err_set(err, -ENOMEM, "open the directory of '%s'", path);
	fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return nest_err_set(err, -errno, "open directory '%s'", parent);
	return fd;
}

#define TEMPORARY_LEN 32

static int create_temporary(int dir, mode_t mode, char ret_name[TEMPORARY_LEN])
{
	for (;;) {
		uint64_t random;
		int fd;

		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			return errno == EINTR ? -EAGAIN : -errno;
		snprintf(ret_name, TEMPORARY_LEN, ".nest-%016" PRIx64 ".tmp", random);
		fd = openat(dir, ret_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			mode & 0600);
		if (fd >= 0)
			return fd;
		if (errno != EEXIST)
			return -errno;
	}
}

static int fill_temporary(int fd, const void *bytes, size_t n, mode_t mode, struct nest_err *err)
{
	int rc = nest_fd_write_all(fd, bytes, n, err);

	if (rc < 0)
		return rc;
	/* the mode is what was asked for, whatever the umask */
	if (fchmod(fd, mode) < 0)
		return nest_err_set(err, -errno, "set mode %#o", (unsigned)mode);
	if (fsync(fd) < 0)
		return nest_err_set(err, -errno, "fsync");
	return 0;
}

int nest_file_write_atomic(
	int dirfd, const char *path, const void *bytes, size_t n, mode_t mode, struct nest_err *err)
{
	char temporary[TEMPORARY_LEN];
	nest_autoclose int dir = -1;
	nest_autoclose int fd = -1;
	const char *name;
	int rc;

	dir = open_parent(dirfd, path, &name, err);
	if (dir < 0)
		return dir;
	fd = create_temporary(dir, mode, temporary);
	if (fd < 0)
		return nest_err_set(err, fd, "create a temporary file beside '%s'", path);
	rc = fill_temporary(fd, bytes, n, mode, err);
	if (rc < 0)
		nest_err_wrap(err, "write a temporary file beside '%s'", path);
	else if (renameat(dir, temporary, dir, name) < 0)
		rc = nest_err_set(err, -errno, "rename a temporary file to '%s'", path);
	if (rc < 0) {
		unlinkat(dir, temporary, 0);
		return rc;
	}
	if (fsync(dir) < 0)
		return nest_err_set(err, -errno, "fsync the directory of '%s'", path);
	return 0;
}

int nest_file_write(int dirfd, const char *path, const void *bytes, size_t n, struct nest_err *err)
{
	nest_autoclose int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t done;

	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	do
		done = write(fd, bytes, n);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return nest_err_set(err, -errno, "write '%.*s' to '%s'", n > 64 ? 64 : (int)n,
			(const char *)bytes, path);
	if ((size_t)done != n)
		return nest_err_say(err, -EIO, "write '%s': took %zd of %zu bytes", path, done, n);
	return 0;
}

int nest_file_mkdirs(const char *path, mode_t mode, struct nest_err *err)
{
	nest_autofree char *partial = strdup(path);
	struct stat st;

	if (!partial)
		return nest_err_set(err, -ENOMEM, "make directory '%s'", path);
	for (char *at = partial; *at != '\0';) {
		char *end = at + strspn(at, "/");
		char kept;

		end += strcspn(end, "/");
		kept = *end;
		*end = '\0';
		if (mkdir(partial, mode) < 0 && errno != EEXIST)
			return nest_err_set(err, -errno, "make directory '%s'", partial);
		*end = kept;
		at = end;
	}
	if (stat(path, &st) < 0)
		return nest_err_set(err, -errno, "make directory '%s'", path);
	if (!S_ISDIR(st.st_mode))
		return nest_err_set(err, -ENOTDIR, "make directory '%s'", path);
	return 0;
}

DIR *nest_file_open_dir(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !dir) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return dir;
}
