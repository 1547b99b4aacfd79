/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_MOUNT_H
#define NEST_SANDBOX_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

struct nest_err;

/* Mounts by descriptor: a detached mount is owned by its fd, and gone with it. */

/*
 * Clones the mount of @path relative to @dir ("" for @dir itself), with those below it when
 * @recursive. The caller owns the detached *@ret.
 */
int nest_mount_clone(int dir, const char *path, bool recursive, int *ret, struct nest_err *err);

/* Sets MOUNT_ATTR_* flags on detached mount @mount, and on those below it when @recursive. */
int nest_mount_restrict(int mount, uint64_t attributes, bool recursive, struct nest_err *err);

/* Attaches detached mount @mount at @path relative to @dir, following no link at its end. */
int nest_mount_attach(int mount, int dir, const char *path, struct nest_err *err);

/* Binds @from over @to, both relative to @dir, with @attributes. */
int nest_mount_bind(
	int dir, const char *from, const char *to, uint64_t attributes, struct nest_err *err);

/*
 * Makes a detached tmpfs of @bytes and at most @inodes, with root mode @mode. The caller owns *@ret.
 */
int nest_mount_new_tmpfs(uint64_t bytes, uint64_t inodes, unsigned mode, uint64_t attributes,
	int *ret, struct nest_err *err);

/* Changes the bounds of the tmpfs mounted at @path. */
int nest_mount_size_tmpfs(const char *path, uint64_t bytes, uint64_t inodes, struct nest_err *err);

#endif
