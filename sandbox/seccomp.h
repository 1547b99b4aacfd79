/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SECCOMP_H
#define NEST_SANDBOX_SECCOMP_H

#include <stddef.h>

struct nest_err;
struct sock_filter;

/*
 * The system call filter of every worker, compiled once: what sandbox/seccomp.def lists. It is a
 * plain BPF program without listeners, so that a snapshot can carry it.
 */
struct nest_seccomp;

/* Compiles the filter for the running architecture. The caller frees *@ret. Any thread. */
int nest_seccomp_new(struct nest_seccomp **ret, struct nest_err *err);

/* Releases @seccomp, which may be NULL; filters that were installed stay. Any thread. */
void nest_seccomp_free(struct nest_seccomp *seccomp);

/*
 * Sets no_new_privs and puts the calling thread, and what it starts from now on, under the filter.
 * Two system calls and no allocation: meant for a forked child. Landlock, ids and capabilities come
 * before, since the filter refuses them. -EINVAL: the kernel has no filters. Any thread.
 */
int nest_seccomp_install(const struct nest_seccomp *seccomp, struct nest_err *err);

/* The program and, in *@ret_n, its length; borrowed from @seccomp. Any thread. */
const struct sock_filter *nest_seccomp_program(const struct nest_seccomp *seccomp, size_t *ret_n);

#endif
