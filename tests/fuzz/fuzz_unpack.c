/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an archive: nothing may be written outside the draft, which is looked for after each
 * run, and no limit passed.
 */
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/draft.h"
#include "loader/unpack.h"
#include "tests/fuzz/draft_check.h"
#include "tests/fuzz/pieces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const struct nest_draft_limits limits = { .max_bytes = 100000, .max_entries = 30 };
	struct pieces pieces = { .bytes = bytes, .n = n };
	const struct nest_unpack_source source =
		pieces_source(&pieces, n > 0 && bytes[n - 1] % 2 == 0);
	struct nest_err err = NEST_ERR_INIT;
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	int rc = nest_unpack_run(&source, draft, &err);

	draft_check_end(top, draft, &limits, rc, &err);
	return 0;
}
