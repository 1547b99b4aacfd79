/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_EXCHANGE_H
#define NEST_RUNTIME_EXCHANGE_H

#include <stdint.h>

#include "loader/publish.h"
#include "sandbox/snapshot.h"

struct nest_err;
struct nest_loader;
struct nest_services;

/*
 * Snapshots on a server that several hosts share, each as "<key>.tar.zst", fetched and published one
 * after the other. A key says all that made a snapshot, so one that another host made can be used as
 * if it were our own; that it was such a host is proved by its seal (sandbox/snapshot_pack.h).
 */
struct nest_exchange;

struct nest_exchange_stats {
	uint64_t fetched_total;	  /* snapshots that came from the server */
	uint64_t published_total; /* and that went there */
	uint64_t failures_total;  /* of both ways */
};

/*
 * Opens it for the server at @url, to which "/<key>.tar.zst" is added. Borrows @services and @loader;
 * copies the rest.
 */
int nest_exchange_open(struct nest_services *services, struct nest_loader *loader,
	const struct nest_publish_config *config, const char *url, struct nest_exchange **ret,
	struct nest_err *err);

/* Begins no more; what goes to the server is given up. */
void nest_exchange_stop(struct nest_exchange *exchange);

/* Frees one that was stopped, once the sandbox and the loader are closed. NULL is fine. */
void nest_exchange_free(struct nest_exchange *exchange);

/*
 * What came of a fetch: @view is NULL when there was none, then @err is NULL where the server simply
 * hasn't got it.
 */
typedef void nest_exchange_fetched_cb(
	void *arg, const struct nest_snapshot_view *view, const struct nest_err *err);

/*
 * Brings snapshot @key into the store, if the server has it. @cb is called once, never before this
 * returns, unless the exchange is stopped or it is cancelled. -ENOMEM, -ECANCELED: it is stopped.
 */
int nest_exchange_fetch(
	struct nest_exchange *exchange, const char *key, nest_exchange_fetched_cb *cb, void *arg);

/* @cb is not called any more for what was asked with @arg. */
void nest_exchange_cancel(struct nest_exchange *exchange, const void *arg);

/* Sends snapshot @key to the server; why it couldn't is told as an event. */
void nest_exchange_publish(struct nest_exchange *exchange, const char *key);

/* What it did since it was opened. */
void nest_exchange_stats(const struct nest_exchange *exchange, struct nest_exchange_stats *ret);

#endif
