/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_ATTACK_PROBE_H
#define NEST_TESTS_ATTACK_PROBE_H

#include <stdbool.h>

/*
 * What a hostile function would try. The program runs in a cell as its worker, with the name of
 * one attack; it is linked statically, so that it needs nothing of the cell, and talks to the
 * kernel by raw system calls wherever a C library would come between.
 */

/* What becomes the exit code; the worst of an attack's steps counts. */
enum probe_verdict {
	PROBE_REFUSED = 0, /* every step was refused the way it should be */
	PROBE_WORKED = 1,  /* something worked: a hole; stderr says what */
	PROBE_BROKEN = 2,  /* the attack could not be carried out, so it says nothing */
};

typedef void probe_attack(int argc, char **argv);

struct probe_case {
	const char *name;
	probe_attack *attack;
};

/* The attacks of each file, ended by a NULL name. */
extern const struct probe_case probe_kernel_cases[];
extern const struct probe_case probe_files_cases[];
extern const struct probe_case probe_neighbours_cases[];
extern const struct probe_case probe_limits_cases[];

/* Notes that a step worked. */
void probe_worked(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Notes that the attack is broken. */
void probe_broken(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* @result is that of a system call: it has to be -1 with errno @errnum (or @other). */
void probe_deny(const char *what, long result, int errnum);
void probe_deny_either(const char *what, long result, int errnum, int other);

/* Notes a hole unless @holds. */
void probe_hold(bool holds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Sends one byte to the driver. */
void probe_tell(void);

/* Waits for a byte from the driver; false when it hung up. */
bool probe_wait(void);

#endif
