/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_PUBLISH_H
#define NEST_LOADER_PUBLISH_H

#include <stdint.h>

#include <uv.h>

#include "loader/fetcher.h"

struct nest_err;

/*
 * One file on its way to a server: what is written into a pipe is compressed into zstd frames of
 * 1 MB, which the loader decodes in parallel, and put there with an HTTP PUT. By a thread of its own:
 * it is seldom, and in nobody's way. Loop thread only.
 */
struct nest_publish;

struct nest_publish_config {
	const char *staging; /* a directory for the compressed file, which has no name */
	const struct nest_fetcher_config
		*fetch; /* time limits, certificates, credentials, most bytes */
};

/*
 * Starts it. The caller owns *@ret_pipe, the end to write to, and closes it at the end of the file;
 * then it decides by nest_publish_send() or nest_publish_abort(). @cb is called once after that,
 * never before one of them returns: with the bytes sent, or why they weren't; @publish is freed when
 * it returns. Copies @url and @config.
 */
int nest_publish_open(uv_loop_t *loop, const struct nest_publish_config *config, const char *url,
	void (*cb)(void *arg, uint64_t bytes, const struct nest_err *err), void *arg, int *ret_pipe,
	struct nest_publish **ret, struct nest_err *err);

/* What was written is whole: it may go. */
void nest_publish_send(struct nest_publish *publish);

/* Gives up, also after nest_publish_send(); @cb gets -ECANCELED. The pipe must be closed by all. */
void nest_publish_abort(struct nest_publish *publish);

#endif
