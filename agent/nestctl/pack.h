/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_NESTCTL_PACK_H
#define NEST_AGENT_NESTCTL_PACK_H

#include <limits.h>
#include <stdint.h>

struct nest_err;

enum nest_pack_format {
	NEST_PACK_TAR_ZST, /* in frames of 1 MB that can be unpacked in parallel, with a seek table */
	NEST_PACK_EROFS,   /* made by mkfs.erofs, compressed with LZ4, to be mounted */
};

struct nest_pack_options {
	enum nest_pack_format format;
	const char *output; /* NULL: a temporary file that the caller unlinks */
	int level;	    /* of zstd */
	/* Called now and then with bytes of content; may be NULL. */
	void (*progress)(void *arg, double done, double total);
	void *arg;
};

struct nest_pack_result {
	char path[PATH_MAX];
	uint64_t bytes;	  /* of the package */
	uint64_t content; /* of the files in it */
	uint64_t files;
	char sha256[65];
};

/*
 * Packs a directory into one file. The same content always gives the same bytes (names sorted,
 * owners, times and all modes but the executable bit left out), so that deploying it twice is
 * deploying it once. `.git` and a `nestlet.json` at the top are left out. A file that was begun is
 * removed on failure. Blocks on the disk.
 */
int nest_pack_dir(const char *dir, const struct nest_pack_options *options,
	struct nest_pack_result *ret, struct nest_err *err);

#endif
