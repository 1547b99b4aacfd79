/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_CAPACITY_H
#define NEST_RUNTIME_CAPACITY_H

#include <stdint.h>

struct nest_err;

/* What the pod may use, and uses: from its cgroup's files (v1, v2 or both), else the machine's. */
struct nest_capacity;

struct nest_capacity_figures {
	uint32_t cpu_milli; /* cores * 1000: the least of all quotas above us, and our affinity */
	uint64_t memory_bytes;	    /* the least of all limits above us, and the machine's memory */
	uint64_t cpu_used_us;	    /* of all in our cgroup, since it was made; 0: unknown */
	uint64_t memory_used_bytes; /* without file pages that can be dropped at once */
};

/*
 * Finds this process's cgroups in the texts of /proc/self/mountinfo and /proc/self/cgroup. The
 * caller owns *@ret. Any thread.
 */
int nest_capacity_new(
	const char *mountinfo, const char *own, struct nest_capacity **ret, struct nest_err *err);

void nest_capacity_free(struct nest_capacity *capacity); /* NULL is fine */

/*
 * Reads the figures as they are now: limits can change while a pod runs. Reads a dozen files of
 * the kernel's: a tenth of a millisecond, but several where it has hundreds of cgroups to add up.
 * Any thread.
 */
void nest_capacity_read(const struct nest_capacity *capacity, struct nest_capacity_figures *ret);

#endif
