/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_PAGES_H
#define NEST_AGENT_PAGES_H

#include <uv.h>

struct nest_buf;
struct nest_err;

/*
 * A server of a few pages that can only be read, on a TCP address that others than this machine may
 * reach: what probes and pullers ask for. Loop thread only.
 */
struct nest_pages;

/* Somebody who waits for a page. */
struct nest_pages_reader;

struct nest_page {
	const char *path; /* "/metrics"; NULL: the list ends */
	const char *type; /* its content-type */
	/* Appends the page. The status, or 0 for lack of memory. */
	unsigned (*write)(void *arg, struct nest_buf *ret);
	/*
	 * Instead of write: has nest_pages_answer() called later, also when the pages are closed by then.
	 * Otherwise -errno.
	 */
	int (*begin)(void *arg, struct nest_pages_reader *reader);
};

/* Gives @reader (taken) the @n bytes of its page, with status 200; @text NULL: there was no memory. */
void nest_pages_answer(struct nest_pages_reader *reader, const char *text, size_t n);

/*
 * Serves @pages (borrowed) on @address: "0.0.0.0:9090", "[::]:9090", or ":9090" for both. The caller
 * owns *@ret.
 */
int nest_pages_open(uv_loop_t *loop, const char *address, const struct nest_page *pages, void *arg,
	struct nest_pages **ret, struct nest_err *err);

/* Breaks what is open, then calls @cb, never before returning, and frees. */
void nest_pages_close(struct nest_pages *pages, void (*cb)(void *arg), void *arg);

#endif
