/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SANDBOX_H
#define NEST_SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

struct nest_err;

/*
 * The agent's end of the spawner: it launches the privileged process, and asks it for cells.
 * A *cell* is the isolation around one worker: namespaces, cgroup, seccomp, root file system, and
 * a PID 1 of ours in it. All but nest_sandbox_launch() runs on the loop thread.
 */
struct nest_sandbox;
struct nest_cell;

/* What the spawner must know; it copies all of it before it drops what it doesn't need. */
struct nest_sandbox_config {
	const char *instance;	       /* names this host's cgroups; [a-z0-9-], at most 32 */
	const char *state_dir;	       /* absolute, exists; masked inside cells */
	const char *runtimes_dir;      /* absolute; becomes /runtime in every cell, read-only */
	const char *const *root_paths; /* NULL-terminated, absolute: what a cell sees of the pool
					  image, read-only: /usr, /lib, /bin, /etc, ...; none in
					  /dev, /function, /proc, /runtime, /snapshot, /sys, /tmp */
	uid_t uid_base;	    /* functions' uids and gids are [uid_base, uid_base+uid_count); */
	uint32_t uid_count; /*   uid_base+uid_count itself is that of cells' PID 1 */
	uid_t agent_uid;    /* code directories must belong to it or to root */
	gid_t agent_gid;
	uint32_t pool_size;	 /* prepared cells kept ready with network "pod", 0..256 */
	uint32_t pool_size_none; /* the same with network "none" */
	uint32_t max_cells;	 /* 1..4096, running and prepared together */
	bool require_isolation; /* refuse to start where a namespace, cgroup or seccomp is missing */
	bool mount_images; /* the agent may have file-system images mounted: nest_image_mount() */
	bool snapshots;	   /* keep prepared cells ready to restore snapshots, if CRIU is there */
	const char *criu;  /* a program, or a prefix that has it; NULL or "": where it usually is */
	/* the file of the secret that sealed exports share (sandbox/snapshot_pack.h); NULL: none */
	const char *snapshots_secret;
	uint64_t snapshots_bytes; /* the store's bound; the longest unused go first; 0 = no bound */
	const char
		*spawner; /* its program; NULL: "nestlet-spawner" beside this one, or installed */
};

/* What a spawner said that it can do, and what the agent must remember of its config. */
struct nest_sandbox_terms;

/* The privileged child, between fork and open. */
struct nest_sandbox_spawner {
	int fd;	   /* agent's end of its socketpair, non-blocking */
	pid_t pid; /* of the spawner */
	struct nest_sandbox_terms *terms;
};

/*
 * Starts the spawner, a program of its own, which sets itself up (mount namespace, cgroup root, leftovers of this
 * instance's last life scrubbed) and answers ready or the error that stopped it. Call before any
 * thread exists, with all the privilege there is. Blocks until the spawner has answered.
 */
int nest_sandbox_launch(const struct nest_sandbox_config *config, struct nest_sandbox_spawner *ret,
	struct nest_err *err);

/*
 * Why the spawner mounts no images (nest_image_mount()), or "": it has mounted one to try. Lives as
 * long as its terms.
 */
const char *nest_sandbox_no_images(const struct nest_sandbox_spawner *spawner);

/* Whether it mounts images that are compressed with zstd, which kernels do since Linux 6.10. */
bool nest_sandbox_zstd_images(const struct nest_sandbox_spawner *spawner);

/* Ends a spawner that was never opened, and frees its terms. Blocks until it has exited. */
void nest_sandbox_dismiss(struct nest_sandbox_spawner *spawner);

/*
 * Attaches to @spawner, which is taken unless this fails. @on_lost is called once if the spawner
 * dies or breaks the protocol: every cell has then reported its exit before, and none can be
 * started any more.
 */
int nest_sandbox_open(uv_loop_t *loop, struct nest_sandbox_spawner spawner,
	void (*on_lost)(void *arg, const struct nest_err *why), void *arg,
	struct nest_sandbox **ret, struct nest_err *err);

/*
 * Kills every cell, waits for the spawner to leave nothing behind, then calls @cb and frees. Cells
 * report their exits before.
 */
void nest_sandbox_close(struct nest_sandbox *sandbox, void (*cb)(void *arg), void *arg);

/* Prepared cells waiting in the pool now, both networks together. */
uint32_t nest_sandbox_prepared(const struct nest_sandbox *sandbox);

/*
 * What cells do without on this machine: a line each, with the reason, or "". Each weakens the
 * isolation. Lives as long as @sandbox.
 */
const char *nest_sandbox_missing(const struct nest_sandbox *sandbox);

/* Calls @cb with what the spawner finds out later and an operator should know, for the host's log. */
void nest_sandbox_on_remark(
	struct nest_sandbox *sandbox, void (*cb)(void *arg, const char *remark), void *arg);

enum nest_cell_network {
	NEST_CELL_NETWORK_POD,	/* the pod's network namespace */
	NEST_CELL_NETWORK_NONE, /* its own, with only lo */
};

struct nest_cell_spec {
	const char *hostname; /* of the uts namespace; [A-Za-z0-9-], at most 63 */
	enum nest_cell_network network;
	uid_t uid;		 /* in the configured range; also the gid */
	uint64_t memory_bytes;	 /* cgroup limit, swap included */
	uint64_t tmp_bytes;	 /* size of /tmp, charged to memory too */
	uint32_t pids;		 /* processes and threads, our PID 1 not counted */
	uint32_t cpu_milli;	 /* 1000 = one core's worth of time; 0 = no limit */
	uint32_t nofile;	 /* RLIMIT_NOFILE */
	int code_fd;		 /* directory that becomes /function, read-only, or the file of an
				    image that is mounted; borrowed */
	int channel_fd;		 /* becomes fd 3; borrowed */
	int stdout_fd;		 /* borrowed; stdin is /dev/null */
	int stderr_fd;		 /* borrowed */
	bool standby;		 /* of a restore: nobody waits for it, so what it will read of its
				    memory and programs is mapped ahead */
	bool prefetch;		 /* of one with @standby: what it will write to is copied, too, as
				    far as that was learnt: nest_snapshot_learn() */
	bool snapshot;		 /* this worker is to be dumped: see nest_snapshot_start() */
	const char *const *argv; /* NULL-terminated; argv[0] absolute in the cell; argv and envp */
	const char *const *envp; /*   together at most 64 KiB */
};

enum nest_cell_cause {
	NEST_CELL_EXITED,   /* by itself; status is the exit code */
	NEST_CELL_SIGNALED, /* status is the signal */
	NEST_CELL_OOM,	    /* the kernel killed in it for want of memory */
	NEST_CELL_KILLED,   /* nest_cell_kill() */
	NEST_CELL_LOST,	    /* the spawner is gone */
	NEST_CELL_FAILED,   /* never ran: err says why */
};

struct nest_cell_exit {
	enum nest_cell_cause cause;
	int status;
	uint64_t memory_peak_bytes; /* 0 where the kernel doesn't say */
	uint64_t cpu_us;
	const struct nest_err *err; /* for NEST_CELL_FAILED, else NULL; valid during the callback */
};

struct nest_cell_events {
	/* The worker's program has been executed; @pid is its pid in the host's view. */
	void (*started)(struct nest_cell *cell, pid_t pid, void *arg);
	/*
	 * The cell and every process in it are gone, and so are its mounts and its cgroup. Called
	 * exactly once for each started cell, also when it never ran; @cell is freed after.
	 */
	void (*exited)(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg);
};

/* Where a cell with a root of its own has the code and the runtimes. */
#define NEST_SANDBOX_FUNCTION_DIR "/function"
#define NEST_SANDBOX_RUNTIME_DIR "/runtime"

/*
 * Starts a process in a prepared cell, or in one made for it when the pool is empty. Its working
 * directory is the code's; beside @envp it finds NESTLET_FUNCTION_DIR and NESTLET_RUNTIME_DIR:
 * /function and /runtime. On a machine that gives cells no root of their own these are the real
 * paths, and a leading /runtime/ in an argument is replaced by the second. The descriptors are
 * borrowed until this returns. On success *@ret lives until its exited callback has returned; no
 * callback comes before this returns. -EAGAIN: max_cells are in use; -EINVAL: a field is out of its
 * range; -EPIPE: the spawner is lost.
 */
int nest_cell_start(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const struct nest_cell_events *events, void *arg, struct nest_cell **ret,
	struct nest_err *err);

/* Kills every process of the cell at once (SIGKILL); exited follows. More calls do nothing. */
void nest_cell_kill(struct nest_cell *cell);

/* Can cells be frozen on this machine? It takes cgroup v2, or v1's freezer. */
bool nest_sandbox_can_freeze(const struct nest_sandbox *sandbox);

/*
 * Stops every process of the started cell where it is, so that it takes no CPU time until it is
 * thawed; it is killed and measured as before. The kernel does it soon after, not at once. A cell
 * that can't be frozen runs on, one that can't be thawed is killed. -errno: not asked, -EPIPE: the
 * spawner is lost. More calls do nothing.
 */
int nest_cell_freeze(struct nest_cell *cell);
int nest_cell_thaw(struct nest_cell *cell);

struct nest_cell_usage {
	uint64_t memory_bytes; /* charged to its cgroup, or summed resident memory without one */
	uint64_t memory_peak_bytes;
	uint64_t private_bytes; /* of these, what is only its own: its end would give it back */
	uint64_t shared_bytes; /* of files that it has mapped: others may have the same in memory */
	uint64_t cpu_us;
	uint32_t pids;
};

/*
 * Asks what the cell uses now. @cb is called once, never before this returns, unless the cell exits
 * first: then never. -EALREADY while one asking is under way.
 */
int nest_cell_measure(struct nest_cell *cell,
	void (*cb)(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg),
	void *arg);

/* A file-system image that the spawner mounts for cells: its file can be a cell's code_fd. */
struct nest_image;

/*
 * Has the EROFS image in @file (borrowed; a regular file of the agent's) mounted read-only, without
 * devices and set-uid programs, once for all cells, where only they see it. @cb is called once,
 * never before this returns, with NULL when it is mounted, or why not: then *@ret is freed after.
 * -EOPNOTSUPP there: not configured, or cells have no root of their own on this machine.
 */
int nest_image_mount(struct nest_sandbox *sandbox, int file,
	void (*cb)(void *arg, const struct nest_err *err), void *arg, struct nest_image **ret,
	struct nest_err *err);

/*
 * Unmounts it for cells to come, and frees; those that have it keep it. Before @cb was called: it
 * won't be any more, and the image is unmounted once it is mounted. NULL is fine.
 */
void nest_image_unmount(struct nest_image *image);

#endif
