/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cron.h"
#include "base/err.h"
#include "base/zone.h"
#include "tests/unit/suite.h"

/* "2026-03-29 02:30" in UTC. */
static int64_t utc(const char *text)
{
	struct tm tm = { 0 };

	ck_assert_ptr_nonnull(strptime(text, "%Y-%m-%d %H:%M", &tm));
	return timegm(&tm);
}

static int64_t next(const char *text, const char *zone_name, const char *after)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_zone *zone = NULL;
	struct nest_cron cron;
	int64_t at;

	ck_assert_int_eq(nest_zone_open(zone_name, &zone, &err), 0);
	ck_assert_msg(nest_cron_parse(text, &cron, &err) == 0, "%s", nest_err_text(&err));
	at = nest_cron_next(&cron, zone, utc(after));
	nest_zone_free(zone);
	return at;
}

START_TEST(the_next_moment_is_behind_now)
{
	static const struct {
		const char *cron, *zone, *after, *next;
	} rows[] = {
		{ "* * * * *", "UTC", "2026-01-01 00:00", "2026-01-01 00:01" },
		{ "0 8 * * *", "UTC", "2026-01-01 08:00", "2026-01-02 08:00" },
		{ "0 8 * * *", "UTC", "2026-01-01 07:59", "2026-01-01 08:00" },
		{ "0 8 * * mon-fri", "UTC", "2026-01-02 08:00", "2026-01-05 08:00" },
		{ "*/15 9-17/4 * * *", "UTC", "2026-01-01 09:46", "2026-01-01 13:00" },
		{ "5/20 * * * *", "UTC", "2026-01-01 00:46", "2026-01-01 01:05" },
		{ "0 0 29 2 *", "UTC", "2026-01-01 00:00", "2028-02-29 00:00" },
		{ "0 0 29 2 *", "UTC", "2096-03-01 00:00", "2104-02-29 00:00" },
		{ "0 0 1,15 * *", "UTC", "2026-01-01 00:00", "2026-01-15 00:00" },
		{ "0 0 13 * 5", "UTC", "2026-01-03 00:00", "2026-01-09 00:00" }, /* a Friday */
		{ "0 0 13 * 5", "UTC", "2026-01-09 00:00", "2026-01-13 00:00" }, /* a 13th */
		{ "0 0 * * 7", "UTC", "2026-01-01 00:00", "2026-01-04 00:00" },
		{ "0 0 * * SUN", "UTC", "2026-01-01 00:00", "2026-01-04 00:00" },
		{ "0 0 31 DEC *", "UTC", "2026-12-31 00:00", "2027-12-31 00:00" },
		{ "0 8 * * *", "Europe/Berlin", "2026-01-01 00:00", "2026-01-01 07:00" },
		{ "0 8 * * *", "Europe/Berlin", "2026-07-01 00:00", "2026-07-01 06:00" },
		{ "0 8 * * *", "Asia/Kolkata", "2026-07-01 00:00", "2026-07-01 02:30" },
		{ "30 23 * * *", "America/New_York", "2026-01-01 00:00", "2026-01-01 04:30" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(next(rows[i].cron, rows[i].zone, rows[i].after) == utc(rows[i].next),
			"row %zu, %s", i, rows[i].cron);
}
END_TEST

START_TEST(what_clocks_leave_out_comes_at_their_change)
{
	/* in Berlin, 02:00 to 03:00 of 2026-03-29 does not exist */
	ck_assert_int_eq(
		next("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00"), utc("2026-03-29 01:00"));
	ck_assert_int_eq(
		next("30 2 * * *", "Europe/Berlin", "2026-03-29 01:00"), utc("2026-03-30 00:30"));
}
END_TEST

START_TEST(an_hour_that_comes_twice_counts_once)
{
	/* there, 02:00 to 03:00 of 2026-10-25 comes twice */
	ck_assert_int_eq(
		next("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00"), utc("2026-10-25 00:30"));
	ck_assert_int_eq(
		next("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30"), utc("2026-10-26 01:30"));
	ck_assert_int_eq(
		next("0 4 * * *", "Europe/Berlin", "2026-10-25 01:10"), utc("2026-10-25 03:00"));
}
END_TEST

START_TEST(each_moment_follows_from_the_one_before)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_zone *zone = NULL;
	struct nest_cron cron;
	int64_t at = utc("2026-01-01 00:00"), count = 0;

	ck_assert_int_eq(nest_zone_open("Europe/Berlin", &zone, &err), 0);
	ck_assert_int_eq(nest_cron_parse("15 */6 * * *", &cron, &err), 0);
	for (; at < utc("2027-01-01 00:00"); count++) {
		int64_t then = nest_cron_next(&cron, zone, at);

		ck_assert_int_gt(then, at);
		ck_assert_int_le(then - at, 7 * 3600);
		at = then;
	}
	ck_assert_int_eq(count, 365 * 4 + 1);
	nest_zone_free(zone);
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
	static const struct {
		const char *text, *names;
	} rows[] = {
		{ "", "minute" },
		{ "60 * * * *", "minute" },
		{ "* 24 * * *", "hour" },
		{ "* * 0 * *", "day of the month" },
		{ "* * 32 * *", "day of the month" },
		{ "* * * 13 *", "month" },
		{ "* * * * 8", "weekday" },
		{ "* * * * mo", "weekday" },
		{ "5-1 * * * *", "minute" },
		{ "*/0 * * * *", "minute" },
		{ "1,,2 * * * *", "minute" },
		{ "1x * * * *", "minute" },
		{ "99999999999999999999 * * * *", "minute" },
		{ "* * * *", "weekday" },
		{ "* * * * * *", "more than" },
		{ "0 0 30 2 *", "never comes" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_cron cron;

		ck_assert_int_eq(nest_cron_parse(rows[i].text, &cron, &err), -EINVAL);
		ck_assert_msg(
			strstr(nest_err_text(&err), rows[i].names), "%s", nest_err_text(&err));
	}
}
END_TEST

NEST_SUITE("base/cron", the_next_moment_is_behind_now, what_clocks_leave_out_comes_at_their_change,
	an_hour_that_comes_twice_counts_once, each_moment_follows_from_the_one_before,
	what_is_wrong_is_named)
