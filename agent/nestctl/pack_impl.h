/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_NESTCTL_PACK_IMPL_H
#define NEST_AGENT_NESTCTL_PACK_IMPL_H

#include <fts.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/nestctl/pack.h"

/* What the files of packing share. */

enum {
	PACK_TIME = 315532800, /* 1980-01-01: the same in every package, and after zip's epoch */
};

/* One packing under way. */
struct nest_pack {
	const char *dir;
	const struct nest_pack_options *options;
	struct nest_pack_result *result;
	uint64_t total; /* bytes of all files, as counted first */
};

/* Calls @cb for each entry that is packed, in order; @name is its path below the directory. */
int nest_pack_each(struct nest_pack *pack,
	int (*cb)(struct nest_pack *pack, const FTSENT *ent, const char *name, void *arg,
		struct nest_err *err),
	void *arg, struct nest_err *err);

/* Reads the file of @ent in pieces into @take. */
int nest_pack_read(struct nest_pack *pack, const FTSENT *ent,
	int (*take)(void *arg, const void *bytes, size_t n, struct nest_err *err), void *arg,
	struct nest_err *err);

/* The formats: write the package to @fd, which is @pack->result->path. */
int nest_pack_write_zst(struct nest_pack *pack, int fd, struct nest_err *err);
int nest_pack_write_erofs(struct nest_pack *pack, struct nest_err *err);

#endif
