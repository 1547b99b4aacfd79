/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_WORKING_SET_H
#define NEST_SANDBOX_WORKING_SET_H

#include <stdbool.h>
#include <sys/types.h>

struct nest_err;

/*
 * The *working set* of a snapshot: which pages of files a clone touches up to its first answer, and
 * which of them it writes to. It is learnt from one clone, for all: in each the same lies at the same
 * address. Recorded once and fetched ahead for later starts as in REAP (Ustiugov et al., ASPLOS'21).
 */

/* Beside the images of a snapshot; none of its contents, since nothing goes wrong without it. */
#define NEST_WORKING_SET_FILE "working-set"

/*
 * Notes in directory @dir what process @pid, a clone that has given its first answer, has touched. @proc:
 * a /proc in which it has that pid. Takes a millisecond, or a few for gigabytes. For who may trace it; any thread.
 * -ENOENT or -ESRCH: it is gone.
 */
int nest_working_set_learn(int proc, pid_t pid, int dir, struct nest_err *err);

/*
 * Has the kernel map for clone @pid of the snapshot in @dir what it will read, which takes page tables;
 * and, with @written, copy what it will write to, which takes that memory. Its bytes stay what they are.
 * False: nothing is known of that snapshot's, or nothing of use. For who may trace @pid; any thread.
 */
bool nest_working_set_fetch(int dir, pid_t pid, bool written);

#endif
