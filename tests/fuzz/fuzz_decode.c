/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a compressed stream: it ends, with all its bytes or with words for why not. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"
#include "loader/decode.h"
#include "tests/fuzz/pieces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct pieces pieces = { .bytes = bytes, .n = n };
	const struct nest_unpack_source source = pieces_source(&pieces, false);
	enum nest_decode_kind kind = nest_decode_kind(bytes, n);
	nest_autodecode struct nest_decode *decode = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const void *out;
	uint64_t all = 0;
	ssize_t got;

	if (kind == NEST_DECODE_NONE)
		return 0;
	if (nest_decode_new(kind, &source, NULL, &decode, &err) < 0)
		abort();
	while ((got = nest_decode_read(decode, &out)) > 0 && all < (8u << 20))
		all += (uint64_t)got;
	if (got < 0 && nest_decode_why(decode)[0] == '\0')
		abort();
	return 0;
}
