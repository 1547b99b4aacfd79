/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_TUNER_H
#define NEST_AGENT_TUNER_H

#include <stdint.h>

#include <uv.h>

struct nest_err;
struct nest_host;

/*
 * Brings samples of the host's functions to their autoscalers (agent/autoscaler.h), with the minima
 * of their schedules, and tells the host what comes of it: every interval while any function has
 * something to do, and when a schedule begins or ends. When all is quiet it waits for the host to
 * stir, without a timer. Loop thread only.
 */
struct nest_tuner;

struct nest_tuner_config {
	uint32_t interval_ms;
	uint64_t workers_bytes; /* 0: memory is measured only for functions that scale by it */
};

/* Opens it on @host (borrowed), and looks at once. The caller owns *@ret. */
int nest_tuner_open(uv_loop_t *loop, struct nest_host *host, const struct nest_tuner_config *config,
	struct nest_tuner **ret, struct nest_err *err);

/* Takes over a new config, from the next look on. */
void nest_tuner_configure(struct nest_tuner *tuner, const struct nest_tuner_config *config);

/* Ends it, before the host is closed; calls @cb once its timer is closed, and frees. */
void nest_tuner_close(struct nest_tuner *tuner, void (*cb)(void *arg), void *arg);

#endif
