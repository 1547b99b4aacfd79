/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SNAPSHOT_STORE_H
#define NEST_SANDBOX_SNAPSHOT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/criu_rpc.h"
#include "sandbox/snapshot.h"

struct nest_err;

/*
 * Where snapshots lie: <state>/snapshots/<key>/, root's alone. A snapshot is made in a directory
 * "tmp-*", gets a table of contents with every file's digest, is synced, and then gets its name; so
 * what bears a key is whole, or was damaged afterwards, which the digests show. What is to go is
 * called "gone-*" until it is swept.
 */
struct nest_snapshot_store_entry {
	struct nest_snapshot_view view;
	uint8_t sha256[32]; /* of its contents */
	bool verified;	    /* its digests were right in this life */
	ino_t ino;	    /* of its directory, as it was last read; 0: it wasn't yet */
	bool forgotten;	    /* it goes with the last snapshot made upon it */
	uint32_t users;
	uint32_t children; /* snapshots made upon it */
	struct nest_snapshot_store_entry *parent;
	uint64_t used; /* larger is later */
	struct nest_snapshot_store_entry *prev, *next;
};

struct nest_snapshot_store {
	int dir; /* -1: there is none */
	uint64_t max_bytes;
	uint64_t bytes;
	uint64_t clock;
	uint64_t drafts;
	bool garbage; /* there is something to sweep */
	struct nest_snapshot_store_entry *entries;
};

#define NEST_SNAPSHOT_STORE_FILES_MAX 1024
#define NEST_SNAPSHOT_STORE_CONTENTS "contents"

/* The table of contents: file "contents", this head, then its rows. */
struct nest_snapshot_store_row {
	char name[64];
	uint64_t bytes;
	uint8_t sha256[32];
};

struct nest_snapshot_store_contents {
	char magic[8];
	char key[NEST_SNAPSHOT_KEY_CHARS +
		 8];	 /* a directory of another name is not it; no padding */
	uint32_t memory; /* enum nest_snapshot_memory */
	uint32_t nrows;
	uint64_t made_s;
	uint64_t bytes;	    /* on the disk, without holes */
	uint64_t is_parent; /* 1: others may be made upon it */
	/* what it was made upon, whose memory its images name; "": nothing */
	char parent[NEST_SNAPSHOT_KEY_CHARS + 8];
	uint8_t parent_sha256[32]; /* of the parent's contents: another of that key won't do */
	uint8_t sha256[32];	   /* of all this and the rows */
};

#define NEST_SNAPSHOT_STORE_CONTENTS_MAX               \
	(sizeof(struct nest_snapshot_store_contents) + \
		NEST_SNAPSHOT_STORE_FILES_MAX * sizeof(struct nest_snapshot_store_row))

/*
 * Reads the table of contents of the snapshot in @dir; the caller frees *@ret_rows. -EBADMSG: it is
 * none, or was changed.
 */
int nest_snapshot_store_contents(int dir, struct nest_snapshot_store_contents *ret,
	struct nest_snapshot_store_row **ret_rows, struct nest_err *err);

/* Opens it, making it if need be; removes unfinished drafts and what is unreadable. */
int nest_snapshot_store_open(const char *state_dir, uint64_t max_bytes,
	struct nest_snapshot_store *ret, struct nest_err *err);

/* Makes an empty draft: its name and descriptor, which the caller owns. */
int nest_snapshot_store_draft(
	struct nest_snapshot_store *store, char name[32], int *ret, struct nest_err *err);

/*
 * Takes @name, a snapshot or a draft, out of the way: what it holds goes with the next sweep, since
 * to remove gigabytes takes long.
 */
void nest_snapshot_store_discard(struct nest_snapshot_store *store, const char *name);

/* Removes all that was discarded. Blocks on the disk: for a child. */
void nest_snapshot_store_sweep(const struct nest_snapshot_store *store);

/* Removes draft @name. Blocks on the disk: for a child. */
void nest_snapshot_store_drop(const struct nest_snapshot_store *store, const char *name);

/*
 * Seals the files of @draft: digests them, writes the contents (@contents' key and memory are the
 * caller's, the rest is filled in), syncs all. Blocks on the disk.
 */
int nest_snapshot_store_seal(
	int draft, struct nest_snapshot_store_contents *contents, struct nest_err *err);

/* Gives sealed draft @name the name @key, in the place of one that has it. Blocks on the disk. */
int nest_snapshot_store_publish(const struct nest_snapshot_store *store, const char *name,
	const char *key, struct nest_err *err);

/*
 * Notes @contents as snapshot @key, and removes the longest unused until the bound holds; what was
 * made upon an older one of that key goes, too. After any failure @key is discarded. -ESTALE: what it
 * was made upon is not here.
 */
int nest_snapshot_store_note(struct nest_snapshot_store *store, const char *key,
	const struct nest_snapshot_store_contents *contents, struct nest_err *err);

/* What the store knows of snapshot @key, or NULL. */
struct nest_snapshot_store_entry *nest_snapshot_store_find(
	struct nest_snapshot_store *store, const char *key);

/*
 * Opens snapshot @key and reads its head; the caller owns *@ret_dir. -ENOENT: there is none; -EBADMSG:
 * it is another's, or damaged.
 */
int nest_snapshot_store_read(const struct nest_snapshot_store *store, const char *key, int *ret_dir,
	struct nest_snapshot_store_contents *ret, struct nest_err *err);

/*
 * Opens the directory of @entry for a start; the caller owns *@ret_dir. The contents of one that was
 * verified are not read again, as long as it is the same directory. Errors as above; -EBADMSG also: it is
 * not what was noted.
 */
int nest_snapshot_store_use(const struct nest_snapshot_store *store,
	struct nest_snapshot_store_entry *entry, int *ret_dir, struct nest_err *err);

/* Checks every file of the snapshot in @dir. -EBADMSG names the one that was changed. */
int nest_snapshot_store_verify(int dir, struct nest_err *err);

/* Removes snapshot @key and all that was made upon it; a missing one is fine. */
void nest_snapshot_store_remove(struct nest_snapshot_store *store, const char *key);

/* Removes snapshot @key once none is left that was made upon it; a missing one is fine. */
void nest_snapshot_store_forget(struct nest_snapshot_store *store, const char *key);

#endif
