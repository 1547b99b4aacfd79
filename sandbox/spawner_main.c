/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program of the spawner, which nest_sandbox_launch() starts with the agent's socket and the
 * config as descriptors. It is one of its own so that the process with privilege, and PID 1 of every
 * cell, which is forked from it, consist of what is in this directory and four libraries: no
 * downloader, no archive reader, no TLS, and an address space laid out unlike the agent's.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "sandbox/message.h"
#include "sandbox/privilege.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawner.h"
#include "sandbox/spawner_config.h"

static _Noreturn void end(const struct nest_err *err)
{
	struct nest_message_ready ready = { .err = *err };

	nest_message_begin(&ready.head, NEST_MESSAGE_READY, sizeof(ready), 0);
	nest_message_send(NEST_SPAWNER_SOCKET, &ready);
	exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	struct nest_sandbox_config config;
	struct nest_err err = NEST_ERR_INIT;
	char *rest = NULL;
	long agent = argc == 3 ? strtol(argv[1], &rest, 10) : 0;

	if (agent <= 0 || *rest || fcntl(NEST_SPAWNER_SOCKET, F_SETFD, FD_CLOEXEC) < 0) {
		fprintf(stderr, "nestlet-spawner: nestletd starts this, nobody else can\n");
		return 2;
	}
	if (nest_spawner_config_read(NEST_SPAWNER_CONFIG, &config, &err) < 0 ||
		nest_privilege_limit(strtoull(argv[2], NULL, 16), &err) < 0)
		end(&err);
	nest_spawner_run(&config, NEST_SPAWNER_SOCKET, (pid_t)agent);
}
