/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_SNAPSHOT_H
#define NEST_SANDBOX_SPAWNER_SNAPSHOT_H

#include <stddef.h>

#include "sandbox/message.h"

struct nest_err;
struct nest_sandbox_config;
struct nest_spawner;
struct nest_spawner_cell;

/* What the spawner does for snapshots. What takes long is done by children of its. */

/*
 * Opens the store and finds CRIU, if snapshots are wanted and cells can have them. Why not goes to
 * @spawner's no_snapshots. Before the spawner enters the cells' root.
 */
void nest_spawner_snapshot_open(
	struct nest_spawner *spawner, const struct nest_sandbox_config *config);

/*
 * Begins to try, in a child, whether a process is frozen and restored when CRIU finds stand-ins for libraries:
 * it must find all symbols in them, and call nothing that they refuse. Until that is proved CRIU is started
 * without. @criu as in struct nest_sandbox_config.
 */
void nest_spawner_snapshot_prove(struct nest_spawner *spawner, const char *criu);

/* That child has ended: cells of now have the stand-ins, or the agent is told why not. */
void nest_spawner_snapshot_proved_standins(struct nest_spawner *spawner);

/* The checked requests. Their failures are told to the agent. */
void nest_spawner_snapshot_dump(struct nest_spawner *spawner, const struct nest_message_dump *dump);
void nest_spawner_snapshot_forget(
	struct nest_spawner *spawner, const struct nest_message_dump *dump);
void nest_spawner_snapshot_list(struct nest_spawner *spawner);

/* Notes the working set of @cell, if it was restored from a snapshot that is still the store's. */
void nest_spawner_snapshot_learn(
	struct nest_spawner *spawner, const struct nest_spawner_cell *cell);

/* Detached read-only mounts of a snapshot and of what it was made upon; -1: nothing. */
struct nest_spawner_snapshot_mounts {
	int images;
	int parent;
};

/*
 * Looks up the snapshot of RESTORE @start, fills in what its images know, and opens it; the caller
 * owns what is in *@ret, also after a failure. -ENOENT: there is none.
 */
int nest_spawner_snapshot_use(struct nest_spawner *spawner, struct nest_message_start *start,
	struct nest_spawner_snapshot_mounts *ret, struct nest_err *err);

/* @cell is restored from the snapshot of @start, which nest_spawner_snapshot_use() has found. */
void nest_spawner_snapshot_note_use(struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	const struct nest_message_start *start);

/* A cell that used @key has got its clone: so its digests were right. */
void nest_spawner_snapshot_proved(struct nest_spawner *spawner, const char *key);

/* A cell that used @key is gone; @why: -EBADMSG if it found it damaged, -ESTALE its parent. */
void nest_spawner_snapshot_unuse(struct nest_spawner *spawner, const char *key, int why);

/* Begins to remove what was discarded, if there is anything, in a child. */
void nest_spawner_snapshot_sweep(struct nest_spawner *spawner);

/* That child has ended. */
void nest_spawner_snapshot_swept(struct nest_spawner *spawner);

/* Dump @n has something to say, or has ended. */
void nest_spawner_snapshot_hear(struct nest_spawner *spawner, size_t n);

#endif
