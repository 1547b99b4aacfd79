/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cgroups: where they are found, what is written to which file (on trees of plain files, so that
 * v2's controllers are tested on any machine), and the life of real ones.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_find.h"

/* ---- finding ---- */

static struct nest_cgroup_find_place places[NEST_CGROUP_MAX_HIERARCHIES];

START_TEST(places_on_a_hybrid_machine)
{
	size_t n = nest_cgroup_find_places(
		"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
		"32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
		"35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory\n"
		"38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n"
		"40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
		"41 31 0:38 / /sys/fs/cgroup/unified rw master:1 propagate_from:2 - cgroup2 c rw\n",
		"4:memory:/pod/a b\n2:cpu,cpuacct:/\n9:name=systemd:/x\n0::/init.scope\n", places,
		NEST_CGROUP_MAX_HIERARCHIES);

	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(places[0].version, 1);
	ck_assert_uint_eq(places[0].controllers, 1u << NEST_CGROUP_CPU | 1u << NEST_CGROUP_CPUACCT);
	ck_assert_str_eq(places[0].own, "");
	ck_assert_str_eq(places[1].mount, "/sys/fs/cgroup/mem ory");
	ck_assert_str_eq(places[1].own, "/pod/a b");
	ck_assert_int_eq(places[2].version, 2);
	ck_assert_str_eq(places[2].own, "/init.scope");
}
END_TEST

START_TEST(places_where_the_mount_shows_a_subtree)
{
	static const char mount[] =
		"30 23 0:28 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";

	ck_assert_uint_eq(nest_cgroup_find_places(mount, "0::/kubepods/pod1\n", places, 1), 1);
	ck_assert_str_eq(places[0].own, "");
	ck_assert_uint_eq(nest_cgroup_find_places(mount, "0::/kubepods/pod1/c2\n", places, 1), 1);
	ck_assert_str_eq(places[0].own, "/c2");
	/* not below what is shown, and above our cgroup namespace: the mount itself serves */
	ck_assert_uint_eq(nest_cgroup_find_places(mount, "0::/kubepods/pod12\n", places, 1), 1);
	ck_assert_str_eq(places[0].own, "");
	ck_assert_uint_eq(nest_cgroup_find_places(mount, "0::/../x\n", places, 1), 1);
	ck_assert_str_eq(places[0].own, "");
}
END_TEST

START_TEST(a_hierarchy_mounted_twice_counts_once)
{
	ck_assert_uint_eq(nest_cgroup_find_places("1 0 0:1 / /a rw - cgroup2 c rw\n"
						  "2 0 0:1 / /b rw - cgroup2 c rw\n",
				  "0::/\n", places, 4),
		1);
	ck_assert_str_eq(places[0].mount, "/a");
}
END_TEST

START_TEST(garbage_has_no_places)
{
	static const char *const garbage[] = { "", "\n\n", "1 2 3", "1 0 0:1 / /a rw - cgroup2\n",
		"1 0 0:1 / /a rw cgroup2 c rw\n", "- - - - -\n" };

	for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage); i++) {
		ck_assert_uint_eq(nest_cgroup_find_places(garbage[i], "0::/\n", places, 4), 0);
		ck_assert_uint_eq(nest_cgroup_find_places("1 0 0:1 / /a rw - cgroup2 c rw\n",
					  garbage[i], places, 4),
			0);
	}
}
END_TEST

/* ---- files, on a tree of plain ones ---- */

static char tree[64];
static int base;
static struct nest_cgroup cgroup;

static void setup_tree(void)
{
	snprintf(tree, sizeof(tree), "/tmp/nestlet-cgroup-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(tree));
	base = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(base, 0);
	memset(&cgroup, 0, sizeof(cgroup));
	strcpy(cgroup.name, "nestlet-t");
}

static void teardown_tree(void)
{
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, tree, NULL), 0);
}

static void put(const char *name, const char *text)
{
	int fd = openat(base, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_msg(fd >= 0, "%s", name);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void assert_file(const char *name, const char *text)
{
	char *got = NULL;

	ck_assert_msg(nest_file_read(base, name, 4096, &got, NULL, NULL) == 0, "read %s", name);
	ck_assert_msg(strcmp(got, text) == 0, "%s holds '%s', not '%s'", name, got, text);
	free(got);
}

static const struct nest_cgroup_limits limits = {
	.memory_bytes = 64u << 20,
	.pids = 9,
	.cpu_milli = 250,
};

static void add_v2(const char *controllers)
{
	ck_assert_int_eq(mkdirat(base, "nestlet-t", 0755), 0);
	put("cgroup.controllers", controllers);
	put("cgroup.subtree_control", "");
	put("nestlet-t/cgroup.subtree_control", "");
	put("nestlet-t/cpu.stat", "");
	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v2_ops, 0, dup(base), NULL), 0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 5, NULL), 0);
}

START_TEST(v2_enables_what_there_is)
{
	add_v2("cpuset cpu io memory hugetlb pids\n");
	ck_assert_uint_eq(cgroup.controllers,
		1u << NEST_CGROUP_MEMORY | 1u << NEST_CGROUP_PIDS | 1u << NEST_CGROUP_CPU |
			1u << NEST_CGROUP_CPUACCT | 1u << NEST_CGROUP_FREEZER);
	/* one word a write, so that one controller's refusal is not the others': +cpu over +pids
	 * over +memory, as plain files keep it */
	assert_file("cgroup.subtree_control", "+cpusry");
	assert_file("nestlet-t/cgroup.subtree_control", "+cpusry");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v2_without_controllers_has_time_and_freezer)
{
	add_v2("\n");
	ck_assert_uint_eq(
		cgroup.controllers, 1u << NEST_CGROUP_CPUACCT | 1u << NEST_CGROUP_FREEZER);
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 5, &limits, NULL, NULL), 0);
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v2_limits)
{
	add_v2("cpu memory pids\n");
	put("nestlet-t/cell-5/memory.max", "");
	put("nestlet-t/cell-5/memory.swap.max", "");
	put("nestlet-t/cell-5/pids.max", "");
	put("nestlet-t/cell-5/cpu.max", "");
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 5, &limits, NULL, NULL), 0);
	assert_file("nestlet-t/cell-5/memory.max", "67108864");
	assert_file("nestlet-t/cell-5/memory.swap.max", "0");
	assert_file("nestlet-t/cell-5/pids.max", "9");
	assert_file("nestlet-t/cell-5/cpu.max", "25000 100000");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v2_usage)
{
	struct nest_cgroup_usage usage;

	add_v2("cpu memory pids\n");
	put("nestlet-t/cell-5/memory.current", "1000\n");
	put("nestlet-t/cell-5/memory.peak", "2000\n");
	put("nestlet-t/cell-5/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 1\n");
	put("nestlet-t/cell-5/pids.current", "4\n");
	put("nestlet-t/cell-5/cpu.stat", "usage_usec 777\nuser_usec 1\n");
	nest_cgroup_usage(&cgroup, 5, &usage);
	ck_assert_uint_eq(usage.memory_bytes, 1000);
	ck_assert_uint_eq(usage.memory_peak_bytes, 2000);
	ck_assert_uint_eq(usage.oom_kills, 2);
	ck_assert_uint_eq(usage.pids, 4);
	ck_assert_uint_eq(usage.cpu_us, 777);
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v2_kill_is_one_write)
{
	add_v2("\n");
	put("nestlet-t/cell-5/cgroup.kill", "");
	ck_assert_int_eq(nest_cgroup_kill(&cgroup, 5), 0);
	assert_file("nestlet-t/cell-5/cgroup.kill", "1");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v2_freezes_by_its_own_file)
{
	add_v2("\n");
	put("nestlet-t/cell-5/cgroup.freeze", "");
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 5, true, NULL), 0);
	assert_file("nestlet-t/cell-5/cgroup.freeze", "1");
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 5, false, NULL), 0);
	assert_file("nestlet-t/cell-5/cgroup.freeze", "0");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v1_freezes_by_its_freezer_and_only_where_it_has_one)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(mkdirat(base, "one", 0755), 0);
	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, 1u << NEST_CGROUP_PIDS,
				 openat(base, "one", O_RDONLY | O_DIRECTORY | O_CLOEXEC), NULL),
		0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 1, NULL), 0);
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 1, true, &err), 1);
	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, 1u << NEST_CGROUP_FREEZER,
				 dup(base), NULL),
		0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 2, NULL), 0);
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 2, true, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "freezer.state"));
	put("nestlet-t/cell-2/freezer.state", "");
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 2, true, NULL), 0);
	assert_file("nestlet-t/cell-2/freezer.state", "FROZEN");
	ck_assert_int_eq(nest_cgroup_freeze(&cgroup, 2, false, NULL), 0);
	assert_file("nestlet-t/cell-2/freezer.state", "THAWED");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(v1_limits)
{
	unsigned all = 1u << NEST_CGROUP_MEMORY | 1u << NEST_CGROUP_PIDS | 1u << NEST_CGROUP_CPU;

	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, all, dup(base), NULL), 0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 1, NULL), 0);
	put("nestlet-t/cell-1/memory.limit_in_bytes", "");
	put("nestlet-t/cell-1/pids.max", "");
	put("nestlet-t/cell-1/cpu.cfs_quota_us", "");
	/* a kernel that doesn't count swap has no memsw file: that is fine */
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 1, &limits, NULL, NULL), 0);
	assert_file("nestlet-t/cell-1/memory.limit_in_bytes", "67108864");
	assert_file("nestlet-t/cell-1/pids.max", "9");
	assert_file("nestlet-t/cell-1/cpu.cfs_quota_us", "25000");
	put("nestlet-t/cell-1/memory.memsw.limit_in_bytes", "");
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 1, &limits, NULL, NULL), 0);
	assert_file("nestlet-t/cell-1/memory.memsw.limit_in_bytes", "67108864");
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(limits_that_are_set_are_not_set_again)
{
	struct nest_cgroup_limits set = { .memory_bytes = 64u << 20, .pids = 9 };

	add_v2("cpu memory pids\n");
	put("nestlet-t/cell-5/cpu.max", "");
	/* there are no other files */
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 5, &limits, &set, NULL), 0);
	assert_file("nestlet-t/cell-5/cpu.max", "25000 100000");
	set.cpu_milli = limits.cpu_milli;
	set.pids++;
	put("nestlet-t/cell-5/pids.max", "");
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 5, &limits, &set, NULL), 0);
	assert_file("nestlet-t/cell-5/pids.max", "9");
	set.memory_bytes++;
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 5, &limits, &set, NULL), -ENOENT);
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(a_limit_that_cannot_be_set_is_named)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, 1u << NEST_CGROUP_PIDS,
				 dup(base), NULL),
		0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 1, NULL), 0);
	ck_assert_int_eq(nest_cgroup_limit(&cgroup, 1, &limits, NULL, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "pids.max"));
	nest_cgroup_close(&cgroup);
}
END_TEST

START_TEST(creation_is_all_or_nothing)
{
	char second[80];
	int other;

	ck_assert_int_eq(mkdirat(base, "one", 0755), 0);
	ck_assert_int_eq(mkdirat(base, "two", 0755), 0);
	snprintf(second, sizeof(second), "%s/two", tree);
	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, 1u << NEST_CGROUP_PIDS,
				 openat(base, "one", O_RDONLY | O_DIRECTORY | O_CLOEXEC), NULL),
		0);
	other = open(second, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(
		nest_cgroup_add(&cgroup, &nest_cgroup_v1_ops, 1u << NEST_CGROUP_CPU, other, NULL),
		0);
	put("two/nestlet-t/cell-3", "in the way");
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 3, NULL), -EEXIST);
	ck_assert_int_eq(faccessat(base, "one/nestlet-t/cell-3", F_OK, 0), -1);
	nest_cgroup_close(&cgroup);
}
END_TEST

/* ---- real ones ---- */

static const char *v2_mount(void)
{
	static const char alone[] = "/sys/fs/cgroup";

	return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? alone
								      : "/sys/fs/cgroup/unified";
}

static pid_t start_in(uint64_t serial)
{
	int ready[2];
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (nest_cgroup_join(&cgroup, serial, NULL) < 0)
			_exit(1);
		if (write(ready[1], "j", 1) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

START_TEST(a_real_cgroup_is_made_joined_killed_and_removed)
{
	struct nest_cgroup_usage usage;
	struct nest_err err = NEST_ERR_INIT;
	char instance[32];
	int status;
	pid_t pid;

	snprintf(instance, sizeof(instance), "cg-%d", getpid());
	ck_assert_msg(nest_cgroup_open(instance, &cgroup, &err) == 0, "%s", nest_err_text(&err));
	ck_assert_uint_gt(cgroup.n, 0);
	ck_assert_int_eq(nest_cgroup_create(&cgroup, 1, &err), 0);
	pid = start_in(1);
	nest_cgroup_usage(&cgroup, 1, &usage);
	ck_assert_uint_eq(usage.pids, 1);
	ck_assert_int_eq(nest_cgroup_remove(&cgroup, 1, &err), 1);
	/* by the one stroke of v2, or, without v2, by us */
	if (nest_cgroup_kill(&cgroup, 1) == 1)
		kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_int_eq(nest_cgroup_remove(&cgroup, 1, &err), 0);
	nest_cgroup_close(&cgroup);
}
END_TEST

/*
 * Where v2 has the controllers and this process is not in the root of the hierarchy (in a pod), it
 * is moved to a leaf while a host is there.
 */
START_TEST(an_open_leaves_no_trace_when_closed)
{
	struct nest_err err = NEST_ERR_INIT;
	char *before = NULL;
	char *after = NULL;
	char instance[32];

	snprintf(instance, sizeof(instance), "cg-%d", getpid());
	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/cgroup", 4096, &before, NULL, &err), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(nest_cgroup_open(instance, &cgroup, &err), 0);
		for (int c = 0; c < NEST_CGROUP_CONTROLLERS; c++)
			ck_assert_msg(cgroup.controllers & (1u << c), "no %s: %s",
				nest_cgroup_controller_name(c), cgroup.why[c]);
		base = dup(cgroup.hierarchies[0].base);
		ck_assert_int_eq(faccessat(base, cgroup.name, F_OK, 0), 0);
		nest_cgroup_close(&cgroup);
		ck_assert_int_eq(faccessat(base, cgroup.name, F_OK, 0), -1);
		close(base);
	}
	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/cgroup", 4096, &after, NULL, &err), 0);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}
END_TEST

/* Without controllers, v2 takes processes anywhere: enough to see them move. */
START_TEST(processes_of_the_hosts_own_cgroup_move_to_a_leaf)
{
	char own[96];
	char path[160];
	char text[32];
	char *listed = NULL;
	int host;
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	memset(&cgroup, 0, sizeof(cgroup));
	strcpy(cgroup.name, "nestlet-t");
	snprintf(own, sizeof(own), "%s/vacate-%d", v2_mount(), getpid());
	ck_assert_int_eq(mkdir(own, 0755), 0);
	snprintf(path, sizeof(path), "%s/cgroup.procs", own);
	snprintf(text, sizeof(text), "%d\n", pid);
	ck_assert_int_eq(nest_file_write(AT_FDCWD, path, text, strlen(text), NULL), 0);
	base = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(nest_cgroup_add(&cgroup, &nest_cgroup_v2_ops, 0, dup(base), NULL), 0);
	host = cgroup.hierarchies[0].dir;
	ck_assert_int_eq(nest_cgroup_v2_vacate(base, host), 0);
	assert_file("cgroup.procs", "");
	ck_assert_int_eq(
		nest_file_read(host, NEST_CGROUP_LEAF "/cgroup.procs", 64, &listed, NULL, NULL), 0);
	ck_assert_str_eq(listed, text);
	free(listed);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(unlinkat(host, NEST_CGROUP_LEAF, AT_REMOVEDIR), 0);
	nest_cgroup_close(&cgroup);
	ck_assert_int_eq(rmdir(own), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("cgroup");
	TCase *find = tcase_create("find");
	TCase *files = tcase_create("files");
	TCase *real = tcase_create("real");

	tcase_add_test(find, places_on_a_hybrid_machine);
	tcase_add_test(find, places_where_the_mount_shows_a_subtree);
	tcase_add_test(find, a_hierarchy_mounted_twice_counts_once);
	tcase_add_test(find, garbage_has_no_places);
	suite_add_tcase(s, find);
	tcase_add_checked_fixture(files, setup_tree, teardown_tree);
	tcase_add_test(files, v2_enables_what_there_is);
	tcase_add_test(files, v2_without_controllers_has_time_and_freezer);
	tcase_add_test(files, v2_limits);
	tcase_add_test(files, v2_usage);
	tcase_add_test(files, v2_kill_is_one_write);
	tcase_add_test(files, v2_freezes_by_its_own_file);
	tcase_add_test(files, v1_freezes_by_its_freezer_and_only_where_it_has_one);
	tcase_add_test(files, v1_limits);
	tcase_add_test(files, limits_that_are_set_are_not_set_again);
	tcase_add_test(files, a_limit_that_cannot_be_set_is_named);
	tcase_add_test(files, creation_is_all_or_nothing);
	suite_add_tcase(s, files);
	tcase_set_timeout(real, 20);
	tcase_add_test(real, a_real_cgroup_is_made_joined_killed_and_removed);
	tcase_add_test(real, an_open_leaves_no_trace_when_closed);
	tcase_add_test(real, processes_of_the_hosts_own_cgroup_move_to_a_leaf);
	suite_add_tcase(s, real);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_set_fork_status(runner, CK_FORK);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
