/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "loader/cache.h"
#include "loader/load.h"
#include "loader/loader.h"
#include "loader/tree_image.h"

struct nest_upload {
	struct nest_loader *loader;
	struct nest_load *load; /* made beforehand, so that finishing can't fail */
	struct nest_digest *digest;
	int fd;
	uint64_t size;
	uint64_t max_bytes;
	struct nest_err err; /* of the write that was the last */
};

static void free_upload(struct nest_upload *upload)
{
	nest_cleanup_close(&upload->fd);
	nest_digest_free(upload->digest);
	nest_load_free(upload->load);
	free(upload);
}

static int create_file(struct nest_upload *upload, struct nest_cache *cache, struct nest_err *err)
{
	nest_cache_name(cache, "upload", upload->load->archive);
	upload->fd = openat(nest_cache_staging_fd(cache), upload->load->archive,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (upload->fd < 0)
		return nest_err_set(err, -errno, "create a staging file in the code cache");
	return 0;
}

int nest_upload_open(struct nest_loader *loader, uint64_t max_bytes, struct nest_upload **ret,
	struct nest_err *err)
{
	struct nest_upload *upload = calloc(1, sizeof(*upload));
	int rc;

	if (!upload)
		return nest_err_set(err, -ENOMEM, "start an upload");
	upload->loader = loader;
	upload->max_bytes = max_bytes;
	upload->fd = -1;
	upload->load = nest_loader_new_load(loader, err);
	rc = upload->load ? 0 : -ENOMEM;
	if (rc == 0)
		rc = nest_digest_new(&upload->digest, err);
	if (rc == 0)
		rc = nest_loader_check_open(loader, err);
	if (rc == 0)
		rc = create_file(upload, upload->load->cache, err);
	if (rc == 0)
		rc = nest_loader_begin_upload(loader, err);
	if (rc < 0) {
		free_upload(upload);
		return rc;
	}
	*ret = upload;
	return 0;
}

static int append(struct nest_upload *upload, const void *bytes, size_t n, struct nest_err *err)
{
	int rc = nest_loader_check_open(upload->loader, err);

	if (rc < 0)
		return rc;
	if (n > upload->max_bytes - upload->size)
		return nest_err_say(err, -EFBIG, "archive larger than %llu bytes",
			(unsigned long long)upload->max_bytes);
	/* Always from the same offset, so that it can be tried again as a whole. */
	rc = nest_fd_pwrite_all(upload->fd, bytes, n, upload->size, NULL);
	if ((rc == -ENOSPC || rc == -EDQUOT) && nest_loader_make_room(upload->loader))
		rc = nest_fd_pwrite_all(upload->fd, bytes, n, upload->size, NULL);
	if (rc < 0)
		return nest_err_set(err, rc, "write the archive to the code cache");
	upload->size += n;
	return nest_digest_update(upload->digest, bytes, n, err);
}

int nest_upload_write(struct nest_upload *upload, const void *bytes, size_t n, struct nest_err *err)
{
	if (upload->err.code == 0)
		append(upload, bytes, n, &upload->err);
	if (upload->err.code == 0)
		return 0;
	if (err)
		*err = upload->err;
	return upload->err.code;
}

void nest_upload_finish(struct nest_upload *upload, nest_loader_cb *cb, void *arg)
{
	struct nest_load *load = nest_take_ptr(upload->load);
	struct nest_loader *loader = upload->loader;

	load->cb = cb;
	load->arg = arg;
	load->source = NEST_TREE_IMAGE_SOURCE_ADMIN;
	if (upload->err.code == 0)
		nest_digest_final(upload->digest, load->hex, &upload->err);
	load->err = upload->err;
	load->rc = upload->err.code;
	free_upload(upload);
	nest_loader_start(load);
	nest_loader_end_upload(loader);
}

void nest_upload_abort(struct nest_upload *upload)
{
	struct nest_loader *loader = upload->loader;

	nest_cache_discard(upload->load->cache, upload->load->archive);
	free_upload(upload);
	nest_loader_sweep(loader);
	nest_loader_end_upload(loader);
}
