/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_GATHER_H
#define NEST_LOADER_GATHER_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "loader/loader.h"

struct nest_load;

/* The downloads of a loader, and the loads that wait for them. Loop thread only. */
struct nest_gather;

/* Copies what it needs of @config; the caller owns @ret. */
int nest_gather_new(struct nest_loader *loader, uv_loop_t *loop,
	const struct nest_loader_config *config, struct nest_gather **ret, struct nest_err *err);

/* As nest_loader_load(). */
int nest_gather_load(struct nest_gather *gather, const struct nest_reference *references, size_t n,
	nest_loader_cb *cb, void *arg, struct nest_err *err);

/* As nest_loader_unpack(). */
int nest_gather_unpack(struct nest_gather *gather, struct nest_tree *tree, nest_loader_cb *cb,
	void *arg, struct nest_err *err);

/* The load that will make @hex as soon as its first bytes have come, or NULL. */
struct nest_load *nest_gather_find(struct nest_gather *gather, const char *hex);

/* A load's work on the pool has ended: lets go of its download, if it has one. */
void nest_gather_release(struct nest_load *load);

/* Lets a load read its download once more from the beginning: 0, or -errno. */
int nest_gather_rewind(struct nest_load *load);

/* The loader closes: fails what waits, wakes those on the pool that do. */
void nest_gather_cancel(struct nest_gather *gather);

/* Once no load is left: closes, frees, then calls @cb (may be NULL), maybe before returning. */
void nest_gather_close(struct nest_gather *gather, void (*cb)(void *arg), void *arg);

#endif
