/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "runtime/wire.h"

/* One turn's share: a worker that writes without end must not keep the loop from the others. */
#define TURN_BYTES 65536u

struct nest_output {
	uv_poll_t poll;
	struct nest_wire *wire;
	int fd;
	int stream;
	void (*bytes)(void *arg, int stream, const char *bytes, size_t n);
	void *arg;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* 0 at the end of the pipe, or when there is nothing now. */
static size_t read_some(struct nest_output *output)
{
	size_t size;
	char *scratch = nest_wire_scratch(output->wire, &size);
	ssize_t n = read(output->fd, scratch, size < TURN_BYTES ? size : TURN_BYTES);

	if (n > 0)
		output->bytes(output->arg, output->stream, scratch, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		uv_poll_stop(&output->poll);
	return n > 0 ? (size_t)n : 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	read_some(poll->data);
}

int nest_output_adopt(uv_loop_t *loop, struct nest_wire *wire,
	void (*bytes)(void *arg, int stream, const char *bytes, size_t n), void *arg, int stream,
	int fd, struct nest_output **ret, struct nest_err *err)
{
	nest_autofree struct nest_output *output = calloc(1, sizeof(*output));
	int r;

	if (!output)
		return nest_err_set(err, -ENOMEM, "open a worker's output");
	r = uv_poll_init(loop, &output->poll, fd); /* makes it non-blocking: our end only */
	if (r < 0)
		return nest_err_set(err, r, "watch a worker's output");
	output->poll.data = output;
	output->wire = wire;
	output->fd = fd;
	output->stream = stream;
	output->bytes = bytes;
	output->arg = arg;
	uv_poll_start(&output->poll, UV_READABLE, on_poll);
	*ret = nest_take_ptr(output);
	return 0;
}

int nest_output_open(uv_loop_t *loop, struct nest_wire *wire,
	void (*bytes)(void *arg, int stream, const char *bytes, size_t n), void *arg, int stream,
	struct nest_output **ret, int *ret_fd, struct nest_err *err)
{
	nest_autoclose int theirs = -1;
	nest_autoclose int ours = -1;
	int fds[2], r;

	r = nest_fd_pipe(0, fds, err);
	if (r < 0)
		return r;
	ours = fds[0];
	theirs = fds[1];
	r = nest_output_adopt(loop, wire, bytes, arg, stream, ours, ret, err);
	if (r < 0)
		return r;
	(void)nest_take_fd(ours);
	*ret_fd = nest_take_fd(theirs);
	return 0;
}

void nest_output_finish(struct nest_output *output)
{
	/* A pipe holds a bounded rest, and nobody is left to add to it. */
	while (read_some(output) > 0)
		;
}

static void on_closed(uv_handle_t *handle)
{
	struct nest_output *output = handle->data;
	void (*cb)(void *arg) = output->closed;
	void *arg = output->closed_arg;

	close(output->fd);
	free(output);
	cb(arg);
}

void nest_output_close(struct nest_output *output, void (*cb)(void *arg), void *arg)
{
	output->closed = cb;
	output->closed_arg = arg;
	uv_close((uv_handle_t *)&output->poll, on_closed);
}
