/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_H
#define NEST_SANDBOX_SPAWNER_H

#include <signal.h>
#include <sys/types.h>

struct nest_sandbox_config;

/* What the spawner's program (sandbox/spawner_main.c) finds open. Its arguments are the agent's pid, and
 * the capabilities that it may have (hexadecimal). */
#define NEST_SPAWNER_SOCKET 3 /* the agent's */
#define NEST_SPAWNER_CONFIG 4 /* sandbox/spawner_config.h */

/*
 * What ends the spawner in an orderly way: its parent's death, or that a mounted image could be
 * written to. Not SIGKILL: that would leave no time to remove cgroups. A real-time signal, which
 * nothing sends by habit.
 */
#define NEST_SPAWNER_ENDING SIGRTMIN

/*
 * The life of the spawner, a child of @agent that nest_sandbox_launch() started: sets itself
 * up, tells READY over @sock, serves requests until the agent is gone, leaves nothing behind, and
 * exits. Never returns.
 */
_Noreturn void nest_spawner_run(const struct nest_sandbox_config *config, int sock, pid_t agent);

#endif
