/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_HOST_H
#define NEST_RUNTIME_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "base/log.h"
#include "runtime/call.h"
#include "runtime/failure.h"
#include "runtime/recycle.h"

struct nest_alias;
struct nest_alias_asker;
struct nest_err;
struct nest_function_code;
struct nest_function_spec;

/*
 * The whole of what the agent drives: functions with their versions and workers, the code cache,
 * the cells. Loop thread only, but for nest_host_prefork().
 */
struct nest_host;
/* One version of one function, deployed: where calls go. Valid until it is removed. */
struct nest_target;

struct nest_host_config {
	/* cells (see sandbox/sandbox.h for each) */
	const char *instance;
	const char *state_dir;		  /* code/, logs/ are made below it */
	const char *runtimes_dir;	  /* runtimes/manifests/ *.json describe the runtimes */
	const char *const *manifest_dirs; /* NULL-terminated: more manifests, later ones win */
	bool huge_text;			  /* the runtimes' code is to be kept in huge pages */
	const char *const *root_paths;
	uid_t uid_base;
	uint32_t uid_count;
	uid_t agent_uid;
	gid_t agent_gid;
	uint32_t pool_size;
	uint32_t pool_size_none;
	uint32_t max_cells;
	const char *spawner;
	uint64_t workers_bytes; /* of memory for all workers together; 0: no limit */
	bool require_isolation;
	/* snapshots */
	bool snapshots;
	bool snapshot_layers;		/* functions' are made upon their runtime's */
	const char *criu;		/* a program or a prefix; "": where it usually is */
	uint64_t snapshots_bytes;	/* the store's bound; 0: none */
	const char *snapshots_store;	/* URL of a server that hosts share; "": none */
	const char *snapshots_key_file; /* of the secret that seals them */
	uint32_t restore_timeout_ms;	/* a slower restore is given up for a plain start */
	uint32_t hook_timeout_ms;	/* of a function's hooks around its snapshot */
	uint64_t standby_bytes;		/* memory of clones that stand by; 0: none do */
	uint32_t standby_per_function;
	uint32_t standby_prefetched; /* clones that stand by with what they will write to copied */
	/* code cache */
	uint64_t cache_bytes;
	uint64_t code_bytes; /* one function's code, unpacked */
	uint64_t code_entries;
	uint64_t upload_bytes; /* one artifact as uploaded or downloaded */
	/* downloads (see loader/fetcher.h for each) */
	bool allow_unverified;
	const char *ca_file;
	const char *credentials_file;
	uint32_t fetch_connections;
	uint32_t fetch_timeout_ms;
	uint32_t fetch_connect_timeout_ms;
	uint32_t fetch_stall_ms;
	uint32_t fetch_retries;
	uint32_t fetch_backoff_ms;
	const struct nest_function_code *preload; /* is loaded into the cache at once */
	uint32_t npreload;
	const char *const *image_sources; /* NULL-terminated: whose EROFS images may be mounted; see
					     loader/loader.h */
	/* workers */
	uint64_t response_bytes;  /* most bytes of one event's buffered... 0 = no limit */
	uint32_t cancel_grace_ms; /* a worker that does not give a slot back is killed after this */
	uint32_t ping_interval_ms;
	uint32_t ping_timeout_ms;
	uint32_t drain_grace_ms; /* an old worker's requests may take this long */
	uint32_t log_line_bytes; /* longer lines are cut, and say so */
	/*
	 * What happened to a function that an operator should read: a crash, a worker killed, a start that
	 * failed. Once for each; may be NULL.
	 */
	void (*on_event)(void *arg, enum nest_log_level level, const char *message);
	void *event_arg;
};

/*
 * What must happen before threads exist and privilege is dropped: forks the spawner, tries this machine's
 * features. The caller gives *@ret to nest_host_open(). Blocks. Returns in the parent only.
 */
struct nest_host_prefork;
int nest_host_prefork(const struct nest_host_config *config, struct nest_host_prefork **ret,
	struct nest_err *err);

/*
 * Opens the host; takes @prefork. @on_lost is called once when the spawner is gone: no request can be
 * served from then on and the process should end.
 */
int nest_host_open(uv_loop_t *loop, const struct nest_host_config *config,
	struct nest_host_prefork *prefork, void (*on_lost)(void *arg, const struct nest_err *why),
	void *arg, struct nest_host **ret, struct nest_err *err);

/* Kills what runs, fails what waits, then calls @cb and frees. */
void nest_host_close(struct nest_host *host, void (*cb)(void *arg), void *arg);

/* No new calls; @cb once when none is in flight (which the caller may bound by a timer). */
void nest_host_drain(struct nest_host *host, void (*cb)(void *arg), void *arg);

/* Fails the calls in flight and kills all workers: what waits can be sent elsewhere, what had begun has crashed. */
void nest_host_break_off(struct nest_host *host);

/*
 * Deploys one version (copies @spec): fetches its code and, once that is in the cache, makes it findable.
 * The first one of a name is live at once, and its workers_min workers are started; those after it are live when they
 * are made so. @cb is called once, never before this returns: with the target, or NULL and why. A name+version that
 * stands with an equal spec succeeds; with another spec it is -EEXIST.
 */
int nest_host_deploy(struct nest_host *host, const struct nest_function_spec *spec,
	void (*cb)(void *arg, struct nest_target *target, const struct nest_err *err), void *arg,
	struct nest_err *err);

/*
 * Takes one version away (@version NULL: all of the name's): no new calls, those in flight finish, then its workers, log and
 * references go. 1: no such function.
 */
int nest_host_remove(struct nest_host *host, const char *name, const char *version);

/* Makes another deployed version the live one, all of it. 1: no such version. */
int nest_host_set_live(struct nest_host *host, const char *name, const char *version);

/*
 * Has function @name's live version keep at least @min workers and have at most @max (from 1),
 * instead of what its spec says, and every later one, as long as the function is deployed; @max 0:
 * what the spec says. 1: no such function.
 */
int nest_host_set_bounds(struct nest_host *host, const char *name, uint32_t min, uint32_t max);

/*
 * Sets an alias (runtime/alias.h; copied), in place of one of its name: requests that come from then on go where it
 * says. 1: no such function, or no such version; -ENOMEM.
 */
int nest_host_set_alias(struct nest_host *host, const char *name, const struct nest_alias *alias);

/* Forgets an alias; of "live", that its requests are shared out. 1: there is none. */
int nest_host_remove_alias(struct nest_host *host, const char *name, const char *alias);

/*
 * Has workers of a version up before requests are sent its way: of those that take the live alias's requests now,
 * @weight of @total, at least workers_min; none where there are none. They stay until @cb is called, once, on a later
 * turn: NULL when they are up, or as many as there is room for; or why not even one is. 1: no such version; -ENOMEM.
 */
int nest_host_warm(struct nest_host *host, const char *name, const char *version, uint32_t weight,
	uint32_t total, void (*cb)(void *arg, const struct nest_err *why), void *arg);

/*
 * By name and qualifier: a version, an alias, or NULL, "" or "$LATEST" for the live alias. Of an alias the version
 * that @asker's request goes to. NULL: none.
 */
struct nest_target *nest_host_choose(struct nest_host *host, const char *name,
	const char *qualifier, const struct nest_alias_asker *asker);

/* The same for no request: of an alias its main version. */
struct nest_target *nest_host_find(struct nest_host *host, const char *name, const char *qualifier);

/*
 * By route: the most specific match among live versions (exact host, longest path, method); then as its function's live
 * alias says for @asker. NULL: none.
 */
struct nest_target *nest_host_route(struct nest_host *host, const char *hostname,
	size_t hostname_len, const char *path, size_t path_len, const char *method,
	const struct nest_alias_asker *asker);

/* Makes the live version's snapshot anew, or forgets it. 1: no such version; 2: it can have none. */
int nest_host_snapshot_renew(struct nest_host *host, const char *name, const char *version);
int nest_host_snapshot_forget(struct nest_host *host, const char *name, const char *version);

/* Its spec, version included; lives with @target. */
const struct nest_function_spec *nest_target_spec(const struct nest_target *target);

/* An artifact upload for the agent; see loader/loader.h's nest_upload. @cb gets the digest, or NULL and why. */
struct nest_host_upload;
int nest_host_upload_open(
	struct nest_host *host, struct nest_host_upload **ret, struct nest_err *err);
int nest_host_upload_write(
	struct nest_host_upload *upload, const void *bytes, size_t n, struct nest_err *err);
void nest_host_upload_finish(struct nest_host_upload *upload,
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err),
	void *arg);
void nest_host_upload_abort(struct nest_host_upload *upload);

/* ---- the code cache (see loader/loader.h for each) ---- */

struct nest_host_tree {
	const char *digest; /* valid during the call */
	uint64_t bytes;
	bool image; /* an EROFS image, which is mounted instead of unpacked */
	bool in_use;
};

/* Calls @cb for each tree in the cache until it returns false. */
void nest_host_each_tree(struct nest_host *host,
	bool (*cb)(void *arg, const struct nest_host_tree *tree), void *arg);

/* 1: it isn't there; -EBUSY: a function has it. */
int nest_host_cache_remove(struct nest_host *host, const char *digest, struct nest_err *err);

struct nest_host_verified {
	uint64_t trees;
	uint64_t recorded; /* of these, read for the first time: compared only from now on */
	uint64_t removed;
	uint64_t in_use; /* damaged, and still there because a function has it */
};

/* Reads all of the cache again: @damaged for each tree that isn't what it was, @done once, last. */
int nest_host_cache_verify(struct nest_host *host, void (*damaged)(void *arg, const char *digest),
	void (*done)(
		void *arg, const struct nest_host_verified *totals, const struct nest_err *err),
	void *arg, struct nest_err *err);

/*
 * Loads the artifact @url, whose digest must be @digest and whose bytes @size (0: it isn't known),
 * unless the cache has it. @cb as uploads'.
 */
int nest_host_cache_prefetch(struct nest_host *host, const char *url, const char *digest,
	uint64_t size,
	void (*cb)(void *arg, const char *digest, uint64_t bytes, const struct nest_err *err),
	void *arg, struct nest_err *err);

/* ---- what runs, for the admin API and metrics ---- */

enum nest_worker_state {
	NEST_WORKER_STARTING,
	NEST_WORKER_IDLE,
	NEST_WORKER_BUSY,
	NEST_WORKER_DRAINING,
	NEST_WORKER_STANDBY, /* a clone that is restored, and frozen before its first request */
	NEST_WORKER_STATES
};

/* "starting", "idle", ... Any thread. */
const char *nest_worker_state_name(enum nest_worker_state state);

#define NEST_LATENCY_BUCKETS 16
extern const double nest_latency_bounds_s[NEST_LATENCY_BUCKETS]; /* upper bounds, seconds */

struct nest_histogram {
	uint64_t count[NEST_LATENCY_BUCKETS + 1]; /* the last: above all bounds */
	double sum_s;
};

enum nest_restart_cause {
	NEST_RESTART_EXIT,
	NEST_RESTART_SIGNAL,
	NEST_RESTART_OOM,
	NEST_RESTART_TIMEOUT, /* killed: it did not stop at the deadline */
	NEST_RESTART_HUNG,    /* killed: no answer to pings */
	NEST_RESTART_PROTOCOL,
	NEST_RESTART_INIT,
	NEST_RESTART_CAUSES
};
/* "exit", "oom", ... Any thread. */
const char *nest_restart_cause_name(enum nest_restart_cause cause);

/* Why a snapshot was not made, or could not be used. */
enum nest_snapshot_failure {
	NEST_SNAPSHOT_FAILURE_START,   /* the worker to be frozen did not come up */
	NEST_SNAPSHOT_FAILURE_HOOK,    /* or to rest, or a clone's hook failed */
	NEST_SNAPSHOT_FAILURE_DUMP,    /* it could not be written */
	NEST_SNAPSHOT_FAILURE_MISSING, /* the store has it no longer */
	NEST_SNAPSHOT_FAILURE_DAMAGED,
	NEST_SNAPSHOT_FAILURE_RESTORE,
	NEST_SNAPSHOT_FAILURE_TIMEOUT, /* of a restore */
	NEST_SNAPSHOT_FAILURES
};
/* "start", "dump", ... Any thread. */
const char *nest_frozen_failure_name(enum nest_snapshot_failure cause);

/* How a worker came up, from the cheapest on. */
enum nest_rung {
	NEST_RUNG_STANDBY,  /* a clone that stood by */
	NEST_RUNG_SNAPSHOT, /* a clone */
	NEST_RUNG_RUNTIME,  /* a clone of its runtime, which loaded the function's code */
	NEST_RUNG_PLAIN,
	NEST_RUNGS
};
/* "standby", ... Any thread. */
const char *nest_worker_rung_name(enum nest_rung rung);

/* How a version stands with its snapshot. */
struct nest_snapshot_stats {
	const char *state; /* "off", "none", "queued", "fetching", "making", "stands",
			      "paused" */
	const char *key;   /* NULL: off */
	const char *why;   /* of the last failure; "" if none */
	uint64_t bytes;
	uint64_t made_s; /* since the Unix epoch */
	uint64_t restores_total;
	uint64_t failures_total[NEST_SNAPSHOT_FAILURES];
	struct nest_histogram restore; /* asked for a clone, to ready or standing by */
};

/* The snapshot of a runtime that has loaded no function, for workers of one kind. */
struct nest_runtime_stats {
	const char *runtime;
	uint64_t memory_bytes; /* limit of these workers, by which one most often tells the kind */
	struct nest_snapshot_stats snapshot;
};

struct nest_target_stats {
	const struct nest_function_spec *spec;
	bool live;
	uint32_t workers[NEST_WORKER_STATES];
	uint32_t paused;	/* of the idle ones */
	uint32_t prefetched;	/* of those that stand by */
	uint64_t private_bytes; /* of all of them, as last measured */
	uint64_t shared_bytes;	/* the same; what two workers share counts for each */
	uint64_t standby_bytes; /* private, of those that stand by */
	uint32_t in_flight;
	uint32_t queued;
	uint64_t oldest_wait_us;		     /* of those, the first's */
	uint32_t desired;			     /* workers that are kept while they are idle */
	uint64_t requests_total[NEST_FAILURE_KINDS]; /* [NEST_FAILURE_NONE]: succeeded */
	uint64_t cold_starts_total;
	uint64_t rungs_total[NEST_RUNGS]; /* of these */
	uint64_t restarts_total[NEST_RESTART_CAUSES];
	struct nest_histogram duration;	  /* whole request, in the host */
	struct nest_histogram cold_start; /* asked for a worker, to ready */
	struct nest_snapshot_stats snapshot;
	uint64_t log_dropped_bytes_total;
	char last_failure[256]; /* of a start; "" if none */
	bool quarantined;	/* its workers don't come up, and are rarely tried */
	const char *breaker;	/* "closed", "open", "half-open" */
	uint64_t breaker_opened_total;
	uint64_t broken_total;	  /* requests that the breaker refused */
	uint64_t limited_total;	  /* requests that the rate limit refused */
	uint64_t fallbacks_total; /* requests that got the fallback result */
	uint64_t recycled_total[NEST_RECYCLE_CAUSES];
};

/* Calls @cb for each deployed version, by name, then version; stop when it returns false. */
void nest_host_each_target(struct nest_host *host,
	bool (*cb)(void *arg, struct nest_target *target, const struct nest_target_stats *stats),
	void *arg);

struct nest_worker_stats {
	uint64_t id;
	pid_t pid;
	enum nest_worker_state state;
	bool prefetched; /* while it stood by what its first request writes to was copied */
	bool paused;	 /* idle, and frozen until its next request */
	uint32_t in_flight;
	uint64_t requests_total;
	uint64_t age_ms;
	uint64_t memory_bytes; /* as last measured (every few seconds, or by refresh) */
	uint64_t memory_peak_bytes;
	uint64_t private_bytes; /* its own: what its end would give back */
	bool measured;		/* these are its own, not of what it was restored by, if it was */
	uint64_t shared_bytes;	/* of files, others may have the same in memory */
	uint64_t cpu_us;
	const char *function;
	const char *version;
};
/* Calls @cb for each worker, by id; stops when it returns false. */
void nest_host_each_worker(struct nest_host *host,
	bool (*cb)(void *arg, const struct nest_worker_stats *stats), void *arg);

/* Measures all workers anew, then calls @cb once, on a later turn. */
int nest_host_refresh(struct nest_host *host, void (*cb)(void *arg), void *arg);

struct nest_host_stats {
	uint32_t cells_prepared;
	uint32_t workers;
	uint32_t max_cells;
	uint32_t calls;	      /* that wait or run */
	uint64_t calls_total; /* that have ended */
	uint64_t load_us;     /* the time that calls have been open for, all together */
	uint64_t cache_bytes;
	uint64_t cache_hits_total;
	uint64_t cache_misses_total;
	uint64_t cache_failures_total;
	uint64_t failures_by_cause[8]; /* named by nest_host_failure_cause() */
	uint64_t fetched_bytes_total;
	uint64_t fetch_us_total;
	uint64_t fetch_retries_total;
	uint64_t made_bytes_total;
	uint64_t make_us_total;
	/* snapshots and the server that hosts share */
	const char *snapshots;	   /* "off", "unavailable", "untested", "available" */
	const char *snapshots_why; /* what the test said, or the cause; lives with the host */
	uint64_t snapshots_fetched_total;
	uint64_t snapshots_published_total;
	uint64_t snapshots_exchange_failures_total;
};
/* The name of the @i-th cause of failed loads: "network" and so on; NULL behind the last. */
const char *nest_host_failure_cause(unsigned i);

/* The host's own counts, now. */
void nest_host_stats(const struct nest_host *host, struct nest_host_stats *ret);

/*
 * What the pod may use, and uses: see runtime/capacity.h. Blocks on files of the kernel's, which may add
 * up hundreds of cgroups for them. Any thread, while @host isn't closed.
 */
struct nest_host_capacity {
	uint32_t cpu_milli;
	uint64_t memory_bytes;
	uint64_t cpu_used_us;
	uint64_t memory_used_bytes;
};
void nest_host_capacity(const struct nest_host *host, struct nest_host_capacity *ret);

/* Calls @cb for each snapshot of a runtime; stops when it returns false. */
void nest_host_each_runtime_snapshot(struct nest_host *host,
	bool (*cb)(void *arg, const struct nest_runtime_stats *stats), void *arg);

/*
 * Has the snapshot made of the runtime that @spec (borrowed; its code doesn't matter) names, for
 * workers with its limits, unless it stands. 1: that runtime can have none, or this host makes none.
 * -ENOENT, -ENOEXEC, -EINVAL: it can't run so here. Blocks on the disk.
 */
int nest_host_build_runtime_snapshot(
	struct nest_host *host, const struct nest_function_spec *spec, struct nest_err *err);

/* Names of the runtimes known, for messages and `describe`. NULL-terminated; lives with @host. */
const char *const *nest_host_runtimes(const struct nest_host *host);

struct nest_feature_row {
	const char *name;
	bool yes;
	bool required;
	const char *detail;
	const char *remedy;
};
/*
 * This machine's features as a child found them that nest_host_prefork() started; 0 rows until it is
 * done, within a few seconds. Lives with @host.
 */
const struct nest_feature_row *nest_host_features(const struct nest_host *host, size_t *ret_n);
/* Tries them now, for nestletd --check: one block that the caller frees. Blocks for seconds. */
int nest_host_probe(const struct nest_host_config *config, struct nest_feature_row **ret,
	size_t *ret_n, struct nest_err *err);

/* ---- how many workers, for the autoscaler ---- */

/* What a live version had to do; sums only differ from one asking to the next. */
struct nest_target_load {
	struct nest_target *target;
	uint64_t id; /* never another target's */
	uint64_t now_us;
	uint64_t load_us; /* the time of its calls, waiting and running, together */
	uint64_t requests;
	uint64_t cpu_us; /* of its workers, as of the last nest_host_refresh() */
	uint64_t memory_bytes;
	uint32_t least; /* workers, by the spec or by nest_host_set_bounds() */
	uint32_t most;
	uint32_t slots; /* of a worker */
	uint32_t ready;
	uint32_t needed;   /* workers that the most calls at once since the last asking filled */
	uint64_t quiet_us; /* since it had a call; 0: it has one */
};

/* Calls @cb for each version that is live, by name. Beginning anew what counts from asking to asking. */
void nest_host_each_load(struct nest_host *host,
	void (*cb)(void *arg, const struct nest_target_load *load), void *arg);

struct nest_target_scale {
	uint32_t least;	  /* workers it is due like those of workers.min */
	uint32_t desired; /* once there is one; kept while idle, until all are for the idle time */
	uint32_t ceiling; /* of more than these some leave once they have nothing to do */
};
/*
 * Says how many workers @target has beside those that waiting calls start. They are within
 * workers.min and workers.max, or nest_host_set_bounds(), whatever this says.
 */
void nest_target_set_scale(struct nest_target *target, const struct nest_target_scale *scale);

/*
 * Calls @cb once when there is something to do again: at the next call, from inside it, or when other
 * versions become live. NULL: no longer.
 */
void nest_host_on_stir(struct nest_host *host, void (*cb)(void *arg), void *arg);

/* ---- logs ---- */

/* A reader of one function's log (all versions): what is on disk, then, with follow, what comes. */
struct nest_log_reader;
struct nest_log_query {
	const char *function;
	uint32_t tail_lines; /* the last so many of what is on disk */
	bool follow;
};
/*
 * @line: one JSON object, without its newline: {"time","function","version","worker","stream","level","requestId","message"}.
 * @done: once, last: all was read (without follow), or the function was removed. Never before open returns.
 * 1: no such function.
 */
int nest_host_logs_open(struct nest_host *host, const struct nest_log_query *query,
	void (*line)(void *arg, const char *json, size_t n), void (*done)(void *arg), void *arg,
	struct nest_log_reader **ret, struct nest_err *err);
/* Pauses and resumes delivery while the client is slow; lines missed by a slow follower are counted in a line. */
void nest_host_logs_pause(struct nest_log_reader *reader, bool pause);
/* Ends it; no event follows. */
void nest_host_logs_close(struct nest_log_reader *reader);

#endif
