/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_TARGET_H
#define NEST_RUNTIME_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/host.h"

struct nest_dispatch;
struct nest_err;
struct nest_frozen;
struct nest_funclog;
struct nest_function_spec;
struct nest_manifests;
struct nest_mount;
struct nest_services;
struct nest_tree;

/* One version of a function, deployed: its code, how its workers are started, and its dispatch. */

/*
 * Makes one for the function that runs as @uid and logs to @log, which it borrows; takes @spec, @tree
 * and @mount, on failure too; @mount is that of @tree, if it is an image, else NULL.
 */
int nest_target_new(struct nest_services *services, const struct nest_manifests *manifests,
	struct nest_funclog *log, uid_t uid, struct nest_function_spec *spec,
	struct nest_tree *tree, struct nest_mount *mount, struct nest_target **ret,
	struct nest_err *err);

/* Frees one without calls and workers, with its code's reference. NULL is fine. */
void nest_target_free(struct nest_target *target);

/* Where its calls go. */
struct nest_dispatch *nest_target_dispatch(const struct nest_target *target);

/* It is being removed: what its snapshot is or would be goes. */
void nest_target_end(struct nest_target *target);

/* What it has in the way of a snapshot; NULL: nothing, it is off. */
struct nest_frozen *nest_target_frozen(const struct nest_target *target);

/* Fills all of @ret but for live. */
void nest_target_stats(const struct nest_target *target, struct nest_target_stats *ret);

#endif
