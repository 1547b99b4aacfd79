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

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/image_owner.h"
#include "sandbox/mount.h"

#define INVENTORY "inventory.img"
#define SUFFIX ".img"
/* Links, and images with another owner. */
#define BYTES (4u << 20)
#define INODES 1100u
/* Less than a pipe takes without a reader. */
#define INVENTORY_MAX 32768

/* Safe: the mount is attached nowhere. */
int nest_image_gate_make(struct nest_image_gate *gate, struct nest_err *err)
{
	char target[64];
	int pipe[2];
	int r = nest_mount_new_tmpfs(BYTES, INODES, 0700,
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, &gate->dir, err);

	if (r < 0)
		return nest_err_wrap(err, "make a directory for images");
	r = nest_fd_pipe(0, pipe, err);
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

static int place_images(int dir, int images, const char *path, uid_t owner, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(images, ".");
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list the images");
	while (r == 0 && (entry = readdir(list))) {
		if (!is_image(entry->d_name))
			continue;
		r = owner != NEST_IMAGE_GATE_OWNER_STAYS && nest_image_owner_is_in(entry->d_name)
			    ? nest_image_owner_write(images, entry->d_name, owner, dir, err)
			    : link_image(dir, path, entry->d_name, err);
	}
	return r;
}

int nest_image_gate_pass(struct nest_image_gate *gate, int images, const char *path, uid_t owner,
	struct nest_err *err)
{
	nest_autofree char *inventory = NULL;
	size_t len = 0;
	int r = place_images(gate->dir, images, path, owner, err);

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
