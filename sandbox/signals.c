/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/signals.h"

#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's signal set is one bit a signal, wherever Linux runs but MIPS. */
#define KERNEL_SET_BYTES ((_NSIG - 1) / 8)

void nest_signals_reset(void)
{
	/* all zero is SIG_DFL without flags in the kernel's own layout, on every architecture */
	static const long action[8];

	/* glibc's sigaction() refuses its own two; SIGKILL and SIGSTOP are refused by the kernel */
	for (int signal = 1; signal < _NSIG; signal++)
		syscall(SYS_rt_sigaction, signal, action, NULL, KERNEL_SET_BYTES);
}
