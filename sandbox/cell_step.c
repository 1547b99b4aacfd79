/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cell_step.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/cell_restore.h"
#include "sandbox/cgroup.h"
#include "sandbox/footing.h"
#include "sandbox/landlock.h"
#include "sandbox/rootfs.h"
#include "sandbox/sandbox.h"

int nest_cell_step_run(const struct nest_cell_step *steps, size_t n,
	struct nest_cell_step_context *context, struct nest_err *err)
{
	for (size_t i = 0; i < n; i++) {
		int r;

		if ((context->init->have & steps[i].needs) != steps[i].needs)
			continue;
		r = steps[i].run(context, err);
		if (r < 0)
			return nest_err_wrap(err, "%s", steps[i].name);
	}
	return 0;
}

/*
 * Safe: it only ties our life to the spawner's. A spawner that died before this is noticed by the
 * end of the control socket. Where there is no pid namespace the init must outlive the spawner by
 * a moment instead, to end the processes below it: it then goes by the socket alone.
 */
static int die_with_spawner(struct nest_cell_step_context *context, struct nest_err *err)
{
	(void)context;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return nest_err_set(err, -errno, "set the parent death signal");
	return 0;
}

/* Safe: only our own descendants become our children, so that none escapes by being orphaned. */
static int adopt_orphans(struct nest_cell_step_context *context, struct nest_err *err)
{
	if (context->init->have & NEST_FOOTING_PID)
		return 0;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return nest_err_set(err, -errno, "adopt orphans");
	return 0;
}

/*
 * Safe: a process moves itself into directories that the spawner has made for it, by descriptors
 * that it inherited; their limits are at most its own.
 */
static int join_cgroup(struct nest_cell_step_context *context, struct nest_err *err)
{
	return nest_cgroup_join(context->init->cgroup, context->init->serial, err);
}

/*
 * Safe: closing takes away. From here on the init has its control socket and nothing else of the
 * spawner's: no other cell's socket, no cgroup, no mount namespace of the host.
 */
static int close_inherited(struct nest_cell_step_context *context, struct nest_err *err)
{
	int *wires = context->init->wires;
	unsigned first = 1;

	if (context->init->control != 0 && dup3(context->init->control, 0, O_CLOEXEC) < 0)
		return nest_err_set(err, -errno, "move the control socket");
	context->init->control = 0;
	/* the spawner's own are 0 to 3, so the wires lie above the places that they get here */
	for (int i = 0; context->init->criu && i < NEST_CRIU_RPC_WIRES; i++, first++) {
		if (dup3(wires[i], (int)first, O_CLOEXEC) < 0)
			return nest_err_set(err, -errno, "move a wire");
		wires[i] = (int)first;
	}
	if (close_range(first, ~0u, 0) < 0)
		return nest_err_set(err, -errno, "close what was inherited");
	return 0;
}

/* Safe: the interface is the one of a network namespace that was made for this cell. */
static int bring_lo_up(struct nest_cell_step_context *context, struct nest_err *err)
{
	nest_autoclose int sock = -1;
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (context->init->network != NEST_CELL_NETWORK_NONE)
		return 0;
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return nest_err_set(err, -errno, "open a socket");
	if (ioctl(sock, SIOCSIFFLAGS, &request) < 0)
		return nest_err_set(err, -errno, "bring 'lo' up");
	return 0;
}

/* The one file of /proc/sys that PID 1 needs is opened before all of it becomes read-only. */
static int mount_proc(struct nest_cell_step_context *context, struct nest_err *err)
{
	int r = nest_rootfs_mount_proc(err);

	if (r == 0 && context->init->criu)
		context->init->last_pid =
			open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	return r;
}

/* Safe: it covers and locks; what is left of /proc is less than before. */
static int mask_proc(struct nest_cell_step_context *context, struct nest_err *err)
{
	(void)context;
	return nest_rootfs_mask_proc(err);
}

/* Safe: a new tmpfs, empty, whose pages the cell's memory limit pays for. */
static int mount_tmp(struct nest_cell_step_context *context, struct nest_err *err)
{
	return nest_rootfs_mount_tmp(context->init->tmp_bytes, err);
}

/*
 * Safe: it only takes away. Abstract sockets of the pod's network are guarded by nothing else; a
 * kernel before Linux 6.12 can't guard them. Here and not in the worker, so that whatever comes to
 * freeze and revive the worker later is in the same domain.
 */
static int confine_scope(struct nest_cell_step_context *context, struct nest_err *err)
{
	int r = nest_landlock_confine(err);

	(void)context;
	return r < 0 ? r : 0;
}

const struct nest_cell_step nest_cell_step_prepare[] = {
	{ "die with the spawner", NEST_FOOTING_PID, die_with_spawner },
	{ "adopt orphans", 0, adopt_orphans },
	{ "join the cgroup", NEST_FOOTING_CGROUP, join_cgroup },
	{ "close descriptors", 0, close_inherited },
	{ "bring the network up", NEST_FOOTING_NET, bring_lo_up },
	{ "mount /proc", NEST_FOOTING_MOUNT | NEST_FOOTING_PID, mount_proc },
	{ "mask /proc", NEST_FOOTING_MOUNT | NEST_FOOTING_PID, mask_proc },
	{ "confine sockets and signals", 0, confine_scope },
	{ "mount /tmp", NEST_FOOTING_MOUNT, mount_tmp },
	{ "start the restorer", NEST_FOOTING_MOUNT | NEST_FOOTING_PID, nest_cell_restore_prepare },
};
const size_t nest_cell_step_prepare_n = NEST_ARRAY_SIZE(nest_cell_step_prepare);

/* Safe: the name is one of letters, digits and hyphens, set in a uts namespace of the cell's. */
static int set_hostname(struct nest_cell_step_context *context, struct nest_err *err)
{
	const char *name = context->start->hostname;

	if (sethostname(name, strlen(name)) < 0)
		return nest_err_set(err, -errno, "set the host name");
	return 0;
}

/* Safe: the mount was made read-only, without devices and set-uid programs, before it came here. */
static int attach_code(struct nest_cell_step_context *context, struct nest_err *err)
{
	int mount = nest_take_fd(context->fds[NEST_MESSAGE_FD_CODE]);
	int r = nest_rootfs_attach_code(mount, err);

	close(mount);
	return r;
}

/* Safe: it sets the bound of a tmpfs that this cell alone has; the worker isn't born yet. */
static int size_tmp(struct nest_cell_step_context *context, struct nest_err *err)
{
	/* it was made so */
	if (context->start->tmp_bytes == context->init->tmp_bytes)
		return 0;
	return nest_rootfs_size_tmp(context->start->tmp_bytes, err);
}

const struct nest_cell_step nest_cell_step_dress[] = {
	{ "set the host name", NEST_FOOTING_UTS, set_hostname },
	{ "mount /function", NEST_FOOTING_MOUNT, attach_code },
	{ "bound /tmp", NEST_FOOTING_MOUNT, size_tmp },
};
const size_t nest_cell_step_dress_n = NEST_ARRAY_SIZE(nest_cell_step_dress);
