/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/uids.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/err.h"

struct nest_uids {
	uid_t base;
	uint32_t count;
	bool taken[];
};

int nest_uids_new(uid_t base, uint32_t count, struct nest_uids **ret)
{
	struct nest_uids *uids = calloc(1, sizeof(*uids) + count);

	if (!uids)
		return -ENOMEM;
	uids->base = base;
	uids->count = count;
	*ret = uids;
	return 0;
}

void nest_uids_free(struct nest_uids *uids)
{
	free(uids);
}

/* FNV-1a, 32 bits. */
static uint32_t hash(const char *text)
{
	uint32_t sum = 2166136261u;

	for (; *text; text++)
		sum = (sum ^ (unsigned char)*text) * 16777619u;
	return sum;
}

int nest_uids_take(struct nest_uids *uids, const char *name, uid_t *ret, struct nest_err *err)
{
	uint32_t first = uids->count > 0 ? hash(name) % uids->count : 0;

	for (uint32_t i = 0; i < uids->count; i++) {
		uint32_t at = (uint32_t)(((uint64_t)first + i) % uids->count);

		if (uids->taken[at])
			continue;
		uids->taken[at] = true;
		*ret = uids->base + at;
		return 0;
	}
	return nest_err_say(err, -ENOSPC,
		"all %u uids for functions are in use: remove functions, or configure more uids",
		uids->count);
}

void nest_uids_give(struct nest_uids *uids, uid_t uid)
{
	uids->taken[uid - uids->base] = false;
}
