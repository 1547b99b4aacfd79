/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_BREAKPOINT_H
#define NEST_SANDBOX_BREAKPOINT_H

struct nest_err;

/*
 * Keeps hardware breakpoints cheap while the process lives. CRIU stops each thread that it restores by
 * one, which is a perf event to the kernel; the first such event of a task on the whole machine turns on
 * the scheduler's hooks for them and waits for an RCU grace period (kernel/events/core.c,
 * account_event(): 5 to 30 ms measured), and a second after the last one they are turned off. So one
 * event that counts nothing is held open. -errno where the kernel or an outer filter refuses, which
 * costs that time per restore and nothing else.
 */
int nest_breakpoint_hold(struct nest_err *err);

#endif
