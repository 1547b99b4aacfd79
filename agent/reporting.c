/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/reporting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "agent/deployer.h"
#include "agent/desired.h"
#include "agent/pages.h"
#include "agent/scaler.h"
#include "agent/window.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

#define PULL_WINDOW_US 5000000u	   /* rates of /v1/stats are over so long, up to twice that */
#define KNATIVE_WINDOW_US 1000000u /* as the queue-proxy's */

struct nest_reporting {
	uv_loop_t *loop;
	struct nest_reporting_env env;
	struct nest_deployer *deployer;
	struct nest_report_identity identity;
	struct nest_desired *desired; /* with a scaler only, as is the next */
	struct nest_scaler *scaler;
	struct nest_window *pushed; /* one window for each who looks */
	struct nest_window *pulled;
	struct nest_window *scraped;
	struct nest_pages *stats;
	struct nest_pages *knative;
	/* what the next report to the scaler tells of the pod; written by a thread during the look */
	struct nest_host_capacity capacity;
	uv_work_t look;
	void (*look_cb)(void *arg);
	void *look_arg;
	uv_timer_t turn; /* so that a close with nothing to close takes one, too */
	unsigned parts_open;
	void (*close_cb)(void *arg);
	void *close_arg;
};

static const struct nest_config *config_of(const struct nest_reporting *reporting)
{
	return reporting->env.config(reporting->env.daemon);
}

/* ---- what is told ---- */

enum nest_report_state nest_reporting_state(
	const struct nest_reporting *reporting, char *ret_text, size_t n)
{
	struct nest_metrics_daemon daemon;
	enum nest_report_state state = NEST_REPORT_READY;
	char why[160] = "";

	reporting->env.metrics(reporting->env.daemon, &daemon);
	if (daemon.draining)
		state = NEST_REPORT_DRAINING;
	else if (!daemon.ready)
		state = NEST_REPORT_STARTING;
	else if (nest_report_is_full(reporting->env.host, config_of(reporting)->ready_max_requests,
			 why, sizeof(why)))
		state = NEST_REPORT_FULL;
	snprintf(ret_text, n, "%s%s%s\n", nest_report_state_name(state), *why ? ": " : "", why);
	return state;
}

static struct nest_report_env report_env(const struct nest_reporting *reporting)
{
	char text[256];

	return (struct nest_report_env){
		.host = reporting->env.host,
		.registry = reporting->env.registry,
		.deployer = reporting->deployer,
		.desired = reporting->desired,
		.identity = &reporting->identity,
		.state = nest_reporting_state(reporting, text, sizeof(text)),
	};
}

static void run_look(uv_work_t *work)
{
	struct nest_reporting *reporting = work->data;

	nest_host_capacity(reporting->env.host, &reporting->capacity);
}

static void on_look_done(uv_work_t *work, int status)
{
	struct nest_reporting *reporting = work->data;

	(void)status; /* it is never cancelled */
	reporting->look_cb(reporting->look_arg);
}

static int on_look(void *daemon, void (*cb)(void *arg), void *arg)
{
	struct nest_reporting *reporting = daemon;

	reporting->look.data = reporting;
	reporting->look_cb = cb;
	reporting->look_arg = arg;
	return uv_queue_work(reporting->loop, &reporting->look, run_look, on_look_done);
}

static int on_report(void *daemon, uint64_t sequence, struct nest_buf *ret_json)
{
	struct nest_reporting *reporting = daemon;
	struct nest_report_env env = report_env(reporting);

	env.capacity = &reporting->capacity;
	return nest_report_write(&env, reporting->pushed, sequence, ret_json);
}

static void on_drain(void *daemon)
{
	struct nest_reporting *reporting = daemon;

	reporting->env.drain(reporting->env.daemon);
}

int nest_reporting_stats(struct nest_reporting *reporting, struct nest_buf *ret)
{
	struct nest_report_env env = report_env(reporting);

	return nest_report_flat(&env, reporting->pulled, ret);
}

/* ---- pages ---- */

static unsigned write_stats(void *arg, struct nest_buf *ret)
{
	return nest_reporting_stats(arg, ret) < 0 ? 0 : 200;
}

static void on_metrics(void *arg, const char *text, size_t n)
{
	nest_pages_answer(arg, text, n);
}

static int begin_metrics(void *arg, struct nest_pages_reader *reader)
{
	struct nest_reporting *reporting = arg;
	struct nest_metrics_daemon daemon;

	reporting->env.metrics(reporting->env.daemon, &daemon);
	return nest_metrics_render(reporting->env.host, &daemon, on_metrics, reader);
}

static unsigned write_healthz(void *arg, struct nest_buf *ret)
{
	(void)arg;
	return nest_buf_puts(ret, "ok\n") < 0 ? 0 : 200;
}

static unsigned write_readyz(void *arg, struct nest_buf *ret)
{
	char text[256];
	enum nest_report_state state = nest_reporting_state(arg, text, sizeof(text));

	if (nest_buf_puts(ret, text) < 0)
		return 0;
	return state == NEST_REPORT_READY ? 200 : 503;
}

static unsigned write_stat(void *arg, struct nest_buf *ret)
{
	struct nest_reporting *reporting = arg;
	struct nest_report_env env = report_env(reporting);

	return nest_report_stat(&env, reporting->scraped, ret) < 0 ? 0 : 200;
}

static const struct nest_page stats_pages[] = {
	{ "/v1/stats", "application/json", write_stats, NULL },
	{ "/metrics", "text/plain; version=0.0.4; charset=utf-8", NULL, begin_metrics },
	{ "/healthz", "text/plain", write_healthz, NULL },
	{ "/readyz", "text/plain", write_readyz, NULL },
	{ NULL, NULL, NULL, NULL },
};

static const struct nest_page knative_pages[] = {
	{ "/metrics", "application/protobuf", write_stat, NULL },
	{ NULL, NULL, NULL, NULL },
};

/* ---- opening ---- */

static void reporting_free(struct nest_reporting *reporting)
{
	nest_window_free(reporting->pushed);
	nest_window_free(reporting->pulled);
	nest_window_free(reporting->scraped);
	free(reporting);
}

static int open_desired(struct nest_reporting *reporting, struct nest_err *err)
{
	const struct nest_desired_env env = { .host = reporting->env.host,
		.registry = reporting->env.registry,
		.config = reporting->env.config,
		.daemon = reporting->env.daemon };
	char path[1100];

	if (!*config_of(reporting)->scaler_url)
		return 0;
	snprintf(path, sizeof(path), "%s/desired.json", config_of(reporting)->state_dir);
	return nest_desired_open(reporting->loop, &env, path, &reporting->desired, err);
}

int nest_reporting_open(uv_loop_t *loop, const struct nest_reporting_env *env,
	struct nest_reporting **ret, struct nest_err *err)
{
	struct nest_reporting *reporting = calloc(1, sizeof(*reporting));
	int rc;

	if (!reporting)
		return nest_err_set(err, -ENOMEM, "open the reports");
	reporting->loop = loop;
	reporting->env = *env;
	rc = nest_report_identify(&reporting->identity, err);
	if (rc == 0 && (nest_window_new(0, reporting->identity.start_us, &reporting->pushed) < 0 ||
			       nest_window_new(PULL_WINDOW_US, reporting->identity.start_us,
				       &reporting->pulled) < 0 ||
			       nest_window_new(KNATIVE_WINDOW_US, reporting->identity.start_us,
				       &reporting->scraped) < 0))
		rc = nest_err_set(err, -ENOMEM, "open the reports");
	if (rc == 0)
		rc = open_desired(reporting, err);
	if (rc < 0) {
		reporting_free(reporting);
		return rc;
	}
	*ret = reporting;
	return 0;
}

static int open_scaler(struct nest_reporting *reporting, struct nest_err *err)
{
	const struct nest_config *config = config_of(reporting);
	const struct nest_scaler_config scaler = { .url = config->scaler_url,
		.token_file = config->scaler_token_file,
		.ca_file = config->scaler_ca_file,
		.interval_ms = config->scaler_interval_ms,
		.timeout_ms = config->scaler_timeout_ms,
		.backoff_max_ms = config->scaler_backoff_max_ms,
		.compress_bytes = config->scaler_compress_bytes,
		.reply_bytes = config->scaler_reply_bytes };
	const struct nest_scaler_env env = { .desired = reporting->desired,
		.look = on_look,
		.report = on_report,
		.drain = on_drain,
		.daemon = reporting };

	return nest_scaler_open(reporting->loop, &scaler, &env, &reporting->scaler, err);
}

int nest_reporting_start(
	struct nest_reporting *reporting, struct nest_deployer *deployer, struct nest_err *err)
{
	const struct nest_config *config = config_of(reporting);
	int rc = 0;

	reporting->deployer = deployer;
	if (reporting->desired) {
		nest_desired_set_deployer(reporting->desired, deployer);
		rc = open_scaler(reporting, err);
	}
	if (rc == 0 && *config->stats_listen)
		rc = nest_pages_open(reporting->loop, config->stats_listen, stats_pages, reporting,
			&reporting->stats, err);
	if (rc == 0 && *config->knative_listen)
		rc = nest_pages_open(reporting->loop, config->knative_listen, knative_pages,
			reporting, &reporting->knative, err);
	return rc;
}

/* ---- closing ---- */

static void part_closed(void *arg)
{
	struct nest_reporting *reporting = arg;
	void (*cb)(void *cb_arg) = reporting->close_cb;
	void *cb_arg = reporting->close_arg;

	if (--reporting->parts_open > 0)
		return;
	reporting_free(reporting);
	if (cb)
		cb(cb_arg);
}

static void on_turn_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

void nest_reporting_close(struct nest_reporting *reporting, void (*cb)(void *arg), void *arg)
{
	reporting->close_cb = cb;
	reporting->close_arg = arg;
	reporting->parts_open = 1;
	/* what is being taken first: its end would tell the scaler's client */
	if (reporting->desired) {
		reporting->parts_open++;
		nest_desired_close(reporting->desired, part_closed, reporting);
	}
	if (reporting->scaler) {
		reporting->parts_open++;
		nest_scaler_close(reporting->scaler, part_closed, reporting);
	}
	if (reporting->stats) {
		reporting->parts_open++;
		nest_pages_close(reporting->stats, part_closed, reporting);
	}
	if (reporting->knative) {
		reporting->parts_open++;
		nest_pages_close(reporting->knative, part_closed, reporting);
	}
	uv_timer_init(reporting->loop, &reporting->turn);
	reporting->turn.data = reporting;
	uv_close((uv_handle_t *)&reporting->turn, on_turn_closed);
}

void nest_reporting_drain(struct nest_reporting *reporting)
{
	if (reporting->scaler)
		nest_scaler_drain(reporting->scaler);
}

/* ---- showing ---- */

int nest_reporting_scaler(const struct nest_reporting *reporting, struct nest_scaler_status *ret)
{
	if (!reporting->scaler)
		return 1;
	nest_scaler_status(reporting->scaler, ret);
	return 0;
}

uint64_t nest_reporting_generation(const struct nest_reporting *reporting)
{
	return reporting->desired ? nest_desired_generation(reporting->desired) : 0;
}

static bool each_refusal(void *arg, const char *name, const char *version, const char *why)
{
	cJSON *object = cJSON_CreateObject();

	cJSON_AddStringToObject(object, "function", name);
	cJSON_AddStringToObject(object, "version", version);
	cJSON_AddStringToObject(object, "reason", why);
	return cJSON_AddItemToArray(arg, object);
}

cJSON *nest_reporting_scaler_json(const struct nest_reporting *reporting)
{
	struct nest_scaler_status status;
	cJSON *json = cJSON_CreateObject();
	cJSON *refused;

	cJSON_AddStringToObject(json, "url", config_of(reporting)->scaler_url);
	if (nest_reporting_scaler(reporting, &status) != 0)
		return json;
	cJSON_AddNumberToObject(json, "generation", (double)nest_reporting_generation(reporting));
	cJSON_AddBoolToObject(json, "settled", nest_deployer_is_settled(reporting->deployer));
	cJSON_AddNumberToObject(json, "lastContactMs", (double)status.contact_ms);
	cJSON_AddNumberToObject(json, "failuresInARow", status.failures);
	cJSON_AddStringToObject(json, "lastFailure", status.why);
	cJSON_AddNumberToObject(json, "reportsTotal", (double)status.reports_total);
	cJSON_AddNumberToObject(json, "failuresTotal", (double)status.failures_total);
	cJSON_AddNumberToObject(json, "oldGenerationsTotal", (double)status.old_total);
	cJSON_AddNumberToObject(json, "reportBytes", (double)status.report_bytes);
	cJSON_AddNumberToObject(json, "reportSentBytes", (double)status.sent_bytes);
	cJSON_AddNumberToObject(json, "reportUs", (double)status.report_us);
	refused = cJSON_AddArrayToObject(json, "refused");
	nest_desired_each_refusal(reporting->desired, each_refusal, refused);
	return json;
}
