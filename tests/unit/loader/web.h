/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_LOADER_WEB_H
#define NEST_TESTS_UNIT_LOADER_WEB_H

#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "base/err.h"
#include "loader/loader.h"
#include "loader/reference.h"

/*
 * What the tests of downloads share: a loader with an empty cache, a server that misbehaves on
 * command (server.py), and an archive on it, files/a.tar, with WEB_FILE_BYTES in two files.
 */
#define WEB_FILE_BYTES 6000000u

extern struct web {
	uv_loop_t loop;
	struct nest_loader *loader;
	struct nest_loader_config config; /* for the next web_open_loader() */
	pid_t server;
	int server_in;
	unsigned port;
	char digest[NEST_TREE_DIGEST_LEN]; /* of the archive that was made last */
	uint64_t bytes;			   /* that it has */
	uint64_t size; /* what web_loads() and web_fails() say that it has; 0: nothing */
} web;

struct web_result {
	unsigned calls;
	int code;
	struct nest_tree *tree;
	struct nest_err err;
};

/* Before and after each test. */
void web_enter(void);
void web_leave(void);

/* Makes the archive files/@name with two files that have @n bytes together. */
void web_make_archive(const char *name, uint64_t n);

/* Starts server.py, which takes @latency ("0.1": seconds, NULL: its own choice) for each answer. */
void web_serve_after(const char *latency);
void web_serve(void);

/* Ends it, if there is one. */
void web_stop(void);

/* Its url for @mode of files/@name, or of files/a.tar; good for the next seven calls. */
const char *web_url_of(const char *mode, const char *name);
const char *web_url(const char *mode);

/* Asks the server how often ("count"), or how often at once ("most"), it was asked for that. */
unsigned web_ask(const char *what, const char *mode);

void web_open_loader(void);
/* Fails if anything is left in staging. */
void web_close_loader(void);
struct nest_loader_stats web_stats(void);

/* Starts a load; runs the loop until it has ended. */
void web_start(const struct nest_reference *references, size_t n, struct web_result *result);
void web_finish(const struct web_result *result);

void web_check_tree(const struct nest_tree *tree);

/* Loads from one url, the right digest given; the tree must come and be right. The loader stays open. */
void web_loads(const char *from);

/* It must fail with this code and these words, within the time limit, and leave nothing. */
void web_fails_open(const char *from, int code, const char *words);

/* The same, and closes the loader. */
void web_fails(const char *from, int code, const char *words);

#endif
