/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_DAEMON_H
#define NEST_AGENT_DAEMON_H

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
 * Runs the host until it has drained: loads the config, launches the spawner, drops privileges, serves.
 * Returns the exit code; what went wrong has been logged.
 */
int nest_daemon_run(const struct nest_daemon_options *options);

#endif
