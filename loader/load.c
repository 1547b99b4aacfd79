/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/copy.h"
#include "loader/unpack.h"

void nest_load_free(struct nest_load *load)
{
	if (!load)
		return;
	free(load->path);
	free(load);
}

void nest_load_take_digest(struct nest_load *load)
{
	load->rc = nest_copy_dir(load->path, &load->limits, NULL, load->hex, &load->err);
}

static int copy_dir(struct nest_load *load, struct nest_draft *draft)
{
	char hex[NEST_DIGEST_HEX_LEN];
	int rc = nest_copy_dir(load->path, &load->limits, draft, hex, &load->err);

	if (rc == 0 && strcmp(hex, load->hex) != 0)
		return nest_err_say(&load->err, -EBUSY,
			"the directory changed while it was read: try again when nothing writes to "
			"it");
	return rc;
}

static int unpack_archive(struct nest_load *load, struct nest_draft *draft)
{
	nest_autoclose int fd = openat(nest_cache_staging_fd(load->cache), load->archive,
		O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(&load->err, -errno, "open the uploaded archive");
	return nest_unpack_file(fd, draft, &load->err);
}

static int make_draft(struct nest_load *load, const char *name)
{
	nest_autodraft struct nest_draft *draft = NULL;
	int rc = nest_draft_new(
		nest_cache_staging_fd(load->cache), name, &load->limits, &draft, &load->err);

	if (rc == 0)
		rc = load->path ? copy_dir(load, draft) : unpack_archive(load, draft);
	if (rc == 0)
		nest_draft_totals(draft, &load->totals);
	return rc;
}

void nest_load_make(struct nest_load *load)
{
	int staging_fd = nest_cache_staging_fd(load->cache);
	char name[NEST_CACHE_NAME_CAP];

	/* The space that the loop thread evicted for this attempt. */
	if (load->retried)
		nest_cache_sweep(load->cache);
	load->err = (struct nest_err)NEST_ERR_INIT;
	nest_cache_name(load->cache, "draft", name);
	load->rc = make_draft(load, name);
	if (load->rc == 0)
		load->rc =
			nest_cache_publish(load->cache, name, load->hex, &load->totals, &load->err);
	if (load->rc == -EDQUOT)
		load->rc =
			-ENOSPC; /* how ext4 says that a volume's size, a project quota, is used up */
	/* What can't be removed here goes at the next open. */
	if (load->rc < 0)
		(void)nest_file_remove_tree(staging_fd, name, NULL);
	if (load->archive[0] && (load->rc != -ENOSPC || load->retried)) {
		(void)unlinkat(staging_fd, load->archive, 0);
		load->archive[0] = '\0';
	}
}
