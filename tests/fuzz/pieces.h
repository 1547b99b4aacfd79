/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_FUZZ_PIECES_H
#define NEST_TESTS_FUZZ_PIECES_H

#include <stdbool.h>
#include <stddef.h>

struct nest_unpack_source;

/* Bytes that come in pieces, so that what spans two of them is met too. Begins with @bytes and @n, all else 0. */
struct pieces {
	const void *bytes;
	size_t n;
	size_t at;
};

/* What is read of @pieces, which is borrowed; @seekable: it can be gone to and fro in, too. */
struct nest_unpack_source pieces_source(struct pieces *pieces, bool seekable);

#endif
