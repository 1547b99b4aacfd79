/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/draft_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "loader/name.h"

int nest_draft_file_new(
	int fd, const char *name, struct nest_draft_file **ret, struct nest_err *err)
{
	size_t n = strlen(name) + 1;
	struct nest_draft_file *file = malloc(sizeof(*file) + n);

	if (!file) {
		close(fd);
		return nest_err_set(err, -ENOMEM, "write a code tree");
	}
	*file = (struct nest_draft_file){ .fd = fd, .refs = 1 };
	memcpy(file->name, name, n);
	*ret = file;
	return 0;
}

void nest_draft_file_free(struct nest_draft_file *file)
{
	if (!file)
		return;
	nest_cleanup_close(&file->fd);
	free(file);
}

static int fail(
	const struct nest_draft_file *file, int code, const char *verb, struct nest_err *err)
{
	char quoted[NEST_NAME_QUOTED_CAP];

	return nest_err_set(err, code, "%s entry %s", verb, nest_name_quote(file->name, quoted));
}

int nest_draft_file_write(const struct nest_draft_file *file, const void *bytes, size_t n,
	uint64_t offset, struct nest_err *err)
{
	int rc = nest_fd_pwrite_all(file->fd, bytes, n, offset, NULL);

	return rc < 0 ? fail(file, rc, "write", err) : 0;
}

static void set_mtime(int fd, int64_t mtime_s)
{
	struct timespec now;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = mtime_s } };

	clock_gettime(CLOCK_REALTIME, &now);
	if (mtime_s < 0)
		times[1].tv_sec = 0;
	else if (mtime_s > now.tv_sec)
		times[1] = now;
	/* Only a hint for build tools and byte code caches: a file system without times will do. */
	(void)futimens(fd, times);
}

static int end(const struct nest_draft_file *file, struct nest_err *err)
{
	mode_t mode = file->executable ? 0755 : 0644;

	/* Calls saved for each of thousands of files, which mostly are already as they should be. */
	if (file->written != file->size && ftruncate(file->fd, (off_t)file->size) < 0)
		return fail(file, -errno, "set the size of", err);
	if (file->mode != mode && fchmod(file->fd, mode) < 0)
		return fail(file, -errno, "set the mode of", err);
	set_mtime(file->fd, file->mtime_s);
	return 0;
}

int nest_draft_file_end(struct nest_draft_file *file, struct nest_err *err)
{
	int rc = end(file, err);

	nest_draft_file_free(file);
	return rc;
}
