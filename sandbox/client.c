/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

static void free_pending(struct nest_client_pending *pending)
{
	for (size_t i = 0; i < pending->nfds; i++)
		close(pending->fds[i]);
	free(pending);
}

static void want_writable(struct nest_sandbox *sandbox, bool wanted)
{
	if (sandbox->writable_wanted == wanted || sandbox->over)
		return;
	sandbox->writable_wanted = wanted;
	uv_poll_start(
		&sandbox->socket, UV_READABLE | (wanted ? UV_WRITABLE : 0), sandbox->on_socket);
}

static int keep_for_later(struct nest_sandbox *sandbox, const void *message, const int *fds,
	size_t nfds, struct nest_err *err)
{
	const struct nest_message_head *head = message;
	struct nest_client_pending *pending = malloc(sizeof(*pending) + head->size);
	struct nest_client_pending **end = &sandbox->pending;

	if (!pending)
		return nest_err_set(err, -ENOMEM, "queue a request to the spawner");
	*pending = (struct nest_client_pending){ .size = head->size };
	memcpy(pending->bytes, message, head->size);
	for (; pending->nfds < nfds; pending->nfds++) {
		int copy = fcntl(fds[pending->nfds], F_DUPFD_CLOEXEC, 0);

		if (copy < 0) {
			int r = nest_err_set(err, -errno, "copy a descriptor for the spawner");

			free_pending(pending);
			return r;
		}
		pending->fds[pending->nfds] = copy;
	}
	while (*end)
		end = &(*end)->next;
	*end = pending;
	want_writable(sandbox, true);
	return 0;
}

int nest_client_send(struct nest_sandbox *sandbox, const void *message, const int *fds, size_t nfds,
	struct nest_err *err)
{
	const struct nest_message_head *head = message;
	int r = -EAGAIN;

	if (sandbox->over || sandbox->closing)
		return nest_err_say(err, -EPIPE, "the spawner is lost");
	if (!sandbox->pending)
		r = nest_fd_send(sandbox->fd, message, head->size, fds, nfds);
	if (r == -EAGAIN)
		return keep_for_later(sandbox, message, fds, nfds, err);
	if (r == -EPIPE || r == -ECONNRESET)
		return nest_err_say(err, -EPIPE, "the spawner is lost");
	return r < 0 ? nest_err_set(err, r, "send to the spawner") : 0;
}

void nest_client_send_pending(struct nest_sandbox *sandbox)
{
	while (sandbox->pending) {
		struct nest_client_pending *first = sandbox->pending;
		int r = nest_fd_send(
			sandbox->fd, first->bytes, first->size, first->fds, first->nfds);

		/* any other failure shows when the socket is read */
		if (r == -EAGAIN)
			return;
		sandbox->pending = first->next;
		free_pending(first);
	}
	want_writable(sandbox, false);
}

void nest_client_drop_pending(struct nest_sandbox *sandbox)
{
	while (sandbox->pending) {
		struct nest_client_pending *first = sandbox->pending;

		sandbox->pending = first->next;
		free_pending(first);
	}
}

void nest_client_break(struct nest_sandbox *sandbox, const struct nest_err *why)
{
	if (sandbox->why.code == 0)
		sandbox->why = *why;
	shutdown(sandbox->fd, SHUT_RDWR);
}
