/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_PROTECTION_H
#define NEST_RUNTIME_PROTECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/backoff.h"
#include "runtime/breaker.h"
#include "runtime/call.h"
#include "runtime/failure.h"
#include "runtime/rate_limit.h"
#include "runtime/recycle.h"

struct nest_err;
struct nest_schema_place;

#define NEST_PROTECTION_HEADERS_MAX 32 /* of a fallback result */

enum nest_protection_when {
	NEST_PROTECTION_FAILED, /* a request failed, or was refused for the function's sake */
	NEST_PROTECTION_OPEN,	/* the breaker refused it */
};

/* What a function's spec says (runtime/protection.def) about what it may do and what is done about it. */
struct nest_protection {
	uint32_t rate_milli;  /* requests a second, thousandths; 0: any */
	uint32_t burst;	      /* 0: a second's worth */
	uint32_t concurrency; /* with all workers together; 0: any */
	struct nest_breaker_terms breaker;
	uint32_t fallback_status; /* 0: there is no fallback result */
	unsigned fallback_when;	  /* enum nest_protection_when */
	const char *const *fallback_headers;
	const char *fallback_body;
	struct nest_recycle_terms recycle;
	struct nest_backoff_terms quarantine;
};

/* What of it one version of a function has used up, and how often it took effect. */
struct nest_protection_state {
	struct nest_rate_limit rate;
	struct nest_breaker breaker;
	uint64_t limited_total; /* refused by the rate limit */
	uint64_t broken_total;	/* refused by the breaker */
	uint64_t fallbacks_total;
};

/* Whether @text is a header's name as the gateway has them. Any thread. */
bool nest_protection_is_header(const char *text);

/* What a table can't say. -EINVAL. Any thread. */
int nest_protection_check(const struct nest_protection *terms, struct nest_schema_place *ret_place,
	struct nest_err *err);

/*
 * Whether a request may pass at @now_us. NEST_FAILURE_NONE: with *@ret_probe for nest_breaker_note();
 * THROTTLED or UNAVAILABLE (the breaker): with the microseconds until another try. Any thread.
 */
enum nest_failure_kind nest_protection_admit(const struct nest_protection *terms,
	struct nest_protection_state *state, uint64_t now_us, uint32_t *ret_probe,
	uint64_t *ret_wait_us);

/*
 * What an end by @kind tells the breaker; @begun: a worker had the request, @status: of its response
 * (0: none, or an event's). Any thread.
 */
enum nest_breaker_outcome nest_protection_outcome(
	enum nest_failure_kind kind, bool begun, unsigned status);

/* Whether a request that failed by @kind gets the fallback result; @broken: the breaker refused it. */
bool nest_protection_falls_back(
	const struct nest_protection *terms, enum nest_failure_kind kind, bool broken);

/* The headers of the fallback result for a failure by @kind, pointing into @terms; their number. */
size_t nest_protection_headers(const struct nest_protection *terms, enum nest_failure_kind kind,
	struct nest_call_header ret[static NEST_PROTECTION_HEADERS_MAX + 1]);

#endif
