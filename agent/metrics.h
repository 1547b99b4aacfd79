/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_METRICS_H
#define NEST_AGENT_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct nest_gateway;
struct nest_host;
struct nest_reporting;

/* What only the daemon knows of itself. */
struct nest_metrics_daemon {
	uv_loop_t *loop;
	uint64_t start_time_ms; /* Unix epoch */
	bool ready;
	bool draining;
	uint64_t reloads_total;
	uint64_t reload_failures_total;
	const struct nest_gateway *gateway;	/* NULL until the host is ready */
	const struct nest_reporting *reporting; /* NULL: not open */
};

/*
 * The whole of /metrics: Prometheus text format 0.0.4, names by its conventions (base units, _total
 * for counters), every family once with HELP and TYPE. It is of now; what there is of each function is
 * megabytes with a thousand of them, and written by a thread. Calls @cb once, never before returning,
 * with @n bytes of @text (borrowed), or NULL: there was no memory. Blocks on /proc only. -ENOMEM, and
 * @cb is never called.
 */
int nest_metrics_render(struct nest_host *host, const struct nest_metrics_daemon *daemon,
	void (*cb)(void *arg, const char *text, size_t n), void *arg);

#endif
