/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_file.h"

#define HAS(mask, controller) (((mask) >> (controller)) & 1u)
#define PERIOD_US 100000u

#define VACATE_TRIES 10 /* what is forked while the list is read stays behind */

static const enum nest_cgroup_controller wanted[] = { NEST_CGROUP_MEMORY, NEST_CGROUP_PIDS,
	NEST_CGROUP_CPU };

/* Moves the processes listed in @from; one that ends meanwhile needs no move. */
static int move_all(int from, int to)
{
	nest_autoclose int list = openat(from, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	nest_autofclose FILE *file = NULL;
	int pid;

	if (list < 0)
		return -errno;
	file = fdopen(list, "re");
	if (!file)
		return -errno;
	list = -1; /* @file has it now */
	while (fscanf(file, "%d", &pid) == 1)
		if (pid > 0) /* 0: of a pid namespace that we can't see */
			nest_cgroup_file_write(to, "cgroup.procs", NULL, "%d", pid);
	return 0;
}

static int open_leaf(int host)
{
	int leaf = openat(host, NEST_CGROUP_LEAF, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return leaf < 0 ? -errno : leaf;
}

int nest_cgroup_v2_vacate(int base, int host)
{
	nest_autoclose int leaf = -1;

	if (mkdirat(host, NEST_CGROUP_LEAF, 0755) < 0 && errno != EEXIST)
		return -errno;
	leaf = open_leaf(host);
	return leaf < 0 ? leaf : move_all(base, leaf);
}

/* Whether @name is a word of file @file. */
static bool lists(int dir, const char *file, const char *name)
{
	char text[512];
	size_t n = strlen(name);

	if (nest_cgroup_file_read(dir, file, text, sizeof(text)) < 0)
		return false;
	for (const char *at = text; *at; at += strspn(at, " \n")) {
		size_t len = strcspn(at, " \n");

		if (len == n && memcmp(at, name, n) == 0)
			return true;
		at += len;
	}
	return false;
}

/* Where it is the root of the hierarchy, @base may hold processes beside children. */
static int enable_in_base(int base, int host, const char *name, struct nest_err *err)
{
	int r = nest_cgroup_file_write(base, "cgroup.subtree_control", err, "+%s", name);

	for (int i = 0; r == -EBUSY && i < VACATE_TRIES; i++) {
		r = nest_cgroup_v2_vacate(base, host);
		if (r < 0)
			return nest_err_set(err, r, "move the pod's processes to a leaf");
		r = nest_cgroup_file_write(base, "cgroup.subtree_control", err, "+%s", name);
	}
	return r;
}

static unsigned enable(struct nest_cgroup *cgroup, int base, int host, unsigned controllers)
{
	unsigned got = 1u << NEST_CGROUP_FREEZER; /* every v2 cgroup can freeze (Linux 5.2) */

	(void)controllers;
	/* another host in the same pod may be about to end, or to begin */
	flock(base, LOCK_EX);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(wanted); i++) {
		const char *name = nest_cgroup_controller_name(wanted[i]);
		struct nest_err err = NEST_ERR_INIT;
		int r;

		if (!lists(base, "cgroup.controllers", name))
			continue;
		r = enable_in_base(base, host, name, &err);
		if (r == 0)
			r = nest_cgroup_file_write(
				host, "cgroup.subtree_control", &err, "+%s", name);
		if (r == 0)
			got |= 1u << wanted[i];
		else
			nest_cgroup_explain(cgroup, 1u << wanted[i], nest_err_text(&err));
	}
	flock(base, LOCK_UN);
	/* cpu.stat tells the time used without any controller */
	if (faccessat(host, "cpu.stat", F_OK, 0) == 0)
		got |= 1u << NEST_CGROUP_CPUACCT;
	return got;
}

/* A cgroup beside @base's only child of ours loses its limits if @base's controllers go. */
static bool is_only_child(int base)
{
	struct stat st;

	return fstat(base, &st) == 0 && st.st_nlink == 3; /* ".", "..", and one directory */
}

/*
 * Who was moved to the leaf goes back, or the pod would keep a cgroup of ours for good. That takes
 * the controllers away from @base's children, of which no other may be there to need them.
 */
static void disable(int base, int host)
{
	nest_autoclose int leaf = open_leaf(host);

	if (leaf < 0)
		return;
	flock(base, LOCK_EX);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(wanted) && is_only_child(base); i++) {
		const char *name = nest_cgroup_controller_name(wanted[i]);

		nest_cgroup_file_write(host, "cgroup.subtree_control", NULL, "-%s", name);
		nest_cgroup_file_write(base, "cgroup.subtree_control", NULL, "-%s", name);
	}
	for (int i = 0; i < VACATE_TRIES; i++)
		if (move_all(leaf, base) < 0 ||
			unlinkat(host, NEST_CGROUP_LEAF, AT_REMOVEDIR) == 0 || errno != EBUSY)
			break;
	flock(base, LOCK_UN);
}

static int limit_memory(int dir, uint64_t bytes, struct nest_err *err)
{
	int r = nest_cgroup_file_write(dir, "memory.max", err, "%llu", (unsigned long long)bytes);

	/* memory and swap are limited apart here: all of the limit is memory */
	if (r < 0 || faccessat(dir, "memory.swap.max", F_OK, 0) < 0)
		return r;
	return nest_cgroup_file_write(dir, "memory.swap.max", err, "0");
}

static int limit(int dir, unsigned controllers, const struct nest_cgroup_limits *limits,
	struct nest_err *err)
{
	int r = 0;

	if (HAS(controllers, NEST_CGROUP_MEMORY))
		r = limit_memory(dir, limits->memory_bytes, err);
	if (r == 0 && HAS(controllers, NEST_CGROUP_PIDS))
		r = nest_cgroup_file_write(dir, "pids.max", err, "%u", limits->pids);
	if (r == 0 && HAS(controllers, NEST_CGROUP_CPU) && limits->cpu_milli != 0)
		r = nest_cgroup_file_write(dir, "cpu.max", err, "%llu %u",
			(unsigned long long)limits->cpu_milli * PERIOD_US / 1000, PERIOD_US);
	return r;
}

/* Before Linux 5.18 there is no sum of the kernel's: these are most of it. */
static uint64_t kernel_bytes(int dir)
{
	static const char *const parts[] = { "kernel_stack", "pagetables", "slab" };
	uint64_t sum = 0, part;

	if (nest_cgroup_file_keyed(dir, "memory.stat", "kernel", &sum) == 0)
		return sum;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(parts); i++)
		if (nest_cgroup_file_keyed(dir, "memory.stat", parts[i], &part) == 0)
			sum += part;
	return sum;
}

static uint64_t private_bytes(int dir)
{
	uint64_t anonymous = 0, shared = 0;

	nest_cgroup_file_keyed(dir, "memory.stat", "anon", &anonymous);
	nest_cgroup_file_keyed(dir, "memory.stat", "shmem", &shared);
	return anonymous + shared + kernel_bytes(dir);
}

static void usage(int dir, unsigned controllers, struct nest_cgroup_usage *ret)
{
	uint64_t value;

	if (HAS(controllers, NEST_CGROUP_MEMORY)) {
		nest_cgroup_file_number(dir, "memory.current", &ret->memory_bytes);
		nest_cgroup_file_number(dir, "memory.peak", &ret->memory_peak_bytes);
		nest_cgroup_file_keyed(dir, "memory.events", "oom_kill", &ret->oom_kills);
		ret->private_bytes = private_bytes(dir);
	}
	if (HAS(controllers, NEST_CGROUP_PIDS) &&
		nest_cgroup_file_number(dir, "pids.current", &value) == 0)
		ret->pids = (uint32_t)value;
	if (HAS(controllers, NEST_CGROUP_CPUACCT) && ret->cpu_us == 0)
		nest_cgroup_file_keyed(dir, "cpu.stat", "usage_usec", &ret->cpu_us);
}

static int freeze(int dir, bool frozen, struct nest_err *err)
{
	return nest_cgroup_file_write(dir, "cgroup.freeze", err, "%d", frozen);
}

/* cgroup.kill came with Linux 5.14; before it the listed processes are killed one by one. */
static int kill_all(int dir)
{
	int r = nest_cgroup_file_write(dir, "cgroup.kill", NULL, "1");

	if (r != -ENOENT)
		return r;
	r = nest_cgroup_file_kill_listed(dir);
	return r < 0 ? r : 0;
}

const struct nest_cgroup_ops nest_cgroup_v2_ops = {
	.enable = enable,
	.disable = disable,
	.limit = limit,
	.usage = usage,
	.freeze = freeze,
	.kill = kill_all,
};
