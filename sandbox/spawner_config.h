/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_CONFIG_H
#define NEST_SANDBOX_SPAWNER_CONFIG_H

struct nest_err;
struct nest_sandbox_config;

/*
 * The sandbox's config on its way into the spawner's program, through a file in memory. Both ends are
 * of one build: what isn't is refused.
 */

/* Writes @config to a new file, which the caller owns. Any thread. */
int nest_spawner_config_write(
	const struct nest_sandbox_config *config, int *ret_fd, struct nest_err *err);

/*
 * Reads it from @fd (borrowed). The array of root paths is the caller's; the strings live as long as the
 * process.
 */
int nest_spawner_config_read(int fd, struct nest_sandbox_config *ret, struct nest_err *err);

#endif
