/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/protection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"
#include "tests/unit/suite.h"

#define SECOND 1000000u
#define MS 1000u

/* ---- the rate limit ---- */

START_TEST(a_bucket_gives_its_burst_and_then_its_rate)
{
	struct nest_rate_limit limit = { 0 };
	uint64_t now = 5 * SECOND, wait;

	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(nest_rate_limit_take(&limit, 10 * 1000, 3, now), 0);
	wait = nest_rate_limit_take(&limit, 10 * 1000, 3, now);
	ck_assert_uint_eq(wait, 100 * MS);
	ck_assert_uint_gt(nest_rate_limit_take(&limit, 10 * 1000, 3, now + wait - 1), 0);
	ck_assert_uint_eq(nest_rate_limit_take(&limit, 10 * 1000, 3, now + wait), 0);
	ck_assert_uint_gt(nest_rate_limit_take(&limit, 10 * 1000, 3, now + wait), 0);
	now += 60 * SECOND; /* it is full again, and no fuller */
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(nest_rate_limit_take(&limit, 10 * 1000, 3, now), 0);
	ck_assert_uint_gt(nest_rate_limit_take(&limit, 10 * 1000, 3, now), 0);
}
END_TEST

/* Asked for far more often than it gives, whatever the rate: it gives just that. */
START_TEST(a_rate_is_exact_over_time)
{
	static const uint32_t rates_milli[] = { 100, 1000, 2500, 333333, 70000000 };

	for (size_t i = 0; i < sizeof(rates_milli) / sizeof(rates_milli[0]); i++) {
		struct nest_rate_limit limit = { 0 };
		uint64_t span = rates_milli[i] < 1000 ? 100u * SECOND : 10u * SECOND;
		uint64_t step = span / 2000000 + 1;
		uint64_t wanted = rates_milli[i] * (span / SECOND) / 1000;
		uint64_t taken = 0;

		for (uint64_t now = SECOND; now < SECOND + span; now += step)
			taken += nest_rate_limit_take(&limit, rates_milli[i], 2, now) == 0;
		ck_assert_uint_ge(taken, wanted - wanted / 100);
		ck_assert_uint_le(taken, wanted + wanted / 1000 + 2);
	}
}
END_TEST

/* ---- the breaker ---- */

static const struct nest_breaker_terms terms = { .failures = 3, .open_ms = 1000, .probes = 2 };
static struct nest_breaker breaker;

static bool admitted(uint64_t now_us, uint32_t *ret_probe)
{
	uint64_t wait;

	return nest_breaker_admit(&breaker, &terms, now_us, ret_probe, &wait);
}

static bool note(uint32_t probe, enum nest_breaker_outcome outcome, uint64_t now_us)
{
	return nest_breaker_note(&breaker, &terms, probe, outcome, now_us);
}

static void open_it(uint64_t now_us)
{
	breaker = (struct nest_breaker){ 0 };
	ck_assert(!note(0, NEST_BREAKER_FAILED, now_us));
	ck_assert(!note(0, NEST_BREAKER_FAILED, now_us));
	ck_assert(note(0, NEST_BREAKER_FAILED, now_us));
	ck_assert_int_eq(breaker.state, NEST_BREAKER_OPEN);
}

START_TEST(only_failures_in_a_row_open_it)
{
	uint32_t probe;

	breaker = (struct nest_breaker){ 0 };
	for (int i = 0; i < 20; i++) {
		ck_assert(admitted(i, &probe));
		ck_assert_uint_eq(probe, 0);
		ck_assert(!note(0, i % 3 == 2 ? NEST_BREAKER_WELL : NEST_BREAKER_FAILED, i));
		ck_assert(!note(0, NEST_BREAKER_UNTRIED, i));
	}
	open_it(SECOND);
	ck_assert_uint_eq(breaker.opened_total, 1);
}
END_TEST

START_TEST(an_open_one_says_how_long_it_is)
{
	uint32_t probe;
	uint64_t wait = 0;

	open_it(5 * SECOND);
	ck_assert(!nest_breaker_admit(&breaker, &terms, 5 * SECOND + 400 * MS, &probe, &wait));
	ck_assert_uint_eq(wait, 600 * MS);
	/* what was let through before it opened changes nothing */
	ck_assert(!note(0, NEST_BREAKER_WELL, 5 * SECOND));
	ck_assert(!note(0, NEST_BREAKER_FAILED, 5 * SECOND));
	ck_assert(!admitted(6 * SECOND - 1, &probe));
	ck_assert_uint_eq(breaker.opened_total, 1);
}
END_TEST

START_TEST(probes_that_all_go_well_close_it)
{
	uint32_t one, two, more;

	open_it(0);
	ck_assert(admitted(SECOND, &one));
	ck_assert(admitted(SECOND, &two));
	ck_assert_uint_ne(one, 0);
	ck_assert(!admitted(SECOND, &more));
	ck_assert(!note(one, NEST_BREAKER_WELL, SECOND));
	ck_assert(!admitted(SECOND, &more)); /* the other one is out still */
	ck_assert(!note(two, NEST_BREAKER_WELL, SECOND));
	ck_assert_int_eq(breaker.state, NEST_BREAKER_CLOSED);
	ck_assert(admitted(SECOND, &more));
	ck_assert_uint_eq(more, 0);
}
END_TEST

START_TEST(a_probe_that_fails_opens_it_again)
{
	uint32_t one, two, late;

	open_it(0);
	ck_assert(admitted(SECOND, &one));
	ck_assert(admitted(SECOND, &late));
	ck_assert(note(one, NEST_BREAKER_FAILED, SECOND));
	ck_assert_uint_eq(breaker.opened_total, 2);
	ck_assert(!admitted(SECOND + 999 * MS, &two));
	ck_assert(admitted(2 * SECOND, &two));
	/* one of the period before has no say in this one */
	ck_assert(!note(late, NEST_BREAKER_FAILED, 2 * SECOND));
	ck_assert_int_eq(breaker.state, NEST_BREAKER_HALF_OPEN);
}
END_TEST

START_TEST(a_probe_that_was_not_tried_gives_its_place_back)
{
	uint32_t one, two, three;

	open_it(0);
	ck_assert(admitted(SECOND, &one));
	ck_assert(admitted(SECOND, &two));
	ck_assert(!note(one, NEST_BREAKER_UNTRIED, SECOND));
	ck_assert(admitted(SECOND, &three));
	ck_assert(!note(two, NEST_BREAKER_WELL, SECOND));
	ck_assert(!note(three, NEST_BREAKER_WELL, SECOND));
	ck_assert_int_eq(breaker.state, NEST_BREAKER_CLOSED);
}
END_TEST

START_TEST(without_terms_there_is_no_breaker)
{
	const struct nest_breaker_terms none = { 0 };
	struct nest_breaker idle = { 0 };
	uint64_t wait;
	uint32_t probe;

	for (int i = 0; i < 100; i++)
		ck_assert(!nest_breaker_note(&idle, &none, 0, NEST_BREAKER_FAILED, 0));
	ck_assert(nest_breaker_admit(&idle, &none, 0, &probe, &wait));
}
END_TEST

/* ---- the backoff ---- */

START_TEST(pauses_double_and_a_quarantine_goes_further)
{
	static const uint32_t wanted[] = { 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600,
		30000, 30000 };
	const struct nest_backoff_terms quarantine = { .failures = 4, .max_ms = 30000 };
	struct nest_backoff backoff = { 0 };

	ck_assert(!nest_backoff_clear(&backoff, &quarantine));
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		ck_assert_int_eq(nest_backoff_fail(&backoff, &quarantine, SECOND), i == 3);
		ck_assert_uint_eq(backoff.pause_ms, wanted[i]);
		ck_assert_uint_eq(backoff.until_us, SECOND + wanted[i] * 1000ull);
		ck_assert_int_eq(nest_backoff_quarantined(&backoff, &quarantine), i >= 3);
	}
	ck_assert(nest_backoff_clear(&backoff, &quarantine));
	nest_backoff_fail(&backoff, &quarantine, SECOND);
	ck_assert_uint_eq(backoff.pause_ms, 100);
}
END_TEST

START_TEST(without_a_quarantine_pauses_end_at_ten_seconds)
{
	const struct nest_backoff_terms none = { .max_ms = 300000 };
	struct nest_backoff backoff = { 0 };

	for (int i = 0; i < 50; i++)
		ck_assert(!nest_backoff_fail(&backoff, &none, 0));
	ck_assert_uint_eq(backoff.pause_ms, 10000);
}
END_TEST

/* ---- recycling ---- */

START_TEST(a_worker_is_worn_by_what_its_terms_name)
{
	const struct nest_recycle_terms all = {
		.requests = 10, .age_ms = 1000, .memory_bytes = 99
	};
	const struct nest_recycle_terms none = { 0 };
	struct nest_recycle_sample sample = { .requests = 9, .age_us = 999999, .memory_bytes = 98 };

	ck_assert_int_eq(nest_recycle_due(&all, &sample), NEST_RECYCLE_NONE);
	sample.memory_bytes = 99;
	ck_assert_int_eq(nest_recycle_due(&all, &sample), NEST_RECYCLE_MEMORY);
	sample.age_us = SECOND;
	ck_assert_int_eq(nest_recycle_due(&all, &sample), NEST_RECYCLE_AGE);
	sample.requests = 10;
	ck_assert_int_eq(nest_recycle_due(&all, &sample), NEST_RECYCLE_REQUESTS);
	ck_assert_int_eq(nest_recycle_due(&none, &sample), NEST_RECYCLE_NONE);
	ck_assert_str_eq(nest_recycle_cause_name(NEST_RECYCLE_AGE), "age");
}
END_TEST

/* ---- all of it, as a spec says it ---- */

static struct nest_function_spec *parse(const char *keys, struct nest_err *err)
{
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *json = NULL;
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"name\":\"f\",\"runtime\":\"x\",\"code\":{\"path\":\"/a\"}%s%s}",
		*keys ? "," : "", keys);
	json = cJSON_Parse(text);
	ck_assert_ptr_nonnull(json);
	return nest_function_parse(json, NULL, &spec, err) == 0 ? spec : NULL;
}

START_TEST(a_spec_protects_nothing_unless_it_says_so)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_function_spec *spec = parse("", &err);
	struct nest_protection_state state = { 0 };
	uint64_t wait;
	uint32_t probe;

	ck_assert_ptr_nonnull(spec);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(nest_protection_admit(&spec->protection, &state, 0, &probe, &wait),
			NEST_FAILURE_NONE);
	ck_assert(!nest_protection_falls_back(&spec->protection, NEST_FAILURE_CRASHED, false));
	nest_function_free(spec);
}
END_TEST

START_TEST(a_rate_refuses_and_gives_a_probe_s_place_back)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_function_spec *spec =
		parse("\"limits\":{\"rate\":2},\"breaker\":{\"failures\":1,\"openMs\":1}", &err);
	struct nest_protection_state state = { 0 };
	const struct nest_protection *p = &spec->protection;
	uint64_t wait;
	uint32_t probe;

	ck_assert_int_eq(nest_protection_admit(p, &state, 0, &probe, &wait), NEST_FAILURE_NONE);
	ck_assert_int_eq(nest_protection_admit(p, &state, 0, &probe, &wait), NEST_FAILURE_NONE);
	nest_breaker_note(&state.breaker, &p->breaker, 0, NEST_BREAKER_FAILED, 0);
	ck_assert_int_eq(
		nest_protection_admit(p, &state, 0, &probe, &wait), NEST_FAILURE_UNAVAILABLE);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(nest_protection_admit(p, &state, 2 * MS, &probe, &wait),
			NEST_FAILURE_THROTTLED);
	ck_assert_uint_eq(wait, 498 * MS);
	ck_assert_int_eq(
		nest_protection_admit(p, &state, SECOND, &probe, &wait), NEST_FAILURE_NONE);
	ck_assert_uint_ne(probe, 0);
	ck_assert_uint_eq(state.limited_total, 3);
	ck_assert_uint_eq(state.broken_total, 1);
	nest_function_free(spec);
}
END_TEST

START_TEST(only_the_function_s_faults_count_for_the_breaker)
{
	static const enum nest_failure_kind faults[] = { NEST_FAILURE_INIT, NEST_FAILURE_CRASHED,
		NEST_FAILURE_OOM, NEST_FAILURE_INVALID, NEST_FAILURE_ERROR, NEST_FAILURE_TIMEOUT };
	static const enum nest_failure_kind others[] = { NEST_FAILURE_THROTTLED,
		NEST_FAILURE_UNAVAILABLE, NEST_FAILURE_DRAINING, NEST_FAILURE_CANCELLED };

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		ck_assert_int_eq(nest_protection_outcome(faults[i], true, 0), NEST_BREAKER_FAILED);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ck_assert_int_eq(nest_protection_outcome(others[i], true, 0), NEST_BREAKER_UNTRIED);
	ck_assert_int_eq(
		nest_protection_outcome(NEST_FAILURE_TIMEOUT, false, 0), NEST_BREAKER_UNTRIED);
	ck_assert_int_eq(nest_protection_outcome(NEST_FAILURE_NONE, true, 0), NEST_BREAKER_WELL);
	ck_assert_int_eq(nest_protection_outcome(NEST_FAILURE_NONE, true, 404), NEST_BREAKER_WELL);
	ck_assert_int_eq(
		nest_protection_outcome(NEST_FAILURE_NONE, true, 500), NEST_BREAKER_FAILED);
}
END_TEST

START_TEST(a_fallback_has_its_headers_and_its_occasions)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_call_header headers[NEST_PROTECTION_HEADERS_MAX + 1];
	struct nest_function_spec *spec =
		parse("\"fallback\":{\"status\":200,\"headers\":{\"x-a\":\"b=c\"},\"body\":\"{}\"}",
			&err);
	const struct nest_protection *p = &spec->protection;

	ck_assert(nest_protection_falls_back(p, NEST_FAILURE_CRASHED, false));
	ck_assert(nest_protection_falls_back(p, NEST_FAILURE_THROTTLED, false));
	ck_assert(!nest_protection_falls_back(p, NEST_FAILURE_DRAINING, false));
	ck_assert(!nest_protection_falls_back(p, NEST_FAILURE_CANCELLED, false));
	ck_assert_uint_eq(nest_protection_headers(p, NEST_FAILURE_TIMEOUT, headers), 2);
	ck_assert_mem_eq(headers[0].value, "timeout", 7);
	ck_assert_mem_eq(headers[1].name, "x-a", headers[1].name_len);
	ck_assert_str_eq(headers[1].value, "b=c");
	nest_function_free(spec);
	spec = parse("\"fallback\":{\"status\":503,\"when\":\"open\"}", &err);
	ck_assert(!nest_protection_falls_back(&spec->protection, NEST_FAILURE_CRASHED, false));
	ck_assert(nest_protection_falls_back(&spec->protection, NEST_FAILURE_UNAVAILABLE, true));
	nest_function_free(spec);
}
END_TEST

static void assert_refused(const char *keys, const char *says)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_ptr_null(parse(keys, &err));
	ck_assert_int_eq(err.code, -EINVAL);
	ck_assert_msg(strstr(nest_err_text(&err), says) != NULL, "%s", nest_err_text(&err));
}

START_TEST(wrong_keys_are_refused)
{
	assert_refused("\"fallback\":{\"status\":100}", "0 or from 200 to 599, not 100");
	assert_refused("\"fallback\":{\"status\":600}", "fallback.status");
	assert_refused("\"fallback\":{\"headers\":{\"X-A\":\"1\"}}", "lower-case");
	assert_refused("\"fallback\":{\"headers\":{\"x-a\":\"1\\n2\"}}", "control character");
	assert_refused("\"breaker\":{\"probes\":0}", "breaker.probes");
	assert_refused("\"limits\":{\"rate\":-1}", "limits.rate");
	assert_refused("\"recycle\":{\"age\":1}", "'ageMs'");
}
END_TEST

NEST_SUITE("runtime/protection", a_bucket_gives_its_burst_and_then_its_rate,
	a_rate_is_exact_over_time, only_failures_in_a_row_open_it, an_open_one_says_how_long_it_is,
	probes_that_all_go_well_close_it, a_probe_that_fails_opens_it_again,
	a_probe_that_was_not_tried_gives_its_place_back, without_terms_there_is_no_breaker,
	pauses_double_and_a_quarantine_goes_further, without_a_quarantine_pauses_end_at_ten_seconds,
	a_worker_is_worn_by_what_its_terms_name, a_spec_protects_nothing_unless_it_says_so,
	a_rate_refuses_and_gives_a_probe_s_place_back,
	only_the_function_s_faults_count_for_the_breaker,
	a_fallback_has_its_headers_and_its_occasions, wrong_keys_are_refused)
