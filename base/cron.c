/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cron.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/civil.h"
#include "base/err.h"
#include "base/zone.h"

#define DAY_S 86400
#define TWICE_S (4 * 3600) /* no clock is put back by more */
#define DAYS_MAX 3300 /* February 29 comes within eight years and some days, also around 2100 */

/* ---- reading ---- */

static const char *const months[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep",
	"oct", "nov", "dec", NULL };
static const char *const weekdays[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL };

struct field {
	const char *name;
	unsigned min, max;
	const char *const *words; /* the first is min */
};

static const struct field fields[] = {
	{ "minute", 0, 59, NULL },
	{ "hour", 0, 23, NULL },
	{ "day of the month", 1, 31, NULL },
	{ "month", 1, 12, months },
	{ "weekday", 0, 7, weekdays },
};

static bool take_value(const char **p, const struct field *field, unsigned *ret)
{
	unsigned value = 0;

	for (unsigned i = 0; field->words && field->words[i]; i++) {
		if (strncasecmp(*p, field->words[i], 3) != 0)
			continue;
		*p += 3;
		*ret = field->min + i;
		return true;
	}
	if (!isdigit((unsigned char)**p))
		return false;
	while (isdigit((unsigned char)**p) && value < 1000)
		value = value * 10 + (unsigned)(*(*p)++ - '0');
	*ret = value;
	return value >= field->min && value <= field->max;
}

/* One of a list: "*", "5", "1-5", each with "/2" behind it. */
static bool take_item(const char **p, const struct field *field, uint64_t *ret_bits)
{
	static const struct field steps = { "step", 1, 59, NULL };
	unsigned from = field->min, to = field->max, by = 1;

	if (**p == '*') {
		++*p;
		to = field->max - (field->max == 7); /* Sunday is 0 already */
	} else {
		if (!take_value(p, field, &from))
			return false;
		to = from;
		if (**p == '-') {
			++*p;
			if (!take_value(p, field, &to) || to < from)
				return false;
		} else if (**p == '/') {
			to = field->max;
		}
	}
	if (**p == '/') {
		++*p;
		if (!take_value(p, &steps, &by))
			return false;
	}
	for (unsigned i = from; i <= to; i += by)
		*ret_bits |= 1ull << i;
	return true;
}

static bool take_field(const char **p, const struct field *field, uint64_t *ret_bits)
{
	for (;;) {
		if (!take_item(p, field, ret_bits))
			return false;
		if (**p != ',')
			break;
		++*p;
	}
	return **p == '\0' || isspace((unsigned char)**p);
}

static void skip_space(const char **p)
{
	while (isspace((unsigned char)**p))
		++*p;
}

/* ---- days ---- */

static bool has_day(const struct nest_cron *cron, const struct nest_civil_day *day)
{
	bool by_day = cron->days >> day->day & 1, by_weekday = cron->weekdays >> day->weekday & 1;

	if (!(cron->months >> day->month & 1))
		return false;
	if (cron->any_day || cron->any_weekday)
		return by_day && by_weekday;
	return by_day || by_weekday;
}

/* The first of its days from @day on; -1: there is none. */
static int64_t next_day(const struct nest_cron *cron, int64_t day)
{
	for (int64_t last = day + DAYS_MAX; day <= last; day++) {
		struct nest_civil_day civil = nest_civil_day(day);

		if (has_day(cron, &civil))
			return day;
	}
	return -1;
}

int nest_cron_parse(const char *text, struct nest_cron *ret, struct nest_err *err)
{
	uint64_t bits[NEST_ARRAY_SIZE(fields)] = { 0 };
	bool any[NEST_ARRAY_SIZE(fields)];
	const char *p = text;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(fields); i++) {
		skip_space(&p);
		any[i] = *p == '*';
		if (!take_field(&p, &fields[i], &bits[i]))
			return nest_err_say(err, -EINVAL,
				"'%s' has no %s from %u to %u in its field %zu of 5 (minute hour "
				"day "
				"month weekday)",
				text, fields[i].name, fields[i].min, fields[i].max, i + 1);
	}
	skip_space(&p);
	if (*p)
		return nest_err_say(err, -EINVAL,
			"'%s' has more than the 5 fields minute hour day month weekday", text);
	*ret = (struct nest_cron){
		.minutes = bits[0],
		.hours = (uint32_t)bits[1],
		.days = (uint32_t)bits[2],
		.months = (uint16_t)bits[3],
		.weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7f),
		.any_day = any[2],
		.any_weekday = any[4],
	};
	if (next_day(ret, 0) < 0)
		return nest_err_say(err, -EINVAL, "'%s' names a day that never comes", text);
	return 0;
}

/* ---- moments ---- */

/* The first moment of local time from @local_s on. */
static int64_t next_local(const struct nest_cron *cron, int64_t local_s)
{
	int64_t minute = local_s / 60 + (local_s % 60 > 0);
	int64_t day = minute / 1440;

	minute %= 1440;
	for (;; minute = 0, day++) {
		int64_t found = next_day(cron, day);

		if (found < 0)
			return INT64_MAX; /* not after nest_cron_parse() */
		if (found != day)
			minute = 0;
		day = found;
		for (; minute < 1440; minute++) {
			if (!(cron->hours >> (minute / 60) & 1)) {
				minute += 59 - minute % 60;
				continue;
			}
			if (cron->minutes >> (minute % 60) & 1)
				return (day * 1440 + minute) * 60;
		}
	}
}

int64_t nest_cron_next(const struct nest_cron *cron, const struct nest_zone *zone, int64_t after_s)
{
	int64_t local = after_s + nest_zone_offset(zone, after_s) - TWICE_S;
	int64_t at = after_s;

	/* before the epoch nothing is scheduled */
	for (local = local < 0 ? 0 : local; at <= after_s; local += 60) {
		local = next_local(cron, local);
		if (local == INT64_MAX)
			return INT64_MAX;
		at = nest_zone_first(zone, local);
	}
	return at;
}
