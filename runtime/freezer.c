/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/freezer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "runtime/call_impl.h"
#include "runtime/dispatch.h"
#include "runtime/exchange.h"
#include "runtime/frozen_impl.h"
#include "runtime/function.h"
#include "runtime/latency.h"
#include "runtime/services.h"
#include "runtime/worker.h"
#include "sandbox/snapshot.h"

/*
 * The making is a chain of events of one worker: ready, its warm-up's end, rested, dumped, gone.
 * Wherever the chain breaks, give_up() says why and kills the worker, and gone goes on to the next.
 */

#define NO_CELL_MS 5000u /* all cells were in use: later */

/* A key that the store had when the host came up. */
struct found {
	struct found *next;
	struct nest_snapshot_view view;
};

struct nest_freezer {
	struct nest_services *services;
	struct nest_frozen *all;
	struct found *found;
	bool listed; /* the store has told what it holds */
	bool stopped;
	bool proved;	  /* a clone has been restored */
	char barred[256]; /* why nothing is made or used; "" */
	struct nest_frozen *making;
	struct nest_worker *worker;
	struct nest_call *warmup;
	bool warm;
	struct nest_deadline pump;
};

static const struct nest_worker_events worker_events;

void nest_freezer_wake(struct nest_freezer *freezer)
{
	if (!nest_freezer_is_stopped(freezer) && !nest_deadline_is_set(&freezer->pump))
		nest_deadlines_set(freezer->services->deadlines, &freezer->pump, 0);
}

static void give_up(struct nest_frozen *frozen, enum nest_snapshot_failure cause, const char *why)
{
	struct nest_freezer *freezer = frozen->freezer;

	if (frozen->state != NEST_FROZEN_MAKING)
		return;
	nest_frozen_back_off(frozen, cause, why);
	nest_services_event(freezer->services, NEST_LOG_WARN,
		"no snapshot of %s: %s (next try in %u s)", frozen->label, why,
		frozen->pause_ms / 1000);
	if (freezer->worker)
		nest_worker_kill(freezer->worker, NEST_FAILURE_CANCELLED, "it was not frozen");
}

/* Its turn comes again at once, upon nothing: that the runtime's snapshot failed was told. */
static void go_flat(struct nest_frozen *frozen)
{
	frozen->state = NEST_FROZEN_QUEUED;
	if (frozen->freezer->worker)
		nest_worker_kill(
			frozen->freezer->worker, NEST_FAILURE_CANCELLED, "it was not frozen");
}

/* ---- making ---- */

static void on_dumped(void *arg, uint64_t bytes, const struct nest_err *why)
{
	struct nest_frozen *frozen = arg;

	if (frozen->state != NEST_FROZEN_MAKING)
		return;
	if (why && frozen->plan.runtime) {
		nest_services_event(frozen->freezer->services, NEST_LOG_WARN,
			"no snapshot of %s upon its runtime's: %s (it is made without)",
			frozen->label, nest_err_text(why));
		frozen->plan.runtime = NULL;
		go_flat(frozen);
		return;
	}
	if (why) {
		give_up(frozen, NEST_SNAPSHOT_FAILURE_DUMP, nest_err_text(why));
		return;
	}
	nest_frozen_set_made(frozen, bytes);
	nest_services_event(frozen->freezer->services, NEST_LOG_INFO,
		"%s starts from a snapshot of %llu KiB", frozen->label,
		(unsigned long long)bytes / 1024);
	if (frozen->freezer->services->exchange)
		nest_exchange_publish(frozen->freezer->services->exchange, frozen->key);
	/* It is on its way out, and that is no crash. */
	nest_worker_kill(frozen->freezer->worker, NEST_FAILURE_CANCELLED, "it was frozen");
}

static void on_rested(void *arg, struct nest_worker *worker)
{
	struct nest_frozen *frozen = arg;
	int r = nest_worker_dump(worker, frozen->key, on_dumped);

	if (r < 0)
		give_up(frozen, NEST_SNAPSHOT_FAILURE_DUMP, strerror(-r));
}

static void bring_to_rest(struct nest_frozen *frozen)
{
	int r = nest_worker_checkpoint(frozen->freezer->worker);

	if (r < 0)
		give_up(frozen, NEST_SNAPSHOT_FAILURE_HOOK, strerror(-r));
}

static void on_warmup_response(
	void *arg, unsigned status, const struct nest_call_header *headers, size_t nheaders)
{
	struct nest_frozen *frozen = arg;

	(void)headers;
	(void)nheaders;
	if (status >= 500)
		nest_services_event(frozen->freezer->services, NEST_LOG_WARN,
			"the warm-up of function '%s' was answered with status %u",
			frozen->spec->name, status);
}

static void on_warmup_body(void *arg, const char *bytes, size_t n, bool last)
{
	struct nest_frozen *frozen = arg;

	(void)bytes;
	if (!last)
		nest_call_consumed(frozen->freezer->warmup, n);
}

static void on_warmup_end(void *arg, const struct nest_call_stats *stats)
{
	struct nest_frozen *frozen = arg;

	(void)stats;
	frozen->freezer->warmup = NULL;
}

/* A function that can't do its warm-up can still be frozen as it is. */
static void on_warmup_fail(
	void *arg, const struct nest_failure *why, const struct nest_call_stats *stats)
{
	struct nest_frozen *frozen = arg;

	(void)stats;
	frozen->freezer->warmup = NULL;
	nest_services_event(frozen->freezer->services, NEST_LOG_WARN,
		"the warm-up of function '%s' failed: %s", frozen->spec->name,
		why->message ? why->message : "its handler threw an error");
}

static void on_warmup_writable(void *arg)
{
	(void)arg;
}

static const struct nest_call_events warmup_events = {
	.response = on_warmup_response,
	.body = on_warmup_body,
	.end = on_warmup_end,
	.fail = on_warmup_fail,
	.writable = on_warmup_writable,
};

static int warm_up(struct nest_frozen *frozen)
{
	struct nest_freezer *freezer = frozen->freezer;
	uint64_t limit_us = frozen->spec->timeout_ms * 1000ull;
	const struct nest_call_request request = {
		.id = "warmup",
		.body = frozen->spec->warmup,
		.body_len = strlen(frozen->spec->warmup),
		.body_done = true,
	};
	struct nest_call *call;
	int r = nest_call_make_warmup(frozen->dispatch,
		frozen->spec->interface != NEST_FUNCTION_EVENT, &request, &warmup_events, frozen,
		&call);

	if (r < 0)
		return r;
	freezer->warmup = call;
	call->given_us = call->start_us;
	r = nest_worker_give(freezer->worker, call, call->start_us + limit_us,
		nest_clock_wall_ms() + limit_us / 1000);
	if (r < 0) {
		nest_call_fail(call, NEST_FAILURE_UNAVAILABLE, 0, "it could not be sent");
		nest_call_free(call);
	}
	return r;
}

static void on_ready(void *arg, struct nest_worker *worker)
{
	struct nest_frozen *frozen = arg;

	(void)worker;
	if (!frozen->spec->warmup || warm_up(frozen) < 0)
		bring_to_rest(frozen);
}

/* The warm-up's slot is free: all that it had to say has come. */
static void on_slot(void *arg, struct nest_worker *worker)
{
	struct nest_frozen *frozen = arg;

	if (frozen->state == NEST_FROZEN_MAKING && nest_worker_open(worker) == 0)
		bring_to_rest(frozen);
}

static void on_idle(void *arg, struct nest_worker *worker)
{
	(void)arg;
	(void)worker;
}

static void on_ended(void *arg, struct nest_worker *worker, const struct nest_worker_end *end)
{
	struct nest_frozen *frozen = arg;
	bool ready = nest_worker_ready_us(worker) != 0;

	if (frozen->state == NEST_FROZEN_MAKING &&
		(frozen->ended || nest_freezer_is_stopped(frozen->freezer))) {
		frozen->state = NEST_FROZEN_NONE;
		return;
	}
	if (frozen->state == NEST_FROZEN_MAKING && end->clone_failed) {
		go_flat(frozen);
		return;
	}
	give_up(frozen, ready ? NEST_SNAPSHOT_FAILURE_HOOK : NEST_SNAPSHOT_FAILURE_START,
		end->detail && *end->detail ? end->detail : end->message);
}

static void on_unbegun(void *arg, struct nest_call *call)
{
	(void)arg;
	nest_call_fail(call, NEST_FAILURE_CRASHED, 0, "the worker ended");
	nest_call_free(call);
}

static void on_gone(void *arg, struct nest_worker *worker)
{
	struct nest_frozen *frozen = arg;
	struct nest_freezer *freezer = frozen->freezer;

	(void)worker;
	freezer->worker = NULL;
	freezer->making = NULL;
	/* A version that ended in the meantime wants nothing kept. */
	if (frozen->ended && frozen->state == NEST_FROZEN_STANDS)
		nest_frozen_forget(frozen);
	if (frozen->dispatch)
		nest_dispatch_release(frozen->dispatch);
	nest_freezer_wake(freezer);
}

static const struct nest_worker_events worker_events = {
	.ready = on_ready,
	.slot = on_slot,
	.idle = on_idle,
	.ended = on_ended,
	.unbegun = on_unbegun,
	.rested = on_rested,
	.gone = on_gone,
};

static void make(struct nest_frozen *frozen)
{
	struct nest_freezer *freezer = frozen->freezer;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	frozen->state = NEST_FROZEN_MAKING;
	r = nest_worker_start(
		freezer->services, &frozen->plan, &worker_events, frozen, &freezer->worker, &err);
	if (r == -EAGAIN) {
		/* Cells are for those who serve. */
		nest_frozen_pause(frozen, NO_CELL_MS);
		return;
	}
	if (r < 0) {
		give_up(frozen, NEST_SNAPSHOT_FAILURE_START, nest_err_text(&err));
		return;
	}
	freezer->making = frozen;
	if (frozen->dispatch)
		nest_dispatch_hold(frozen->dispatch);
}

/* What is made upon a runtime's snapshot, or sought from others, waits until that one is here. */
static bool awaits_parent(const struct nest_frozen *frozen)
{
	return frozen->parent && nest_frozen_is_pending(frozen->parent);
}

static void on_pump(void *arg)
{
	struct nest_freezer *freezer = arg;
	struct nest_frozen *frozen;

	if (nest_freezer_is_stopped(freezer) || !freezer->listed)
		return;
	DL_FOREACH(freezer->all, frozen) {
		if (frozen->state != NEST_FROZEN_QUEUED || awaits_parent(frozen) ||
			nest_frozen_seek(frozen) || freezer->making)
			continue;
		make(frozen);
	}
}

/* ---- the store of the last life ---- */

static void on_found(void *arg, const struct nest_snapshot_view *view)
{
	struct nest_freezer *freezer = arg;
	struct found *found = malloc(sizeof(*found));

	if (!found)
		return; /* it is made anew */
	found->view = *view;
	LL_PREPEND(freezer->found, found);
}

static void on_listed(void *arg)
{
	struct nest_freezer *freezer = arg;
	struct nest_frozen *frozen;

	freezer->listed = true;
	DL_FOREACH(freezer->all, frozen) {
		if (frozen->state == NEST_FROZEN_QUEUED)
			nest_frozen_take_found(frozen);
	}
	nest_freezer_wake(freezer);
}

/* ---- the freezer's ---- */

int nest_freezer_open(
	struct nest_services *services, struct nest_freezer **ret, struct nest_err *err)
{
	struct nest_freezer *freezer = calloc(1, sizeof(*freezer));
	int r;

	if (!freezer || nest_deadlines_reserve(services->deadlines, 1) < 0) {
		free(freezer);
		return nest_err_set(err, -ENOMEM, "open the freezer");
	}
	freezer->services = services;
	freezer->pump.cb = on_pump;
	freezer->pump.arg = freezer;
	r = nest_snapshot_list(services->sandbox, on_found, on_listed, freezer);
	if (r < 0) {
		nest_deadlines_release(services->deadlines, 1);
		free(freezer);
		return nest_err_set(err, r, "ask what snapshots there are");
	}
	*ret = freezer;
	return 0;
}

void nest_freezer_stop(struct nest_freezer *freezer)
{
	struct nest_frozen *frozen;

	freezer->stopped = true;
	DL_FOREACH(freezer->all, frozen)
		nest_deadlines_clear(freezer->services->deadlines, &frozen->retry);
	if (freezer->worker)
		nest_worker_kill(freezer->worker, NEST_FAILURE_DRAINING, "the host is going away");
}

bool nest_freezer_bar(struct nest_freezer *freezer, const char *why)
{
	struct nest_frozen *frozen;

	if (freezer->proved)
		return false;
	snprintf(freezer->barred, sizeof(freezer->barred), "%s", why);
	DL_FOREACH(freezer->all, frozen)
		nest_frozen_bar(frozen);
	if (freezer->worker)
		nest_worker_kill(freezer->worker, NEST_FAILURE_CANCELLED, "it can't be frozen");
	return true;
}

const char *nest_freezer_barred(const struct nest_freezer *freezer)
{
	return freezer->barred[0] ? freezer->barred : NULL;
}

void nest_freezer_prove(struct nest_freezer *freezer)
{
	freezer->proved = true;
}

void nest_freezer_free(struct nest_freezer *freezer)
{
	struct found *found, *next;

	if (!freezer)
		return;
	LL_FOREACH_SAFE(freezer->found, found, next)
		free(found);
	nest_deadlines_clear(freezer->services->deadlines, &freezer->pump);
	nest_deadlines_release(freezer->services->deadlines, 1);
	free(freezer);
}

void nest_freezer_add(struct nest_freezer *freezer, struct nest_frozen *frozen)
{
	DL_APPEND(freezer->all, frozen);
}

void nest_freezer_remove(struct nest_freezer *freezer, struct nest_frozen *frozen)
{
	DL_DELETE(freezer->all, frozen);
}

bool nest_freezer_cancel(struct nest_freezer *freezer, const struct nest_frozen *frozen)
{
	if (freezer->making != frozen)
		return false;
	nest_worker_kill(freezer->worker, NEST_FAILURE_CANCELLED, "its version is being removed");
	return true;
}

const struct nest_snapshot_view *nest_freezer_find(
	const struct nest_freezer *freezer, const char *key)
{
	for (const struct found *found = freezer->listed ? freezer->found : NULL; found;
		found = found->next) {
		if (strcmp(found->view.key, key) == 0)
			return &found->view;
	}
	return NULL;
}

void nest_freezer_unfind(struct nest_freezer *freezer, const char *key)
{
	struct found *found, *next;

	LL_FOREACH_SAFE(freezer->found, found, next) {
		if (strcmp(found->view.key, key) != 0)
			continue;
		LL_DELETE(freezer->found, found);
		free(found);
	}
}

struct nest_services *nest_freezer_services(const struct nest_freezer *freezer)
{
	return freezer->services;
}

bool nest_freezer_is_stopped(const struct nest_freezer *freezer)
{
	return freezer->stopped || freezer->barred[0];
}
