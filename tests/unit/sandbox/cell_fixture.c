/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/sandbox/cell_fixture.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define PATIENCE_MS 10000

static const char *const roots[] = { "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", NULL };

static void make_dir(char *ret, size_t cap, const char *parent, const char *name)
{
	snprintf(ret, cap, "%s/%s", parent, name);
	ck_assert_int_eq(mkdir(ret, 0755), 0);
}

void cell_fixture_init(struct cell_fixture *fixture)
{
	char path[128];

	memset(fixture, 0, sizeof(*fixture));
	snprintf(fixture->instance, sizeof(fixture->instance), "test-%d", getpid());
	snprintf(fixture->dir, sizeof(fixture->dir), "/var/tmp/nestlet-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fixture->dir));
	ck_assert_int_eq(chmod(fixture->dir, 0755), 0);
	make_dir(fixture->state_dir, sizeof(fixture->state_dir), fixture->dir, "state");
	make_dir(fixture->code_dir, sizeof(fixture->code_dir), fixture->dir, "code");
	make_dir(fixture->runtimes_dir, sizeof(fixture->runtimes_dir), fixture->dir, "runtimes");
	snprintf(path, sizeof(path), "%s/hello", fixture->code_dir);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, "world\n", 6, 0644, NULL), 0);
	snprintf(path, sizeof(path), "%s/secret", fixture->state_dir);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, "s\n", 2, 0644, NULL), 0);
	fixture->config = (struct nest_sandbox_config){
		.instance = fixture->instance,
		.state_dir = fixture->state_dir,
		.runtimes_dir = fixture->runtimes_dir,
		.root_paths = roots,
		.uid_base = 712000,
		.uid_count = 1000,
		.agent_uid = getuid(),
		.agent_gid = getgid(),
		.max_cells = 16,
		.require_isolation = true,
		.spawner = NEST_BUILT_SPAWNER,
	};
}

static void on_lost(void *arg, const struct nest_err *why)
{
	struct cell_fixture *fixture = arg;

	ck_assert(!fixture->lost);
	fixture->lost = true;
	fixture->why = *why;
}

void cell_fixture_open(struct cell_fixture *fixture)
{
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_sandbox_launch(&fixture->config, &fixture->spawner, &err);

	ck_assert_msg(r == 0, "launch: %s", nest_err_text(&err));
	ck_assert_int_eq(uv_loop_init(&fixture->loop), 0);
	r = nest_sandbox_open(
		&fixture->loop, fixture->spawner, on_lost, fixture, &fixture->sandbox, &err);
	ck_assert_msg(r == 0, "open: %s", nest_err_text(&err));
}

static void on_closed(void *arg)
{
	struct cell_fixture *fixture = arg;

	fixture->closed = true;
}

void cell_fixture_close(struct cell_fixture *fixture)
{
	char name[64];

	nest_sandbox_close(fixture->sandbox, on_closed, fixture);
	cell_fixture_await(fixture, &fixture->closed);
	ck_assert_int_eq(uv_run(&fixture->loop, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_close(&fixture->loop), 0);
	/* the spawner has been reaped */
	ck_assert_int_eq(kill(fixture->spawner.pid, 0), -1);
	ck_assert_int_eq(errno, ESRCH);
	snprintf(name, sizeof(name), "nestlet-%s", fixture->instance);
	if (!fixture->lost)
		ck_assert_uint_eq(cell_fixture_cgroups(name), 0);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, fixture->dir, NULL), 0);
}

struct nest_cell_spec cell_fixture_spec(const char *const *argv)
{
	static const char *const envp[] = { "PATH=/usr/bin:/bin", "LANG=C", NULL };

	return (struct nest_cell_spec){
		.hostname = "cell-under-test",
		.uid = CELL_FIXTURE_UID,
		.memory_bytes = 128u << 20,
		.tmp_bytes = 2u << 20,
		.pids = 32,
		.cpu_milli = 1500,
		.nofile = 100,
		.argv = argv,
		.envp = envp,
		.code_fd = -1,
		.channel_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
	};
}

static void on_started(struct nest_cell *cell, pid_t pid, void *arg)
{
	struct cell_run *run = arg;

	ck_assert_ptr_eq(cell, run->cell);
	ck_assert(!run->started && !run->exited);
	run->started = true;
	run->pid = pid;
}

static void on_exited(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg)
{
	struct cell_run *run = arg;
	size_t len = 0;
	ssize_t n;

	ck_assert_ptr_eq(cell, run->cell);
	ck_assert(!run->exited);
	ck_assert_int_eq(how->err != NULL, how->cause == NEST_CELL_FAILED);
	run->exited = true;
	run->cause = how->cause;
	run->status = how->status;
	run->peak = how->memory_peak_bytes;
	run->cpu_us = how->cpu_us;
	if (how->err)
		run->err = *how->err;
	/* all writers are gone with the cell */
	while ((n = read(run->output, run->text + len, sizeof(run->text) - 1 - len)) > 0)
		len += (size_t)n;
	run->text[len] = '\0';
	close(run->output);
}

int cell_fixture_start(
	struct cell_fixture *fixture, const struct nest_cell_spec *spec, struct cell_run *run)
{
	static const struct nest_cell_events events = { on_started, on_exited };
	struct nest_cell_spec full = *spec;
	int output[2];
	int channel[2];
	int code;
	int r;

	memset(run, 0, sizeof(*run));
	ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
	code = open(fixture->code_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(code, 0);
	if (full.code_fd < 0)
		full.code_fd = code;
	if (full.channel_fd < 0)
		full.channel_fd = channel[1];
	if (full.stdout_fd < 0)
		full.stdout_fd = output[1];
	if (full.stderr_fd < 0)
		full.stderr_fd = output[1];
	run->fixture = fixture;
	run->output = output[0];
	r = nest_cell_start(fixture->sandbox, &full, &events, run, &run->cell, &run->err);
	close(output[1]);
	close(channel[0]);
	close(channel[1]);
	close(code);
	if (r < 0)
		close(output[0]);
	return r;
}

static void on_timeout(uv_timer_t *timer)
{
	(void)timer;
	ck_abort_msg("nothing happened for %d ms", PATIENCE_MS);
}

void cell_fixture_await(struct cell_fixture *fixture, const bool *flag)
{
	uv_timer_t timer;

	uv_timer_init(&fixture->loop, &timer);
	uv_timer_start(&timer, on_timeout, PATIENCE_MS, 0);
	while (!*flag)
		uv_run(&fixture->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

void cell_fixture_run(
	struct cell_fixture *fixture, const struct nest_cell_spec *spec, struct cell_run *run)
{
	int r = cell_fixture_start(fixture, spec, run);

	ck_assert_msg(r == 0, "start: %s", nest_err_text(&run->err));
	cell_fixture_await(fixture, &run->exited);
}

void cell_fixture_shell(struct cell_fixture *fixture, const char *script, struct cell_run *run)
{
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	cell_fixture_run(fixture, &spec, run);
}

static const char *wanted_name;
static unsigned found;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	size_t len = strlen(path);
	size_t wanted = strlen(wanted_name);

	(void)st;
	(void)ftw;
	if (type == FTW_D && len > wanted && path[len - wanted - 1] == '/' &&
		strcmp(path + len - wanted, wanted_name) == 0)
		found++;
	return 0;
}

unsigned cell_fixture_cgroups(const char *name)
{
	wanted_name = name;
	found = 0;
	nftw("/sys/fs/cgroup", visit, 32, FTW_PHYS);
	return found;
}

void cell_fixture_await_death(pid_t pid)
{
	int fd = pidfd_open(pid, 0);
	struct pollfd polled = { .fd = fd, .events = POLLIN };

	if (fd < 0) {
		ck_assert_int_eq(errno, ESRCH);
		return;
	}
	ck_assert_int_eq(poll(&polled, 1, PATIENCE_MS), 1);
	close(fd);
}

bool cell_fixture_has_v2_alone(void)
{
	return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}

/* Where the hierarchy of @controller is mounted, and @pid's path in it. */
static void cgroup_path(pid_t pid, const char *controller, char *ret, size_t cap)
{
	char path[64];
	char line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	ret[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		char *names = strchr(line, ':') + 1;
		char *below = strchr(names, ':') + 1;

		below[-1] = '\0';
		below[strcspn(below, "\n")] = '\0';
		if (cell_fixture_has_v2_alone())
			snprintf(ret, cap, "/sys/fs/cgroup%s", below);
		else if (strcmp(*names ? names : "unified", controller) == 0)
			snprintf(ret, cap, "/sys/fs/cgroup/%s%s", controller, below);
	}
	fclose(file);
	ck_assert_msg(ret[0] != '\0', "no hierarchy has '%s'", controller);
}

uint64_t cell_fixture_cgroup_value(pid_t pid, const char *controller, const char *file)
{
	char path[1024];
	char dir[768];
	char *text = NULL;
	uint64_t value;

	cgroup_path(pid, controller, dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	ck_assert_int_eq(nest_file_read(AT_FDCWD, path, 4096, &text, NULL, NULL), 0);
	value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

static bool is_frozen(const char *dir)
{
	char path[1024];
	char *text = NULL;
	bool frozen;

	snprintf(path, sizeof(path), "%s/cgroup.events", dir);
	ck_assert_int_eq(nest_file_read(AT_FDCWD, path, 4096, &text, NULL, NULL), 0);
	frozen = strstr(text, "frozen 1") != NULL;
	free(text);
	return frozen;
}

void cell_fixture_await_frozen(pid_t pid)
{
	char dir[768];

	/* a hybrid machine's v2 hierarchy has no controllers, and so no name */
	cgroup_path(pid, cell_fixture_has_v2_alone() ? "" : "unified", dir, sizeof(dir));
	for (int ms = 0; ms < PATIENCE_MS; ms += 5) {
		if (is_frozen(dir))
			return;
		usleep(5000);
	}
	ck_abort_msg("process %d is not frozen", pid);
}

unsigned cell_fixture_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

unsigned cell_fixture_lines(const char *path)
{
	char *text = NULL;
	unsigned n = 0;

	ck_assert_int_eq(nest_file_read(AT_FDCWD, path, 1 << 20, &text, NULL, NULL), 0);
	for (char *at = text; *at; at++)
		n += *at == '\n';
	free(text);
	return n;
}
