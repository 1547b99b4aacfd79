/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_MESSAGE_H
#define NEST_SANDBOX_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * What the agent, the spawner and a cell's init say to each other: one datagram each, over
 * SOCK_SEQPACKET socket pairs inside one host. Fixed layout, the machine's own byte order; every
 * message begins with a head whose size is the datagram's. Descriptors travel beside START and RUN
 * in the order of enum nest_message_fd; the image beside MOUNT.
 */
enum nest_message_type {
	/* from the agent */
	NEST_MESSAGE_START = 1, /* struct nest_message_start, four descriptors or one */
	NEST_MESSAGE_KILL,	/* head */
	NEST_MESSAGE_MEASURE,	/* head */
	NEST_MESSAGE_MOUNT,	/* head, with an image's number instead of a cell's; its file */
	NEST_MESSAGE_UNMOUNT,	/* head, the same */
	NEST_MESSAGE_RESTORE,	/* struct nest_message_start with a key; the code's descriptor */
	NEST_MESSAGE_DUMP,	/* struct nest_message_dump */
	NEST_MESSAGE_FORGET,	/* struct nest_message_dump; cell 0 */
	NEST_MESSAGE_LIST,	/* head */
	NEST_MESSAGE_FREEZE,	/* head */
	NEST_MESSAGE_THAW,	/* head */
	NEST_MESSAGE_LEARN,	/* head */
	NEST_MESSAGE_EXPORT,	/* struct nest_message_dump; cell 0; a pipe to write to */
	NEST_MESSAGE_IMPORT,	/* the same; the directory of an unpacked export */

	/* to the agent */
	NEST_MESSAGE_READY = 16, /* struct nest_message_ready; the first one, exactly once */
	NEST_MESSAGE_STARTED,	 /* struct nest_message_started */
	NEST_MESSAGE_EXITED,	 /* struct nest_message_exited */
	NEST_MESSAGE_USAGE,	 /* struct nest_message_usage */
	NEST_MESSAGE_POOL,	 /* struct nest_message_pool */
	NEST_MESSAGE_REFUSED,	 /* struct nest_message_failed: a request that was none */
	NEST_MESSAGE_MOUNTED,	 /* struct nest_message_failed: code 0 if it is */
	NEST_MESSAGE_WIRED, /* head, three descriptors in the order of struct nest_snapshot_wires */
	NEST_MESSAGE_DUMPED,	/* struct nest_message_dumped */
	NEST_MESSAGE_SNAPSHOT,	/* struct nest_message_snapshot; the last of a list has no key */
	NEST_MESSAGE_REMARK,	/* struct nest_message_failed: what the host's log should say */
	NEST_MESSAGE_EXCHANGED, /* struct nest_message_exchanged: an EXPORT or IMPORT has ended */

	/* from a cell's init to the spawner; a START is forwarded to it as it is */
	NEST_MESSAGE_PREPARED = 32, /* head: waiting for its START */
	NEST_MESSAGE_WORKER,	    /* struct nest_message_started, see nest_message_send_pid() */
	NEST_MESSAGE_RUNNING,	    /* head: the program has been executed */
	NEST_MESSAGE_ENDED,	    /* struct nest_message_ended */
	NEST_MESSAGE_FAILED,	    /* struct nest_message_failed */
};

enum nest_message_fd {
	NEST_MESSAGE_FD_CODE, /* from the agent a directory, or the file of a mounted image; to the
				 init a detached mount of it */
	NEST_MESSAGE_FD_CHANNEL,
	NEST_MESSAGE_FD_STDOUT,
	NEST_MESSAGE_FD_STDERR,
	NEST_MESSAGE_FD_COUNT,
	/* where the init keeps the dumper's socket, which comes last beside what has @snapshot */
	NEST_MESSAGE_FD_DUMPER = NEST_MESSAGE_FD_COUNT,
	NEST_MESSAGE_FD_MOST,
	/* beside a RESTORE: the code, and to the init a detached mount of the snapshot */
	NEST_MESSAGE_FD_IMAGES = NEST_MESSAGE_FD_CHANNEL,
	/* and of what that was made upon, and the dumper's socket: where there are such, in this order */
	NEST_MESSAGE_FD_PARENT = NEST_MESSAGE_FD_STDOUT,
};

#define NEST_MESSAGE_HOSTNAME_MAX 63
#define NEST_MESSAGE_KEY_CHARS 64
#define NEST_MESSAGE_STRINGS_MAX 65536u /* bytes of argv and envp, NULs counted */
#define NEST_MESSAGE_WORDS_MAX 4096u	/* of argv and envp together */
#define NEST_MESSAGE_MISSING_MAX 2048u

struct nest_message_head {
	uint32_t type;
	uint32_t size; /* of the whole message */
	uint64_t cell; /* the agent's number for it, never 0; 0 where no cell is meant */
};

/* How the snapshot of a RESTORE stands to a parent. */
enum nest_message_parent {
	NEST_MESSAGE_PARENT_NONE,
	NEST_MESSAGE_PARENT_ITSELF,
	NEST_MESSAGE_PARENT_BESIDE, /* a mount of it comes, too */
};

/* What is done ahead for a RESTORE that nobody waits for yet. */
enum nest_message_standby {
	NEST_MESSAGE_STANDBY_NOT,  /* somebody does */
	NEST_MESSAGE_STANDBY_MAP,  /* what the clone will read is mapped */
	NEST_MESSAGE_STANDBY_COPY, /* and what it will write to is copied */
};

struct nest_message_start {
	struct nest_message_head head;
	uint64_t memory_bytes;
	uint64_t tmp_bytes;
	uint32_t network; /* enum nest_cell_network */
	uint32_t uid;
	uint32_t pids;
	uint32_t cpu_milli;
	uint32_t nofile;
	uint32_t argc;
	uint32_t envc;
	uint32_t strings_bytes;
	uint32_t snapshot; /* 1: to be dumped, 0 */
	uint32_t standby;  /* enum nest_message_standby */
	/* the spawner's word to the init, of a RESTORE: */
	uint32_t verify; /* its digests are to be checked */
	uint32_t parent; /* enum nest_message_parent */
	uint32_t verify_parent;
	char key[NEST_MESSAGE_KEY_CHARS + 4]; /* "": a plain start; no padding may follow it */
	char hostname[NEST_MESSAGE_HOSTNAME_MAX + 1];
	char strings[]; /* argc + envc NUL-terminated strings */
};
/* What check_start() measures begins there. */
_Static_assert(offsetof(struct nest_message_start, strings) == sizeof(struct nest_message_start),
	"strings follow the whole head");

struct nest_message_ready {
	struct nest_message_head head;
	struct nest_err err;			/* code 0: the spawner stands */
	uint32_t have;				/* enum nest_footing_bit, or-ed */
	char missing[NEST_MESSAGE_MISSING_MAX]; /* a line for each thing this machine lacks */
	char no_snapshots[256];			/* why, or "" */
	char criu[256];				/* the program that makes snapshots, or "" */
	char no_images[256];			/* why none is mounted, or "" */
	uint32_t zstd_images;			/* 1: the kernel reads zstd in images, 0 */
};

struct nest_message_started {
	struct nest_message_head head;
	int32_t pid;
};

struct nest_message_exited {
	struct nest_message_head head;
	uint32_t cause; /* enum nest_cell_cause */
	int32_t status;
	uint64_t memory_peak_bytes;
	uint64_t cpu_us;
	struct nest_err err;
};

struct nest_message_usage {
	struct nest_message_head head;
	uint64_t memory_bytes;
	uint64_t memory_peak_bytes;
	uint64_t private_bytes;
	uint64_t shared_bytes;
	uint64_t cpu_us;
	uint32_t pids;
};

struct nest_message_dump {
	struct nest_message_head head;
	uint32_t memory; /* enum nest_snapshot_memory */
	uint32_t is_parent;
	char key[NEST_MESSAGE_KEY_CHARS + 1];
};

struct nest_message_dumped {
	struct nest_message_head head;
	uint64_t bytes;
	struct nest_err err; /* code 0: the snapshot stands */
};

struct nest_message_snapshot {
	struct nest_message_head head;
	uint64_t bytes;
	uint64_t made_s;
	uint32_t memory;
	uint32_t is_parent;
	char key[NEST_MESSAGE_KEY_CHARS + 1];
	char parent[NEST_MESSAGE_KEY_CHARS + 1]; /* "": none */
};

struct nest_message_exchanged {
	struct nest_message_head head;
	struct nest_message_snapshot view; /* of what was imported */
	struct nest_err err;		   /* code 0: done */
};

struct nest_message_pool {
	struct nest_message_head head;
	uint32_t prepared;
};

struct nest_message_ended {
	struct nest_message_head head;
	int32_t wait_status; /* as wait(2) gives it */
};

struct nest_message_failed {
	struct nest_message_head head;
	struct nest_err err;
};

/* Room for the largest message. */
union nest_message {
	struct nest_message_head head;
	struct nest_message_start start;
	struct nest_message_ready ready;
	struct nest_message_started started;
	struct nest_message_exited exited;
	struct nest_message_usage usage;
	struct nest_message_pool pool;
	struct nest_message_dump dump;
	struct nest_message_dumped dumped;
	struct nest_message_snapshot snapshot;
	struct nest_message_exchanged exchanged;
	struct nest_message_ended ended;
	struct nest_message_failed failed;
	char room[sizeof(struct nest_message_start) + NEST_MESSAGE_STRINGS_MAX];
};

/* Which uids a START may name. */
struct nest_message_range {
	uid_t base;
	uint32_t count;
};

/*
 * Is the worker of @start wired by its cell? Then only the code's descriptor comes with it, and a WIRED
 * is told. So is a clone, and a worker that is to be dumped, whose channel must be of its cell's network
 * namespace. Any thread.
 */
bool nest_message_is_wired(const struct nest_message_start *start);

/* Is @key 64 lower-case hex digits and a NUL? Any thread. */
bool nest_message_check_key(const char *key);

/*
 * Checks every field of a START or RESTORE of @n bytes, without its descriptors: 0, or -EINVAL naming the
 * field and its range. After 0 the strings are all terminated. Any thread.
 */
int nest_message_check_start(const struct nest_message_start *start, size_t n,
	const struct nest_message_range *uids, struct nest_err *err);

/*
 * 0 if @n bytes are one message of @type whose fixed part is @size bytes, else -EBADMSG. Any thread.
 */
int nest_message_check(const union nest_message *message, size_t n, uint32_t type, size_t size,
	struct nest_err *err);

/* Fills in the head. Any thread. */
void nest_message_begin(struct nest_message_head *head, uint32_t type, size_t size, uint64_t cell);

/* Sends @message, which a head begins, without descriptors; blocks as @sock does. 0 or -errno. */
int nest_message_send(int sock, const void *message);

/*
 * Sends @message, the kernel vouching for the process with its @pid as the sender: the receiver
 * reads that as a pid of its own namespace. Without CAP_SYS_ADMIN the sender is the caller. 0 or
 * -errno.
 */
int nest_message_send_pid(int sock, const struct nest_message_started *message);

/*
 * Receives one message without descriptors from a socket with SO_PASSCRED; *@ret_pid is its
 * sender's pid as this process sees it. Returns bytes, 0 at end of stream, -errno.
 */
ssize_t nest_message_recv_pid(int sock, union nest_message *ret, pid_t *ret_pid);

#endif
