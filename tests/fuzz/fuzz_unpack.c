/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an archive: nothing may be written outside the draft, which is looked for after each
 * run, and no limit passed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/draft.h"
#include "loader/unpack.h"
#include "tests/fuzz/draft_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct input {
	const uint8_t *bytes;
	size_t n;
	size_t at;
};

/* In pieces, so that what spans two of them is met too. */
static ssize_t read_input(void *arg, const void **ret_bytes)
{
	struct input *input = arg;
	size_t n = input->n - input->at;

	if (n > 700)
		n = 700;
	*ret_bytes = input->bytes + input->at;
	input->at += n;
	return (ssize_t)n;
}

static int64_t seek_input(void *arg, int64_t offset, int whence)
{
	struct input *input = arg;

	if (whence == SEEK_CUR)
		offset += (int64_t)input->at;
	if (whence == SEEK_END)
		offset += (int64_t)input->n;
	if (offset < 0 || (uint64_t)offset > input->n)
		return -EINVAL;
	input->at = (size_t)offset;
	return offset;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const struct nest_draft_limits limits = { .max_bytes = 100000, .max_entries = 30 };
	struct input input = { .bytes = bytes, .n = n };
	struct nest_unpack_source source = { .read = read_input, .arg = &input };
	struct nest_err err = NEST_ERR_INIT;
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	int rc;

	if (n > 0 && bytes[n - 1] % 2 == 0)
		source.seek = seek_input;
	rc = nest_unpack_run(&source, draft, &err);
	draft_check_end(top, draft, &limits, rc, &err);
	return 0;
}
