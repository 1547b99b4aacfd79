/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_SERVICES_H
#define NEST_RUNTIME_SERVICES_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "base/log.h"
#include "runtime/deadline.h"
#include "runtime/host.h"
#include "runtime/load.h"

struct nest_dispatch;
struct nest_mount;
struct nest_exchange;
struct nest_freezer;
struct nest_runtime_snapshots;
struct nest_sandbox;
struct nest_standby;
struct nest_wire;

/* What every function on one host shares: the host fills it once, the parts below borrow it. */
struct nest_services {
	uv_loop_t *loop;
	struct nest_deadlines *deadlines;
	struct nest_wire *wire;
	struct nest_sandbox *sandbox;
	const struct nest_host_config *config;
	struct nest_mount *mounts; /* of code images: runtime/mounts.h */
	struct nest_freezer *freezer;
	struct nest_runtime_snapshots *runtimes; /* NULL: none */
	struct nest_exchange *exchange;		 /* of snapshots; NULL: none */
	struct nest_standby *standby;		 /* NULL: no clones stand by */

	struct nest_dispatch *dispatches; /* all of them: who else could give a cell away */
	uint32_t starved;		  /* of these, how many wait for a cell */
	uint32_t evictions;		  /* cells that are being freed for them */
	struct nest_deadline cell_freed;
	uint32_t workers; /* whose cells are not gone yet */
	uint64_t last_worker_id;
	uint64_t last_dispatch_id;
	uint64_t memory_bytes;	    /* that workers are charged for */
	void (*on_stir)(void *arg); /* called at the next stir; NULL: nobody waits for one */
	void *on_stir_arg;

	uint32_t calls;	      /* with a caller that waits for their end */
	uint64_t calls_total; /* that have ended */
	uint64_t load_us;     /* the ended ones' times, less the starts of those that are open */
	bool draining;	      /* no new calls */
	bool closing;	      /* and no new workers */
	void (*on_idle)(void *arg); /* while draining: calls came to 0 */
	void *on_idle_arg;

	uint32_t handles;	      /* libuv handles of the parts that are not closed yet */
	void (*on_closed)(void *arg); /* while closing: handles came to 0 */
	void *on_closed_arg;
};

/* What one version of a function is counted by. */
struct nest_tally {
	uint64_t requests_total[NEST_FAILURE_KINDS];
	uint64_t cold_starts_total;
	uint64_t rungs_total[NEST_RUNGS];
	uint64_t restarts_total[NEST_RESTART_CAUSES];
	struct nest_histogram duration;
	struct nest_histogram cold_start;
	struct nest_load load;
	uint64_t cpu_us;       /* of its workers, as measured, those that ended too */
	uint64_t memory_bytes; /* that its workers are charged for */
	uint64_t worker_bytes; /* of the last one that was measured; 0: none was */
	char last_failure[256];
};

/* Counts a handle's opening, and its end (which may end the host). */
void nest_services_hold(struct nest_services *services);
void nest_services_release(struct nest_services *services);

/* Counts a call that is open, and its end for its caller; @now_us is the monotonic clock's. */
void nest_services_call_opened(struct nest_services *services, uint64_t now_us);
void nest_services_call_closed(struct nest_services *services, uint64_t now_us);

/*
 * The time that calls have been open for, all together: between two moments it grows by the average
 * of how many were open, times the time between.
 */
uint64_t nest_services_load_us(const struct nest_services *services, uint64_t now_us);

/* Tells who waits for it that there is something to do: a call came, or other versions are live. */
void nest_services_stir(struct nest_services *services);

/* Tells the agent's log of something that happened to a function. */
void nest_services_event(struct nest_services *services, enum nest_log_level level, const char *fmt,
	...) __attribute__((format(printf, 3, 4)));

#endif
