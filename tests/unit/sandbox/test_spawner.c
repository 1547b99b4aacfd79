/* SPDX-License-Identifier: Apache-2.0 */
/* The spawner's own life: its pool, its limits, its enemies, and what is left when somebody dies. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "sandbox/message.h"
#include "tests/unit/sandbox/cell_fixture.h"

static struct cell_fixture fixture;
static struct cell_run run;
static struct cell_run runs[64];

static void setup(void)
{
	ck_assert_msg(getuid() == 0, "these tests need root");
	cell_fixture_init(&fixture);
}

static const char *const sleep_argv[] = { "/bin/sleep", "1000", NULL };
static const char *const true_argv[] = { "/bin/true", NULL };

static unsigned instance_cgroups(void)
{
	char name[64];

	snprintf(name, sizeof(name), "nestlet-%s", fixture.instance);
	return cell_fixture_cgroups(name);
}

static void await_prepared(uint32_t count)
{
	while (nest_sandbox_prepared(fixture.sandbox) != count)
		uv_run(&fixture.loop, UV_RUN_ONCE);
}

static void start_sleeper(struct cell_run *which)
{
	struct nest_cell_spec spec = cell_fixture_spec(sleep_argv);

	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, which), 0);
	cell_fixture_await(&fixture, &which->started);
}

START_TEST(the_pool_fills_and_refills)
{
	struct nest_cell_spec spec = cell_fixture_spec(true_argv);

	fixture.config.pool_size = 3;
	fixture.config.pool_size_none = 2;
	cell_fixture_open(&fixture);
	await_prepared(5);
	for (int i = 0; i < 10; i++) {
		spec.network = i % 2 ? NEST_CELL_NETWORK_NONE : NEST_CELL_NETWORK_POD;
		cell_fixture_run(&fixture, &spec, &run);
		ck_assert_int_eq(run.cause, NEST_CELL_EXITED);
	}
	await_prepared(5);
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(no_more_cells_than_allowed_run)
{
	struct nest_cell_spec spec = cell_fixture_spec(sleep_argv);

	fixture.config.max_cells = 4;
	fixture.config.pool_size_none = 4;
	cell_fixture_open(&fixture);
	await_prepared(4);
	for (int i = 0; i < 4; i++)
		start_sleeper(&runs[i]);
	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(run.err.text, "all 4 cells"));
	/* prepared cells of the other network have made room */
	await_prepared(0);
	nest_cell_kill(runs[0].cell);
	cell_fixture_await(&fixture, &runs[0].exited);
	start_sleeper(&runs[0]);
	cell_fixture_close(&fixture);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(runs[i].cause, NEST_CELL_KILLED);
}
END_TEST

START_TEST(requests_wait_while_the_spawner_is_busy)
{
	static char big[60000] = "BIG=";
	const char *const envp[] = { big, NULL };
	struct nest_cell_spec spec = cell_fixture_spec(true_argv);

	memset(big + 4, 'x', sizeof(big) - 5);
	spec.envp = envp;
	fixture.config.max_cells = 64;
	cell_fixture_open(&fixture);
	ck_assert_int_eq(kill(fixture.spawner.pid, SIGSTOP), 0);
	for (int i = 0; i < 64; i++)
		ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &runs[i]), 0);
	ck_assert_int_eq(kill(fixture.spawner.pid, SIGCONT), 0);
	for (int i = 0; i < 64; i++) {
		cell_fixture_await(&fixture, &runs[i].exited);
		ck_assert_int_eq(runs[i].cause, NEST_CELL_EXITED);
	}
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(three_hundred_cells_leave_nothing_behind)
{
	struct nest_cell_spec spec = cell_fixture_spec(true_argv);
	char fds[64];
	char mounts[64];
	unsigned before[3];

	fixture.config.pool_size = 4;
	cell_fixture_open(&fixture);
	snprintf(fds, sizeof(fds), "/proc/%d/fd", fixture.spawner.pid);
	snprintf(mounts, sizeof(mounts), "/proc/%d/mountinfo", fixture.spawner.pid);
	await_prepared(4);
	before[0] = cell_fixture_entries(fds);
	before[1] = cell_fixture_lines(mounts);
	before[2] = cell_fixture_entries("/proc/self/fd");
	for (int i = 0; i < 300; i += 6) {
		for (int k = 0; k < 6; k++) {
			spec.network = k == 5 ? NEST_CELL_NETWORK_NONE : NEST_CELL_NETWORK_POD;
			ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &runs[k]), 0);
		}
		for (int k = 0; k < 6; k++) {
			cell_fixture_await(&fixture, &runs[k].exited);
			ck_assert_int_eq(runs[k].cause, NEST_CELL_EXITED);
		}
	}
	await_prepared(4);
	ck_assert_uint_eq(cell_fixture_entries(fds), before[0]);
	ck_assert_uint_eq(cell_fixture_lines(mounts), before[1]);
	ck_assert_uint_eq(cell_fixture_entries("/proc/self/fd"), before[2]);
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(a_killed_spawner_is_reported_and_its_cells_die)
{
	struct nest_cell_spec spec = cell_fixture_spec(sleep_argv);
	char leftover[64];
	pid_t worker;

	fixture.config.pool_size = 2;
	cell_fixture_open(&fixture);
	await_prepared(2);
	start_sleeper(&run);
	snprintf(leftover, sizeof(leftover), "nestlet-%s/cell-1", fixture.instance);
	ck_assert_uint_gt(cell_fixture_cgroups(leftover), 0);
	worker = run.pid;
	ck_assert_int_eq(kill(fixture.spawner.pid, SIGKILL), 0);
	cell_fixture_await(&fixture, &fixture.lost);
	ck_assert(run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_LOST);
	cell_fixture_await_death(worker);
	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &runs[0]), -EPIPE);
	ck_assert_uint_gt(instance_cgroups(), 0);
	cell_fixture_close(&fixture);

	/* the next life of the same instance finds the leftovers and removes them */
	fixture.lost = false;
	cell_fixture_init(&fixture);
	cell_fixture_open(&fixture);
	ck_assert_uint_eq(cell_fixture_cgroups(leftover), 0);
	start_sleeper(&run);
	cell_fixture_close(&fixture);
}
END_TEST

static pid_t start_stray(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

/* Puts @pid, which has escaped its namespaces' end, into the leftover cgroup of a former life. */
static void put_stray(const char *dir, pid_t pid)
{
	char path[256];
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", pid);

	snprintf(path, sizeof(path), "%s/cell-77", dir);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/cell-77/cgroup.procs", dir);
	ck_assert_int_eq(nest_file_write(AT_FDCWD, path, text, (size_t)n, NULL), 0);
}

START_TEST(leftover_processes_are_killed_first)
{
	static const char *const mounts[] = { "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified",
		"/sys/fs/cgroup" };
	bool v2_alone = cell_fixture_has_v2_alone();

	for (size_t i = v2_alone ? 2 : 0; i < (v2_alone ? 3u : 2u); i++) {
		char dir[128];
		int status;
		pid_t stray;

		snprintf(dir, sizeof(dir), "%s/nestlet-%s", mounts[i], fixture.instance);
		ck_assert_int_eq(mkdir(dir, 0755), 0);
		stray = start_stray();
		put_stray(dir, stray);
		cell_fixture_open(&fixture);
		ck_assert_int_eq(waitpid(stray, &status, 0), stray);
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		cell_fixture_close(&fixture);
		fixture.closed = false;
		cell_fixture_init(&fixture);
	}
}
END_TEST

/* What v1's freezer holds dies of no signal, and is in other hierarchies too. */
START_TEST(leftover_processes_are_killed_though_v1_froze_them)
{
	static const char *const mounts[] = { "cpu", "pids", "freezer" };
	pid_t stray = start_stray();
	char dir[128];
	char path[192];
	int status;

	for (size_t i = 0; i < 3; i++) {
		snprintf(dir, sizeof(dir), "/sys/fs/cgroup/%s/nestlet-%s", mounts[i],
			fixture.instance);
		ck_assert_int_eq(mkdir(dir, 0755), 0);
		put_stray(dir, stray);
	}
	snprintf(path, sizeof(path), "%s/cell-77/freezer.state", dir);
	ck_assert_int_eq(nest_file_write(AT_FDCWD, path, "FROZEN", 6, NULL), 0);
	cell_fixture_open(&fixture);
	ck_assert_int_eq(waitpid(stray, &status, 0), stray);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(two_hosts_of_one_name_are_refused)
{
	struct nest_sandbox_spawner second;
	struct nest_err err = NEST_ERR_INIT;

	cell_fixture_open(&fixture);
	ck_assert_int_eq(nest_sandbox_launch(&fixture.config, &second, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "another host of this instance name"));
	start_sleeper(&run);
	cell_fixture_close(&fixture);
}
END_TEST

/*
 * An agent of its own process, which tells the pids of its worker and its spawner, and of a third
 * process, which holds its socket open when it is dead itself.
 */
static _Noreturn void be_agent(int report)
{
	pid_t pids[3];

	cell_fixture_open(&fixture);
	start_sleeper(&run);
	pids[0] = run.pid;
	pids[1] = fixture.spawner.pid;
	pids[2] = fork();
	if (pids[2] == 0)
		for (;;)
			pause();
	if (write(report, pids, sizeof(pids)) < 0)
		_exit(1);
	for (;;)
		pause();
}

START_TEST(a_killed_agent_leaves_nothing)
{
	int report[2];
	pid_t pids[3];
	pid_t agent;

	fixture.config.pool_size = 2;
	ck_assert_int_eq(pipe2(report, O_CLOEXEC), 0);
	agent = fork();
	if (agent == 0)
		be_agent(report[1]);
	close(report[1]);
	ck_assert_int_eq(read(report[0], pids, sizeof(pids)), sizeof(pids));
	ck_assert_int_eq(kill(agent, SIGKILL), 0);
	ck_assert_int_eq(waitpid(agent, NULL, 0), agent);
	cell_fixture_await_death(pids[0]);
	cell_fixture_await_death(pids[1]);
	ck_assert_uint_eq(instance_cgroups(), 0);
	ck_assert_int_eq(kill(pids[2], SIGKILL), 0);
	close(report[0]);
}
END_TEST

START_TEST(what_the_agent_does_with_signals_is_not_inherited)
{
	signal(SIGCHLD, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	cell_fixture_open(&fixture);
	cell_fixture_shell(&fixture, "grep SigIgn /proc/self/status; exit 3", &run);
	ck_assert_int_eq(run.cause, NEST_CELL_EXITED);
	ck_assert_int_eq(run.status, 3);
	ck_assert_str_eq(run.text, "SigIgn:\t0000000000000000\n");
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(signals_to_the_service_leave_the_spawner_alone)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1 };

	cell_fixture_open(&fixture);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		ck_assert_int_eq(kill(fixture.spawner.pid, signals[i]), 0);
	start_sleeper(&run);
	cell_fixture_close(&fixture);
}
END_TEST

START_TEST(closing_kills_what_runs)
{
	cell_fixture_open(&fixture);
	for (int i = 0; i < 8; i++)
		start_sleeper(&runs[i]);
	cell_fixture_close(&fixture);
	for (int i = 0; i < 8; i++) {
		ck_assert(runs[i].exited);
		ck_assert_int_eq(runs[i].cause, NEST_CELL_KILLED);
		cell_fixture_await_death(runs[i].pid);
	}
}
END_TEST

START_TEST(a_spawner_can_be_dismissed_unopened)
{
	struct nest_sandbox_spawner spawner;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_sandbox_launch(&fixture.config, &spawner, &err), 0);
	nest_sandbox_dismiss(&spawner);
	ck_assert_uint_eq(instance_cgroups(), 0);
}
END_TEST

static void expect_refused_config(const char *text)
{
	struct nest_sandbox_spawner spawner;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_lt(nest_sandbox_launch(&fixture.config, &spawner, &err), 0);
	ck_assert_msg(strstr(err.text, text) != NULL, "no '%s' in: %s", text, err.text);
}

START_TEST(a_bad_config_is_refused)
{
	static const char *const bad_roots[] = { "/usr/../etc", NULL };
	static const char *const whole[] = { "/", NULL };
	static const char *const own[] = { "/usr", "/proc/sys", NULL };
	struct nest_sandbox_config good = fixture.config;

#define REFUSE(field, value, text)              \
	do {                                    \
		fixture.config = good;          \
		fixture.config.field = (value); \
		expect_refused_config(text);    \
	} while (0)
	REFUSE(instance, "Up", "instance");
	REFUSE(instance, "../x", "instance");
	REFUSE(instance, "", "instance");
	REFUSE(state_dir, "relative", "state directory");
	REFUSE(runtimes_dir, "/no/such/dir", "/no/such/dir");
	REFUSE(root_paths, bad_roots, "..");
	REFUSE(root_paths, whole, "root path");
	REFUSE(root_paths, own, "must not lie in '/proc'");
	REFUSE(uid_base, 0, "uids");
	REFUSE(uid_count, UINT32_MAX, "uids");
	REFUSE(pool_size, 257, "pool");
	REFUSE(max_cells, 0, "cells");
	REFUSE(spawner, "/no/such/program", "start '/no/such/program': No such file");
	REFUSE(max_cells, 5000, "cells");
#undef REFUSE
}
END_TEST

START_TEST(the_state_directory_is_masked)
{
	const char *const roots[] = { "/usr", "/bin", "/lib", "/lib64", fixture.dir, NULL };
	char script[256];

	fixture.config.root_paths = roots;
	cell_fixture_open(&fixture);
	snprintf(script, sizeof(script), "cat %s/code/hello; ls -A %s/state", fixture.dir,
		fixture.dir);
	cell_fixture_shell(&fixture, script, &run);
	ck_assert_str_eq(run.text, "world\n");
	cell_fixture_close(&fixture);
}
END_TEST

/* ---- malformed messages ---- */

static uint32_t rolled = 12345;

static uint32_t roll(void)
{
	rolled = rolled * 1664525u + 1013904223u;
	return rolled >> 8;
}

static size_t make_good_start(struct nest_message_start *start)
{
	static const char words[] = "/bin/true";

	memset(start, 0, sizeof(*start));
	memcpy(start->strings, words, sizeof(words));
	start->memory_bytes = 64u << 20;
	start->tmp_bytes = 1u << 20;
	start->uid = CELL_FIXTURE_UID;
	start->pids = 4;
	start->nofile = 32;
	start->argc = 1;
	start->strings_bytes = sizeof(words);
	strcpy(start->hostname, "fuzz");
	nest_message_begin(&start->head, NEST_MESSAGE_START, sizeof(*start) + sizeof(words), 1);
	return start->head.size;
}

static void send_random(int sock, union nest_message *message, int extra_fd)
{
	int fds[NEST_FD_MAX_PASSED];
	size_t nfds = roll() % (NEST_FD_MAX_PASSED + 1);
	size_t n = make_good_start(&message->start);

	for (size_t i = 0; i < nfds; i++)
		fds[i] = extra_fd;
	for (uint32_t changes = roll() % 4; changes > 0; changes--)
		message->room[roll() % n] = (char)roll();
	if (roll() % 2)
		message->head.cell = roll();
	if (roll() % 4 == 0)
		n = roll() % sizeof(*message) + 1;
	if (roll() % 2)
		message->head.size = (uint32_t)n;
	if (roll() % 4 == 0)
		message->head.type = roll() % 40;
	ck_assert_int_eq(nest_fd_send(sock, message, n, fds, nfds), 0);
}

#define LAST_QUESTION (1ull << 60)

/* Reads answers until the spawner has dealt with a last question that it must answer. */
static void drain(int sock, union nest_message *message)
{
	struct nest_message_head odd;
	size_t nfds;

	nest_message_begin(&odd, 9999, sizeof(odd), LAST_QUESTION);
	ck_assert_int_eq(nest_message_send(sock, &odd), 0);
	for (;;) {
		ssize_t n = nest_fd_recv(sock, message, sizeof(*message), NULL, 0, &nfds);

		ck_assert_int_gt(n, 0);
		ck_assert_uint_eq(message->head.size, (size_t)n);
		if (message->head.type == NEST_MESSAGE_REFUSED &&
			message->head.cell == LAST_QUESTION)
			return;
	}
}

START_TEST(malformed_messages_do_no_harm)
{
	static union nest_message message;
	struct nest_sandbox_spawner spawner;
	struct nest_err err = NEST_ERR_INIT;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	unsigned before;
	char fds[64];

	ck_assert_int_eq(nest_sandbox_launch(&fixture.config, &spawner, &err), 0);
	ck_assert_int_eq(nest_fd_set_nonblock(spawner.fd, 0, NULL), 0);
	snprintf(fds, sizeof(fds), "/proc/%d/fd", spawner.pid);
	drain(spawner.fd, &message);
	before = cell_fixture_entries(fds);
	for (int i = 0; i < 5000; i++) {
		send_random(spawner.fd, &message, null);
		/* both sides block here: so each message's answers are read before the next */
		drain(spawner.fd, &message);
	}
	ck_assert_uint_eq(cell_fixture_entries(fds), before);
	ck_assert_int_eq(waitpid(spawner.pid, NULL, WNOHANG), 0);
	nest_sandbox_dismiss(&spawner);
	ck_assert_uint_eq(instance_cgroups(), 0);
	close(null);
}
END_TEST

/* ---- without privilege ---- */

static void give_to_nobody(const char *dir, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(chown(path, 65534, 65534), 0);
}

static void be_nobody(void)
{
	give_to_nobody(fixture.dir, "");
	give_to_nobody(fixture.state_dir, "");
	give_to_nobody(fixture.code_dir, "");
	give_to_nobody(fixture.runtimes_dir, "");
	ck_assert_int_eq(setresgid(65534, 65534, 65534), 0);
	ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	fixture.config.agent_uid = 65534;
	/* the test's own end must stay visible to its parent */
	prctl(PR_SET_DUMPABLE, 1);
}

START_TEST(without_privilege_it_refuses_if_isolation_is_required)
{
	be_nobody();
	expect_refused_config("isolation is required, but this machine lacks: mount namespace");
}
END_TEST

START_TEST(without_privilege_it_does_what_it_can_and_says_so)
{
	char script[512];

	be_nobody();
	fixture.config.require_isolation = false;
	fixture.config.pool_size = 1;
	cell_fixture_open(&fixture);
	ck_assert_ptr_nonnull(strstr(nest_sandbox_missing(fixture.sandbox), "pid namespace: "));
	ck_assert_ptr_nonnull(strstr(nest_sandbox_missing(fixture.sandbox), "cgroup memory: "));
	snprintf(script, sizeof(script),
		"pwd; echo $NESTLET_FUNCTION_DIR $NESTLET_RUNTIME_DIR; "
		"grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/self/fd | wc -l; "
		"setsid sleep 1000 & echo $! $0 $1 >&2");
	{
		const char *const argv[] = { "/bin/sh", "-c", script, "/runtime/x", "/runtimes",
			NULL };
		struct nest_cell_spec spec = cell_fixture_spec(argv);
		char expected[512];
		int stray = 0;

		cell_fixture_run(&fixture, &spec, &run);
		snprintf(expected, sizeof(expected), "%s\n%s %s\nNoNewPrivs:\t1\nSeccomp:\t2\n5\n",
			fixture.code_dir, fixture.code_dir, fixture.runtimes_dir);
		ck_assert_int_eq(strncmp(run.text, expected, strlen(expected)), 0);
		ck_assert_int_gt(run.pid, 1);
		stray = atoi(run.text + strlen(expected));
		ck_assert_int_gt(stray, 1);
		/* the arguments: one below /runtime has moved, the other only looks like it */
		snprintf(expected, sizeof(expected), "%d %s/x /runtimes\n", stray,
			fixture.runtimes_dir);
		ck_assert_ptr_nonnull(strstr(run.text, expected));
		cell_fixture_await_death(stray);
	}
	start_sleeper(&run);
	nest_cell_kill(run.cell);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_KILLED);
	start_sleeper(&run);
	ck_assert_int_eq(kill(fixture.spawner.pid, SIGKILL), 0);
	cell_fixture_await(&fixture, &fixture.lost);
	cell_fixture_await_death(run.pid);
	nest_sandbox_close(fixture.sandbox, (void (*)(void *))free, NULL);
	uv_run(&fixture.loop, UV_RUN_DEFAULT);
	uv_loop_close(&fixture.loop);
}
END_TEST

/* As root of a container that may make no namespaces: users still differ, and cells still end. */
START_TEST(without_namespaces_functions_are_still_other_users)
{
	cap_t caps = cap_get_proc();
	cap_value_t admin = CAP_SYS_ADMIN;
	int stray;

	ck_assert_int_eq(cap_set_flag(caps, CAP_EFFECTIVE, 1, &admin, CAP_CLEAR), 0);
	ck_assert_int_eq(cap_set_flag(caps, CAP_PERMITTED, 1, &admin, CAP_CLEAR), 0);
	ck_assert_int_eq(cap_set_proc(caps), 0);
	cap_free(caps);
	fixture.config.require_isolation = false;
	cell_fixture_open(&fixture);
	ck_assert_ptr_null(strstr(nest_sandbox_missing(fixture.sandbox), "own: needs CAP_SETUID"));
	cell_fixture_shell(&fixture,
		"setsid sleep 1000 & echo $!; id -u; grep CapBnd /proc/self/status", &run);
	stray = atoi(run.text);
	ck_assert_int_gt(stray, 1);
	ck_assert_ptr_nonnull(strstr(run.text, "\n712345\nCapBnd:\t0000000000000000\n"));
	cell_fixture_await_death(stray);
	start_sleeper(&run);
	nest_cell_kill(run.cell);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_KILLED);
	cell_fixture_await_death(run.pid);
	cell_fixture_close(&fixture);
}
END_TEST

static void remove_fixture(void)
{
	nest_file_remove_tree(AT_FDCWD, fixture.dir, NULL);
}

static Suite *suite(void)
{
	Suite *s = suite_create("spawner");
	TCase *cases = tcase_create("spawner");

	tcase_set_timeout(cases, 120);
	tcase_add_checked_fixture(cases, setup, remove_fixture);
	tcase_add_test(cases, the_pool_fills_and_refills);
	tcase_add_test(cases, no_more_cells_than_allowed_run);
	tcase_add_test(cases, requests_wait_while_the_spawner_is_busy);
	tcase_add_test(cases, three_hundred_cells_leave_nothing_behind);
	tcase_add_test(cases, a_killed_spawner_is_reported_and_its_cells_die);
	tcase_add_test(cases, leftover_processes_are_killed_first);
	if (!cell_fixture_has_v2_alone())
		tcase_add_test(cases, leftover_processes_are_killed_though_v1_froze_them);
	tcase_add_test(cases, two_hosts_of_one_name_are_refused);
	tcase_add_test(cases, a_killed_agent_leaves_nothing);
	tcase_add_test(cases, what_the_agent_does_with_signals_is_not_inherited);
	tcase_add_test(cases, signals_to_the_service_leave_the_spawner_alone);
	tcase_add_test(cases, closing_kills_what_runs);
	tcase_add_test(cases, a_spawner_can_be_dismissed_unopened);
	tcase_add_test(cases, a_bad_config_is_refused);
	tcase_add_test(cases, the_state_directory_is_masked);
	tcase_add_test(cases, malformed_messages_do_no_harm);
	tcase_add_test(cases, without_privilege_it_refuses_if_isolation_is_required);
	tcase_add_test(cases, without_privilege_it_does_what_it_can_and_says_so);
	tcase_add_test(cases, without_namespaces_functions_are_still_other_users);
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
