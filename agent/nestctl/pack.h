/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_NESTCTL_PACK_H
#define NEST_AGENT_NESTCTL_PACK_H

#include <stdint.h>

struct nest_err;

struct nest_pack_result {
	char path[64];	  /* the archive: a temporary file that the caller unlinks */
	uint64_t bytes;	  /* of the archive */
	uint64_t content; /* of the files in it */
	uint64_t files;
};

/*
 * Packs a directory as .tar.zst into a temporary file. The same content always gives the same bytes
 * (names sorted, owners and times left out), so that deploying it twice is deploying it once. `.git` and a
 * `nestlet.json` at the top are left out. Blocks on the disk.
 */
int nest_pack_dir(const char *dir, struct nest_pack_result *ret, struct nest_err *err);

#endif
