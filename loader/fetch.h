/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_FETCH_H
#define NEST_LOADER_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/digest.h"
#include "loader/unpack.h"

struct nest_err;
struct nest_fetcher;

/*
 * The download of one artifact into a file, in ranges over several connections where the server has
 * them. Loop thread only; the bytes can be read by another thread while they arrive
 * (nest_fetch_stream).
 */
struct nest_fetch;

struct nest_fetch_events {
	/* The first bytes are there, or the end is. Once, before done, unless it failed before. */
	void (*begun)(void *arg);
	/* All bytes are there (@err NULL), or never will be. Once; then only close is left. */
	void (*done)(void *arg, const struct nest_err *err);
	/* The disk is full: whether anything was freed. */
	bool (*make_room)(void *arg);
};

/*
 * Starts the download of @url (http or https) into @fd, an empty file that is open for reading and
 * writing (borrowed until closed). @size: how many bytes it must have, 0 if that isn't known; -EFBIG
 * if more than are allowed. No event before this returns.
 */
int nest_fetch_open(struct nest_fetcher *fetcher, const char *url, uint64_t size, int fd,
	const struct nest_fetch_events *events, void *arg, struct nest_fetch **ret,
	struct nest_err *err);

/* Fails a download that isn't done: its readers get @code, and no event follows. */
void nest_fetch_abort(struct nest_fetch *fetch, int code, const char *why);

/* Aborts and frees; no event follows, and no stream of it may be open. NULL is fine. */
void nest_fetch_close(struct nest_fetch *fetch);

struct nest_fetch_totals {
	uint64_t bytes;	      /* that arrived, those of failed attempts too */
	uint64_t us;	      /* since it was opened, up to its end */
	uint64_t retries;     /* attempts after the first, of all ranges */
	unsigned connections; /* the most at once */
};

/* What it took so far. */
void nest_fetch_totals(const struct nest_fetch *fetch, struct nest_fetch_totals *ret);

/*
 * A reader of what arrives, from the beginning, that takes the digest as it goes. Opened and freed
 * on the loop thread, used by one other thread in between.
 */
struct nest_fetch_stream;

/* Opens one at the first byte; the caller owns @ret. */
int nest_fetch_stream_open(
	struct nest_fetch *fetch, struct nest_fetch_stream **ret, struct nest_err *err);

/* NULL is fine; no source of it may be in use. */
void nest_fetch_stream_free(struct nest_fetch_stream *stream);

/* As a source for nest_unpack_run(): blocks until the next bytes are there. Lives with @stream. */
const struct nest_unpack_source *nest_fetch_stream_source(struct nest_fetch_stream *stream);

/*
 * Waits until the first @n bytes are there, or all. *@ret_n: how many there are of them. -errno when
 * the download failed. Blocks on the network.
 */
int nest_fetch_stream_wait(
	struct nest_fetch_stream *stream, uint64_t n, uint64_t *ret_n, struct nest_err *err);

/*
 * Waits for the end, and gives the digest of the whole artifact. -errno when the download failed.
 * Blocks on the network and the disk.
 */
int nest_fetch_stream_finish(
	struct nest_fetch_stream *stream, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err);

/* Whether the download has failed by now, and then why. */
bool nest_fetch_stream_failed(struct nest_fetch_stream *stream, struct nest_err *ret_err);

/* For how long reads have waited for the network. */
uint64_t nest_fetch_stream_waited_us(const struct nest_fetch_stream *stream);

#endif
