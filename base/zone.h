/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_ZONE_H
#define NEST_BASE_ZONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;

/*
 * One time zone of the system's database: how local time there differs from UTC. Read here rather
 * than by the C library, whose time zone is one for all threads of a process.
 */
struct nest_zone;

/* Whether @name has the form of a zone's name: "UTC", "Europe/Berlin". Any thread. */
bool nest_zone_is_name(const char *name);

/*
 * Opens the zone called @name. "UTC" is there without a database. The caller owns *@ret. -EINVAL:
 * not a name; -ENOENT: no such zone, or no database; -EBADMSG: its file is damaged. Blocks on the
 * disk. Any thread.
 */
int nest_zone_open(const char *name, struct nest_zone **ret, struct nest_err *err);

/* The same from the @n bytes of a zone's file (RFC 8536). -EBADMSG, -ENOMEM. Any thread. */
int nest_zone_parse(const void *bytes, size_t n, const char *name, struct nest_zone **ret,
	struct nest_err *err);

void nest_zone_free(struct nest_zone *zone); /* NULL is fine */

/* Seconds to add to @unix_s (UTC) for local time. Any thread. */
int32_t nest_zone_offset(const struct nest_zone *zone, int64_t unix_s);

/*
 * The first moment at which clocks there show @local_s (seconds since the epoch as if local time
 * were UTC) or later: of an hour that comes twice the first, of one that is left out its end.
 */
int64_t nest_zone_first(const struct nest_zone *zone, int64_t local_s);

#endif
