/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cell_restore.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/criu_rpc.h"
#include "sandbox/footing.h"
#include "sandbox/image_gate.h"
#include "sandbox/image_program.h"
#include "sandbox/image_rewrite.h"
#include "sandbox/mount.h"
#include "sandbox/privilege.h"
#include "sandbox/snapshot.h"
#include "sandbox/snapshot_store.h"
#include "sandbox/tmp_image.h"
#include "sandbox/touch.h"
#include "sandbox/working_set.h"

/* Pids of workers begin above: those below are for PID 1, the restorer and what it forks. */
#define LAST_PID "1000"
/* Those of what a clone that is to be dumped begins, which its restored threads don't reach. */
#define LAST_CLONED_PID "2000"
#define LOG_MAX 16384

/*
 * Not a copy of this process, whose libraries' memory areas would all be copied only to be thrown away by
 * the next call. Nor do handlers of these libraries run. What the child does here changes descriptors,
 * which are its own, and nothing that is found here afterwards.
 */
static pid_t start_restorer(struct nest_cell_init *init, int sock)
{
	pid_t pid = vfork();

	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
			nest_criu_rpc_become(init->criu, sock, -1, init->wires, init->restorer_log);
		_exit(127);
	}
	return pid;
}

/*
 * Safe: the restorer is a program of root's in the cell's own namespaces, started before anything
 * of a function's is in them, and gone (or done) before that runs unwatched.
 */
int nest_cell_restore_prepare(struct nest_cell_step_context *context, struct nest_err *err)
{
	struct nest_cell_init *init = context->init;
	int pair[2];
	int r;

	if (!init->criu)
		return 0;
	r = nest_image_gate_make(&init->gate, NEST_IMAGE_REWRITE_DIR, err);
	if (r == 0)
		r = nest_fd_socketpair(SOCK_SEQPACKET, pair, err);
	if (r < 0)
		return r;
	init->restorer_log = memfd_create("criu", MFD_CLOEXEC);
	init->restorer = start_restorer(init, pair[1]);
	close(pair[1]);
	if (init->restorer < 0) {
		close(pair[0]);
		return nest_err_set(err, -errno, "fork the restorer");
	}
	init->restorer_sock = pair[0];
	/* it does what it can while it waits; one that has died is told of when it is needed */
	init->restorer_primed = access(NEST_CRIU_RPC_FINDINGS, F_OK) == 0;
	if (!init->restorer_primed)
		nest_criu_rpc_prime(init->restorer_sock, NULL);
	nest_criu_rpc_restore(init->restorer_sock, init->gate.dir, NULL);
	return 0;
}

/*
 * CRIU reads limits with prlimit, which asks for CAP_SYS_RESOURCE unless the caller's real ids are
 * the target's. Safe: the effective user stays root, whom the worker can't touch, and until the
 * spawner speaks there is nothing but this function.
 */
static _Noreturn void wait_and_dump(struct nest_cell_init *init, int sock, uid_t real)
{
	static const int no_wires[NEST_CRIU_RPC_WIRES] = { -1, -1, -1 };
	char word;
	int images = -1;
	size_t nfds = 0;

	if (dup2(sock, 0) < 0 || close_range(1, ~0u, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(127);
	if (nest_fd_recv(0, &word, sizeof(word), &images, 1, &nfds) > 0 && nfds == 1 &&
		setresgid(real, 0, 0) == 0 && setresuid(real, 0, 0) == 0)
		nest_criu_rpc_become(init->criu, 0, images, no_wires, -1);
	_exit(127);
}

static int fork_dumper(struct nest_cell_step_context *context, struct nest_err *err)
{
	pid_t pid = _Fork(); /* no handler of the agent's libraries shall run */

	if (pid == 0)
		wait_and_dump(
			context->init, context->fds[NEST_MESSAGE_FD_DUMPER], context->start->uid);
	close(nest_take_fd(context->fds[NEST_MESSAGE_FD_DUMPER]));
	return pid < 0 ? nest_err_set(err, -errno, "fork the dumper") : 0;
}

/* What CRIU finds out is in /run from then on. */
static int await_primed(struct nest_cell_init *init, struct nest_err *err)
{
	int r = init->restorer_primed ? 0 : nest_criu_rpc_await_primed(init->restorer_sock, err);

	return r < 0 ? nest_err_wrap(err, "detect the kernel's features") : 0;
}

int nest_cell_restore_await_dump(struct nest_cell_step_context *context, struct nest_err *err)
{
	/*
	 * CRIU's libraries refuse to try the kernel out while real and effective user differ, so
	 * the restorer must have done it, and have left its findings in /run.
	 */
	int r = await_primed(context->init, err);

	return r < 0 ? r : fork_dumper(context, err);
}

/*
 * From here on nobody writes what CRIU found out: the worker sees its mount read-only. A restorer
 * that was killed while it wrote holds that up until it is gone.
 */
static int seal_findings(struct nest_cell_init *init, pid_t killed, struct nest_err *err)
{
	nest_autoclose int run = -1;
	int r;

	if (!(init->have & NEST_FOOTING_MOUNT))
		return 0;
	run = open("/run", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (run < 0)
		return nest_err_set(err, -errno, "open '/run'");
	r = nest_mount_restrict(run, MOUNT_ATTR_RDONLY, false, err);
	if (r == -EBUSY && killed > 0) {
		waitpid(killed, NULL, 0);
		r = nest_mount_restrict(run, MOUNT_ATTR_RDONLY, false, err);
	}
	return r;
}

static void end_restorer(struct nest_cell_init *init)
{
	if (init->restorer <= 0)
		return;
	kill(init->restorer, SIGKILL); /* reaped with the others */
	nest_image_gate_leave(&init->gate);
	close(nest_take_fd(init->restorer_sock));
	init->restorer = 0;
	if (init->restorer_log >= 0)
		close(nest_take_fd(init->restorer_log));
}

/* Its answer has the first error that it met, which often is one that it lived with. */
static void name_cause(const struct nest_cell_init *init, struct nest_err *err)
{
	char log[LOG_MAX + 1];
	ssize_t n = pread(init->restorer_log, log, LOG_MAX, 0);

	if (n <= 0)
		return;
	log[n] = '\0';
	nest_criu_rpc_name_cause(log, err);
}

/* What starts in the cell from now on gets pids above @pid, which are free in its clones' cells. */
static void set_last_pid(struct nest_cell_init *init, const char *pid)
{
	if (init->last_pid < 0)
		return;
	/* without it the worker's dump may not find its pids free, and is refused then */
	if (pid && write(init->last_pid, pid, strlen(pid)) < 0)
		errno = 0;
	close(nest_take_fd(init->last_pid));
}

int nest_cell_restore_dismiss(struct nest_cell_init *init, struct nest_err *err)
{
	pid_t restorer = init->restorer;
	int r;

	end_restorer(init);
	r = seal_findings(init, restorer, err);
	if (r == 0)
		set_last_pid(init, LAST_PID);
	return r;
}

/*
 * Safe: read-only mounts of directories that only root may enter; the worker is nobody in them. They
 * stay, since taking them away would wait for an RCU grace period.
 */
static int attach_images(
	struct nest_cell_step_context *context, int images, int parent, struct nest_err *err)
{
	bool itself = context->start->parent == NEST_MESSAGE_PARENT_ITSELF;
	int r = nest_mount_attach(images, AT_FDCWD,
		itself ? NEST_IMAGE_REWRITE_PARENT_DIR : NEST_IMAGE_REWRITE_DIR, err);

	if (r == 0 && parent >= 0)
		r = nest_mount_attach(parent, AT_FDCWD, NEST_IMAGE_REWRITE_PARENT_DIR, err);
	return r;
}

static int verify_images(
	const struct nest_message_start *start, int images, int parent, struct nest_err *err)
{
	int r = start->verify ? nest_snapshot_store_verify(images, err) : 0;

	if (r == 0)
		r = nest_image_program_check(images, err);
	if (r < 0 || parent < 0 || !start->verify_parent ||
		nest_snapshot_store_verify(parent, err) == 0)
		return r;
	nest_err_wrap(err, "what it was made upon");
	err->code = -ESTALE; /* so that the spawner knows which of the two is damaged */
	return -ESTALE;
}

/* A parent's clone becomes the function's user. */
static int pass_gate(struct nest_cell_step_context *context, int images, struct nest_err *err)
{
	bool itself = context->start->parent == NEST_MESSAGE_PARENT_ITSELF;

	return nest_image_gate_pass(&context->init->gate, images,
		itself ? NEST_IMAGE_REWRITE_PARENT_DIR : NEST_IMAGE_REWRITE_DIR,
		itself ? context->start->uid : NEST_IMAGE_GATE_OWNER_STAYS, err);
}

/* What PID 1 would do later, while others want the processors. From here on it executes nothing. */
static int use_the_wait(const struct nest_cell_init *init, struct nest_err *err)
{
	/* CRIU first, if it has been woken on this processor */
	sched_yield();
	return init->have & NEST_FOOTING_PID ? nest_privilege_gain_none(err) : 0;
}

/* Has CRIU restore what lies in @images, with all that it must find in its place. */
static int restore(struct nest_cell_step_context *context, int images, int parent, pid_t *ret,
	struct nest_err *err)
{
	struct nest_cell_init *init = context->init;
	int r = verify_images(context->start, images, parent, err);

	if (r == 0)
		r = attach_images(context, images, parent, err);
	if (r == 0)
		r = await_primed(init, err);
	if (r == 0 && context->start->snapshot)
		r = fork_dumper(context, err);
	if (r == 0)
		r = seal_findings(init, 0, err);
	if (r == 0)
		r = nest_tmp_image_load(images, context->start->uid, err);
	if (r == 0)
		r = pass_gate(context, images, err);
	if (r == 0)
		r = use_the_wait(init, err);
	if (r == 0)
		r = nest_criu_rpc_await_restored(init->restorer_sock, ret, err);
	if (r == -EIO || r == -EPIPE)
		name_cause(init, err);
	return r;
}

/* The faults that are taken here are spared to the clone's first request. */
static void prepare_for_request(int images, pid_t pid, enum nest_message_standby how)
{
	if (!nest_working_set_fetch(images, pid, how == NEST_MESSAGE_STANDBY_COPY))
		nest_touch_programs(pid);
}

pid_t nest_cell_restore_run(struct nest_cell_step_context *context, struct nest_err *err)
{
	struct nest_cell_init *init = context->init;
	nest_autoclose int images = nest_take_fd(context->fds[NEST_MESSAGE_FD_IMAGES]);
	nest_autoclose int parent = nest_take_fd(context->fds[NEST_MESSAGE_FD_PARENT]);
	pid_t pid = 0;
	int r;

	if (init->restorer <= 0)
		return nest_err_say(err, -ENOSYS, "the cell has no restorer");
	r = restore(context, images, parent, &pid, err);
	end_restorer(init);
	set_last_pid(init, context->start->snapshot ? LAST_CLONED_PID : NULL);
	if (r == 0 && context->start->standby)
		prepare_for_request(images, pid, context->start->standby);
	return r < 0 ? nest_err_wrap(err, "restore") : pid;
}
