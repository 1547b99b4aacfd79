/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cell_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/footing.h"
#include "sandbox/privilege.h"
#include "sandbox/seccomp.h"
#include "sandbox/signals.h"

#define REPORT_FD 4
#define MEMLOCK_BYTES (64u << 10)
#define OOM_SCORE "500"

/* Safe: leaves the init's session; there is no terminal in either. */
static int new_session(struct nest_cell_step_context *context, struct nest_err *err)
{
	(void)context;
	if (setsid() < 0)
		return nest_err_set(err, -errno, "start a session");
	return 0;
}

/* Lowers both limits to @value, or leaves what is lower already: raising takes a privilege. */
static int lower_limit(int resource, const char *name, rlim_t value, struct nest_err *err)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return nest_err_set(err, -errno, "read limit %s", name);
	if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > value)
		limit.rlim_max = value;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(resource, &limit) < 0)
		return nest_err_set(err, -errno, "set limit %s", name);
	return 0;
}

/* Safe: hard limits only go down here, and without CAP_SYS_RESOURCE they never rise again. */
static int set_limits(struct nest_cell_step_context *context, struct nest_err *err)
{
	int r = lower_limit(RLIMIT_NOFILE, "nofile", context->start->nofile, err);

	if (r == 0)
		r = lower_limit(RLIMIT_CORE, "core", 0, err);
	return r < 0 ? r : lower_limit(RLIMIT_MEMLOCK, "memlock", MEMLOCK_BYTES, err);
}

/*
 * Safe: a process makes itself likelier to be killed. When the cell's memory runs out it shall be
 * the worker, whose end the init can still report, and not the init. Best effort: it orders victims
 * inside the cell only.
 */
static int volunteer_for_oom(struct nest_cell_step_context *context, struct nest_err *err)
{
	nest_autoclose int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	(void)context;
	(void)err;
	if (fd >= 0 && write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
		return 0;
	return 0;
}

/* Puts @fd into place @to, where it survives execve. */
static int place(int fd, int to, struct nest_err *err)
{
	if (dup2(fd, to) < 0)
		return nest_err_set(err, -errno, "make descriptor %d", to);
	return 0;
}

/*
 * Safe: after this the process has /dev/null, its two outputs, its channel, and the close-on-exec
 * end of the report; nothing of the init's. The sources are first moved out of the way of the
 * places 0 to 4.
 */
static int arrange_descriptors(struct nest_cell_step_context *context, struct nest_err *err)
{
	int from[REPORT_FD + 1] = { -1, context->fds[NEST_MESSAGE_FD_STDOUT],
		context->fds[NEST_MESSAGE_FD_STDERR], context->fds[NEST_MESSAGE_FD_CHANNEL],
		context->report };
	int r = 0;

	for (int i = 1; i <= REPORT_FD; i++) {
		from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, REPORT_FD + 1);
		if (from[i] < 0)
			return nest_err_set(err, -errno, "move descriptor %d", i);
	}
	context->report = from[REPORT_FD];
	from[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (from[0] < 0)
		return nest_err_set(err, -errno, "open '/dev/null'");
	if (from[0] <= REPORT_FD) {
		from[0] = fcntl(from[0], F_DUPFD_CLOEXEC, REPORT_FD + 1);
		if (from[0] < 0)
			return nest_err_set(err, -errno, "move descriptor 0");
	}
	for (int i = 0; r == 0 && i < REPORT_FD; i++)
		r = place(from[i], i, err);
	if (r == 0 && dup3(from[REPORT_FD], REPORT_FD, O_CLOEXEC) < 0)
		r = nest_err_set(err, -errno, "make descriptor %d", REPORT_FD);
	if (r == 0) {
		context->report = REPORT_FD;
		if (close_range(REPORT_FD + 1, ~0u, 0) < 0)
			r = nest_err_set(err, -errno, "close the other descriptors");
	}
	return r;
}

/*
 * Safe: /function in the cell's own root. Without a root of its own the cell is handed the
 * directory itself.
 */
static int enter_code(struct nest_cell_step_context *context, struct nest_err *err)
{
	int code = context->fds[NEST_MESSAGE_FD_CODE];

	umask(022);
	if (context->init->have & NEST_FOOTING_MOUNT ? chdir("/function") < 0 : fchdir(code) < 0)
		return nest_err_set(err, -errno, "enter the code directory");
	return 0;
}

/* Safe: it only takes away, and for good. */
static int drop_privilege(struct nest_cell_step_context *context, struct nest_err *err)
{
	return nest_privilege_drop(
		context->init->have & NEST_FOOTING_IDS, context->start->uid, err);
}

/*
 * Safe: the worker ends with its init also where no pid namespace sees to that. Set after the
 * change of user, which clears it.
 */
static int die_with_init(struct nest_cell_step_context *context, struct nest_err *err)
{
	(void)context;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return nest_err_set(err, -errno, "set the parent death signal");
	return 0;
}

/* Safe: gives up privilege that a set-uid program would bring; also what the filter asks for. */
static int forbid_new_privileges(struct nest_cell_step_context *context, struct nest_err *err)
{
	(void)context;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return nest_err_set(err, -errno, "set no_new_privs");
	return 0;
}

/* Safe: a program shall not inherit what the spawner ignores or blocks. */
static int reset_signals(struct nest_cell_step_context *context, struct nest_err *err)
{
	sigset_t none;

	(void)context;
	nest_signals_reset();
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return nest_err_set(err, -errno, "unblock signals");
	return 0;
}

/* Safe: an allow-list, put on for good. The last step: the next system call is execve. */
static int install_filter(struct nest_cell_step_context *context, struct nest_err *err)
{
	return nest_seccomp_install(context->init->seccomp, err);
}

const struct nest_cell_step nest_cell_worker_steps[] = {
	{ "start a session", 0, new_session },
	{ "volunteer for the OOM killer", 0, volunteer_for_oom },
	{ "enter the code directory", 0, enter_code },
	{ "arrange descriptors", 0, arrange_descriptors },
	{ "set limits", 0, set_limits },
	{ "drop privilege", 0, drop_privilege },
	{ "die with the init", 0, die_with_init },
	{ "forbid new privileges", 0, forbid_new_privileges },
	{ "reset signals", 0, reset_signals },
	{ "install the seccomp filter", NEST_FOOTING_SECCOMP, install_filter },
};
const size_t nest_cell_worker_steps_n = NEST_ARRAY_SIZE(nest_cell_worker_steps);
