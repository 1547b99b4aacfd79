/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sandbox/selftest.c freezes: a program without a C library, so that it is small enough to be
 * carried inside the host, and needs nothing of the machine. It answers each byte on its channel with
 * how many there were.
 */
#include <asm/unistd.h>

#define CHANNEL_FD 3L
#define MAX_COUNT 255

void _start(void);

#if defined(__x86_64__)

static long ask_kernel(long call, long a, void *b, long c)
{
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(call), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

#elif defined(__aarch64__)

static long ask_kernel(long call, long a, void *b, long c)
{
	register long x8 __asm__("x8") = call;
	register long x0 __asm__("x0") = a;
	register void *x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}

#else
#error "how this machine's kernel is called must be added here"
#endif

/* In memory that a restore has to bring back. */
static unsigned char count;

void _start(void)
{
	char question;

	while (ask_kernel(__NR_read, CHANNEL_FD, &question, 1) == 1 && count < MAX_COUNT) {
		count++;
		if (ask_kernel(__NR_write, CHANNEL_FD, &count, 1) != 1)
			break;
	}
	for (;;)
		ask_kernel(__NR_exit, 0, 0, 0);
}
