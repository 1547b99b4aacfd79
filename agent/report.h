/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REPORT_H
#define NEST_AGENT_REPORT_H

#include <stdint.h>

#include "runtime/host.h"

struct nest_buf;
struct nest_deployer;
struct nest_desired;
struct nest_err;
struct nest_registry;
struct nest_window;

/*
 * What the host says of itself: the report of docs/scaler-protocol.md, the flat JSON of
 * /v1/stats, and Knative's Stat. All are made from the same walk over the host, and keep nothing.
 */

/* Who reports. Does not change while the process runs. */
struct nest_report_identity {
	char boot_id[33]; /* random: another one after each start */
	char name[254];	  /* $POD_NAME, else the machine's name */
	char space[64];	  /* $POD_NAMESPACE; "" */
	char uid[64];	  /* $POD_UID; "" */
	char node[254];	  /* $NODE_NAME; "" */
	uint64_t start_time_ms;
	uint64_t start_us; /* of the monotonic clock */
};

/* Fills @ret from the environment. */
int nest_report_identify(struct nest_report_identity *ret, struct nest_err *err);

enum nest_report_state {
	NEST_REPORT_STARTING,
	NEST_REPORT_READY,
	NEST_REPORT_FULL, /* ready, but more requests should go elsewhere */
	NEST_REPORT_DRAINING,
};

/* "starting", "ready", "full", "draining". Any thread. */
const char *nest_report_state_name(enum nest_report_state state);

struct nest_report_env {
	struct nest_host *host;
	const struct nest_registry *registry;
	struct nest_deployer *deployer;
	const struct nest_desired *desired; /* NULL: no scaler */
	const struct nest_report_identity *identity;
	enum nest_report_state state;
	const struct nest_host_capacity *capacity; /* as just read; NULL: read it now */
};

/* Appends the report numbered @sequence. 0 or -ENOMEM. */
int nest_report_write(const struct nest_report_env *env, struct nest_window *window,
	uint64_t sequence, struct nest_buf *ret_json);

/* Appends the flat JSON of /v1/stats, in which no number is left out. 0 or -ENOMEM. */
int nest_report_flat(
	const struct nest_report_env *env, struct nest_window *window, struct nest_buf *ret_json);

/* Appends Knative's metrics.Stat as protobuf. 0 or -ENOMEM. */
int nest_report_stat(
	const struct nest_report_env *env, struct nest_window *window, struct nest_buf *ret_bytes);

/*
 * Whether the host should get no more requests for now: all cells taken, none idle, and requests
 * wait; or, where @max_requests isn't 0, so many wait or run. Then *@ret_why says so.
 */
int nest_report_is_full(struct nest_host *host, uint32_t max_requests, char *ret_why, size_t n);

#endif
