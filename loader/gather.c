/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From references to loads:
 *
 *	in the cache, or being made -----------------------------------> nest_loader_start()
 *	a local file or directory ---> [digest on the pool] -----------> nest_loader_start()
 *	remote, digest known ---> first bytes --> [make on the pool, while the rest comes]
 *	remote, digest unknown -> last byte ----> [digest on the pool] -> nest_loader_start()
 *
 * Several references are loaded each for itself, so that functions share them, and merged then into
 * a tree that has a digest of its own, made of theirs.
 *
 * A thread of the pool that makes a tree from what arrives waits for the network. At most
 * STREAMING do: the pool has four threads, and a server that pauses mustn't stop the others'
 * loads. A load that finds no room waits for it, or until all its bytes are there.
 */
#include "loader/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/fetch.h"
#include "loader/fetcher.h"
#include "loader/layers.h"
#include "loader/load.h"
#include "loader/tree.h"

#define STREAMING 2
#define LAYERS_MAX 32

struct nest_gather {
	struct nest_loader *loader;
	uv_loop_t *loop;
	struct nest_fetcher_config config; /* the strings are ours */
	bool allow_unverified;
	struct nest_fetcher *fetcher; /* NULL until the first remote load */
	struct nest_load *waiting;    /* for their download's first or last byte */
	struct nest_load *reading;    /* on the pool, with a download */
	unsigned streaming;
	unsigned closing; /* fetchers that are */
	bool ended;	  /* so is this */
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* ---- one download ---- */

static void queue(struct nest_load *load)
{
	struct nest_gather *gather = load->gather;
	int rc;

	DL_DELETE2(gather->waiting, load, gather_prev, gather_next);
	DL_APPEND2(gather->reading, load, gather_prev, gather_next);
	load->reading = true;
	rc = nest_fetch_stream_open(load->fetch, &load->stream, &load->err);
	if (rc < 0) {
		nest_gather_release(load);
		nest_loader_fail(load, rc);
		return;
	}
	if (!load->complete) {
		load->streams = true;
		gather->streaming++;
	}
	if (load->making)
		nest_loader_queue_make(load);
	else
		nest_loader_queue_digest(load);
}

static void on_begun(void *arg)
{
	struct nest_load *load = arg;

	load->begun = true;
	if (load->making && load->gather->streaming < STREAMING)
		queue(load);
}

static void on_done(void *arg, const struct nest_err *err)
{
	struct nest_load *load = arg;

	load->complete = true;
	if (load->reading)
		return; /* it sees the end, or the error, where it reads */
	if (!err) {
		queue(load);
		return;
	}
	load->err = *err;
	nest_gather_release(load);
	/* @err went with the download. */
	nest_loader_fail(load, load->err.code);
}

static bool on_full(void *arg)
{
	struct nest_load *load = arg;

	return nest_loader_make_room(load->loader);
}

static void start_next(struct nest_gather *gather)
{
	struct nest_load *load, *next;

	DL_FOREACH_SAFE2(gather->waiting, load, next, gather_next)
	{
		if (gather->streaming >= STREAMING ||
			nest_loader_check_open(gather->loader, NULL) < 0)
			return;
		if (load->begun && load->making)
			queue(load);
	}
}

void nest_gather_release(struct nest_load *load)
{
	struct nest_gather *gather = load->gather;
	struct nest_loader_stats *stats = nest_loader_counters(load->loader);
	struct nest_fetch_totals totals;

	if (!load->fetch)
		return;
	nest_fetch_totals(load->fetch, &totals);
	stats->fetched_bytes_total += totals.bytes;
	stats->fetch_us_total += totals.us;
	stats->fetch_retries_total += totals.retries;
	nest_fetch_stream_free(nest_take_ptr(load->stream));
	nest_fetch_close(nest_take_ptr(load->fetch));
	nest_cleanup_close(&load->fd);
	load->fd = -1;
	if (load->reading)
		DL_DELETE2(gather->reading, load, gather_prev, gather_next);
	else
		DL_DELETE2(gather->waiting, load, gather_prev, gather_next);
	load->reading = false;
	gather->streaming -= load->streams;
	load->streams = false;
	start_next(gather);
}

int nest_gather_rewind(struct nest_load *load)
{
	struct nest_err why;

	if (!load->fetch)
		return 0;
	if (nest_fetch_stream_failed(load->stream, &why))
		return why.code;
	nest_fetch_stream_free(nest_take_ptr(load->stream));
	return nest_fetch_stream_open(load->fetch, &load->stream, &load->err);
}

static int open_staging(struct nest_load *load, struct nest_err *err)
{
	nest_cache_name(load->cache, "fetch", load->archive);
	load->fd = openat(nest_cache_staging_fd(load->cache), load->archive,
		O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (load->fd >= 0)
		return 0;
	load->archive[0] = '\0';
	return nest_err_set(err, -errno, "create a staging file in the code cache");
}

static void free_gather(struct nest_gather *gather)
{
	void (*cb)(void *) = gather->close_cb;
	void *cb_arg = gather->close_arg;

	free((char *)gather->config.ca_file);
	free((char *)gather->config.credentials_file);
	free(gather);
	if (cb)
		cb(cb_arg);
}

static void on_fetcher_closed(void *arg)
{
	struct nest_gather *gather = arg;

	if (--gather->closing == 0 && gather->ended)
		free_gather(gather);
}

/* What it holds are descriptors and memory, of which an idle host has none too many. */
static void close_fetcher(void *arg)
{
	struct nest_gather *gather = arg;

	gather->closing++;
	nest_fetcher_close(nest_take_ptr(gather->fetcher), on_fetcher_closed, gather);
}

static int start_fetch(struct nest_gather *gather, struct nest_load *load, struct nest_err *err)
{
	static const struct nest_fetch_events events = {
		.begun = on_begun, .done = on_done, .make_room = on_full
	};
	int rc = 0;

	if (!gather->fetcher)
		rc = nest_fetcher_open(gather->loop, &gather->config, close_fetcher, gather,
			&gather->fetcher, err);
	if (rc == 0)
		rc = open_staging(load, err);
	if (rc == 0)
		rc = nest_fetch_open(gather->fetcher, load->url, load->size, load->fd, &events,
			load, &load->fetch, err);
	if (rc < 0)
		return rc;
	DL_APPEND2(gather->waiting, load, gather_prev, gather_next);
	return 0;
}

struct nest_load *nest_gather_find(struct nest_gather *gather, const char *hex)
{
	struct nest_load *load;

	DL_FOREACH2(gather->waiting, load, gather_next)
	if (load->making && strcmp(load->hex, hex) == 0)
		return load;
	return NULL;
}

/* The download of an artifact without a digest that is under way already. */
static struct nest_load *find_same_url(struct nest_gather *gather, const char *url, uint64_t size)
{
	struct nest_load *load;

	DL_FOREACH2(gather->waiting, load, gather_next)
	if (!load->making && load->size == size && strcmp(load->url, url) == 0)
		return load;
	return NULL;
}

/* ---- one reference ---- */

static int take_names(
	struct nest_load *load, const struct nest_reference *reference, struct nest_err *err)
{
	const char *shown = reference->url ? reference->url : reference->digest;

	load->size = reference->size;
	load->format = reference->format;
	load->sealed = reference->sealed;
	load->source = "admin";
	load->shown = strndup(shown, nest_reference_shown(shown));
	if (reference->url)
		load->url = strdup(reference->url);
	if (!load->shown || (reference->url && !load->url))
		return nest_err_set(err, -ENOMEM, "start a load");
	if (load->url)
		load->source = load->url;
	if (reference->digest) {
		load->verified = true;
		strcpy(load->hex, reference->digest + sizeof(NEST_DIGEST_PREFIX) - 1);
	}
	return 0;
}

static int start_local(struct nest_load *load, const char *path, struct nest_err *err)
{
	load->path = strdup(path);
	if (!load->path)
		return nest_err_set(err, -ENOMEM, "start a load");
	load->placed = load->verified;
	nest_loader_queue_digest(load);
	return 0;
}

static int start_remote(struct nest_gather *gather, struct nest_load *load, struct nest_err *err)
{
	struct nest_load *same = NULL;
	int rc;

	if (!load->verified && !load->sealed && !gather->allow_unverified)
		return nest_err_say(err, -EINVAL,
			"code from a server needs its sha256 (loader.allowUnverified would let it "
			"go without)");
	if (!load->verified)
		same = find_same_url(gather, load->url, load->size);
	if (same) {
		DL_APPEND(same->joined, load);
		return 0;
	}
	rc = start_fetch(gather, load, err);
	if (rc < 0)
		return rc;
	load->making = load->placed = load->verified;
	if (load->verified)
		nest_loader_counters(gather->loader)->misses_total++;
	return 0;
}

static int check_digest(const struct nest_reference *reference, struct nest_err *err)
{
	const size_t prefix = sizeof(NEST_DIGEST_PREFIX) - 1;

	if (!reference->digest)
		return reference->url ? 0
				      : nest_err_say(err, -EINVAL,
						"a reference without url and digest names nothing");
	if (strncmp(reference->digest, NEST_DIGEST_PREFIX, prefix) == 0 &&
		nest_digest_check_hex(reference->digest + prefix) == 0)
		return 0;
	return nest_err_say(err, -EINVAL,
		"'%.80s' is no digest: it must be '" NEST_DIGEST_PREFIX
		"' and 64 lower-case hexadecimal digits",
		reference->digest);
}

/* Takes @load, whose names are set, into one of the ways; on failure it is still the caller's. */
static int start_one(struct nest_gather *gather, struct nest_load *load,
	const struct nest_reference *reference, struct nest_err *err)
{
	struct nest_reference_parts parts;
	int rc;

	if (load->verified && nest_loader_has(gather->loader, load->hex)) {
		nest_loader_start(load);
		return 0;
	}
	if (!reference->url)
		return nest_err_say(err, -ENOENT, "it is not in the cache: upload it first");
	rc = nest_reference_parse(reference->url, &parts, err);
	if (rc < 0)
		return rc;
	return parts.kind == NEST_REFERENCE_PATH ? start_local(load, parts.path, err)
						 : start_remote(gather, load, err);
}

static int load_one(struct nest_gather *gather, const struct nest_reference *reference,
	bool in_layers, nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	struct nest_err cause = NEST_ERR_INIT;
	struct nest_load *load;
	int rc = check_digest(reference, err);

	if (rc < 0)
		return rc;
	load = nest_loader_new_load(gather->loader, err);
	if (!load)
		return -ENOMEM;
	load->gather = gather;
	load->in_layers = in_layers;
	load->cb = cb;
	load->arg = arg;
	rc = take_names(load, reference, &cause);
	if (rc == 0)
		rc = start_one(gather, load, reference, &cause);
	if (rc == 0)
		return 0;
	if (load->shown)
		nest_err_wrap(&cause, "load '%s'", load->shown);
	if (load->archive[0]) {
		nest_cache_discard(load->cache, load->archive);
		nest_loader_sweep(gather->loader);
	}
	nest_cleanup_close(&load->fd);
	nest_load_free(load);
	if (err)
		*err = cause;
	return rc;
}

/* ---- layers ---- */

struct layer {
	struct layers *all;
	struct nest_tree *tree;
};

/* An ordered list of references under way. */
struct layers {
	struct nest_gather *gather;
	nest_loader_cb *cb;
	void *arg;
	size_t n;
	size_t missing;
	struct nest_err err; /* the first one */
	struct layer layer[];
};

static void free_layers(struct layers *all)
{
	for (size_t i = 0; i < all->n; i++)
		nest_tree_unref(all->layer[i].tree);
	free(all);
}

/* Starts a load that merges @n @trees (borrowed), lowest first, which answers @cb. */
static int merge(struct nest_gather *gather, struct nest_tree *const *trees, size_t n,
	nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	struct nest_load *load = nest_loader_new_load(gather->loader, err);
	const char *hexes[LAYERS_MAX];
	int rc;

	if (!load)
		return -ENOMEM;
	load->gather = gather;
	load->cb = cb;
	load->arg = arg;
	load->placed = true;
	load->shown = strdup(n > 1 ? "layers" : nest_tree_digest(trees[0]));
	load->layers = calloc(n, sizeof(struct nest_tree *));
	rc = load->layers && load->shown ? 0 : nest_err_set(err, -ENOMEM, "merge layers");
	for (size_t i = 0; rc == 0 && i < n; i++)
		hexes[i] = nest_tree_hex(trees[i]);
	if (rc == 0)
		rc = nest_layers_digest(hexes, n, load->hex, err);
	if (rc < 0) {
		nest_load_free(load);
		return rc;
	}
	for (size_t i = 0; i < n; i++)
		load->layers[load->n_layers++] = nest_tree_ref(trees[i]);
	nest_loader_start(load);
	return 0;
}

int nest_gather_unpack(struct nest_gather *gather, struct nest_tree *tree, nest_loader_cb *cb,
	void *arg, struct nest_err *err)
{
	return merge(gather, &tree, 1, cb, arg, err);
}

/* All layers are there. */
static int merge_all(struct layers *all, struct nest_err *err)
{
	struct nest_tree *trees[LAYERS_MAX];

	for (size_t i = 0; i < all->n; i++)
		trees[i] = all->layer[i].tree;
	return merge(all->gather, trees, all->n, all->cb, all->arg, err);
}

static void finish_layers(struct layers *all)
{
	int rc = all->err.code;

	if (rc == 0)
		rc = merge_all(all, &all->err);
	if (rc < 0)
		all->cb(all->arg, NULL, &all->err);
	free_layers(all);
}

static void on_layer(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct layer *layer = arg;
	struct layers *all = layer->all;

	layer->tree = tree;
	if (err && all->err.code == 0) {
		all->err = *err;
		nest_err_wrap(&all->err, "layer %zu", (size_t)(layer - all->layer) + 1);
	}
	if (--all->missing == 0)
		finish_layers(all);
}

static int load_layers(struct nest_gather *gather, const struct nest_reference *references,
	size_t n, nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	struct layers *all = calloc(1, sizeof(*all) + n * sizeof(all->layer[0]));
	int rc = 0;

	if (!all)
		return nest_err_set(err, -ENOMEM, "load layers");
	all->gather = gather;
	all->cb = cb;
	all->arg = arg;
	for (; rc == 0 && all->n < n; all->n++) {
		struct layer *layer = &all->layer[all->n];

		layer->all = all;
		rc = load_one(gather, &references[all->n], true, on_layer, layer, &all->err);
		if (rc < 0)
			break;
		all->missing++;
	}
	if (rc == 0)
		return 0;
	nest_err_wrap(&all->err, "layer %zu", all->n + 1);
	/* Those that were started still answer; the last of them ends it. */
	if (all->missing > 0)
		return 0;
	if (err)
		*err = all->err;
	free_layers(all);
	return rc;
}

int nest_gather_load(struct nest_gather *gather, const struct nest_reference *references, size_t n,
	nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	if (n == 0 || n > LAYERS_MAX)
		return nest_err_say(
			err, -EINVAL, "%zu layers: there must be 1 to %d", n, LAYERS_MAX);
	if (n > 1)
		return load_layers(gather, references, n, cb, arg, err);
	return load_one(gather, references, false, cb, arg, err);
}

/* ---- opening and closing ---- */

int nest_gather_new(struct nest_loader *loader, uv_loop_t *loop,
	const struct nest_loader_config *config, struct nest_gather **ret, struct nest_err *err)
{
	struct nest_gather *gather = calloc(1, sizeof(*gather));

	if (!gather)
		return nest_err_set(err, -ENOMEM, "open the loader");
	gather->loader = loader;
	gather->loop = loop;
	gather->config = config->fetch;
	gather->allow_unverified = config->allow_unverified;
	gather->config.ca_file = strdup(config->fetch.ca_file ? config->fetch.ca_file : "");
	gather->config.credentials_file =
		strdup(config->fetch.credentials_file ? config->fetch.credentials_file : "");
	if (!gather->config.ca_file || !gather->config.credentials_file) {
		nest_gather_close(gather, NULL, NULL);
		return nest_err_set(err, -ENOMEM, "open the loader");
	}
	*ret = gather;
	return 0;
}

void nest_gather_cancel(struct nest_gather *gather)
{
	struct nest_load *load;

	while ((load = gather->waiting)) {
		nest_gather_release(load);
		nest_err_say(&load->err, -ECANCELED, "the host is stopping");
		nest_loader_fail(load, -ECANCELED);
	}
	DL_FOREACH2(gather->reading, load, gather_next)
	nest_fetch_abort(load->fetch, -ECANCELED, "the host is stopping");
}

void nest_gather_close(struct nest_gather *gather, void (*cb)(void *arg), void *arg)
{
	gather->ended = true;
	gather->close_cb = cb;
	gather->close_arg = arg;
	if (gather->fetcher)
		close_fetcher(gather);
	else if (gather->closing == 0)
		free_gather(gather);
}
