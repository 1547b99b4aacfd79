/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_ROOTFS_H
#define NEST_SANDBOX_ROOTFS_H

#include <stdint.h>

struct nest_err;

/*
 * The root file system of cells. The spawner builds one template and makes it its own root; a cell
 * is cloned with a copy of that mount namespace, so all of it is there at birth, and only what
 * differs from cell to cell is mounted in it. The host's tree is not reachable from it.
 */
struct nest_rootfs {
	int host_mounts; /* the mount namespace that we came from: where code directories lie */
	int own_mounts;	 /* ours */
};

/*
 * Moves the caller, a single-threaded process, to a mount namespace of its own whose root is the
 * template: @root_paths (NULL-terminated; missing ones are left out, links recreated) and
 * @runtimes_dir as /runtime, read-only; @state_dir is masked. On failure the caller may be left
 * with a half-built one, and ends or goes on without cells' roots.
 */
int nest_rootfs_enter(const char *const *root_paths, const char *runtimes_dir,
	const char *state_dir, struct nest_rootfs *ret, struct nest_err *err);

/*
 * Makes a detached read-only mount of directory @code_fd, an fd of the namespace that we came
 * from. The caller owns *@ret_mount.
 */
int nest_rootfs_clone_code(
	const struct nest_rootfs *rootfs, int code_fd, int *ret_mount, struct nest_err *err);

/* In a new cell: mounts its /proc. */
int nest_rootfs_mount_proc(struct nest_err *err);

/* In a new cell: hides or locks what /proc tells of the host. */
int nest_rootfs_mask_proc(struct nest_err *err);

/* In a cell: attaches @code_mount at /function. */
int nest_rootfs_attach_code(int code_mount, struct nest_err *err);

/* In a new cell: mounts one tmpfs of @bytes (0: a small one) that is /tmp and /dev/shm. */
int nest_rootfs_mount_tmp(uint64_t bytes, struct nest_err *err);

/* In a cell: bounds that tmpfs to @bytes. */
int nest_rootfs_size_tmp(uint64_t bytes, struct nest_err *err);

#endif
