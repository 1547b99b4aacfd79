/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_TOUCH_H
#define NEST_SANDBOX_TOUCH_H

#include <sys/types.h>

/*
 * Has the kernel map what process @pid will run of its programs' files, as far as it is in memory:
 * each fault that is taken here is spared to the first request. Takes page tables, no other
 * memory. What it can't do is left to the faults. For who may trace @pid; reads /proc. Any thread.
 */
void nest_touch_programs(pid_t pid);

#endif
