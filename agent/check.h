/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_CHECK_H
#define NEST_AGENT_CHECK_H

#include <stdbool.h>

struct nest_daemon_options;

/*
 * Tries this machine's features and prints them, as a table or as JSON (nestletd --check): what the
 * daemon with @options would have. Returns the exit code: 1 if something required is missing.
 * Blocks for seconds.
 */
int nest_check_run(const struct nest_daemon_options *options, bool json);

#endif
