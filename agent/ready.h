/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_READY_H
#define NEST_AGENT_READY_H

struct nest_err;

/*
 * Tells whoever started the host how it is doing, in sd_notify(3)'s words ("READY=1",
 * "STOPPING=1", "RELOADING=1"), one a line: to the socket named in $NOTIFY_SOCKET (a path, or '@' and
 * an abstract name), and to the descriptor given with --ready-fd. Neither being there is fine. A
 * listener that is full or gone is not waited for.
 */
struct nest_ready;

/* Takes @fd (-1: none). Reads NOTIFY_SOCKET and removes it from the environment. Before privileges are dropped. */
int nest_ready_new(int fd, struct nest_ready **ret, struct nest_err *err);

/* Sends one line; "READY=1" also closes the descriptor, so that a reader sees end of file. */
void nest_ready_tell(struct nest_ready *ready, const char *line);

void nest_ready_free(struct nest_ready *ready); /* NULL is fine */

#endif
