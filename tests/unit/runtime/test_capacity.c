/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "runtime/capacity.h"
#include "tests/unit/suite.h"

static char root[64];

static void set_up(void)
{
	snprintf(root, sizeof(root), "/tmp/nest-capacity-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
}

static void tear_down(void)
{
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, root, NULL), 0);
}

static void put(const char *below, const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, below);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, NULL), 0);
	snprintf(path, sizeof(path), "%s/%s/%s", root, below, name);
	file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_ge(fputs(text, file), 0);
	ck_assert_int_eq(fclose(file), 0);
}

static struct nest_capacity_figures read_from(const char *mounts, const char *own)
{
	struct nest_capacity_figures figures;
	struct nest_capacity *capacity = NULL;

	ck_assert_int_eq(nest_capacity_new(mounts, own, &capacity, NULL), 0);
	nest_capacity_read(capacity, &figures);
	nest_capacity_free(capacity);
	return figures;
}

START_TEST(v2_counts_the_least_of_all_levels)
{
	struct nest_capacity_figures figures;
	char mounts[300];

	set_up();
	snprintf(mounts, sizeof(mounts), "30 20 0:26 / %s rw - cgroup2 cgroup2 rw\n", root);
	put("", "cgroup.controllers", "cpu memory\n");
	put("pods", "memory.max", "100000000\n");
	put("pods", "cpu.max", "max 100000\n");
	put("pods/us", "memory.max", "max\n");
	put("pods/us", "cpu.max", "50000 100000\n");
	put("pods/us", "memory.current", "30000000\n");
	put("pods/us", "memory.stat", "anon 1\ninactive_file 10000000\nactive_file 5\n");
	put("pods/us", "cpu.stat", "usage_usec 123456\nuser_usec 1\n");
	/* the agent sits in a leaf beside the cells, which is not the pod */
	put("pods/us/nestlet-x/host", "memory.max", "1000\n");
	figures = read_from(mounts, "0::/pods/us/nestlet-x/host\n");
	ck_assert_uint_eq(figures.memory_bytes, 100000000);
	ck_assert_uint_eq(figures.cpu_milli, 500);
	ck_assert_uint_eq(figures.memory_used_bytes, 20000000);
	ck_assert_uint_eq(figures.cpu_used_us, 123456);
	tear_down();
}
END_TEST

START_TEST(v1_counts_each_hierarchy)
{
	struct nest_capacity_figures figures;
	char mounts[600];

	set_up();
	snprintf(mounts, sizeof(mounts),
		"30 20 0:26 / %s/m rw - cgroup cgroup rw,memory\n"
		"31 20 0:27 / %s/c rw - cgroup cgroup rw,cpu,cpuacct\n",
		root, root);
	put("m/pod", "memory.limit_in_bytes", "67108864\n");
	put("m", "memory.limit_in_bytes", "9223372036854771712\n");
	put("m/pod", "memory.usage_in_bytes", "5000000\n");
	put("m/pod", "memory.stat", "inactive_file 1\ntotal_inactive_file 2000000\n");
	put("c/pod", "cpu.cfs_quota_us", "25000\n");
	put("c/pod", "cpu.cfs_period_us", "100000\n");
	put("c", "cpu.cfs_quota_us", "-1\n");
	put("c", "cpu.cfs_period_us", "100000\n");
	put("c/pod", "cpuacct.usage", "5000000\n");
	figures = read_from(mounts, "4:memory:/pod\n5:cpu,cpuacct:/pod\n");
	ck_assert_uint_eq(figures.memory_bytes, 67108864);
	ck_assert_uint_eq(figures.cpu_milli, 250);
	ck_assert_uint_eq(figures.memory_used_bytes, 3000000);
	ck_assert_uint_eq(figures.cpu_used_us, 5000);
	tear_down();
}
END_TEST

START_TEST(without_cgroups_the_machine_s_figures_count)
{
	struct nest_capacity_figures figures = read_from("", "");

	ck_assert_uint_gt(figures.memory_bytes, 1 << 20);
	ck_assert_uint_gt(figures.memory_used_bytes, 0);
	ck_assert_uint_le(figures.memory_used_bytes, figures.memory_bytes);
	ck_assert_uint_ge(figures.cpu_milli, 1000);
	ck_assert_uint_eq(figures.cpu_used_us, 0);
	nest_capacity_free(NULL);
}
END_TEST

NEST_SUITE("runtime/capacity", v2_counts_the_least_of_all_levels, v1_counts_each_hierarchy,
	without_cgroups_the_machine_s_figures_count)
