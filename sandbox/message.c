/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "sandbox/sandbox.h"

/* One number of a START: where it lies and what it may be. */
struct field {
	const char *name;
	size_t offset;
	size_t width;
	uint64_t min;
	uint64_t max;
};

#define FIELD(member, least, most)                                                            \
	{                                                                                     \
		.name = #member, .offset = offsetof(struct nest_message_start, member),       \
		.width = sizeof(((struct nest_message_start *)NULL)->member), .min = (least), \
		.max = (most)                                                                 \
	}

static const struct field fields[] = {
	/* below this the kernel can't even execute a program in the cgroup */
	FIELD(memory_bytes, 1u << 20, 1ull << 48),
	/* a tmpfs takes size 0 for "no limit" */
	FIELD(tmp_bytes, 4096, 1ull << 48),
	FIELD(network, NEST_CELL_NETWORK_POD, NEST_CELL_NETWORK_NONE),
	FIELD(pids, 1, 1u << 20),
	FIELD(cpu_milli, 0, 1u << 20),
	FIELD(nofile, 16, 1u << 20),
	FIELD(snapshot, 0, 1),
	FIELD(standby, NEST_MESSAGE_STANDBY_NOT, NEST_MESSAGE_STANDBY_COPY),
	FIELD(argc, 1, NEST_MESSAGE_WORDS_MAX),
	FIELD(envc, 0, NEST_MESSAGE_WORDS_MAX),
	FIELD(strings_bytes, 2, NEST_MESSAGE_STRINGS_MAX),
};

static uint64_t read_field(const struct nest_message_start *start, const struct field *field)
{
	const char *at = (const char *)start + field->offset;
	uint64_t wide;
	uint32_t narrow;

	if (field->width == sizeof(wide)) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, at, sizeof(narrow));
	return narrow;
}

static int check_hostname(const char *name, struct nest_err *err)
{
	size_t len = strnlen(name, NEST_MESSAGE_HOSTNAME_MAX + 1);

	if (len == 0 || len > NEST_MESSAGE_HOSTNAME_MAX)
		return nest_err_say(err, -EINVAL, "hostname must have 1 to %d characters",
			NEST_MESSAGE_HOSTNAME_MAX);
	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			    (c >= '0' && c <= '9') || c == '-';

		if (!good)
			return nest_err_say(
				err, -EINVAL, "hostname may hold letters, digits and '-' only");
	}
	return 0;
}

static int check_strings(const struct nest_message_start *start, struct nest_err *err)
{
	uint32_t ends = 0;

	if (start->argc + start->envc > NEST_MESSAGE_WORDS_MAX)
		return nest_err_say(err, -EINVAL, "argv and envp have more than %u strings",
			NEST_MESSAGE_WORDS_MAX);
	if (start->strings[start->strings_bytes - 1] != '\0')
		return nest_err_say(err, -EINVAL, "the last string is not terminated");
	for (uint32_t i = 0; i < start->strings_bytes; i++)
		ends += start->strings[i] == '\0';
	if (ends != start->argc + start->envc)
		return nest_err_say(err, -EINVAL, "argv and envp hold %u strings, not %u", ends,
			start->argc + start->envc);
	if (start->strings[0] != '/')
		return nest_err_say(err, -EINVAL, "argv[0] must be an absolute path");
	return 0;
}

bool nest_message_is_wired(const struct nest_message_start *start)
{
	return start->head.type == NEST_MESSAGE_RESTORE || start->snapshot;
}

bool nest_message_check_key(const char *key)
{
	return strnlen(key, NEST_MESSAGE_KEY_CHARS + 1) == NEST_MESSAGE_KEY_CHARS &&
	       strspn(key, "0123456789abcdef") == NEST_MESSAGE_KEY_CHARS;
}

int nest_message_check_start(const struct nest_message_start *start, size_t n,
	const struct nest_message_range *uids, struct nest_err *err)
{
	bool restore = start->head.type == NEST_MESSAGE_RESTORE;
	int r;

	if (n < sizeof(*start) || start->head.size != n ||
		(!restore && start->head.type != NEST_MESSAGE_START))
		return nest_err_say(err, -EINVAL, "not a start message");
	if (restore ? !nest_message_check_key(start->key) : start->key[0] != '\0')
		return nest_err_say(
			err, -EINVAL, "the key must be %d hex digits", NEST_MESSAGE_KEY_CHARS);
	if (start->head.cell == 0)
		return nest_err_say(err, -EINVAL, "cell number 0");
	for (size_t i = 0; i < NEST_ARRAY_SIZE(fields); i++) {
		uint64_t value = read_field(start, &fields[i]);

		if (value < fields[i].min || value > fields[i].max)
			return nest_err_say(err, -EINVAL, "%s must be from %llu to %llu, not %llu",
				fields[i].name, (unsigned long long)fields[i].min,
				(unsigned long long)fields[i].max, (unsigned long long)value);
	}
	/* the kernel's shortest cpu quota is a millisecond in its period of 100 */
	if (start->cpu_milli != 0 && start->cpu_milli < 10)
		return nest_err_say(err, -EINVAL, "cpu_milli must be 0, or 10 at least, not %u",
			start->cpu_milli);
	if (start->uid < uids->base || start->uid - uids->base >= uids->count)
		return nest_err_say(err, -EINVAL, "uid %u is not in [%u, %llu)", start->uid,
			uids->base, (unsigned long long)uids->base + uids->count);
	if (n != sizeof(*start) + start->strings_bytes)
		return nest_err_say(err, -EINVAL, "strings_bytes is not what follows");
	r = check_hostname(start->hostname, err);
	return r < 0 ? r : check_strings(start, err);
}

int nest_message_check(const union nest_message *message, size_t n, uint32_t type, size_t size,
	struct nest_err *err)
{
	if (n != size || message->head.size != n || message->head.type != type)
		return nest_err_say(err, -EBADMSG,
			"a message of type %u and %zu bytes is malformed",
			n >= sizeof(message->head) ? message->head.type : 0, n);
	return 0;
}

void nest_message_begin(struct nest_message_head *head, uint32_t type, size_t size, uint64_t cell)
{
	*head = (struct nest_message_head){ .type = type, .size = (uint32_t)size, .cell = cell };
}

int nest_message_send(int sock, const void *message)
{
	const struct nest_message_head *head = message;

	return nest_fd_send(sock, message, head->size, NULL, 0);
}

/* Room for one SCM_CREDENTIALS; the union gives it the alignment of its header. */
union credentials {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(struct ucred))];
};

int nest_message_send_pid(int sock, const struct nest_message_started *message)
{
	struct ucred sender = { .pid = message->pid, .uid = geteuid(), .gid = getegid() };
	struct iovec iov = { .iov_base = (void *)message, .iov_len = sizeof(*message) };
	union credentials control = { .bytes = { 0 } };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_CREDENTIALS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(sender));
	memcpy(CMSG_DATA(cmsg), &sender, sizeof(sender));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) >= 0)
		return 0;
	return errno == EPERM ? nest_message_send(sock, message) : -errno;
}

ssize_t nest_message_recv_pid(int sock, union nest_message *ret, pid_t *ret_pid)
{
	struct iovec iov = { .iov_base = ret, .iov_len = sizeof(*ret) };
	union credentials control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *cmsg;
	ssize_t got;

	do
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	*ret_pid = 0;
	/*
	 * The kernel closes descriptors that have no room here, so a sender can't fill our table;
	 * MSG_CTRUNC is all that comes of them.
	 */
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return -EMSGSIZE;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_CREDENTIALS) {
		struct ucred sender;

		memcpy(&sender, CMSG_DATA(cmsg), sizeof(sender));
		*ret_pid = sender.pid;
	}
	return got;
}
