/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_RUNTIME_KIT_H
#define NEST_TESTS_UNIT_RUNTIME_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/buf.h"
#include "runtime/host.h"

/*
 * A real host with real cells in a state directory of its own, for tests that drive it as the agent
 * does. Its runtime "fake" is tests/unit/runtime/fake_worker.c, whose behaviour a request's body
 * chooses.
 */
extern uv_loop_t *kit_loop;
extern struct nest_host *kit_host;
extern struct nest_host_config kit_config; /* change it before kit_open() */

/* Fills kit_config; the state directory is made. */
void kit_prepare(void);

/* Opens the host. */
void kit_open(void);

/* Closes the host and the loop, and fails the test if a handle or a cell is left. */
void kit_close(void);

/* The rest of kit_close() for a host that the test has closed. */
void kit_forget(void);

/* Runs the loop until *@flag is true; fails the test after @limit_ms. */
void kit_run_until(const bool *flag, unsigned limit_ms);

/* Runs the loop until @done(arg) says true; fails the test after @limit_ms. */
void kit_run_while_not(bool (*done)(void *arg), void *arg, unsigned limit_ms);

/* Runs the loop for @ms. */
void kit_run_for(unsigned ms);

/*
 * Deploys a spec given as JSON; "code" may be left out: an empty directory. Fails the test if it
 * can't be.
 */
struct nest_target *kit_deploy(const char *json);

/* The same, when it must fail: the error's text. Static storage. */
const char *kit_deploy_error(const char *json);

/* One call as its caller sees it. */
struct kit_call {
	struct nest_call *call;
	bool over; /* end or fail came */
	bool responded;
	bool writable;
	bool hold_body; /* don't give body bytes back */
	size_t unconsumed;
	enum nest_failure_kind failure;
	unsigned retry_after_s;
	unsigned status;
	bool cold;
	uint64_t queue_us;
	uint64_t run_us;
	char message[512];
	char error_json[512];
	char headers[512]; /* "name: value\n" each */
	struct nest_buf body;
	struct nest_buf tail;
	struct nest_call_request request; /* what kit_start() sends; set before */
};

/* Starts @c, zeroed but for c->request and hold_body; "id" and body_done have defaults. */
void kit_start(struct kit_call *c, struct nest_target *target, const char *body);

/* The same, run to its end. */
void kit_call(struct kit_call *c, struct nest_target *target, const char *body);

/* Runs the loop until @c is over. */
void kit_finish(struct kit_call *c);

/* The body as a string; static storage of the call. */
const char *kit_body(struct kit_call *c);

void kit_free(struct kit_call *c);

/* The statistics of @target now. */
struct nest_target_stats kit_stats(struct nest_target *target);

/* What on_event was told, all lines. */
const char *kit_events(void);

#endif
