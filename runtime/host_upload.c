/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "loader/loader.h"
#include "runtime/host_impl.h"

/* An upload on its way into the cache: what the agent may see of loader/loader.h's. */
struct nest_host_upload {
	struct nest_upload *upload;
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err);
	void *arg;
};

int nest_host_upload_open(
	struct nest_host *host, struct nest_host_upload **ret, struct nest_err *err)
{
	struct nest_host_upload *upload = calloc(1, sizeof(*upload));
	int r;

	if (!upload)
		return nest_err_set(err, -ENOMEM, "start an upload");
	r = nest_upload_open(host->loader, host->config.upload_bytes, &upload->upload, err);
	if (r < 0) {
		free(upload);
		return r;
	}
	*ret = upload;
	return 0;
}

int nest_host_upload_write(
	struct nest_host_upload *upload, const void *bytes, size_t n, struct nest_err *err)
{
	return nest_upload_write(upload->upload, bytes, n, err);
}

/* The tree stays in the cache without our reference, as one that may go when room is wanted. */
static void on_loaded(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct nest_host_upload *upload = arg;

	if (tree)
		upload->cb(upload->arg, nest_tree_digest(tree), nest_tree_bytes(tree), NULL);
	else
		upload->cb(upload->arg, NULL, 0, err);
	nest_tree_unref(tree);
	free(upload);
}

void nest_host_upload_finish(struct nest_host_upload *upload,
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err),
	void *arg)
{
	upload->cb = cb;
	upload->arg = arg;
	nest_upload_finish(upload->upload, on_loaded, upload);
}

void nest_host_upload_abort(struct nest_host_upload *upload)
{
	nest_upload_abort(upload->upload);
	free(upload);
}
