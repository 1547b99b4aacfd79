/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_FD_H
#define NEST_BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;

#define NEST_FD_MAX_PASSED 8 /* descriptors in one message */

/*
 * Makes a connected pair of unix sockets of @type (SOCK_STREAM, SOCK_SEQPACKET), close-on-exec;
 * SOCK_NONBLOCK may be or-ed in. The caller owns both. Any thread.
 */
int nest_fd_socketpair(int type, int ret_fds[2], struct nest_err *err);

/* Makes a close-on-exec pipe; O_NONBLOCK may be in @flags. The caller owns both. Any thread. */
int nest_fd_pipe(int flags, int ret_fds[2], struct nest_err *err);

/* Writes all of @n bytes, retrying short writes and EINTR. Blocks on @fd. Any thread. */
int nest_fd_write_all(int fd, const void *bytes, size_t n, struct nest_err *err);

/* The same at @offset of a file, whose own offset stays where it is. */
int nest_fd_pwrite_all(int fd, const void *bytes, size_t n, uint64_t offset, struct nest_err *err);

/*
 * Closes all descriptors above 2 but the @n in @keep, which it sorts: what a child should have of its
 * parent's. For processes with one thread.
 */
void nest_fd_close_but(int *keep, size_t n);

/* Turns O_NONBLOCK on or off. Any thread. */
int nest_fd_set_nonblock(int fd, int on, struct nest_err *err);

/*
 * Sends one message of @n bytes (at least 1) with @nfds descriptors (borrowed, at most
 * NEST_FD_MAX_PASSED) over a unix socket, without SIGPIPE. 0, or -errno (-EAGAIN: a non-blocking
 * socket is full, nothing was sent; -EMSGSIZE: more than the socket takes at once, and if it is a
 * stream, a part went: close it). Any thread.
 */
int nest_fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t nfds);

/*
 * Receives one message of up to @cap bytes and up to @max_fds descriptors, which arrive
 * close-on-exec and belong to the caller; *@ret_nfds says how many. Returns the byte count, 0 at
 * end of stream, -errno otherwise; -EMSGSIZE when bytes or descriptors did not fit (those that
 * came are closed). Any thread.
 */
ssize_t nest_fd_recv(int sock, void *bytes, size_t cap, int *fds, size_t max_fds, size_t *ret_nfds);

#endif
