/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_NESTCTL_CLIENT_H
#define NEST_AGENT_NESTCTL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "base/buf.h"

struct nest_err;

/* An HTTP client on one of the host's unix sockets (libcurl). */
struct nest_client;

struct nest_client_request {
	const char *method;
	const char *path;
	const char *const *headers; /* "name: value", NULL-terminated, or NULL */
	const char *body;	    /* or NULL */
	size_t body_len;
	const char *body_file; /* sent instead of body; or NULL */
	/* Progress of the upload, called now and then; or NULL. */
	void (*progress)(void *arg, double done, double total);
	/* Receives the response body of a 2xx answer as it comes; NULL: gathered. Non-zero stops. */
	int (*sink)(void *arg, const char *bytes, size_t n);
	void *arg;
};

struct nest_client_response {
	long status;
	struct nest_buf body;	 /* NUL-terminated behind its length */
	char function_error[64]; /* X-Amz-Function-Error, or "" */
	char request_id[136];	 /* X-Request-Id */
	char version[64];	 /* X-Amz-Executed-Version */
	char *log_result;	 /* X-Amz-Log-Result, base64, or NULL */
};

/* Opens a client for the socket at @socket_path (copied). Caller closes. */
int nest_client_open(const char *socket_path, struct nest_client **ret, struct nest_err *err);
void nest_client_close(struct nest_client *client); /* NULL is fine */

/*
 * Sends one request and waits for its answer, whatever its status. -ECONNREFUSED, -ENOENT, -EACCES: nobody listens
 * there, with a text that says what to do. The caller empties *@ret with nest_client_response_done().
 */
int nest_client_do(struct nest_client *client, const struct nest_client_request *request,
	struct nest_client_response *ret, struct nest_err *err);
void nest_client_response_done(struct nest_client_response *response);

/*
 * A request to the admin API that must succeed: sends @json (may be NULL; not taken) and parses the
 * answer into *@ret (caller deletes; may be NULL). A refusal is -EREMOTEIO with the host's own message.
 */
int nest_client_call(struct nest_client *client, const char *method, const char *path,
	const cJSON *json, cJSON **ret, struct nest_err *err);

/* Fills @err from an error answer's {"errorType","errorMessage"}; always -EREMOTEIO. */
int nest_client_refused(const struct nest_client_response *response, struct nest_err *err);

#endif
