/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/protection.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/schema.h"

#define FALLBACK_HEADER "x-nestlet-fallback" /* tells a fallback result from the function's */

bool nest_protection_is_header(const char *text)
{
	size_t n = 0;

	for (; text[n]; n++) {
		if (!islower((unsigned char)text[n]) && !isdigit((unsigned char)text[n]) &&
			!strchr("!#$%&'*+-.^_`|~", text[n]))
			return false;
	}
	return n > 0 && n <= 128;
}

static bool is_header_value(const char *text)
{
	for (; *text; text++) {
		if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
			return false;
	}
	return true;
}

static int check_headers(
	const char *const *headers, struct nest_schema_place *place, struct nest_err *err)
{
	size_t n = 0;

	for (; headers && headers[n]; n++) {
		int len = (int)strcspn(headers[n], "=");

		if (is_header_value(headers[n] + len))
			continue;
		nest_schema_locate(place, "fallback.headers.%.*s", len, headers[n]);
		return nest_err_say(err, -EINVAL, "'fallback.headers.%.*s' has a control character",
			len, headers[n]);
	}
	if (n <= NEST_PROTECTION_HEADERS_MAX)
		return 0;
	nest_schema_locate(place, "fallback.headers");
	return nest_err_say(err, -EINVAL, "'fallback.headers' has %zu members, more than %d", n,
		NEST_PROTECTION_HEADERS_MAX);
}

int nest_protection_check(const struct nest_protection *terms, struct nest_schema_place *ret_place,
	struct nest_err *err)
{
	if (terms->fallback_status != 0 && terms->fallback_status < 200) {
		nest_schema_locate(ret_place, "fallback.status");
		return nest_err_say(err, -EINVAL,
			"'fallback.status' must be 0 or from 200 to 599, not %u",
			terms->fallback_status);
	}
	return check_headers(terms->fallback_headers, ret_place, err);
}

/* A bucket of a second's tokens, at least one. */
static uint32_t burst_of(const struct nest_protection *terms)
{
	if (terms->burst > 0)
		return terms->burst;
	return terms->rate_milli < 1000 ? 1 : terms->rate_milli / 1000;
}

enum nest_failure_kind nest_protection_admit(const struct nest_protection *terms,
	struct nest_protection_state *state, uint64_t now_us, uint32_t *ret_probe,
	uint64_t *ret_wait_us)
{
	if (!nest_breaker_admit(&state->breaker, &terms->breaker, now_us, ret_probe, ret_wait_us)) {
		state->broken_total++;
		return NEST_FAILURE_UNAVAILABLE;
	}
	if (terms->rate_milli == 0)
		return NEST_FAILURE_NONE;
	*ret_wait_us =
		nest_rate_limit_take(&state->rate, terms->rate_milli, burst_of(terms), now_us);
	if (*ret_wait_us == 0)
		return NEST_FAILURE_NONE;
	nest_breaker_note(
		&state->breaker, &terms->breaker, *ret_probe, NEST_BREAKER_UNTRIED, now_us);
	*ret_probe = 0;
	state->limited_total++;
	return NEST_FAILURE_THROTTLED;
}

enum nest_breaker_outcome nest_protection_outcome(
	enum nest_failure_kind kind, bool begun, unsigned status)
{
	switch (kind) {
	case NEST_FAILURE_NONE:
		return status >= 500 ? NEST_BREAKER_FAILED : NEST_BREAKER_WELL;
	case NEST_FAILURE_INIT:
	case NEST_FAILURE_CRASHED:
	case NEST_FAILURE_OOM:
	case NEST_FAILURE_INVALID:
	case NEST_FAILURE_ERROR:
		return NEST_BREAKER_FAILED;
	case NEST_FAILURE_TIMEOUT: /* of waiting: the caller's own */
		return begun ? NEST_BREAKER_FAILED : NEST_BREAKER_UNTRIED;
	default:
		return NEST_BREAKER_UNTRIED;
	}
}

bool nest_protection_falls_back(
	const struct nest_protection *terms, enum nest_failure_kind kind, bool broken)
{
	if (terms->fallback_status == 0 || kind == NEST_FAILURE_NONE)
		return false;
	/* a host that goes away is no fault to be smoothed over: another host has the real answer */
	if (kind == NEST_FAILURE_DRAINING || kind == NEST_FAILURE_CANCELLED)
		return false;
	return broken || terms->fallback_when == NEST_PROTECTION_FAILED;
}

size_t nest_protection_headers(const struct nest_protection *terms, enum nest_failure_kind kind,
	struct nest_call_header ret[static NEST_PROTECTION_HEADERS_MAX + 1])
{
	const char *word = nest_failure_outcome(kind);
	size_t n = 0;

	ret[n++] = (struct nest_call_header){
		.name = FALLBACK_HEADER,
		.value = word,
		.name_len = sizeof(FALLBACK_HEADER) - 1,
		.value_len = (uint32_t)strlen(word),
	};
	for (const char *const *h = terms->fallback_headers; h && *h; h++) {
		size_t len = strcspn(*h, "=");

		ret[n++] = (struct nest_call_header){
			.name = *h,
			.value = *h + len + 1,
			.name_len = (uint32_t)len,
			.value_len = (uint32_t)strlen(*h + len + 1),
		};
	}
	return n;
}
