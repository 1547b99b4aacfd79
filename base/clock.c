/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#define LAST_MS_OF_YEAR_9999 253402300799999u

uint64_t nest_clock_mono_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint64_t nest_clock_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void nest_clock_rfc3339(uint64_t wall_ms, char ret_text[NEST_CLOCK_RFC3339_LEN])
{
	struct tm tm = { .tm_mday = 1 };
	time_t seconds;

	if (wall_ms > LAST_MS_OF_YEAR_9999)
		wall_ms = LAST_MS_OF_YEAR_9999; /* the form has four digits for the year */
	seconds = (time_t)(wall_ms / 1000u);
	gmtime_r(&seconds, &tm);
	/* the remainders change nothing but tell the compiler that the text fits */
	snprintf(ret_text, NEST_CLOCK_RFC3339_LEN, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
		(unsigned)(tm.tm_year + 1900) % 10000u, (unsigned)(tm.tm_mon + 1) % 100u,
		(unsigned)tm.tm_mday % 100u, (unsigned)tm.tm_hour % 100u,
		(unsigned)tm.tm_min % 100u, (unsigned)tm.tm_sec % 100u,
		(unsigned)(wall_ms % 1000u));
}
