/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/gateway.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "agent/invoke.h"
#include "base/err.h"
#include "base/log.h"
#include "runtime/alias.h"

/* What the Invoke API's headers ask for. */
enum invocation {
	INVOCATION_WAIT,
	INVOCATION_BACKGROUND,
	INVOCATION_DRY,
};

static void refuse(const struct nest_invoke_origin *origin, struct nest_http_exchange *exchange,
	enum nest_refusal_reason reason, const char *message)
{
	origin->gateway->stats.refused_total[reason]++;
	nest_invoke_answer_refusal(origin, exchange, nest_refusal_of_reason(reason), message, 0);
}

/* The caller's id where it is fit, else one of ours; in @ret_id. */
static void choose_id(struct nest_gateway *gateway, const struct nest_invoke_wishes *wishes,
	char ret_id[NEST_REQUEST_ID_MAX + 1])
{
	const struct nest_http_header *asked[] = { wishes->request_id, wishes->amzn_request_id };

	for (size_t i = 0; i < 2; i++) {
		if (!asked[i] || !nest_request_id_valid(asked[i]->value, asked[i]->value_len))
			continue;
		memcpy(ret_id, asked[i]->value, asked[i]->value_len + 1);
		return;
	}
	nest_request_id_make(&gateway->ids, ret_id);
}

static bool parse_invocation(const struct nest_http_header *header, enum invocation *ret)
{
	*ret = INVOCATION_WAIT;
	if (!header || strcmp(header->value, "RequestResponse") == 0)
		return true;
	*ret = strcmp(header->value, "Event") == 0 ? INVOCATION_BACKGROUND : INVOCATION_DRY;
	return *ret == INVOCATION_BACKGROUND || strcmp(header->value, "DryRun") == 0;
}

/* What is wrong with the headers that every call shares; NULL when nothing is. */
static const char *check_wishes(const struct nest_invoke_wishes *wishes, bool invoke_api,
	enum invocation *ret_invocation, uint64_t *ret_deadline_ms)
{
	*ret_invocation = INVOCATION_WAIT;
	if (nest_invoke_parse_deadline(wishes->deadline, ret_deadline_ms) < 0)
		return "x-nestlet-deadline-ms must be milliseconds since the Unix epoch, in digits";
	if (!invoke_api)
		return NULL;
	if (!parse_invocation(wishes->invocation_type, ret_invocation))
		return "x-amz-invocation-type must be RequestResponse, Event or DryRun";
	if (wishes->log_type && strcmp(wishes->log_type->value, "None") != 0 &&
		strcmp(wishes->log_type->value, "Tail") != 0)
		return "x-amz-log-type must be None or Tail";
	if (wishes->client_context && !nest_invoke_base64_ok(wishes->client_context->value))
		return "x-amz-client-context must be base64";
	return NULL;
}

/* One request on its way to becoming a call. */
struct arrival {
	struct nest_gateway *gateway;
	struct nest_http_exchange *exchange;
	const struct nest_http_request *request;
	const char *body;
	size_t n;
	bool complete;
	struct nest_invoke_wishes wishes;
	struct nest_invoke_origin origin;
	char id[NEST_REQUEST_ID_MAX + 1];
};

/* The call is made; the invoke goes on from here. */
static void begin(struct arrival *arrival, struct nest_target *target, enum nest_invoke_kind kind,
	enum invocation invocation, uint64_t deadline_ms)
{
	struct nest_gateway *gateway = arrival->gateway;
	const struct nest_invoke_wishes *wishes = &arrival->wishes;
	struct nest_call_request call = { .id = arrival->id,
		.http = kind != NEST_INVOKE_EVENT,
		.trace = wishes->traceparent ? wishes->traceparent->value : NULL,
		.body = arrival->body,
		.body_len = arrival->n,
		.body_done = arrival->complete,
		.deadline_ms = deadline_ms };
	struct nest_invoke *invoke = nest_invoke_new(gateway, arrival->exchange, arrival->request,
		kind, arrival->id, nest_target_spec(target));
	int r = -ENOMEM;

	if (invoke) {
		invoke->background = invocation == INVOCATION_BACKGROUND;
		invoke->tail = kind != NEST_INVOKE_ROUTE && !invoke->background &&
			       wishes->log_type && strcmp(wishes->log_type->value, "Tail") == 0;
		r = nest_invoke_gather_headers(invoke, wishes, &call.nheaders);
	}
	if (r == 0) {
		call.headers = gateway->call_headers;
		call.method = kind == NEST_INVOKE_POST ? "POST" : arrival->request->method;
		call.target = kind == NEST_INVOKE_POST ? "/" : arrival->request->target;
		call.want_log_tail = invoke->tail;
		if (kind == NEST_INVOKE_EVENT && wishes->client_context)
			call.client_context = wishes->client_context->value;
		r = nest_invoke_start(invoke, target, &call);
	}
	if (r < 0) {
		if (invoke)
			nest_invoke_free(invoke);
		if (r == -EMSGSIZE)
			refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_HEADERS,
				"the request's head is longer than a worker can be sent");
		else
			refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_UNAVAILABLE,
				"the host is out of memory");
		return;
	}
	if (invoke->background && arrival->complete)
		nest_invoke_accept(invoke);
}

static void answer_dry(const struct arrival *arrival)
{
	struct nest_http_header headers[] = {
		{ .name = "x-request-id", .name_len = 12, .value = arrival->id },
		{ .name = "x-amzn-requestid", .name_len = 16, .value = arrival->id },
		{ .name = "x-amz-executed-version",
			.name_len = 22,
			.value = arrival->origin.version },
	};

	for (size_t i = 0; i < 3; i++)
		headers[i].value_len = (uint32_t)strlen(headers[i].value);
	nest_invoke_answered(&arrival->origin, 204, 0);
	if (nest_http_respond(arrival->exchange, 204, headers, 3, NULL, 0) < 0)
		nest_http_abort(arrival->exchange);
}

/* What an alias asks of a request: the value of a header. */
static const char *header_value(void *arg, const char *name)
{
	const struct nest_http_request *request = arg;
	size_t len = strlen(name);

	for (size_t i = 0; i < request->nheaders; i++) {
		const struct nest_http_header *header = &request->headers[i];

		if (header->name_len == len && memcmp(header->name, name, len) == 0)
			return header->value;
	}
	return NULL;
}

static struct nest_alias_asker asker_of(const struct arrival *arrival)
{
	return (struct nest_alias_asker){ .header = header_value, .arg = (void *)arrival->request };
}

static void take_invoke(struct arrival *arrival, const char *segment, size_t len)
{
	char name[NEST_FUNCTION_NAME_MAX + 1], qualifier[NEST_FUNCTION_VERSION_MAX + 1];
	const struct nest_alias_asker asker = asker_of(arrival);
	const struct nest_function_spec *spec;
	struct nest_target *target;
	enum invocation invocation;
	uint64_t deadline_ms;
	const char *why;

	arrival->origin.invoke_api = true;
	why = check_wishes(&arrival->wishes, true, &invocation, &deadline_ms);
	if (strcmp(arrival->request->method, "POST") != 0)
		why = "a function is invoked with POST";
	if (why || nest_invoke_parse_name(
			   segment, len, arrival->request->query, name, qualifier, &why) < 0) {
		refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_INVALID, why);
		return;
	}
	target = nest_host_choose(arrival->gateway->host, name, qualifier, &asker);
	arrival->origin.function = name;
	if (!target) {
		bool live = qualifier[0] == '\0' || strcmp(qualifier, "$LATEST") == 0;

		arrival->origin.version = live ? NULL : qualifier;
		refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_NOT_FOUND,
			live ? "no function of this name is deployed"
			     : "the function has no version and no alias of this name");
		return;
	}
	spec = nest_target_spec(target);
	arrival->origin.version = spec->version;
	if (invocation == INVOCATION_DRY)
		answer_dry(arrival);
	else
		begin(arrival, target,
			spec->interface == NEST_FUNCTION_EVENT ? NEST_INVOKE_EVENT
							       : NEST_INVOKE_POST,
			invocation, deadline_ms);
}

/* The host's name in a Host header: without its port. */
static size_t hostname_len(const char *host, size_t n)
{
	const char *colon;

	if (n > 0 && host[0] == '[') {
		const char *end = memchr(host, ']', n);

		return end ? (size_t)(end - host) + 1 : n;
	}
	colon = memchr(host, ':', n);
	return colon ? (size_t)(colon - host) : n;
}

static void take_route(struct arrival *arrival)
{
	const struct nest_http_header *host = arrival->wishes.host;
	const struct nest_http_request *request = arrival->request;
	const struct nest_alias_asker asker = asker_of(arrival);
	enum invocation invocation;
	struct nest_target *target;
	uint64_t deadline_ms;
	const char *why = check_wishes(&arrival->wishes, false, &invocation, &deadline_ms);

	if (why) {
		refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_INVALID, why);
		return;
	}
	target = nest_host_route(arrival->gateway->host, host ? host->value : "",
		host ? hostname_len(host->value, host->value_len) : 0, request->path,
		strlen(request->path), request->method, &asker);
	if (!target) {
		refuse(&arrival->origin, arrival->exchange, NEST_REFUSAL_NOT_FOUND,
			"no function has a route for this host, path and method");
		return;
	}
	begin(arrival, target, NEST_INVOKE_ROUTE, invocation, deadline_ms);
}

static void on_request(void *server_arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, const char *body, size_t n, bool complete)
{
	struct nest_gateway *gateway = server_arg;
	struct arrival arrival = { .gateway = gateway,
		.exchange = exchange,
		.request = request,
		.body = body,
		.n = n,
		.complete = complete,
		.origin = { .gateway = gateway, .request = request, .id = NULL } };
	const char *segment;
	size_t len;

	nest_invoke_read_headers(request, &arrival.wishes);
	choose_id(gateway, &arrival.wishes, arrival.id);
	arrival.origin.id = arrival.id;
	if (gateway->draining)
		refuse(&arrival.origin, exchange, NEST_REFUSAL_DRAINING,
			"the host is going away; send the request to another one");
	else if (nest_invoke_path(request->path, &segment, &len))
		take_invoke(&arrival, segment, len);
	else
		take_route(&arrival);
}

/* The HTTP server refuses a request: not HTTP, or over a limit. */
static void on_refused(void *server_arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, unsigned status, const char *why)
{
	struct nest_gateway *gateway = server_arg;
	enum nest_refusal_reason reason = nest_refusal_reason_of_status(status);
	struct nest_refusal refusal = *nest_refusal_of_reason(reason);
	struct nest_invoke_wishes wishes = { .host = NULL };
	struct nest_invoke_origin origin = { .gateway = gateway, .request = request };
	char id[NEST_REQUEST_ID_MAX + 1];
	const char *segment;
	size_t len;

	if (request) {
		nest_invoke_read_headers(request, &wishes);
		origin.invoke_api = nest_invoke_path(request->path, &segment, &len);
	}
	choose_id(gateway, &wishes, id);
	origin.id = id;
	refusal.status = status;
	gateway->stats.refused_total[reason]++;
	nest_invoke_answer_refusal(&origin, exchange, &refusal, why, 0);
}

static void on_prepare(uv_prepare_t *handle)
{
	nest_invoke_turn(handle->data);
}

static void on_check(uv_check_t *handle)
{
	nest_invoke_turn(handle->data);
}

/* Like the HTTP server's own, and before them: libuv runs those first that were started last. */
static void start_turns(struct nest_gateway *gateway)
{
	uv_prepare_init(gateway->loop, &gateway->prepare);
	uv_check_init(gateway->loop, &gateway->check);
	gateway->prepare.data = gateway;
	gateway->check.data = gateway;
	uv_prepare_start(&gateway->prepare, on_prepare);
	uv_check_start(&gateway->check, on_check);
	uv_unref((uv_handle_t *)&gateway->prepare);
	uv_unref((uv_handle_t *)&gateway->check);
	gateway->open_parts = 3;
}

static int open_listeners(struct nest_gateway *gateway, const struct nest_gateway_config *config,
	struct nest_err *err)
{
	int r = 0;

	if (!config->socket_path && !config->tcp_address)
		return nest_err_say(
			err, -EINVAL, "neither a socket nor a TCP address is configured");
	if (config->socket_path)
		r = nest_http_listen_unix(
			gateway->http, config->socket_path, config->socket_mode, err);
	if (r == 0 && config->tcp_address)
		r = nest_http_listen_tcp(gateway->http, config->tcp_address, err);
	return r;
}

int nest_gateway_open(uv_loop_t *loop, struct nest_host *host,
	const struct nest_gateway_config *config, struct nest_gateway **ret, struct nest_err *err)
{
	static const struct nest_http_events events = { .request = on_request,
		.body = nest_invoke_on_body,
		.writable = nest_invoke_on_writable,
		.gone = nest_invoke_on_gone,
		.refused = on_refused };
	struct nest_gateway *gateway = calloc(1, sizeof(*gateway));
	int r;

	if (!gateway)
		return nest_err_set(err, -ENOMEM, "open gateway");
	gateway->loop = loop;
	gateway->host = host;
	gateway->access_log = config->access_log;
	r = nest_http_server_open(loop, &config->limits, &events, gateway, &gateway->http, err);
	if (r < 0) {
		free(gateway);
		return nest_err_wrap(err, "open gateway");
	}
	start_turns(gateway);
	r = open_listeners(gateway, config, err);
	if (r < 0) {
		nest_gateway_close(gateway, NULL, NULL);
		return nest_err_wrap(err, "open gateway");
	}
	*ret = gateway;
	return 0;
}

void nest_gateway_configure(struct nest_gateway *gateway, const struct nest_gateway_config *config)
{
	gateway->access_log = config->access_log;
	nest_http_set_limits(gateway->http, &config->limits);
}

void nest_gateway_drain(struct nest_gateway *gateway)
{
	gateway->draining = true;
	nest_http_drain(gateway->http);
}

void nest_gateway_when_sent(struct nest_gateway *gateway, void (*cb)(void *arg), void *arg)
{
	nest_http_when_sent(gateway->http, cb, arg);
}

static void free_spares(struct nest_gateway *gateway)
{
	struct nest_invoke *invoke, *next;

	LL_FOREACH_SAFE(gateway->spares, invoke, next) {
		nest_buf_done(&invoke->head);
		free(invoke->headers);
		free(invoke);
	}
}

static void part_closed(struct nest_gateway *gateway)
{
	void (*cb)(void *arg) = gateway->close_cb;
	void *arg = gateway->close_arg;

	if (--gateway->open_parts > 0)
		return;
	free_spares(gateway);
	nest_buf_done(&gateway->text);
	free(gateway->call_headers);
	free(gateway);
	if (cb)
		cb(arg);
}

static void on_http_closed(void *arg)
{
	part_closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

void nest_gateway_close(struct nest_gateway *gateway, void (*cb)(void *arg), void *arg)
{
	gateway->close_cb = cb;
	gateway->close_arg = arg;
	nest_http_server_close(gateway->http, on_http_closed, gateway);
	while (gateway->active)
		nest_invoke_free(gateway->active); /* in the background, without an exchange */
	uv_close((uv_handle_t *)&gateway->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&gateway->check, on_handle_closed);
}

void nest_gateway_stats(const struct nest_gateway *gateway, struct nest_gateway_stats *ret)
{
	*ret = gateway->stats;
	ret->connections = nest_http_connections(gateway->http);
	ret->connections_total = nest_http_connections_total(gateway->http);
}
