/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "sandbox/client.h"
#include "sandbox/criu_rpc.h"
#include "sandbox/footing.h"
#include "sandbox/message.h"
#include "sandbox/privilege.h"
#include "sandbox/spawner.h"
#include "sandbox/spawner_config.h"

#define PROGRAM "nestlet-spawner"
#define INSTANCE_MAX 32
#define POOL_MAX 256
#define CELLS_MAX 4096
#define READS_PER_TURN 128 /* then the loop's other work has its turn */

static int check_instance(const char *name, struct nest_err *err)
{
	size_t len = name ? strlen(name) : 0;
	size_t good = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;

	if (len == 0 || len > INSTANCE_MAX || good != len)
		return nest_err_say(err, -EINVAL,
			"instance must have 1 to %d characters of a-z, 0-9 and '-'", INSTANCE_MAX);
	return 0;
}

/* Paths go into mounts: so they are absolute, not the root itself, and free of "..". */
static int check_path(const char *name, const char *path, struct nest_err *err)
{
	if (!path || path[0] != '/' || path[1] == '\0' || strlen(path) >= PATH_MAX)
		return nest_err_say(err, -EINVAL, "%s '%s' must be an absolute path below '/'",
			name, path ? path : "");
	for (const char *at = path; *at; at++)
		if (strncmp(at, "/..", 3) == 0 && (at[3] == '/' || at[3] == '\0'))
			return nest_err_say(err, -EINVAL, "%s '%s' must not hold '..'", name, path);
	return 0;
}

/* What a cell has of its own would be mounted over, or would hide, such a root path. */
static int check_root_path(const char *path, struct nest_err *err)
{
	static const char *const own[] = { "/dev", "/function", "/proc", "/runtime", "/snapshot",
		"/sys", "/tmp" };
	int r = check_path("root path", path, err);

	for (size_t i = 0; r == 0 && i < NEST_ARRAY_SIZE(own); i++) {
		size_t n = strlen(own[i]);

		if (strncmp(path, own[i], n) == 0 && (path[n] == '/' || path[n] == '\0'))
			r = nest_err_say(err, -EINVAL,
				"root path '%s' must not lie in '%s', which cells have of their "
				"own",
				path, own[i]);
	}
	return r;
}

static int check_config(const struct nest_sandbox_config *config, struct nest_err *err)
{
	int r = check_instance(config->instance, err);

	if (r == 0)
		r = check_path("state directory", config->state_dir, err);
	if (r == 0)
		r = check_path("runtimes directory", config->runtimes_dir, err);
	for (const char *const *path = config->root_paths; r == 0 && *path; path++)
		r = check_root_path(*path, err);
	if (r < 0)
		return r;
	if (config->uid_base == 0 || config->uid_count == 0 ||
		config->uid_count > UINT32_MAX - 1 - config->uid_base)
		return nest_err_say(err, -EINVAL,
			"uids [%u, %u + %u] must lie above 0 and below 2^32 - 1", config->uid_base,
			config->uid_base, config->uid_count);
	if (config->pool_size > POOL_MAX || config->pool_size_none > POOL_MAX)
		return nest_err_say(err, -EINVAL, "a pool has at most %d cells", POOL_MAX);
	if (config->max_cells == 0 || config->max_cells > CELLS_MAX)
		return nest_err_say(err, -EINVAL, "cells must be from 1 to %d", CELLS_MAX);
	return 0;
}

static void free_terms(struct nest_sandbox_terms *terms)
{
	if (terms)
		free(terms->runtimes_dir);
	free(terms);
}

static struct nest_sandbox_terms *make_terms(const struct nest_sandbox_config *config)
{
	struct nest_sandbox_terms *terms = calloc(1, sizeof(*terms));

	if (!terms)
		return NULL;
	terms->max_cells = config->max_cells;
	terms->uids.base = config->uid_base;
	terms->uids.count = config->uid_count;
	terms->runtimes_dir = strdup(config->runtimes_dir);
	if (!terms->runtimes_dir) {
		free_terms(terms);
		return NULL;
	}
	return terms;
}

/* Waits for the first word of the spawner. */
static int await_ready(int fd, struct nest_sandbox_terms *terms, struct nest_err *err)
{
	nest_autofree union nest_message *message = malloc(sizeof(*message));
	size_t nfds = 0;
	ssize_t n;
	int r;

	if (!message)
		return nest_err_set(err, -ENOMEM, "await the spawner");
	n = nest_fd_recv(fd, message, sizeof(*message), NULL, 0, &nfds);
	if (n <= 0)
		return nest_err_say(err, n < 0 ? (int)n : -EPIPE, "the spawner died at its start");
	r = nest_message_check(message, (size_t)n, NEST_MESSAGE_READY, sizeof(message->ready), err);
	if (r < 0)
		return r;
	if (message->ready.err.code < 0) {
		*err = message->ready.err;
		return err->code;
	}
	terms->have = message->ready.have;
	memcpy(terms->missing, message->ready.missing, sizeof(terms->missing));
	memcpy(terms->no_snapshots, message->ready.no_snapshots, sizeof(terms->no_snapshots));
	memcpy(terms->criu, message->ready.criu, sizeof(terms->criu));
	terms->criu[sizeof(terms->criu) - 1] = '\0';
	memcpy(terms->no_images, message->ready.no_images, sizeof(terms->no_images));
	terms->no_images[sizeof(terms->no_images) - 1] = '\0';
	terms->zstd_images = message->ready.zstd_images == 1;
	return 0;
}

bool nest_sandbox_zstd_images(const struct nest_sandbox_spawner *spawner)
{
	return spawner->terms->zstd_images;
}

const char *nest_sandbox_no_images(const struct nest_sandbox_spawner *spawner)
{
	return spawner->terms->no_images;
}

/* The spawner's program: the one beside this one, as in a build directory, or that was installed. */
static void find_program(char ret[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - sizeof(PROGRAM));

	while (n > 0 && ret[n - 1] != '/')
		n--;
	if (n > 0) {
		strcpy(ret + n, PROGRAM);
		if (access(ret, X_OK) == 0)
			return;
	}
	strcpy(ret, NEST_PKGLIBEXECDIR "/" PROGRAM);
}

/* In the child: puts the two descriptors where they are looked for, and becomes @program. */
static _Noreturn void run_program(const char *program, int sock, int config, pid_t agent)
{
	struct nest_message_ready failed = { .err = NEST_ERR_INIT };
	char pid[16];
	char privilege[20];
	const char *argv[] = { PROGRAM, pid, privilege, NULL };
	int high;

	snprintf(pid, sizeof(pid), "%d", (int)agent);
	/* what the agent has given up is not to come back */
	snprintf(
		privilege, sizeof(privilege), "%llx", (unsigned long long)nest_privilege_hand_on());
	/* out of each other's way first */
	sock = fcntl(sock, F_DUPFD_CLOEXEC, NEST_SPAWNER_CONFIG + 1);
	high = fcntl(config, F_DUPFD_CLOEXEC, NEST_SPAWNER_CONFIG + 1);
	if (dup2(sock, NEST_SPAWNER_SOCKET) >= 0 && dup2(high, NEST_SPAWNER_CONFIG) >= 0 &&
		close_range(NEST_SPAWNER_CONFIG + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
		execve(program, (char *const *)argv, environ);
	nest_err_set(&failed.err, -errno, "start '%s'", program);
	nest_message_begin(&failed.head, NEST_MESSAGE_READY, sizeof(failed), 0);
	nest_message_send(sock, &failed);
	_exit(EXIT_FAILURE);
}

/* The spawner's pid, or -errno. */
static pid_t start_program(const struct nest_sandbox_config *config, int sock, struct nest_err *err)
{
	nest_autoclose int file = -1;
	char program[PATH_MAX];
	pid_t agent = getpid();
	pid_t pid;
	int r = nest_spawner_config_write(config, &file, err);

	if (r < 0)
		return r;
	if (config->spawner)
		snprintf(program, sizeof(program), "%s", config->spawner);
	else
		find_program(program);
	pid = fork();
	if (pid == 0)
		run_program(program, sock, file, agent);
	return pid < 0 ? nest_err_set(err, -errno, "fork") : pid;
}

int nest_sandbox_launch(const struct nest_sandbox_config *config, struct nest_sandbox_spawner *ret,
	struct nest_err *err)
{
	struct nest_sandbox_terms *terms;
	int pair[2];
	pid_t pid;
	int r = check_config(config, err);

	if (r == 0)
		r = nest_fd_socketpair(SOCK_SEQPACKET, pair, err);
	if (r < 0)
		return nest_err_wrap(err, "launch the spawner");
	terms = make_terms(config);
	pid = terms ? start_program(config, pair[1], err)
		    : nest_err_set(err, -ENOMEM, "remember the config");
	r = pid > 0 ? 0 : pid;
	close(pair[1]);
	if (r == 0)
		r = await_ready(pair[0], terms, err);
	if (r == 0)
		r = nest_fd_set_nonblock(pair[0], 1, err);
	if (r < 0) {
		close(pair[0]);
		if (pid > 0)
			waitpid(pid, NULL, 0);
		free_terms(terms);
		return nest_err_wrap(err, "launch the spawner");
	}
	*ret = (struct nest_sandbox_spawner){ .fd = pair[0], .pid = pid, .terms = terms };
	return 0;
}

void nest_sandbox_dismiss(struct nest_sandbox_spawner *spawner)
{
	close(spawner->fd);
	waitpid(spawner->pid, NULL, 0);
	free_terms(spawner->terms);
	*spawner = (struct nest_sandbox_spawner){ .fd = -1, .pid = -1 };
}

/* ---- the end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct nest_sandbox *sandbox = handle->data;

	if (--sandbox->open_handles > 0)
		return;
	close(sandbox->fd);
	close(sandbox->pidfd);
	free_terms(sandbox->terms);
	nest_image_orphan_all(sandbox);
	sandbox->on_closed(sandbox->closed_arg);
	free(sandbox);
}

static void close_handles(struct nest_sandbox *sandbox)
{
	if (sandbox->handles_closed)
		return;
	sandbox->handles_closed = true;
	uv_close((uv_handle_t *)&sandbox->socket, on_handle_closed);
	uv_close((uv_handle_t *)&sandbox->process, on_handle_closed);
}

/* The spawner has exited and all it said has been read. */
static void finish(struct nest_sandbox *sandbox)
{
	struct nest_cell_exit lost = {
		.cause = sandbox->closing ? NEST_CELL_KILLED : NEST_CELL_LOST,
	};
	struct nest_err gone = NEST_ERR_INIT;

	sandbox->over = true;
	sandbox->prepared = 0;
	uv_poll_stop(&sandbox->socket);
	uv_poll_stop(&sandbox->process);
	nest_client_drop_pending(sandbox);
	while (sandbox->cells)
		nest_cell_end(sandbox->cells, &lost);
	nest_err_say(&gone, -EPIPE, "the spawner is lost");
	nest_image_end_all(sandbox, &gone);
	if (sandbox->closing) {
		close_handles(sandbox);
		return;
	}
	if (sandbox->why.code == 0)
		nest_err_say(&sandbox->why, -EPIPE, "the spawner died");
	sandbox->on_lost(sandbox->lost_arg, &sandbox->why);
}

/* ---- receiving ---- */

static int hear_remark(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	struct nest_err *err)
{
	int r = nest_message_check(message, n, NEST_MESSAGE_REMARK, sizeof(message->failed), err);

	if (r == 0 && sandbox->on_remark)
		sandbox->on_remark(sandbox->remark_arg, nest_err_text(&message->failed.err));
	return r;
}

static int understand(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	int *fds, size_t nfds, struct nest_err *err)
{
	int r;

	if (n < sizeof(message->head))
		return nest_err_say(err, -EBADMSG, "the spawner sent %zu bytes", n);
	r = nest_snapshot_hear(sandbox, message, n, fds, nfds, err);
	if (r <= 0)
		return r;
	switch (message->head.type) {
	case NEST_MESSAGE_POOL:
		r = nest_message_check(message, n, NEST_MESSAGE_POOL, sizeof(message->pool), err);
		if (r == 0)
			sandbox->prepared = message->pool.prepared;
		return r;
	case NEST_MESSAGE_REFUSED:
		r = nest_message_check(
			message, n, NEST_MESSAGE_REFUSED, sizeof(message->failed), err);
		if (r == 0)
			nest_log(NEST_LOG_DEBUG, "sandbox", "the spawner refused a request: %s",
				nest_err_text(&message->failed.err));
		return r;
	case NEST_MESSAGE_REMARK:
		return hear_remark(sandbox, message, n, err);
	case NEST_MESSAGE_MOUNTED:
		return nest_image_hear(sandbox, message, n, err);
	default:
		return nest_cell_hear(sandbox, message, n, err);
	}
}

/* Reads what is there. False once nothing more will come. */
static bool receive(struct nest_sandbox *sandbox, int limit)
{
	static union nest_message message;

	for (int i = 0; i < limit; i++) {
		struct nest_err err = NEST_ERR_INIT;
		size_t nfds = 0;
		int fds[NEST_CRIU_RPC_WIRES];
		ssize_t n = nest_fd_recv(
			sandbox->fd, &message, sizeof(message), fds, NEST_ARRAY_SIZE(fds), &nfds);

		if (n == -EAGAIN)
			return true;
		if (n <= 0 && n != -EMSGSIZE)
			return false;
		if (understand(sandbox, &message, n > 0 ? (size_t)n : 0, fds, nfds, &err) < 0)
			nest_client_break(sandbox, &err);
	}
	return true;
}

static void on_socket(uv_poll_t *handle, int status, int events)
{
	struct nest_sandbox *sandbox = handle->data;

	if (status == 0 && (events & UV_WRITABLE))
		nest_client_send_pending(sandbox);
	/* the process's own end follows, and finishes */
	if (!receive(sandbox, READS_PER_TURN))
		uv_poll_stop(&sandbox->socket);
}

static void on_process(uv_poll_t *handle, int status, int events)
{
	struct nest_sandbox *sandbox = handle->data;

	(void)status;
	(void)events;
	waitpid(sandbox->pid, NULL, WNOHANG);
	receive(sandbox, INT_MAX);
	finish(sandbox);
}

/* ---- open and close ---- */

int nest_sandbox_open(uv_loop_t *loop, struct nest_sandbox_spawner spawner,
	void (*on_lost)(void *arg, const struct nest_err *why), void *arg,
	struct nest_sandbox **ret, struct nest_err *err)
{
	struct nest_sandbox *sandbox = calloc(1, sizeof(*sandbox));
	int r;

	if (!sandbox)
		return nest_err_set(err, -ENOMEM, "open the sandbox");
	sandbox->pidfd = pidfd_open(spawner.pid, 0);
	r = sandbox->pidfd < 0 ? -errno : uv_poll_init(loop, &sandbox->socket, spawner.fd);
	if (r < 0) {
		if (sandbox->pidfd >= 0)
			close(sandbox->pidfd);
		free(sandbox);
		return nest_err_set(err, r, "watch the spawner");
	}
	/* can't fail for what has just been opened, and the first handle can't be undone here */
	uv_poll_init(loop, &sandbox->process, sandbox->pidfd);
	sandbox->fd = spawner.fd;
	sandbox->pid = spawner.pid;
	sandbox->terms = spawner.terms;
	sandbox->on_lost = on_lost;
	sandbox->lost_arg = arg;
	sandbox->on_socket = on_socket;
	sandbox->open_handles = 2;
	sandbox->socket.data = sandbox;
	sandbox->process.data = sandbox;
	uv_poll_start(&sandbox->socket, UV_READABLE, on_socket);
	uv_poll_start(&sandbox->process, UV_READABLE, on_process);
	*ret = sandbox;
	return 0;
}

void nest_sandbox_close(struct nest_sandbox *sandbox, void (*cb)(void *arg), void *arg)
{
	sandbox->closing = true;
	sandbox->on_closed = cb;
	sandbox->closed_arg = arg;
	nest_client_drop_pending(sandbox);
	if (sandbox->over) {
		close_handles(sandbox);
		return;
	}
	uv_poll_start(&sandbox->socket, UV_READABLE, on_socket);
	/* the spawner reads this as our end, and still tells the cells' */
	shutdown(sandbox->fd, SHUT_WR);
}

uint32_t nest_sandbox_prepared(const struct nest_sandbox *sandbox)
{
	return sandbox->prepared;
}

bool nest_sandbox_can_freeze(const struct nest_sandbox *sandbox)
{
	return sandbox->terms->have & NEST_FOOTING_FREEZER;
}

const char *nest_sandbox_missing(const struct nest_sandbox *sandbox)
{
	return sandbox->terms->missing;
}

void nest_sandbox_on_remark(
	struct nest_sandbox *sandbox, void (*cb)(void *arg, const char *remark), void *arg)
{
	sandbox->on_remark = cb;
	sandbox->remark_arg = arg;
}
