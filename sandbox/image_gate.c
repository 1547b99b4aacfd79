/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_gate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/image_owner.h"
#include "sandbox/mount.h"

#define INVENTORY "inventory.img"
#define SUFFIX ".img"
/* Names with a NUL each. */
#define OTHERS "others"
#define OTHERS_MAX (1u << 20)
/* Links, and images with another owner. */
#define BYTES (4u << 20)
#define INODES 1100u
/* Less than a pipe takes without a reader. */
#define INVENTORY_MAX 32768

/* Of a worker of one process with some threads, the first that was started in its cell. */
static const char *const usual[] = { "core-1001.img", "core-1002.img", "core-1003.img",
	"fdinfo-2.img", "files.img", "fs-1001.img", "ids-1001.img", "mm-1001.img",
	"pagemap-1001.img", "pages-1.img", "pipes-data.img", "pstree.img", "seccomp.img",
	"timens-0.img" };

static bool is_usual(const char *name)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(usual); i++)
		if (strcmp(usual[i], name) == 0)
			return true;
	return false;
}

static bool is_image(const char *name)
{
	size_t n = strlen(name), suffix = strlen(SUFFIX);

	return n > suffix && strcmp(name + n - suffix, SUFFIX) == 0 && strcmp(name, INVENTORY) != 0;
}

static int link_image(int dir, const char *path, const char *name, struct nest_err *err)
{
	char target[PATH_MAX];

	snprintf(target, sizeof(target), "%s/%s", path, name);
	return symlinkat(target, dir, name) < 0 ? nest_err_set(err, -errno, "link '%s'", name) : 0;
}

static int make_pipe(struct nest_image_gate *gate, struct nest_err *err)
{
	char target[64];
	int pipe[2];
	int r = nest_fd_pipe(0, pipe, err);

	if (r < 0)
		return r;
	gate->from = pipe[0];
	gate->to = pipe[1];
	/* no FIFO: that would lose what is written before CRIU opens it */
	snprintf(target, sizeof(target), "/proc/%d/fd/%d", getpid(), gate->from);
	return symlinkat(target, gate->dir, INVENTORY) < 0
		       ? nest_err_set(err, -errno, "link the inventory")
		       : 0;
}

/* Safe: the mount is attached nowhere. */
int nest_image_gate_make(struct nest_image_gate *gate, const char *path, struct nest_err *err)
{
	int r = nest_mount_new_tmpfs(BYTES, INODES, 0700,
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, &gate->dir, err);

	if (r < 0)
		return nest_err_wrap(err, "make a directory for images");
	gate->path = path;
	for (size_t i = 0; r == 0 && i < NEST_ARRAY_SIZE(usual); i++)
		r = link_image(gate->dir, path, usual[i], err);
	return r < 0 ? r : make_pipe(gate, err);
}

/* Has the restorer find image @name of @images, which it knows as directory @path. */
static int place_image(const struct nest_image_gate *gate, int images, const char *name,
	const char *path, uid_t owner, struct nest_err *err)
{
	bool another = owner != NEST_IMAGE_GATE_OWNER_STAYS && nest_image_owner_is_in(name);

	if (is_usual(name)) {
		if (!another && strcmp(path, gate->path) == 0)
			return 0;
		unlinkat(gate->dir, name, 0);
	}
	return another ? nest_image_owner_write(images, name, owner, gate->dir, err)
		       : link_image(gate->dir, path, name, err);
}

int nest_image_gate_note(int images, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(images, ".");
	struct nest_buf others = NEST_BUF_INIT;
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list the images");
	while (r == 0 && (entry = readdir(list)))
		if (is_image(entry->d_name) && !is_usual(entry->d_name))
			r = nest_buf_append(&others, entry->d_name, strlen(entry->d_name) + 1);
	r = r < 0 ? nest_err_set(err, r, "list the images")
		  : nest_file_write_atomic(
			    images, OTHERS, nest_buf_bytes(&others), others.len, 0600, err);
	nest_buf_done(&others);
	return r;
}

/* 1: they are not noted. */
static int place_others(const struct nest_image_gate *gate, int images, struct nest_err *err)
{
	nest_autofree char *others = NULL;
	size_t len = 0;
	int r = nest_file_read(images, OTHERS, OTHERS_MAX, &others, &len, NULL);

	if (r == -ENOENT)
		return 1;
	if (r < 0)
		return nest_err_set(err, r, "read '" OTHERS "'");
	if (len > 0 && others[len - 1] != '\0')
		return nest_err_say(err, -EBADMSG, "'" OTHERS "' is malformed");
	for (size_t at = 0; r == 0 && at < len; at += strlen(others + at) + 1)
		r = link_image(gate->dir, gate->path, others + at, err);
	return r;
}

static int place_images(const struct nest_image_gate *gate, int images, const char *path,
	uid_t owner, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(images, ".");
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list the images");
	while (r == 0 && (entry = readdir(list)))
		if (is_image(entry->d_name))
			r = place_image(gate, images, entry->d_name, path, owner, err);
	return r;
}

int nest_image_gate_pass(struct nest_image_gate *gate, int images, const char *path, uid_t owner,
	struct nest_err *err)
{
	nest_autofree char *inventory = NULL;
	size_t len = 0;
	bool expected = owner == NEST_IMAGE_GATE_OWNER_STAYS && strcmp(path, gate->path) == 0;
	int r = expected ? place_others(gate, images, err) : 1;

	if (r > 0)
		r = place_images(gate, images, path, owner, err);

	/* CRIU would leave a file with its statistics there */
	if (r == 0)
		r = nest_mount_restrict(gate->dir, MOUNT_ATTR_RDONLY, false, err);
	if (r == 0)
		r = nest_file_read(images, INVENTORY, INVENTORY_MAX, &inventory, &len, err);
	if (r == 0)
		r = nest_fd_write_all(gate->to, inventory, len, err);
	if (r < 0)
		return nest_err_wrap(err, "give the restorer its images");
	close(nest_take_fd(gate->to));
	return 0;
}

void nest_image_gate_leave(struct nest_image_gate *gate)
{
	if (gate->from >= 0)
		close(nest_take_fd(gate->from));
	if (gate->to >= 0)
		close(nest_take_fd(gate->to));
}
