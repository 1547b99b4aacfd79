/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/criu_rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/wire.h"

/* Before it was asked or after. */
#define ENDED "CRIU ended without an answer"
#define OWN_PREFIX "/usr/local/lib/nestlet/criu"
#define ANSWER_MAX 65536
#define GHOST_LIMIT (64u << 20) /* bytes of a deleted file that is still open */
#define FIRST_FREE_FD (NEST_CRIU_RPC_WIRE_FD + NEST_CRIU_RPC_WIRES)
#define LIFTED_FD 16
/* Of SO_PASSCRED, which Linux 6.16 took from sockets that can't pass any. */
#define NO_INET "sockets: Can't get 1:16 opt: "

/* Numbers of CRIU's images/rpc.proto; they are part of its interface. */
enum {
	REQ_TYPE = 1,
	REQ_OPTS = 2,
	REQ_KEEP_OPEN = 4,
	REQ_FEATURES = 5
};
enum {
	TYPE_DUMP = 1,
	TYPE_RESTORE = 2,
	TYPE_FEATURE_CHECK = 9
};
enum {
	FEATURES_PIDFD_STORE = 3
};
enum {
	RESP_TYPE = 1,
	RESP_SUCCESS = 2,
	RESP_RESTORE = 4,
	RESP_ERRNO = 7,
	RESP_ERRMSG = 9
};
enum {
	RESTORE_PID = 1
};
enum {
	INHERIT_KEY = 1,
	INHERIT_FD = 2
};
enum {
	MODE_IGNORE = 0,
	LOCK_SKIP = 3
};
enum {
	OPT_IMAGES_DIR_FD = 1,
	OPT_PID = 2,
	OPT_FILE_LOCKS = 8,
	OPT_LOG_LEVEL = 9,
	OPT_LOG_FILE = 10,
	OPT_RST_SIBLING = 26,
	OPT_INHERIT_FD = 27,
	OPT_MANAGE_CGROUPS_MODE = 34,
	OPT_GHOST_LIMIT = 35,
	OPT_EXTERNAL = 37,
	OPT_TCP_CLOSE = 52,
	OPT_NETWORK_LOCK = 64,
	OPT_SKIP_FILE_RWX_CHECK = 66,
	OPT_IMAGES_DIR = 68,
	OPT_LEAVE_STOPPED = 69,
	OPT_LOG_TO_STDERR = 71,
};

/* ---- the process ---- */

/* Moves *@fd above the places that are about to be filled. */
static int lift(int *fd)
{
	if (*fd < 0)
		return 0;
	*fd = fcntl(*fd, F_DUPFD_CLOEXEC, LIFTED_FD);
	return *fd < 0 ? -errno : 0;
}

static int place(int fd, int to)
{
	if (fd < 0)
		return close(to) < 0 && errno != EBADF ? -errno : 0;
	return dup2(fd, to) < 0 ? -errno : 0;
}

/* Nobody but root may have put it there, or change it. */
static bool is_of_root(const char *path, mode_t type)
{
	struct stat st;

	return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == 0 &&
	       (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static void find_standins(const char *prefix, struct nest_criu_rpc_program *ret)
{
	char dir[sizeof(ret->standins)], pattern[sizeof(dir) + 8];
	glob_t found = { .gl_pathc = 0 };
	int n = snprintf(dir, sizeof(dir), "%s/usr/lib/nestlet", prefix);
	bool good = n > 0 && (size_t)n < sizeof(dir) && is_of_root(dir, S_IFDIR);

	snprintf(pattern, sizeof(pattern), "%s/*.so.*", dir);
	good = good && glob(pattern, 0, NULL, &found) == 0;
	for (size_t i = 0; good && i < found.gl_pathc; i++)
		good = is_of_root(found.gl_pathv[i], S_IFREG);
	if (good)
		memcpy(ret->standins, dir, sizeof(dir));
	globfree(&found);
}

/* CRIU with a libc of its own, below @prefix as tools/install-deps puts it there. */
static bool find_in_prefix(const char *prefix, struct nest_criu_rpc_program *ret)
{
	char binary[sizeof(ret->binary)], pattern[sizeof(ret->path)];
	glob_t found = { .gl_pathc = 0 };
	int n = snprintf(binary, sizeof(binary), "%s/usr/sbin/criu", prefix);
	int m = snprintf(pattern, sizeof(pattern), "%s/usr/lib/*/ld-linux*.so.*", prefix);
	bool there = n > 0 && (size_t)n < sizeof(binary) && m > 0 && (size_t)m < sizeof(pattern) &&
		     access(binary, X_OK) == 0 && glob(pattern, 0, NULL, &found) == 0 &&
		     strlen(found.gl_pathv[0]) < sizeof(ret->path);

	if (there) {
		const char *loader = found.gl_pathv[0];

		snprintf(ret->path, sizeof(ret->path), "%s", loader);
		snprintf(ret->libraries, sizeof(ret->libraries), "%.*s",
			(int)(strrchr(loader, '/') - loader), loader);
		memcpy(ret->binary, binary, sizeof(binary));
		find_standins(prefix, ret);
	}
	globfree(&found);
	return there;
}

static bool find_program(const char *path, struct nest_criu_rpc_program *ret)
{
	struct stat st;

	if (strlen(path) >= sizeof(ret->path) || stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
		access(path, X_OK) < 0)
		return false;
	snprintf(ret->path, sizeof(ret->path), "%s", path);
	snprintf(ret->binary, sizeof(ret->binary), "%s", path);
	return true;
}

int nest_criu_rpc_find(const char *wanted, struct nest_criu_rpc_program *ret, struct nest_err *err)
{
	*ret = (struct nest_criu_rpc_program){ .path = "" };
	if (wanted && *wanted) {
		if (find_program(wanted, ret) || find_in_prefix(wanted, ret))
			return 0;
		return nest_err_say(err, -ENOENT,
			"snapshots.criu: '%s' is neither a program nor a prefix that has CRIU",
			wanted);
	}
	if (find_in_prefix(OWN_PREFIX, ret) || find_program("/usr/sbin/criu", ret) ||
		find_program("/usr/local/sbin/criu", ret))
		return 0;
	return nest_err_say(err, -ENOENT, "CRIU is not installed (tools/install-deps does it)");
}

static void execute(const struct nest_criu_rpc_program *program, const char *fd)
{
	char libraries[sizeof(program->standins) + sizeof(program->libraries)];
	const char *own[] = { program->path, "--argv0", "criu", "--library-path", libraries,
		program->binary, "swrk", fd, NULL };
	const char *plain[] = { program->path, "swrk", fd, NULL };
	/* what it calls is looked up at its start, and not, once more in each process, while it restores */
	const char *envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_BIND_NOW=1", NULL };

	snprintf(libraries, sizeof(libraries), "%s%s%s", program->standins,
		program->standins[0] ? ":" : "", program->libraries);
	execve(program->path, (char *const *)(program->libraries[0] ? own : plain),
		(char *const *)envp);
}

int nest_criu_rpc_become(const struct nest_criu_rpc_program *program, int sock, int images,
	const int wires[NEST_CRIU_RPC_WIRES], int log)
{
	int lifted[NEST_CRIU_RPC_WIRES + 4] = { sock, images, wires[0], wires[1], wires[2],
		open("/dev/null", O_RDWR | O_CLOEXEC), log };
	char fd[16];
	sigset_t none;
	int null = NEST_CRIU_RPC_WIRES + 2;
	int r = 0;

	for (size_t i = 0; r == 0 && i < NEST_ARRAY_SIZE(lifted); i++)
		r = lift(&lifted[i]);
	for (int i = 0; r == 0 && i < null; i++)
		r = place(lifted[i], NEST_CRIU_RPC_SOCKET_FD + i);
	for (int i = 0; r == 0 && i < NEST_CRIU_RPC_SOCKET_FD; i++)
		r = place(lifted[null], i);
	if (r == 0 && lifted[null + 1] >= 0)
		r = place(lifted[null + 1], STDERR_FILENO);
	if (r < 0)
		return r;
	close_range(FIRST_FREE_FD, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	snprintf(fd, sizeof(fd), "%d", NEST_CRIU_RPC_SOCKET_FD);
	execute(program, fd);
	return -errno;
}

/* ---- requests ---- */

static int send_request(int sock, const struct nest_buf *request, int r, struct nest_err *err)
{
	ssize_t n;

	if (r < 0)
		return nest_err_set(err, r, "build a request to CRIU");
	n = send(sock, nest_buf_bytes(request), request->len, MSG_NOSIGNAL);
	if (n < 0 && errno == EPIPE)
		return nest_err_say(err, -EPIPE, ENDED);
	return n < 0 ? nest_err_set(err, -errno, "ask CRIU") : 0;
}

struct answer {
	bool success;
	int64_t error;
	pid_t pid;
	char message[256];
};

static int read_pid(struct nest_wire in, pid_t *ret)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0)
		if (field.number == RESTORE_PID && field.type == NEST_WIRE_VARINT)
			*ret = (pid_t)field.value;
	return r;
}

static int parse_answer(struct nest_wire in, struct answer *ret)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		if (field.number == RESP_SUCCESS && field.type == NEST_WIRE_VARINT)
			ret->success = field.value == 1;
		else if (field.number == RESP_ERRNO && field.type == NEST_WIRE_VARINT)
			ret->error = (int64_t)field.value;
		else if (field.number == RESP_ERRMSG && field.type == NEST_WIRE_BYTES)
			snprintf(ret->message, sizeof(ret->message), "%.*s",
				(int)(field.in.left > 255 ? 255 : field.in.left),
				(const char *)field.in.at);
		else if (field.number == RESP_RESTORE && field.type == NEST_WIRE_BYTES)
			r = read_pid(field.in, &ret->pid);
		if (r < 0)
			return r;
	}
	return r;
}

void nest_criu_rpc_name_cause(const char *log, struct nest_err *err)
{
	for (const char *at = strstr(log, "Error ("); at; at = strstr(at, "Error (")) {
		const char *text = strstr(at, "): ");
		size_t n;

		if (!text)
			return;
		text += 3;
		n = strcspn(text, "\n");
		at = text + n;
		if (strncmp(text, "rlimit: ", 8) == 0 || strncmp(text, "tun: ", 5) == 0)
			continue;
		if (strncmp(text, NO_INET, strlen(NO_INET)) == 0)
			nest_err_say(err, err->code,
				"an internet socket is open that is no connection: CRIU before 4.2 "
				"can't freeze one on Linux 6.16 and later");
		else
			nest_err_say(err, err->code, "%.*s", (int)n, text);
		return;
	}
}

/* The text of "Error (criu/files.c:12): why\n" alone, for it ends up in a log line. */
static const char *plain_text(char *message)
{
	char *at = strstr(message, "): ");

	message[strcspn(message, "\n")] = '\0';
	return at && strncmp(message, "Error (", 7) == 0 ? at + 3 : message;
}

/*
 * Until there is something to be read from @sock, or process @pidfd has ended. What CRIU forks to try
 * the kernel out has the socket, too, and outlives a CRIU that was killed.
 */
static void await_word(int sock, int pidfd)
{
	struct pollfd polled[] = {
		{ .fd = sock, .events = POLLIN },
		{ .fd = pidfd, .events = POLLIN },
	};

	while (poll(polled, NEST_ARRAY_SIZE(polled), -1) < 0 && errno == EINTR)
		continue;
}

/* @pidfd: CRIU's process, or -1: only the socket tells of its end. */
static int await_answer(int sock, int pidfd, struct answer *ret, struct nest_err *err)
{
	static uint8_t bytes[ANSWER_MAX];
	ssize_t n;
	int r;

	*ret = (struct answer){ .pid = 0 };
	if (pidfd >= 0)
		await_word(sock, pidfd);
	do
		n = recv(sock, bytes, sizeof(bytes), pidfd >= 0 ? MSG_DONTWAIT : 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return nest_err_say(err, n < 0 && errno != EAGAIN ? -errno : -EPIPE, ENDED);
	r = parse_answer((struct nest_wire){ .at = bytes, .left = (size_t)n }, ret);
	if (r < 0)
		return nest_err_say(err, r, "CRIU's answer is malformed");
	if (ret->success)
		return 0;
	if (ret->message[0])
		return nest_err_say(err, -EIO, "%s", plain_text(ret->message));
	return nest_err_say(err, -EIO, "CRIU does not say why (error %lld)", (long long)ret->error);
}

int nest_criu_rpc_prime(int sock, struct nest_err *err)
{
	struct nest_buf request = NEST_BUF_INIT;
	struct nest_buf features = NEST_BUF_INIT;
	int r = nest_wire_put_varint(&features, FEATURES_PIDFD_STORE, 1);

	if (r == 0)
		r = nest_wire_put_varint(&request, REQ_TYPE, TYPE_FEATURE_CHECK);
	if (r == 0)
		r = nest_wire_put_varint(&request, REQ_KEEP_OPEN, 1);
	if (r == 0)
		r = nest_wire_put_bytes(
			&request, REQ_FEATURES, nest_buf_bytes(&features), features.len);
	r = send_request(sock, &request, r, err);
	nest_buf_done(&features);
	nest_buf_done(&request);
	return r;
}

int nest_criu_rpc_await_primed(int sock, struct nest_err *err)
{
	struct answer answer;

	return await_answer(sock, -1, &answer, err);
}

struct option {
	uint32_t number;
	uint64_t value;
};

static int put_options(struct nest_buf *out, const struct option *options, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = nest_wire_put_varint(out, options[i].number, options[i].value);
	return r;
}

/* Sends @opts, unless building them ended with @r < 0, as a request of @type. */
static int order(int sock, unsigned type, const struct nest_buf *opts, int r, struct nest_err *err)
{
	struct nest_buf request = NEST_BUF_INIT;

	if (r == 0)
		r = nest_wire_put_varint(&request, REQ_TYPE, type);
	if (r == 0)
		r = nest_wire_put_bytes(&request, REQ_OPTS, nest_buf_bytes(opts), opts->len);
	r = send_request(sock, &request, r, err);
	nest_buf_done(&request);
	return r;
}

int nest_criu_rpc_dump(int sock, int pidfd, pid_t pid, uint64_t channel_ino, struct nest_err *err)
{
	const struct option options[] = {
		/* no descriptor of ours is known to CRIU; its own are, by the path below */
		{ OPT_IMAGES_DIR_FD, (uint64_t)-1 },
		{ OPT_PID, (uint64_t)pid },
		/* its cell is killed when all is on disk */
		{ OPT_LEAVE_STOPPED, 1 },
		{ OPT_LOG_LEVEL, 1 },
		{ OPT_MANAGE_CGROUPS_MODE, MODE_IGNORE },
		{ OPT_GHOST_LIMIT, GHOST_LIMIT },
		{ OPT_TCP_CLOSE, 1 },
		{ OPT_FILE_LOCKS, 1 },
		{ OPT_NETWORK_LOCK, LOCK_SKIP },
	};
	struct nest_buf opts = NEST_BUF_INIT;
	struct answer answer;
	char text[64];
	int r = put_options(&opts, options, NEST_ARRAY_SIZE(options));

	snprintf(text, sizeof(text), "/proc/self/fd/%d", NEST_CRIU_RPC_IMAGES_FD);
	if (r == 0)
		r = nest_wire_put_string(&opts, OPT_IMAGES_DIR, text);
	if (r == 0)
		r = nest_wire_put_string(&opts, OPT_LOG_FILE, NEST_CRIU_RPC_LOG);
	snprintf(text, sizeof(text), "unix[%llu]", (unsigned long long)channel_ino);
	if (r == 0)
		r = nest_wire_put_string(&opts, OPT_EXTERNAL, text);
	r = order(sock, TYPE_DUMP, &opts, r, err);
	nest_buf_done(&opts);
	return r < 0 ? r : await_answer(sock, pidfd, &answer, err);
}

static int put_inherited(struct nest_buf *opts)
{
	int r = 0;

	for (int i = 0; r == 0 && i < NEST_CRIU_RPC_WIRES; i++) {
		struct nest_buf inherited = NEST_BUF_INIT;
		char key[40];

		snprintf(key, sizeof(key), "%s:[%u]",
			i == NEST_CRIU_RPC_CHANNEL ? "socket" : "pipe", NEST_CRIU_RPC_WIRE_INO(i));
		r = nest_wire_put_string(&inherited, INHERIT_KEY, key);
		if (r == 0)
			r = nest_wire_put_varint(
				&inherited, INHERIT_FD, (uint64_t)(NEST_CRIU_RPC_WIRE_FD + i));
		if (r == 0)
			r = nest_wire_put_bytes(
				opts, OPT_INHERIT_FD, nest_buf_bytes(&inherited), inherited.len);
		nest_buf_done(&inherited);
	}
	return r;
}

int nest_criu_rpc_restore(int sock, int images, struct nest_err *err)
{
	const struct option options[] = {
		{ OPT_IMAGES_DIR_FD, (uint64_t)images },
		{ OPT_LOG_LEVEL, 1 },
		{ OPT_LOG_TO_STDERR, 1 },
		{ OPT_RST_SIBLING, 1 },
		{ OPT_MANAGE_CGROUPS_MODE, MODE_IGNORE },
		{ OPT_TCP_CLOSE, 1 },
		{ OPT_FILE_LOCKS, 1 },
		{ OPT_NETWORK_LOCK, LOCK_SKIP },
		{ OPT_SKIP_FILE_RWX_CHECK, 1 },
	};
	struct nest_buf opts = NEST_BUF_INIT;
	int r = put_options(&opts, options, NEST_ARRAY_SIZE(options));

	if (r == 0)
		r = put_inherited(&opts);
	r = order(sock, TYPE_RESTORE, &opts, r, err);
	nest_buf_done(&opts);
	return r;
}

int nest_criu_rpc_await_restored(int sock, pid_t *ret_pid, struct nest_err *err)
{
	struct answer answer;
	int r = await_answer(sock, -1, &answer, err);

	if (r == 0)
		*ret_pid = answer.pid;
	return r;
}
