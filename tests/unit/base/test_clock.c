/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "tests/unit/suite.h"

START_TEST(monotonic_time_never_goes_back)
{
	uint64_t last = nest_clock_mono_us();

	for (int i = 0; i < 10000; i++) {
		uint64_t now = nest_clock_mono_us();

		ck_assert_uint_ge(now, last);
		last = now;
	}
}
END_TEST

START_TEST(wall_time_is_the_systems)
{
	uint64_t before = (uint64_t)time(NULL) * 1000;
	uint64_t now = nest_clock_wall_ms();

	/* time(2) reads a coarser clock, which may lag by a tick */
	ck_assert_uint_ge(now + 20, before);
	ck_assert_uint_le(now, ((uint64_t)time(NULL) + 2) * 1000);
}
END_TEST

START_TEST(rfc3339_has_milliseconds_and_utc)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} rows[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 951782399999, "2000-02-28T23:59:59.999Z" },
		{ 951782400000, "2000-02-29T00:00:00.000Z" },
		{ 1767323045678, "2026-01-02T03:04:05.678Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
		{ UINT64_MAX, "9999-12-31T23:59:59.999Z" },
	};
	char text[NEST_CLOCK_RFC3339_LEN];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		nest_clock_rfc3339(rows[i].ms, text);
		ck_assert_str_eq(text, rows[i].text);
	}
}
END_TEST

NEST_SUITE("base/clock", monotonic_time_never_goes_back, wall_time_is_the_systems,
	rfc3339_has_milliseconds_and_utc)
