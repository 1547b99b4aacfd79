/* SPDX-License-Identifier: Apache-2.0 */
#include "base/zone.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/zone_rule.h"

#define DAY_S 86400
#define FILE_MAX (1u << 20)
#define NAME_MAX_CHARS 64
#define TRANSITIONS_MAX 10000u

static const char database[] = "/usr/share/zoneinfo";

/* From @at_s on, local time is @offset_s ahead of UTC. */
struct transition {
	int64_t at_s;
	int32_t offset_s;
};

struct nest_zone {
	int32_t first_offset_s; /* before the first transition */
	bool ruled;		/* the rule holds behind the last transition */
	struct nest_zone_rule rule;
	uint32_t n;
	struct transition transitions[];
};

bool nest_zone_is_name(const char *name)
{
	bool begins = true;
	size_t n = 0;

	for (; name[n]; n++) {
		unsigned char c = (unsigned char)name[n];

		if (n >= NAME_MAX_CHARS || (begins && !isalpha(c)) ||
			(!isalnum(c) && !strchr("/_+-", c)))
			return false;
		begins = c == '/';
	}
	return n > 0 && !begins;
}

/* ---- the file (RFC 8536): a header and a block with 32 bits, the same with 64, a rule ---- */

struct cursor {
	const unsigned char *p;
	size_t left;
};

struct counts {
	uint32_t isut, isstd, leap, time, type, chars;
};

static uint64_t big_endian(const unsigned char *p, size_t n)
{
	uint64_t value = 0;

	while (n--)
		value = value << 8 | *p++;
	return value;
}

static const unsigned char *take(struct cursor *cursor, size_t n)
{
	const unsigned char *p = cursor->p;

	if (n > cursor->left)
		return NULL;
	cursor->p += n;
	cursor->left -= n;
	return p;
}

static bool take_header(struct cursor *cursor, char *ret_version, struct counts *ret)
{
	const unsigned char *p = take(cursor, 44);
	uint32_t *const fields[] = { &ret->isut, &ret->isstd, &ret->leap, &ret->time, &ret->type,
		&ret->chars };

	if (!p || memcmp(p, "TZif", 4) != 0)
		return false;
	*ret_version = (char)p[4];
	for (size_t i = 0; i < NEST_ARRAY_SIZE(fields); i++) {
		*fields[i] = (uint32_t)big_endian(p + 20 + i * 4, 4);
		if (*fields[i] > TRANSITIONS_MAX)
			return false;
	}
	return ret->type > 0 && ret->type <= 256;
}

static bool skip_block(struct cursor *cursor, const struct counts *counts)
{
	return take(cursor, (size_t)counts->time * 5 + (size_t)counts->type * 6 + counts->chars +
				    (size_t)counts->leap * 8 + counts->isstd + counts->isut);
}

static bool take_block(struct cursor *cursor, const struct counts *counts, struct nest_zone *zone)
{
	const unsigned char *times = take(cursor, (size_t)counts->time * 8);
	const unsigned char *indices = take(cursor, counts->time);
	const unsigned char *types = take(cursor, (size_t)counts->type * 6);

	if (!times || !indices || !types ||
		!take(cursor, (size_t)counts->chars + (size_t)counts->leap * 12 + counts->isstd +
				      counts->isut))
		return false;
	zone->first_offset_s = (int32_t)big_endian(types, 4);
	for (zone->n = 0; zone->n < counts->time; zone->n++) {
		struct transition *transition = &zone->transitions[zone->n];

		if (indices[zone->n] >= counts->type)
			return false;
		transition->at_s = (int64_t)big_endian(times + (size_t)zone->n * 8, 8);
		transition->offset_s = (int32_t)big_endian(types + (size_t)indices[zone->n] * 6, 4);
		if (zone->n > 0 && transition->at_s <= transition[-1].at_s)
			return false;
	}
	return true;
}

static bool take_rule(struct cursor *cursor, struct nest_zone *zone)
{
	char text[128];
	const unsigned char *end;
	size_t n;

	if (cursor->left < 2 || *cursor->p != '\n')
		return false;
	end = memchr(cursor->p + 1, '\n', cursor->left - 1);
	n = end ? (size_t)(end - cursor->p) - 1 : sizeof(text);
	if (n >= sizeof(text))
		return false;
	memcpy(text, cursor->p + 1, n);
	text[n] = '\0';
	zone->ruled = n > 0;
	return n == 0 || nest_zone_rule_parse(text, &zone->rule);
}

int nest_zone_parse(
	const void *bytes, size_t n, const char *name, struct nest_zone **ret, struct nest_err *err)
{
	struct cursor cursor = { .p = bytes, .left = n };
	nest_autofree struct nest_zone *zone = NULL;
	struct counts counts;
	char version;

	if (!take_header(&cursor, &version, &counts) || version < '2' ||
		!skip_block(&cursor, &counts) || !take_header(&cursor, &version, &counts))
		return nest_err_say(err, -EBADMSG,
			"time zone '%s' is in no file of the time zone database's second form",
			name);
	zone = calloc(1, sizeof(*zone) + counts.time * sizeof(zone->transitions[0]));
	if (!zone)
		return nest_err_set(err, -ENOMEM, "read time zone '%s'", name);
	if (!take_block(&cursor, &counts, zone) || !take_rule(&cursor, zone))
		return nest_err_say(err, -EBADMSG, "the file of time zone '%s' is damaged", name);
	*ret = nest_take_ptr(zone);
	return 0;
}

int nest_zone_open(const char *name, struct nest_zone **ret, struct nest_err *err)
{
	char path[sizeof(database) + 1 + NAME_MAX_CHARS];
	nest_autofree char *bytes = NULL;
	size_t n;
	int r;

	if (!nest_zone_is_name(name))
		return nest_err_say(err, -EINVAL,
			"'%s' is not the name of a time zone such as \"Europe/Berlin\"", name);
	if (strcmp(name, "UTC") == 0) {
		*ret = calloc(1, sizeof(**ret));
		return *ret ? 0 : nest_err_set(err, -ENOMEM, "open time zone 'UTC'");
	}
	snprintf(path, sizeof(path), "%s/%s", database, name);
	r = nest_file_read(AT_FDCWD, path, FILE_MAX, &bytes, &n, err);
	if (r == -ENOENT || r == -ENOTDIR || r == -EISDIR)
		return nest_err_say(err, -ENOENT,
			"there is no time zone '%s' in '%s': is it spelt rightly, and the package "
			"tzdata installed?",
			name, database);
	if (r < 0) {
		nest_err_wrap(err, "open time zone '%s'", name);
		return r;
	}
	return nest_zone_parse(bytes, n, name, ret, err);
}

void nest_zone_free(struct nest_zone *zone)
{
	free(zone);
}

/* ---- looking up ---- */

int32_t nest_zone_offset(const struct nest_zone *zone, int64_t unix_s)
{
	uint32_t low = 0, high = zone->n; /* the first transition behind @unix_s lies between */

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (zone->transitions[middle].at_s <= unix_s)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == zone->n && zone->ruled)
		return nest_zone_rule_offset(&zone->rule, unix_s);
	return low > 0 ? zone->transitions[low - 1].offset_s : zone->first_offset_s;
}

/* Within two days clocks are changed once at most: between the two offsets there is one moment. */
int64_t nest_zone_first(const struct nest_zone *zone, int64_t local_s)
{
	int64_t from = local_s - DAY_S, to = local_s + DAY_S;
	int32_t before = nest_zone_offset(zone, from), after = nest_zone_offset(zone, to);

	if (before == after)
		return local_s - before;
	while (to - from > 1) {
		int64_t middle = from + (to - from) / 2;

		if (nest_zone_offset(zone, middle) == before)
			from = middle;
		else
			to = middle;
	}
	if (local_s - before < to)
		return local_s - before;
	return local_s - after > to ? local_s - after : to;
}
