/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_LOADER_H
#define NEST_LOADER_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "loader/fetcher.h"

struct nest_err;
struct nest_reference;

/*
 * The content-addressed cache of code trees, and what fills it. A *tree* is one read-only
 * directory, named by the SHA-256 of what it was made from; while somebody holds a reference it
 * stays. Loop thread only; the work itself happens on libuv's thread pool.
 */
struct nest_loader;
struct nest_tree;

#define NEST_TREE_DIGEST_LEN 72 /* "sha256:" + 64 hex digits + NUL */

struct nest_loader_config {
	const char *dir;    /* absolute, exists, owned by us, 0700 */
	uint64_t max_bytes; /* of trees on disk; least recently used unreferenced ones go first */
	uint64_t max_tree_bytes;	  /* of one tree, unpacked */
	uint64_t max_tree_entries;	  /* files, directories and links in one tree */
	struct nest_fetcher_config fetch; /* how code is downloaded; copied */
	bool allow_unverified;		  /* whether code may come from a server without a sha256 */
	/*
	 * Whose EROFS images are kept, to be mounted: NULL-terminated prefixes of URLs, "admin" for
	 * uploads, "*" for all. NULL: nobody's. Those of others, and layers, are unpacked. Copied.
	 */
	const char *const *image_sources;
	/*
	 * Whether images may be compressed with zstd (nest_sandbox_zstd_images()). Then an archive
	 * of these sources, if it is of small zstd frames as nestctl makes them, becomes an image
	 * of the same frames, instead of a directory of what is in them.
	 */
	bool zstd_images;
};

/* Opens the cache and removes what a crash left half-made in it. Blocks on the disk. */
int nest_loader_open(uv_loop_t *loop, const struct nest_loader_config *config,
	struct nest_loader **ret, struct nest_err *err);

/*
 * Abandons what is under way (its callbacks get -ECANCELED), then calls @cb, never before
 * returning, and frees. Uploads that are open hold that up until they are finished or aborted
 * (their writes say -ECANCELED). Trees in use may outlive the loader.
 */
void nest_loader_close(struct nest_loader *loader, void (*cb)(void *arg), void *arg);

/*
 * The result of a load: @tree carries a reference that the callback now owns, or is NULL and @err
 * says why. Called once, never before the call that asked returns.
 */
typedef void nest_loader_cb(void *arg, struct nest_tree *tree, const struct nest_err *err);

/*
 * Copies a local directory into the cache; its digest covers names, modes, link targets and
 * bytes, so the same content is stored once whatever its path. Links that leave the directory,
 * devices, fifos and sockets are errors that name the entry. @path is copied.
 */
int nest_loader_import_dir(struct nest_loader *loader, const char *path, nest_loader_cb *cb,
	void *arg, struct nest_err *err);

/*
 * Makes one tree of @n references (loader/reference.h), each of them an archive, an image or a local
 * directory: an ordered list of layers, of which later ones win. What the cache has is not fetched
 * again, and what is being fetched not twice. The tree of one reference has its artifact's digest,
 * that of several one made of theirs. Copies @references.
 */
int nest_loader_load(struct nest_loader *loader, const struct nest_reference *references, size_t n,
	nest_loader_cb *cb, void *arg, struct nest_err *err);

/*
 * Makes a directory of the image @tree (borrowed), which can't be mounted. It is another tree, with a
 * digest made of the image's.
 */
int nest_loader_unpack(struct nest_loader *loader, struct nest_tree *tree, nest_loader_cb *cb,
	void *arg, struct nest_err *err);

/*
 * An archive that arrives in pieces: written to a staging file while its SHA-256 is taken, then
 * unpacked and published. Formats by content: tar plain or compressed with gzip, zstd or lz4; zip;
 * EROFS.
 */
struct nest_upload;

/* Starts an upload of at most @max_bytes. */
int nest_upload_open(struct nest_loader *loader, uint64_t max_bytes, struct nest_upload **ret,
	struct nest_err *err);

/*
 * Adds bytes (copied). -EFBIG above the limit; after an error only abort is left. Blocks on the
 * disk briefly.
 */
int nest_upload_write(
	struct nest_upload *upload, const void *bytes, size_t n, struct nest_err *err);

/* No more bytes: unpacks and publishes; @cb as above. Takes @upload. */
void nest_upload_finish(struct nest_upload *upload, nest_loader_cb *cb, void *arg);

/* Gives up: the staging file is removed. Takes @upload. */
void nest_upload_abort(struct nest_upload *upload);

/*
 * A tree by digest ("sha256:..."), with a reference for the caller. 1: not in the cache.
 */
int nest_loader_find(struct nest_loader *loader, const char *digest, struct nest_tree **ret,
	struct nest_err *err);

/* Takes another reference, and returns @tree. */
struct nest_tree *nest_tree_ref(struct nest_tree *tree);

/* Drops one; from the last on the tree may be evicted. NULL is fine. */
void nest_tree_unref(struct nest_tree *tree);

/* "sha256:...". Lives as long as @tree. */
const char *nest_tree_digest(const struct nest_tree *tree);

/* Bytes of all its files. */
uint64_t nest_tree_bytes(const struct nest_tree *tree);

/* Opens the tree's directory (O_PATH|O_DIRECTORY|O_CLOEXEC); the caller owns the fd. */
int nest_tree_open(const struct nest_tree *tree, int *ret_fd, struct nest_err *err);

enum nest_tree_kind {
	NEST_TREE_DIRECTORY, /* nest_tree_open() */
	NEST_TREE_IMAGE,     /* nest_tree_open_image(): an EROFS image that must be mounted */
};
/* What @tree is, and so how it becomes somebody's code. */
enum nest_tree_kind nest_tree_kind(const struct nest_tree *tree);

/* Opens the image's file (O_RDONLY|O_CLOEXEC); the caller owns the fd. */
int nest_tree_open_image(const struct nest_tree *tree, int *ret_fd, struct nest_err *err);

/* Whether anybody has a reference. */
bool nest_tree_in_use(const struct nest_tree *tree);

/* ---- the cache as a whole ---- */

/* Calls @cb for each tree until it returns false; it may not load or remove any. */
void nest_loader_each(
	struct nest_loader *loader, bool (*cb)(void *arg, const struct nest_tree *tree), void *arg);

/*
 * Takes the tree @digest out of the cache. 1: it isn't there; -EBUSY: it is in use; -EINVAL: no
 * digest.
 */
int nest_loader_remove(struct nest_loader *loader, const char *digest, struct nest_err *err);

struct nest_loader_verified {
	uint64_t trees;	   /* looked at */
	uint64_t recorded; /* of these, read for the first time: compared only from now on */
	uint64_t removed;  /* damaged, and nobody used them */
	uint64_t in_use;   /* damaged, and still there because somebody does */
};

/*
 * Reads all trees again, one after the other. An image or an imported directory must have the
 * digest that it is called by; what came out of an archive must have that which was taken in the
 * background after it was made, or else is taken now. @damaged is called for each that hasn't,
 * @done once, last, never before this returns, with NULL or why it ended early.
 */
int nest_loader_verify(struct nest_loader *loader,
	void (*damaged)(void *arg, const struct nest_tree *tree),
	void (*done)(
		void *arg, const struct nest_loader_verified *totals, const struct nest_err *err),
	void *arg, struct nest_err *err);

/* Why a load failed, as metrics sort it. */
enum nest_loader_cause {
	NEST_LOADER_CAUSE_NETWORK, /* no connection, or it broke, or took too long */
	NEST_LOADER_CAUSE_SERVER,  /* an answer that isn't the file, or of another file */
	NEST_LOADER_CAUSE_DIGEST,
	NEST_LOADER_CAUSE_ARCHIVE, /* damaged, or not to be unpacked */
	NEST_LOADER_CAUSE_LIMIT,
	NEST_LOADER_CAUSE_DISK,
	NEST_LOADER_CAUSE_OTHER,
	NEST_LOADER_CAUSES
};

/* "network" and so on. Any thread. */
const char *nest_loader_cause_name(enum nest_loader_cause cause);

struct nest_loader_stats {
	uint64_t bytes; /* of disk, in whole blocks */
	uint64_t trees;
	uint64_t hits_total; /* the tree was there already */
	uint64_t misses_total;
	uint64_t failures_total;
	uint64_t evictions_total;
	uint64_t failures_by_cause[NEST_LOADER_CAUSES];
	uint64_t fetched_bytes_total; /* from servers, failed attempts included */
	uint64_t fetch_us_total;      /* from the first request to the last byte */
	uint64_t fetch_retries_total;
	uint64_t made_bytes_total; /* of the files in trees that were made */
	uint64_t make_us_total;	   /* decoding, unpacking, publishing; without waiting for bytes */
};

/* How full the cache is, and what it did since it was opened. */
void nest_loader_stats(const struct nest_loader *loader, struct nest_loader_stats *ret);

#endif
