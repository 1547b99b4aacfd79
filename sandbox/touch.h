/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_TOUCH_H
#define NEST_SANDBOX_TOUCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * A read of another process's memory has the kernel fault the page in for that process; around it, as
 * for any fault on a file, what else of a block is in memory. So one byte of each block will do.
 */
#define NEST_TOUCH_BLOCK_BYTES 65536u
#define NEST_TOUCH_BATCH 256 /* bytes of one read; at most IOV_MAX */

/* Reads to come. Begins with @pid, all else 0. */
struct nest_touch {
	pid_t pid;
	size_t n;
	struct iovec bytes[NEST_TOUCH_BATCH];
};

/*
 * Reads one byte at @at in process @pid's memory, at the latest with nest_touch_end(). A page that
 * can't be had is none of our business. For who may trace @pid. Any thread.
 */
void nest_touch_byte(struct nest_touch *touch, uint64_t at);
void nest_touch_end(struct nest_touch *touch);

/*
 * Has the kernel map what process @pid will run of its programs' files, as far as it is in memory:
 * each fault that is taken here is spared to the first request. Takes page tables, no other
 * memory. What it can't do is left to the faults. For who may trace @pid; reads /proc. Any thread.
 */
void nest_touch_programs(pid_t pid);

#endif
