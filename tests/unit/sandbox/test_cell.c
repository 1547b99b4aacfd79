/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker finds in its cell, what it may not do there, and how its end is told. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/unit/sandbox/cell_fixture.h"

static struct cell_fixture fixture;
static struct cell_run run;

static void setup(void)
{
	ck_assert_msg(getuid() == 0, "these tests need root");
	cell_fixture_init(&fixture);
	cell_fixture_open(&fixture);
}

static void teardown(void)
{
	cell_fixture_close(&fixture);
}

static void shell(const char *script)
{
	cell_fixture_shell(&fixture, script, &run);
}

static void assert_exited(int status)
{
	ck_assert_msg(run.cause == NEST_CELL_EXITED && run.status == status,
		"cause %d, status %d: %s %s", run.cause, run.status, run.text,
		nest_err_text(&run.err));
}

static void assert_printed(const char *text)
{
	ck_assert_msg(strstr(run.text, text) != NULL, "no '%s' in: %s", text, run.text);
}

START_TEST(a_program_runs_and_its_exit_code_is_told)
{
	shell("echo out; echo err >&2; exit 7");
	assert_exited(7);
	ck_assert_str_eq(run.text, "out\nerr\n");
	ck_assert(run.started);
	ck_assert_int_gt(run.pid, 1);
	ck_assert_uint_gt(run.peak, 0);
	ck_assert_uint_gt(run.cpu_us, 0);
}
END_TEST

START_TEST(a_worker_is_its_own_user_on_its_own_host)
{
	shell("id; hostname; pwd; umask; echo dirs $NESTLET_FUNCTION_DIR $NESTLET_RUNTIME_DIR");
	assert_exited(0);
	assert_printed("uid=712345 gid=712345 groups=712345\n");
	assert_printed("cell-under-test\n");
	assert_printed("/function\n");
	assert_printed("0022\n");
	assert_printed("dirs /function /runtime\n");
}
END_TEST

static void assert_namespace(const char *name, bool shared)
{
	char path[64];
	char ours[64] = "";

	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	ck_assert_int_gt(readlink(path, ours, sizeof(ours) - 1), 0);
	ck_assert_msg((strstr(run.text, ours) != NULL) == shared, "%s: ours is %s, the cell's: %s",
		name, ours, run.text);
}

static const char *const list_namespaces[] = { "/bin/sh", "-c",
	"cd /proc/self/ns; readlink pid mnt ipc uts net; cat /proc/net/dev /sys/class/net/lo/flags",
	NULL };

START_TEST(namespaces_are_the_cells_own_but_for_the_pods_network)
{
	struct nest_cell_spec spec = cell_fixture_spec(list_namespaces);

	cell_fixture_run(&fixture, &spec, &run);
	assert_namespace("pid", false);
	assert_namespace("mnt", false);
	assert_namespace("ipc", false);
	assert_namespace("uts", false);
	assert_namespace("net", true);
}
END_TEST

START_TEST(network_none_has_only_lo_and_it_is_up)
{
	static const char *const argv[] = { "/usr/bin/python3", "-c",
		"import os, socket\n"
		"print(os.readlink('/proc/self/ns/net'))\n"
		"print([n for _, n in socket.if_nameindex()])\n"
		"s = socket.create_server(('127.0.0.1', 0))\n"
		"socket.create_connection(s.getsockname())\n"
		"print('lo is up')\n",
		NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.network = NEST_CELL_NETWORK_NONE;
	cell_fixture_run(&fixture, &spec, &run);
	assert_exited(0);
	assert_namespace("net", false);
	assert_printed("['lo']\n");
	assert_printed("lo is up\n");
}
END_TEST

START_TEST(nothing_can_be_written_but_tmp)
{
	shell("for d in / /usr /etc /function /runtime /dev /proc/sys/kernel; do\n"
	      "  touch $d/x 2>/dev/null && echo wrote $d; done\n"
	      "echo > /proc/sys/kernel/hostname 2>/dev/null && echo wrote hostname\n"
	      "touch /tmp/x /dev/shm/x && cat /function/hello");
	assert_exited(0);
	ck_assert_str_eq(strstr(run.text, "wrote") ? run.text : "", "");
	assert_printed("world\n");
}
END_TEST

START_TEST(tmp_and_shm_share_one_bound)
{
	shell("head -c 1500000 /dev/zero > /tmp/a || echo early\n"
	      "head -c 1500000 /dev/zero > /dev/shm/b || echo full\n"
	      "rm /tmp/a; head -c 1500000 /dev/zero > /dev/shm/b && echo room");
	assert_exited(0);
	ck_assert_ptr_null(strstr(run.text, "early"));
	assert_printed("full\n");
	assert_printed("room\n");
}
END_TEST

START_TEST(tmp_is_empty_in_each_cell)
{
	shell("ls -A /tmp /dev/shm; touch /tmp/mine");
	assert_exited(0);
	shell("ls -A /tmp | wc -l");
	ck_assert_str_eq(run.text, "0\n");
}
END_TEST

START_TEST(descriptors_are_0_to_3_and_no_more)
{
	shell("exec ls -l /proc/self/fd");
	assert_exited(0);
	assert_printed(" 0 -> /dev/null\n");
	assert_printed(" 1 -> pipe:");
	assert_printed(" 2 -> pipe:");
	assert_printed(" 3 -> socket:");
	/* the fourth is the directory that ls reads */
	assert_printed(" 4 -> /proc/");
	ck_assert_ptr_null(strstr(run.text, " 5 ->"));
}
END_TEST

START_TEST(a_worker_has_no_privilege_and_gets_none)
{
	shell("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status");
	assert_exited(0);
	assert_printed("CapInh:\t0000000000000000\n");
	assert_printed("CapPrm:\t0000000000000000\n");
	assert_printed("CapEff:\t0000000000000000\n");
	assert_printed("CapBnd:\t0000000000000000\n");
	assert_printed("CapAmb:\t0000000000000000\n");
	assert_printed("NoNewPrivs:\t1\n");
	assert_printed("Seccomp:\t2\n");
	assert_printed("Groups:\t \n");
}
END_TEST

START_TEST(signals_are_as_a_fresh_process_has_them)
{
	shell("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status");
	assert_exited(0);
	assert_printed("SigBlk:\t0000000000000000\n");
	assert_printed("SigIgn:\t0000000000000000\n");
}
END_TEST

START_TEST(resource_limits_are_set)
{
	shell("ulimit -Sn; ulimit -Hn; echo core $(ulimit -Hc); echo lock $(ulimit -Hl)");
	assert_exited(0);
	assert_printed("100\n100\ncore 0\nlock 64\n");
}
END_TEST

START_TEST(the_worker_goes_first_when_memory_runs_out)
{
	shell("cat /proc/self/oom_score_adj");
	ck_assert_int_ge(atoi(run.text), 500);
}
END_TEST

static void assert_limits_on_v1(void)
{
	ck_assert_uint_eq(
		cell_fixture_cgroup_value(run.pid, "memory", "memory.limit_in_bytes"), 128u << 20);
	ck_assert_uint_eq(
		cell_fixture_cgroup_value(run.pid, "memory", "memory.memsw.limit_in_bytes"),
		128u << 20);
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "pids", "pids.max"), 33);
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "cpu", "cpu.cfs_quota_us"), 150000);
	ck_assert_uint_gt(cell_fixture_cgroup_value(run.pid, "cpuacct", "cgroup.procs"), 0);
}

static void assert_limits_on_v2(void)
{
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "", "memory.max"), 128u << 20);
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "", "memory.swap.max"), 0);
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "", "pids.max"), 33);
	ck_assert_uint_eq(cell_fixture_cgroup_value(run.pid, "", "cpu.max"), 150000);
	ck_assert_uint_gt(cell_fixture_cgroup_value(run.pid, "", "cgroup.procs"), 0);
}

START_TEST(cgroup_limits_are_in_place_while_it_runs)
{
	static const char *const argv[] = { "/bin/sleep", "60", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), 0);
	cell_fixture_await(&fixture, &run.started);
	if (cell_fixture_has_v2_alone())
		assert_limits_on_v2();
	else
		assert_limits_on_v1();
	nest_cell_kill(run.cell);
	nest_cell_kill(run.cell);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_KILLED);
}
END_TEST

START_TEST(a_fork_bomb_stops_at_the_limit)
{
	static const char *const argv[] = { "/usr/bin/python3", "-c",
		"import os, time\n"
		"n = 0\n"
		"try:\n"
		"  while True:\n"
		"    if os.fork() == 0:\n"
		"      time.sleep(60)\n"
		"    n += 1\n"
		"except BlockingIOError:\n"
		"  print('children', n)\n",
		NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.pids = 10;
	cell_fixture_run(&fixture, &spec, &run);
	/* its children, who sleep on, end with it */
	assert_exited(0);
	ck_assert_str_eq(run.text, "children 9\n");
}
END_TEST

START_TEST(a_worker_that_allocates_without_end_is_named_out_of_memory)
{
	static const char *const argv[] = { "/usr/bin/python3", "-c",
		"x = []\nwhile True: x.append(bytearray(1 << 20))", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.memory_bytes = 32u << 20;
	cell_fixture_run(&fixture, &spec, &run);
	ck_assert_int_eq(run.cause, NEST_CELL_OOM);
	ck_assert_uint_ge(run.peak, 31u << 20);
}
END_TEST

START_TEST(tmp_is_charged_to_memory)
{
	static const char *const argv[] = { "/bin/sh", "-c", "head -c 100000000 /dev/zero > /tmp/a",
		NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.memory_bytes = 16u << 20;
	spec.tmp_bytes = 1u << 30;
	cell_fixture_run(&fixture, &spec, &run);
	ck_assert_int_eq(run.cause, NEST_CELL_OOM);
}
END_TEST

START_TEST(a_worker_outlives_a_child_that_runs_out_of_memory)
{
	static const char *const argv[] = { "/bin/sh", "-c",
		"/usr/bin/python3 -c 'x = bytearray(1 << 30)'; echo child $?", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.memory_bytes = 32u << 20;
	cell_fixture_run(&fixture, &spec, &run);
	assert_exited(0);
	assert_printed("child 137\n");
}
END_TEST

START_TEST(a_signal_is_told)
{
	shell("kill -TERM $$");
	ck_assert_int_eq(run.cause, NEST_CELL_SIGNALED);
	ck_assert_int_eq(run.status, SIGTERM);
	/* not to be confused with running out of memory, or with our own kill */
	shell("kill -KILL $$");
	ck_assert_int_eq(run.cause, NEST_CELL_SIGNALED);
	ck_assert_int_eq(run.status, SIGKILL);
}
END_TEST

START_TEST(pid_1_is_out_of_reach)
{
	shell("kill -9 1 2>&1; kill -9 -1; ls -d /proc/1 2>&1; cat /proc/1/environ 2>&1; echo "
	      "alive");
	assert_exited(0);
	assert_printed("alive\n");
	assert_printed("'/proc/1': No such file");
}
END_TEST

START_TEST(what_a_worker_leaves_running_ends_with_it)
{
	shell("setsid sleep 1000 & setsid sleep 1001 & exit 0");
	assert_exited(0);
}
END_TEST

START_TEST(a_program_that_is_not_there_is_named)
{
	static const char *const argv[] = { "/usr/bin/no-such-program", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	cell_fixture_run(&fixture, &spec, &run);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert(!run.started);
	ck_assert_int_eq(run.err.code, -ENOENT);
	ck_assert_str_eq(
		run.err.text, "execute '/usr/bin/no-such-program': No such file or directory");
}
END_TEST

START_TEST(code_of_a_strange_owner_is_refused)
{
	static const char *const argv[] = { "/bin/true", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	ck_assert_int_eq(chown(fixture.code_dir, 4242, 4242), 0);
	cell_fixture_run(&fixture, &spec, &run);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_int_eq(run.err.code, -EINVAL);
	ck_assert_ptr_nonnull(strstr(run.err.text, "belongs to user 4242"));
}
END_TEST

static void expect_refused_fds(int code, int channel, int output, const char *text)
{
	static const char *const argv[] = { "/bin/true", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.code_fd = code;
	spec.channel_fd = channel;
	spec.stdout_fd = output;
	cell_fixture_run(&fixture, &spec, &run);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_msg(strstr(run.err.text, text) != NULL, "%s", run.err.text);
}

START_TEST(descriptors_of_another_kind_are_refused)
{
	int file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	int dir = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int path = open("/etc/passwd", O_PATH | O_CLOEXEC);
	int device = open("/dev/zero", O_RDWR | O_CLOEXEC);

	expect_refused_fds(file, -1, -1, "neither a directory nor a mounted image");
	expect_refused_fds(-1, file, -1, "the channel descriptor is not a socket");
	expect_refused_fds(-1, -1, dir, "stdout descriptor must be");
	expect_refused_fds(-1, -1, device, "stdout descriptor must be");
	expect_refused_fds(-1, -1, path, "stdout descriptor is not open");
	close(file);
	close(dir);
	close(path);
	close(device);
}
END_TEST

static void expect_invalid(const struct nest_cell_spec *spec, const char *text)
{
	ck_assert_int_eq(cell_fixture_start(&fixture, spec, &run), -EINVAL);
	ck_assert_msg(strstr(run.err.text, text) != NULL, "no '%s' in: %s", text, run.err.text);
}

START_TEST(fields_out_of_range_are_refused)
{
	static const char *const argv[] = { "/bin/true", NULL };
	static const char *const relative[] = { "true", NULL };
	static const char *const empty[] = { NULL };
	static char huge[70000];
	const char *const long_argv[] = { "/bin/true", huge, NULL };
	struct nest_cell_spec good = cell_fixture_spec(argv);
	struct nest_cell_spec bad;

	memset(huge, 'x', sizeof(huge) - 1);
#define REFUSE(field, value, text)          \
	do {                                \
		bad = good;                 \
		bad.field = (value);        \
		expect_invalid(&bad, text); \
	} while (0)
	REFUSE(hostname, "", "hostname");
	REFUSE(hostname, "a.b", "hostname");
	REFUSE(hostname, huge, "hostname");
	REFUSE(uid, 0, "uid 0");
	REFUSE(uid, 711999, "uid");
	REFUSE(uid, 713000, "uid");
	REFUSE(memory_bytes, 0, "memory_bytes");
	REFUSE(tmp_bytes, 0, "tmp_bytes");
	REFUSE(pids, 0, "pids");
	REFUSE(cpu_milli, 5, "cpu_milli");
	REFUSE(nofile, 3, "nofile");
	REFUSE(network, 2, "network");
	REFUSE(argv, relative, "argv[0]");
	REFUSE(argv, empty, "argc");
	REFUSE(argv, long_argv, "65536 bytes");
#undef REFUSE
	/* and after all that the sandbox still serves */
	shell("exit 0");
	assert_exited(0);
}
END_TEST

static void on_measured(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg)
{
	bool *done = arg;

	ck_assert_ptr_eq(cell, run.cell);
	ck_assert_uint_gt(usage->memory_bytes, 0);
	ck_assert_uint_ge(usage->memory_peak_bytes, usage->memory_bytes);
	ck_assert_uint_gt(usage->cpu_us, 0);
	ck_assert_uint_eq(usage->pids, 1);
	*done = true;
}

static uint64_t measured_cpu_us;

static void on_cpu(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg)
{
	bool *done = arg;

	(void)cell;
	measured_cpu_us = usage->cpu_us;
	*done = true;
}

START_TEST(a_running_cell_can_be_measured)
{
	static const char *const argv[] = { "/bin/sleep", "60", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);
	bool done = false;

	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), 0);
	cell_fixture_await(&fixture, &run.started);
	ck_assert_int_eq(nest_cell_measure(run.cell, on_measured, &done), 0);
	ck_assert_int_eq(nest_cell_measure(run.cell, on_measured, &done), -EALREADY);
	cell_fixture_await(&fixture, &done);
	done = false;
	ck_assert_int_eq(nest_cell_measure(run.cell, on_measured, &done), 0);
	cell_fixture_await(&fixture, &done);
	nest_cell_kill(run.cell);
	cell_fixture_await(&fixture, &run.exited);
}
END_TEST

/* More than are measured at once; some are gone before it is their turn. */
START_TEST(many_cells_can_be_measured_together)
{
	static const char *const argv[] = { "/bin/sleep", "60", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);
	struct cell_run runs[9];
	bool done[NEST_ARRAY_SIZE(runs)] = { false };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(runs); i++) {
		ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &runs[i]), 0);
		cell_fixture_await(&fixture, &runs[i].started);
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(runs); i++) {
		if (i < 2 || i > 6)
			nest_cell_kill(runs[i].cell);
		ck_assert_int_eq(nest_cell_measure(runs[i].cell, on_cpu, &done[i]), 0);
	}
	for (size_t i = 2; i <= 6; i++)
		cell_fixture_await(&fixture, &done[i]);
	for (size_t i = 2; i <= 6; i++)
		nest_cell_kill(runs[i].cell);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(runs); i++)
		cell_fixture_await(&fixture, &runs[i].exited);
}
END_TEST

static uint64_t cpu_us_of(struct cell_run *of)
{
	bool done = false;

	ck_assert_int_eq(nest_cell_measure(of->cell, on_cpu, &done), 0);
	cell_fixture_await(&fixture, &done);
	return measured_cpu_us;
}

START_TEST(a_frozen_cell_takes_no_time_and_goes_on_when_thawed)
{
	static const char *const argv[] = { "/bin/sh", "-c", "while :; do :; done", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);
	uint64_t before;

	ck_assert(nest_sandbox_can_freeze(fixture.sandbox));
	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), 0);
	cell_fixture_await(&fixture, &run.started);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(nest_cell_freeze(run.cell), 0);
		ck_assert_int_eq(nest_cell_freeze(run.cell), 0);
		cell_fixture_await_frozen(run.pid);
		before = cpu_us_of(&run);
		usleep(50000);
		ck_assert_uint_eq(cpu_us_of(&run), before);
		ck_assert_int_eq(nest_cell_thaw(run.cell), 0);
		while (cpu_us_of(&run) == before)
			continue;
	}
	ck_assert_int_eq(nest_cell_freeze(run.cell), 0);
	cell_fixture_await_frozen(run.pid);
	nest_cell_kill(run.cell);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_KILLED);
}
END_TEST

START_TEST(a_host_that_closes_takes_its_frozen_cells_along)
{
	static const char *const argv[] = { "/bin/sleep", "60", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), 0);
	cell_fixture_await(&fixture, &run.started);
	ck_assert_int_eq(nest_cell_freeze(run.cell), 0);
	cell_fixture_await_frozen(run.pid);
	/* closing the fixture does the rest */
}
END_TEST

START_TEST(the_host_is_out_of_sight)
{
	shell("ls -A / ; stat -c 'shadow %t %s' /etc/shadow; ls /proc/kcore /proc/keys -l; ls "
	      "/proc/acpi /etc/ssh");
	ck_assert_ptr_null(strstr(run.text, "home"));
	ck_assert_ptr_null(strstr(run.text, "sys\n"));
	ck_assert_ptr_null(strstr(run.text, "sshd"));
	/* a character device of major 1, which is /dev/null */
	assert_printed("shadow 1 0\n");
}
END_TEST

START_TEST(node_runs_in_a_cell)
{
	static const char *const argv[] = { "/usr/bin/node", "-e",
		"console.log('node', process.getuid(), require('os').hostname(),"
		"require('fs').readFileSync('hello','utf8'))",
		NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.memory_bytes = 512u << 20;
	cell_fixture_run(&fixture, &spec, &run);
	assert_exited(0);
	assert_printed("node 712345 cell-under-test world\n");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("cell");
	TCase *cases = tcase_create("cell");

	tcase_set_timeout(cases, 60);
	tcase_add_checked_fixture(cases, setup, teardown);
	tcase_add_test(cases, a_program_runs_and_its_exit_code_is_told);
	tcase_add_test(cases, a_worker_is_its_own_user_on_its_own_host);
	tcase_add_test(cases, namespaces_are_the_cells_own_but_for_the_pods_network);
	tcase_add_test(cases, network_none_has_only_lo_and_it_is_up);
	tcase_add_test(cases, nothing_can_be_written_but_tmp);
	tcase_add_test(cases, tmp_and_shm_share_one_bound);
	tcase_add_test(cases, tmp_is_empty_in_each_cell);
	tcase_add_test(cases, descriptors_are_0_to_3_and_no_more);
	tcase_add_test(cases, a_worker_has_no_privilege_and_gets_none);
	tcase_add_test(cases, signals_are_as_a_fresh_process_has_them);
	tcase_add_test(cases, resource_limits_are_set);
	tcase_add_test(cases, the_worker_goes_first_when_memory_runs_out);
	tcase_add_test(cases, cgroup_limits_are_in_place_while_it_runs);
	tcase_add_test(cases, a_fork_bomb_stops_at_the_limit);
	tcase_add_test(cases, a_worker_that_allocates_without_end_is_named_out_of_memory);
	tcase_add_test(cases, tmp_is_charged_to_memory);
	tcase_add_test(cases, a_worker_outlives_a_child_that_runs_out_of_memory);
	tcase_add_test(cases, a_signal_is_told);
	tcase_add_test(cases, pid_1_is_out_of_reach);
	tcase_add_test(cases, what_a_worker_leaves_running_ends_with_it);
	tcase_add_test(cases, a_program_that_is_not_there_is_named);
	tcase_add_test(cases, code_of_a_strange_owner_is_refused);
	tcase_add_test(cases, descriptors_of_another_kind_are_refused);
	tcase_add_test(cases, fields_out_of_range_are_refused);
	tcase_add_test(cases, a_running_cell_can_be_measured);
	tcase_add_test(cases, many_cells_can_be_measured_together);
	tcase_add_test(cases, a_frozen_cell_takes_no_time_and_goes_on_when_thawed);
	tcase_add_test(cases, a_host_that_closes_takes_its_frozen_cells_along);
	tcase_add_test(cases, the_host_is_out_of_sight);
	tcase_add_test(cases, node_runs_in_a_cell);
	suite_add_tcase(s, cases);
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
