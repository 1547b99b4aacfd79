/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/exchange.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "loader/loader.h"
#include "loader/reference.h"
#include "runtime/services.h"

/*
 *      fetch:   [loader: GET, decode, unpack] -> [spawner: prove the seal, copy] -> told
 *      publish: [spawner: tar into a pipe] + [thread: compress] -> [thread: PUT] -> told
 */

struct job {
	bool publish;
	char key[NEST_SNAPSHOT_KEY_CHARS + 1];
	nest_exchange_fetched_cb *cb; /* NULL: nobody waits any more */
	void *arg;
	struct job *prev, *next;
};

struct nest_exchange {
	struct nest_services *services;
	struct nest_loader *loader;
	char *url;
	char *staging;
	struct nest_fetcher_config fetch; /* strings of the host's config, which outlives this */
	struct job *jobs;
	struct job *running;
	struct nest_tree *tree; /* that is being imported */
	struct nest_publish *publish;
	bool stopped;
	struct nest_exchange_stats stats;
};

static void run_next(struct nest_exchange *exchange);

static void tell(struct nest_exchange *exchange, const char *what, const char *key,
	const struct nest_err *err)
{
	exchange->stats.failures_total++;
	nest_services_event(exchange->services, NEST_LOG_WARN, "%s snapshot '%.12s': %s", what, key,
		nest_err_text(err));
}

/* The running job has ended. */
static void finish(struct nest_exchange *exchange)
{
	free(exchange->running);
	exchange->running = NULL;
	run_next(exchange);
}

/* ---- fetching ---- */

static void end_fetch(struct nest_exchange *exchange, const struct nest_snapshot_view *view,
	const struct nest_err *err)
{
	struct job *job = exchange->running;
	bool missing = err && err->code == -ENOENT;

	if (view)
		exchange->stats.fetched_total++;
	else if (!missing && !exchange->stopped)
		tell(exchange, "fetch", job->key, err);
	if (job->cb && !exchange->stopped)
		job->cb(job->arg, view, missing ? NULL : err);
	finish(exchange);
}

static void on_imported(
	void *arg, const struct nest_snapshot_view *view, const struct nest_err *err)
{
	struct nest_exchange *exchange = arg;
	struct nest_err ignored = NEST_ERR_INIT;
	char digest[NEST_TREE_DIGEST_LEN];

	/* the store has its own copy */
	snprintf(digest, sizeof(digest), "%s", nest_tree_digest(exchange->tree));
	nest_tree_unref(nest_take_ptr(exchange->tree));
	if (!exchange->stopped)
		nest_loader_remove(exchange->loader, digest, &ignored);
	end_fetch(exchange, err ? NULL : view, err);
}

static void on_loaded(void *arg, struct nest_tree *tree, const struct nest_err *why)
{
	struct nest_exchange *exchange = arg;
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int dir = -1;
	int r;

	if (!tree) {
		end_fetch(exchange, NULL, why);
		return;
	}
	r = nest_tree_kind(tree) == NEST_TREE_DIRECTORY
		    ? nest_tree_open(tree, &dir, &err)
		    : nest_err_say(&err, -EBADMSG, "it is an image, not a snapshot");
	exchange->tree = tree;
	if (r == 0 && exchange->stopped)
		r = nest_err_set(&err, -ECANCELED, "fetch");
	if (r == 0)
		r = nest_snapshot_import(exchange->services->sandbox, exchange->running->key, dir,
			on_imported, exchange, &err);
	if (r < 0) {
		nest_tree_unref(nest_take_ptr(exchange->tree));
		end_fetch(exchange, NULL, &err);
	}
}

static int start_fetch(struct nest_exchange *exchange, const char *url, struct nest_err *err)
{
	const struct nest_reference reference = {
		.url = url, .format = NEST_REFERENCE_TAR_ZST, .sealed = true
	};

	return nest_loader_load(exchange->loader, &reference, 1, on_loaded, exchange, err);
}

/* ---- publishing ---- */

static void on_published(void *arg, uint64_t bytes, const struct nest_err *err)
{
	struct nest_exchange *exchange = arg;

	(void)bytes;
	exchange->publish = NULL;
	if (!err)
		exchange->stats.published_total++;
	else if (!exchange->stopped)
		tell(exchange, "publish", exchange->running->key, err);
	nest_services_release(exchange->services);
	finish(exchange);
}

static void on_exported(
	void *arg, const struct nest_snapshot_view *view, const struct nest_err *err)
{
	struct nest_exchange *exchange = arg;

	(void)view;
	if (!exchange->publish)
		return;
	if (!err) {
		nest_publish_send(exchange->publish);
		return;
	}
	if (!exchange->stopped)
		tell(exchange, "publish", exchange->running->key, err);
	exchange->running->cb = NULL;
	nest_publish_abort(exchange->publish);
}

static int start_publish(struct nest_exchange *exchange, const char *url, struct nest_err *err)
{
	const struct nest_publish_config config = { .staging = exchange->staging,
		.fetch = &exchange->fetch };
	nest_autoclose int pipe = -1;
	int r = nest_publish_open(exchange->services->loop, &config, url, on_published, exchange,
		&pipe, &exchange->publish, err);

	if (r < 0)
		return r;
	nest_services_hold(exchange->services);
	r = nest_snapshot_export(exchange->services->sandbox, exchange->running->key, pipe,
		on_exported, exchange, err);
	if (r < 0) {
		tell(exchange, "publish", exchange->running->key, err);
		nest_publish_abort(exchange->publish);
	}
	return 0;
}

/* ---- the queue ---- */

static void run_next(struct nest_exchange *exchange)
{
	while (exchange->jobs && !exchange->running && !exchange->stopped) {
		struct job *job = exchange->jobs;
		struct nest_err err = NEST_ERR_INIT;
		nest_autofree char *url = NULL;
		int r;

		DL_DELETE(exchange->jobs, job);
		exchange->running = job;
		if (asprintf(&url, "%s/%s.tar.zst", exchange->url, job->key) < 0) {
			url = NULL;
			r = nest_err_set(&err, -ENOMEM, "name it");
		} else {
			r = job->publish ? start_publish(exchange, url, &err)
					 : start_fetch(exchange, url, &err);
		}
		if (r == 0)
			return;
		if (!job->publish) {
			end_fetch(exchange, NULL, &err);
			return;
		}
		tell(exchange, "publish", job->key, &err);
		free(job);
		exchange->running = NULL;
	}
}

static int add(struct nest_exchange *exchange, bool publish, const char *key,
	nest_exchange_fetched_cb *cb, void *arg)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->publish = publish;
	job->cb = cb;
	job->arg = arg;
	snprintf(job->key, sizeof(job->key), "%s", key);
	/* who fetches saves itself the making; who publishes has what it wants */
	if (publish)
		DL_APPEND(exchange->jobs, job);
	else
		DL_PREPEND(exchange->jobs, job);
	run_next(exchange);
	return 0;
}

int nest_exchange_fetch(
	struct nest_exchange *exchange, const char *key, nest_exchange_fetched_cb *cb, void *arg)
{
	return exchange->stopped ? -ECANCELED : add(exchange, false, key, cb, arg);
}

void nest_exchange_cancel(struct nest_exchange *exchange, const void *arg)
{
	struct job *job, *next;

	if (exchange->running && exchange->running->arg == arg)
		exchange->running->cb = NULL;
	DL_FOREACH_SAFE(exchange->jobs, job, next) {
		if (job->arg != arg || job->publish)
			continue;
		DL_DELETE(exchange->jobs, job);
		free(job);
	}
}

void nest_exchange_publish(struct nest_exchange *exchange, const char *key)
{
	struct nest_err err = NEST_ERR_INIT;

	if (exchange->stopped)
		return;
	if (add(exchange, true, key, NULL, NULL) < 0) {
		nest_err_set(&err, -ENOMEM, "publish");
		tell(exchange, "publish", key, &err);
	}
}

void nest_exchange_stats(const struct nest_exchange *exchange, struct nest_exchange_stats *ret)
{
	*ret = exchange->stats;
}

int nest_exchange_open(struct nest_services *services, struct nest_loader *loader,
	const struct nest_publish_config *config, const char *url, struct nest_exchange **ret,
	struct nest_err *err)
{
	struct nest_exchange *exchange = calloc(1, sizeof(*exchange));
	size_t n = strlen(url);

	while (n > 0 && url[n - 1] == '/')
		n--;
	if (exchange) {
		exchange->url = strndup(url, n);
		exchange->staging = strdup(config->staging);
	}
	if (!exchange || !exchange->url || !exchange->staging) {
		if (exchange)
			exchange->stopped = true;
		nest_exchange_free(exchange);
		return nest_err_set(err, -ENOMEM, "exchange snapshots");
	}
	exchange->services = services;
	exchange->loader = loader;
	exchange->fetch = *config->fetch;
	*ret = exchange;
	return 0;
}

void nest_exchange_stop(struct nest_exchange *exchange)
{
	exchange->stopped = true;
	if (exchange->publish)
		nest_publish_abort(exchange->publish);
}

void nest_exchange_free(struct nest_exchange *exchange)
{
	struct job *job, *next;

	if (!exchange)
		return;
	DL_FOREACH_SAFE(exchange->jobs, job, next)
		free(job);
	free(exchange->running);
	nest_tree_unref(exchange->tree);
	free(exchange->staging);
	free(exchange->url);
	free(exchange);
}
