/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/invoke.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define TEXT_KEEP_BYTES 4096u
#define OWN_HEADERS 8 /* most that the gateway adds to one answer */

static struct nest_http_header header_of(const char *name, const char *value)
{
	return (struct nest_http_header){ .name = name,
		.value = value,
		.name_len = (uint32_t)strlen(name),
		.value_len = (uint32_t)strlen(value) };
}

struct nest_invoke_origin nest_invoke_origin(const struct nest_invoke *invoke)
{
	return (struct nest_invoke_origin){ .gateway = invoke->gateway,
		.request = invoke->request,
		.id = invoke->id,
		.function = invoke->function,
		.version = invoke->version,
		.started_us = invoke->started_us,
		.invoke_api = invoke->kind != NEST_INVOKE_ROUTE };
}

void nest_invoke_answered(const struct nest_invoke_origin *origin, unsigned status, uint64_t bytes)
{
	struct nest_gateway *gateway = origin->gateway;
	enum nest_log_level level = gateway->access_log ? NEST_LOG_INFO : NEST_LOG_DEBUG;
	uint64_t took_us;

	if (status >= 100 && status <= 599)
		gateway->stats.responses_total[status / 100]++;
	if (!nest_log_enabled(level))
		return;
	took_us = origin->started_us ? nest_clock_mono_us() - origin->started_us : 0;
	nest_log(level, "access", "%s %s %u bytes=%llu ms=%llu.%03llu function=%s version=%s id=%s",
		origin->request ? origin->request->method : "-",
		origin->request ? origin->request->path : "-", status, (unsigned long long)bytes,
		(unsigned long long)(took_us / 1000), (unsigned long long)(took_us % 1000),
		origin->function ? origin->function : "-", origin->version ? origin->version : "-",
		origin->id);
}

/* The gateway's headers of every answer; returns how many. */
static size_t own_headers(
	const struct nest_invoke_origin *origin, const char *type, struct nest_http_header *ret)
{
	size_t n = 0;

	ret[n++] = header_of("x-request-id", origin->id);
	if (origin->invoke_api) {
		ret[n++] = header_of("x-amzn-requestid", origin->id);
		if (origin->version)
			ret[n++] = header_of("x-amz-executed-version", origin->version);
	}
	if (type)
		ret[n++] = header_of("content-type", type);
	return n;
}

void nest_invoke_answer_refusal(const struct nest_invoke_origin *origin,
	struct nest_http_exchange *exchange, const struct nest_refusal *refusal,
	const char *message, unsigned retry_after_s)
{
	struct nest_buf *text = &origin->gateway->text;
	struct nest_http_header headers[OWN_HEADERS];
	size_t n = own_headers(origin, "application/json", headers);
	char retry[16];
	int r;

	if (retry_after_s == 0)
		retry_after_s = refusal->retry_after_s;
	if (refusal->retry_after_s > 0) {
		snprintf(retry, sizeof(retry), "%u", retry_after_s);
		headers[n++] = header_of("retry-after", retry);
	}
	nest_buf_clear(text, TEXT_KEEP_BYTES);
	r = nest_refusal_json(
		text, refusal, message, origin->function, origin->version, origin->id);
	nest_invoke_answered(origin, refusal->status, r == 0 ? text->len : 0);
	/* without memory for its body the status still tells */
	if (nest_http_respond(exchange, refusal->status, headers, n,
		    r == 0 ? nest_buf_bytes(text) : "", r == 0 ? text->len : 0) < 0)
		nest_http_abort(exchange);
}

static int base64(struct nest_buf *buf, const char *bytes, size_t n)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = (const unsigned char *)bytes;
	size_t room = (n + 2) / 3 * 4;
	char *out;

	if (nest_buf_reserve(buf, room, &out) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i += 3, out += 4) {
		unsigned group = (unsigned)in[i] << 16;

		group |= i + 1 < n ? (unsigned)in[i + 1] << 8 : 0;
		group |= i + 2 < n ? in[i + 2] : 0;
		out[0] = alphabet[group >> 18];
		out[1] = alphabet[group >> 12 & 63];
		out[2] = i + 1 < n ? alphabet[group >> 6 & 63] : '=';
		out[3] = i + 2 < n ? alphabet[group & 63] : '=';
	}
	nest_buf_commit(buf, room);
	return 0;
}

/* X-Amz-Log-Result, where it was asked for and the runtime kept it. 1 header or none. */
static size_t log_header(const struct nest_invoke *invoke, const struct nest_call_stats *stats,
	struct nest_http_header *ret)
{
	struct nest_buf *text = &invoke->gateway->text;

	nest_buf_clear(text, TEXT_KEEP_BYTES);
	if (!invoke->tail || !stats || !stats->log_tail ||
		base64(text, stats->log_tail, stats->log_tail_len) < 0)
		return 0;
	*ret = (struct nest_http_header){ .name = "x-amz-log-result",
		.value = nest_buf_bytes(text) ? nest_buf_bytes(text) : "",
		.name_len = 16,
		.value_len = (uint32_t)text->len };
	return 1;
}

/* A handler's own error on the Invoke API: 200, X-Amz-Function-Error, and what the handler threw. */
static void answer_handler_error(struct nest_invoke *invoke, const struct nest_failure *why,
	const struct nest_call_stats *stats)
{
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);
	struct nest_http_header headers[OWN_HEADERS];
	size_t n = own_headers(&origin, "application/json", headers);
	struct nest_buf made = NEST_BUF_INIT;
	const char *body = why->error_json;
	size_t len = why->error_json_len;

	headers[n++] = header_of("x-amz-function-error", "Unhandled");
	n += log_header(invoke, stats, &headers[n]);
	if (!body) {
		nest_buf_puts(&made, "{\"errorType\":\"Function.Error\",\"errorMessage\":");
		nest_buf_json_string(&made, why->message, strlen(why->message));
		nest_buf_puts(&made, "}");
		body = nest_buf_bytes(&made);
		len = made.len;
	}
	nest_invoke_answered(&origin, 200, len);
	if (nest_http_respond(invoke->exchange, 200, headers, n, body, len) < 0)
		nest_http_abort(invoke->exchange);
	nest_buf_done(&made);
}

void nest_invoke_answer_failure(struct nest_invoke *invoke, const struct nest_failure *why,
	const struct nest_call_stats *stats)
{
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);

	if (why->kind == NEST_FAILURE_ERROR && invoke->kind != NEST_INVOKE_ROUTE)
		answer_handler_error(invoke, why, stats);
	else
		nest_invoke_answer_refusal(&origin, invoke->exchange,
			nest_refusal_of_failure(why->kind), why->message, why->retry_after_s);
	invoke->exchange = NULL;
	invoke->request = NULL;
	invoke->progress = NEST_INVOKE_ANSWERED;
}

/* The function's headers that are not for it to set. */
static bool is_ours(const struct nest_invoke *invoke, const char *name)
{
	static const char *const invoke_api[] = { "x-amzn-requestid", "x-amz-executed-version",
		"x-amz-function-error", "x-amz-log-result" };

	if (strcmp(name, "x-request-id") == 0 || strcmp(name, "content-length") == 0)
		return true;
	for (size_t i = 0; invoke->kind != NEST_INVOKE_ROUTE && i < NEST_ARRAY_SIZE(invoke_api);
		i++)
		if (strcmp(name, invoke_api[i]) == 0)
			return true;
	return false;
}

static bool passes(const struct nest_invoke *invoke, const struct nest_http_header *header,
	const char *connection)
{
	if (invoke->kind == NEST_INVOKE_EVENT)
		return strcmp(header->name, "content-type") == 0 ||
		       strcmp(header->name, "x-nestlet-fallback") == 0;
	return !nest_invoke_hop_by_hop(header->name, header->name_len, connection) &&
	       !is_ours(invoke, header->name);
}

/* A function's content-length, which must agree with one before it. */
static int read_length(const char *value, int64_t *length)
{
	size_t n = strlen(value);
	int64_t read;

	if (n == 0 || n > 18 || strspn(value, "0123456789") != n)
		return -EINVAL;
	read = (int64_t)strtoull(value, NULL, 10);
	if (*length >= 0 && *length != read)
		return -EINVAL;
	*length = read;
	return 0;
}

/* Room for @n headers and their text; what is copied below never grows it again. */
static int reserve_head(
	struct nest_invoke *invoke, const struct nest_call_header *headers, size_t n)
{
	size_t wanted = n + 2 * (size_t)OWN_HEADERS;
	size_t bytes = 0;
	char *room;

	for (size_t i = 0; i < n; i++)
		bytes += (size_t)headers[i].name_len + headers[i].value_len + 2;
	if (bytes > NEST_INVOKE_HEAD_BYTES)
		return -EINVAL;
	if (wanted > invoke->headers_cap) {
		struct nest_http_header *grown = realloc(invoke->headers, wanted * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		invoke->headers = grown;
		invoke->headers_cap = wanted;
	}
	nest_buf_clear(&invoke->head, TEXT_KEEP_BYTES);
	return nest_buf_reserve(&invoke->head, bytes, &room);
}

static char *keep_text(struct nest_invoke *invoke, const char *bytes, size_t n)
{
	char *at = nest_buf_bytes(&invoke->head) + invoke->head.len;

	memcpy(at, bytes, n);
	at[n] = '\0';
	nest_buf_commit(&invoke->head, n + 1);
	return at;
}

/* The worker's slices as headers of our own: lower case, ended by NULs. */
static void keep_header(struct nest_invoke *invoke, const struct nest_call_header *from,
	struct nest_http_header *ret)
{
	char *name = keep_text(invoke, from->name, from->name_len);

	for (uint32_t i = 0; i < from->name_len; i++)
		if (name[i] >= 'A' && name[i] <= 'Z')
			name[i] = (char)(name[i] | 0x20);
	*ret = (struct nest_http_header){ .name = name,
		.value = keep_text(invoke, from->value, from->value_len),
		.name_len = from->name_len,
		.value_len = from->value_len };
}

int nest_invoke_make_head(struct nest_invoke *invoke, unsigned status,
	const struct nest_call_header *headers, size_t n)
{
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);
	const char *connection = NULL;
	struct nest_http_header *all, *kept;
	bool typed = false;
	int r = reserve_head(invoke, headers, n);

	if (r < 0)
		return r;
	invoke->status = status;
	invoke->declared = -1;
	kept = invoke->headers + own_headers(&origin, NULL, invoke->headers);
	all = kept;
	for (size_t i = 0; i < n && r == 0; i++) {
		keep_header(invoke, &headers[i], &all[i]);
		if (strcmp(all[i].name, "content-length") == 0)
			r = read_length(all[i].value, &invoke->declared);
		if (strcmp(all[i].name, "connection") == 0)
			connection = all[i].value;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (!passes(invoke, &all[i], connection))
			continue;
		if (!nest_http_header_ok(&all[i]))
			return -EINVAL;
		typed |= strcmp(all[i].name, "content-type") == 0;
		*kept++ = all[i];
	}
	if (!typed && invoke->kind == NEST_INVOKE_EVENT && status != 202)
		*kept++ = header_of("content-type", "application/json");
	invoke->nheaders = (size_t)(kept - invoke->headers);
	return 0;
}

void nest_invoke_answer_whole(struct nest_invoke *invoke, const char *bytes, size_t n,
	const struct nest_call_stats *stats)
{
	struct nest_invoke_origin origin = nest_invoke_origin(invoke);
	struct nest_http_exchange *exchange = nest_take_ptr(invoke->exchange);
	int r;

	invoke->nheaders += log_header(invoke, stats, &invoke->headers[invoke->nheaders]);
	nest_invoke_answered(&origin, invoke->status, n);
	invoke->request = NULL;
	invoke->progress = NEST_INVOKE_ANSWERED;
	/* HEAD and 304 may announce the length of what is not sent */
	if (n == 0 && invoke->declared > 0) {
		r = nest_http_respond_head(exchange, invoke->status, invoke->headers,
			invoke->nheaders, invoke->declared);
		if (r == 0)
			nest_http_send_end(exchange);
	} else {
		r = nest_http_respond(
			exchange, invoke->status, invoke->headers, invoke->nheaders, bytes, n);
	}
	if (r < 0)
		nest_http_abort(exchange);
}
