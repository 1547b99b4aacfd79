/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/host.h"

static const char *const names[NEST_RESTART_CAUSES] = {
	[NEST_RESTART_EXIT] = "exit",
	[NEST_RESTART_SIGNAL] = "signal",
	[NEST_RESTART_OOM] = "out_of_memory",
	[NEST_RESTART_TIMEOUT] = "timeout",
	[NEST_RESTART_HUNG] = "hung",
	[NEST_RESTART_PROTOCOL] = "protocol",
	[NEST_RESTART_INIT] = "init",
};

const char *nest_restart_cause_name(enum nest_restart_cause cause)
{
	return names[cause];
}
