/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_COPY_H
#define NEST_LOADER_COPY_H

#include <sys/types.h>

#include "loader/digest.h"

struct nest_draft;
struct nest_draft_limits;
struct nest_err;

/*
 * Reads the directory @path (which itself may be reached through links) and takes the digest of
 * what is in it: of relative names in order of their bytes, types, executable bits, link targets
 * and contents. With @draft, copies it all there as well, and the digest is that of the copy.
 * @limits (borrowed) are the draft's, and hold without one too. Blocks on the disk. Any thread.
 */
int nest_copy_dir(const char *path, const struct nest_draft_limits *limits,
	struct nest_draft *draft, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err);

/*
 * Copies what is in the directory @root_fd (borrowed) into @draft, but for the entries of which
 * @hidden (given the clean name and the mode) says 1; its -errno ends the copy. Blocks on the disk.
 * Any thread.
 */
int nest_copy_into(int root_fd, const struct nest_draft_limits *limits, struct nest_draft *draft,
	int (*hidden)(void *arg, const char *name, mode_t mode, struct nest_err *err), void *arg,
	struct nest_err *err);

#endif
