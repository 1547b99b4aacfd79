/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/breakpoint.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"

int nest_breakpoint_hold(struct nest_err *err)
{
	/* of this process alone, on any processor, never running, without the kernel's part */
	const struct perf_event_attr nothing = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(nothing),
		.config = PERF_COUNT_SW_DUMMY,
		.disabled = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	/* closed by the process's end */
	if (syscall(SYS_perf_event_open, &nothing, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		return nest_err_set(err, -errno, "open a perf event");
	return 0;
}
