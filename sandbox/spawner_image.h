/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_IMAGE_H
#define NEST_SANDBOX_SPAWNER_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;
struct nest_spawner;
struct nest_spawner_image;

/* The spawner's side of file-system images (docs/SECURITY.md, "Images"). */
struct nest_spawner_images {
	bool enabled;
	bool zstd;	   /* the kernel reads images that are compressed so */
	char missing[256]; /* why not, or "" */
	int dir;	   /* the state directory: nameless copies are made in it */
	int mounts;	   /* the namespace that they are mounted in, which no process stays in */
	struct nest_spawner_image *list;
	unsigned count;
};

/* Opens @state_dir, by the path that it has in the namespace we came from. */
int nest_spawner_image_open_dir(
	struct nest_spawner_images *images, const char *state_dir, struct nest_err *err);

/*
 * Mounts an empty image that it makes in @dir, to see whether this machine can, and lets go of it.
 * The image says that it is compressed by @algorithms (base/erofs.h). Needs /proc and /dev of the
 * host. Blocks on the disk.
 */
int nest_spawner_image_try(int dir, unsigned algorithms, struct nest_err *err);

/*
 * Makes the namespace for the mounts and returns to the one of descriptor @own_mounts: with
 * -ENOTRECOVERABLE there was no way back. @proc is the host's /proc.
 */
int nest_spawner_image_enable(
	struct nest_spawner_images *images, int proc, int own_mounts, struct nest_err *err);

/*
 * Begins to mount the image in @file (borrowed), which the agent calls @id, in a child. The agent
 * is told of the end, unless this fails.
 */
int nest_spawner_image_mount(
	struct nest_spawner *spawner, uint64_t id, int file, struct nest_err *err);

/* Unmounts it; cells that have it keep it. -ENOTRECOVERABLE as above. */
int nest_spawner_image_unmount(struct nest_spawner *spawner, uint64_t id, struct nest_err *err);

/* The child that mounts @id has said how it went. */
void nest_spawner_image_hear(struct nest_spawner *spawner, uint64_t id);

/* Whether @file, of the agent, is mounted. */
bool nest_spawner_image_is_mounted(const struct nest_spawner *spawner, int file);

/*
 * Makes a detached read-only mount of the image that was mounted from @file; the caller owns
 * *@ret_mount. -ENOTRECOVERABLE as above.
 */
int nest_spawner_image_clone(
	const struct nest_spawner *spawner, int file, int *ret_mount, struct nest_err *err);

/* Ends the children; the mounts go with the namespace. Blocks until they have exited. */
void nest_spawner_image_close(struct nest_spawner *spawner);

/*
 * Makes *@ret a file with the bytes of @file that only root could still write to, in directory @dir:
 * @file itself where it lies on the same file system, and fs-verity has sealed it, or it is root's or
 * can be made so, read-only, and nobody has it open for writing; else a nameless copy. @agent: the
 * user that it must be safe from. @watcher, a process, is sent NEST_SPAWNER_ENDING if @file, as long as
 * any descriptor of it is open that was made of this one, is about to be opened for writing after all; 0:
 * none, and so it is copied. Blocks on the disk.
 */
int nest_spawner_image_freeze(
	int dir, uid_t agent, int file, pid_t watcher, int *ret, struct nest_err *err);

/*
 * Makes a detached read-only mount, without devices and set-uid programs, of the image in @file:
 * straight from it (since Linux 6.12), or when @by_loop through a loop device that goes with the
 * mount. Needs /proc and /dev of the host.
 */
int nest_spawner_image_mount_file(int file, bool by_loop, int *ret_mount, struct nest_err *err);

#endif
