/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/features.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/feature.h"

struct nest_features {
	pid_t pid; /* of the child; 0 once it was reaped */
	int fd;	   /* the rows as struct nest_feature, then end of file */
	uv_poll_t poll;
	bool polling;
	void (*cb)(void *arg);
	void *arg;
	struct nest_buf bytes;
	struct nest_feature_row *rows;
	size_t nrows;
};

/* The outside's view of @n features, in one block with their text. NULL: no memory. */
static struct nest_feature_row *rows_of(const struct nest_feature *features, size_t n)
{
	struct nest_feature_row *rows = malloc(n * (sizeof(*rows) + sizeof(*features)) + 1);
	struct nest_feature *copy = (struct nest_feature *)(rows ? rows + n : NULL);

	if (!rows)
		return NULL;
	memcpy(copy, features, n * sizeof(*features));
	for (size_t i = 0; i < n; i++)
		rows[i] = (struct nest_feature_row){ .name = copy[i].name,
			.yes = copy[i].yes,
			.required = copy[i].required,
			.detail = copy[i].detail,
			.remedy = copy[i].remedy };
	return rows;
}

int nest_features_probe(const struct nest_feature_wish *wish, struct nest_feature_row **ret,
	size_t *ret_n, struct nest_err *err)
{
	nest_autofree struct nest_feature *features = NULL;
	size_t n;
	int r = nest_feature_probe(wish, &features, &n, err);

	if (r < 0)
		return r;
	*ret = rows_of(features, n);
	if (!*ret)
		return nest_err_set(err, -ENOMEM, "list features");
	*ret_n = n;
	return 0;
}

#define CHILD_FD 3

static _Noreturn void probe_run(const struct nest_feature_wish *wish)
{
	struct nest_feature *features;
	size_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (nest_feature_probe(wish, &features, &n, NULL) == 0)
		nest_fd_write_all(CHILD_FD, features, n * sizeof(*features), NULL);
	_exit(0);
}

/*
 * The parent death signal of an agent that has dropped its privileges does not reach a child that
 * has not. So the child watches the pipe's reader, and has another one probe that goes with it.
 */
static _Noreturn void child_run(const struct nest_feature_wish *wish, int fd)
{
	struct pollfd polled[] = { { .fd = CHILD_FD }, { .fd = -1, .events = POLLIN } };
	pid_t prober;

	/* above all the lock of the state directory: it must not outlive the agent */
	if ((fd != CHILD_FD && dup2(fd, CHILD_FD) < 0) || close_range(CHILD_FD + 1, ~0u, 0) < 0)
		_exit(1);
	setpriority(PRIO_PROCESS, 0, 19);
	prober = fork();
	if (prober == 0)
		probe_run(wish);
	if (prober > 0)
		polled[1].fd = pidfd_open(prober, 0);
	/* without a pidfd to wait for there is nothing to watch meanwhile */
	while (polled[1].fd >= 0 && poll(polled, NEST_ARRAY_SIZE(polled), -1) < 0)
		continue;
	if (polled[0].revents)
		kill(prober, SIGKILL);
	if (prober > 0)
		waitpid(prober, NULL, 0);
	_exit(0);
}

int nest_features_start(
	const struct nest_feature_wish *wish, struct nest_features **ret, struct nest_err *err)
{
	struct nest_features *features = calloc(1, sizeof(*features));
	int fds[2], r;

	if (!features)
		return nest_err_set(err, -ENOMEM, "try this machine's features");
	r = nest_fd_pipe(0, fds, err);
	if (r < 0) {
		free(features);
		return r;
	}
	features->fd = fds[0];
	features->pid = fork();
	if (features->pid == 0)
		child_run(wish, fds[1]);
	close(fds[1]);
	if (features->pid < 0) {
		r = nest_err_set(err, -errno, "fork to try this machine's features");
		close(fds[0]);
		free(features);
		return r;
	}
	*ret = features;
	return 0;
}

/*
 * An agent that has dropped its privileges can't end a child that has not: then it is left to end as
 * the pipe's reader goes.
 */
static void child_reap(struct nest_features *features, bool end_it)
{
	int flags = end_it && features->pid > 0 && kill(features->pid, SIGKILL) != 0 ? WNOHANG : 0;

	if (features->pid <= 0)
		return;
	/* it closed its pipe as its last act, or was just killed: this does not block for long */
	while (waitpid(features->pid, NULL, flags) < 0 && errno == EINTR)
		;
	features->pid = 0;
}

static void take_rows(struct nest_features *features)
{
	size_t n = features->bytes.len / sizeof(struct nest_feature);

	if (n > 0)
		features->rows =
			rows_of((const struct nest_feature *)nest_buf_bytes(&features->bytes), n);
	features->nrows = features->rows ? n : 0;
	nest_buf_done(&features->bytes);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct nest_features *features = poll->data;
	char *room;
	ssize_t n = -1;

	(void)events;
	if (status == 0 && nest_buf_reserve(&features->bytes, 16384, &room) == 0)
		n = read(features->fd, room, 16384);
	if (n > 0) {
		nest_buf_commit(&features->bytes, (size_t)n);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	uv_poll_stop(poll);
	take_rows(features);
	child_reap(features, n < 0);
	features->cb(features->arg);
}

int nest_features_open(struct nest_features *features, uv_loop_t *loop, void (*cb)(void *arg),
	void *arg, struct nest_err *err)
{
	int r = nest_fd_set_nonblock(features->fd, 1, err);

	if (r < 0)
		return r;
	r = uv_poll_init(loop, &features->poll, features->fd);
	if (r < 0)
		return nest_err_set(err, r, "wait for this machine's features");
	features->polling = true;
	features->cb = cb;
	features->arg = arg;
	features->poll.data = features;
	uv_poll_start(&features->poll, UV_READABLE, on_readable);
	uv_unref((uv_handle_t *)&features->poll);
	return 0;
}

const struct nest_feature_row *nest_features_rows(
	const struct nest_features *features, size_t *ret_n)
{
	*ret_n = features->nrows;
	return features->rows;
}

static void features_free(struct nest_features *features)
{
	close(features->fd);
	nest_buf_done(&features->bytes);
	free(features->rows);
	free(features);
}

static void on_closed(uv_handle_t *handle)
{
	features_free(handle->data);
}

void nest_features_close(struct nest_features *features)
{
	if (!features)
		return;
	child_reap(features, true);
	if (!features->polling) {
		features_free(features);
		return;
	}
	uv_poll_stop(&features->poll);
	uv_close((uv_handle_t *)&features->poll, on_closed);
}
