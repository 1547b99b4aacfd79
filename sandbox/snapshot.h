/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SNAPSHOT_H
#define NEST_SANDBOX_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/sandbox.h"

/*
 * A *snapshot* is a worker frozen after its init, from which others start. It lies in a store that
 * only the spawner reads, below the state directory; the agent knows it by its key alone, the hex
 * SHA-256 of all that made it. The agent's end; loop thread.
 */

#define NEST_SNAPSHOT_KEY_CHARS 64 /* lower-case hex digits, without the NUL */

enum nest_snapshot_memory {
	NEST_SNAPSHOT_COPIED, /* a clone gets its memory read in, all of it its own */
	NEST_SNAPSHOT_MAPPED, /* a clone maps the snapshot's pages, and owns what it writes */
};

/* What a snapshot is to be. */
struct nest_snapshot_kind {
	enum nest_snapshot_memory memory;
	bool is_parent; /* a runtime's: a start from it may have any uid, and others are made upon it */
};

/* Do restores work here? True, or false with the reason in *@ret_why (lives as long as @sandbox). */
bool nest_snapshot_available(const struct nest_sandbox *sandbox, const char **ret_why);

/* The path of the program that makes and restores them; lives as long as @sandbox. */
const char *nest_snapshot_program(const struct nest_sandbox *sandbox);

/*
 * Freezes the worker of running cell @cell, whose spec had @snapshot set, into snapshot @key. It
 * stays stopped, or, if the dump was refused, runs on: in either case the cell is the caller's to
 * kill. The worker must be quiescent: nothing in its channel, no connection open but that. What it
 * has in /tmp and /dev/shm belongs to the snapshot. A snapshot that has the key already is
 * replaced. The worker of a cell that was itself restored gives a snapshot upon that one, which
 * must be a parent: it holds only what was written since, if its parent's memory is mapped; the
 * parent stays for as long as it does. @cb is called once, never before this returns, unless the
 * cell exits first: then never. @err is NULL when the snapshot stands; else it names the cause in
 * CRIU's words. -EALREADY: a dump of this cell is under way.
 */
int nest_snapshot_dump(struct nest_cell *cell, const char *key,
	const struct nest_snapshot_kind *kind,
	void (*cb)(struct nest_cell *cell, uint64_t bytes, const struct nest_err *err, void *arg),
	void *arg);

/* What a worker that its cell wires is connected to; the descriptors belong to who gets this. */
struct nest_snapshot_wires {
	int channel_fd; /* the host's end of the worker's fd 3 */
	int stdout_fd;	/* read ends */
	int stderr_fd;
};

/*
 * Like nest_cell_start(), for a worker that is to be dumped: @spec has @snapshot set, and its channel,
 * stdout and stderr are not used (-1 will do). A socket can be dumped only from the network namespace
 * that it was made in, so these are the cell's. @wired as below.
 */
int nest_snapshot_start(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const struct nest_cell_events *events,
	void (*wired)(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg),
	void *arg, struct nest_cell **ret, struct nest_err *err);

/*
 * Like nest_cell_start(), but the worker is restored from snapshot @key. @spec is that of a plain
 * start; its channel, stdout and stderr are not used (-1 will do), nor are argv and envp: the
 * clone's are the snapshot's and the cell's. @wired is called once, before events->started, as soon
 * as a cell is found; what is written to the channel then waits for the clone. It isn't called when
 * no cell could be had. A restore that fails ends the cell with NEST_CELL_FAILED and its cause;
 * -ENOENT in it: there is no such snapshot; -EBADMSG: it was damaged and has been removed; -ESTALE:
 * so was what it was made upon. @spec must have the limits, uid and code that the snapshot was made
 * with: they belong into @key. One from a parent may have another uid and code.
 */
int nest_snapshot_restore(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const char *key, const struct nest_cell_events *events,
	void (*wired)(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg),
	void *arg, struct nest_cell **ret, struct nest_err *err);

/*
 * Has the spawner note what @cell, which was restored and has given its first answer, has touched of its memory
 * and its programs: the working set of its snapshot, which is fetched ahead for clones of it that stand
 * by. What can't be learnt is let be. -EPIPE: the spawner is lost.
 */
int nest_snapshot_learn(struct nest_cell *cell);

/*
 * Removes snapshot @key; one that is missing is fine, one in use goes with its last user, a parent
 * with the last that was made upon it.
 */
int nest_snapshot_forget(struct nest_sandbox *sandbox, const char *key, struct nest_err *err);

/* One snapshot as the store has it. */
struct nest_snapshot_view {
	char key[NEST_SNAPSHOT_KEY_CHARS + 1];
	enum nest_snapshot_memory memory;
	uint64_t bytes;
	uint64_t made_s; /* since the Unix epoch */
	bool is_parent;
	char parent[NEST_SNAPSHOT_KEY_CHARS + 8]; /* what it was made upon; "": nothing */
};

/*
 * Asks for what the store holds. @each is called for each snapshot, then @done once, never before
 * this returns; neither after the sandbox is lost. -EALREADY while one asking is under way.
 */
int nest_snapshot_list(struct nest_sandbox *sandbox,
	void (*each)(void *arg, const struct nest_snapshot_view *view), void (*done)(void *arg),
	void *arg);

/* What came of an export or import of @view's snapshot; @err is NULL when it is done. */
typedef void nest_snapshot_exchanged_cb(
	void *arg, const struct nest_snapshot_view *view, const struct nest_err *err);

/*
 * Has snapshot @key written to @pipe_fd (borrowed) as a sealed tar, for other hosts. One export or
 * import at a time: else -EALREADY. @cb is called once, never before this returns, and not after the
 * sandbox is lost.
 */
int nest_snapshot_export(struct nest_sandbox *sandbox, const char *key, int pipe_fd,
	nest_snapshot_exchanged_cb *cb, void *arg, struct nest_err *err);

/*
 * Takes the unpacked export of another host in @dir_fd (borrowed) into the store as @key: as above.
 * -EBADMSG in @cb's error: it is not sealed with the secret that this host has, or was damaged;
 * -ESTALE: this host has not what it was made upon.
 */
int nest_snapshot_import(struct nest_sandbox *sandbox, const char *key, int dir_fd,
	nest_snapshot_exchanged_cb *cb, void *arg, struct nest_err *err);

#endif
