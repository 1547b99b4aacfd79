/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_CURL_H
#define NEST_BASE_CURL_H

#include <curl/curl.h>
#include <uv.h>

struct nest_err;

/*
 * libcurl's multi interface on a libuv loop: libcurl says which sockets to watch and when it wants
 * to be called, and gets called. No event comes inside a callback of libcurl's, which forbids that
 * transfers are added or removed there. Loop thread only.
 */
struct nest_curl;

struct nest_curl_events {
	/* libcurl has worked; what has ended is told next. May be NULL. */
	void (*worked)(void *arg);
	/* A transfer has ended; it must be removed, now or later. */
	void (*done)(void *arg, CURL *easy, CURLcode code);
	/* What has ended was told. May be NULL. */
	void (*turn)(void *arg);
};

/*
 * Opens one. @events is copied. libcurl is initialised by the first one of a process, so that a
 * host without downloads and scaler doesn't pay for it.
 */
int nest_curl_open(uv_loop_t *loop, const struct nest_curl_events *events, void *arg,
	struct nest_curl **ret, struct nest_err *err);

/* Its multi handle, for options of its own. */
CURLM *nest_curl_multi(const struct nest_curl *curl);

/* Starts a transfer (borrowed until it is removed). 0 or -ENOMEM. */
int nest_curl_add(struct nest_curl *curl, CURL *easy);

/* Takes a transfer off, ended or not: no event of it follows. */
void nest_curl_remove(struct nest_curl *curl, CURL *easy);

/* With no transfer left: closes the idle connections, then calls @cb, never before returning, and frees. */
void nest_curl_close(struct nest_curl *curl, void (*cb)(void *arg), void *arg);

#endif
