/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_LAYERS_H
#define NEST_LOADER_LAYERS_H

#include <stddef.h>

#include "loader/digest.h"

struct nest_draft;
struct nest_draft_limits;
struct nest_err;

/*
 * Takes the digest that names the tree which @n layers make, from theirs in order. Any thread.
 */
int nest_layers_digest(const char *const *hexes, size_t n, char ret_hex[NEST_DIGEST_HEX_LEN],
	struct nest_err *err);

/*
 * Copies the @n directories @fds (borrowed), lowest first, into @draft as one: where two layers
 * have the same name the later one's entry counts, directories are joined, and a file or link of a
 * later layer hides a whole directory of an earlier one. Blocks on the disk. Any thread.
 */
int nest_layers_merge(const int *fds, size_t n, const struct nest_draft_limits *limits,
	struct nest_draft *draft, struct nest_err *err);

#endif
