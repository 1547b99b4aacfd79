/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_SANDBOX_CELL_FIXTURE_H
#define NEST_TESTS_UNIT_SANDBOX_CELL_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "base/err.h"
#include "sandbox/sandbox.h"

#define CELL_FIXTURE_UID 712345
#define CELL_FIXTURE_OUTPUT 65536

/* A real spawner with real cells, for one test. */
struct cell_fixture {
	char instance[32];
	char dir[64]; /* holds the three below */
	char state_dir[96];
	char code_dir[96];
	char runtimes_dir[96];
	struct nest_sandbox_config config;
	struct nest_sandbox_spawner spawner;
	uv_loop_t loop;
	struct nest_sandbox *sandbox;
	bool lost;
	bool closed;
	struct nest_err why;
};

/* One run of a cell. */
struct cell_run {
	struct cell_fixture *fixture;
	struct nest_cell *cell;
	int output; /* the pipe's read end */
	bool started;
	bool exited;
	pid_t pid;
	enum nest_cell_cause cause;
	int status;
	uint64_t peak;
	uint64_t cpu_us;
	struct nest_err err;
	char text[CELL_FIXTURE_OUTPUT];
};

/* Makes the directories and a config with an empty pool. */
void cell_fixture_init(struct cell_fixture *fixture);

/* Launches and opens; fails the test if that fails. */
void cell_fixture_open(struct cell_fixture *fixture);

/* Closes, and fails the test unless nothing is left: no process, no cgroup. */
void cell_fixture_close(struct cell_fixture *fixture);

/* A spec that runs @argv with small limits. The descriptors are filled in by cell_fixture_start(). */
struct nest_cell_spec cell_fixture_spec(const char *const *argv);

/* Starts; @run is told of all. Returns what nest_cell_start() returned. */
int cell_fixture_start(
	struct cell_fixture *fixture, const struct nest_cell_spec *spec, struct cell_run *run);

/* Runs the loop until *@flag; fails the test after ten seconds. */
void cell_fixture_await(struct cell_fixture *fixture, const bool *flag);

/* Starts @script in /bin/sh and waits for its end; its output is in run->text. */
void cell_fixture_shell(struct cell_fixture *fixture, const char *script, struct cell_run *run);

/* Starts @spec and waits for its end. */
void cell_fixture_run(
	struct cell_fixture *fixture, const struct nest_cell_spec *spec, struct cell_run *run);

/* How many cgroup directories on this machine have this name, or end in these two. */
unsigned cell_fixture_cgroups(const char *name);

/* Waits until process @pid (no child of ours) has ended; fails the test after ten seconds. */
void cell_fixture_await_death(pid_t pid);

/* Whether v2 is the machine's only cgroup hierarchy, so that it has all the controllers. */
bool cell_fixture_has_v2_alone(void);

/* Reads @file of @pid's cgroup as a number; on v1 of that under @controller. */
uint64_t cell_fixture_cgroup_value(pid_t pid, const char *controller, const char *file);

/* Waits until the kernel says that all of @pid's v2 cgroup is frozen; fails after ten seconds. */
void cell_fixture_await_frozen(pid_t pid);

/* How many entries directory @path has. */
unsigned cell_fixture_entries(const char *path);

/* How many lines file @path has. */
unsigned cell_fixture_lines(const char *path);

#endif
