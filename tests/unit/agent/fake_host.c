/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/agent/fake_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <check.h>

#include "runtime/function.h"

struct nest_target {
	struct nest_function_spec spec;
	bool live;
};

static struct nest_target targets[] = {
	{ .spec = { .name = "hello", .version = "7", .interface = NEST_FUNCTION_EVENT },
		.live = true },
	{ .spec = { .name = "hello", .version = "3.1", .interface = NEST_FUNCTION_EVENT } },
	{ .spec = { .name = "web", .version = "1", .interface = NEST_FUNCTION_HTTP },
		.live = true },
};

struct fake fake;

struct nest_host *fake_host(void)
{
	return (struct nest_host *)&fake;
}

struct nest_target *nest_host_choose(struct nest_host *host, const char *name,
	const char *qualifier, const struct nest_alias_asker *asker)
{
	bool live = !qualifier || !*qualifier || strcmp(qualifier, "$LATEST") == 0;

	ck_assert_ptr_nonnull(asker);
	ck_assert_ptr_eq(host, fake_host());
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
		if (strcmp(targets[i].spec.name, name) == 0 &&
			(live ? targets[i].live : strcmp(targets[i].spec.version, qualifier) == 0))
			return &targets[i];
	return NULL;
}

struct nest_target *nest_host_route(struct nest_host *host, const char *hostname,
	size_t hostname_len, const char *path, size_t path_len, const char *method,
	const struct nest_alias_asker *asker)
{
	static const char virtual_host[] = "web.example.org";

	ck_assert_ptr_eq(host, fake_host());
	ck_assert_ptr_nonnull(asker);
	ck_assert_uint_eq(path_len, strlen(path));
	ck_assert_ptr_nonnull(method);
	if ((path_len >= 5 && memcmp(path, "/web/", 5) == 0) ||
		(hostname_len == strlen(virtual_host) &&
			memcmp(hostname, virtual_host, hostname_len) == 0))
		return &targets[2];
	return strcmp(path, "/hello") == 0 ? &targets[0] : NULL;
}

const struct nest_function_spec *nest_target_spec(const struct nest_target *target)
{
	return &target->spec;
}

static void note(char *ret, size_t n, const char *text)
{
	snprintf(ret, n, "%s", text ? text : "");
}

static void note_headers(struct nest_call *call, const struct nest_call_request *request)
{
	size_t at = 0;

	for (size_t i = 0; i < request->nheaders; i++) {
		at += (size_t)snprintf(call->headers + at, sizeof(call->headers) - at,
			"%.*s: %.*s\n", (int)request->headers[i].name_len, request->headers[i].name,
			(int)request->headers[i].value_len, request->headers[i].value);
		ck_assert_uint_lt(at, sizeof(call->headers));
	}
}

int nest_call_start(struct nest_target *target, const struct nest_call_request *request,
	const struct nest_call_events *events, void *arg, struct nest_call **ret)
{
	struct nest_call *call = calloc(1, sizeof(*call));

	ck_assert_ptr_nonnull(call);
	if (fake.no_memory) {
		free(call);
		return -ENOMEM;
	}
	call->target = target;
	call->events = events;
	call->arg = arg;
	call->http = request->http;
	call->want_log_tail = request->want_log_tail;
	call->deadline_ms = request->deadline_ms;
	call->body_done = request->body_done;
	note(call->id, sizeof(call->id), request->id);
	note(call->trace, sizeof(call->trace), request->trace);
	note(call->client_context, sizeof(call->client_context), request->client_context);
	if (request->http) {
		note(call->method, sizeof(call->method), request->method);
		note(call->target_text, sizeof(call->target_text), request->target);
		note_headers(call, request);
	}
	ck_assert_int_eq(nest_buf_append(&call->body, request->body, request->body_len), 0);
	call->next = fake.call;
	fake.call = call;
	fake.started++;
	*ret = call;
	return 0;
}

int nest_call_write(struct nest_call *call, const void *bytes, size_t n)
{
	ck_assert(!call->body_done);
	ck_assert_int_eq(nest_buf_append(&call->body, bytes, n), 0);
	return fake.full ? 1 : 0;
}

void nest_call_finish(struct nest_call *call)
{
	ck_assert(!call->body_done);
	call->body_done = true;
}

void nest_call_consumed(struct nest_call *call, size_t n)
{
	call->consumed += n;
	ck_assert_uint_le(call->consumed, call->sent);
}

/* Takes @call off the list; its storage stays readable until it is freed by the caller. */
static void unlink_call(struct nest_call *call)
{
	struct nest_call **at = &fake.call;

	while (*at && *at != call)
		at = &(*at)->next;
	ck_assert_ptr_eq(*at, call);
	*at = call->next;
}

static void free_call(struct nest_call *call)
{
	nest_buf_done(&call->body);
	free(call);
}

void nest_call_cancel(struct nest_call *call)
{
	ck_assert_msg(!fake.in_event, "a call was cancelled inside one of its events");
	unlink_call(call);
	free_call(call);
	fake.cancelled++;
}

void fake_response(unsigned status, const char *headers)
{
	struct nest_call_header list[16];
	char *text = strdup(headers); /* slices without NULs, that die at once */
	size_t n = 0;

	for (char *line = text; *line; n++) {
		char *colon = strstr(line, ": "), *end = strchr(line, '\n');

		ck_assert(n < 16 && colon && end && colon < end);
		list[n] = (struct nest_call_header){ .name = line,
			.value = colon + 2,
			.name_len = (uint32_t)(colon - line),
			.value_len = (uint32_t)(end - colon - 2) };
		line = end + 1;
	}
	ck_assert_ptr_nonnull(fake.call);
	fake.in_event = true;
	fake.call->events->response(fake.call->arg, status, list, n);
	fake.in_event = false;
	memset(text, '#', strlen(text));
	free(text);
}

void fake_body(const char *bytes, size_t n, bool last)
{
	char *copy = malloc(n + 1);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, bytes, n);
	ck_assert_ptr_nonnull(fake.call);
	fake.call->sent += n;
	fake.in_event = true;
	fake.call->events->body(fake.call->arg, copy, n, last);
	fake.in_event = false;
	memset(copy, '#', n);
	free(copy);
}

void fake_end(const char *log_tail)
{
	struct nest_call *call = fake.call;
	const struct nest_call_stats stats = { .log_tail = log_tail,
		.log_tail_len = log_tail ? strlen(log_tail) : 0 };

	ck_assert_ptr_nonnull(call);
	unlink_call(call);
	fake.in_event = true;
	call->events->end(call->arg, &stats);
	fake.in_event = false;
	free_call(call);
}

void fake_fail(enum nest_failure_kind kind, const char *message, const char *error_json)
{
	struct nest_call *call = fake.call;
	const struct nest_call_stats stats = { .cold = false };
	const struct nest_failure why = { .kind = kind,
		.message = message,
		.error_json = error_json,
		.error_json_len = error_json ? (unsigned)strlen(error_json) : 0,
		.retry_after_s = kind == NEST_FAILURE_THROTTLED ? 7 : 0 };

	ck_assert_ptr_nonnull(call);
	unlink_call(call);
	fake.in_event = true;
	(call->events->fail)(call->arg, &why, &stats); /* fail( is a macro of check.h */
	fake.in_event = false;
	free_call(call);
}

void fake_writable(void)
{
	fake.call->events->writable(fake.call->arg);
}

void fake_answer(unsigned status, const char *headers, const char *body)
{
	fake_response(status, headers);
	fake_body(body, strlen(body), true);
	fake_end(NULL);
}
