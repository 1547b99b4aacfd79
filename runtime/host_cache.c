/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "loader/loader.h"
#include "loader/reference.h"
#include "runtime/host_impl.h"

/* The code cache as the agent may see it. */

struct visit {
	bool (*cb)(void *arg, const struct nest_host_tree *tree);
	void *arg;
};

static bool on_tree(void *arg, const struct nest_tree *tree)
{
	const struct visit *visit = arg;
	const struct nest_host_tree seen = {
		.digest = nest_tree_digest(tree),
		.bytes = nest_tree_bytes(tree),
		.image = nest_tree_kind(tree) == NEST_TREE_IMAGE,
		.in_use = nest_tree_in_use(tree),
	};

	return visit->cb(visit->arg, &seen);
}

void nest_host_each_tree(
	struct nest_host *host, bool (*cb)(void *arg, const struct nest_host_tree *tree), void *arg)
{
	struct visit visit = { .cb = cb, .arg = arg };

	nest_loader_each(host->loader, on_tree, &visit);
}

int nest_host_cache_remove(struct nest_host *host, const char *digest, struct nest_err *err)
{
	return nest_loader_remove(host->loader, digest, err);
}

/* ---- verifying ---- */

struct verification {
	void (*damaged)(void *arg, const char *digest);
	void (*done)(
		void *arg, const struct nest_host_verified *totals, const struct nest_err *err);
	void *arg;
};

static void on_damaged(void *arg, const struct nest_tree *tree)
{
	const struct verification *v = arg;

	v->damaged(v->arg, nest_tree_digest(tree));
}

static void on_verified(
	void *arg, const struct nest_loader_verified *totals, const struct nest_err *err)
{
	struct verification *v = arg;
	const struct nest_host_verified seen = {
		.trees = totals->trees,
		.recorded = totals->recorded,
		.removed = totals->removed,
		.in_use = totals->in_use,
	};

	v->done(v->arg, &seen, err);
	free(v);
}

int nest_host_cache_verify(struct nest_host *host, void (*damaged)(void *arg, const char *digest),
	void (*done)(
		void *arg, const struct nest_host_verified *totals, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	struct verification *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return nest_err_set(err, -ENOMEM, "verify the code cache");
	*v = (struct verification){ .damaged = damaged, .done = done, .arg = arg };
	r = nest_loader_verify(host->loader, on_damaged, on_verified, v, err);
	if (r < 0)
		free(v);
	return r;
}

/* ---- prefetching ---- */

struct prefetch {
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err);
	void *arg;
};

/* The tree stays without our reference, as one that may go when room is wanted. */
static void on_prefetched(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct prefetch *prefetch = arg;

	if (tree)
		prefetch->cb(prefetch->arg, nest_tree_digest(tree), nest_tree_bytes(tree), NULL);
	else
		prefetch->cb(prefetch->arg, NULL, 0, err);
	nest_tree_unref(tree);
	free(prefetch);
}

int nest_host_cache_prefetch(struct nest_host *host, const char *url, const char *digest,
	uint64_t size,
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	const struct nest_reference reference = { .url = url, .digest = digest, .size = size };
	struct prefetch *prefetch = calloc(1, sizeof(*prefetch));
	int r;

	if (!prefetch)
		return nest_err_set(err, -ENOMEM, "prefetch code");
	prefetch->cb = cb;
	prefetch->arg = arg;
	r = nest_loader_load(host->loader, &reference, 1, on_prefetched, prefetch, err);
	if (r < 0)
		free(prefetch);
	return r;
}
