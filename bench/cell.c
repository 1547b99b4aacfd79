/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cell costs: from the request to its program being executed, and to its end, held against
 * a plain fork and exec of the same program in the same run, and against bwrap where it is
 * installed.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sandbox/sandbox.h"

#define PROGRAM "/bin/true"
#define AT_ONCE 8 /* cells alive together while the rate is measured */

struct series {
	uint64_t *us;
	size_t n;
};

struct outcome {
	struct series exec; /* request to executed program */
	struct series end;  /* request to everything gone */
	double rate;	    /* a second, AT_ONCE at once */
};

struct options {
	size_t rounds;
	FILE *json;
};

static void die(const char *what, const struct nest_err *err)
{
	fprintf(stderr, "bench/cell: %s: %s\n", what, err ? nest_err_text(err) : strerror(errno));
	exit(EXIT_FAILURE);
}

static void add(struct series *series, uint64_t us)
{
	uint64_t *more = realloc(series->us, (series->n + 1) * sizeof(*more));

	if (!more)
		die("keep a measurement", NULL);
	series->us = more;
	series->us[series->n++] = us;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double quantile_ms(struct series *series, unsigned percent)
{
	if (series->n == 0)
		return 0;
	qsort(series->us, series->n, sizeof(*series->us), compare);
	return (double)series->us[(series->n - 1) * percent / 100] / 1000;
}

/* ---- cells ---- */

struct bench {
	uv_loop_t loop;
	struct nest_sandbox *sandbox;
	struct nest_cell_spec spec;
	struct outcome *outcome; /* NULL while only the rate counts */
	size_t to_start;
	size_t alive;
	size_t at_once;
	uint32_t wanted_prepared; /* cells that the pool must hold before the next start */
	uint64_t began;
	uv_timer_t again;
};

static void start_some(struct bench *bench);

static void on_again(uv_timer_t *timer)
{
	start_some(timer->data);
}

static void on_started(struct nest_cell *cell, pid_t pid, void *arg)
{
	struct bench *bench = arg;

	(void)cell;
	(void)pid;
	if (bench->outcome)
		add(&bench->outcome->exec, nest_clock_mono_us() - bench->began);
}

static void on_exited(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg)
{
	struct bench *bench = arg;

	(void)cell;
	if (how->cause != NEST_CELL_EXITED || how->status != 0)
		die("run a cell", how->err);
	if (bench->outcome)
		add(&bench->outcome->end, nest_clock_mono_us() - bench->began);
	bench->alive--;
	start_some(bench);
}

static void start_some(struct bench *bench)
{
	static const struct nest_cell_events events = { on_started, on_exited };
	struct nest_err err = NEST_ERR_INIT;
	struct nest_cell *cell;

	if (bench->to_start > 0 && nest_sandbox_prepared(bench->sandbox) < bench->wanted_prepared) {
		uv_timer_start(&bench->again, on_again, 1, 0);
		return;
	}
	while (bench->to_start > 0 && bench->alive < bench->at_once) {
		bench->began = nest_clock_mono_us();
		if (nest_cell_start(bench->sandbox, &bench->spec, &events, bench, &cell, &err) < 0)
			die("start a cell", &err);
		bench->to_start--;
		bench->alive++;
	}
	if (bench->to_start == 0 && bench->alive == 0)
		uv_stop(&bench->loop);
}

static void run_cells(struct bench *bench, size_t rounds, size_t at_once, struct outcome *outcome)
{
	bench->outcome = outcome;
	bench->to_start = rounds;
	bench->at_once = at_once;
	start_some(bench);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
}

static void on_lost(void *arg, const struct nest_err *why)
{
	(void)arg;
	die("the spawner", why);
}

static void on_closed(void *arg)
{
	struct bench *bench = arg;

	uv_close((uv_handle_t *)&bench->again, NULL);
}

static void open_sandbox(struct bench *bench, const char *state_dir, uint32_t pool)
{
	static const char *const roots[] = { "/usr", "/bin", "/lib", "/lib64", "/etc", NULL };
	char instance[32];
	struct nest_sandbox_config config = {
		.instance = instance,
		.state_dir = state_dir,
		.runtimes_dir = "/usr",
		.root_paths = roots,
		.uid_base = 700000,
		.uid_count = 1,
		.agent_uid = getuid(),
		.agent_gid = getgid(),
		.pool_size = pool,
		.max_cells = 64,
		.spawner = NEST_BUILT_SPAWNER,
	};
	struct nest_sandbox_spawner spawner;
	struct nest_err err = NEST_ERR_INIT;

	snprintf(instance, sizeof(instance), "bench-%d", getpid());
	if (nest_sandbox_launch(&config, &spawner, &err) < 0)
		die("launch", &err);
	uv_loop_init(&bench->loop);
	uv_timer_init(&bench->loop, &bench->again);
	bench->again.data = bench;
	if (nest_sandbox_open(&bench->loop, spawner, on_lost, NULL, &bench->sandbox, &err) < 0)
		die("open", &err);
	if (nest_sandbox_missing(bench->sandbox)[0])
		fprintf(stderr, "bench/cell: cells here do without\n%s\n",
			nest_sandbox_missing(bench->sandbox));
}

static void measure_cells(
	const struct options *options, const char *state_dir, uint32_t pool, struct outcome *ret)
{
	static const char *const argv[] = { PROGRAM, NULL };
	static const char *const envp[] = { NULL };
	struct bench bench = { .wanted_prepared = pool };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int code = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int channel[2];
	uint64_t began;

	if (null < 0 || code < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0)
		die("open what a cell gets", NULL);
	open_sandbox(&bench, state_dir, pool);
	bench.spec = (struct nest_cell_spec){
		.hostname = "bench",
		.uid = 700000,
		.memory_bytes = 64u << 20,
		.tmp_bytes = 16u << 20,
		.pids = 8,
		.cpu_milli = 1000,
		.nofile = 64,
		.code_fd = code,
		.channel_fd = channel[0],
		.stdout_fd = null,
		.stderr_fd = null,
		.argv = argv,
		.envp = envp,
	};
	run_cells(&bench, options->rounds, 1, ret);
	bench.wanted_prepared = 0;
	began = nest_clock_mono_us();
	run_cells(&bench, options->rounds, AT_ONCE, NULL);
	ret->rate = (double)options->rounds * 1e6 / (double)(nest_clock_mono_us() - began);
	nest_sandbox_close(bench.sandbox, on_closed, &bench);
	uv_run(&bench.loop, UV_RUN_DEFAULT);
	uv_loop_close(&bench.loop);
	close(null);
	close(code);
	close(channel[0]);
	close(channel[1]);
}

/* ---- plain processes ---- */

/* Forks @argv; returns when it has been executed. */
static pid_t spawn(const char *const *argv)
{
	int report[2];
	char byte;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0)
		die("make a pipe", NULL);
	pid = fork();
	if (pid < 0)
		die("fork", NULL);
	if (pid == 0) {
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(report[1]);
	if (read(report[0], &byte, 1) < 0)
		die("await exec", NULL);
	close(report[0]);
	return pid;
}

static void await(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		die("run a plain process", NULL);
}

static void measure_processes(const struct options *options, const char *const *argv,
	bool exec_counts, struct outcome *ret)
{
	uint64_t began;

	for (size_t i = 0; i < options->rounds; i++) {
		pid_t pid;

		began = nest_clock_mono_us();
		pid = spawn(argv);
		if (exec_counts)
			add(&ret->exec, nest_clock_mono_us() - began);
		await(pid);
		add(&ret->end, nest_clock_mono_us() - began);
	}
	began = nest_clock_mono_us();
	for (size_t done = 0; done < options->rounds; done += AT_ONCE) {
		pid_t pids[AT_ONCE];

		for (size_t i = 0; i < AT_ONCE; i++)
			pids[i] = spawn(argv);
		for (size_t i = 0; i < AT_ONCE; i++)
			await(pids[i]);
	}
	ret->rate = (double)options->rounds * 1e6 / (double)(nest_clock_mono_us() - began);
}

/* ---- results ---- */

static void put(const struct options *options, const char *test, const char *variant,
	const char *metric, double value, const char *unit)
{
	if (options->json)
		fprintf(options->json,
			"{\"bench\":\"cell\",\"case\":\"%s\",\"variant\":\"%s\",\"metric\":\"%s\","
			"\"value\":%.3f,\"unit\":\"%s\"}\n",
			test, variant, metric, value, unit);
}

static void report(const struct options *options, const char *variant, struct outcome *outcome)
{
	double exec50 = quantile_ms(&outcome->exec, 50);
	double exec90 = quantile_ms(&outcome->exec, 90);
	double end50 = quantile_ms(&outcome->end, 50);
	double end90 = quantile_ms(&outcome->end, 90);

	if (outcome->exec.n > 0)
		printf("%-14s %9.2f %9.2f", variant, exec50, exec90);
	else
		printf("%-14s %9s %9s", variant, "-", "-");
	printf(" %9.2f %9.2f %10.0f\n", end50, end90, outcome->rate);
	if (outcome->exec.n > 0) {
		put(options, "exec", variant, "p50", exec50, "ms");
		put(options, "exec", variant, "p90", exec90, "ms");
	}
	put(options, "exit", variant, "p50", end50, "ms");
	put(options, "exit", variant, "p90", end90, "ms");
	put(options, "rate", variant, "rps", outcome->rate, "1/s");
	free(outcome->exec.us);
	free(outcome->end.us);
}

static void parse(int argc, char **argv, struct options *ret)
{
	static const struct option known[] = {
		{ "json", required_argument, NULL, 'j' },
		{ "rounds", required_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "j:n:", known, NULL)) >= 0) {
		if (c == 'j') {
			ret->json = fopen(optarg, "we");
			if (!ret->json)
				die(optarg, NULL);
		} else if (c == 'n') {
			ret->rounds = strtoul(optarg, NULL, 10);
		} else {
			ret->rounds = 0;
		}
	}
	if (ret->rounds == 0) {
		fprintf(stderr, "usage: cell [--json FILE] [--rounds N]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const char *const plain[] = { PROGRAM, NULL };
	static const char *const bwrap[] = { "/usr/bin/bwrap", "--unshare-pid", "--unshare-ipc",
		"--unshare-uts", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc",
		"--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink",
		"usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
		PROGRAM, NULL };
	char state_dir[] = "/tmp/nestlet-bench-XXXXXX";
	struct options options = { .rounds = 300 };
	struct outcome pool = { .rate = 0 };
	struct outcome cold = { .rate = 0 };
	struct outcome floor = { .rate = 0 };
	struct outcome peer = { .rate = 0 };

	parse(argc, argv, &options);
	if (!mkdtemp(state_dir))
		die("make a directory", NULL);
	printf("%-14s %9s %9s %9s %9s %10s\n", "variant", "exec p50", "exec p90", "end p50",
		"end p90", "per second");
	printf("%-14s %9s %9s %9s %9s %10s\n", "", "ms", "ms", "ms", "ms", "8 at once");
	measure_processes(&options, plain, true, &floor);
	report(&options, "floor", &floor);
	measure_cells(&options, state_dir, 8, &pool);
	report(&options, "nestlet", &pool);
	measure_cells(&options, state_dir, 0, &cold);
	report(&options, "nestlet-cold", &cold);
	if (access(bwrap[0], X_OK) == 0) {
		/* what bwrap executes is itself first: only its end says anything */
		measure_processes(&options, bwrap, false, &peer);
		report(&options, "bwrap", &peer);
	}
	rmdir(state_dir);
	if (options.json)
		fclose(options.json);
	return EXIT_SUCCESS;
}
