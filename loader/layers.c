/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers are merged from the top down: an entry is copied unless a layer above has something of its
 * name, or something that is no directory in place of one above it. So nothing in the draft is ever
 * replaced, which it refuses.
 */
#include "loader/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/beneath.h"
#include "loader/copy.h"
#include "loader/draft.h"
#include "loader/name.h"

static const char version_line[] = "nestlet layers 1\n";

struct above {
	const int *fds;
	size_t n;
};

int nest_layers_digest(
	const char *const *hexes, size_t n, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	nest_autodigest struct nest_digest *digest = NULL;
	int rc = nest_digest_new(&digest, err);

	if (rc == 0)
		rc = nest_digest_update(digest, version_line, sizeof(version_line) - 1, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = nest_digest_update(digest, hexes[i], NEST_DIGEST_HEX_LEN - 1, err);
	return rc < 0 ? rc : nest_digest_final(digest, ret_hex, err);
}

/* 1: @name in @fd hides an entry of @mode in a layer below. */
static int hides(int fd, const char *name, mode_t mode, struct nest_err *err)
{
	char quoted[NEST_NAME_QUOTED_CAP];
	nest_autoclose int found = nest_beneath_open(fd, name, O_PATH);
	struct stat st;

	if (found == -ENOENT)
		return 0;
	if (found == -ENOTDIR || found == -ELOOP)
		return 1;
	if (found < 0 || fstat(found, &st) < 0)
		return nest_err_set(err, found < 0 ? found : -errno, "look at %s in a layer",
			nest_name_quote(name, quoted));
	return !S_ISDIR(st.st_mode) || !S_ISDIR(mode);
}

static int is_hidden(void *arg, const char *name, mode_t mode, struct nest_err *err)
{
	const struct above *above = arg;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < above->n; i++)
		rc = hides(above->fds[i], name, mode, err);
	return rc;
}

int nest_layers_merge(const int *fds, size_t n, const struct nest_draft_limits *limits,
	struct nest_draft *draft, struct nest_err *err)
{
	int rc = 0;

	for (size_t i = n; rc == 0 && i-- > 0;) {
		struct above above = { .fds = fds + i + 1, .n = n - i - 1 };

		rc = nest_copy_into(fds[i], limits, draft, is_hidden, &above, err);
		if (rc < 0)
			nest_err_wrap(err, "merge layer %zu", i + 1);
	}
	return rc;
}
