/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_LOAD_H
#define NEST_LOADER_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>

#include <uv.h>

#include "base/err.h"
#include "loader/cache.h"
#include "loader/digest.h"
#include "loader/draft.h"
#include "loader/loader.h"

/*
 * One load that somebody asked for. The loop thread owns it, and lends it to one thread of the pool
 * while its work is queued; only @cancel is touched from both.
 */
struct nest_load {
	uv_work_t work;
	struct nest_loader *loader;
	struct nest_cache *cache;
	nest_loader_cb *cb;
	void *arg;
	char *path;			   /* the directory to import; NULL for an archive */
	char archive[NEST_CACHE_NAME_CAP]; /* the archive's file in staging; "" for a directory */
	char hex[NEST_DIGEST_HEX_LEN];
	struct nest_draft_limits limits;
	atomic_bool cancel;
	bool making;  /* the pool makes the tree; hex is nobody else's to write any more */
	bool retried; /* this is the second attempt, after a full disk */
	int rc;
	struct nest_err err;
	struct nest_draft_totals totals;
	struct nest_tree *tree;
	struct nest_load *joined;      /* others that wait for the same digest */
	struct nest_load *prev, *next; /* in one of the loader's lists, or in another's joined */
};

/* A load without a source, which the caller owns; NULL for lack of memory. */
struct nest_load *nest_loader_new_load(struct nest_loader *loader, struct nest_err *err);

/* Frees; NULL is fine. */
void nest_load_free(struct nest_load *load);

/*
 * Takes the digest of the directory into hex, or sets rc and err. Blocks on the disk. Any thread.
 */
void nest_load_take_digest(struct nest_load *load);

/*
 * Makes and publishes the tree whose digest is in hex, and removes its archive unless the disk is
 * full and this was the first attempt; sets rc and err, or totals. Blocks on the disk. Any thread.
 */
void nest_load_make(struct nest_load *load);

/*
 * Hands a load whose archive and hex are set to the loader, which answers by @load's cb. Takes
 * @load.
 */
void nest_loader_start(struct nest_load *load);

/* For loader/upload.c: an upload was opened, or finished or aborted; the loader outlives it. */
int nest_loader_begin_upload(struct nest_loader *loader, struct nest_err *err);
void nest_loader_end_upload(struct nest_loader *loader);

/* -ECANCELED once the loader is being closed, or 0. */
int nest_loader_check_open(const struct nest_loader *loader, struct nest_err *err);

/* Makes room on a full disk at once. Whether there was anything to remove. Blocks on the disk. */
bool nest_loader_make_room(struct nest_loader *loader);

/* Removes what was discarded, soon. */
void nest_loader_sweep(struct nest_loader *loader);

#endif
