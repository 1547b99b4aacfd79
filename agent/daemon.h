/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_DAEMON_H
#define NEST_AGENT_DAEMON_H

struct nest_config;
struct nest_err;

/* The nestletd command line. */
struct nest_daemon_options {
	const char *config_file; /* NULL: the default one if it exists, else all defaults */
	int ready_fd;		 /* told "READY=1"; -1: none */
};

/* Exit codes of nestletd, as nestletd(8) lists them. */
enum nest_daemon_exit {
	NEST_DAEMON_OK = 0,	/* drained */
	NEST_DAEMON_FAILED = 1, /* could not start, or lost its spawner */
	NEST_DAEMON_USAGE = 2,	/* wrong command line or config */
};

/*
 * Loads the config that @options name; the caller frees *@ret. *@ret_file (unless that is NULL) is the
 * file, or NULL where there is none. Blocks on the disk.
 */
int nest_daemon_load_config(const struct nest_daemon_options *options, const char **ret_file,
	struct nest_config **ret, struct nest_err *err);

/*
 * Runs the host until it has drained: loads the config, launches the spawner, drops privileges, serves.
 * Returns the exit code; what went wrong has been logged.
 */
int nest_daemon_run(const struct nest_daemon_options *options);

#endif
