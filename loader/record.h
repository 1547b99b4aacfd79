/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_RECORD_H
#define NEST_LOADER_RECORD_H

#include <uv.h>

struct nest_cache;
struct nest_draft_limits;
struct nest_err;

/*
 * What notes the digests of what is in trees that came out of archives or layers, whose own names
 * say nothing of that, so that a verification can compare. By a thread of its own that runs when the
 * CPUs have nothing better to do: reading 150 MB back just when the function that waited for them
 * starts would slow it down.
 */
struct nest_record;

/* Borrows @cache. The caller owns @ret. */
int nest_record_open(uv_loop_t *loop, struct nest_cache *cache,
	const struct nest_draft_limits *limits, struct nest_record **ret, struct nest_err *err);

/* There may be such trees, which are durable: they are read one after the other. */
void nest_record_start(struct nest_record *record);

/* Ends what is under way, then calls @cb, never before returning, and frees. */
void nest_record_close(struct nest_record *record, void (*cb)(void *arg), void *arg);

#endif
