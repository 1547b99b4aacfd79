/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_COPY_H
#define NEST_LOADER_COPY_H

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

#endif
