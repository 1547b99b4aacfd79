/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_GATEWAY_H
#define NEST_AGENT_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "agent/http.h"
#include "agent/refusal.h"

struct nest_err;
struct nest_host;

/*
 * The door for invocations: an HTTP server whose every request becomes a call of the host (the
 * Invoke API and the functions' routes), as docs/gateway-api.md promises. Loop thread only.
 */
struct nest_gateway;

struct nest_gateway_config {
	const char *socket_path; /* NULL: no unix socket */
	unsigned socket_mode;
	const char *tcp_address; /* loopback "address:port", or NULL */
	struct nest_http_limits limits;
	bool access_log; /* each request's line at info; else at debug */
};

struct nest_gateway_stats {
	uint32_t connections; /* open now */
	uint32_t in_flight;   /* calls begun and not ended, background ones too */
	uint64_t connections_total;
	uint64_t responses_total[6];	  /* by the status' first digit; [0] is unused */
	uint64_t aborted_total;		  /* broken off after the head was sent */
	uint64_t cancelled_total;	  /* the client left first */
	uint64_t background_failed_total; /* X-Amz-Invocation-Type: Event, failed after its 202 */
	uint64_t refused_total
		[NEST_REFUSAL_REASONS]; /* by the gateway itself; see agent/refusal.h */
};

/*
 * Opens the gateway and its listeners (at least one must be configured: -EINVAL). Copies @config;
 * borrows @host, which must be closed only after the gateway.
 */
int nest_gateway_open(uv_loop_t *loop, struct nest_host *host,
	const struct nest_gateway_config *config, struct nest_gateway **ret, struct nest_err *err);

/* Takes new limits and the access log's level, for requests to come; listeners stay as they are. */
void nest_gateway_configure(struct nest_gateway *gateway, const struct nest_gateway_config *config);

/* No new connections; new requests on open ones get 503 Host.Draining; what runs goes on. */
void nest_gateway_drain(struct nest_gateway *gateway);

/* Calls @cb once, on a later turn, when all answers are with their clients; never once it is closed. */
void nest_gateway_when_sent(struct nest_gateway *gateway, void (*cb)(void *arg), void *arg);

/* Cancels what runs, breaks all connections, then calls @cb (may be NULL) and frees. */
void nest_gateway_close(struct nest_gateway *gateway, void (*cb)(void *arg), void *arg);

/* Counters since open. */
void nest_gateway_stats(const struct nest_gateway *gateway, struct nest_gateway_stats *ret);

#endif
