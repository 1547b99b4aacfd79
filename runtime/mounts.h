/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_MOUNTS_H
#define NEST_RUNTIME_MOUNTS_H

struct nest_err;
struct nest_services;
struct nest_tree;

/*
 * One code image, mounted for all versions of functions that have it: it connects the loader, which
 * keeps the file, with the sandbox, which mounts it.
 */
struct nest_mount;

/*
 * Mounts the image of @tree (borrowed), unless it is mounted already. @cb is called once, never
 * before this returns, with a reference that it then owns, or NULL and why.
 */
int nest_mounts_get(struct nest_services *services, struct nest_tree *tree,
	void (*cb)(void *arg, struct nest_mount *mount, const struct nest_err *err), void *arg,
	struct nest_err *err);

/* Drops a reference; with the last the image is unmounted for cells to come. NULL is fine. */
void nest_mounts_put(struct nest_mount *mount);

/* The image's file, as nest_cell_spec.code_fd takes it. Lives as long as @mount. */
int nest_mounts_fd(const struct nest_mount *mount);

#endif
