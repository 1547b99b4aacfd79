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
#include "loader/gather.h"
#include "loader/load.h"
#include "loader/record.h"
#include "loader/tree.h"

struct nest_loader {
	uv_loop_t *loop;
	struct nest_cache *cache;
	struct nest_gather *gather; /* NULL once it is closed */
	struct nest_draft_limits limits;
	char **image_sources;	   /* NULL-terminated, or NULL */
	bool zstd_images;	   /* archives may become images */
	uv_idle_t idle;		   /* active while callbacks are due, or closing */
	struct nest_load *working; /* on the pool */
	struct nest_load *done;	   /* their callbacks are due */
	unsigned uploads;
	uv_work_t sweep;
	bool sweeping;
	bool sweep_again;
	unsigned settling;	    /* trees in use that are being made durable */
	bool gathering;		    /* gather's handles aren't closed yet */
	struct nest_record *record; /* NULL once it is being closed */
	bool recording;		    /* its handles aren't closed yet */
	bool closing;
	void (*close_cb)(void *arg);
	void *close_arg;
	struct nest_loader_stats stats; /* the counters of it */
};

static void free_sources(char **sources)
{
	for (char **source = sources; source && *source; source++)
		free(*source);
	free(sources);
}

/* NULL for lack of memory. */
static char **copy_sources(const char *const *sources)
{
	size_t n = 0;
	char **copy;

	while (sources && sources[n])
		n++;
	copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(sources[i]);
		if (!copy[i]) {
			free_sources(copy);
			return NULL;
		}
	}
	return copy;
}

static void on_closed(uv_handle_t *handle)
{
	struct nest_loader *loader = handle->data;
	void (*cb)(void *) = loader->close_cb;
	void *arg = loader->close_arg;

	nest_cache_unref(loader->cache);
	free_sources(loader->image_sources);
	free(loader);
	if (cb)
		cb(arg);
}

static void on_gather_closed(void *arg);

static void close_if_idle(struct nest_loader *loader)
{
	bool busy = loader->working || loader->done || loader->uploads > 0 || loader->sweeping ||
		    loader->settling > 0 || loader->recording;

	if (!loader->closing || busy || uv_is_closing((uv_handle_t *)&loader->idle))
		return;
	if (loader->gather)
		nest_gather_close(nest_take_ptr(loader->gather), on_gather_closed, loader);
	else if (!loader->gathering)
		uv_close((uv_handle_t *)&loader->idle, on_closed);
}

static void on_gather_closed(void *arg)
{
	struct nest_loader *loader = arg;

	loader->gathering = false;
	close_if_idle(loader);
}

static void on_record_closed(void *arg)
{
	struct nest_loader *loader = arg;

	loader->recording = false;
	close_if_idle(loader);
}

/* There may be trees now of whose content nothing is known. */
static void start_record(struct nest_loader *loader)
{
	if (loader->record)
		nest_record_start(loader->record);
}

static const struct {
	const char *name;
	int codes[8];
} causes[NEST_LOADER_CAUSES] = {
	[NEST_LOADER_CAUSE_NETWORK] = { "network",
		{ -EHOSTUNREACH, -ECONNREFUSED, -ECONNRESET, -ECONNABORTED, -ETIMEDOUT } },
	[NEST_LOADER_CAUSE_SERVER] = { "server",
		{ -EREMOTEIO, -EPROTO, -ESTALE, -EACCES, -ENOENT } },
	[NEST_LOADER_CAUSE_DIGEST] = { "digest", { -EKEYREJECTED } },
	[NEST_LOADER_CAUSE_ARCHIVE] = { "archive",
		{ -EBADMSG, -EEXIST, -EINVAL, -ENAMETOOLONG, -EILSEQ } },
	[NEST_LOADER_CAUSE_LIMIT] = { "limit", { -EFBIG, -E2BIG } },
	[NEST_LOADER_CAUSE_DISK] = { "disk", { -ENOSPC, -EDQUOT, -EROFS, -EIO } },
	[NEST_LOADER_CAUSE_OTHER] = { "other", { 0 } },
};

const char *nest_loader_cause_name(enum nest_loader_cause cause)
{
	return causes[cause].name;
}

static enum nest_loader_cause cause_of(int code)
{
	for (size_t i = 0; i < NEST_LOADER_CAUSES; i++)
		for (size_t k = 0; k < NEST_ARRAY_SIZE(causes[i].codes); k++)
			if (causes[i].codes[k] == code)
				return (enum nest_loader_cause)i;
	return NEST_LOADER_CAUSE_OTHER;
}

static void deliver(struct nest_loader *loader, struct nest_load *load)
{
	struct nest_tree *tree = nest_take_ptr(load->tree);

	if (loader->closing) {
		nest_tree_unref(nest_take_ptr(tree));
		load->rc = nest_err_say(&load->err, -ECANCELED, "the host is stopping");
	}
	if (load->rc < 0 && load->rc != -ECANCELED) {
		loader->stats.failures_total++;
		loader->stats.failures_by_cause[cause_of(load->rc)]++;
	}
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
		finish_all(joined);
	}
	finish(load);
}

/* Puts before what went wrong what it went wrong with. */
static void word_failure(struct nest_load *load)
{
	if (load->rc == 0)
		return;
	if (load->rc == -ENOSPC)
		nest_err_wrap(
			&load->err, "the code cache's disk is full, with nothing unused to evict");
	if (load->shown)
		nest_err_wrap(&load->err, "load '%s'", load->shown);
	else if (load->path)
		nest_err_wrap(&load->err, "import directory '%s'", load->path);
}

void nest_loader_fail(struct nest_load *load, int code)
{
	load->rc = code;
	word_failure(load);
	finish_all(load);
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
static bool retry_on_full_disk(struct nest_load *load, uv_work_cb run, uv_after_work_cb after)
{
	struct nest_loader *loader = load->loader;

	if (load->rc != -ENOSPC || load->retried || loader->closing)
		return false;
	if (nest_cache_evict(loader->cache, 0) == 0 && !loader->sweeping)
		return false;
	if (nest_gather_rewind(load) < 0)
		return false;
	load->retried = true;
	queue(load, run, after);
	return true;
}

/* A tree that is in use already, on its way to being durable. */
struct settle {
	uv_work_t work;
	struct nest_loader *loader;
	struct nest_cache *cache;
	struct nest_tree *tree;
	struct nest_draft_totals totals;
	int rc;
};

static void settle_on_pool(uv_work_t *work)
{
	struct settle *settle = work->data;

	settle->rc = nest_cache_settle(
		settle->cache, nest_tree_hex(settle->tree), &settle->totals, NULL);
}

static void after_settle(uv_work_t *work, int status)
{
	struct settle *settle = work->data;
	struct nest_loader *loader = settle->loader;

	/* It stays for those who run now, and is loaded anew by the next host. */
	if (status < 0 || settle->rc < 0)
		loader->stats.failures_total++;
	else
		settle->tree->unsettled = false;
	nest_tree_unref(settle->tree);
	free(settle);
	loader->settling--;
	start_record(loader);
	close_if_idle(loader);
}

/* Makes durable what was only placed. Its reference keeps the tree from being evicted meanwhile. */
static void settle_later(struct nest_load *load)
{
	struct settle *settle = calloc(1, sizeof(*settle));

	load->tree->unsettled = true;
	if (settle) {
		settle->work.data = settle;
		settle->loader = load->loader;
		settle->cache = load->cache;
		settle->tree = nest_tree_ref(load->tree);
		settle->totals = load->totals;
		load->loader->settling++;
		if (uv_queue_work(load->loader->loop, &settle->work, settle_on_pool, after_settle) <
			0)
			after_settle(&settle->work, UV_ENOMEM);
	} else {
		load->loader->stats.failures_total++;
	}
}

static void after_make(uv_work_t *work, int status)
{
	struct nest_load *load = work->data;
	struct nest_loader *loader = load->loader;

	DL_DELETE(loader->working, load);
	if (status < 0) {
		nest_gather_release(load);
		fail_all(load, -ECANCELED, "the load was abandoned");
		return;
	}
	if (retry_on_full_disk(load, make_on_pool, after_make))
		return;
	nest_gather_release(load);
	loader->stats.make_us_total += load->make_us;
	if (load->rc == 0) {
		loader->stats.made_bytes_total += load->totals.bytes;
		load->rc = nest_cache_add(
			loader->cache, load->hex, &load->totals, &load->tree, &load->err);
		/* what is sealed is read once, and removed: not to be held up by being recorded */
		if (load->rc == 0 && load->sealed)
			load->tree->tried = true;
	}
	word_failure(load);
	if (load->rc == 0 && load->placed)
		settle_later(load);
	else if (load->rc == 0)
		start_record(loader);
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
	return nest_gather_find(loader->gather, hex);
}

void nest_loader_start(struct nest_load *load)
{
	struct nest_loader *loader = load->loader;
	struct nest_tree *tree = nest_cache_find(loader->cache, load->hex);
	struct nest_load *maker = tree ? NULL : find_maker(loader, load->hex);

	if (load->rc < 0 || nest_loader_check_open(loader, &load->err) < 0) {
		load->rc = load->err.code;
		finish_all(load);
	} else if (tree) {
		load->tree = nest_tree_ref(tree);
		loader->stats.hits_total++;
		finish_all(load);
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
	if (status == 0 && retry_on_full_disk(load, digest_on_pool, after_digest))
		return;
	nest_gather_release(load);
	if (status < 0 || loader->closing) {
		fail_all(load, -ECANCELED, "the load was abandoned");
	} else if (load->rc < 0) {
		word_failure(load);
		finish_all(load);
	} else {
		load->retried = false;
		nest_loader_start(load);
	}
}

void nest_loader_queue_digest(struct nest_load *load)
{
	queue(load, digest_on_pool, after_digest);
}

void nest_loader_queue_make(struct nest_load *load)
{
	queue(load, make_on_pool, after_make);
}

bool nest_loader_has(struct nest_loader *loader, const char *hex)
{
	return nest_cache_find(loader->cache, hex) || find_maker(loader, hex);
}

struct nest_loader_stats *nest_loader_counters(struct nest_loader *loader)
{
	return &loader->stats;
}

int nest_loader_load(struct nest_loader *loader, const struct nest_reference *references, size_t n,
	nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	int rc = nest_loader_check_open(loader, err);

	return rc < 0 ? rc : nest_gather_load(loader->gather, references, n, cb, arg, err);
}

int nest_loader_unpack(struct nest_loader *loader, struct nest_tree *tree, nest_loader_cb *cb,
	void *arg, struct nest_err *err)
{
	int rc = nest_loader_check_open(loader, err);

	return rc < 0 ? rc : nest_gather_unpack(loader->gather, tree, cb, arg, err);
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
	load->image_sources = (const char *const *)loader->image_sources;
	load->zstd_images = loader->zstd_images;
	load->limits.cancel = &load->cancel;
	load->fd = -1;
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

struct nest_cache *nest_loader_cache(struct nest_loader *loader)
{
	return loader->cache;
}

uv_loop_t *nest_loader_loop(struct nest_loader *loader)
{
	return loader->loop;
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

static void fail_open(struct nest_loader *loader)
{
	if (loader->gather)
		nest_gather_close(loader->gather, NULL, NULL);
	nest_cache_unref(loader->cache);
	free_sources(loader->image_sources);
	free(loader);
}

int nest_loader_open(uv_loop_t *loop, const struct nest_loader_config *config,
	struct nest_loader **ret, struct nest_err *err)
{
	struct nest_loader *loader = calloc(1, sizeof(*loader));
	int rc;

	if (!loader)
		return nest_err_set(err, -ENOMEM, "open the loader");
	loader->image_sources = copy_sources(config->image_sources);
	loader->zstd_images = config->zstd_images;
	loader->loop = loop;
	rc = nest_gather_new(loader, loop, config, &loader->gather, err);
	if (rc == 0)
		rc = loader->image_sources
			     ? nest_cache_open(config->dir, config->max_bytes, &loader->cache, err)
			     : nest_err_set(err, -ENOMEM, "open the loader");
	if (rc < 0) {
		fail_open(loader);
		return rc;
	}
	loader->gathering = true;
	loader->limits.max_bytes = config->max_tree_bytes;
	loader->limits.max_entries = config->max_tree_entries;
	rc = nest_record_open(loop, loader->cache, &loader->limits, &loader->record, err);
	if (rc < 0) {
		fail_open(loader);
		return rc;
	}
	loader->recording = true;
	uv_idle_init(loop, &loader->idle); /* never fails */
	loader->idle.data = loader;
	nest_cache_set_over_cb(loader->cache, on_over, loader);
	start_record(loader);
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
	nest_record_close(nest_take_ptr(loader->record), on_record_closed, loader);
	nest_gather_cancel(loader->gather);
	DL_FOREACH(loader->working, load) {
		atomic_store(&load->cancel, true);
		(void)uv_cancel((uv_req_t *)&load->work); /* -EBUSY: a thread has it */
	}
	uv_idle_start(&loader->idle, on_idle);
}

int nest_loader_find(struct nest_loader *loader, const char *digest, struct nest_tree **ret,
	struct nest_err *err)
{
	struct nest_tree *tree;
	int rc = nest_loader_look(loader, digest, &tree, err);

	if (rc != 0)
		return rc;
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
