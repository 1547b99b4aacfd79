/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_CIVIL_H
#define NEST_BASE_CIVIL_H

#include <stdbool.h>
#include <stdint.h>

/* A day of the Gregorian calendar, whatever the time zone. */
struct nest_civil_day {
	int64_t year;
	int month;   /* 1 to 12 */
	int day;     /* 1 to 31 */
	int weekday; /* 0: Sunday */
};

/* Days from 1970-01-01 to this one. Any thread. */
int64_t nest_civil_days(int64_t year, int month, int day);

/* The day that is @days after 1970-01-01 (before, if negative). Any thread. */
struct nest_civil_day nest_civil_day(int64_t days);

/* Whether @year has a February 29. Any thread. */
bool nest_civil_is_leap(int64_t year);

#endif
