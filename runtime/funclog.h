/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FUNCLOG_H
#define NEST_RUNTIME_FUNCLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct nest_err;

/*
 * The functions' logs: JSON lines, kept on disk within a byte limit per function, and handed to
 * followers as they come. Loop thread only; the disk is written on libuv's thread pool, so a slow one
 * stalls neither the loop nor a worker: what does not fit is dropped, counted, and said in the log.
 */
struct nest_funclog_store;
struct nest_funclog; /* the log of one function name, all versions; reference-counted */

/* Who wrote a line. Strings are borrowed for the call. */
struct nest_funclog_origin {
	const char *version;
	uint64_t worker;
	int stream;		/* 1 stdout, 2 stderr, 0 the host itself */
	const char *level;	/* "info", ... or NULL */
	const char *request_id; /* or NULL */
};

/* Opens the store in @dir (exists). Lines longer than @line_bytes are cut, and say so. */
int nest_funclog_store_open(uv_loop_t *loop, const char *dir, uint32_t line_bytes,
	struct nest_funclog_store **ret, struct nest_err *err);

/* Writes out what is buffered, then calls @cb and frees; every log must have been let go of and every reader closed. */
void nest_funclog_store_close(struct nest_funclog_store *store, void (*cb)(void *arg), void *arg);

/* The log of @function with a limit of @max_bytes on disk (the newest call's limit holds); a reference. */
int nest_funclog_get(struct nest_funclog_store *store, const char *function, uint64_t max_bytes,
	struct nest_funclog **ret, struct nest_err *err);

/* Gives a reference back; the files stay. NULL is fine. */
void nest_funclog_put(struct nest_funclog *log);

/* Removes the log's files as the function is removed; its readers are done. Also takes a reference back. */
void nest_funclog_remove(struct nest_funclog *log);

/* Appends each line of @text; the last one needs no newline. */
void nest_funclog_write(struct nest_funclog *log, const struct nest_funclog_origin *origin,
	const char *text, size_t n);

/* Bytes of log text dropped so far, for want of disk, rate or space in a line. */
uint64_t nest_funclog_dropped_bytes(const struct nest_funclog *log);

/*
 * Makes lines of what arrives on a worker's stdout or stderr in pieces. Holds at most line_bytes; the rest of a
 * longer line is dropped and counted. Zeroed storage is a fresh one.
 */
struct nest_funclog_pipe {
	char *carry;
	size_t len;
	uint64_t cut; /* bytes of the present line dropped so far */
};

/* Takes what has arrived, and writes each line that is complete. */
void nest_funclog_feed(struct nest_funclog *log, struct nest_funclog_pipe *pipe,
	const struct nest_funclog_origin *origin, const char *bytes, size_t n);

/* Writes an unfinished last line and frees the storage. */
void nest_funclog_pipe_done(struct nest_funclog *log, struct nest_funclog_pipe *pipe,
	const struct nest_funclog_origin *origin);

/* ---- readers: the contract is nest_host_logs_*'s in runtime/host.h ---- */

struct nest_funclog_reader;

/* Opens a reader on @log: the last @tail_lines on disk, then, with @follow, what comes. */
int nest_funclog_reader_open(struct nest_funclog *log, uint32_t tail_lines, bool follow,
	void (*line)(void *arg, const char *json, size_t n), void (*done)(void *arg), void *arg,
	struct nest_funclog_reader **ret, struct nest_err *err);
/* While paused nothing is delivered; a follower's missed lines are counted and told. */
void nest_funclog_reader_pause(struct nest_funclog_reader *reader, bool pause);
/* Ends it; nothing is delivered any more. */
void nest_funclog_reader_close(struct nest_funclog_reader *reader);

#endif
