/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SPAWNER_EXCHANGE_H
#define NEST_SANDBOX_SPAWNER_EXCHANGE_H

#include <sys/types.h>

#include "sandbox/message.h"
#include "sandbox/snapshot_pack.h"

struct nest_err;
struct nest_spawner;

/*
 * Snapshots that go to other hosts and come from them (snapshot_pack.h), one at a time, in a child: it
 * reads and writes gigabytes.
 */
struct nest_spawner_exchange {
	struct nest_snapshot_pack_secret secret;
	pid_t child; /* 0: none */
	int result;
	char key[NEST_MESSAGE_KEY_CHARS + 1];
	char draft[32]; /* of an import; "" */
};

/* Begins what @request asks for, @fd borrowed. Failures are told to the agent. */
void nest_spawner_exchange_begin(
	struct nest_spawner *spawner, const struct nest_message_dump *request, int fd);

/* The child has something to say, or has ended: tells the agent. */
void nest_spawner_exchange_hear(struct nest_spawner *spawner);

#endif
