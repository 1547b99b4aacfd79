/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_CHECK_H
#define NEST_AGENT_CHECK_H

#include <stdbool.h>

/*
 * Tries this machine's features and prints them, as a table or as JSON (nestletd --check). Returns
 * the exit code: 1 if something required is missing. Blocks for seconds.
 */
int nest_check_run(bool json);

#endif
