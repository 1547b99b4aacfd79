/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner_cell.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "sandbox/cell_init.h"
#include "sandbox/descend.h"
#include "sandbox/spawner_snapshot.h"

#define REFILL_GRACE_US 10000u	 /* after a start, while the pool isn't empty */
#define REFILL_PAUSE_US 1000000u /* after a cell that could not be prepared */
#define CRIU_MEMORY_BYTES (64u << 20)
#define CRIU_PIDS 8
#define AHEAD_MEMORY_MIN (64u << 20)
#define AHEAD_PIDS_MIN 16u
#define REMOVE_PATIENCE_US 5000000u

/* Shared by the spawner and, copied, by each cell's init: the largest thing either needs. */
static union nest_message init_message;

int nest_spawner_cell_watch(struct nest_spawner *spawner, int fd, enum nest_spawner_event event,
	size_t n, struct nest_err *err)
{
	struct epoll_event wanted = {
		.events = EPOLLIN,
		.data.u64 = n * NEST_SPAWNER_EVENT_KINDS + event,
	};

	if (epoll_ctl(spawner->poll, EPOLL_CTL_ADD, fd, &wanted) < 0)
		return nest_err_set(err, -errno, "watch a descriptor");
	return 0;
}

/*
 * Ends the watching of *@fd and closes it. Closing alone would not: a cell that is just being born
 * still holds a copy of it, and epoll watches what the copies share.
 */
static void unwatch(struct nest_spawner *spawner, int *fd)
{
	if (*fd < 0)
		return;
	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, *fd, NULL);
	close(nest_take_fd(*fd));
}

struct nest_spawner_cell *nest_spawner_cell_find(struct nest_spawner *spawner, uint64_t id)
{
	for (size_t i = 0; i < spawner->top; i++)
		if (spawner->cells[i].id == id && spawner->cells[i].state != NEST_SPAWNER_CELL_FREE)
			return &spawner->cells[i];
	return NULL;
}

static struct nest_spawner_cell *find_free(struct nest_spawner *spawner)
{
	for (size_t i = 0; i < spawner->top; i++)
		if (spawner->cells[i].state == NEST_SPAWNER_CELL_FREE)
			return &spawner->cells[i];
	return spawner->top < spawner->ncells ? &spawner->cells[spawner->top++] : NULL;
}

static size_t index_of(const struct nest_spawner *spawner, const struct nest_spawner_cell *cell)
{
	return (size_t)(cell - spawner->cells);
}

static unsigned long namespaces_of(uint32_t have, bool own_network)
{
	unsigned long flags = 0;

	flags |= have & NEST_FOOTING_MOUNT ? CLONE_NEWNS : 0;
	flags |= have & NEST_FOOTING_PID ? CLONE_NEWPID : 0;
	flags |= have & NEST_FOOTING_IPC ? CLONE_NEWIPC : 0;
	flags |= have & NEST_FOOTING_UTS ? CLONE_NEWUTS : 0;
	flags |= have & NEST_FOOTING_NET && own_network ? CLONE_NEWNET : 0;
	return flags;
}

/* Is the network namespace of @cell there before it, so that its wires are made in it? */
static bool has_network_ahead(
	const struct nest_spawner *spawner, const struct nest_spawner_cell *cell)
{
	return cell->network == NEST_CELL_NETWORK_NONE && spawner->network >= 0;
}

/*
 * Safe: the child is this very program, in namespaces made for it, and runs nothing of anybody's
 * until it has given up all privilege. It inherits every descriptor of ours, and closes them in
 * its first steps. Not clone3: container runtimes' filters refuse it, since they can't see flags
 * that lie in memory.
 */
static int clone_init(struct nest_spawner *spawner, struct nest_spawner_cell *cell, int control,
	const int theirs[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	unsigned long flags = namespaces_of(spawner->footing.have,
		cell->network == NEST_CELL_NETWORK_NONE && !has_network_ahead(spawner, cell));
	int pidfd = -1;
	long pid = syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, NULL);

	if (pid < 0)
		return nest_err_set(err, -errno, "clone a cell");
	if (pid == 0) {
		struct nest_cell_init init = {
			.have = spawner->footing.have,
			.network = cell->network,
			.control = control,
			.own_uid = spawner->uids.base + spawner->uids.count,
			.serial = cell->serial,
			.tmp_bytes = spawner->tmp_bytes,
			.cgroup = &spawner->cgroup,
			.seccomp = spawner->seccomp,
			.message = &init_message,
			.criu = spawner->store.dir >= 0 ? &spawner->criu : NULL,
			.wires = { theirs[0], theirs[1], theirs[2] },
			.restorer_log = -1,
			.last_pid = -1,
			.gate = NEST_IMAGE_GATE_INIT,
		};

		nest_cell_init_run(&init);
	}
	cell->pid = (pid_t)pid;
	cell->pidfd = pidfd;
	return 0;
}

/* The init's end blocks, ours doesn't; and ours is told who sends. */
static int make_control(int ret[2], struct nest_err *err)
{
	int one = 1;
	int r = nest_fd_socketpair(SOCK_SEQPACKET, ret, err);

	if (r == 0)
		r = nest_fd_set_nonblock(ret[0], 1, err);
	if (r == 0 && setsockopt(ret[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
		r = nest_err_set(err, -errno, "ask for credentials");
	return r;
}

static void close_wires(int wires[NEST_CRIU_RPC_WIRES])
{
	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++)
		if (wires[i] >= 0)
			close(nest_take_fd(wires[i]));
}

/*
 * The channel and outputs of a clone, and of a worker that is to be dumped, are made with the cell: its
 * restorer must have them from its start.
 */
static int make_wires(struct nest_spawner *spawner, int ours[NEST_CRIU_RPC_WIRES],
	int theirs[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	int r = 0;

	for (int i = 0; r == 0 && spawner->store.dir >= 0 && i < NEST_CRIU_RPC_WIRES; i++) {
		int pair[2];

		r = i == NEST_CRIU_RPC_CHANNEL ? nest_fd_socketpair(SOCK_STREAM, pair, err)
					       : nest_fd_pipe(0, pair, err);
		if (r == 0) {
			ours[i] = pair[0];
			theirs[i] = pair[1];
		}
	}
	return r;
}

/* The cell most likely gets the limits that the last one got: then its START need not wait for them. */
static void limit_ahead(const struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	/* what goes wrong does so again, and is told, at the START */
	if (spawner->limits.pids != 0 && nest_cgroup_limit(&spawner->cgroup, cell->serial,
						 &spawner->limits, NULL, NULL) == 0)
		cell->limits = spawner->limits;
}

/*
 * Not those that are too small for what a cell does before its START. One of CPU time would have to be taken
 * back, and is rarely set.
 */
static void limit_next_ones(struct nest_spawner *spawner, const struct nest_cgroup_limits *limits)
{
	if (limits->memory_bytes < AHEAD_MEMORY_MIN || limits->pids < AHEAD_PIDS_MIN)
		return;
	spawner->limits = *limits;
	spawner->limits.cpu_milli = 0;
}

/* Whatever comes of it, the wires on both sides are the caller's to close. */
static int make_init(struct nest_spawner *spawner, struct nest_spawner_cell *cell, int control,
	int theirs[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	int r = make_wires(spawner, cell->wires, theirs, err);

	if (r < 0)
		return r;
	r = nest_cgroup_create(&spawner->cgroup, cell->serial, err);
	if (r < 0)
		return r;
	limit_ahead(spawner, cell);
	r = clone_init(spawner, cell, control, theirs, err);
	if (r < 0)
		nest_cgroup_remove(&spawner->cgroup, cell->serial, NULL);
	return r;
}

/*
 * CRIU finds a worker's sockets in the worker's network namespace only, which a socket is in from its
 * making. So we make that namespace for a moment ours, and the cell is born into it. Safe: it is new and
 * empty, nothing but make_init() runs in it, and whoever finds no way back ends.
 */
static int make_init_with_network(struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	int control, int theirs[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	int r;

	if (unshare(CLONE_NEWNET) < 0)
		return nest_err_set(err, -errno, "make a network namespace");
	r = make_init(spawner, cell, control, theirs, err);
	if (setns(spawner->network, CLONE_NEWNET) < 0)
		return nest_err_set(
			err, -ENOTRECOVERABLE, "return from the cell's network namespace");
	return r;
}

static int birth(struct nest_spawner *spawner, struct nest_spawner_cell *cell, struct nest_err *err)
{
	nest_autoclose int ours = -1;
	nest_autoclose int theirs = -1;
	int wires[NEST_CRIU_RPC_WIRES] = { -1, -1, -1 };
	int pair[2] = { -1, -1 };
	int r = make_control(pair, err);

	ours = pair[0];
	theirs = pair[1];
	if (r == 0 && has_network_ahead(spawner, cell))
		r = make_init_with_network(spawner, cell, theirs, wires, err);
	else if (r == 0)
		r = make_init(spawner, cell, theirs, wires, err);
	close_wires(wires);
	if (r < 0) {
		close_wires(cell->wires);
		return r;
	}
	cell->control = nest_take_fd(ours);
	return 0;
}

/* A cell stops being one of the pool: it has been taken, or has died. */
static void leave_pool(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	if (cell->id != 0)
		return;
	spawner->prepared[cell->network]--;
	if (cell->state == NEST_SPAWNER_CELL_PREPARING)
		spawner->preparing--;
}

void nest_spawner_cell_kill(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	cell->killed = true;
	nest_cgroup_kill(&spawner->cgroup, cell->serial);
	if (spawner->footing.have & NEST_FOOTING_PID)
		syscall(SYS_pidfd_send_signal, cell->pidfd, SIGKILL, NULL, 0);
	else if (cell->control >= 0)
		/* its end makes PID 1 kill what is below it, which nothing else could find */
		shutdown(cell->control, SHUT_RDWR);
	/* with v1's freezer it dies of this only now */
	if (cell->frozen)
		nest_cgroup_freeze(&spawner->cgroup, cell->serial, false, NULL);
	cell->frozen = false;
}

void nest_spawner_cell_freeze(
	struct nest_spawner *spawner, struct nest_spawner_cell *cell, bool frozen)
{
	int r;

	if (cell->frozen == frozen || cell->killed)
		return;
	r = nest_cgroup_freeze(&spawner->cgroup, cell->serial, frozen, NULL);
	/* what can't be frozen runs on, to nobody's harm */
	if (r == 0)
		cell->frozen = frozen;
	else if (!frozen)
		nest_spawner_cell_kill(spawner, cell);
}

/* A prepared cell failed: nobody waits for it, but making the next at once would burn the CPU. */
static void note_failure(
	struct nest_spawner *spawner, struct nest_spawner_cell *cell, const struct nest_err *err)
{
	cell->failure = *err;
	if (cell->failure.code >= 0)
		cell->failure.code = -EIO;
	cell->failure.text[sizeof(cell->failure.text) - 1] = '\0';
	spawner->refill_after = nest_clock_mono_us() + REFILL_PAUSE_US;
}

/* Nobody waits for the start of @cell any more. */
static void settle(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	uint64_t quiet = nest_clock_mono_us() + REFILL_GRACE_US;

	/* the new worker has a request to answer, which the making of a cell would slow down */
	if (cell->starting && spawner->refill_after < quiet &&
		spawner->prepared[0] + spawner->prepared[1] > 0)
		spawner->refill_after = quiet;
	spawner->starting -= cell->starting;
	cell->starting = false;
}

static void tell_started(struct nest_spawner *spawner, const struct nest_spawner_cell *cell)
{
	struct nest_message_started started = { .pid = cell->worker };

	nest_message_begin(&started.head, NEST_MESSAGE_STARTED, sizeof(started), cell->id);
	nest_message_send(spawner->agent, &started);
}

/*
 * What an init says is checked like a stranger's words: it can speak of its own cell only, and
 * what is no message of its is dropped.
 */
static void understand(struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	const union nest_message *message, size_t n, pid_t sender)
{
	if (n < sizeof(message->head) || message->head.size != n)
		return;
	switch (message->head.type) {
	case NEST_MESSAGE_PREPARED:
		if (cell->state != NEST_SPAWNER_CELL_PREPARING)
			return;
		cell->state = NEST_SPAWNER_CELL_READY;
		spawner->preparing--;
		return;
	case NEST_MESSAGE_WORKER:
		/* an init without the privilege to vouch shares our pid namespace */
		if (n == sizeof(message->started))
			cell->worker = sender != cell->pid ? sender : message->started.pid;
		return;
	case NEST_MESSAGE_RUNNING:
		if (cell->state == NEST_SPAWNER_CELL_RUNNING && cell->starting) {
			tell_started(spawner, cell);
			if (cell->key[0])
				nest_spawner_snapshot_proved(spawner, cell->key);
		}
		settle(spawner, cell);
		return;
	case NEST_MESSAGE_ENDED:
		if (n != sizeof(message->ended))
			return;
		cell->ended = true;
		cell->wait_status = message->ended.wait_status;
		return;
	case NEST_MESSAGE_FAILED:
		if (n == sizeof(message->failed))
			note_failure(spawner, cell, &message->failed.err);
		return;
	default:
		return;
	}
}

void nest_spawner_cell_hear(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	static union nest_message message;

	while (cell->control >= 0) {
		pid_t sender;
		ssize_t n = nest_message_recv_pid(cell->control, &message, &sender);

		if (n == -EAGAIN)
			return;
		if (n > 0) {
			understand(spawner, cell, &message, (size_t)n, sender);
			continue;
		}
		if (n == -EMSGSIZE)
			continue;
		unwatch(spawner, &cell->control);
	}
}

static void tell_exited(struct nest_spawner *spawner, uint64_t id, enum nest_cell_cause cause,
	int status, const struct nest_cgroup_usage *usage, const struct nest_err *err)
{
	struct nest_message_exited exited = {
		.cause = cause,
		.status = status,
		.memory_peak_bytes = usage ? usage->memory_peak_bytes : 0,
		.cpu_us = usage ? usage->cpu_us : 0,
	};

	if (err)
		exited.err = *err;
	nest_message_begin(&exited.head, NEST_MESSAGE_EXITED, sizeof(exited), id);
	nest_message_send(spawner->agent, &exited);
}

void nest_spawner_cell_tell_failed(
	struct nest_spawner *spawner, uint64_t id, const struct nest_err *err)
{
	tell_exited(spawner, id, NEST_CELL_FAILED, 0, NULL, err);
}

/*
 * The cause that the agent is told. A worker that was killed by us or by the kernel for want of
 * memory dies of the same signal, so these come first; one that ended well is not blamed for a
 * child of its that ran out of memory.
 */
static enum nest_cell_cause judge(const struct nest_spawner_cell *cell, int *ret_status)
{
	bool exited = WIFEXITED(cell->wait_status);
	bool killed = !cell->ended || (!exited && WTERMSIG(cell->wait_status) == SIGKILL);

	*ret_status = exited ? WEXITSTATUS(cell->wait_status) : WTERMSIG(cell->wait_status);
	if (cell->failure.code < 0)
		return NEST_CELL_FAILED;
	if (cell->killed && killed) {
		*ret_status = SIGKILL;
		return NEST_CELL_KILLED;
	}
	if (cell->last.oom_kills > 0 && !(cell->ended && exited && *ret_status == 0)) {
		*ret_status = SIGKILL;
		return NEST_CELL_OOM;
	}
	return exited ? NEST_CELL_EXITED : NEST_CELL_SIGNALED;
}

static void forget(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	enum nest_cell_cause cause;
	int status;

	if (cell->id != 0) {
		cause = judge(cell, &status);
		tell_exited(spawner, cell->id, cause, status, &cell->last,
			cause == NEST_CELL_FAILED ? &cell->failure : NULL);
	}
	*cell = (struct nest_spawner_cell){
		.pidfd = -1, .control = -1, .wires = { -1, -1, -1 }, .dumper = -1
	};
	spawner->used--;
	spawner->removing--;
}

void nest_spawner_cell_remove(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	int r = nest_cgroup_remove(&spawner->cgroup, cell->serial, NULL);

	if (r == 1 && nest_clock_mono_us() < cell->removed_by) {
		nest_cgroup_kill(&spawner->cgroup, cell->serial);
		return;
	}
	/* one that can't be removed is left to the next life's sweep */
	forget(spawner, cell);
}

/* PID 1 is gone, and @how it went is known: so is all that ran in the cell. */
static void bury(struct nest_spawner *spawner, struct nest_spawner_cell *cell, const siginfo_t *how)
{
	leave_pool(spawner, cell);
	settle(spawner, cell);
	close_wires(cell->wires);
	if (cell->dumper >= 0)
		close(nest_take_fd(cell->dumper));
	if (cell->key[0])
		nest_spawner_snapshot_unuse(spawner, cell->key, cell->failure.code);
	if (!cell->ended && how->si_code == CLD_EXITED && cell->failure.code == 0 && !cell->killed)
		nest_err_say(&cell->failure, -EIO, "the cell's PID 1 ended without a word");
	if (!cell->ended)
		cell->wait_status =
			how->si_code == CLD_EXITED ? how->si_status << 8 : how->si_status & 0x7f;
	nest_cgroup_usage(&spawner->cgroup, cell->serial, &cell->last);
	unwatch(spawner, &cell->pidfd);
	unwatch(spawner, &cell->control);
	cell->state = NEST_SPAWNER_CELL_REMOVING;
	cell->removed_by = nest_clock_mono_us() + REMOVE_PATIENCE_US;
	spawner->removing++;
	nest_spawner_cell_remove(spawner, cell);
}

void nest_spawner_cell_reap(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	siginfo_t how = { .si_pid = 0 };

	nest_spawner_cell_hear(spawner, cell);
	if (waitid(P_PIDFD, (id_t)cell->pidfd, &how, WEXITED | WNOHANG | __WALL) == 0 &&
		how.si_pid != 0)
		bury(spawner, cell, &how);
}

/* Nobody would notice the end of a cell that isn't watched: so it ends here and now. */
static void abort_birth(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	siginfo_t how = { .si_pid = 0 };

	nest_spawner_cell_kill(spawner, cell);
	waitid(P_PIDFD, (id_t)cell->pidfd, &how, WEXITED | __WALL);
	bury(spawner, cell, &how);
}

int nest_spawner_cell_prepare(struct nest_spawner *spawner, enum nest_cell_network network,
	struct nest_spawner_cell **ret, struct nest_err *err)
{
	struct nest_spawner_cell *cell = find_free(spawner);
	size_t n;
	int r;

	if (!cell)
		return nest_err_say(err, -EAGAIN, "all %zu cells are in use", spawner->ncells);
	n = index_of(spawner, cell);
	*cell = (struct nest_spawner_cell){
		.serial = ++spawner->next_serial,
		.wires = { -1, -1, -1 },
		.dumper = -1,
		.network = network,
		.pidfd = -1,
		.control = -1,
	};
	r = birth(spawner, cell, err);
	if (r < 0)
		return r;
	cell->state = NEST_SPAWNER_CELL_PREPARING;
	spawner->used++;
	spawner->preparing++;
	spawner->prepared[network]++;
	r = nest_spawner_cell_watch(spawner, cell->pidfd, NEST_SPAWNER_EVENT_PIDFD, n, err);
	if (r == 0)
		r = nest_spawner_cell_watch(
			spawner, cell->control, NEST_SPAWNER_EVENT_CONTROL, n, err);
	if (r < 0) {
		abort_birth(spawner, cell);
		return r;
	}
	*ret = cell;
	return 0;
}

static struct nest_spawner_cell *find_prepared(
	struct nest_spawner *spawner, enum nest_cell_network network)
{
	struct nest_spawner_cell *second = NULL;

	if (spawner->prepared[network] == 0)
		return NULL;
	for (size_t i = 0; i < spawner->top; i++) {
		struct nest_spawner_cell *cell = &spawner->cells[i];

		if (cell->id != 0 || cell->killed || cell->network != network)
			continue;
		if (cell->state == NEST_SPAWNER_CELL_READY)
			return cell;
		if (cell->state == NEST_SPAWNER_CELL_PREPARING)
			second = cell;
	}
	return second;
}

/* More cells than max_cells only while a prepared one of the other network makes room. */
static void make_room(struct nest_spawner *spawner)
{
	if (spawner->used - spawner->removing <= spawner->max_cells)
		return;
	for (int network = 0; network < 2; network++) {
		struct nest_spawner_cell *cell = find_prepared(spawner, network);

		if (cell) {
			nest_spawner_cell_kill(spawner, cell);
			return;
		}
	}
}

static int make_dumper(const struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	int *ret_theirs, struct nest_err *err)
{
	int pair[2];
	int r;

	if (spawner->store.dir < 0)
		return nest_err_say(err, -ENOSYS, "no snapshots: %s", spawner->no_snapshots);
	r = nest_fd_socketpair(SOCK_SEQPACKET, pair, err);
	if (r < 0)
		return r;
	if (cell->dumper >= 0)
		close(cell->dumper);
	cell->dumper = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

static int hand_over(struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	const struct nest_message_start *start, const int fds[NEST_MESSAGE_FD_COUNT],
	const struct nest_spawner_snapshot_mounts *mounts, struct nest_err *err)
{
	struct nest_cgroup_limits limits = {
		.memory_bytes = start->memory_bytes,
		.pids = start->pids + 1, /* our PID 1 */
		.cpu_milli = start->cpu_milli,
	};
	bool restore = start->head.type == NEST_MESSAGE_RESTORE;
	nest_autoclose int code = -1;
	nest_autoclose int dumper = -1;
	int passed[NEST_MESSAGE_FD_MOST];
	size_t npassed = nest_message_is_wired(start) ? 1 : NEST_MESSAGE_FD_COUNT;
	int r;

	/* the dumper works in the cell, and is not the function's to pay for */
	if (start->snapshot) {
		limits.memory_bytes += CRIU_MEMORY_BYTES;
		limits.pids += CRIU_PIDS;
	} else {
		limit_next_ones(spawner, &limits);
	}
	spawner->tmp_bytes = start->tmp_bytes;
	r = nest_cgroup_limit(&spawner->cgroup, cell->serial, &limits,
		cell->limits.pids != 0 ? &cell->limits : NULL, err);
	if (r < 0)
		return nest_err_wrap(err, "limit the cell");
	memcpy(passed, fds, npassed * sizeof(*fds));
	if (spawner->footing.have & NEST_FOOTING_MOUNT) {
		int from = fds[NEST_MESSAGE_FD_CODE];

		if (nest_spawner_image_is_mounted(spawner, from))
			r = nest_spawner_image_clone(spawner, from, &code, err);
		else
			r = nest_rootfs_clone_code(&spawner->rootfs, from, &code, err);
		if (r < 0)
			return r;
		passed[NEST_MESSAGE_FD_CODE] = code;
	}
	if (restore)
		passed[npassed++] = mounts->images;
	if (restore && start->parent == NEST_MESSAGE_PARENT_BESIDE)
		passed[npassed++] = mounts->parent;
	if (start->snapshot) {
		r = make_dumper(spawner, cell, &dumper, err);
		if (r < 0)
			return r;
		passed[npassed++] = dumper;
	}
	r = nest_fd_send(cell->control, start, start->head.size, passed, npassed);
	return r < 0 ? nest_err_set(err, r, "hand the start to the cell") : 0;
}

static void tell_wired(struct nest_spawner *spawner, struct nest_spawner_cell *cell)
{
	struct nest_message_head head;

	nest_message_begin(&head, NEST_MESSAGE_WIRED, sizeof(head), cell->id);
	nest_fd_send(spawner->agent, &head, sizeof(head), cell->wires, NEST_CRIU_RPC_WIRES);
}

int nest_spawner_cell_run(struct nest_spawner *spawner, struct nest_message_start *start,
	const int fds[NEST_MESSAGE_FD_COUNT], struct nest_err *err)
{
	bool restore = start->head.type == NEST_MESSAGE_RESTORE;
	struct nest_spawner_cell *cell;
	nest_autoclose int images = -1;
	nest_autoclose int parent = -1;
	struct nest_spawner_snapshot_mounts mounts = { .images = -1, .parent = -1 };
	bool from_pool;
	int r = 0;

	if (restore)
		r = nest_spawner_snapshot_use(spawner, start, &mounts, err);
	images = mounts.images;
	parent = mounts.parent;
	if (r < 0)
		return r;
	do {
		cell = find_prepared(spawner, start->network);
		from_pool = cell != NULL;
		r = 0;
		if (!from_pool)
			r = nest_spawner_cell_prepare(spawner, start->network, &cell, err);
		if (r < 0)
			break;
		r = hand_over(spawner, cell, start, fds, &mounts, err);
		if (r < 0)
			nest_spawner_cell_kill(spawner, cell);
		/* a prepared cell that has died unnoticed is no reason to fail */
	} while (r == -EPIPE && from_pool);
	if (r < 0) {
		if (restore)
			nest_spawner_snapshot_unuse(spawner, start->key, 0);
		return r;
	}
	leave_pool(spawner, cell);
	if (restore)
		nest_spawner_snapshot_note_use(spawner, cell, start);
	cell->id = start->head.cell;
	cell->state = NEST_SPAWNER_CELL_RUNNING;
	cell->starting = true;
	spawner->starting++;
	if (nest_message_is_wired(start))
		tell_wired(spawner, cell);
	close_wires(cell->wires);
	make_room(spawner);
	return 0;
}

void nest_spawner_cell_usage(const struct nest_spawner *spawner,
	const struct nest_spawner_cell *cell, struct nest_cgroup_usage *ret)
{
	struct nest_cgroup_usage seen = { .pids = 0 };

	nest_cgroup_usage(&spawner->cgroup, cell->serial, ret);
	if (cell->worker > 0)
		nest_descend_memory(
			spawner->proc, cell->worker, &seen.private_bytes, &ret->shared_bytes);
	if (ret->private_bytes == 0)
		ret->private_bytes = seen.private_bytes;
	if (ret->pids > 0)
		ret->pids--; /* our PID 1 */
	if (ret->memory_bytes > 0 && ret->pids > 0)
		return;
	nest_descend_usage(spawner->proc, cell->pid, &seen);
	if (ret->memory_bytes == 0)
		ret->memory_bytes = seen.memory_bytes;
	if (ret->cpu_us == 0)
		ret->cpu_us = seen.cpu_us;
	if (ret->pids == 0)
		ret->pids = seen.pids;
}
