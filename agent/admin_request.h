/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_ADMIN_REQUEST_H
#define NEST_AGENT_ADMIN_REQUEST_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "agent/admin.h"
#include "agent/http.h"
#include "base/buf.h"
#include "runtime/host.h"

/*
 * One request to the admin API, from its head to its answer. A handler that answers later (a deploy, an upload, a
 * followed log) keeps it; when the client leaves meanwhile, @exchange is NULL and the answer goes
 * nowhere, but the work is finished all the same.
 */
struct nest_admin_request {
	const struct nest_admin_env *env;
	struct nest_http_exchange *exchange; /* NULL: the client is gone */
	const struct nest_admin_route *route;
	char name[80];	      /* the {name} of the path, or "" */
	char part[40];	      /* the {part} of the path, or "" */
	char *query;	      /* behind '?' */
	struct nest_buf body; /* whole, unless the route streams it */
	void *state;	      /* the handler's own */
	/* The handler's way to hear that the client has left; unset: nothing to do. */
	void (*on_gone)(struct nest_admin_request *request);
	void (*on_writable)(struct nest_admin_request *request);
};

struct nest_admin_route {
	const char *method;
	const char *path; /* "/v1/functions/{name}/logs" */
	/* The body is complete: answers, now or later. */
	void (*handle)(struct nest_admin_request *request);
	/* For a body too large to hold: pieces as they come; false: it was answered already. */
	bool (*piece)(struct nest_admin_request *request, const char *bytes, size_t n);
};

/* Answers with @json (taken; NULL is an out-of-memory error) and frees the request. */
void nest_admin_request_answer(struct nest_admin_request *request, unsigned status, cJSON *json);

/* Answers with text of @type and frees the request. */
void nest_admin_request_text(struct nest_admin_request *request, unsigned status, const char *type,
	const char *text, size_t n);

/* Answers {"errorType","errorMessage"} and frees the request. */
void nest_admin_request_refuse(struct nest_admin_request *request, unsigned status,
	const char *type, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* What an error code is told as. */
struct nest_admin_refusal {
	int code; /* -errno; 0 in the last row, which stands for all others */
	unsigned status;
	const char *type;
};

/* Answers with @err's text as the first of @rows with its code says, and frees the request. */
void nest_admin_request_refuse_as(struct nest_admin_request *request,
	const struct nest_admin_refusal *rows, const struct nest_err *err);

/* Frees a request that was answered in a stream, or whose client is gone. */
void nest_admin_request_free(struct nest_admin_request *request);

/* The decoded-as-is value of @key in the query string, copied to @ret (cut at @n); false if absent. */
bool nest_admin_request_query(
	const struct nest_admin_request *request, const char *key, char *ret, size_t n);

/* Adds how a snapshot stands to @object, as "snapshot". */
void nest_admin_show_snapshot(cJSON *object, const struct nest_snapshot_stats *stats);

/* Adds the "aliases" of the request's function to @object. -ENOENT: there is no such function. */
int nest_admin_alias_describe(
	const struct nest_admin_request *request, cJSON *object, struct nest_err *err);

/* The handlers, by file. */
void nest_admin_show_functions(struct nest_admin_request *request);
void nest_admin_show_function(struct nest_admin_request *request);
void nest_admin_show_workers(struct nest_admin_request *request);
void nest_admin_show_host(struct nest_admin_request *request);
void nest_admin_show_stats(struct nest_admin_request *request);
void nest_admin_show_scaler(struct nest_admin_request *request);
void nest_admin_show_features(struct nest_admin_request *request);
void nest_admin_show_metrics(struct nest_admin_request *request);
void nest_admin_show_healthz(struct nest_admin_request *request);
void nest_admin_show_readyz(struct nest_admin_request *request);
void nest_admin_change_put(struct nest_admin_request *request);
void nest_admin_change_delete(struct nest_admin_request *request);
void nest_admin_runtimes_list(struct nest_admin_request *request);
void nest_admin_runtimes_build(struct nest_admin_request *request);
void nest_admin_change_snapshot_build(struct nest_admin_request *request);
void nest_admin_change_snapshot_remove(struct nest_admin_request *request);
void nest_admin_change_reload(struct nest_admin_request *request);
void nest_admin_change_drain(struct nest_admin_request *request);
bool nest_admin_change_artifact_piece(
	struct nest_admin_request *request, const char *bytes, size_t n);
void nest_admin_change_artifact(struct nest_admin_request *request);
void nest_admin_cache_list(struct nest_admin_request *request);
void nest_admin_cache_remove(struct nest_admin_request *request);
void nest_admin_cache_verify(struct nest_admin_request *request);
void nest_admin_cache_prefetch(struct nest_admin_request *request);
void nest_admin_logs_get(struct nest_admin_request *request);
void nest_admin_alias_list(struct nest_admin_request *request);
void nest_admin_alias_set(struct nest_admin_request *request);
void nest_admin_alias_remove(struct nest_admin_request *request);
void nest_admin_alias_rollback(struct nest_admin_request *request);

#endif
