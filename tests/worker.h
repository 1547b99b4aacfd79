/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_WORKER_H
#define NEST_TESTS_WORKER_H

#include <stdint.h>
#include <string.h>

/*
 * The worker's side of docs/worker-protocol.md, for workers in C that tests run. Of its own, not the
 * host's: numbers that changed there would no longer be understood here.
 */
#define WORKER_CHANNEL 3
#define WORKER_HEAD 12
#define WORKER_FIN 1

enum {
	WORKER_HELLO = 1,
	WORKER_INIT,
	WORKER_READY,
	WORKER_REQUEST,
	WORKER_RESPONSE,
	WORKER_BODY,
	WORKER_ERROR,
	WORKER_MORE,
	WORKER_CANCEL,
	WORKER_LOG,
	WORKER_PING,
	WORKER_PONG,
	WORKER_DRAIN,
	WORKER_CHECKPOINT,
	WORKER_RESTORED
};

/* Writes the head of a frame with @length bytes of payload. */
static inline void worker_put_head(char ret[WORKER_HEAD], uint32_t length, unsigned char type,
	unsigned char flags, uint32_t stream)
{
	memset(ret, 0, WORKER_HEAD);
	memcpy(ret, &length, 4);
	ret[4] = (char)type;
	ret[5] = (char)flags;
	memcpy(ret + 8, &stream, 4);
}

#endif
