/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/scaling.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/schema.h"
#include "base/zone.h"

#define WORKERS_MAX 4096

/* Only checked against: the values are read one by one. */
struct element {
	const char *start, *end, *zone;
	uint32_t min;
};

static const struct nest_schema_key keys[] = {
	{ .path = "start",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct element, start),
		.min = 1,
		.max = 256,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "end",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct element, end),
		.min = 1,
		.max = 256,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "timeZone",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct element, zone),
		.fallback = "\"UTC\"",
		.max = 64,
		.unit = "",
		.valid = nest_zone_is_name,
		.form = "name of a time zone such as \"Europe/Berlin\"" },
	{ .path = "min",
		.type = NEST_SCHEMA_U32,
		.offset = offsetof(struct element, min),
		.min = 1,
		.max = WORKERS_MAX,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
};

static const struct nest_schema schema = { keys, NEST_ARRAY_SIZE(keys), 0 };

const struct nest_schema *nest_scaling_schedule_schema(void)
{
	return &schema;
}

static int read_cron(const cJSON *object, const char *key, struct nest_cron *ret,
	struct nest_schema_place *place, struct nest_err *err)
{
	const char *text = NULL;
	int r = nest_json_get_string(object, key, &text, NULL);

	nest_schema_locate(place, "%s", r == 0 ? key : "");
	if (r != 0)
		return nest_err_say(err, -EINVAL, "'%s' is missing", key);
	r = nest_cron_parse(text, ret, err);
	if (r < 0)
		nest_err_wrap(err, "'%s'", key);
	return r;
}

static int open_zone(
	const char *name, struct nest_scaling_schedule *ret, char **ret_lost, struct nest_err *err)
{
	struct nest_err why = NEST_ERR_INIT;
	int r = nest_zone_open(name, &ret->zone, &why);

	if (r == 0)
		return 0;
	nest_err_wrap(&why, "'timeZone'");
	if (!ret_lost || (r != -ENOENT && r != -EBADMSG))
		return nest_err_say(err, r, "%s", nest_err_text(&why));
	if (!*ret_lost)
		*ret_lost = strdup(nest_err_text(&why));
	return *ret_lost ? 0 : nest_err_set(err, -ENOMEM, "read 'scaling.schedules'");
}

static int read_schedule(const cJSON *object, uint32_t max, struct nest_scaling_schedule *ret,
	char **ret_lost, struct nest_schema_place *place, struct nest_err *err)
{
	const char *zone = "UTC";
	int64_t min = 0;
	int r = nest_schema_check(&schema, object, 0, place, err);

	if (r == 0)
		r = read_cron(object, "start", &ret->start, place, err);
	if (r == 0)
		r = read_cron(object, "end", &ret->end, place, err);
	if (r < 0)
		return r;
	nest_schema_locate(place, "%s", "");
	if (nest_json_get_int(object, "min", 1, WORKERS_MAX, &min, NULL) != 0)
		return nest_err_say(err, -EINVAL, "'min' is missing");
	nest_schema_locate(place, "min");
	if (min > max)
		return nest_err_say(
			err, -EINVAL, "'min' is %d, more than 'workers.max', %u", (int)min, max);
	ret->min = (uint32_t)min;
	nest_json_get_string(object, "timeZone", &zone, NULL);
	nest_schema_locate(place, "timeZone");
	return open_zone(zone, ret, ret_lost, err);
}

int nest_scaling_read_schedules(const cJSON *array, uint32_t max, struct nest_scaling *ret,
	char **ret_lost, struct nest_schema_place *ret_place, struct nest_err *err)
{
	int n = cJSON_GetArraySize(array);
	const cJSON *item;

	if (n > NEST_SCALING_SCHEDULES_MAX) {
		nest_schema_locate(ret_place, "scaling.schedules");
		return nest_err_say(err, -EINVAL,
			"'scaling.schedules' has %d elements, more than %d", n,
			NEST_SCALING_SCHEDULES_MAX);
	}
	if (n == 0)
		return 0;
	ret->schedules = calloc((size_t)n, sizeof(*ret->schedules));
	if (!ret->schedules)
		return nest_err_set(err, -ENOMEM, "read 'scaling.schedules'");
	cJSON_ArrayForEach(item, array) {
		struct nest_schema_place inner = { .path = "" };
		uint32_t i = ret->nschedules;
		int r = read_schedule(item, max, &ret->schedules[i], ret_lost, &inner, err);

		if (r < 0) {
			nest_schema_locate(ret_place, "scaling.schedules[%u]%s%s", i,
				inner.path[0] ? "." : "", inner.path);
			nest_err_wrap(err, "'scaling.schedules[%u]'", i);
			return r;
		}
		ret->nschedules++;
	}
	return 0;
}

void nest_scaling_done(struct nest_scaling *scaling)
{
	for (uint32_t i = 0; i < scaling->nschedules; i++)
		nest_zone_free(scaling->schedules[i].zone);
	free(scaling->schedules);
	scaling->schedules = NULL;
	scaling->nschedules = 0;
}

uint32_t nest_scaling_scheduled(const struct nest_scaling *scaling, int64_t now_s)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < scaling->nschedules; i++) {
		const struct nest_scaling_schedule *schedule = &scaling->schedules[i];

		/* it holds when its end is what comes next */
		if (schedule->zone && schedule->min > most &&
			nest_cron_next(&schedule->end, schedule->zone, now_s) <
				nest_cron_next(&schedule->start, schedule->zone, now_s))
			most = schedule->min;
	}
	return most;
}

int64_t nest_scaling_next_change(const struct nest_scaling *scaling, int64_t now_s)
{
	int64_t next = INT64_MAX;

	for (uint32_t i = 0; i < scaling->nschedules; i++) {
		const struct nest_scaling_schedule *schedule = &scaling->schedules[i];
		const struct nest_cron *const crons[] = { &schedule->start, &schedule->end };

		for (size_t k = 0; schedule->zone && k < NEST_ARRAY_SIZE(crons); k++) {
			int64_t at = nest_cron_next(crons[k], schedule->zone, now_s);

			next = at < next ? at : next;
		}
	}
	return next;
}
