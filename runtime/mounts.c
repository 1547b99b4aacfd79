/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mounts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/loader.h"
#include "runtime/deadline.h"
#include "runtime/services.h"
#include "sandbox/sandbox.h"

/* Somebody who asked for it and has no answer yet; counted as a reference. */
struct waiter {
	struct nest_mount *mount;
	struct nest_deadline later; /* set when it was mounted at the asking */
	void (*cb)(void *arg, struct nest_mount *mount, const struct nest_err *err);
	void *arg;
	struct waiter *prev, *next;
};

struct nest_mount {
	struct nest_services *services;
	struct nest_tree *tree; /* referenced: what is mounted isn't evicted */
	struct nest_image *image;
	int file;
	unsigned refs;
	bool mounted;
	struct waiter *waiters;
	struct nest_mount *prev, *next;
};

void nest_mounts_put(struct nest_mount *mount)
{
	if (!mount || --mount->refs > 0)
		return;
	DL_DELETE(mount->services->mounts, mount);
	nest_image_unmount(mount->image);
	nest_cleanup_close(&mount->file);
	nest_tree_unref(mount->tree);
	free(mount);
}

int nest_mounts_fd(const struct nest_mount *mount)
{
	return mount->file;
}

/* Hands @waiter's reference over, or drops it. */
static void answer(struct waiter *waiter, const struct nest_err *err)
{
	struct nest_mount *mount = waiter->mount;
	void (*cb)(void *, struct nest_mount *, const struct nest_err *) = waiter->cb;
	void *arg = waiter->arg;

	DL_DELETE(mount->waiters, waiter);
	nest_deadlines_release(mount->services->deadlines, 1);
	free(waiter);
	cb(arg, err ? NULL : mount, err);
	if (err)
		nest_mounts_put(mount);
}

static void on_mounted(void *arg, const struct nest_err *err)
{
	struct nest_mount *mount = arg;
	struct nest_err why = NEST_ERR_INIT;

	mount->refs++; /* the last waiter's answer must not free it here */
	mount->mounted = err == NULL;
	if (err) {
		why = *err;
		nest_err_wrap(&why, "mount code image %s", nest_tree_digest(mount->tree));
		mount->image = NULL;
	}
	while (mount->waiters)
		answer(mount->waiters, err ? &why : NULL);
	nest_mounts_put(mount);
}

static void on_later(void *arg)
{
	answer(arg, NULL);
}

static struct nest_mount *find(struct nest_services *services, const struct nest_tree *tree)
{
	struct nest_mount *mount;

	DL_FOREACH(services->mounts, mount)
		if (strcmp(nest_tree_digest(mount->tree), nest_tree_digest(tree)) == 0)
			return mount;
	return NULL;
}

/* A mount that has begun, with no reference yet. */
static int begin(struct nest_services *services, struct nest_tree *tree, struct nest_mount **ret,
	struct nest_err *err)
{
	struct nest_mount *mount = calloc(1, sizeof(*mount));
	int r;

	if (!mount)
		return nest_err_set(err, -ENOMEM, "mount a code image");
	mount->services = services;
	r = nest_tree_open_image(tree, &mount->file, err);
	if (r == 0) {
		r = nest_image_mount(
			services->sandbox, mount->file, on_mounted, mount, &mount->image, err);
		if (r < 0)
			nest_cleanup_close(&mount->file);
	}
	if (r < 0) {
		free(mount);
		return r;
	}
	mount->tree = nest_tree_ref(tree);
	DL_APPEND(services->mounts, mount);
	*ret = mount;
	return 0;
}

int nest_mounts_get(struct nest_services *services, struct nest_tree *tree,
	void (*cb)(void *arg, struct nest_mount *mount, const struct nest_err *err), void *arg,
	struct nest_err *err)
{
	struct nest_mount *mount = find(services, tree);
	struct waiter *waiter = calloc(1, sizeof(*waiter));
	int r = 0;

	if (!waiter || nest_deadlines_reserve(services->deadlines, 1) < 0) {
		free(waiter);
		return nest_err_set(err, -ENOMEM, "mount a code image");
	}
	if (!mount)
		r = begin(services, tree, &mount, err);
	if (r < 0) {
		nest_deadlines_release(services->deadlines, 1);
		free(waiter);
		return r;
	}
	waiter->later.cb = on_later;
	waiter->later.arg = waiter;
	if (mount->mounted)
		nest_deadlines_set(services->deadlines, &waiter->later, 0);
	waiter->mount = mount;
	waiter->cb = cb;
	waiter->arg = arg;
	mount->refs++;
	DL_APPEND(mount->waiters, waiter);
	return 0;
}
