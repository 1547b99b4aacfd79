/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_H
#define NEST_SANDBOX_SPAWNER_H

#include <sys/types.h>

struct nest_sandbox_config;

/*
 * The life of the spawner, in the child that nest_sandbox_launch() forked from @agent: sets itself
 * up, tells READY over @sock, serves requests until the agent is gone, leaves nothing behind, and
 * exits. Never returns.
 */
_Noreturn void nest_spawner_run(const struct nest_sandbox_config *config, int sock, pid_t agent);

#endif
