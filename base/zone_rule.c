/* SPDX-License-Identifier: Apache-2.0 */
#include "base/zone_rule.h"

#include <ctype.h>
#include <string.h>

#include "base/civil.h"

#define DAY_S 86400
#define HOUR_S 3600

/* ---- reading: each step takes what it knows from *@p ---- */

static bool take_number(const char **p, int max, int *ret)
{
	int value = 0;

	if (!isdigit((unsigned char)**p))
		return false;
	while (isdigit((unsigned char)**p)) {
		value = value * 10 + *(*p)++ - '0';
		if (value > max)
			return false;
	}
	*ret = value;
	return true;
}

/* "CET", or in brackets what is no word: "<+0330>". */
static bool take_name(const char **p)
{
	const char *end = *p;

	if (**p == '<') {
		end = strchr(*p, '>');
		if (!end)
			return false;
		*p = end + 1;
		return true;
	}
	while (isalpha((unsigned char)*end))
		end++;
	if (end - *p < 3)
		return false;
	*p = end;
	return true;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(const char **p, int hours_max, int32_t *ret_s)
{
	int sign = **p == '-' ? -1 : 1;
	int part[3] = { 0 };

	*p += **p == '-' || **p == '+';
	if (!take_number(p, hours_max, &part[0]))
		return false;
	for (int i = 1; i < 3 && **p == ':'; i++) {
		++*p;
		if (!take_number(p, 59, &part[i]))
			return false;
	}
	*ret_s = sign * (part[0] * HOUR_S + part[1] * 60 + part[2]);
	return true;
}

static bool take_point(const char **p)
{
	return *(*p)++ == '.';
}

static bool take_day(const char **p, struct nest_zone_day *ret)
{
	ret->form = 'D';
	if (**p == 'J' || **p == 'M')
		ret->form = *(*p)++;
	if (ret->form != 'M') {
		if (!take_number(p, 365, &ret->day))
			return false;
	} else if (!take_number(p, 12, &ret->month) || !take_point(p) ||
		   !take_number(p, 5, &ret->week) || !take_point(p) ||
		   !take_number(p, 6, &ret->weekday) || ret->month < 1 || ret->week < 1) {
		return false;
	}
	ret->time_s = 2 * HOUR_S;
	if (**p != '/')
		return true;
	++*p;
	return take_time(p, 167, &ret->time_s);
}

bool nest_zone_rule_parse(const char *text, struct nest_zone_rule *ret)
{
	const char *p = text;

	memset(ret, 0, sizeof(*ret));
	if (!take_name(&p) || !take_time(&p, 24, &ret->standard_s))
		return false;
	ret->standard_s = -ret->standard_s; /* POSIX counts westward */
	if (*p == '\0')
		return true;
	ret->has_summer = true;
	if (!take_name(&p))
		return false;
	ret->summer_s = -ret->standard_s - HOUR_S;
	if (*p != ',' && !take_time(&p, 24, &ret->summer_s))
		return false;
	ret->summer_s = -ret->summer_s;
	return *p++ == ',' && take_day(&p, &ret->begins) && *p++ == ',' &&
	       take_day(&p, &ret->ends) && *p == '\0';
}

/* ---- what it says ---- */

/* The moment of @day in @year, in seconds of local time since the epoch. */
static int64_t moment(const struct nest_zone_day *day, int64_t year)
{
	int64_t days = nest_civil_days(year, 1, 1);

	if (day->form == 'M') {
		int64_t first = nest_civil_days(year, day->month, 1);
		int64_t next = day->month < 12 ? nest_civil_days(year, day->month + 1, 1)
					       : nest_civil_days(year + 1, 1, 1);

		days = first + (day->weekday - nest_civil_day(first).weekday + 7) % 7 +
		       (day->week - 1) * 7;
		if (days >= next)
			days -= 7;
	} else if (day->form == 'J') {
		days += day->day - 1 + (day->day >= 60 && nest_civil_is_leap(year));
	} else {
		days += day->day;
	}
	return days * DAY_S + day->time_s;
}

int32_t nest_zone_rule_offset(const struct nest_zone_rule *rule, int64_t unix_s)
{
	int64_t local = unix_s + rule->standard_s;
	int64_t year = nest_civil_day((local - (local < 0 ? DAY_S - 1 : 0)) / DAY_S).year;
	int64_t begins, ends;
	bool summer;

	if (!rule->has_summer)
		return rule->standard_s;
	begins = moment(&rule->begins, year) - rule->standard_s;
	ends = moment(&rule->ends, year) - rule->summer_s;
	/* on the southern half summer goes over the year's end */
	summer = begins < ends ? unix_s >= begins && unix_s < ends
			       : unix_s >= begins || unix_s < ends;
	return summer ? rule->summer_s : rule->standard_s;
}
