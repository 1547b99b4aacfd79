/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a tree that an untrusted process has filled: any depth, any name, any mode.
 *
 * The walk goes down by descriptors, so that no path grows with the depth and no symbolic link is
 * ever followed. It goes down MAX_DEPTH levels only: a directory that lies deeper is moved to the
 * top of the tree and removed from there by the next pass, so that stack and descriptors are
 * bounded whatever was built. Every pass either removes or moves up something, so passes end.
 *
 * A mounted directory is never entered: not one of another file system, and not a bind mount of the
 * same one either, which is why mount ids are compared and not only devices.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"

#define MAX_DEPTH 32
#define HOIST_NAME_LEN 32

struct walk {
	int top;	   /* the tree's own directory */
	struct statx home; /* its mount, which is not left */
	uint64_t hoists;   /* directories moved to the top so far */
	bool progress;	   /* this pass removed or moved something */
	int rc;		   /* of the first failure; the rest of the tree is still removed */
	struct nest_err *err;
};

static void note(struct walk *walk, int code, const char *what, const char *name)
{
	if (walk->rc == 0)
		walk->rc = nest_err_set(walk->err, code, "%s '%s'", what, name);
}

static int identify(int dir, const char *name, int flags, struct statx *ret)
{
	unsigned want = STATX_TYPE | STATX_MODE | STATX_MNT_ID;

	return statx(dir, name, flags, want, ret) < 0 ? -errno : 0;
}

static bool same_mount(const struct statx *a, const struct statx *b)
{
	return a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor &&
	       a->stx_mnt_id == b->stx_mnt_id;
}

/*
 * Opens directory @name in @dir, which must lie on the mount of @home, for reading and emptying.
 * Whoever owns a directory can have taken the right to read it from itself; as its owner we give
 * it back, but not before it is known to be no mount: that one's mode is not ours to change.
 */
static int open_directory(int dir, const char *name, const struct statx *home)
{
	struct statx is;
	int rc = identify(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, &is);
	nest_autoclose int fd = -1;

	if (rc < 0)
		return rc;
	if (!S_ISDIR(is.stx_mode))
		return -ENOTDIR;
	if (!same_mount(&is, home))
		return -EXDEV;
	/* a refused change may do no harm; where it does, the steps that follow say so */
	if ((is.stx_mode & 0700) != 0700 && fchmodat(dir, name, 0700, AT_SYMLINK_NOFOLLOW) < 0 &&
		errno == ENOENT)
		return -ENOENT;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* the name may have been given to another one since it was looked at */
	rc = identify(fd, "", AT_EMPTY_PATH, &is);
	if (rc < 0)
		return rc;
	return same_mount(&is, home) ? nest_take_fd(fd) : -EXDEV;
}

/* Moves directory @name from @dir to the top of the tree. */
static int hoist(struct walk *walk, int dir, const char *name)
{
	char to[HOIST_NAME_LEN];

	for (;;) {
		snprintf(to, sizeof(to), ".nest-rm-%ju", (uintmax_t)walk->hoists++);
		if (renameat2(dir, name, walk->top, to, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
}

static void empty_directory(struct walk *walk, int fd, unsigned depth);

static void remove_directory(struct walk *walk, int dir, const char *name, unsigned depth)
{
	int fd = open_directory(dir, name, &walk->home);

	if (fd == -ENOENT)
		return;
	if (fd == -EXDEV) {
		note(walk, -EBUSY, "remove mounted directory", name);
		return;
	}
	if (fd < 0) {
		note(walk, fd, "open directory", name);
		return;
	}
	if (depth < MAX_DEPTH) {
		empty_directory(walk, fd, depth + 1);
	} else {
		int rc = hoist(walk, dir, name);

		close(fd);
		if (rc < 0)
			note(walk, rc, "move up directory", name);
		else
			walk->progress = true;
		return;
	}
	if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
		walk->progress = true;
	else if (errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
		note(walk, -errno, "remove directory", name);
}

static void remove_entry(struct walk *walk, int dir, const struct dirent *entry, unsigned depth)
{
	if (entry->d_type != DT_DIR) {
		if (unlinkat(dir, entry->d_name, 0) == 0) {
			walk->progress = true;
			return;
		}
		if (errno == ENOENT)
			return;
		/* a file system that does not tell types reports a directory this way */
		if (errno != EISDIR) {
			note(walk, -errno, "remove", entry->d_name);
			return;
		}
	}
	remove_directory(walk, dir, entry->d_name, depth);
}

/* Removes what it can from the directory behind @fd, which it takes. */
static void empty_directory(struct walk *walk, int fd, unsigned depth)
{
	nest_autoclosedir DIR *stream = fdopendir(fd);
	struct dirent *entry;

	if (!stream) {
		note(walk, -errno, "read directory", "");
		close(fd);
		return;
	}
	while ((errno = 0, entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove_entry(walk, dirfd(stream), entry, depth);
	}
	if (errno != 0)
		note(walk, -errno, "read directory", "");
}

/* Empties the tree's own directory, in as many passes as its depth and its file system need. */
static int empty_top(struct walk *walk)
{
	do {
		int fd = openat(walk->top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return nest_err_set(walk->err, -errno, "open the directory");
		walk->progress = false;
		empty_directory(walk, fd, 0);
	} while (walk->progress);
	return walk->rc;
}

int nest_file_remove_tree(int dirfd, const char *path, struct nest_err *err)
{
	nest_autoclose int top = -1;
	struct walk walk = { .err = err };
	int rc;

	if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return nest_err_set(err, -errno, "remove '%s'", path);
	rc = identify(dirfd, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, &walk.home);
	top = rc < 0 ? rc : open_directory(dirfd, path, &walk.home);
	if (top == -ENOENT)
		return 0;
	if (top < 0)
		return nest_err_set(err, top, "remove '%s'", path);
	walk.top = top;
	rc = empty_top(&walk);
	if (rc < 0) {
		nest_err_wrap(err, "remove '%s'", path);
		return rc;
	}
	if (unlinkat(dirfd, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return nest_err_set(err, -errno, "remove '%s'", path);
	return 0;
}
