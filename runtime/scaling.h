/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_SCALING_H
#define NEST_RUNTIME_SCALING_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/cron.h"

struct nest_err;
struct nest_schema;
struct nest_schema_place;
struct nest_zone;

#define NEST_SCALING_SCHEDULES_MAX 32

/* Between each moment of start and the next of end, at least min workers. */
struct nest_scaling_schedule {
	struct nest_cron start;
	struct nest_cron end;
	struct nest_zone *zone; /* NULL: the machine has it no longer, and it never holds */
	uint32_t min;
};

/* What a spec says below "scaling" (nestlet-function(5)); a target of 0 is not looked at. */
struct nest_scaling {
	uint32_t concurrency_milli; /* 0: the function's slots */
	uint32_t rps_milli;
	uint32_t cpu_milli;
	uint64_t memory_bytes;
	uint32_t utilization_milli;
	uint32_t window_ms;
	uint32_t panic_window_ms;
	uint32_t panic_threshold_milli;
	uint32_t in_delay_ms;
	struct nest_scaling_schedule *schedules;
	uint32_t nschedules;
};

/* The table of the keys of one element of "scaling.schedules". Any thread. */
const struct nest_schema *nest_scaling_schedule_schema(void);

/*
 * Parses the array "scaling.schedules", none of whose elements may ask for more than @max workers,
 * into @ret's schedules, which nest_scaling_done() frees, also after a failure: -EINVAL and the
 * like, with @ret_place (may be NULL). With @ret_lost a time zone that isn't there is no failure: the
 * first such is told in *@ret_lost, which the caller frees. Blocks on the disk, where the time zones
 * are. Any thread.
 */
int nest_scaling_read_schedules(const cJSON *array, uint32_t max, struct nest_scaling *ret,
	char **ret_lost, struct nest_schema_place *ret_place, struct nest_err *err);

/* Frees the schedules. */
void nest_scaling_done(struct nest_scaling *scaling);

/* The largest min of the schedules that hold at @now_s (seconds since the epoch); 0: none does. */
uint32_t nest_scaling_scheduled(const struct nest_scaling *scaling, int64_t now_s);

/* The next moment behind @now_s at which that may change; INT64_MAX: never. */
int64_t nest_scaling_next_change(const struct nest_scaling *scaling, int64_t now_s);

#endif
