/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ready.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

struct nest_ready {
	int fd;
	int sock; /* connected to NOTIFY_SOCKET, or -1 */
};

static int notify_connect(const char *name, int *ret, struct nest_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	nest_autoclose int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	size_t n = strlen(name);

	if (sock < 0)
		return nest_err_set(err, -errno, "open a socket for NOTIFY_SOCKET");
	if ((name[0] != '/' && name[0] != '@') || n >= sizeof(addr.sun_path))
		return nest_err_say(err, -EINVAL,
			"NOTIFY_SOCKET is '%s': it must be an absolute path or '@' and a name, "
			"shorter than 108 bytes",
			name);
	memcpy(addr.sun_path, name, n);
	if (name[0] == '@')
		addr.sun_path[0] = '\0';
	if (connect(sock, (const struct sockaddr *)&addr,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) != 0)
		return nest_err_set(err, -errno, "connect to NOTIFY_SOCKET '%s'", name);
	*ret = nest_take_fd(sock);
	return 0;
}

int nest_ready_new(int fd, struct nest_ready **ret, struct nest_err *err)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct nest_ready *ready;
	int sock = -1, r;

	if (fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return nest_err_set(err, -errno, "use descriptor %d given with --ready-fd", fd);
	if (name && *name) {
		r = notify_connect(name, &sock, err);
		if (r < 0)
			return r;
	}
	unsetenv("NOTIFY_SOCKET");
	ready = calloc(1, sizeof(*ready));
	if (!ready) {
		if (sock >= 0)
			close(sock);
		return nest_err_set(err, -ENOMEM, "prepare readiness");
	}
	ready->fd = fd;
	ready->sock = sock;
	*ret = ready;
	return 0;
}

void nest_ready_tell(struct nest_ready *ready, const char *line)
{
	/* the reader's troubles are not the host's: a lost line is all that can happen */
	if (ready->sock >= 0)
		(void)!send(ready->sock, line, strlen(line), MSG_NOSIGNAL);
	if (ready->fd < 0)
		return;
	(void)!write(ready->fd, line, strlen(line));
	(void)!write(ready->fd, "\n", 1);
	if (strcmp(line, "READY=1") == 0) {
		close(ready->fd);
		ready->fd = -1;
	}
}

void nest_ready_free(struct nest_ready *ready)
{
	if (!ready)
		return;
	if (ready->fd >= 0)
		close(ready->fd);
	if (ready->sock >= 0)
		close(ready->sock);
	free(ready);
}
