/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CRIU_RPC_H
#define NEST_SANDBOX_CRIU_RPC_H

#include <stdint.h>
#include <sys/types.h>

struct nest_err;

/*
 * A CRIU that was started as "criu swrk <fd>" serves requests on that socket, a datagram each, in
 * the form of CRIU's own rpc.proto. Any thread; all block on the socket.
 */

/* In the order of the worker's descriptors 3, 1, 2. */
enum nest_criu_rpc_wire {
	NEST_CRIU_RPC_CHANNEL,
	NEST_CRIU_RPC_STDOUT,
	NEST_CRIU_RPC_STDERR,
	NEST_CRIU_RPC_WIRES,
};

/*
 * How to execute CRIU. One with a libc of its own is started through its ld.so, not by its launching
 * script: a shell whose real user isn't its effective one gives the effective one up.
 */
struct nest_criu_rpc_program {
	char path[256];
	char libraries[256]; /* "": @path is CRIU itself; else @path is its ld.so */
	char binary[256];    /* CRIU itself, in any case */
	/*
	 * Of libraries that come before those, where @libraries has some, or "": they stand in for what
	 * CRIU never calls here (see sandbox/criu_standins). Who empties it has CRIU start without.
	 */
	char standins[256];
};

/*
 * Finds the CRIU at @wanted, a program or a prefix that tools/install-deps has filled; with NULL or ""
 * the one at the prefix that it fills by itself, or else in the usual places. Stand-ins are of a prefix,
 * and root's alone to write; others are left out. -ENOENT: there is none.
 */
int nest_criu_rpc_find(const char *wanted, struct nest_criu_rpc_program *ret, struct nest_err *err);

/*
 * Executes CRIU as a worker that serves @sock and holds @wires (-1: none) as descriptors
 * NEST_CRIU_RPC_WIRE_FD + i, and @images (-1: none) as NEST_CRIU_RPC_IMAGES_FD; @log (-1: none) takes
 * what it writes to its standard error, its errors. All other descriptors are closed. Returns only if
 * that fails: -errno.
 */
#define NEST_CRIU_RPC_SOCKET_FD 3
#define NEST_CRIU_RPC_IMAGES_FD 4
#define NEST_CRIU_RPC_WIRE_FD 5
int nest_criu_rpc_become(const struct nest_criu_rpc_program *program, int sock, int images,
	const int wires[NEST_CRIU_RPC_WIRES], int log);

/*
 * Replaces @err's text by the first error in CRIU's @log that is a cause: it complains of its own
 * descriptor limit and of a missing /dev/net/tun every time, and goes on. Keeps it where there is none.
 */
void nest_criu_rpc_name_cause(const char *log, struct nest_err *err);

/* Where CRIU keeps what it finds out about the kernel; it is complete as soon as it is there. */
#define NEST_CRIU_RPC_FINDINGS "/run/criu.kdat"

/*
 * Asks for a feature, so that all of the kernel's features are detected before the real request. Takes
 * CRIU a millisecond of CPU time even where there is nothing to detect any more.
 */
int nest_criu_rpc_prime(int sock, struct nest_err *err);

/* Waits for the answer to that. */
int nest_criu_rpc_await_primed(int sock, struct nest_err *err);

/* Where a dump's errors are, among the images. */
#define NEST_CRIU_RPC_LOG "dump.log"

/*
 * Dumps process @pid of CRIU's pid namespace into descriptor NEST_CRIU_RPC_IMAGES_FD and ends it.
 * @channel_ino is its channel's inode. CRIU's errors are in NEST_CRIU_RPC_LOG there. @pidfd: of the
 * CRIU behind @sock, whose end then ends the waiting (-EPIPE); -1: the end of all who have its socket does.
 */
int nest_criu_rpc_dump(int sock, int pidfd, pid_t pid, uint64_t channel_ino, struct nest_err *err);

/* By which number the images of a snapshot call wire @i; the kernel's own, but for these, are larger. */
#define NEST_CRIU_RPC_WIRE_INO(i) (1u + (unsigned)(i))

/*
 * Asks to restore what lies in directory @images, a descriptor of the process that made @sock, which is
 * PID 1 for CRIU. The restorer's own wires take the places of those with NEST_CRIU_RPC_WIRE_INO().
 */
int nest_criu_rpc_restore(int sock, int images, struct nest_err *err);

/* Waits for the answer to that. *@ret_pid is the root task's, a child of the restorer's parent. */
int nest_criu_rpc_await_restored(int sock, pid_t *ret_pid, struct nest_err *err);

#endif
