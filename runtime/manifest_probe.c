/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

#define OUTPUT_MAX 1024

/* One probe under way. */
struct probe {
	pid_t pid;
	int out; /* what it prints; read end */
	uint64_t until_us;
};

/* Both streams are read: some programs tell their version on stderr. */
static int set_up_files(posix_spawn_file_actions_t *files, int out)
{
	int rc = posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDONLY, 0);

	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(files, out, 1);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(files, out, 2);
	return -rc;
}

/* A group of its own, so that what the probe starts can be killed with it; signals as at birth. */
static int set_up_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	sigdelset(&all, SIGKILL);
	sigdelset(&all, SIGSTOP);
	rc = posix_spawnattr_setflags(
		attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (rc == 0)
		rc = posix_spawnattr_setsigmask(attributes, &none);
	if (rc == 0)
		rc = posix_spawnattr_setsigdefault(attributes, &all);
	return -rc;
}

static int spawn_into(const char *const *command, int out, pid_t *ret_pid)
{
	char *const environment[] = { NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	int rc;

	rc = -posix_spawn_file_actions_init(&files);
	if (rc < 0)
		return rc;
	rc = -posix_spawnattr_init(&attributes);
	if (rc == 0) {
		rc = set_up_files(&files, out);
		if (rc == 0)
			rc = set_up_attributes(&attributes);
		if (rc == 0)
			rc = -posix_spawn(ret_pid, command[0], &files, &attributes,
				(char *const *)command, environment);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&files);
	return rc;
}

/* Waits until @fd is readable: 0, or -ETIMEDOUT when the probe's time is over. */
static int wait_for(const struct probe *probe, int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	for (;;) {
		uint64_t now = nest_clock_mono_us();
		int left = now >= probe->until_us ? 0 : (int)((probe->until_us - now) / 1000) + 1;
		int n = poll(&poll_fd, 1, left);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* Reads to the end; what does not fit is read and forgotten, so that the probe does not hang. */
static int read_output(const struct probe *probe, char *output)
{
	char rest[256];
	size_t len = 0;

	for (;;) {
		bool full = len == OUTPUT_MAX;
		int rc = wait_for(probe, probe->out);
		ssize_t n;

		if (rc < 0)
			return rc;
		n = read(probe->out, full ? rest : output + len,
			full ? sizeof(rest) : OUTPUT_MAX - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		if (!full)
			len += (size_t)n;
	}
	output[len] = '\0';
	output[strcspn(output, "\r\n")] = '\0';
	return 0;
}

static int wait_for_exit(const struct probe *probe)
{
	nest_autoclose int fd = (int)syscall(SYS_pidfd_open, probe->pid, 0);

	if (fd < 0)
		return -errno;
	return wait_for(probe, fd);
}

/* Ends the probe and all it started, and reaps it. */
static int reap(const struct probe *probe)
{
	int status = 0;

	kill(-probe->pid, SIGKILL);
	while (waitpid(probe->pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return status;
}

static int say_status(const struct nest_manifest *manifest, int status, struct nest_err *err)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return nest_err_say(err, -EIO, "probe of runtime '%s': '%s' exited with %d",
			manifest->name, manifest->probe[0], WEXITSTATUS(status));
	return nest_err_say(err, -EIO, "probe of runtime '%s': '%s' was killed by signal %d",
		manifest->name, manifest->probe[0], WTERMSIG(status));
}

int nest_manifest_probe(const struct nest_manifest *manifest, uint32_t timeout_ms, char **ret_line,
	struct nest_err *err)
{
	struct probe probe = { .until_us = nest_clock_mono_us() + (uint64_t)timeout_ms * 1000 };
	nest_autofree char *output = malloc(OUTPUT_MAX + 1);
	nest_autoclose int out = -1;
	nest_autoclose int in = -1;
	int fds[2], rc, status;

	if (!manifest->probe[0])
		return 1;
	if (!output)
		return nest_err_set(err, -ENOMEM, "probe of runtime '%s'", manifest->name);
	rc = nest_fd_pipe(0, fds, err);
	if (rc < 0)
		return rc;
	out = probe.out = fds[0];
	in = fds[1];
	rc = spawn_into(manifest->probe, in, &probe.pid);
	if (rc < 0)
		return nest_err_set(err, rc, "probe of runtime '%s': run '%s'", manifest->name,
			manifest->probe[0]);
	close(nest_take_fd(in));
	rc = read_output(&probe, output);
	if (rc == 0)
		rc = wait_for_exit(&probe);
	status = reap(&probe);
	if (rc < 0)
		return nest_err_set(
			err, rc, "probe of runtime '%s': '%s'", manifest->name, manifest->probe[0]);
	rc = say_status(manifest, status, err);
	if (rc == 0)
		*ret_line = nest_take_ptr(output);
	return rc;
}
