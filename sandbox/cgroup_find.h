/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CGROUP_FIND_H
#define NEST_SANDBOX_CGROUP_FIND_H

#include <limits.h>
#include <stddef.h>

/* One mounted cgroup hierarchy that carries something of use to us. */
struct nest_cgroup_find_place {
	int version;	      /* 1 or 2 */
	unsigned controllers; /* v1: from the mount; v2: 0, its files tell */
	char mount[PATH_MAX]; /* where it is mounted */
	char own[PATH_MAX];   /* our cgroup as a path below @mount, "" for @mount itself */
};

/*
 * Reads the texts of /proc/self/mountinfo and /proc/self/cgroup into at most @max places; the
 * mount may show the hierarchy's root or a subtree of it. Returns how many. Any thread.
 */
size_t nest_cgroup_find_places(
	const char *mountinfo, const char *own, struct nest_cgroup_find_place *ret, size_t max);

#endif
