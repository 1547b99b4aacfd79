/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_METRICS_H
#define NEST_AGENT_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_gateway;
struct nest_host;
struct nest_reporting;

/* What only the daemon knows of itself. */
struct nest_metrics_daemon {
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
 * for counters), every family once with HELP and TYPE. The caller frees *@ret_text. Blocks on /proc
 * only. 0 or -ENOMEM.
 */
int nest_metrics_render(struct nest_host *host, const struct nest_metrics_daemon *daemon,
	char **ret_text, size_t *ret_len);

#endif
