/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"

int nest_fd_socketpair(int type, int ret_fds[2], struct nest_err *err)
{
	int fds[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
		return nest_err_set(err, -errno, "make a socket pair");
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	return 0;
}

int nest_fd_pipe(int flags, int ret_fds[2], struct nest_err *err)
{
	int fds[2];

	if (pipe2(fds, flags | O_CLOEXEC) < 0)
		return nest_err_set(err, -errno, "make a pipe");
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	return 0;
}

int nest_fd_write_all(int fd, const void *bytes, size_t n, struct nest_err *err)
{
	const char *at = bytes;

	while (n > 0) {
		ssize_t done = write(fd, at, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return nest_err_set(err, -errno, "write %zu bytes", n);
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

int nest_fd_pwrite_all(int fd, const void *bytes, size_t n, uint64_t offset, struct nest_err *err)
{
	const char *at = bytes;

	while (n > 0) {
		ssize_t done = pwrite(fd, at, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return nest_err_set(err, done < 0 ? -errno : -EIO, "write %zu bytes", n);
		at += done;
		n -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void nest_fd_close_but(int *keep, size_t n)
{
	unsigned from = 3;

	qsort(keep, n, sizeof(*keep), compare);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < 3)
			continue;
		if ((unsigned)keep[i] > from)
			close_range(from, (unsigned)keep[i] - 1, 0);
		from = (unsigned)keep[i] + 1;
	}
	close_range(from, ~0u, 0);
}

int nest_fd_set_nonblock(int fd, int on, struct nest_err *err)
{
	int flags = fcntl(fd, F_GETFL);
	int wanted;

	if (flags < 0)
		return nest_err_set(err, -errno, "read the flags of descriptor %d", fd);
	wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	if (wanted != flags && fcntl(fd, F_SETFL, wanted) < 0)
		return nest_err_set(
			err, -errno, "make descriptor %d %s", fd, on ? "non-blocking" : "blocking");
	return 0;
}

/* Room for the control message; the union gives it the alignment of its header. */
union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * NEST_FD_MAX_PASSED)];
};

static void put_fds(struct msghdr *msg, union control *control, const int *fds, size_t nfds)
{
	struct cmsghdr *cmsg = &control->align; /* the first one, right at the front */

	memset(control, 0, sizeof(*control));
	msg->msg_control = control->bytes;
	msg->msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
	memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
}

int nest_fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t nfds)
{
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t sent;

	if (n == 0 || nfds > NEST_FD_MAX_PASSED)
		return -EINVAL;
	if (nfds > 0)
		put_fds(&msg, &control, fds, nfds);
	do
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	return (size_t)sent == n ? 0 : -EMSGSIZE;
}

/*
 * Stores the descriptors that came with @msg, and closes those beyond @max. The kernel rounds the
 * room for them up, so that more may come than were asked for. Returns whether all fitted.
 */
static bool take_fds(struct msghdr *msg, int *fds, size_t max, size_t *count)
{
	bool fitted = true;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t came;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		came = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < came; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (*count < max) {
				fds[(*count)++] = fd;
			} else {
				close(fd);
				fitted = false;
			}
		}
	}
	return fitted;
}

ssize_t nest_fd_recv(int sock, void *bytes, size_t cap, int *fds, size_t max_fds, size_t *ret_nfds)
{
	struct iovec iov = { .iov_base = bytes, .iov_len = cap };
	union control control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	size_t count = 0;
	ssize_t got;
	bool whole;

	*ret_nfds = 0;
	do
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	whole = take_fds(&msg, fds, max_fds, &count) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
	/* a message without bytes can't be told from the end of the stream, whatever it carries */
	if (got > 0 && whole) {
		*ret_nfds = count;
		return got;
	}
	while (count > 0)
		close(fds[--count]);
	return whole ? 0 : -EMSGSIZE;
}
