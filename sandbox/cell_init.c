/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a cell. Its life:
 *
 *	clone -> prepare -> "prepared" -> [waits] -> START -> dress -> fork worker -> "worker" pid
 *	      -> drop all privilege -> program executed -> "running" -> worker ends -> "ended" -> exit
 *
 * A failure on the way is sent home as "failed" with the step's name, and ends the cell. The end
 * of the control socket (the spawner is gone, or wants the cell gone) ends it too.
 */
#include "sandbox/cell_init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "sandbox/cell_restore.h"
#include "sandbox/cell_step.h"
#include "sandbox/cell_worker.h"
#include "sandbox/descend.h"
#include "sandbox/footing.h"
#include "sandbox/privilege.h"

/* Static, since a cell's memory is what it touches: nothing is allocated after the clone. */
static char *words[NEST_MESSAGE_WORDS_MAX + 2];

static void tell(const struct nest_cell_init *init, uint32_t type)
{
	struct nest_message_head head;

	nest_message_begin(&head, type, sizeof(head), 0);
	nest_message_send(init->control, &head);
}

static void tell_worker(const struct nest_cell_init *init, pid_t worker)
{
	struct nest_message_started started = { .pid = worker };

	nest_message_begin(&started.head, NEST_MESSAGE_WORKER, sizeof(started), 0);
	nest_message_send_pid(init->control, &started);
}

static void stop_and_kill(int proc, pid_t pid, void *arg)
{
	int *count = arg;

	/* stopped first, so that it makes no more while its children are found */
	kill(pid, SIGSTOP);
	nest_descend_children(proc, pid, stop_and_kill, arg);
	kill(pid, SIGKILL);
	(*count)++;
}

/*
 * Without a pid namespace the processes below us are killed, again and again until none is left:
 * as orphans they become our children.
 */
static void kill_descendants(void)
{
	nest_autoclose int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int count;

	do {
		count = 0;
		nest_descend_children(proc, getpid(), stop_and_kill, &count);
		while (waitpid(-1, NULL, __WALL) > 0)
			continue;
	} while (count > 0);
}

/* Ends the cell. As PID 1 of a namespace exiting is enough. */
static _Noreturn void end_cell(const struct nest_cell_init *init)
{
	if (!(init->have & NEST_FOOTING_PID))
		kill_descendants();
	_exit(0);
}

static _Noreturn void fail(const struct nest_cell_init *init, const struct nest_err *err)
{
	struct nest_message_failed failed = { .err = *err };

	nest_message_begin(&failed.head, NEST_MESSAGE_FAILED, sizeof(failed), 0);
	nest_message_send(init->control, &failed);
	end_cell(init);
}

/* Waits for the START, which the spawner has checked. Its end instead: the cell isn't needed. */
static void receive_start(struct nest_cell_step_context *context)
{
	struct nest_cell_init *init = context->init;
	size_t nfds = 0;
	size_t wanted;
	ssize_t n = nest_fd_recv(init->control, init->message, sizeof(*init->message), context->fds,
		NEST_MESSAGE_FD_MOST, &nfds);

	if (n <= 0)
		end_cell(init);
	context->start = &init->message->start;
	wanted = nest_message_is_wired(context->start) ? 1 : NEST_MESSAGE_FD_COUNT;
	if (context->start->head.type == NEST_MESSAGE_RESTORE)
		wanted = NEST_MESSAGE_FD_IMAGES + 1 +
			 (context->start->parent == NEST_MESSAGE_PARENT_BESIDE);
	if (nfds != wanted + (context->start->snapshot != 0))
		end_cell(init);
	if (context->start->snapshot && wanted != NEST_MESSAGE_FD_DUMPER)
		context->fds[NEST_MESSAGE_FD_DUMPER] = nest_take_fd(context->fds[wanted]);
}

/*
 * The wires that the cell was born with are those of a plain worker that is to be dumped. The restorer
 * has its own of them.
 */
static void take_wires(struct nest_cell_step_context *context)
{
	static const enum nest_message_fd places[NEST_CRIU_RPC_WIRES] = {
		[NEST_CRIU_RPC_CHANNEL] = NEST_MESSAGE_FD_CHANNEL,
		[NEST_CRIU_RPC_STDOUT] = NEST_MESSAGE_FD_STDOUT,
		[NEST_CRIU_RPC_STDERR] = NEST_MESSAGE_FD_STDERR,
	};
	int *wires = context->init->wires;
	bool plain = context->start->head.type == NEST_MESSAGE_START;

	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++) {
		if (plain && context->start->snapshot)
			context->fds[places[i]] = nest_take_fd(wires[i]);
		else if (wires[i] >= 0)
			close(nest_take_fd(wires[i]));
	}
}

/* Points at the strings of the START: argv, NULL, envp, NULL. */
static void point_words(struct nest_cell_init *init)
{
	struct nest_message_start *start = &init->message->start;
	char *at = start->strings;

	for (uint32_t i = 0; i < start->argc + start->envc; i++) {
		words[i < start->argc ? i : i + 1] = at;
		at += strlen(at) + 1;
	}
}

static _Noreturn void become_worker(struct nest_cell_step_context *context)
{
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_cell_step_run(nest_cell_worker_steps, nest_cell_worker_steps_n, context, &err);

	if (r == 0) {
		execve(words[0], words, words + context->start->argc + 1);
		nest_err_set(&err, -errno, "execute '%s'", words[0]);
	}
	if (write(context->report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

static pid_t fork_worker(
	struct nest_cell_step_context *context, int *ret_report, struct nest_err *err)
{
	int report[2];
	pid_t pid;
	int r = nest_fd_pipe(0, report, err);

	if (r < 0)
		return r;
	point_words(context->init);
	context->report = report[1];
	pid = _Fork(); /* no handler of the agent's libraries shall run */
	if (pid == 0)
		become_worker(context);
	close(report[1]);
	if (pid < 0) {
		r = nest_err_set(err, -errno, "fork the worker");
		close(report[0]);
		return r;
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(context->fds); i++)
		if (context->fds[i] >= 0)
			close(nest_take_fd(context->fds[i]));
	*ret_report = report[0];
	return pid;
}

static pid_t begin_worker(
	struct nest_cell_step_context *context, int *ret_report, struct nest_err *err)
{
	pid_t r;

	if (context->start->head.type == NEST_MESSAGE_RESTORE)
		return nest_cell_restore_run(context, err);
	if (context->start->snapshot) {
		r = nest_cell_restore_await_dump(context, err);
		if (r < 0)
			return r;
	}
	r = nest_cell_restore_dismiss(context->init, err);
	if (r < 0)
		return r;
	return fork_worker(context, ret_report, err);
}

/*
 * From here on PID 1 is nobody: a user of its own, which the worker can neither signal nor trace,
 * without a capability, and never dumpable. Where it isn't PID 1 of a namespace it stays who it is
 * and keeps the one capability by which it ends the cell.
 */
static int retire(const struct nest_cell_init *init, struct nest_err *err)
{
	bool own_pids = init->have & NEST_FOOTING_PID;
	int r = own_pids ? nest_privilege_drop(init->have & NEST_FOOTING_IDS, init->own_uid, err)
			 : nest_privilege_reduce(nest_privilege_killer(), err);

	if (r < 0)
		return nest_err_wrap(err, "drop PID 1's privilege");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return nest_err_set(err, -errno, "protect PID 1");
	/* the change of user has cleared it */
	if (own_pids && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return nest_err_set(err, -errno, "set the parent death signal");
	return 0;
}

/* Waits until the worker's program runs (the pipe ends) or the worker says why it doesn't. */
static int await_program(int report, struct nest_err *err)
{
	struct nest_err told;
	ssize_t n;

	do
		n = read(report, &told, sizeof(told));
	while (n < 0 && errno == EINTR);
	close(report);
	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(told))
		return nest_err_say(err, -EIO, "the worker's report is incomplete");
	*err = told;
	return err->code;
}

/* Reaps whatever has ended; reports and ends the cell if the worker did. */
static void reap(const struct nest_cell_init *init, pid_t worker)
{
	struct nest_message_ended ended;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		if (pid != worker)
			continue;
		ended = (struct nest_message_ended){ .wait_status = status };
		nest_message_begin(&ended.head, NEST_MESSAGE_ENDED, sizeof(ended), 0);
		nest_message_send(init->control, &ended);
		end_cell(init);
	}
}

static _Noreturn void watch(const struct nest_cell_init *init, int children, pid_t worker)
{
	struct pollfd polled[] = {
		{ .fd = init->control, .events = POLLIN },
		{ .fd = children, .events = POLLIN },
	};
	struct signalfd_siginfo signal;

	for (;;) {
		/* nothing follows a START: whatever comes on the socket is its end */
		if (poll(polled, NEST_ARRAY_SIZE(polled), -1) >= 0) {
			if (polled[0].revents)
				end_cell(init);
			if (polled[1].revents && read(children, &signal, sizeof(signal)) > 0)
				reap(init, worker);
		}
	}
}

static int open_children(struct nest_err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? nest_err_set(err, -errno, "watch children") : fd;
}

_Noreturn void nest_cell_init_run(struct nest_cell_init *init)
{
	struct nest_cell_step_context context = { .init = init, .fds = { -1, -1, -1, -1, -1 } };
	struct nest_err err = NEST_ERR_INIT;
	int report = -1;
	int children;
	pid_t worker;

	if (nest_cell_step_run(nest_cell_step_prepare, nest_cell_step_prepare_n, &context, &err) <
		0)
		fail(init, &err);
	children = open_children(&err);
	if (children < 0)
		fail(init, &err);
	tell(init, NEST_MESSAGE_PREPARED);
	receive_start(&context);
	take_wires(&context);
	if (nest_cell_step_run(nest_cell_step_dress, nest_cell_step_dress_n, &context, &err) < 0)
		fail(init, &err);
	worker = begin_worker(&context, &report, &err);
	if (worker < 0)
		fail(init, &err);
	tell_worker(init, worker);
	if (retire(init, &err) < 0 || (report >= 0 && await_program(report, &err) < 0))
		fail(init, &err);
	tell(init, NEST_MESSAGE_RUNNING);
	reap(init, worker);
	watch(init, children, worker);
}
