/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include <utlist.h>

#include "base/clock.h"
#include "runtime/call_impl.h"
#include "runtime/dispatch_impl.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker.h"

/*
 * What a spec says about a function's limits and faults, done: who is let in, how an end is
 * remembered, when workers are tried again, and when one takes another's place.
 */

#define MEASURE_EVERY_US 5000000u /* and only while requests end */

static const struct nest_protection *terms_of(const struct nest_dispatch *dispatch)
{
	return &dispatch->plan->spec->protection;
}

static const char *name_of(const struct nest_dispatch *dispatch)
{
	return dispatch->plan->spec->name;
}

/* ---- who is let in ---- */

static unsigned seconds(uint64_t us)
{
	return us < 1000000 ? 1 : (unsigned)((us + 999999) / 1000000);
}

bool nest_dispatch_admit(struct nest_dispatch *dispatch, struct nest_call *call)
{
	const struct nest_protection *terms = terms_of(dispatch);
	uint64_t wait_us;
	enum nest_failure_kind kind = nest_protection_admit(
		terms, &dispatch->protection, call->start_us, &call->probe, &wait_us);

	if (kind == NEST_FAILURE_NONE)
		return true;
	if (kind == NEST_FAILURE_THROTTLED) {
		nest_call_refuse(call, kind, seconds(wait_us),
			"function '%s' takes no more than %g requests a second", name_of(dispatch),
			terms->rate_milli / 1000.0);
		return false;
	}
	call->broken = true;
	nest_call_refuse(call, kind, seconds(wait_us),
		"function '%s' has failed again and again: its circuit breaker is open",
		name_of(dispatch));
	return false;
}

bool nest_dispatch_saturated(const struct nest_dispatch *dispatch)
{
	uint32_t most = terms_of(dispatch)->concurrency, open = 0;
	const struct nest_worker_link *link;

	if (most == 0)
		return false;
	DL_FOREACH(dispatch->workers, link)
		open += nest_worker_open(link->worker);
	return open >= most;
}

void nest_dispatch_note(struct nest_dispatch *dispatch, const struct nest_call *call,
	enum nest_failure_kind kind, uint64_t now_us)
{
	const struct nest_protection *terms = terms_of(dispatch);

	if (!nest_breaker_note(&dispatch->protection.breaker, &terms->breaker, call->probe,
		    nest_protection_outcome(kind, call->given_us != 0, call->status), now_us))
		return;
	nest_services_event(dispatch->services, NEST_LOG_WARN,
		"function '%s' version '%s': the circuit breaker is open for %u ms, after %s (%s)",
		name_of(dispatch), dispatch->plan->spec->version, terms->breaker.open_ms,
		call->probe ? "a probe that failed" : "failures in a row",
		nest_failure_outcome(kind));
}

bool nest_dispatch_falls_back(
	struct nest_dispatch *dispatch, const struct nest_call *call, enum nest_failure_kind kind)
{
	if (!nest_protection_falls_back(terms_of(dispatch), kind, call->broken))
		return false;
	dispatch->protection.fallbacks_total++;
	return true;
}

const struct nest_protection *nest_dispatch_protection(const struct nest_dispatch *dispatch)
{
	return terms_of(dispatch);
}

/* ---- workers that don't come up ---- */

void nest_dispatch_back_off(struct nest_dispatch *dispatch, const char *message, const char *detail)
{
	struct nest_tally *tally = dispatch->plan->tally;
	struct nest_backoff *backoff = &dispatch->backoff;
	bool quarantined =
		nest_backoff_fail(backoff, &terms_of(dispatch)->quarantine, nest_clock_mono_us());

	nest_deadlines_set(dispatch->services->deadlines, &dispatch->retry, backoff->until_us);
	snprintf(dispatch->failure, sizeof(dispatch->failure), "%s", message);
	snprintf(tally->last_failure, sizeof(tally->last_failure), "%s%s%s", message,
		detail && *detail ? ": " : "", detail ? detail : "");
	if (dispatch->starting == 0)
		nest_dispatch_warm_over(
			dispatch, nest_warm_note_end(&dispatch->warm, dispatch->ready, message));
	if (quarantined)
		nest_services_event(dispatch->services, NEST_LOG_ERROR,
			"function '%s' version '%s' is in quarantine: %u starts of a worker "
			"in a row failed, the next one is tried in %u ms: %s",
			name_of(dispatch), dispatch->plan->spec->version, backoff->failures,
			backoff->pause_ms, message);
}

void nest_dispatch_recover(struct nest_dispatch *dispatch)
{
	if (dispatch->backoff.failures == 0)
		return;
	if (nest_backoff_clear(&dispatch->backoff, &terms_of(dispatch)->quarantine))
		nest_services_event(dispatch->services, NEST_LOG_INFO,
			"function '%s' version '%s' is out of quarantine", name_of(dispatch),
			dispatch->plan->spec->version);
}

/* ---- workers that are worn ---- */

static enum nest_recycle_cause cause_of(const struct nest_dispatch *dispatch,
	const struct nest_worker *worker, uint64_t *ret_age_us)
{
	struct nest_worker_stats stats;
	struct nest_recycle_sample sample;

	nest_worker_stats(worker, &stats);
	*ret_age_us = stats.age_ms * 1000;
	sample = (struct nest_recycle_sample){
		.requests = stats.requests_total,
		.age_us = *ret_age_us,
		.memory_bytes = stats.memory_bytes,
	};
	return nest_recycle_due(&terms_of(dispatch)->recycle, &sample);
}

static void replace(
	struct nest_dispatch *dispatch, struct nest_worker *worker, enum nest_recycle_cause cause)
{
	dispatch->worn = worker;
	dispatch->recycled_total[cause]++;
}

/* One that goes anyway, as its version is no longer live, needs no successor. */
static bool stays(const struct nest_worker *worker)
{
	enum nest_worker_state state = nest_worker_state(worker);

	return (state == NEST_WORKER_IDLE || state == NEST_WORKER_BUSY) &&
	       !nest_worker_is_leaving(worker);
}

/* An idle one that is too old just goes, if it isn't kept: a fresh one would only wait to be idle. */
static void retire_old(struct nest_dispatch *dispatch, struct nest_worker *worker)
{
	if (nest_worker_open(worker) > 0 || dispatch->ready <= nest_dispatch_keep(dispatch)) {
		replace(dispatch, worker, NEST_RECYCLE_AGE);
		return;
	}
	dispatch->recycled_total[NEST_RECYCLE_AGE]++;
	nest_worker_leave(worker);
}

/* The worker that is too old, or NULL and when the next one will be. */
static struct nest_worker *find_old(const struct nest_dispatch *dispatch, uint64_t *ret_in_us)
{
	const struct nest_recycle_terms terms = { .age_ms = terms_of(dispatch)->recycle.age_ms };
	uint64_t limit_us = terms.age_ms * 1000ull;
	struct nest_worker_link *link;

	*ret_in_us = UINT64_MAX;
	DL_FOREACH(dispatch->workers, link) {
		uint64_t age_us;

		if (!stays(link->worker))
			continue;
		cause_of(dispatch, link->worker, &age_us);
		if (age_us >= limit_us)
			return link->worker;
		if (limit_us - age_us < *ret_in_us)
			*ret_in_us = limit_us - age_us;
	}
	return NULL;
}

/* One at a time: the next is looked for when its successor is there. */
static void look_for_old(struct nest_dispatch *dispatch)
{
	struct nest_worker *old;
	uint64_t in_us;

	if (terms_of(dispatch)->recycle.age_ms == 0)
		return;
	while (!dispatch->worn && !dispatch->retiring && (old = find_old(dispatch, &in_us)))
		retire_old(dispatch, old);
	if (!dispatch->worn && !dispatch->retiring && in_us != UINT64_MAX)
		nest_deadlines_set(dispatch->services->deadlines, &dispatch->aged,
			nest_clock_mono_us() + in_us);
}

void nest_dispatch_on_aged(void *arg)
{
	struct nest_dispatch *dispatch = arg;

	look_for_old(dispatch);
	nest_dispatch_pump(dispatch);
}

void nest_dispatch_relieve(struct nest_dispatch *dispatch)
{
	struct nest_worker *worn = dispatch->worn;

	dispatch->worn = NULL;
	if (worn)
		nest_worker_hand_over(worn);
	look_for_old(dispatch);
}

void nest_dispatch_forget_worn(struct nest_dispatch *dispatch, const struct nest_worker *worker)
{
	if (dispatch->worn == worker)
		dispatch->worn = NULL;
}

static void on_measured(void *arg)
{
	(void)arg; /* it is looked at when the next request ends */
}

/* Only while requests end, so that an idle host measures nothing. */
static void measure(struct nest_dispatch *dispatch)
{
	uint64_t now_us = nest_clock_mono_us();
	struct nest_worker_link *link;

	if (terms_of(dispatch)->recycle.memory_bytes == 0 ||
		now_us - dispatch->measured_us < MEASURE_EVERY_US)
		return;
	dispatch->measured_us = now_us;
	DL_FOREACH(dispatch->workers, link)
		nest_worker_measure(link->worker, on_measured, NULL);
}

void nest_dispatch_wear(struct nest_dispatch *dispatch, struct nest_worker *worker)
{
	const struct nest_recycle_terms *terms = &terms_of(dispatch)->recycle;
	enum nest_recycle_cause cause;
	uint64_t age_us;

	if (terms->requests == 0 && terms->memory_bytes == 0)
		return;
	measure(dispatch);
	if (dispatch->worn || dispatch->retiring || !stays(worker))
		return;
	cause = cause_of(dispatch, worker, &age_us);
	if (cause == NEST_RECYCLE_NONE)
		return;
	replace(dispatch, worker, cause);
	nest_dispatch_pump(dispatch);
}

/* ---- what is shown of it ---- */

void nest_dispatch_protection_stats(
	const struct nest_dispatch *dispatch, struct nest_target_stats *ret)
{
	const struct nest_protection_state *state = &dispatch->protection;

	ret->breaker = nest_breaker_state_name(state->breaker.state);
	ret->breaker_opened_total = state->breaker.opened_total;
	ret->broken_total = state->broken_total;
	ret->limited_total = state->limited_total;
	ret->fallbacks_total = state->fallbacks_total;
	ret->quarantined = dispatch->ready == 0 && nest_backoff_quarantined(&dispatch->backoff,
							   &terms_of(dispatch)->quarantine);
	for (int c = 0; c < NEST_RECYCLE_CAUSES; c++)
		ret->recycled_total[c] = dispatch->recycled_total[c];
}
