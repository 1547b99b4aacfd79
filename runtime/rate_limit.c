/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rate_limit.h"

uint64_t nest_rate_limit_take(
	struct nest_rate_limit *limit, uint32_t rate_milli, uint32_t burst, uint64_t now_us)
{
	uint64_t token_ns = 1000000000000u / rate_milli;
	uint64_t now_ns = now_us * 1000;
	uint64_t full_ns = limit->full_ns > now_ns ? limit->full_ns : now_ns;
	uint64_t room_ns = token_ns * (burst - 1);

	if (full_ns > now_ns + room_ns)
		return (full_ns - now_ns - room_ns + 999) / 1000;
	limit->full_ns = full_ns + token_ns;
	return 0;
}
