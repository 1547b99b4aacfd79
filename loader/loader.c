/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's side of loading. The life of a load:
 *
 *	directory -> [digest on the pool] -+
 *	archive, digested as it came ------+-> in the cache? --------------------------> done
 *	                                        being made already? -> joins that one --> done
 *	                                        [make on the pool] -> index it ---------> done
 *
 * A load that is done waits in a list until the loop comes round, so that no callback runs from
 * within a call of its owner's. Closing turns the cancel flag of every load, which threads look at
 * between entries and blocks, and ends when the last work, upload and callback is through.
 */
#include "loader/loader.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/cache.h"
#include "loader/load.h"
#include "loader/tree.h"

struct nest_loader {
	uv_loop_t *loop;
	struct nest_cache *cache;
	struct nest_draft_limits limits;
	uv_idle_t idle;		   /* active while callbacks are due, or closing */
	struct nest_load *working; /* on the pool */
	struct nest_load *done;	   /* their callbacks are due */
	unsigned uploads;
	uv_work_t sweep;
	bool sweeping;
	bool sweep_again;
	bool closing;
	void (*close_cb)(void *arg);
	void *close_arg;
	struct nest_loader_stats stats; /* the counters of it */
};

static void on_closed(uv_handle_t *handle)
{
	struct nest_loader *loader = handle->data;
	void (*cb)(void *) = loader->close_cb;
	void *arg = loader->close_arg;

	nest_cache_unref(loader->cache);
	free(loader);
	if (cb)
		cb(arg);
}

static void close_if_idle(struct nest_loader *loader)
{
	bool busy = loader->working || loader->done || loader->uploads > 0 || loader->sweeping;

	if (!loader->closing || busy || uv_is_closing((uv_handle_t *)&loader->idle))
		return;
	uv_close((uv_handle_t *)&loader->idle, on_closed);
}

static void deliver(struct nest_loader *loader, struct nest_load *load)
{
	struct nest_tree *tree = nest_take_ptr(load->tree);

	if (loader->closing) {
		nest_tree_unref(nest_take_ptr(tree));
		load->rc = nest_err_say(&load->err, -ECANCELED, "the host is stopping");
	}
	if (load->rc < 0 && load->rc != -ECANCELED)
		loader->stats.failures_total++;
	load->cb(load->arg, tree, tree ? NULL : &load->err);
	nest_load_free(load);
}

static void on_idle(uv_idle_t *idle)
{
	struct nest_loader *loader = idle->data;
	struct nest_load *due = nest_take_ptr(loader->done);

	uv_idle_stop(idle);
	while (due) {
		struct nest_load *load = due;

		DL_DELETE(due, load);
		deliver(loader, load);
	}
	close_if_idle(loader);
}

static void finish(struct nest_load *load)
{
	struct nest_loader *loader = load->loader;

	if (load->archive[0]) {
		nest_cache_discard(loader->cache, load->archive);
		nest_loader_sweep(loader);
	}
	DL_APPEND(loader->done, load);
	uv_idle_start(&loader->idle, on_idle);
}

/* Ends @load and all that joined it with one result. */
static void finish_all(struct nest_load *load)
{
	struct nest_load *joined;
	struct nest_load *next;

	DL_FOREACH_SAFE(load->joined, joined, next) {
		DL_DELETE(load->joined, joined);
		joined->rc = load->rc;
		joined->err = load->err;
		if (load->tree) {
			joined->tree = nest_tree_ref(load->tree);
			load->loader->stats.hits_total++;
		}
		finish(joined);
	}
	finish(load);
}

static void fail_all(struct nest_load *load, int code, const char *text)
{
	load->rc = nest_err_say(&load->err, code, "%s", text);
	finish_all(load);
}

static void make_on_pool(uv_work_t *work)
{
	nest_load_make(work->data);
}

static void after_make(uv_work_t *work, int status);

static void queue(struct nest_load *load, uv_work_cb run, uv_after_work_cb after)
{
	int rc;

	load->work.data = load;
	rc = uv_queue_work(load->loader->loop, &load->work, run, after);
	if (rc < 0) {
		fail_all(load, rc, "queue a load on the thread pool");
		return;
	}
	DL_APPEND(load->loader->working, load);
}

/* Whether the attempt that met a full disk is worth another one. */
static bool retry_on_full_disk(struct nest_load *load)
{
	struct nest_loader *loader = load->loader;

	if (load->rc != -ENOSPC || load->retried || loader->closing)
		return false;
	if (nest_cache_evict(loader->cache, 0) == 0 && !loader->sweeping)
		return false;
	load->retried = true;
	queue(load, make_on_pool, after_make);
	return true;
}

static void after_make(uv_work_t *work, int status)
{
	struct nest_load *load = work->data;
	struct nest_loader *loader = load->loader;

	DL_DELETE(loader->working, load);
	if (status < 0) {
		fail_all(load, -ECANCELED, "the load was abandoned");
		return;
	}
	if (retry_on_full_disk(load))
		return;
	if (load->rc == -ENOSPC)
		nest_err_wrap(
			&load->err, "the code cache's disk is full, with nothing unused to evict");
	if (load->rc == 0)
		load->rc = nest_cache_add(
			loader->cache, load->hex, &load->totals, &load->tree, &load->err);
	if (load->rc < 0 && load->path)
		nest_err_wrap(&load->err, "import directory '%s'", load->path);
	finish_all(load);
	if (nest_cache_shrink(loader->cache) > 0)
		nest_loader_sweep(loader);
}

/* The load that makes @hex now, or NULL. */
static struct nest_load *find_maker(struct nest_loader *loader, const char *hex)
{
	struct nest_load *load;

	DL_FOREACH(loader->working, load)
		if (load->making && strcmp(load->hex, hex) == 0)
			return load;
	return NULL;
}

void nest_loader_start(struct nest_load *load)
{
	struct nest_loader *loader = load->loader;
	struct nest_tree *tree = nest_cache_find(loader->cache, load->hex);
	struct nest_load *maker = tree ? NULL : find_maker(loader, load->hex);

	if (load->rc < 0 || nest_loader_check_open(loader, &load->err) < 0) {
		load->rc = load->err.code;
		finish(load);
	} else if (tree) {
		load->tree = nest_tree_ref(tree);
		loader->stats.hits_total++;
		finish(load);
	} else if (maker) {
		DL_APPEND(maker->joined, load);
	} else {
		loader->stats.misses_total++;
		load->making = true;
		queue(load, make_on_pool, after_make);
	}
}

static void digest_on_pool(uv_work_t *work)
{
	nest_load_take_digest(work->data);
}

static void after_digest(uv_work_t *work, int status)
{
	struct nest_load *load = work->data;
	struct nest_loader *loader = load->loader;

	DL_DELETE(loader->working, load);
	if (status < 0 || loader->closing) {
		fail_all(load, -ECANCELED, "the load was abandoned");
	} else if (load->rc < 0) {
		nest_err_wrap(&load->err, "import directory '%s'", load->path);
		finish(load);
	} else {
		nest_loader_start(load);
	}
}

struct nest_load *nest_loader_new_load(struct nest_loader *loader, struct nest_err *err)
{
	struct nest_load *load = calloc(1, sizeof(*load));

	if (!load) {
		nest_err_set(err, -ENOMEM, "start a load");
		return NULL;
	}
	load->loader = loader;
	load->cache = loader->cache;
	load->limits = loader->limits;
	load->limits.cancel = &load->cancel;
	return load;
}

int nest_loader_import_dir(struct nest_loader *loader, const char *path, nest_loader_cb *cb,
	void *arg, struct nest_err *err)
{
	struct nest_load *load;
	int rc = nest_loader_check_open(loader, err);

	if (rc < 0)
		return rc;
	load = nest_loader_new_load(loader, err);
	if (!load)
		return -ENOMEM;
	load->cb = cb;
	load->arg = arg;
	load->path = strdup(path);
	if (!load->path) {
		nest_load_free(load);
		return nest_err_set(err, -ENOMEM, "import directory '%s'", path);
	}
	queue(load, digest_on_pool, after_digest);
	return 0;
}

static void sweep_on_pool(uv_work_t *work)
{
	struct nest_loader *loader = work->data;

	nest_cache_sweep(loader->cache);
}

static void after_sweep(uv_work_t *work, int status)
{
	struct nest_loader *loader = work->data;

	(void)status;
	loader->sweeping = false;
	if (loader->sweep_again)
		nest_loader_sweep(loader);
	close_if_idle(loader);
}

void nest_loader_sweep(struct nest_loader *loader)
{
	loader->sweep_again = loader->sweeping;
	if (loader->sweeping)
		return;
	loader->sweep.data = loader;
	/* Not queued is not lost: the next sweep, or the next open, takes it along. */
	loader->sweeping =
		uv_queue_work(loader->loop, &loader->sweep, sweep_on_pool, after_sweep) == 0;
}

static void on_over(void *arg)
{
	struct nest_loader *loader = arg;

	if (nest_cache_shrink(loader->cache) > 0)
		nest_loader_sweep(loader);
}

bool nest_loader_make_room(struct nest_loader *loader)
{
	bool any = nest_cache_evict(loader->cache, 0) > 0 || loader->sweeping;

	if (any)
		nest_cache_sweep(loader->cache);
	return any;
}

int nest_loader_check_open(const struct nest_loader *loader, struct nest_err *err)
{
	return loader->closing ? nest_err_say(err, -ECANCELED, "the host is stopping") : 0;
}

int nest_loader_begin_upload(struct nest_loader *loader, struct nest_err *err)
{
	int rc = nest_loader_check_open(loader, err);

	if (rc == 0)
		loader->uploads++;
	return rc;
}

void nest_loader_end_upload(struct nest_loader *loader)
{
	assert(loader->uploads > 0);
	loader->uploads--;
	close_if_idle(loader);
}

int nest_loader_open(uv_loop_t *loop, const struct nest_loader_config *config,
	struct nest_loader **ret, struct nest_err *err)
{
	struct nest_loader *loader = calloc(1, sizeof(*loader));
	int rc;

	if (!loader)
		return nest_err_set(err, -ENOMEM, "open the loader");
	rc = nest_cache_open(config->dir, config->max_bytes, &loader->cache, err);
	if (rc < 0) {
		free(loader);
		return rc;
	}
	loader->loop = loop;
	loader->limits.max_bytes = config->max_tree_bytes;
	loader->limits.max_entries = config->max_tree_entries;
	uv_idle_init(loop, &loader->idle); /* never fails */
	loader->idle.data = loader;
	nest_cache_set_over_cb(loader->cache, on_over, loader);
	*ret = loader;
	return 0;
}

void nest_loader_close(struct nest_loader *loader, void (*cb)(void *arg), void *arg)
{
	struct nest_load *load;

	assert(!loader->closing);
	loader->closing = true;
	loader->close_cb = cb;
	loader->close_arg = arg;
	/* What is evicted from now on would be swept by nobody. */
	nest_cache_set_over_cb(loader->cache, NULL, NULL);
	DL_FOREACH(loader->working, load) {
		atomic_store(&load->cancel, true);
		(void)uv_cancel((uv_req_t *)&load->work); /* -EBUSY: a thread has it */
	}
	uv_idle_start(&loader->idle, on_idle);
}

int nest_loader_find(struct nest_loader *loader, const char *digest, struct nest_tree **ret,
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
	tree = nest_cache_find(loader->cache, digest + prefix);
	if (!tree)
		return 1;
	*ret = nest_tree_ref(tree);
	loader->stats.hits_total++;
	return 0;
}

void nest_loader_stats(const struct nest_loader *loader, struct nest_loader_stats *ret)
{
	struct nest_cache_totals totals;

	nest_cache_totals(loader->cache, &totals);
	*ret = loader->stats;
	ret->bytes = totals.disk;
	ret->trees = totals.trees;
	ret->evictions_total = totals.evictions;
}
