/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/cgroup.h"
#include "sandbox/cgroup_file.h"

#define HAS(mask, controller) (((mask) >> (controller)) & 1u)
#define PERIOD_US 100000u

/* A v1 hierarchy carries its controllers in every directory. */
static unsigned enable(struct nest_cgroup *cgroup, int base, int host, unsigned controllers)
{
	(void)cgroup;
	(void)base;
	(void)host;
	return controllers;
}

/* Nothing was changed outside the host's own directory. */
static void disable(int base, int host)
{
	(void)base;
	(void)host;
}

#define MEMORY "memory.limit_in_bytes"
#define WITH_SWAP "memory.memsw.limit_in_bytes"

static int write_bytes(int dir, const char *name, uint64_t bytes, struct nest_err *err)
{
	return nest_cgroup_file_write(dir, name, err, "%llu", (unsigned long long)bytes);
}

/*
 * The sum with swap may never be below memory alone, so that one is lowered first, and raised last.
 * Where swap isn't counted (no memsw file), memory alone is limited.
 */
static int limit_memory(int dir, uint64_t bytes, struct nest_err *err)
{
	struct nest_err first = NEST_ERR_INIT;
	int r = write_bytes(dir, MEMORY, bytes, &first);
	bool raised = r == -EINVAL;

	if (faccessat(dir, WITH_SWAP, F_OK, 0) == 0 && (r == 0 || raised))
		r = write_bytes(dir, WITH_SWAP, bytes, &first);
	if (r == 0 && raised)
		r = write_bytes(dir, MEMORY, bytes, &first);
	if (r < 0 && err)
		*err = first;
	return r;
}

/* The period is left at the kernel's default. */
static int limit_cpu(int dir, uint32_t milli, struct nest_err *err)
{
	if (milli == 0)
		return 0;
	return nest_cgroup_file_write(
		dir, "cpu.cfs_quota_us", err, "%llu", (unsigned long long)milli * PERIOD_US / 1000);
}

static int limit(int dir, unsigned controllers, const struct nest_cgroup_limits *limits,
	struct nest_err *err)
{
	int r = 0;

	if (HAS(controllers, NEST_CGROUP_MEMORY))
		r = limit_memory(dir, limits->memory_bytes, err);
	if (r == 0 && HAS(controllers, NEST_CGROUP_PIDS))
		r = nest_cgroup_file_write(dir, "pids.max", err, "%u", limits->pids);
	if (r == 0 && HAS(controllers, NEST_CGROUP_CPU))
		r = limit_cpu(dir, limits->cpu_milli, err);
	return r;
}

static uint64_t private_bytes(int dir)
{
	uint64_t anonymous = 0, shared = 0, kernel = 0;

	nest_cgroup_file_keyed(dir, "memory.stat", "rss", &anonymous);
	nest_cgroup_file_keyed(dir, "memory.stat", "shmem", &shared);
	nest_cgroup_file_number(dir, "memory.kmem.usage_in_bytes", &kernel);
	return anonymous + shared + kernel;
}

static void usage(int dir, unsigned controllers, struct nest_cgroup_usage *ret)
{
	uint64_t value;

	if (HAS(controllers, NEST_CGROUP_MEMORY)) {
		nest_cgroup_file_number(dir, "memory.usage_in_bytes", &ret->memory_bytes);
		nest_cgroup_file_number(dir, "memory.max_usage_in_bytes", &ret->memory_peak_bytes);
		nest_cgroup_file_keyed(dir, "memory.oom_control", "oom_kill", &ret->oom_kills);
		ret->private_bytes = private_bytes(dir);
	}
	if (HAS(controllers, NEST_CGROUP_PIDS) &&
		nest_cgroup_file_number(dir, "pids.current", &value) == 0)
		ret->pids = (uint32_t)value;
	if (HAS(controllers, NEST_CGROUP_CPUACCT) &&
		nest_cgroup_file_number(dir, "cpuacct.usage", &value) == 0)
		ret->cpu_us = value / 1000;
}

static int freeze(int dir, bool frozen, struct nest_err *err)
{
	return nest_cgroup_file_write(dir, "freezer.state", err, frozen ? "FROZEN" : "THAWED");
}

/* What v1 has frozen dies when it is thawed, not before. */
static int kill_all(int dir)
{
	int r = nest_cgroup_file_kill_listed(dir);

	if (faccessat(dir, "freezer.state", F_OK, 0) == 0)
		freeze(dir, false, NULL);
	return r < 0 ? r : 0;
}

const struct nest_cgroup_ops nest_cgroup_v1_ops = {
	.enable = enable,
	.disable = disable,
	.limit = limit,
	.usage = usage,
	.freeze = freeze,
	.kill = kill_all,
};
