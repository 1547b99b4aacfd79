/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/admin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/admin_request.h"
#include "base/cleanup.h"
#include "base/err.h"

enum {
	ADMIN_CONNECTIONS = 64,
	ADMIN_BODY_MAX = 1 << 20, /* of a body that is held whole: a spec with its env */
};

struct nest_admin {
	struct nest_admin_env env;
	struct nest_http_server *server;
	void (*close_cb)(void *arg);
	void *close_arg;
};

static const struct nest_admin_route routes[] = {
	{ "GET", "/healthz", nest_admin_show_healthz, NULL },
	{ "GET", "/readyz", nest_admin_show_readyz, NULL },
	{ "GET", "/metrics", nest_admin_show_metrics, NULL },
	{ "GET", "/v1/host", nest_admin_show_host, NULL },
	{ "GET", "/v1/stats", nest_admin_show_stats, NULL },
	{ "GET", "/v1/scaler", nest_admin_show_scaler, NULL },
	{ "GET", "/v1/features", nest_admin_show_features, NULL },
	{ "GET", "/v1/functions", nest_admin_show_functions, NULL },
	{ "GET", "/v1/functions/{name}", nest_admin_show_function, NULL },
	{ "PUT", "/v1/functions/{name}", nest_admin_change_put, NULL },
	{ "DELETE", "/v1/functions/{name}", nest_admin_change_delete, NULL },
	{ "GET", "/v1/functions/{name}/logs", nest_admin_logs_get, NULL },
	{ "POST", "/v1/functions/{name}/snapshot", nest_admin_change_snapshot_build, NULL },
	{ "DELETE", "/v1/functions/{name}/snapshot", nest_admin_change_snapshot_remove, NULL },
	{ "GET", "/v1/functions/{name}/aliases", nest_admin_alias_list, NULL },
	{ "PUT", "/v1/functions/{name}/aliases/{part}", nest_admin_alias_set, NULL },
	{ "DELETE", "/v1/functions/{name}/aliases/{part}", nest_admin_alias_remove, NULL },
	{ "POST", "/v1/functions/{name}/rollback", nest_admin_alias_rollback, NULL },
	{ "GET", "/v1/runtimes", nest_admin_runtimes_list, NULL },
	{ "POST", "/v1/runtimes/snapshots", nest_admin_runtimes_build, NULL },
	{ "GET", "/v1/workers", nest_admin_show_workers, NULL },
	{ "POST", "/v1/artifacts", nest_admin_change_artifact, nest_admin_change_artifact_piece },
	{ "GET", "/v1/cache", nest_admin_cache_list, NULL },
	{ "DELETE", "/v1/cache/{name}", nest_admin_cache_remove, NULL },
	{ "POST", "/v1/cache/verify", nest_admin_cache_verify, NULL },
	{ "POST", "/v1/cache/prefetch", nest_admin_cache_prefetch, NULL },
	{ "POST", "/v1/reload", nest_admin_change_reload, NULL },
	{ "POST", "/v1/drain", nest_admin_change_drain, NULL },
};

/* Copies the segment that @path begins with; its length, or 0 for one that is empty or too long. */
static size_t take_segment(const char *path, char *ret, size_t n)
{
	size_t len = strcspn(path, "/");

	if (len >= n)
		return 0;
	memcpy(ret, path, len);
	ret[len] = '\0';
	return len;
}

/* Whether @path is of the form @pattern; its {name} and {part} go to @request. */
static bool path_matches(const char *pattern, const char *path, struct nest_admin_request *request)
{
	request->name[0] = request->part[0] = '\0';
	while (*pattern) {
		bool name = strncmp(pattern, "{name}", 6) == 0;
		size_t len = 1;

		if (name || strncmp(pattern, "{part}", 6) == 0) {
			len = name ? take_segment(path, request->name, sizeof(request->name))
				   : take_segment(path, request->part, sizeof(request->part));
			pattern += 6;
		} else if (*pattern++ != *path) {
			return false;
		}
		if (len == 0)
			return false;
		path += len;
	}
	return *path == '\0';
}

/* The route of @method and @path; NULL with *@ret_path_known saying whether only the method is wrong. */
static const struct nest_admin_route *route_find(const char *method, const char *path,
	struct nest_admin_request *request, bool *ret_path_known)
{
	*ret_path_known = false;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(routes); i++) {
		if (!path_matches(routes[i].path, path, request))
			continue;
		*ret_path_known = true;
		if (strcmp(routes[i].method, method) == 0)
			return &routes[i];
	}
	return NULL;
}

void nest_admin_request_free(struct nest_admin_request *request)
{
	if (request->exchange)
		nest_http_set_owner(request->exchange, NULL);
	nest_buf_done(&request->body);
	free(request->query);
	free(request);
}

void nest_admin_request_text(struct nest_admin_request *request, unsigned status, const char *type,
	const char *text, size_t n)
{
	const struct nest_http_header header = { .name = "content-type",
		.name_len = sizeof("content-type") - 1,
		.value = type,
		.value_len = (uint32_t)strlen(type) };
	struct nest_http_exchange *exchange = nest_take_ptr(request->exchange);

	if (exchange) {
		nest_http_set_owner(exchange, NULL);
		if (nest_http_respond(exchange, status, &header, 1, text, n) < 0)
			nest_http_abort(exchange);
	}
	nest_admin_request_free(request);
}

void nest_admin_request_answer(struct nest_admin_request *request, unsigned status, cJSON *json)
{
	char *text = json ? cJSON_PrintUnformatted(json) : NULL;

	cJSON_Delete(json);
	if (text)
		nest_admin_request_text(request, status, "application/json", text, strlen(text));
	else
		nest_admin_request_refuse(
			request, 500, "Host.OutOfMemory", "the host is out of memory");
	free(text);
}

void nest_admin_request_refuse(
	struct nest_admin_request *request, unsigned status, const char *type, const char *fmt, ...)
{
	struct nest_buf body = NEST_BUF_INIT;
	char message[600];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	r = nest_buf_printf(&body, "{\"errorType\":\"%s\",\"errorMessage\":", type);
	if (r == 0)
		r = nest_buf_json_string(&body, message, strlen(message));
	if (r == 0)
		r = nest_buf_puts(&body, "}");
	nest_admin_request_text(request, status, "application/json",
		r == 0 ? nest_buf_bytes(&body) : "", r == 0 ? body.len : 0);
	nest_buf_done(&body);
}

void nest_admin_request_refuse_as(struct nest_admin_request *request,
	const struct nest_admin_refusal *rows, const struct nest_err *err)
{
	while (rows->code != 0 && rows->code != err->code)
		rows++;
	nest_admin_request_refuse(request, rows->status, rows->type, "%s", nest_err_text(err));
}

bool nest_admin_request_query(
	const struct nest_admin_request *request, const char *key, char *ret, size_t n)
{
	size_t key_len = strlen(key);

	for (const char *at = request->query; *at;) {
		size_t len = strcspn(at, "&");

		if (len > key_len && strncmp(at, key, key_len) == 0 && at[key_len] == '=') {
			snprintf(ret, n, "%.*s", (int)(len - key_len - 1), at + key_len + 1);
			return true;
		}
		at += len + (at[len] == '&');
	}
	return false;
}

/* Takes body bytes for the request's route; false once it has been answered. */
static bool request_take(struct nest_admin_request *request, const char *bytes, size_t n)
{
	if (request->route->piece)
		return n == 0 || request->route->piece(request, bytes, n);
	if (request->body.len + n > ADMIN_BODY_MAX) {
		nest_admin_request_refuse(request, 413, "Request.TooLarge",
			"the body is longer than %d bytes", ADMIN_BODY_MAX);
		return false;
	}
	if (n > 0 && nest_buf_append(&request->body, bytes, n) != 0) {
		nest_admin_request_answer(request, 500, NULL);
		return false;
	}
	return true;
}

static void on_body(void *owner, const char *bytes, size_t n, bool complete)
{
	struct nest_admin_request *request = owner;

	if (request && request_take(request, bytes, n) && complete)
		request->route->handle(request);
}

static void on_request(void *server_arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *http, const char *body, size_t n, bool complete)
{
	struct nest_admin *admin = server_arg;
	struct nest_admin_request *request = calloc(1, sizeof(*request));
	bool known;

	if (!request || !(request->query = strdup(http->query))) {
		free(request);
		nest_http_abort(exchange);
		return;
	}
	request->env = &admin->env;
	request->exchange = exchange;
	nest_http_set_owner(exchange, request);
	request->route = route_find(http->method, http->path, request, &known);
	if (!request->route) {
		nest_admin_request_refuse(request, known ? 405 : 404, "Request.Invalid",
			"%s %s is not a request of the admin API", http->method, http->path);
		return;
	}
	if (request_take(request, body, n) && complete)
		request->route->handle(request);
}

static void on_gone(void *owner)
{
	struct nest_admin_request *request = owner;

	if (!request)
		return;
	request->exchange = NULL;
	if (request->on_gone)
		request->on_gone(request);
	else if (!request->state)
		nest_admin_request_free(request);
}

static void on_writable(void *owner)
{
	struct nest_admin_request *request = owner;

	if (request && request->on_writable)
		request->on_writable(request);
}

static void on_server_closed(void *arg)
{
	struct nest_admin *admin = arg;
	void (*cb)(void *cb_arg) = admin->close_cb;
	void *cb_arg = admin->close_arg;

	free(admin);
	if (cb)
		cb(cb_arg);
}

int nest_admin_open(uv_loop_t *loop, const struct nest_admin_env *env, const char *socket_path,
	unsigned mode, struct nest_admin **ret, struct nest_err *err)
{
	static const struct nest_http_events events = {
		.request = on_request, .body = on_body, .writable = on_writable, .gone = on_gone
	};
	const struct nest_http_limits limits = { .connections = ADMIN_CONNECTIONS,
		.header_bytes = 16 << 10,
		.header_count = 64,
		.body_bytes = UINT64_MAX, /* each route bounds its own */
		.header_timeout_ms = 10000,
		.body_idle_ms = 30000,
		.keepalive_ms = 60000,
		.write_idle_ms = 60000 };
	struct nest_admin *admin = calloc(1, sizeof(*admin));
	int r;

	if (!admin)
		return nest_err_set(err, -ENOMEM, "open admin API");
	admin->env = *env;
	r = nest_http_server_open(loop, &limits, &events, admin, &admin->server, err);
	if (r < 0) {
		free(admin);
		return r;
	}
	r = nest_http_listen_unix(admin->server, socket_path, mode, err);
	if (r < 0) {
		nest_admin_close(admin, NULL, NULL);
		return nest_err_wrap(err, "open admin API");
	}
	*ret = admin;
	return 0;
}

void nest_admin_close(struct nest_admin *admin, void (*cb)(void *arg), void *arg)
{
	admin->close_cb = cb;
	admin->close_arg = arg;
	nest_http_server_close(admin->server, on_server_closed, admin);
}
