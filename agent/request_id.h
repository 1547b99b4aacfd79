/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REQUEST_ID_H
#define NEST_AGENT_REQUEST_ID_H

#include <stdbool.h>
#include <stddef.h>

#define NEST_REQUEST_ID_MAX 128 /* bytes, without the NUL */

/* Random bytes drawn ahead, so that an id costs no system call. Zeroed storage has none yet. */
struct nest_request_id_source {
	unsigned char bytes[2048];
	size_t left;
};

/* Whether a caller's id may be taken over: 1 to 128 visible ASCII characters. Any thread. */
bool nest_request_id_valid(const char *id, size_t n);

/* Writes a random UUID (RFC 9562 version 4) and a NUL. Blocks only where getrandom(2) does. */
void nest_request_id_make(struct nest_request_id_source *source, char ret_id[37]);

#endif
