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
#include "loader/reference.h"

struct nest_fetch;
struct nest_fetch_stream;
struct nest_gather;

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
	char *path; /* the directory, or file, to import; NULL for an archive */
	char archive[NEST_CACHE_NAME_CAP]; /* the archive's file in staging; "" for a directory */
	char hex[NEST_DIGEST_HEX_LEN];
	struct nest_draft_limits limits;
	atomic_bool cancel;
	const char *source; /* of the archive: its URL, or "admin"; outlives the load */
	const char *const *image_sources; /* the loader's */
	bool zstd_images;		  /* likewise */
	/* Of loads by reference (loader/gather.c): */
	struct nest_gather *gather;
	char *shown;   /* for messages: the reference without what may be secret */
	char *url;     /* or path, as given; NULL where only a digest was */
	uint64_t size; /* of the artifact, that was promised; 0: none was */
	enum nest_reference_format format; /* that was promised */
	bool sealed;			   /* it may go without a digest */
	bool verified;			   /* hex came with the reference, and must hold */
	struct nest_fetch *fetch;	   /* until it was read */
	struct nest_fetch_stream *stream;  /* the pool's, while it reads the download */
	int fd;				   /* of the archive's file, that the download writes */
	bool begun;			   /* the first bytes are there */
	bool complete;			   /* all are, or never will be */
	bool reading;			   /* the pool does */
	bool streams;			   /* it counts as one that waits for the network */
	bool in_layers; /* it is to be merged with others: no image may be kept */
	struct nest_tree *
		*layers; /* to be merged, lowest first, or one to be unpacked; referenced */
	size_t n_layers;

	bool making;  /* the tree is made, or will be; hex is nobody else's to write any more */
	bool placed;  /* to be handed out before it is durable: it can be had again */
	bool retried; /* this is the second attempt, after a full disk */
	int rc;
	struct nest_err err;
	struct nest_draft_totals totals;
	uint64_t make_us; /* what making took, without waiting for the network */
	struct nest_tree *tree;
	struct nest_load *joined;      /* others that wait for the same digest */
	struct nest_load *prev, *next; /* in one of the loader's lists, or in another's joined */
	struct nest_load *gather_prev, *gather_next; /* in one of the gather's, at the same time */
};

/* A load without a source, which the caller owns; NULL for lack of memory. */
struct nest_load *nest_loader_new_load(struct nest_loader *loader, struct nest_err *err);

/* Frees; NULL is fine. */
void nest_load_free(struct nest_load *load);

/*
 * Takes the digest of the directory into hex; of a file, which is copied to be the archive; or of the
 * download. Or sets rc and err. Blocks on the disk and the network. Any thread.
 */
void nest_load_take_digest(struct nest_load *load);

/*
 * Makes and publishes the tree whose digest is in hex; sets rc and err, or totals. Its archive is left
 * to be discarded: to free a large file's pages takes long, and who waits for the tree needn't wait for
 * that. Blocks on the disk and the network. Any thread.
 */
void nest_load_make(struct nest_load *load);

/*
 * Hands a load whose archive and hex are set to the loader, which answers by @load's cb. Takes
 * @load.
 */
void nest_loader_start(struct nest_load *load);

/* For loader/gather.c: queues a load on the pool, to take its digest or to make its tree. */
void nest_loader_queue_digest(struct nest_load *load);
void nest_loader_queue_make(struct nest_load *load);

/* Ends @load, whose err says why, and all that joined it. Takes @load. */
void nest_loader_fail(struct nest_load *load, int code);

/* Whether @hex is in the cache, or being made or fetched. */
bool nest_loader_has(struct nest_loader *loader, const char *hex);

/* The counters that nest_loader_stats() copies. */
struct nest_loader_stats *nest_loader_counters(struct nest_loader *loader);

/* For loader/upload.c: an upload was opened, or finished or aborted; the loader outlives it. */
int nest_loader_begin_upload(struct nest_loader *loader, struct nest_err *err);
void nest_loader_end_upload(struct nest_loader *loader);

/* What the loader's other files share. */
struct nest_cache *nest_loader_cache(struct nest_loader *loader);
uv_loop_t *nest_loader_loop(struct nest_loader *loader);

/* The tree @digest ("sha256:..."), borrowed. 1: not in the cache; -EINVAL: that is no digest. */
int nest_loader_look(struct nest_loader *loader, const char *digest, struct nest_tree **ret,
	struct nest_err *err);

/* -ECANCELED once the loader is being closed, or 0. */
int nest_loader_check_open(const struct nest_loader *loader, struct nest_err *err);

/* Makes room on a full disk at once. Whether there was anything to remove. Blocks on the disk. */
bool nest_loader_make_room(struct nest_loader *loader);

/* Removes what was discarded, soon. */
void nest_loader_sweep(struct nest_loader *loader);

#endif
