/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_FEATURE_H
#define NEST_SANDBOX_FEATURE_H

#include <stdbool.h>
#include <stddef.h>

struct nest_err;

/* One thing that this machine lets a host do, or not. */
struct nest_feature {
	char name[32]; /* "cgroup v1 memory", "pid namespace", "CRIU" */
	bool yes;
	bool required;	  /* isolation is weaker, or a function can't run, without it */
	char detail[160]; /* version or path if yes; the reason if no */
	char remedy[160]; /* what the operator can do; empty if yes */
};

/* The row that tells whether functions can start from snapshots. */
#define NEST_FEATURE_SNAPSHOTS "snapshots"

/* What of the config decides what is tried. */
struct nest_feature_wish {
	bool snapshots;
	const char *criu; /* as in struct nest_sandbox_config */
};

/*
 * Tries every feature for real (a child makes the namespace, loads the filter, mounts the image, a
 * process is frozen and restored...) and lists the results in a fixed order. The caller frees *@ret
 * with free(). Call before threads exist and with the privilege to be judged. Blocks for up to a
 * second.
 */
int nest_feature_probe(const struct nest_feature_wish *wish, struct nest_feature **ret,
	size_t *ret_n, struct nest_err *err);

#endif
