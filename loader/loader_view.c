/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/copy.h"
#include "loader/load.h"
#include "loader/tree.h"

/* The cache as a whole: what an operator looks at, removes and has verified. */

#define CHUNK (256u << 10)

int nest_loader_look(struct nest_loader *loader, const char *digest, struct nest_tree **ret,
	struct nest_err *err)
{
	const size_t prefix = sizeof(NEST_DIGEST_PREFIX) - 1;
	struct nest_tree *tree;

	if (strncmp(digest, NEST_DIGEST_PREFIX, prefix) != 0 ||
		nest_digest_check_hex(digest + prefix) < 0)
		return nest_err_say(err, -EINVAL,
			"'%.80s' is no digest: it must be '" NEST_DIGEST_PREFIX
			"' and 64 lower-case hexadecimal digits",
			digest);
	tree = nest_cache_find(nest_loader_cache(loader), digest + prefix);
	if (!tree)
		return 1;
	*ret = tree;
	return 0;
}

struct visit {
	bool (*cb)(void *arg, const struct nest_tree *tree);
	void *arg;
};

static bool on_tree(void *arg, struct nest_tree *tree)
{
	const struct visit *visit = arg;

	return visit->cb(visit->arg, tree);
}

void nest_loader_each(
	struct nest_loader *loader, bool (*cb)(void *arg, const struct nest_tree *tree), void *arg)
{
	struct visit visit = { .cb = cb, .arg = arg };

	nest_cache_each(nest_loader_cache(loader), on_tree, &visit);
}

int nest_loader_remove(struct nest_loader *loader, const char *digest, struct nest_err *err)
{
	struct nest_tree *tree;
	int rc = nest_loader_look(loader, digest, &tree, err);

	if (rc != 0)
		return rc;
	if (nest_cache_remove(nest_loader_cache(loader), tree) < 0)
		return nest_err_say(err, -EBUSY,
			"code tree %s is in use: remove the functions that have it first", digest);
	nest_loader_sweep(loader);
	return 0;
}

/* ---- verifying ---- */

struct verification {
	uv_work_t work;
	struct nest_load *load; /* for its limits only, with their way to be cancelled */
	struct nest_loader *loader;
	void (*damaged)(void *arg, const struct nest_tree *tree);
	void (*done)(
		void *arg, const struct nest_loader_verified *totals, const struct nest_err *err);
	void *arg;
	struct nest_loader_verified totals;
	char (*hexes)[NEST_DIGEST_HEX_LEN];
	size_t n;
	size_t room;
	size_t next;
	struct nest_tree *tree;		  /* that is being read; referenced */
	char wanted[NEST_DIGEST_HEX_LEN]; /* "": not known yet */
	bool record;			  /* what is found is to be written down */
	char found[NEST_DIGEST_HEX_LEN];
	int rc;
	struct nest_err err;
};

static int digest_file(int fd, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	nest_autodigest struct nest_digest *digest = NULL;
	nest_autofree char *bytes = malloc(CHUNK);
	ssize_t n = 0;
	int rc = bytes ? nest_digest_new(&digest, err)
		       : nest_err_set(err, -ENOMEM, "read a code image");

	while (rc == 0 && (n = read(fd, bytes, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		rc = n < 0 ? nest_err_set(err, -errno, "read a code image")
			   : nest_digest_update(digest, bytes, (size_t)n, err);
	}
	return rc < 0 ? rc : nest_digest_final(digest, ret_hex, err);
}

/* Whether its file is what was loaded, byte for byte. */
static bool is_artifact(const struct nest_tree *tree)
{
	return tree->image && !tree->made;
}

static int read_it(struct verification *v)
{
	nest_autoclose int fd = -1;
	char path[32];
	int rc;

	if (is_artifact(v->tree)) {
		rc = nest_tree_open_image(v->tree, &fd, &v->err);
		return rc < 0 ? rc : digest_file(fd, v->found, &v->err);
	}
	rc = nest_tree_open(v->tree, &fd, &v->err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return nest_copy_dir(path, &v->load->limits, NULL, v->found, &v->err);
}

static void read_on_pool(uv_work_t *work)
{
	struct verification *v = work->data;

	v->err = (struct nest_err)NEST_ERR_INIT;
	v->rc = read_it(v);
	/* not written down is not damaged: the next time is the first again */
	if (v->rc == 0 && v->record &&
		nest_cache_write_content(nest_loader_cache(v->loader), v->tree, v->found, NULL) < 0)
		v->record = false;
}

static void free_verification(struct verification *v)
{
	nest_load_free(v->load);
	free(v->hexes);
	free(v);
}

static void end(struct verification *v, const struct nest_err *err)
{
	struct nest_loader *loader = v->loader;

	v->done(v->arg, &v->totals, err);
	free_verification(v);
	nest_loader_end_upload(loader);
}

/* Counts and removes the tree @hex, which isn't what it was. */
static void condemn(struct verification *v, const char *hex)
{
	struct nest_cache *cache = nest_loader_cache(v->loader);
	struct nest_tree *tree = nest_cache_find(cache, hex);

	if (!tree)
		return;
	v->damaged(v->arg, tree);
	if (nest_cache_remove(cache, tree) < 0) {
		v->totals.in_use++;
		return;
	}
	v->totals.removed++;
	nest_loader_sweep(v->loader);
}

/* Whether what was found is what must be there. The first time it is noted instead. */
static bool is_whole(struct verification *v)
{
	if (v->rc < 0)
		return false;
	if (v->wanted[0])
		return strcmp(v->wanted, v->found) == 0;
	if (v->record)
		nest_cache_note_content(v->tree, v->found);
	v->totals.recorded++;
	return true;
}

static void step(struct verification *v);

static void after_read(uv_work_t *work, int status)
{
	struct verification *v = work->data;
	char hex[NEST_DIGEST_HEX_LEN];
	bool whole;

	if (status < 0 || v->rc == -ENOMEM || v->rc == -EMFILE || v->rc == -ENFILE) {
		nest_tree_unref(nest_take_ptr(v->tree));
		if (status < 0)
			nest_err_say(&v->err, -ECANCELED, "the host is stopping");
		end(v, &v->err);
		return;
	}
	v->totals.trees++;
	whole = is_whole(v);
	snprintf(hex, sizeof(hex), "%s", nest_tree_hex(v->tree));
	nest_tree_unref(nest_take_ptr(v->tree));
	if (!whole)
		condemn(v, hex);
	step(v);
}

static void step(struct verification *v)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_tree *tree = NULL;

	if (nest_loader_check_open(v->loader, &err) < 0) {
		end(v, &err);
		return;
	}
	while (!tree && v->next < v->n)
		tree = nest_cache_find(nest_loader_cache(v->loader), v->hexes[v->next++]);
	if (!tree) {
		end(v, NULL);
		return;
	}
	v->tree = nest_tree_ref(tree);
	strcpy(v->wanted, is_artifact(tree) ? nest_tree_hex(tree) : tree->content);
	v->record = !v->wanted[0] && !tree->unsettled;
	v->work.data = v;
	if (uv_queue_work(nest_loader_loop(v->loader), &v->work, read_on_pool, after_read) < 0) {
		nest_tree_unref(nest_take_ptr(v->tree));
		nest_err_say(&err, -ENOMEM, "queue a reading of the cache");
		end(v, &err);
	}
}

static bool note_hex(void *arg, struct nest_tree *tree)
{
	struct verification *v = arg;

	if (v->n < v->room)
		memcpy(v->hexes[v->n++], nest_tree_hex(tree), NEST_DIGEST_HEX_LEN);
	return true;
}

/* The first step comes on a later turn, so that no callback does before we return. */
static void nothing_on_pool(uv_work_t *work)
{
	(void)work;
}

static void after_nothing(uv_work_t *work, int status)
{
	(void)status;
	step(work->data);
}

int nest_loader_verify(struct nest_loader *loader,
	void (*damaged)(void *arg, const struct nest_tree *tree),
	void (*done)(
		void *arg, const struct nest_loader_verified *totals, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	struct verification *v = calloc(1, sizeof(*v));
	struct nest_cache_totals totals;
	int rc;

	if (!v)
		return nest_err_set(err, -ENOMEM, "verify the code cache");
	nest_cache_totals(nest_loader_cache(loader), &totals);
	v->room = (size_t)totals.trees;
	v->hexes = calloc(v->room + 1, sizeof(*v->hexes));
	v->load = nest_loader_new_load(loader, err);
	rc = v->hexes && v->load ? nest_loader_begin_upload(loader, err)
				 : nest_err_set(err, -ENOMEM, "verify the code cache");
	if (rc < 0) {
		free_verification(v);
		return rc;
	}
	v->loader = loader;
	v->damaged = damaged;
	v->done = done;
	v->arg = arg;
	nest_cache_each(nest_loader_cache(loader), note_hex, v);
	v->work.data = v;
	rc = uv_queue_work(nest_loader_loop(loader), &v->work, nothing_on_pool, after_nothing);
	if (rc < 0) {
		free_verification(v);
		nest_loader_end_upload(loader);
		return nest_err_set(err, rc, "verify the code cache");
	}
	return 0;
}
