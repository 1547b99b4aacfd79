/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_AGENT_GATEWAY_BENCH_H
#define NEST_TESTS_UNIT_AGENT_GATEWAY_BENCH_H

#include <uv.h>

#include "agent/gateway.h"
#include "tests/unit/agent/fake_host.h"
#include "tests/unit/agent/http_peer.h"

#define INVOKE "/2015-03-31/functions/"
#define POST_HELLO "POST " INVOKE "hello/invocations HTTP/1.1\r\nHost: h\r\n"

/* A gateway on a socket of its own before the fake host, with one client. */
struct bench {
	uv_loop_t loop;
	struct nest_gateway *gateway;
	struct peer peer;
	char dir[32];
	char path[40];
	bool closed;
};

/* Opens all; bench_done() closes all, and checks that no call, handle or file is left. */
void bench_start(struct bench *bench);
void bench_done(struct bench *bench);

/* Sends @request and waits until it is a call. */
void bench_call(struct bench *bench, const char *request);
/* Sends @request and returns the status of its answer; @ret_body may be NULL. */
unsigned bench_ask(struct bench *bench, const char *request, const char **ret_body);
/* Waits for the answer to the last call. */
unsigned bench_answered(struct bench *bench, const char **ret_body);

/* Checks for a whole line of the answer's head, or that no header has @name. */
void bench_expect_header(const struct bench *bench, const char *line);
void bench_expect_no_header(const struct bench *bench, const char *name);
/* Checks one member of a JSON error; @want NULL: null. */
void bench_expect_member(const char *body, const char *key, const char *want);

#endif
