/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_SCALER_H
#define NEST_AGENT_SCALER_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

struct nest_buf;
struct nest_desired;
struct nest_err;

/*
 * The client of the central scaler (docs/scaler-protocol.md): every interval it sends a report, and
 * gives the reply to agent/desired.h. A scaler that is away, slow or wrong costs requests nothing:
 *
 *	tick --> look --> report --> request --> reply taken: next tick after the interval
 *	                    \            \-----> failed: after the interval twice, four times, ... with jitter
 *	                     \-- a request that hangs does not keep the next tick from sending another one
 *
 * Loop thread only.
 */
struct nest_scaler;

struct nest_scaler_config {
	const char *url;
	const char *token_file; /* "": none; read anew for each report, as it may be renewed */
	const char *ca_file;	/* "": the system's certificates */
	uint32_t interval_ms;
	uint32_t timeout_ms;	 /* of one request */
	uint32_t backoff_max_ms; /* 0: twice the interval */
	uint32_t compress_bytes; /* reports from this size on are compressed; 0: none */
	uint64_t reply_bytes;	 /* a longer reply is refused */
};

struct nest_scaler_env {
	struct nest_desired *desired;
	/*
	 * Looks, outside the loop, at what a report tells and would hold it up, then calls @cb once,
	 * never before returning. 0 or -errno. Never asked again before it has called.
	 */
	int (*look)(void *daemon, void (*cb)(void *arg), void *arg);
	/* Appends the report numbered @sequence. */
	int (*report)(void *daemon, uint64_t sequence, struct nest_buf *ret_json);
	/* The scaler wants the host to drain. */
	void (*drain)(void *daemon);
	void *daemon;
};

/* Opens it; the first report goes on the loop's next turn. Copies both. The caller owns *@ret. */
int nest_scaler_open(uv_loop_t *loop, const struct nest_scaler_config *config,
	const struct nest_scaler_env *env, struct nest_scaler **ret, struct nest_err *err);

/* Breaks what is open off, then calls @cb, never before returning, and frees. */
void nest_scaler_close(struct nest_scaler *scaler, void (*cb)(void *arg), void *arg);

/* The host drains: says so at once, and takes no more orders. */
void nest_scaler_drain(struct nest_scaler *scaler);

struct nest_scaler_status {
	uint64_t reports_total;
	uint64_t failures_total; /* of these, that were not answered as they should be */
	uint64_t old_total;	 /* replies with a generation below the one in force */
	uint64_t contact_ms;	 /* wall time of the last good reply; 0: none */
	uint64_t report_bytes;	 /* of the last report; */
	uint64_t sent_bytes;	 /* as sent; */
	uint64_t report_us;	 /* and the loop's time to write and compress it */
	uint32_t failures;	 /* in a row, now */
	const char *why;	 /* of the last failure; "" if none */
};

/* How it does; @ret->why lives with @scaler. */
void nest_scaler_status(const struct nest_scaler *scaler, struct nest_scaler_status *ret);

#endif
