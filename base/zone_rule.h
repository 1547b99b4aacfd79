/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_ZONE_RULE_H
#define NEST_BASE_ZONE_RULE_H

#include <stdbool.h>
#include <stdint.h>

/* A day of the year and the local time on it. */
struct nest_zone_day {
	char form; /* 'M': month, week and weekday; 'J': day from 1, never February 29; 'D': day from 0 */
	int month;
	int week; /* 5: the last */
	int weekday;
	int day;
	int32_t time_s; /* since its midnight; may lie in another day */
};

/* Local time by a rule that holds for every year, as POSIX's TZ says it: "CET-1CEST,M3.5.0,M10.5.0/3". */
struct nest_zone_rule {
	int32_t standard_s; /* to be added to UTC */
	int32_t summer_s;
	bool has_summer;
	struct nest_zone_day begins; /* in standard time */
	struct nest_zone_day ends;   /* in summer time */
};

/* Whether @text is such a rule; then *@ret. Any thread. */
bool nest_zone_rule_parse(const char *text, struct nest_zone_rule *ret);

/* Seconds to add to @unix_s (UTC) for local time. Any thread. */
int32_t nest_zone_rule_offset(const struct nest_zone_rule *rule, int64_t unix_s);

#endif
