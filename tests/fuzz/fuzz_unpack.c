/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an archive: nothing may be written outside the draft, which is looked for after each
 * run, and no limit passed. The directory is in memory where /dev/shm is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "loader/draft.h"
#include "loader/unpack.h"

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

/* The directory that drafts are made in: it may hold the draft and nothing else. */
static int open_top(void)
{
	static char path[64];

	if (!path[0]) {
		strcpy(path, access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-unpack-XXXXXX"
							   : "/tmp/fuzz-unpack-XXXXXX");
		if (!mkdtemp(path))
			abort();
	}
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void check_top(int top)
{
	struct stat st;

	/* The draft's directory is the only one in it. */
	if (fstat(top, &st) < 0 || st.st_nlink != 3 || (st.st_mode & 07777) != 0700)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const struct nest_draft_limits limits = { .max_bytes = 100000, .max_entries = 30 };
	struct input input = { .bytes = bytes, .n = n };
	struct nest_unpack_source source = { .read = read_input, .arg = &input };
	struct nest_draft_totals totals;
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int top = open_top();
	nest_autodraft struct nest_draft *draft = NULL;
	int rc;

	if (n > 0 && bytes[n - 1] % 2 == 0)
		source.seek = seek_input;
	if (nest_draft_new(top, "draft", &limits, &draft, &err) < 0)
		abort();
	rc = nest_unpack_run(&source, draft, &err);
	if (rc > 0 || (rc < 0 && err.text[0] == '\0'))
		abort();
	nest_draft_totals(draft, &totals);
	if (totals.bytes > limits.max_bytes || totals.entries > limits.max_entries)
		abort();
	check_top(top);
	if (nest_file_remove_tree(top, "draft", &err) < 0)
		abort();
	return 0;
}
