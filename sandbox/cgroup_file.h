/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CGROUP_FILE_H
#define NEST_SANDBOX_CGROUP_FILE_H

#include <stddef.h>
#include <stdint.h>

struct nest_err;

/* The small files of a cgroup, without allocating. */

/* Writes printf text to file @name of directory @dir in one write. Any thread. */
int nest_cgroup_file_write(int dir, const char *name, struct nest_err *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Reads at most @cap - 1 bytes, NUL-terminated. Returns their number or -errno. Any thread. */
int nest_cgroup_file_read(int dir, const char *name, char *ret, size_t cap);

/* Reads a file that is one number; -ENODATA when it is none ("max"). Any thread. */
int nest_cgroup_file_number(int dir, const char *name, uint64_t *ret);

/* The number behind word @key in a file of "key number" lines, or -ENODATA. Any thread. */
int nest_cgroup_file_keyed(int dir, const char *name, const char *key, uint64_t *ret);

/* Sends SIGKILL to each process listed in cgroup.procs. Returns how many were, or -errno. Any thread. */
int nest_cgroup_file_kill_listed(int dir);

#endif
