/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FAILURE_H
#define NEST_RUNTIME_FAILURE_H

/*
 * Why a request was not answered by its function: the closed list that the gateway's error table,
 * the metrics and the logs share. NEST_FAILURE_ERROR is a handler's own error, with its JSON.
 */
enum nest_failure_kind {
	NEST_FAILURE_NONE,
	NEST_FAILURE_THROTTLED,	  /* queue full */
	NEST_FAILURE_UNAVAILABLE, /* no worker in time, or none can be made now */
	NEST_FAILURE_DRAINING,	  /* the host is going away */
	NEST_FAILURE_INIT,	  /* the worker did not get ready: its code is at fault */
	NEST_FAILURE_CRASHED,	  /* the worker died while it had the request */
	NEST_FAILURE_OOM,	  /* and it was for want of memory */
	NEST_FAILURE_TIMEOUT,	  /* the deadline passed */
	NEST_FAILURE_INVALID,	  /* the worker's answer broke the protocol or a limit */
	NEST_FAILURE_ERROR,	  /* the handler threw */
	NEST_FAILURE_CANCELLED,	  /* the caller went away */
	NEST_FAILURE_KINDS
};

struct nest_failure {
	enum nest_failure_kind kind;
	const char *message;	/* fit for the caller's eyes; names function and cause */
	const char *error_json; /* NEST_FAILURE_ERROR, _INIT: the worker's ERROR payload, or NULL */
	unsigned error_json_len;
	unsigned retry_after_s; /* 0: no hint */
};

/* The errorType of DESIGN's table ("Function.Timeout"); "" for NEST_FAILURE_NONE. Any thread. */
const char *nest_failure_type(enum nest_failure_kind kind);

/* A short lower-case word for metrics and logs ("timeout"); "success" for NONE. Any thread. */
const char *nest_failure_outcome(enum nest_failure_kind kind);

#endif
