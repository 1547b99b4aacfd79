/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_FILE_H
#define NEST_BASE_FILE_H

#include <dirent.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

struct nest_err;

/*
 * Reads a whole file of at most @max bytes (-EFBIG above) relative to @dirfd (AT_FDCWD allowed).
 * *@ret_bytes is NUL-terminated behind its *@ret_len bytes (ret_len may be NULL); the caller frees.
 * Works for /proc and /sys files too; what is not a regular file is -EINVAL. Blocks on the disk. Any
 * thread.
 */
int nest_file_read(int dirfd, const char *path, size_t max, char **ret_bytes, size_t *ret_len,
	struct nest_err *err);

/*
 * Replaces @path by a file with these bytes so that a crash leaves the old or the new one: writes
 * a temporary neighbour, fsyncs, renames, fsyncs the directory. The umask does not touch @mode. A
 * crash may leave a neighbour ".nest-*.tmp" for whoever owns the directory to remove. Blocks on the
 * disk. Any thread.
 */
int nest_file_write_atomic(int dirfd, const char *path, const void *bytes, size_t n, mode_t mode,
	struct nest_err *err);

/* Writes bytes to an existing file in one write(2): for /proc, /sys, cgroup files. Any thread. */
int nest_file_write(int dirfd, const char *path, const void *bytes, size_t n, struct nest_err *err);

/*
 * Opens directory @path relative to @dirfd, "." for that itself, to be listed from its start; the caller
 * closes it. NULL with errno. Any thread.
 */
DIR *nest_file_open_dir(int dirfd, const char *path);

/* Makes @path and its missing parents with @mode; an existing directory is fine. Any thread. */
int nest_file_mkdirs(const char *path, mode_t mode, struct nest_err *err);

/*
 * Removes a file or a whole tree of any depth, never following a symbolic link and never entering a
 * mounted directory (-EBUSY; the rest is removed). A missing one is fine. Nobody else may be
 * filling the tree. Blocks on the disk. Any thread.
 */
int nest_file_remove_tree(int dirfd, const char *path, struct nest_err *err);

#endif
