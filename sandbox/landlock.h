/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_LANDLOCK_H
#define NEST_SANDBOX_LANDLOCK_H

struct nest_err;

/* The first Landlock ABI that has scopes: Linux 6.12. */
#define NEST_LANDLOCK_ABI_SCOPES 6

/* The Landlock ABI of the kernel; 0 where it has none or has it switched off. Any thread. */
int nest_landlock_abi(void);

/* nest_landlock_confine(): the kernel has no scopes; nothing was done. */
#define NEST_LANDLOCK_ABSENT 1

/*
 * Scopes abstract unix sockets and signals: the calling thread, and what it starts from now on, can
 * connect and send only to abstract sockets made inside, and signal only processes inside.
 * A cell that shares the pod's network needs it, since abstract sockets belong to the network
 * namespace, where no mount and no uid guards them. Sets no_new_privs. Four system calls, no
 * allocation and no descriptor left: meant for a forked child, before the seccomp filter, which
 * refuses Landlock to workers. Mounting is not hindered. NEST_LANDLOCK_ABSENT is no error. Any
 * thread.
 *
 * Best entered by a cell's init, so that all of the cell is one domain. CRIU knows no domains: it
 * restores a process into the domain of the CRIU that does it, and to dump one it makes the process
 * connect to an abstract socket, which fails (and kills the process) if CRIU runs outside of the
 * process's domain. Within one domain both work.
 */
int nest_landlock_confine(struct nest_err *err);

#endif
