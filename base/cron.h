/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_CRON_H
#define NEST_BASE_CRON_H

#include <stdbool.h>
#include <stdint.h>

struct nest_err;
struct nest_zone;

/*
 * Moments of local time by crontab(5)'s five fields, "minute hour day month weekday": each "*", a
 * number, a name of three letters (months, weekdays), a range, a list, with "/step". Where both days
 * are restricted one of them is enough.
 */
struct nest_cron {
	uint64_t minutes; /* a bit for each */
	uint32_t hours;
	uint32_t days;
	uint16_t months;
	uint8_t weekdays; /* bit 0: Sunday */
	bool any_day;
	bool any_weekday;
};

/* Parses @text; -EINVAL names the field, also where no such day ever comes. Any thread. */
int nest_cron_parse(const char *text, struct nest_cron *ret, struct nest_err *err);

/*
 * The first moment of @cron in @zone behind @after_s (seconds since the epoch). An hour that clocks
 * show twice counts once, the first time; what they leave out counts at their change. Any thread.
 */
int64_t nest_cron_next(const struct nest_cron *cron, const struct nest_zone *zone, int64_t after_s);

#endif
