/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts hostile workers in real cells and judges what they report. Every test has a host of its
 * own (spawner, state directory, secrets that a cell must not reach), and ends by proving that the
 * host left no process and no cgroup.
 */
#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <uv.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/landlock.h"
#include "sandbox/sandbox.h"
#include "tests/attack/probe.h"

#define LIMIT_MS 30000
#define UIDS 8u
#define MIB (1024ull * 1024)
#define TMP_MIB "8"
#define PIDS 32u
#define FILES 128u
#define MAX_ARGS 16

static uv_loop_t loop;
static struct nest_sandbox *sandbox;
static pid_t spawner_pid;
static uid_t uid_base;
static bool lost, closed;
static pid_t runner_pid;
static char name[32]; /* of this test's host, cgroups and files */
static char host[64], code[80], state[80], runtimes[80];

/* Where a careless host might leave things within reach, each made with all permissions. */
static const char *const exposed_parents[] = { "/run", "/var/lib", "/var/tmp", "/home", "/root",
	"/mnt", "/srv", "/opt" };
static char exposed[NEST_ARRAY_SIZE(exposed_parents)][80];

struct run {
	struct nest_cell *cell;
	struct nest_cell_exit how;
	char why[512];
	char said[2048];
	pid_t pid;
	int channel;
	int out;
	bool started;
	bool exited;
};

static void on_timeout(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* Runs the loop until *@flag. */
static void await(const bool *flag, const char *what)
{
	bool late = false;
	uv_timer_t timer;

	uv_timer_init(&loop, &timer);
	timer.data = &late;
	uv_timer_start(&timer, on_timeout, LIMIT_MS, 0);
	while (!*flag && !late)
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_msg(*flag, "%s did not happen within %d ms", what, LIMIT_MS);
}

static void write_file(const char *directory, const char *file)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, "secret", 6, 0666, NULL), 0);
}

static void make_directory(const char *path)
{
	ck_assert_msg(mkdir(path, 0777) == 0 && chmod(path, 0777) == 0, "make %s: %s", path,
		strerror(errno));
}

static void copy_probe(const char *file, mode_t mode)
{
	nest_autofree char *bytes = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char path[128];
	size_t n;

	ck_assert_msg(nest_file_read(AT_FDCWD, NEST_ATTACK_PROBE, 16 * MIB, &bytes, &n, &err) == 0,
		"%s", nest_err_text(&err));
	snprintf(path, sizeof(path), "%s/%s", code, file);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, bytes, n, mode, NULL), 0);
	ck_assert_int_eq(chmod(path, mode), 0);
}

static void make_host(void)
{
	snprintf(name, sizeof(name), "attack-%d-%d", runner_pid, getpid());
	snprintf(host, sizeof(host), "/tmp/nest-%s", name);
	snprintf(code, sizeof(code), "%s/code", host);
	snprintf(state, sizeof(state), "%s/state", host);
	snprintf(runtimes, sizeof(runtimes), "%s/runtimes", host);
	make_directory(host);
	make_directory(code);
	make_directory(state);
	make_directory(runtimes);
	write_file(host, "secret");
	write_file(state, "secret");
	copy_probe("probe", 0755);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(exposed); i++) {
		snprintf(exposed[i], sizeof(exposed[i]), "%s/nest-%s", exposed_parents[i], name);
		make_directory(exposed[i]);
		write_file(exposed[i], "secret");
	}
}

static void on_lost(void *arg, const struct nest_err *why)
{
	(void)arg;
	lost = true;
	fprintf(stderr, "spawner lost: %s\n", nest_err_text(why));
}

static void setup(void)
{
	static const char *const roots[] = { "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc",
		NULL };
	struct nest_sandbox_config config = {
		.instance = name,
		.state_dir = state,
		.runtimes_dir = runtimes,
		.root_paths = roots,
		.uid_count = UIDS,
		.agent_uid = getuid(),
		.agent_gid = getgid(),
		.pool_size = 1,
		.pool_size_none = 1,
		.max_cells = 8,
		.require_isolation = true,
		.spawner = NEST_BUILT_SPAWNER,
	};
	struct nest_sandbox_spawner spawner;
	struct nest_err err = NEST_ERR_INIT;

	make_host();
	uid_base = 2000000 + ((uid_t)getpid() % 100000) * 2 * UIDS; /* no two tests share one */
	config.uid_base = uid_base;
	ck_assert_msg(nest_sandbox_launch(&config, &spawner, &err) == 0, "%s", nest_err_text(&err));
	spawner_pid = spawner.pid;
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_msg(nest_sandbox_open(&loop, spawner, on_lost, NULL, &sandbox, &err) == 0, "%s",
		nest_err_text(&err));
}

/* Finds a process of the test's uids. */
static bool find_process(char *ret, size_t cap)
{
	nest_autoclosedir DIR *dir = opendir("/proc");
	const struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir))) {
		nest_autofree char *status = NULL;
		const char *line;
		char path[300];
		unsigned uid = 0;

		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		if (atoi(entry->d_name) <= 0 ||
			nest_file_read(AT_FDCWD, path, 65536, &status, NULL, NULL) < 0)
			continue;
		line = strstr(status, "\nUid:");
		if (!line || sscanf(line, "\nUid: %u", &uid) != 1)
			continue;
		if (uid >= uid_base && uid <= uid_base + UIDS) { /* the last is that of inits */
			snprintf(ret, cap, "%s", status);
			return true;
		}
	}
	return false;
}

static void expect_no_process(void)
{
	char found[1024];

	ck_assert_msg(!find_process(found, sizeof(found)), "left behind:\n%s", found);
}

static int visit_cgroup(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	ck_assert_msg(type != FTW_D || strstr(path, name) == NULL, "left behind: %s", path);
	return 0;
}

static void on_closed(void *arg)
{
	(void)arg;
	closed = true;
}

static void teardown(void)
{
	ck_assert_msg(!lost, "the spawner did not survive");
	nest_sandbox_close(sandbox, on_closed, NULL);
	await(&closed, "the end of the sandbox");
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	expect_no_process();
	nftw("/sys/fs/cgroup", visit_cgroup, 32, FTW_PHYS);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(exposed); i++)
		nest_file_remove_tree(AT_FDCWD, exposed[i], NULL);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, host, NULL), 0);
}

static void on_started(struct nest_cell *cell, pid_t pid, void *arg)
{
	(void)cell;
	((struct run *)arg)->pid = pid;
	((struct run *)arg)->started = true;
}

static void on_exited(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg)
{
	struct run *run = arg;

	(void)cell;
	run->how = *how;
	if (how->err)
		snprintf(run->why, sizeof(run->why), "%s", nest_err_text(how->err));
	run->exited = true;
}

struct plan {
	enum nest_cell_network network;
	unsigned user; /* which of the host's uids */
	int terminal;  /* what stdout is instead of a file; 0: a file */
	uint32_t cpu_milli;
	const char *args[MAX_ARGS];
};

/* Starts the attack of @plan. */
static void start(struct run *run, const struct plan *plan)
{
	static const struct nest_cell_events events = { on_started, on_exited };
	static const char *const envp[] = { "NEST_ATTACK=1", NULL };
	const char *argv[MAX_ARGS + 2] = { "/function/probe" };
	struct timeval patience = { .tv_sec = LIMIT_MS / 1000 };
	nest_autoclose int code_fd = open(code, O_DIRECTORY | O_CLOEXEC);
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int theirs = -1;
	int pair[2];
	struct nest_cell_spec spec = {
		.hostname = "cell",
		.network = plan->network,
		.uid = uid_base + plan->user,
		.memory_bytes = 64 * MIB,
		.tmp_bytes = 8 * MIB,
		.pids = PIDS,
		.cpu_milli = plan->cpu_milli,
		.nofile = FILES,
		.code_fd = code_fd,
		.argv = argv,
		.envp = envp,
	};

	*run = (struct run){ .out = memfd_create("out", MFD_CLOEXEC) };
	for (size_t i = 0; i < MAX_ARGS && plan->args[i]; i++)
		argv[i + 1] = plan->args[i];
	ck_assert_int_eq(nest_fd_socketpair(SOCK_STREAM, pair, &err), 0);
	run->channel = pair[0];
	theirs = pair[1];
	setsockopt(run->channel, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	spec.channel_fd = theirs;
	spec.stdout_fd = plan->terminal ? plan->terminal : run->out;
	spec.stderr_fd = run->out;
	ck_assert_msg(nest_cell_start(sandbox, &spec, &events, run, &run->cell, &err) == 0, "%s",
		nest_err_text(&err));
}

/* Waits for the end of @run and reads what it said. */
static void finish(struct run *run)
{
	ssize_t n;

	await(&run->exited, "the worker's end");
	n = pread(run->out, run->said, sizeof(run->said) - 1, 0);
	run->said[n > 0 ? n : 0] = '\0';
	close(run->out);
	close(run->channel);
}

static void expect_verdict(struct run *run, enum probe_verdict verdict, const char *attack)
{
	finish(run);
	ck_assert_msg(run->how.cause == NEST_CELL_EXITED && run->how.status == (int)verdict,
		"%s: cause %d, status %d, not %d; %s\n%s", attack, run->how.cause, run->how.status,
		verdict, run->why, run->said);
}

static void expect_refused(const struct plan *plan)
{
	struct run run;

	start(&run, plan);
	expect_verdict(&run, PROBE_REFUSED, plan->args[0]);
}

/* The worker's byte, if it comes in time. */
static void hear(struct run *run, const char *what)
{
	char byte;
	ssize_t n = recv(run->channel, &byte, 1, 0);

	if (n == 1)
		return;
	nest_cell_kill(run->cell);
	finish(run);
	ck_abort_msg("%s: nothing heard; cause %d, status %d; %s\n%s", what, run->how.cause,
		run->how.status, run->why, run->said);
}

static void tell(struct run *run)
{
	ck_assert_int_eq(send(run->channel, "!", 1, MSG_NOSIGNAL), 1);
}

static void start_neighbour(struct run *run, unsigned user)
{
	start(run, &(struct plan){ .user = user, .args = { "neighbour" } });
	hear(run, "the neighbour");
}

static void expect_alive(struct run *neighbour)
{
	ck_assert(!neighbour->exited);
	for (int i = 0; i < 20; i++) {
		tell(neighbour);
		hear(neighbour, "the neighbour after the attack");
	}
}

/* The neighbour ends by itself once its channel does. */
static void end_neighbour(struct run *neighbour)
{
	shutdown(neighbour->channel, SHUT_RDWR);
	expect_verdict(neighbour, PROBE_REFUSED, "neighbour");
}

static const char *const simple[] = { "mounts", "ptrace", "interfaces", "machine", "namespaces",
	"devices", "ids", "other-abis", "sockets", "terminal", "core-dumps", "priority",
	"write-outside-tmp", "write-proc", "host-files", "inheritance", "signal-init",
	"change-network" };

START_TEST(an_attack_is_refused)
{
	expect_refused(&(struct plan){ .args = { simple[_i] } });
	expect_refused(&(struct plan){
		.network = NEST_CELL_NETWORK_NONE, .user = 1, .args = { simple[_i] } });
}
END_TEST

START_TEST(a_set_uid_program_gains_nothing)
{
	copy_probe("root", 04755);
	expect_refused(&(struct plan){ .args = { "setuid-program", "/function/root" } });
}
END_TEST

START_TEST(a_terminal_is_never_handed_in)
{
	nest_autoclose int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	nest_autoclose int slave = -1;
	struct run run;

	ck_assert_int_eq(grantpt(master), 0);
	ck_assert_int_eq(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(slave, 0);
	start(&run, &(struct plan){ .terminal = slave, .args = { "terminal" } });
	finish(&run);
	ck_assert_int_eq(run.how.cause, NEST_CELL_FAILED);
	ck_assert_msg(strstr(run.why, "stdout") != NULL, "%s", run.why);
}
END_TEST

START_TEST(the_host_s_files_are_out_of_sight)
{
	struct plan plan = { .args = { "paths", host, state, code, runtimes } };
	char secret[128];
	size_t n = 5;

	snprintf(secret, sizeof(secret), "%s/secret", state);
	plan.args[n++] = secret;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(exposed); i++)
		plan.args[n++] = exposed[i];
	expect_refused(&plan);
}
END_TEST

/* Listens on a unix socket. */
static int listen_unix(const char *path, bool abstract)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t len = strlen(path);

	ck_assert_int_ge(fd, 0);
	memcpy(addr.sun_path + abstract, path, len);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr,
				 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + abstract +
					     len + !abstract)),
		0);
	ck_assert_int_eq(listen(fd, 4), 0);
	if (!abstract)
		ck_assert_int_eq(chmod(path, 0777), 0);
	return fd;
}

START_TEST(the_admin_socket_is_out_of_reach)
{
	nest_autoclose int run_fd = -1, state_fd = -1, tmp_fd = -1;
	char run_path[128], state_path[128], tmp_path[128];

	snprintf(run_path, sizeof(run_path), "%s/admin.sock", exposed[0]);
	snprintf(state_path, sizeof(state_path), "%s/admin.sock", state);
	snprintf(tmp_path, sizeof(tmp_path), "%s/admin.sock", host);
	run_fd = listen_unix(run_path, false);
	state_fd = listen_unix(state_path, false);
	tmp_fd = listen_unix(tmp_path, false);
	expect_refused(
		&(struct plan){ .args = { "unix-sockets", run_path, state_path, tmp_path } });
	expect_refused(&(struct plan){ .network = NEST_CELL_NETWORK_NONE,
		.args = { "unix-sockets", run_path, state_path, tmp_path } });
}
END_TEST

/*
 * Abstract sockets belong to the network namespace, and only Landlock stands between them and a
 * cell that shares the pod's. Where the kernel has no scopes the documents say so, as does this.
 */
START_TEST(abstract_sockets_of_the_host_and_of_neighbours_are_out_of_reach)
{
	nest_autoclose int fd = listen_unix(name, true);
	bool scoped = nest_landlock_abi() >= NEST_LANDLOCK_ABI_SCOPES;
	struct run neighbour, run;
	char theirs[48];

	snprintf(theirs, sizeof(theirs), "%s-neighbour", name);
	start(&neighbour, &(struct plan){ .args = { "listen", theirs } });
	hear(&neighbour, "the neighbour");
	start(&run, &(struct plan){ .args = { "abstract-sockets", name, theirs } });
	expect_verdict(&run, scoped ? PROBE_REFUSED : PROBE_WORKED, "abstract-sockets");
	expect_refused(&(struct plan){
		.network = NEST_CELL_NETWORK_NONE, .args = { "abstract-sockets", name, theirs } });
	end_neighbour(&neighbour);
}
END_TEST

/* A second worker of the same function has the same uid: user and file modes don't help here. */
START_TEST(a_neighbour_s_processes_are_out_of_sight)
{
	char worker[16], spawner[16], driver[16];
	struct run neighbour;

	start_neighbour(&neighbour, (unsigned)_i);
	await(&neighbour.started, "the neighbour's start");
	snprintf(worker, sizeof(worker), "%d", neighbour.pid);
	snprintf(spawner, sizeof(spawner), "%d", spawner_pid);
	snprintf(driver, sizeof(driver), "%d", getpid());
	expect_refused(&(struct plan){ .args = { "processes", worker, spawner, driver } });
	expect_refused(&(struct plan){ .args = { "neighbours-things" } });
	expect_refused(&(struct plan){ .args = { "kill-all" } });
	expect_alive(&neighbour);
	end_neighbour(&neighbour);
}
END_TEST

START_TEST(network_none_has_only_lo)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	nest_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(addr);
	char port[16];

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, len), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(port, sizeof(port), "%d", ntohs(addr.sin_port));
	expect_refused(&(struct plan){
		.network = NEST_CELL_NETWORK_NONE, .args = { "no-network", port } });
}
END_TEST

START_TEST(a_fork_bomb_stays_within_its_limit_and_leaves_the_neighbour_alone)
{
	struct run neighbour, bomb;
	char limit[16];

	start_neighbour(&neighbour, 1);
	snprintf(limit, sizeof(limit), "%u", PIDS);
	start(&bomb, &(struct plan){ .args = { "fork-bomb", limit } });
	hear(&bomb, "the fork bomb");
	expect_alive(&neighbour);
	expect_refused(&(struct plan){ .user = 2, .args = { "ids" } });
	tell(&bomb);
	expect_verdict(&bomb, PROBE_REFUSED, "fork-bomb");
	end_neighbour(&neighbour);
}
END_TEST

START_TEST(a_fork_storm_is_ended_by_kill)
{
	struct run neighbour, storm;

	start_neighbour(&neighbour, 1);
	start(&storm, &(struct plan){ .args = { "fork-storm" } });
	hear(&storm, "the fork storm");
	expect_alive(&neighbour);
	nest_cell_kill(storm.cell);
	finish(&storm);
	ck_assert_int_eq(storm.how.cause, NEST_CELL_KILLED);
	end_neighbour(&neighbour);
	expect_no_process();
}
END_TEST

static const char *const hogs[] = { "memory", "memfd" };

START_TEST(a_memory_hog_is_killed_for_it_and_its_neighbour_is_not)
{
	struct run neighbour, hog;

	start_neighbour(&neighbour, 1);
	start(&hog, &(struct plan){ .args = { hogs[_i], "256" } });
	finish(&hog);
	ck_assert_msg(hog.how.cause == NEST_CELL_OOM, "%s: cause %d, status %d; %s\n%s", hogs[_i],
		hog.how.cause, hog.how.status, hog.why, hog.said);
	expect_alive(&neighbour);
	end_neighbour(&neighbour);
}
END_TEST

START_TEST(scratch_space_inodes_and_descriptors_are_bounded)
{
	char nofile[16];

	snprintf(nofile, sizeof(nofile), "%u", FILES);
	expect_refused(&(struct plan){ .args = { "fill-tmp", TMP_MIB } });
	expect_refused(&(struct plan){ .args = { "fill-inodes", "20000" } });
	expect_refused(&(struct plan){ .args = { "descriptors", nofile } });
}
END_TEST

START_TEST(cpu_time_is_rationed)
{
	expect_refused(&(struct plan){ .cpu_milli = 200, .args = { "spin", "200" } });
}
END_TEST

START_TEST(nothing_outlives_its_cell)
{
	expect_refused(&(struct plan){ .args = { "outlive" } });
	expect_no_process();
}
END_TEST

START_TEST(a_worker_that_stops_itself_and_ignores_signals_is_ended_by_kill)
{
	struct run run;

	start(&run, &(struct plan){ .args = { "stubborn" } });
	hear(&run, "the stubborn worker");
	nest_cell_kill(run.cell);
	finish(&run);
	ck_assert_int_eq(run.how.cause, NEST_CELL_KILLED);
	expect_no_process();
}
END_TEST

/* A test that failed ended where it failed: takes away the files that it left. */
static void sweep(const char *parent)
{
	nest_autoclosedir DIR *dir = opendir(parent);
	const struct dirent *entry;
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "nest-attack-%d-", runner_pid);
	while (dir && (entry = readdir(dir)))
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
			nest_file_remove_tree(dirfd(dir), entry->d_name, NULL);
}

int main(void)
{
	Suite *suite = suite_create("attack");
	TCase *tcase = tcase_create("cells");
	SRunner *runner = srunner_create(suite);
	int failed;

	runner_pid = getpid();
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 4.0 * LIMIT_MS / 1000);
	tcase_add_loop_test(tcase, an_attack_is_refused, 0, NEST_ARRAY_SIZE(simple));
	tcase_add_test(tcase, a_set_uid_program_gains_nothing);
	tcase_add_test(tcase, a_terminal_is_never_handed_in);
	tcase_add_test(tcase, the_host_s_files_are_out_of_sight);
	tcase_add_test(tcase, the_admin_socket_is_out_of_reach);
	tcase_add_test(tcase, abstract_sockets_of_the_host_and_of_neighbours_are_out_of_reach);
	tcase_add_loop_test(tcase, a_neighbour_s_processes_are_out_of_sight, 0, 2);
	tcase_add_test(tcase, network_none_has_only_lo);
	tcase_add_test(tcase, a_fork_bomb_stays_within_its_limit_and_leaves_the_neighbour_alone);
	tcase_add_test(tcase, a_fork_storm_is_ended_by_kill);
	tcase_add_loop_test(tcase, a_memory_hog_is_killed_for_it_and_its_neighbour_is_not, 0,
		NEST_ARRAY_SIZE(hogs));
	tcase_add_test(tcase, scratch_space_inodes_and_descriptors_are_bounded);
	tcase_add_test(tcase, cpu_time_is_rationed);
	tcase_add_test(tcase, nothing_outlives_its_cell);
	tcase_add_test(tcase, a_worker_that_stops_itself_and_ignores_signals_is_ended_by_kill);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	sweep("/tmp");
	for (size_t i = 0; i < NEST_ARRAY_SIZE(exposed_parents); i++)
		sweep(exposed_parents[i]);
	return failed != 0;
}
