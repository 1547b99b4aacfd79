/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/capacity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_find.h"

#define FILE_MAX 65536
/* v1 says "no limit" by a number near 2^63, rounded to pages. */
#define NO_LIMIT ((uint64_t)1 << 62)

/* One hierarchy: where it is mounted, and our cgroup below. */
struct nest_capacity {
	struct nest_cgroup_find_place places[NEST_CGROUP_MAX_HIERARCHIES];
	size_t n;
};

int nest_capacity_new(
	const char *mountinfo, const char *own, struct nest_capacity **ret, struct nest_err *err)
{
	struct nest_capacity *capacity = calloc(1, sizeof(*capacity));

	if (!capacity)
		return nest_err_set(err, -ENOMEM, "look for the pod's limits");
	capacity->n = nest_cgroup_find_places(
		mountinfo, own, capacity->places, NEST_CGROUP_MAX_HIERARCHIES);
	for (size_t i = 0; i < capacity->n; i++) {
		/* on v2 the agent was moved below the pod's cgroup, beside the cells */
		char *leaf = strstr(capacity->places[i].own, "/nestlet-");

		if (leaf && strchr(leaf + 1, '/'))
			*leaf = '\0';
	}
	*ret = capacity;
	return 0;
}

void nest_capacity_free(struct nest_capacity *capacity)
{
	free(capacity);
}

/* ---- the kernel's files ---- */

static char *read_text(const char *dir, const char *below, size_t below_len, const char *name)
{
	char path[2 * PATH_MAX + 64];
	char *text = NULL;

	snprintf(path, sizeof(path), "%s%.*s/%s", dir, (int)below_len, below, name);
	return nest_file_read(AT_FDCWD, path, FILE_MAX, &text, NULL, NULL) == 0 ? text : NULL;
}

/* The number that a file begins with; false where there is none ("max"). */
static bool read_number(
	const struct nest_cgroup_find_place *place, size_t len, const char *name, int64_t *ret)
{
	nest_autofree char *text = read_text(place->mount, place->own, len, name);
	char *end;

	if (!text)
		return false;
	errno = 0;
	*ret = strtoll(text, &end, 10);
	return end != text && errno == 0;
}

/* The number behind @key and a blank in a file of such lines, or 0. */
static uint64_t find_number(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return strtoull(line + len + 1, NULL, 10);
	}
	return 0;
}

static bool carries(
	const struct nest_cgroup_find_place *place, enum nest_cgroup_controller controller)
{
	return place->version == 2 || place->controllers & (1u << controller);
}

/* The length of the path one level above the first @len bytes of @own; false at the top. */
static bool go_up(const char *own, size_t *len)
{
	if (*len == 0)
		return false;
	while (*len > 0 && own[--*len] != '/')
		;
	return true;
}

/* ---- limits: the least of all levels counts ---- */

static void least(uint64_t value, uint64_t *ret)
{
	if (value < *ret)
		*ret = value;
}

static void memory_limit(
	const struct nest_cgroup_find_place *place, size_t len, uint64_t *ret_bytes)
{
	int64_t bytes;

	if (read_number(place, len, place->version == 2 ? "memory.max" : "memory.limit_in_bytes",
		    &bytes) &&
		bytes > 0 && (uint64_t)bytes < NO_LIMIT)
		least((uint64_t)bytes, ret_bytes);
}

static void cpu_limit(const struct nest_cgroup_find_place *place, size_t len, uint64_t *ret_milli)
{
	nest_autofree char *text = NULL;
	long long quota = 0, period = 0;
	int64_t q, p;

	if (place->version == 2) {
		text = read_text(place->mount, place->own, len, "cpu.max");
		if (!text || sscanf(text, "%lld %lld", &quota, &period) != 2)
			return;
	} else if (read_number(place, len, "cpu.cfs_quota_us", &q) &&
		   read_number(place, len, "cpu.cfs_period_us", &p)) {
		quota = q;
		period = p;
	}
	if (quota > 0 && period > 0)
		least((uint64_t)quota * 1000 / (uint64_t)period, ret_milli);
}

static uint64_t machine_cpu_milli(void)
{
	cpu_set_t *set = CPU_ALLOC(CPU_SETSIZE * 8);
	size_t size = CPU_ALLOC_SIZE(CPU_SETSIZE * 8);
	uint64_t n = 0;

	if (set && sched_getaffinity(0, size, set) == 0)
		n = (uint64_t)CPU_COUNT_S(size, set);
	CPU_FREE(set);
	return (n > 0 ? n : 1) * 1000;
}

/* ---- use ---- */

/* Whether the place says; with v1 the file pages of the children are counted apart. */
static bool memory_used(const struct nest_cgroup_find_place *place, uint64_t *ret)
{
	size_t len = strlen(place->own);
	nest_autofree char *stat = NULL;
	uint64_t inactive;
	int64_t bytes;

	if (!read_number(place, len,
		    place->version == 2 ? "memory.current" : "memory.usage_in_bytes", &bytes) ||
		bytes < 0)
		return false;
	stat = read_text(place->mount, place->own, len, "memory.stat");
	inactive = find_number(stat, place->version == 2 ? "inactive_file" : "total_inactive_file");
	*ret = (uint64_t)bytes > inactive ? (uint64_t)bytes - inactive : 0;
	return true;
}

static void cpu_used(const struct nest_cgroup_find_place *place, uint64_t *ret_us)
{
	size_t len = strlen(place->own);
	nest_autofree char *stat = NULL;
	int64_t ns;

	if (place->version == 2) {
		stat = read_text(place->mount, place->own, len, "cpu.stat");
		if (stat && find_number(stat, "usage_usec") > 0)
			*ret_us = find_number(stat, "usage_usec");
	} else if (carries(place, NEST_CGROUP_CPUACCT) &&
		   read_number(place, len, "cpuacct.usage", &ns) && ns > 0) {
		*ret_us = (uint64_t)ns / 1000;
	}
}

static uint64_t meminfo(const char *text, const char *key)
{
	const char *at = text ? strstr(text, key) : NULL;

	return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

void nest_capacity_read(const struct nest_capacity *capacity, struct nest_capacity_figures *ret)
{
	nest_autofree char *memory = read_text("/proc", "", 0, "meminfo");
	uint64_t milli = machine_cpu_milli(), bytes = meminfo(memory, "MemTotal:");
	uint64_t available = meminfo(memory, "MemAvailable:");
	bool known = false;

	*ret = (struct nest_capacity_figures){ .cpu_milli = 0 };
	for (size_t i = 0; i < capacity->n; i++) {
		const struct nest_cgroup_find_place *place = &capacity->places[i];
		size_t len = strlen(place->own);

		do {
			if (carries(place, NEST_CGROUP_MEMORY))
				memory_limit(place, len, &bytes);
			if (carries(place, NEST_CGROUP_CPU))
				cpu_limit(place, len, &milli);
		} while (go_up(place->own, &len));
		if (!known && carries(place, NEST_CGROUP_MEMORY))
			known = memory_used(place, &ret->memory_used_bytes);
		cpu_used(place, &ret->cpu_used_us);
	}
	if (!known)
		ret->memory_used_bytes = meminfo(memory, "MemTotal:") - available;
	ret->memory_bytes = bytes;
	ret->cpu_milli = (uint32_t)milli;
}
