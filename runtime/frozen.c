/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/frozen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "runtime/dispatch.h"
#include "runtime/exchange.h"
#include "runtime/freezer.h"
#include "runtime/frozen_impl.h"
#include "runtime/function.h"
#include "runtime/latency.h"
#include "runtime/standby.h"

#define FAILURES_MAX 2u /* restores in a row, then the snapshot is dropped */
#define PAUSE_MIN_MS 30000u
#define PAUSE_MAX_MS 3600000u

static struct nest_services *services_of(const struct nest_frozen *frozen)
{
	return nest_freezer_services(frozen->freezer);
}

/* It stands, or is put off: whoever waited for it goes on, those that are made upon it too. */
static void settle(struct nest_frozen *frozen)
{
	if (frozen->dispatch)
		nest_dispatch_snapshot_settled(frozen->dispatch);
	else
		nest_freezer_wake(frozen->freezer);
}

/* ---- failures ---- */

void nest_frozen_pause(struct nest_frozen *frozen, uint32_t ms)
{
	frozen->state = NEST_FROZEN_PAUSED;
	settle(frozen);
	if (!frozen->ended && !nest_freezer_is_stopped(frozen->freezer))
		nest_deadlines_set(services_of(frozen)->deadlines, &frozen->retry,
			nest_clock_mono_us() + ms * 1000ull);
}

static uint32_t longer_pause(struct nest_frozen *frozen)
{
	uint32_t ms = frozen->pause_ms ? frozen->pause_ms * 2 : PAUSE_MIN_MS;

	frozen->pause_ms = ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
	return frozen->pause_ms;
}

static void note(struct nest_frozen *frozen, enum nest_snapshot_failure cause, const char *why)
{
	frozen->stats.failures_total[cause]++;
	snprintf(frozen->why, sizeof(frozen->why), "%s", why);
}

void nest_frozen_back_off(
	struct nest_frozen *frozen, enum nest_snapshot_failure cause, const char *why)
{
	note(frozen, cause, why);
	nest_frozen_pause(frozen, longer_pause(frozen));
}

/* ---- making ---- */

static void stand(struct nest_frozen *frozen, uint64_t bytes, uint64_t made_s)
{
	frozen->state = NEST_FROZEN_STANDS;
	frozen->learnt = false;
	frozen->generation++;
	frozen->stats.bytes = bytes;
	frozen->stats.made_s = made_s;
	nest_standby_look(services_of(frozen));
	settle(frozen);
}

void nest_frozen_set_made(struct nest_frozen *frozen, uint64_t bytes)
{
	frozen->failures = 0;
	frozen->plain = 0;
	stand(frozen, bytes, nest_clock_wall_ms() / 1000);
}

static void on_retry(void *arg)
{
	struct nest_frozen *frozen = arg;

	frozen->state = NEST_FROZEN_QUEUED;
	nest_freezer_wake(frozen->freezer);
}

bool nest_frozen_take_found(struct nest_frozen *frozen)
{
	const struct nest_snapshot_view *found = nest_freezer_find(frozen->freezer, frozen->key);

	if (!found)
		return false;
	stand(frozen, found->bytes, found->made_s);
	return true;
}

/* ---- another host's ---- */

static void on_sought(void *arg, const struct nest_snapshot_view *view, const struct nest_err *err)
{
	struct nest_frozen *frozen = arg;

	(void)err; /* has been told */
	if (!view) {
		frozen->state = NEST_FROZEN_QUEUED;
		nest_freezer_wake(frozen->freezer);
		return;
	}
	stand(frozen, view->bytes, view->made_s);
	nest_services_event(services_of(frozen), NEST_LOG_INFO,
		"%s starts from another host's snapshot of %llu KiB", frozen->label,
		(unsigned long long)view->bytes / 1024);
}

bool nest_frozen_seek(struct nest_frozen *frozen)
{
	struct nest_exchange *exchange = services_of(frozen)->exchange;

	if (!exchange || frozen->sought)
		return false;
	frozen->sought = true;
	frozen->state = NEST_FROZEN_SEEKING;
	if (nest_exchange_fetch(exchange, frozen->key, on_sought, frozen) == 0)
		return true;
	frozen->state = NEST_FROZEN_QUEUED;
	return false;
}

static void stop_seeking(struct nest_frozen *frozen)
{
	if (frozen->state != NEST_FROZEN_SEEKING)
		return;
	nest_exchange_cancel(services_of(frozen)->exchange, frozen);
	frozen->state = NEST_FROZEN_NONE;
}

void nest_frozen_bar(struct nest_frozen *frozen)
{
	stop_seeking(frozen);
	nest_deadlines_clear(services_of(frozen)->deadlines, &frozen->retry);
	if (frozen->state != NEST_FROZEN_MAKING)
		frozen->state = NEST_FROZEN_NONE;
	nest_standby_look(services_of(frozen));
	settle(frozen);
}

/* ---- a function's ---- */

static void name(struct nest_frozen *frozen)
{
	if (frozen->dispatch)
		snprintf(frozen->label, sizeof(frozen->label), "function '%s' version '%s'",
			frozen->spec->name, frozen->spec->version);
	else
		snprintf(frozen->label, sizeof(frozen->label), "runtime '%s'",
			frozen->spec->runtime);
}

int nest_frozen_new(struct nest_freezer *freezer, const struct nest_frozen_subject *subject,
	struct nest_frozen **ret)
{
	struct nest_frozen *frozen = calloc(1, sizeof(*frozen));

	if (!frozen || nest_deadlines_reserve(nest_freezer_services(freezer)->deadlines, 1) < 0) {
		free(frozen);
		return -ENOMEM;
	}
	frozen->freezer = freezer;
	frozen->dispatch = subject->dispatch;
	frozen->parent = subject->parent;
	frozen->spec = subject->plan->spec;
	frozen->plan = *subject->plan;
	frozen->plan.init = subject->init;
	frozen->plan.init_len = subject->init ? (uint32_t)strlen(subject->init) : 0;
	frozen->plan.tally = &frozen->tally;
	frozen->plan.frozen = NULL;
	frozen->plan.runtime = subject->parent;
	frozen->plan.to_freeze = true;
	snprintf(frozen->key, sizeof(frozen->key), "%s", subject->key);
	name(frozen);
	frozen->retry.cb = on_retry;
	frozen->retry.arg = frozen;
	nest_freezer_add(freezer, frozen);
	*ret = frozen;
	return 0;
}

void nest_frozen_free(struct nest_frozen *frozen)
{
	if (!frozen)
		return;
	stop_seeking(frozen);
	nest_deadlines_clear(services_of(frozen)->deadlines, &frozen->retry);
	nest_deadlines_release(services_of(frozen)->deadlines, 1);
	nest_freezer_remove(frozen->freezer, frozen);
	free(frozen);
}

void nest_frozen_want(struct nest_frozen *frozen)
{
	if (frozen->state != NEST_FROZEN_NONE || nest_freezer_is_stopped(frozen->freezer))
		return;
	if (nest_frozen_take_found(frozen))
		return;
	frozen->state = NEST_FROZEN_QUEUED;
	nest_freezer_wake(frozen->freezer);
}

void nest_frozen_renew(struct nest_frozen *frozen)
{
	if (frozen->state == NEST_FROZEN_MAKING || frozen->ended ||
		nest_freezer_is_stopped(frozen->freezer))
		return;
	nest_deadlines_clear(services_of(frozen)->deadlines, &frozen->retry);
	stop_seeking(frozen);
	frozen->sought = true;
	frozen->pause_ms = 0;
	frozen->state = NEST_FROZEN_QUEUED;
	nest_freezer_wake(frozen->freezer);
}

void nest_frozen_forget(struct nest_frozen *frozen)
{
	struct nest_freezer *freezer = frozen->freezer;
	struct nest_err err = NEST_ERR_INIT;

	if (frozen->state == NEST_FROZEN_MAKING)
		return;
	stop_seeking(frozen);
	frozen->sought = true; /* what the server has may be what is given up here */
	nest_deadlines_clear(nest_freezer_services(freezer)->deadlines, &frozen->retry);
	frozen->state = NEST_FROZEN_NONE;
	nest_standby_look(nest_freezer_services(freezer));
	settle(frozen);
	frozen->stats.bytes = 0;
	nest_freezer_unfind(freezer, frozen->key);
	if (nest_snapshot_forget(nest_freezer_services(freezer)->sandbox, frozen->key, &err) < 0)
		nest_services_event(
			nest_freezer_services(freezer), NEST_LOG_WARN, "%s", nest_err_text(&err));
}

void nest_frozen_end(struct nest_frozen *frozen)
{
	frozen->ended = true;
	if (!nest_freezer_cancel(frozen->freezer, frozen))
		nest_frozen_forget(frozen);
}

const char *nest_frozen_name(const struct nest_frozen *frozen)
{
	return frozen->key;
}

bool nest_frozen_is_pending(const struct nest_frozen *frozen)
{
	return !frozen->ended && !nest_freezer_is_stopped(frozen->freezer) &&
	       (frozen->state == NEST_FROZEN_QUEUED || frozen->state == NEST_FROZEN_SEEKING ||
		       frozen->state == NEST_FROZEN_MAKING);
}

const char *nest_frozen_next(struct nest_frozen *frozen)
{
	if (frozen->plain > 0) {
		frozen->plain--;
		return NULL;
	}
	return nest_frozen_key(frozen);
}

const char *nest_frozen_key(const struct nest_frozen *frozen)
{
	bool usable = frozen->state == NEST_FROZEN_STANDS && !frozen->ended &&
		      !nest_freezer_barred(frozen->freezer);

	return usable ? frozen->key : NULL;
}

void nest_frozen_restored(struct nest_frozen *frozen)
{
	frozen->failures = 0;
	frozen->pause_ms = 0;
	frozen->stats.restores_total++;
	nest_freezer_prove(frozen->freezer);
}

uint32_t nest_frozen_generation(const struct nest_frozen *frozen)
{
	return frozen->generation;
}

bool nest_frozen_is_learnt(const struct nest_frozen *frozen)
{
	return frozen->learnt;
}

void nest_frozen_set_learnt(struct nest_frozen *frozen)
{
	frozen->learnt = true;
}

void nest_frozen_timed(struct nest_frozen *frozen, uint64_t us)
{
	nest_latency_observe(&frozen->stats.restore, us);
	nest_freezer_prove(frozen->freezer);
}

void nest_frozen_failed(
	struct nest_frozen *frozen, enum nest_snapshot_failure cause, bool needed, const char *why)
{
	struct nest_services *services = services_of(frozen);
	bool gone =
		cause == NEST_SNAPSHOT_FAILURE_MISSING || cause == NEST_SNAPSHOT_FAILURE_DAMAGED;

	note(frozen, cause, why);
	frozen->plain += needed;
	nest_services_event(services, NEST_LOG_WARN, "a clone of %s failed%s: %s", frozen->label,
		needed ? ", it is started plainly" : "", why);
	if (frozen->state != NEST_FROZEN_STANDS || (++frozen->failures < FAILURES_MAX && !gone))
		return;
	nest_frozen_forget(frozen);
	frozen->failures = 0;
	nest_frozen_pause(frozen, longer_pause(frozen));
	nest_services_event(services, NEST_LOG_WARN,
		"the snapshot of %s is given up; a new one is made in %u s", frozen->label,
		frozen->pause_ms / 1000);
}

void nest_frozen_view(const struct nest_frozen *frozen, struct nest_snapshot_stats *ret)
{
	static const char *const names[] = {
		[NEST_FROZEN_NONE] = "none",
		[NEST_FROZEN_QUEUED] = "queued",
		[NEST_FROZEN_SEEKING] = "fetching",
		[NEST_FROZEN_MAKING] = "making",
		[NEST_FROZEN_STANDS] = "stands",
		[NEST_FROZEN_PAUSED] = "paused",
	};

	const char *barred = nest_freezer_barred(frozen->freezer);

	*ret = frozen->stats;
	ret->state = barred ? "unavailable" : names[frozen->state];
	ret->key = frozen->key;
	ret->why = barred ? barred : frozen->why;
}

const char *nest_frozen_failure_name(enum nest_snapshot_failure cause)
{
	static const char *const names[NEST_SNAPSHOT_FAILURES] = {
		[NEST_SNAPSHOT_FAILURE_START] = "start",
		[NEST_SNAPSHOT_FAILURE_HOOK] = "hook",
		[NEST_SNAPSHOT_FAILURE_DUMP] = "dump",
		[NEST_SNAPSHOT_FAILURE_MISSING] = "missing",
		[NEST_SNAPSHOT_FAILURE_DAMAGED] = "damaged",
		[NEST_SNAPSHOT_FAILURE_RESTORE] = "restore",
		[NEST_SNAPSHOT_FAILURE_TIMEOUT] = "timeout",
	};

	return names[cause];
}
