/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_FETCHER_H
#define NEST_LOADER_FETCHER_H

#include <stdint.h>

#include <uv.h>

struct nest_err;

/* What all downloads share: libcurl's multi handle on the loop, and the limits. Loop thread only. */
struct nest_fetcher;

struct nest_fetcher_config {
	uint32_t connections; /* to one server at once, 1 to NEST_FETCHER_CONNECTIONS_MAX */
	uint32_t timeout_ms;  /* of one download, from its beginning to its end */
	uint32_t connect_timeout_ms;
	uint32_t stall_ms;   /* a connection that brings less than 1 KB/s for so long is given up */
	uint32_t retries;    /* in a row, of one range, without progress */
	uint32_t backoff_ms; /* before the first of them; each later one waits twice as long */
	uint64_t max_bytes;  /* of one artifact */
	const char *ca_file; /* "": the system's certificates */
	const char *credentials_file; /* "": none; see loader/credentials.h */
};

#define NEST_FETCHER_CONNECTIONS_MAX 32

/*
 * Opens it; the strings are copied. @on_idle is called whenever nothing was downloaded for a second,
 * and may close it: what it still holds are connections. libcurl is initialised by the first one of a process, so that a
 * host that never loads anything remote doesn't pay for it.
 */
int nest_fetcher_open(uv_loop_t *loop, const struct nest_fetcher_config *config,
	void (*on_idle)(void *arg), void *arg, struct nest_fetcher **ret, struct nest_err *err);

/* Once no download is open any more: closes, then calls @cb, never before returning, and frees. */
void nest_fetcher_close(struct nest_fetcher *fetcher, void (*cb)(void *arg), void *arg);

#endif
