/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_THREADS_H
#define NEST_LOADER_THREADS_H

#include <pthread.h>

struct nest_err;

#define NEST_THREADS_MAX 16u

/*
 * How many threads can run at once: the CPUs that the affinity mask and the CPU quota of our cgroup
 * allow, 1 to NEST_THREADS_MAX. Any thread.
 */
unsigned nest_threads_count(void);

/* Starts a thread that takes no signals. Any thread. */
int nest_threads_start(
	pthread_t *ret, void *(*run)(void *arg), void *arg, const char *name, struct nest_err *err);

#endif
