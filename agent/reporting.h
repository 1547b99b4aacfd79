/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REPORTING_H
#define NEST_AGENT_REPORTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <uv.h>

#include "agent/metrics.h"
#include "agent/report.h"

struct nest_buf;
struct nest_config;
struct nest_deployer;
struct nest_err;
struct nest_host;
struct nest_registry;
struct nest_scaler_status;

/*
 * All by which others learn how the host is, and the scaler what to do about it: reports that are
 * pushed, and what can be pulled where the config names an address. Loop thread only.
 */
struct nest_reporting;

struct nest_reporting_env {
	struct nest_host *host;
	struct nest_registry *registry;
	const struct nest_config *(*config)(void *daemon); /* as it is now */
	void (*metrics)(void *daemon, struct nest_metrics_daemon *ret);
	void (*drain)(void *daemon);
	void *daemon;
};

/*
 * Opens it, and puts what the scaler last said into the registry. Copies @env. The caller owns
 * *@ret. Blocks on the disk.
 */
int nest_reporting_open(uv_loop_t *loop, const struct nest_reporting_env *env,
	struct nest_reporting **ret, struct nest_err *err);

/* Begins to report and to listen, once there is a deployer (borrowed). */
int nest_reporting_start(
	struct nest_reporting *reporting, struct nest_deployer *deployer, struct nest_err *err);

/* Breaks off what is open, then calls @cb, never before returning, and frees. */
void nest_reporting_close(struct nest_reporting *reporting, void (*cb)(void *arg), void *arg);

/* The host drains: tells the scaler, and takes no more orders from it. */
void nest_reporting_drain(struct nest_reporting *reporting);

/* How the host stands, with one line in @ret_text that says so, and why where it isn't ready. */
enum nest_report_state nest_reporting_state(
	const struct nest_reporting *reporting, char *ret_text, size_t n);

/* Appends the flat JSON of /v1/stats. 0 or -ENOMEM. */
int nest_reporting_stats(struct nest_reporting *reporting, struct nest_buf *ret);

/* How the scaler's client does. 1: there is none. */
int nest_reporting_scaler(const struct nest_reporting *reporting, struct nest_scaler_status *ret);

/* The scaler's generation in force; 0: none. */
uint64_t nest_reporting_generation(const struct nest_reporting *reporting);

/* All of it for the admin API: NULL on lack of memory. */
cJSON *nest_reporting_scaler_json(const struct nest_reporting *reporting);

#endif
