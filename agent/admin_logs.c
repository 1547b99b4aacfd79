/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/admin_request.h"
#include "base/err.h"
#include "runtime/host.h"

/*
 * GET /v1/functions/{name}/logs?tail=N&follow=1: JSON lines, streamed. The request's state is its
 * reader; a client that reads slowly pauses it.
 */

enum {
	LOGS_TAIL_DEFAULT = 100
};

static void logs_gone(struct nest_admin_request *request)
{
	nest_host_logs_close(request->state);
	nest_admin_request_free(request);
}

static void logs_writable(struct nest_admin_request *request)
{
	nest_host_logs_pause(request->state, false);
}

static void logs_line(void *arg, const char *json, size_t n)
{
	struct nest_admin_request *request = arg;
	int r = nest_http_send(request->exchange, json, n);

	if (r >= 0)
		r = nest_http_send(request->exchange, "\n", 1);
	if (r != 0)
		nest_host_logs_pause(request->state, true);
	if (r < 0) {
		struct nest_http_exchange *exchange = request->exchange;

		request->exchange = NULL;
		nest_http_set_owner(exchange, NULL);
		nest_http_abort(exchange);
		logs_gone(request);
	}
}

static void logs_done(void *arg)
{
	struct nest_admin_request *request = arg;
	struct nest_http_exchange *exchange = request->exchange;

	request->exchange = NULL;
	nest_http_set_owner(exchange, NULL);
	nest_http_send_end(exchange);
	nest_admin_request_free(request);
}

void nest_admin_logs_get(struct nest_admin_request *request)
{
	static const struct nest_http_header type = { .name = "content-type",
		.name_len = sizeof("content-type") - 1,
		.value = "application/x-ndjson",
		.value_len = sizeof("application/x-ndjson") - 1 };
	struct nest_log_query query = { .function = request->name,
		.tail_lines = LOGS_TAIL_DEFAULT };
	struct nest_err err = NEST_ERR_INIT;
	struct nest_log_reader *reader;
	char value[16];
	int r;

	if (nest_admin_request_query(request, "tail", value, sizeof(value)))
		query.tail_lines = (uint32_t)strtoul(value, NULL, 10);
	if (nest_admin_request_query(request, "follow", value, sizeof(value)))
		query.follow = strcmp(value, "1") == 0;
	r = nest_host_logs_open(
		request->env->host, &query, logs_line, logs_done, request, &reader, &err);
	if (r == 1) {
		nest_admin_request_refuse(request, 404, "Function.NotFound",
			"no function '%s' is deployed", request->name);
		return;
	}
	if (r < 0) {
		nest_admin_request_refuse(request, 500, "Host.Error", "%s", nest_err_text(&err));
		return;
	}
	request->state = reader;
	request->on_gone = logs_gone;
	request->on_writable = logs_writable;
	r = nest_http_respond_head(request->exchange, 200, &type, 1, -1);
	if (r < 0) {
		nest_http_abort(request->exchange);
		request->exchange = NULL;
		logs_gone(request);
	}
}
