/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner: the one privileged process, small and single-threaded. It reads requests of fixed
 * layout from the agent, and a word or two from the inits of cells; it parses nothing else, opens no
 * path after its set-up, and its root holds nothing but what cells see.
 *
 * It ends only when its agent does: all signals but the agent's death are blocked, so that a
 * signal to the whole service leaves the agent time to drain.
 */
#include "sandbox/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/erofs.h"
#include "base/fd.h"
#include "sandbox/privilege.h"
#include "sandbox/sandbox.h"
#include "sandbox/seccomp.h"
#include "sandbox/signals.h"
#include "sandbox/spawner_cell.h"
#include "sandbox/spawner_snapshot.h"

#define AGENT_FD NEST_SPAWNER_SOCKET
#define BATCH 64
#define REMOVE_INTERVAL_MS 2
#define STOP_PATIENCE_US 10000000u

static union nest_message request;

/* ---- requests ---- */

static void refuse(struct nest_spawner *spawner, uint64_t id, const struct nest_err *why)
{
	struct nest_message_failed refused = { .err = *why };

	nest_message_begin(&refused.head, NEST_MESSAGE_REFUSED, sizeof(refused), id);
	nest_message_send(spawner->agent, &refused);
}

static bool is_null_device(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/*
 * What a worker may be handed: never a directory, a terminal or a device, by which it could reach
 * out of its cell.
 */
static int check_output(int fd, const char *name, struct nest_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "look at the %s descriptor", name);
	if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode) && !S_ISREG(st.st_mode) &&
		!is_null_device(&st))
		return nest_err_say(err, -EINVAL,
			"the %s descriptor must be a pipe, a socket, a file or /dev/null", name);
	if (fcntl(fd, F_GETFL) & O_PATH)
		return nest_err_say(err, -EINVAL, "the %s descriptor is not open", name);
	return 0;
}

static int check_fds(
	const struct nest_spawner *spawner, const int *fds, size_t nfds, struct nest_err *err)
{
	bool wired = nest_message_is_wired(&request.start);
	size_t wanted = wired ? 1 : NEST_MESSAGE_FD_COUNT;
	struct stat st;
	int r;

	if (nfds != wanted)
		return nest_err_say(
			err, -EINVAL, "a start needs %zu descriptors, not %zu", wanted, nfds);
	if (fstat(fds[NEST_MESSAGE_FD_CODE], &st) < 0)
		return nest_err_set(err, -errno, "look at the code descriptor");
	if (!S_ISDIR(st.st_mode) &&
		!nest_spawner_image_is_mounted(spawner, fds[NEST_MESSAGE_FD_CODE]))
		return nest_err_say(err, -EINVAL,
			"the code descriptor is neither a directory nor a mounted image");
	if (st.st_uid != spawner->agent_uid && st.st_uid != 0)
		return nest_err_say(err, -EINVAL,
			"the code directory belongs to user %u, not to the agent or root",
			st.st_uid);
	if (wired)
		return 0;
	if (fstat(fds[NEST_MESSAGE_FD_CHANNEL], &st) < 0 || !S_ISSOCK(st.st_mode))
		return nest_err_say(err, -EINVAL, "the channel descriptor is not a socket");
	r = check_output(fds[NEST_MESSAGE_FD_STDOUT], "stdout", err);
	return r < 0 ? r : check_output(fds[NEST_MESSAGE_FD_STDERR], "stderr", err);
}

static void on_start(struct nest_spawner *spawner, size_t n, const int *fds, size_t nfds)
{
	uint64_t id = request.head.cell;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	if (id == 0 || nest_spawner_cell_find(spawner, id)) {
		nest_err_say(&err, -EINVAL, "cell number %llu is none, or is in use",
			(unsigned long long)id);
		refuse(spawner, id, &err);
		return;
	}
	r = nest_message_check_start(&request.start, n, &spawner->uids, &err);
	if (r == 0)
		r = check_fds(spawner, fds, nfds, &err);
	if (r == 0)
		r = nest_spawner_cell_run(spawner, &request.start, fds, &err);
	/* in another namespace than ours no cell may be born: dying kills those that live */
	if (r == -ENOTRECOVERABLE)
		_exit(EXIT_FAILURE);
	if (r < 0)
		nest_spawner_cell_tell_failed(spawner, id, &err);
}

static void on_kill(struct nest_spawner *spawner)
{
	struct nest_spawner_cell *cell = nest_spawner_cell_find(spawner, request.head.cell);

	/* none: it ended while the request was on its way */
	if (cell && request.head.cell != 0 && cell->state == NEST_SPAWNER_CELL_RUNNING)
		nest_spawner_cell_kill(spawner, cell);
}

static void on_freeze(struct nest_spawner *spawner, bool frozen)
{
	struct nest_spawner_cell *cell = nest_spawner_cell_find(spawner, request.head.cell);

	if (cell && request.head.cell != 0 && cell->state == NEST_SPAWNER_CELL_RUNNING &&
		!cell->starting)
		nest_spawner_cell_freeze(spawner, cell, frozen);
}

static void on_learn(struct nest_spawner *spawner)
{
	const struct nest_spawner_cell *cell = nest_spawner_cell_find(spawner, request.head.cell);

	if (cell && request.head.cell != 0 && cell->state == NEST_SPAWNER_CELL_RUNNING &&
		!cell->starting)
		nest_spawner_snapshot_learn(spawner, cell);
}

static void on_measure(struct nest_spawner *spawner)
{
	struct nest_spawner_cell *cell = nest_spawner_cell_find(spawner, request.head.cell);
	struct nest_message_usage usage = { .pids = 0 };
	struct nest_cgroup_usage now;

	if (!cell || request.head.cell == 0 || cell->state != NEST_SPAWNER_CELL_RUNNING)
		return;
	nest_spawner_cell_usage(spawner, cell, &now);
	usage.memory_bytes = now.memory_bytes;
	usage.memory_peak_bytes = now.memory_peak_bytes;
	usage.private_bytes = now.private_bytes;
	usage.shared_bytes = now.shared_bytes;
	usage.cpu_us = now.cpu_us;
	usage.pids = now.pids;
	nest_message_begin(&usage.head, NEST_MESSAGE_USAGE, sizeof(usage), cell->id);
	nest_message_send(spawner->agent, &usage);
}

static void on_mount(struct nest_spawner *spawner, int file)
{
	struct nest_message_failed failed = { .err = NEST_ERR_INIT };
	uint64_t id = request.head.cell;

	if (nest_spawner_image_mount(spawner, id, file, &failed.err) == 0)
		return;
	nest_message_begin(&failed.head, NEST_MESSAGE_MOUNTED, sizeof(failed), id);
	nest_message_send(spawner->agent, &failed);
}

static void on_unmount(struct nest_spawner *spawner)
{
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_spawner_image_unmount(spawner, request.head.cell, &err);

	/* as for a start */
	if (r == -ENOTRECOVERABLE)
		_exit(EXIT_FAILURE);
	if (r < 0)
		refuse(spawner, request.head.cell, &err);
}

static void on_request(struct nest_spawner *spawner, size_t n, const int *fds, size_t nfds)
{
	struct nest_err err = NEST_ERR_INIT;
	bool sized = n >= sizeof(request.head) && request.head.size == n;
	bool head = sized && n == sizeof(request.head);
	bool bare = head && nfds == 0;
	bool keyed = sized && n == sizeof(request.dump) && nfds == 0;
	bool passed = sized && n == sizeof(request.dump) && nfds == 1;

	if (sized && (request.head.type == NEST_MESSAGE_START ||
			     request.head.type == NEST_MESSAGE_RESTORE)) {
		on_start(spawner, n, fds, nfds);
	} else if (bare && request.head.type == NEST_MESSAGE_KILL) {
		on_kill(spawner);
	} else if (bare && (request.head.type == NEST_MESSAGE_FREEZE ||
				   request.head.type == NEST_MESSAGE_THAW)) {
		on_freeze(spawner, request.head.type == NEST_MESSAGE_FREEZE);
	} else if (bare && request.head.type == NEST_MESSAGE_LEARN) {
		on_learn(spawner);
	} else if (bare && request.head.type == NEST_MESSAGE_MEASURE) {
		on_measure(spawner);
	} else if (head && nfds == 1 && request.head.type == NEST_MESSAGE_MOUNT) {
		on_mount(spawner, fds[0]);
	} else if (bare && request.head.type == NEST_MESSAGE_UNMOUNT) {
		on_unmount(spawner);
	} else if (keyed && request.head.type == NEST_MESSAGE_DUMP) {
		nest_spawner_snapshot_dump(spawner, &request.dump);
	} else if (keyed && request.head.type == NEST_MESSAGE_FORGET) {
		nest_spawner_snapshot_forget(spawner, &request.dump);
	} else if (bare && request.head.type == NEST_MESSAGE_LIST) {
		nest_spawner_snapshot_list(spawner);
	} else if (passed && (request.head.type == NEST_MESSAGE_EXPORT ||
				     request.head.type == NEST_MESSAGE_IMPORT)) {
		nest_spawner_exchange_begin(spawner, &request.dump, fds[0]);
	} else {
		nest_err_say(&err, -EBADMSG, "a message of %zu bytes is no request", n);
		refuse(spawner, sized ? request.head.cell : 0, &err);
	}
}

static void stop(struct nest_spawner *spawner)
{
	if (spawner->stopping)
		return;
	spawner->stopping = true;
	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, spawner->agent, NULL);
	for (size_t i = 0; i < spawner->top; i++) {
		struct nest_spawner_cell *cell = &spawner->cells[i];

		if (cell->state != NEST_SPAWNER_CELL_FREE &&
			cell->state != NEST_SPAWNER_CELL_REMOVING)
			nest_spawner_cell_kill(spawner, cell);
	}
}

static void on_agent(struct nest_spawner *spawner)
{
	int fds[NEST_FD_MAX_PASSED];
	size_t nfds = 0;
	ssize_t n = nest_fd_recv(
		spawner->agent, &request, sizeof(request), fds, NEST_FD_MAX_PASSED, &nfds);

	if (n > 0)
		on_request(spawner, (size_t)n, fds, nfds);
	else if (n == -EMSGSIZE)
		on_request(spawner, 0, fds, 0);
	else
		stop(spawner);
	while (nfds > 0)
		close(fds[--nfds]);
}

/* ---- the loop ---- */

/* Says what it ends for, where that isn't the agent's end. */
static void read_ending(const struct nest_spawner *spawner)
{
	struct signalfd_siginfo info;

	if (read(spawner->orphaned, &info, sizeof(info)) == sizeof(info) &&
		info.ssi_code == POLL_MSG)
		dprintf(STDERR_FILENO,
			"nestlet-spawner: ends the host, as a code image that is mounted was to be "
			"opened for writing: by root, or by an agent that was taken over\n");
}

static void on_event(struct nest_spawner *spawner, uint64_t data)
{
	enum nest_spawner_event event = data % NEST_SPAWNER_EVENT_KINDS;
	uint64_t n = data / NEST_SPAWNER_EVENT_KINDS;
	struct nest_spawner_cell *cell = n < spawner->ncells ? &spawner->cells[n] : NULL;

	switch (event) {
	case NEST_SPAWNER_EVENT_AGENT:
		if (!spawner->stopping)
			on_agent(spawner);
		return;
	case NEST_SPAWNER_EVENT_ORPHANED:
		read_ending(spawner);
		stop(spawner);
		epoll_ctl(spawner->poll, EPOLL_CTL_DEL, spawner->orphaned, NULL);
		return;
	case NEST_SPAWNER_EVENT_CONTROL:
		nest_spawner_cell_hear(spawner, cell);
		return;
	case NEST_SPAWNER_EVENT_IMAGE:
		nest_spawner_image_hear(spawner, n);
		return;
	case NEST_SPAWNER_EVENT_PIDFD:
		/* an event of the same batch may have been overtaken by the cell's end */
		if (cell->pidfd >= 0)
			nest_spawner_cell_reap(spawner, cell);
		return;
	case NEST_SPAWNER_EVENT_SWEPT:
		nest_spawner_snapshot_swept(spawner);
		return;
	case NEST_SPAWNER_EVENT_PROVED:
		nest_spawner_snapshot_proved_standins(spawner);
		return;
	case NEST_SPAWNER_EVENT_EXCHANGE:
		nest_spawner_exchange_hear(spawner);
		return;
	case NEST_SPAWNER_EVENT_JOB:
		nest_spawner_snapshot_hear(spawner, data / NEST_SPAWNER_EVENT_KINDS);
		return;
	default:
		return;
	}
}

/*
 * Which network's pool lacks a cell: one is prepared at a time, and none while somebody waits for a
 * start, whose forks would wait for the locks that joining cgroups takes. -1: none.
 */
static int find_lack(const struct nest_spawner *spawner)
{
	if (spawner->stopping || spawner->preparing > 0 || spawner->starting > 0 ||
		spawner->used >= spawner->max_cells)
		return -1;
	for (int network = 0; network < 2; network++)
		if (spawner->prepared[network] < spawner->pool_size[network])
			return network;
	return -1;
}

/* How long the loop may sleep: refilling waits until nothing else is to be done. */
static int sleep_ms(const struct nest_spawner *spawner)
{
	uint64_t now;

	if (spawner->removing > 0 || spawner->stopping)
		return REMOVE_INTERVAL_MS;
	if (find_lack(spawner) < 0)
		return -1;
	now = nest_clock_mono_us();
	return now >= spawner->refill_after ? 0 : (int)((spawner->refill_after - now) / 1000 + 1);
}

static void refill(struct nest_spawner *spawner)
{
	struct nest_spawner_cell *cell;
	int network = find_lack(spawner);
	int r;

	if (network < 0 || nest_clock_mono_us() < spawner->refill_after)
		return;
	r = nest_spawner_cell_prepare(spawner, network, &cell, NULL);
	/* as for a start */
	if (r == -ENOTRECOVERABLE)
		_exit(EXIT_FAILURE);
	/* the cause will be told to whoever starts a cell while it lasts */
	if (r < 0)
		spawner->refill_after = nest_clock_mono_us() + 1000000;
}

static void go_on_removing(struct nest_spawner *spawner)
{
	for (size_t i = 0; spawner->removing > 0 && i < spawner->top; i++)
		if (spawner->cells[i].state == NEST_SPAWNER_CELL_REMOVING)
			nest_spawner_cell_remove(spawner, &spawner->cells[i]);
}

static void tell_pool(struct nest_spawner *spawner)
{
	struct nest_message_pool pool = {
		.prepared = spawner->prepared[0] + spawner->prepared[1] - spawner->preparing,
	};

	if (pool.prepared == spawner->told_prepared || spawner->stopping)
		return;
	spawner->told_prepared = pool.prepared;
	nest_message_begin(&pool.head, NEST_MESSAGE_POOL, sizeof(pool), 0);
	nest_message_send(spawner->agent, &pool);
}

static void serve(struct nest_spawner *spawner)
{
	uint64_t give_up = 0;

	while (!spawner->stopping || (spawner->used > 0 && nest_clock_mono_us() < give_up)) {
		struct epoll_event events[BATCH];
		int n = epoll_wait(spawner->poll, events, BATCH, sleep_ms(spawner));

		for (int i = 0; i < n; i++)
			on_event(spawner, events[i].data.u64);
		if (n == 0)
			refill(spawner);
		go_on_removing(spawner);
		tell_pool(spawner);
		nest_spawner_snapshot_sweep(spawner);
		if (spawner->stopping && give_up == 0)
			give_up = nest_clock_mono_us() + STOP_PATIENCE_US;
	}
}

/* ---- set-up ---- */

/*
 * The descriptors that the agent had open are none of ours. Standard input and output become
 * /dev/null; standard error stays, for the messages of the C library and the sanitizers.
 */
static int arrange_descriptors(struct nest_spawner *spawner, int sock, struct nest_err *err)
{
	nest_autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return nest_err_set(err, -errno, "open '/dev/null'");
	if (sock != AGENT_FD && dup3(sock, AGENT_FD, O_CLOEXEC) < 0)
		return nest_err_set(err, -errno, "move the agent's socket");
	spawner->agent = AGENT_FD;
	if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return nest_err_set(err, -errno, "replace standard input and output");
	null = -1; /* closed with the rest */
	if (close_range(AGENT_FD + 1, ~0u, 0) < 0)
		return nest_err_set(err, -errno, "close inherited descriptors");
	return 0;
}

/* Each cell takes two descriptors; the limit is raised as far as it may without privilege. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Ends with the agent; a session of its own keeps the terminal's signals away. */
static int tie_to_agent(pid_t agent, struct nest_err *err)
{
	sigset_t all;

	/* one that ignored SIGCHLD would leave us no child to wait for */
	nest_signals_reset();
	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0 ||
		prctl(PR_SET_PDEATHSIG, NEST_SPAWNER_ENDING) < 0)
		return nest_err_set(err, -errno, "tie the spawner to the agent");
	/* it may have died before the tie */
	if (getppid() != agent)
		_exit(EXIT_FAILURE);
	setsid(); /* refused to a group's leader, which a forked child is not */
	return 0;
}

/* A filter that can't be installed shall be found out now, not by the first worker. */
static void try_filter(struct nest_spawner *spawner)
{
	struct nest_err err = NEST_ERR_INIT;
	int status = 0;
	pid_t pid;

	if (nest_seccomp_new(&spawner->seccomp, &err) < 0) {
		nest_footing_lack(&spawner->footing, "seccomp", nest_err_text(&err));
		return;
	}
	pid = fork();
	if (pid == 0)
		_exit(nest_seccomp_install(spawner->seccomp, NULL) < 0 ? EXIT_FAILURE
								       : EXIT_SUCCESS);
	if (pid > 0 && waitpid(pid, &status, __WALL) == pid && WIFEXITED(status) &&
		WEXITSTATUS(status) == EXIT_SUCCESS)
		spawner->footing.have |= NEST_FOOTING_SECCOMP;
	else
		nest_footing_lack(&spawner->footing, "seccomp", "the kernel refuses filters");
}

static void enter_root(struct nest_spawner *spawner, const struct nest_sandbox_config *config)
{
	struct nest_err err = NEST_ERR_INIT;
	uint32_t needed = NEST_FOOTING_MOUNT | NEST_FOOTING_PID;

	/* without a pid namespace there is no /proc that a cell may see */
	if ((spawner->footing.have & needed) == needed &&
		nest_rootfs_enter(config->root_paths, config->runtimes_dir, config->state_dir,
			&spawner->rootfs, &err) == 0)
		return;
	if (spawner->footing.have & NEST_FOOTING_MOUNT)
		nest_footing_lack(&spawner->footing, "a root file system of each cell's own",
			err.code < 0 ? nest_err_text(&err) : "needs a pid namespace");
	spawner->footing.have &= ~(uint32_t)NEST_FOOTING_MOUNT;
}

/* Before the spawner enters the cells' root. What this machine can't mount is unpacked instead. */
static int open_images(struct nest_spawner *spawner, const struct nest_sandbox_config *config,
	struct nest_err *err)
{
	struct nest_spawner_images *images = &spawner->images;
	struct nest_err why = NEST_ERR_INIT;
	int r;

	snprintf(images->missing, sizeof(images->missing), "cache.imageSources is empty");
	if (!config->mount_images)
		return 0;
	r = nest_spawner_image_open_dir(images, config->state_dir, err);
	if (r < 0)
		return r;
	images->missing[0] = '\0';
	if (nest_spawner_image_try(images->dir, NEST_EROFS_LZ4, &why) == 0) {
		images->zstd = nest_spawner_image_try(images->dir, NEST_EROFS_ZSTD, NULL) == 0;
		return 0;
	}
	snprintf(images->missing, sizeof(images->missing), "%.255s", nest_err_text(&why));
	close(nest_take_fd(images->dir));
	return 0;
}

/* Cells without a root of their own see directories of the host, and could see no image. */
static int enable_images(struct nest_spawner *spawner, struct nest_err *err)
{
	int r;

	if (spawner->images.dir < 0)
		return 0;
	if (!(spawner->footing.have & NEST_FOOTING_MOUNT)) {
		snprintf(spawner->images.missing, sizeof(spawner->images.missing),
			"cells have no root file system of their own");
		return 0;
	}
	r = nest_spawner_image_enable(
		&spawner->images, spawner->proc, spawner->rootfs.own_mounts, err);
	return r < 0 ? nest_err_wrap(err, "prepare for images") : 0;
}

/*
 * The way back from cells' network namespaces, see nest_spawner_cell_prepare(). A machine that has
 * none, as for a user namespace without a network of its own, has cells enter theirs by themselves,
 * and no snapshots of functions in them.
 */
static void open_network(struct nest_spawner *spawner)
{
	nest_autoclose int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (own >= 0 && (spawner->footing.have & NEST_FOOTING_NET) && setns(own, CLONE_NEWNET) == 0)
		spawner->network = nest_take_fd(own);
}

static int open_loop(struct nest_spawner *spawner, struct nest_err *err)
{
	sigset_t orphaned;
	int r;

	sigemptyset(&orphaned);
	sigaddset(&orphaned, NEST_SPAWNER_ENDING);
	spawner->orphaned = signalfd(-1, &orphaned, SFD_CLOEXEC | SFD_NONBLOCK);
	spawner->poll = epoll_create1(EPOLL_CLOEXEC);
	if (spawner->orphaned < 0 || spawner->poll < 0)
		return nest_err_set(err, -errno, "open the spawner's loop");
	r = nest_spawner_cell_watch(
		spawner, spawner->orphaned, NEST_SPAWNER_EVENT_ORPHANED, 0, err);
	if (r < 0)
		return r;
	return nest_spawner_cell_watch(spawner, spawner->agent, NEST_SPAWNER_EVENT_AGENT, 0, err);
}

static int make_table(struct nest_spawner *spawner, const struct nest_sandbox_config *config,
	struct nest_err *err)
{
	spawner->uids.base = config->uid_base;
	spawner->uids.count = config->uid_count;
	spawner->agent_uid = config->agent_uid;
	spawner->pool_size[NEST_CELL_NETWORK_POD] = config->pool_size;
	spawner->pool_size[NEST_CELL_NETWORK_NONE] = config->pool_size_none;
	spawner->max_cells = config->max_cells;
	/* the pool's share may be in use for a moment while it gives way to running cells */
	spawner->ncells = (size_t)config->max_cells + config->pool_size + config->pool_size_none;
	spawner->cells = calloc(spawner->ncells, sizeof(*spawner->cells));
	if (!spawner->cells)
		return nest_err_set(err, -ENOMEM, "make the table of cells");
	return 0;
}

static int set_up(struct nest_spawner *spawner, const struct nest_sandbox_config *config, int sock,
	pid_t agent, struct nest_err *err)
{
	int r = tie_to_agent(agent, err);

	if (r == 0)
		r = arrange_descriptors(spawner, sock, err);
	if (r == 0)
		r = make_table(spawner, config, err);
	if (r < 0)
		return r;
	raise_descriptor_limit();
	spawner->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	nest_footing_probe(&spawner->footing);
	r = nest_cgroup_open(config->instance, &spawner->cgroup, err);
	if (r < 0)
		return r;
	nest_footing_note_cgroup(&spawner->footing, &spawner->cgroup);
	try_filter(spawner);
	r = open_images(spawner, config, err);
	if (r < 0)
		return r;
	nest_spawner_snapshot_open(spawner, config);
	if (spawner->store.dir >= 0)
		open_network(spawner);
	if (config->snapshots && config->snapshots_secret)
		r = nest_snapshot_pack_read_secret(
			config->snapshots_secret, &spawner->exchange.secret, err);
	if (r < 0)
		return nest_err_wrap(err, "the key of snapshots.store");
	enter_root(spawner, config);
	r = enable_images(spawner, err);
	if (r < 0)
		return r;
	if (config->require_isolation && spawner->footing.missing[0])
		return nest_err_say(err, -EPERM,
			"isolation is required, but this machine lacks: %s",
			spawner->footing.missing);
	r = nest_privilege_reduce(nest_privilege_kept(config->snapshots), err);
	return r < 0 ? r : open_loop(spawner, err);
}

static void tell_ready(const struct nest_spawner *spawner, int sock, const struct nest_err *err)
{
	struct nest_message_ready ready = { .err = *err, .have = spawner->footing.have };

	memcpy(ready.missing, spawner->footing.missing, sizeof(ready.missing));
	memcpy(ready.no_snapshots, spawner->no_snapshots, sizeof(ready.no_snapshots));
	memcpy(ready.criu, spawner->criu.binary, sizeof(ready.criu));
	memcpy(ready.no_images, spawner->images.missing, sizeof(ready.no_images));
	ready.zstd_images = spawner->images.zstd;
	nest_message_begin(&ready.head, NEST_MESSAGE_READY, sizeof(ready), 0);
	nest_message_send(sock, &ready);
}

_Noreturn void nest_spawner_run(const struct nest_sandbox_config *config, int sock, pid_t agent)
{
	static struct nest_spawner spawner = {
		.agent = -1, .proc = -1, .network = -1, .images = { .dir = -1, .mounts = -1 }
	};
	struct nest_err err = NEST_ERR_INIT;
	int r = set_up(&spawner, config, sock, agent, &err);

	tell_ready(&spawner, spawner.agent >= 0 ? spawner.agent : sock, &err);
	if (r == 0) {
		nest_spawner_snapshot_prove(&spawner, config->criu);
		serve(&spawner);
	}
	nest_spawner_image_close(&spawner);
	nest_cgroup_close(&spawner.cgroup);
	_exit(r == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}
