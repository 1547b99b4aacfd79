/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_ADMIN_H
#define NEST_AGENT_ADMIN_H

#include <uv.h>

#include "agent/metrics.h"

struct nest_config;
struct nest_err;
struct nest_host;
struct nest_deployer;
struct nest_reporting;

/*
 * The admin API: JSON over HTTP on a unix socket of its own, for nestctl, probes and Prometheus.
 * docs/admin-api.md describes each request.
 */
struct nest_admin;

/* What the API reports on and acts upon; borrowed for the admin's life. */
struct nest_admin_env {
	struct nest_host *host;
	struct nest_deployer *deployer;
	struct nest_reporting *reporting;
	const struct nest_config *(*config)(void *daemon);
	void (*metrics)(void *daemon, struct nest_metrics_daemon *ret);
	/* Reads the config file again: 0, or what is wrong with it. */
	int (*reload)(void *daemon, struct nest_err *err);
	/* Begins the drain that ends the process; more calls do nothing. */
	void (*drain)(void *daemon);
	void *daemon;
};

/* Opens the API on @socket_path with file mode @mode. @env is copied. */
int nest_admin_open(uv_loop_t *loop, const struct nest_admin_env *env, const char *socket_path,
	unsigned mode, struct nest_admin **ret, struct nest_err *err);

/* Breaks what is open, then calls @cb and frees. */
void nest_admin_close(struct nest_admin *admin, void (*cb)(void *arg), void *arg);

#endif
