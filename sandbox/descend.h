/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_DESCEND_H
#define NEST_SANDBOX_DESCEND_H

#include <sys/types.h>

#include "sandbox/cgroup.h"

/* Processes by descent, for machines that give cells neither a pid namespace nor cgroups. */

/*
 * Calls @each for the children of every thread of @pid, read from the proc file system @proc.
 * Any thread.
 */
void nest_descend_children(
	int proc, pid_t pid, void (*each)(int proc, pid_t child, void *arg), void *arg);

/* Adds what of process @pid's memory is its own, and what is of files. Any thread. */
void nest_descend_memory(int proc, pid_t pid, uint64_t *private_bytes, uint64_t *shared_bytes);

/* Sums memory, time and number of the processes below @pid, itself not counted. Any thread. */
void nest_descend_usage(int proc, pid_t pid, struct nest_cgroup_usage *ret);

#endif
