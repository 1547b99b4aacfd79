/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/feature_criu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/feature.h"

#define OWN_CRIU "/usr/local/lib/nestlet/criu/bin/criu"
#define ORPHANED SIGTERM /* to a keeper: its parent is gone */
#define ANSWER_MS 2500	 /* twice: version and check */

struct answer {
	char text[4096]; /* what it printed, on both streams; the rest is thrown away */
	size_t len;
	int status; /* of waitpid() for the keeper */
};

bool nest_feature_criu_find(const char *prefix_path, const char *path, char *ret, size_t cap)
{
	if (access(prefix_path, X_OK) == 0) {
		snprintf(ret, cap, "%s", prefix_path);
		return true;
	}
	while (path && *path) {
		size_t len = strcspn(path, ":");

		/* an entry that is empty or relative means the current directory */
		if (path[0] == '/') {
			int n = snprintf(ret, cap, "%.*s/criu", (int)len, path);

			if (n > 0 && (size_t)n < cap && access(ret, X_OK) == 0)
				return true;
		}
		path += len + (path[len] == ':');
	}
	return false;
}

static _Noreturn void become(pid_t keeper, const char *path, const char *arg, int out)
{
	const char *argv[] = { path, arg, NULL };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	/* a keeper that is killed ends nobody */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(127);
	execv(path, (char *const *)argv);
	_exit(127);
}

/* That a keeper waits for, and has blocked. */
static sigset_t kept_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, ORPHANED);
	return set;
}

/*
 * Waits for @pid until @deadline_us, or until nobody waits for the answer any more; orphans of its are
 * reaped on the way.
 */
static bool wait_until(pid_t pid, uint64_t deadline_us, int *ret_status)
{
	sigset_t signals = kept_signals();

	for (;;) {
		uint64_t now = nest_clock_mono_us();
		uint64_t left = deadline_us > now ? deadline_us - now : 0;
		struct timespec patience = {
			.tv_sec = (time_t)(left / 1000000),
			.tv_nsec = (long)(left % 1000000) * 1000,
		};
		pid_t ended;
		int status;

		while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
			if (ended == pid) {
				*ret_status = status;
				return true;
			}
		}
		if (left == 0 || sigtimedwait(&signals, NULL, &patience) == ORPHANED)
			return false;
	}
}

/* Kills the caller's children until there are none; as a subreaper it inherits theirs. */
static void kill_descendants(void)
{
	for (;;) {
		nest_autofclose FILE *list = fopen("/proc/thread-self/children", "re");
		pid_t pid, any = 0;

		while (list && fscanf(list, "%d", &pid) == 1) {
			kill(pid, SIGKILL);
			any = pid;
		}
		if (any == 0 || waitpid(any, NULL, 0) < 0)
			return;
	}
}

/*
 * Between us and CRIU, which starts processes of its own, some in sessions of their own: as their
 * subreaper the keeper finds and ends them all. It tells how CRIU ended by its own end, SIGALRM
 * being that it didn't in time.
 */
static _Noreturn void keep(pid_t parent, const char *path, const char *arg, int timeout_ms, int out)
{
	uint64_t deadline_us = nest_clock_mono_us() + (uint64_t)timeout_ms * 1000;
	sigset_t signals = kept_signals();
	pid_t keeper = getpid(), pid;
	bool ended = false;
	int status = 0;

	/* in this order: by then its parent may be gone */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || sigprocmask(SIG_BLOCK, &signals, NULL) < 0 ||
		prctl(PR_SET_PDEATHSIG, ORPHANED) < 0 || getppid() != parent)
		_exit(127);
	pid = fork();
	if (pid == 0)
		become(keeper, path, arg, out);
	if (pid > 0)
		ended = wait_until(pid, deadline_us, &status);
	if (pid > 0 && !ended)
		kill(pid, SIGKILL); /* a kernel may be built without the list that follows */
	kill_descendants();
	if (pid > 0 && !ended) {
		signal(SIGALRM, SIG_DFL);
		raise(SIGALRM);
	}
	_exit(pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 127);
}

/* Reads to the end of @fd; what does not fit is thrown away. */
static int collect(int fd, struct answer *ret)
{
	for (;;) {
		char rest[512];
		bool room = ret->len < sizeof(ret->text) - 1;
		ssize_t n = read(fd, room ? ret->text + ret->len : rest,
			room ? sizeof(ret->text) - 1 - ret->len : sizeof(rest));

		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && room)
			ret->len += (size_t)n;
	}
}

/* Runs "@path @arg"; ends it with all it started if it takes longer than @timeout_ms. */
static int ask(
	const char *path, const char *arg, int timeout_ms, struct answer *ret, struct nest_err *err)
{
	nest_autoclose int in = -1, out = -1;
	pid_t parent = getpid(), pid;
	int fds[2], r;

	*ret = (struct answer){ .len = 0 };
	r = nest_fd_pipe(0, fds, err);
	if (r < 0)
		return r;
	in = fds[0];
	out = fds[1];
	pid = fork();
	if (pid < 0)
		return nest_err_set(err, -errno, "start '%s'", path);
	if (pid == 0)
		keep(parent, path, arg, timeout_ms, out);
	close(nest_take_fd(out));
	r = collect(in, ret);
	while (waitpid(pid, &ret->status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(ret->status) && WTERMSIG(ret->status) == SIGALRM)
		return nest_err_say(
			err, -ETIME, "'%s %s' did not end within %d ms", path, arg, timeout_ms);
	return r < 0 ? nest_err_set(err, r, "read what '%s %s' says", path, arg) : 0;
}

/*
 * The first complaint in what CRIU printed: the text behind "Error (criu/x.c:12): ", or else its
 * first line.
 */
static void first_complaint(const char *text, char *ret, size_t cap)
{
	const char *at = strstr(text, "Error (");
	const char *end = at ? strstr(at, "): ") : NULL;

	if (end)
		at = end + 3;
	else
		at = text;
	snprintf(ret, cap, "%.*s", (int)strcspn(at, "\n"), at);
	if (ret[0] == '\0')
		snprintf(ret, cap, "it does not say what is missing");
}

static void refuse(struct nest_feature *ret, const char *detail, const char *remedy)
{
	ret->yes = false;
	snprintf(ret->detail, sizeof(ret->detail), "%s", detail);
	snprintf(ret->remedy, sizeof(ret->remedy), "%s", remedy);
}

static void judge_version(const char *path, int timeout_ms, struct nest_feature *ret)
{
	struct nest_err err = NEST_ERR_INIT;
	struct answer answer;
	int major, minor;
	char detail[128];

	if (ask(path, "--version", timeout_ms, &answer, &err) < 0) {
		refuse(ret, nest_err_text(&err), "reinstall CRIU 4.1 or later");
		return;
	}
	if (sscanf(answer.text, "Version: %d.%d", &major, &minor) != 2) {
		char complaint[96];

		first_complaint(answer.text, complaint, sizeof(complaint));
		snprintf(detail, sizeof(detail), "tells no version: %s", complaint);
		refuse(ret, detail, "reinstall CRIU 4.1 or later");
		return;
	}
	if (major < NEST_FEATURE_CRIU_MAJOR ||
		(major == NEST_FEATURE_CRIU_MAJOR && minor < NEST_FEATURE_CRIU_MINOR)) {
		snprintf(detail, sizeof(detail), "version %d.%d at %.80s is too old", major, minor,
			path);
		refuse(ret, detail, "install CRIU 4.1 or later (tools/install-deps does)");
		return;
	}
	ret->yes = true;
	snprintf(ret->detail, sizeof(ret->detail), "%.*s, %.120s",
		(int)strcspn(answer.text + strlen("Version: "), "\n"),
		answer.text + strlen("Version: "), path);
}

static void judge_check(const char *path, int timeout_ms, struct nest_feature *ret)
{
	struct nest_err err = NEST_ERR_INIT;
	struct answer answer;
	char complaint[72], detail[160];

	if (ask(path, "check", timeout_ms, &answer, &err) < 0) {
		refuse(ret, nest_err_text(&err), "run 'criu check' by hand in the pod");
		return;
	}
	if (WIFEXITED(answer.status) && WEXITSTATUS(answer.status) == 0)
		return;
	first_complaint(answer.text, complaint, sizeof(complaint));
	snprintf(detail, sizeof(detail), "%.60s: 'criu check' says: %s", path, complaint);
	refuse(ret, detail,
		"add SYS_ADMIN, SYS_PTRACE and CHECKPOINT_RESTORE to "
		"securityContext.capabilities.add; 'criu check' says what else");
}

void nest_feature_criu_judge(const char *path, int timeout_ms, struct nest_feature *ret)
{
	*ret = (struct nest_feature){ .name = "CRIU" };
	judge_version(path, timeout_ms, ret);
	if (ret->yes)
		judge_check(path, timeout_ms, ret);
}

/* A prefix has a program that starts its CRIU. */
static void judge_wanted(const char *wanted, struct nest_feature *ret)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s", wanted,
		stat(wanted, &st) == 0 && S_ISDIR(st.st_mode) ? "/bin/criu" : "");
	if (access(path, X_OK) == 0) {
		nest_feature_criu_judge(path, ANSWER_MS, ret);
		return;
	}
	*ret = (struct nest_feature){ .name = "CRIU" };
	refuse(ret, "snapshots.criu names none",
		"name CRIU's program, or leave the key out for the one of tools/install-deps");
}

void nest_feature_criu_probe(const char *wanted, struct nest_feature *ret)
{
	char path[PATH_MAX];

	if (wanted && *wanted) {
		judge_wanted(wanted, ret);
		return;
	}
	if (nest_feature_criu_find(OWN_CRIU, getenv("PATH"), path, sizeof(path))) {
		nest_feature_criu_judge(path, ANSWER_MS, ret);
		return;
	}
	*ret = (struct nest_feature){ .name = "CRIU" };
	refuse(ret, "not found at " OWN_CRIU " nor on PATH",
		"install CRIU 4.1 or later (tools/install-deps does)");
}
