/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/failure.h"

static const struct {
	const char *type;
	const char *outcome;
} kinds[NEST_FAILURE_KINDS] = {
	[NEST_FAILURE_NONE] = { "", "success" },
	[NEST_FAILURE_THROTTLED] = { "Function.Throttled", "throttled" },
	[NEST_FAILURE_UNAVAILABLE] = { "Function.Unavailable", "unavailable" },
	[NEST_FAILURE_DRAINING] = { "Host.Draining", "draining" },
	[NEST_FAILURE_INIT] = { "Function.InitFailed", "init_failed" },
	[NEST_FAILURE_CRASHED] = { "Function.Crashed", "crashed" },
	[NEST_FAILURE_OOM] = { "Function.OutOfMemory", "out_of_memory" },
	[NEST_FAILURE_TIMEOUT] = { "Function.Timeout", "timeout" },
	[NEST_FAILURE_INVALID] = { "Function.InvalidResponse", "invalid_response" },
	[NEST_FAILURE_ERROR] = { "Function.Error", "error" },
	[NEST_FAILURE_CANCELLED] = { "Function.Cancelled", "cancelled" },
};

const char *nest_failure_type(enum nest_failure_kind kind)
{
	return kinds[kind].type;
}

const char *nest_failure_outcome(enum nest_failure_kind kind)
{
	return kinds[kind].outcome;
}
