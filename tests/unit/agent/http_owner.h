/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_AGENT_HTTP_OWNER_H
#define NEST_TESTS_UNIT_AGENT_HTTP_OWNER_H

#include "agent/http_conn.h"
#include "base/buf.h"
#include "tests/unit/agent/http_peer.h"

/*
 * The owner of a server under test. It notes what it hears. By itself it answers a complete request
 * at once with a description: "METHOD target path query host n:body".
 */
struct owner {
	uv_loop_t loop;
	struct nest_http_server *server;
	struct nest_http_exchange *exchange; /* the last one that is not over */
	struct nest_buf body;
	char head[512]; /* the description up to the body */
	unsigned requests;
	unsigned refusals;
	unsigned refused_status;
	bool refused_knew_request;
	bool hold;	    /* the test answers */
	bool pause_at_once; /* the body, in the request event */
	bool complete;
	bool gone;
	bool writable;
	bool closed;
};

extern const struct nest_http_limits owner_limits;

/* Opens a server of @limits with @owner for its owner; owner_done() frees all and closes the loop. */
void owner_start(struct owner *owner, const struct nest_http_limits *limits);
void owner_done(struct owner *owner);

/* Answers what is held with the description. */
void owner_answer(struct owner *owner);

#endif
