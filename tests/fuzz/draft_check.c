/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/draft_check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "loader/draft.h"

int draft_check_begin(const struct nest_draft_limits *limits, struct nest_draft **ret)
{
	static char path[64];
	int top;

	if (!path[0]) {
		strcpy(path, access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-unpack-XXXXXX"
							   : "/tmp/fuzz-unpack-XXXXXX");
		if (!mkdtemp(path))
			abort();
	}
	top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || nest_draft_new(top, "draft", limits, ret, NULL) < 0)
		abort();
	return top;
}

void draft_check_end(int top, const struct nest_draft *draft,
	const struct nest_draft_limits *limits, int rc, const struct nest_err *err)
{
	struct nest_draft_totals totals;
	struct stat st;

	if (rc > 0 || (rc < 0 && err->text[0] == '\0'))
		abort();
	nest_draft_totals(draft, &totals);
	if (totals.bytes > limits->max_bytes || totals.entries > limits->max_entries)
		abort();
	/* The draft's directory is the only one in it. */
	if (fstat(top, &st) < 0 || st.st_nlink != 3 || (st.st_mode & 07777) != 0700)
		abort();
	if (nest_file_remove_tree(top, "draft", NULL) < 0)
		abort();
}
