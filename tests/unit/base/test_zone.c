/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/civil.h"
#include "base/err.h"
#include "base/zone.h"
#include "base/zone_rule.h"
#include "tests/unit/suite.h"

static const char *const zones[] = { "UTC", "Europe/Berlin", "America/New_York", "America/St_Johns",
	"America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Lord_Howe",
	"Pacific/Auckland", "Pacific/Apia", "Africa/Casablanca", "Europe/Dublin",
	"America/Argentina/Buenos_Aires" };

START_TEST(offsets_are_those_of_the_c_library)
{
	for (size_t i = 0; i < sizeof(zones) / sizeof(zones[0]); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_zone *zone = NULL;

		ck_assert_msg(
			nest_zone_open(zones[i], &zone, &err) == 0, "%s", nest_err_text(&err));
		setenv("TZ", zones[i], 1);
		tzset();
		/* 1975 to 2090, in steps that meet all hours: before, in and behind the table */
		for (int64_t t = 157766400; t < 3786912000; t += 12 * 3600 + 977) {
			time_t seconds = (time_t)t;
			struct tm tm;

			localtime_r(&seconds, &tm);
			ck_assert_msg(nest_zone_offset(zone, t) == tm.tm_gmtoff,
				"%s at %lld: %d, not %ld", zones[i], (long long)t,
				nest_zone_offset(zone, t), tm.tm_gmtoff);
		}
		nest_zone_free(zone);
	}
}
END_TEST

START_TEST(local_time_has_its_first_moment)
{
	static const struct {
		int64_t local, utc;
	} rows[] = {
		{ 1767225600, 1767225600 - 3600 }, /* 2026-01-01 00:00, winter */
		{ 1782864000, 1782864000 - 7200 }, /* 2026-07-01 00:00, summer */
		{ 1774747800, 1774744200 },	   /* 2026-03-29 01:30 */
		{ 1774751400, 1774746000 },	   /* 02:30 is left out: 03:00 */
		{ 1792895400, 1792888200 },	   /* 2026-10-25 02:30, the first */
		{ 1792899000, 1792895400 },	   /* 03:30 */
	};
	struct nest_err err = NEST_ERR_INIT;
	struct nest_zone *zone = NULL;

	ck_assert_int_eq(nest_zone_open("Europe/Berlin", &zone, &err), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(nest_zone_first(zone, rows[i].local) == rows[i].utc, "row %zu: %lld",
			i, (long long)nest_zone_first(zone, rows[i].local));
	nest_zone_free(zone);
}
END_TEST

START_TEST(a_zone_that_is_none_is_named)
{
	static const char *const names[] = { "", "/etc/passwd", "../etc/passwd", "Europe/../UTC",
		"Europe/", "a b", "Europe//Berlin", "1a" };
	struct nest_err err = NEST_ERR_INIT;
	struct nest_zone *zone = NULL;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		ck_assert_int_eq(nest_zone_open(names[i], &zone, &err), -EINVAL);
	ck_assert_int_eq(nest_zone_open("Europe/Atlantis", &zone, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "tzdata"));
	ck_assert_int_eq(nest_zone_open("Europe", &zone, &err), -ENOENT);
	ck_assert_int_eq(nest_zone_open("zone/tab", &zone, &err), -ENOENT);
}
END_TEST

/* A file of no transitions and one type, and what may be wrong with it. */
static const char small[] = "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\4"
			    "\0\0\0\0\0\0UTC\0"
			    "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\4"
			    "\0\0\16\20\0\0CET\0\nCET-1\n";

START_TEST(a_file_that_is_cut_is_damaged)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_zone *zone = NULL;
	size_t n = sizeof(small) - 1;

	ck_assert_int_eq(nest_zone_parse(small, n, "small", &zone, &err), 0);
	ck_assert_int_eq(nest_zone_offset(zone, 0), 3600);
	nest_zone_free(zone);
	for (size_t i = 0; i < n; i++) {
		/* in memory of its own, so that a byte read behind it is found */
		char *cut = malloc(i + 1);

		memcpy(cut, small, i);
		ck_assert_int_eq(nest_zone_parse(cut, i, "small", &zone, &err), -EBADMSG);
		free(cut);
	}
}
END_TEST

START_TEST(rules_are_read_as_posix_says)
{
	static const struct {
		const char *text;
		int32_t january, july; /* of 2040 */
	} rows[] = {
		{ "CET-1CEST,M3.5.0,M10.5.0/3", 3600, 7200 },
		{ "NZST-12NZDT,M9.5.0,M4.1.0/3", 13 * 3600, 12 * 3600 },
		{ "<+0330>-3:30", 12600, 12600 },
		{ "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1", -3 * 3600, -2 * 3600 },
		{ "EST5EDT4,J60,J300/1:30:10", -5 * 3600, -4 * 3600 },
		{ "XXX0YYY,59,299", 0, 3600 },
	};
	static const char *const wrong[] = { "", "CE", "CET", "CET-1CEST", "CET-25", "CET-1CEST,",
		"CET-1CEST,M3.5.0", "CET-1CEST,M13.1.0,M10.5.0", "CET-1CEST,M3.0.0,M10.5.0",
		"CET-1CEST,M3.5.7,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0x", "<CET-1", "CET-1:60" };
	struct nest_zone_rule rule;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_msg(nest_zone_rule_parse(rows[i].text, &rule), "%s", rows[i].text);
		ck_assert_int_eq(nest_zone_rule_offset(&rule, 2209939200), rows[i].january);
		ck_assert_int_eq(nest_zone_rule_offset(&rule, 2225664000), rows[i].july);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ck_assert_msg(!nest_zone_rule_parse(wrong[i], &rule), "%s", wrong[i]);
}
END_TEST

START_TEST(days_go_both_ways)
{
	for (int64_t days = -200000; days < 200000; days += 13) {
		struct nest_civil_day day = nest_civil_day(days);

		ck_assert_int_eq(nest_civil_days(day.year, day.month, day.day), days);
		ck_assert_int_eq(day.weekday, ((days + 4) % 7 + 7) % 7);
	}
	ck_assert_int_eq(nest_civil_days(2000, 3, 1) - nest_civil_days(2000, 2, 28), 2);
	ck_assert_int_eq(nest_civil_days(2100, 3, 1) - nest_civil_days(2100, 2, 28), 1);
}
END_TEST

NEST_SUITE("base/zone", offsets_are_those_of_the_c_library, local_time_has_its_first_moment,
	a_zone_that_is_none_is_named, a_file_that_is_cut_is_damaged, rules_are_read_as_posix_says,
	days_go_both_ways)
