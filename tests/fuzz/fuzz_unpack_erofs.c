/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an EROFS image: nothing may be written outside the draft, which is looked for after
 * each run, and no limit passed.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "loader/draft.h"
#include "loader/unpack_erofs.h"
#include "tests/fuzz/draft_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const struct nest_draft_limits limits = { .max_bytes = 200000, .max_entries = 30 };
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	nest_autoclose int image = memfd_create("image", MFD_CLOEXEC);
	struct nest_err err = NEST_ERR_INIT;
	uint64_t size;
	int rc;

	if (image < 0 || write(image, bytes, n) != (ssize_t)n)
		abort();
	rc = nest_erofs_check_file(image, NEST_EROFS_LZ4, &size, &err);
	if (rc == 0)
		rc = nest_unpack_erofs_file(image, draft, &err);
	draft_check_end(top, draft, &limits, rc < 0 ? rc : 0, &err);
	return 0;
}
