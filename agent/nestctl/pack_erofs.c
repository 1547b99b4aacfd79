/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An EROFS image by mkfs.erofs. It takes modes from the disk, so what is packed is copied first,
 * with those that a tar would have: the image doesn't hang on anybody's umask, and functions, which
 * run as users of their own, can read all of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/nestctl/pack_impl.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"

#define UUID "6e657374-6c65-7400-8000-000000000000" /* the same in every image */

extern char **environ;

static int write_bytes(void *arg, const void *bytes, size_t n, struct nest_err *err)
{
	const int *fd = arg;

	return nest_fd_write_all(*fd, bytes, n, err);
}

static int copy_file(
	struct nest_pack *pack, const FTSENT *ent, const char *name, int root, struct nest_err *err)
{
	mode_t mode = ent->fts_statp->st_mode & 0100 ? 0755 : 0644;
	nest_autoclose int fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || fchmod(fd, mode) < 0)
		return nest_err_set(err, -errno, "copy '%s'", ent->fts_path);
	return nest_pack_read(pack, ent, write_bytes, &fd, err);
}

static int copy_entry(struct nest_pack *pack, const FTSENT *ent, const char *name, void *arg,
	struct nest_err *err)
{
	const int *root = arg;
	char target[PATH_MAX];
	ssize_t n;

	if (S_ISREG(ent->fts_statp->st_mode))
		return copy_file(pack, ent, name, *root, err);
	if (S_ISDIR(ent->fts_statp->st_mode))
		return mkdirat(*root, name, 0700) < 0 || fchmodat(*root, name, 0755, 0) < 0
			       ? nest_err_set(err, -errno, "copy '%s'", ent->fts_path)
			       : 0;
	n = readlink(ent->fts_accpath, target, sizeof(target) - 1);
	if (n < 0)
		return nest_err_set(err, -errno, "read link '%s'", ent->fts_path);
	target[n] = '\0';
	return symlinkat(target, *root, name) < 0
		       ? nest_err_set(err, -errno, "copy '%s'", ent->fts_path)
		       : 0;
}

/* Runs mkfs.erofs, which says what it has to say on standard error. */
static int make_image(const char *image, const char *dir, struct nest_err *err)
{
	char time[32];
	/*
	 * Clusters of 16 KB pack a third better than those of a page, and still are read at once.
	 * The ends of files, of which most of a code tree consists, beside their inodes (since
	 * Linux 5.17) save another tenth, and are there when the inode is.
	 */
	const char *argv[] = { "mkfs.erofs", "-zlz4hc", "-C16384", "-Eztailpacking", "-x-1",
		"-U" UUID, time, "--all-root", "--quiet", image, dir, NULL };
	posix_spawn_file_actions_t actions;
	int status = -1;
	pid_t pid;
	int r;

	snprintf(time, sizeof(time), "-T%d", PACK_TIME);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	r = -posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r == -ENOENT)
		return nest_err_say(err, -EOPNOTSUPP,
			"mkfs.erofs is not installed: it comes in the package erofs-utils");
	if (r < 0)
		return nest_err_set(err, r, "run mkfs.erofs");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return nest_err_set(err, -errno, "wait for mkfs.erofs");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return nest_err_say(err, -EIO, "mkfs.erofs failed");
	return 0;
}

int nest_pack_write_erofs(struct nest_pack *pack, struct nest_err *err)
{
	const char *parent = getenv("TMPDIR");
	char dir[PATH_MAX];
	nest_autoclose int root = -1;
	int r;

	snprintf(dir, sizeof(dir), "%s/nestctl-XXXXXX", parent && *parent ? parent : "/tmp");
	if (!mkdtemp(dir))
		return nest_err_set(err, -errno, "make directory '%s'", dir);
	root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || fchmod(root, 0755) < 0)
		r = nest_err_set(err, -errno, "open '%s'", dir);
	else
		r = nest_pack_each(pack, copy_entry, &root, err);
	if (r == 0)
		r = make_image(pack->result->path, dir, err);
	nest_file_remove_tree(AT_FDCWD, dir, NULL);
	return r;
}
