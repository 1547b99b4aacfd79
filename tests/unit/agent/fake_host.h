/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_AGENT_FAKE_HOST_H
#define NEST_TESTS_UNIT_AGENT_FAKE_HOST_H

#include "base/buf.h"
#include "runtime/call.h"
#include "runtime/host.h"

/*
 * Stands in for runtime/host.h and runtime/call.h at link time: the test plays the worker. It knows
 * "hello" version "7" (events; also deployed as "3.1", not live; route /hello) and "web" version "1" (HTTP; routes below
 * /web/, and all of web.example.org). Calls are checked for the order that call.h demands.
 */
struct nest_call {
	struct nest_call *next;
	struct nest_target *target;
	const struct nest_call_events *events;
	void *arg;
	/* as received */
	char id[132];
	char method[16];
	char target_text[256];
	char trace[80];
	char client_context[64];
	char headers[4096]; /* "name: value\n" each */
	bool http;
	bool want_log_tail;
	bool body_done;
	uint64_t deadline_ms;
	struct nest_buf body;
	size_t consumed;
	size_t sent;
};

struct fake {
	struct nest_call *call; /* the newest that is open */
	unsigned started;
	unsigned cancelled;
	bool full;	/* nest_call_write() answers 1 */
	bool no_memory; /* nest_call_start() fails */
	bool in_event;
};

extern struct fake fake;

/* The host to give to the gateway. */
struct nest_host *fake_host(void);

/* What a worker does, on the newest call. @headers: "name: value\n" each. */
void fake_response(unsigned status, const char *headers);
void fake_body(const char *bytes, size_t n, bool last);
void fake_end(const char *log_tail);
void fake_fail(enum nest_failure_kind kind, const char *message, const char *error_json);
void fake_writable(void);
/* Response, body and end in one turn. */
void fake_answer(unsigned status, const char *headers, const char *body);

#endif
