/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/attack/probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define CHANNEL 3

static enum probe_verdict verdict = PROBE_REFUSED;

static void note(const char *kind, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	dprintf(STDERR_FILENO, "%s: %s\n", kind, text);
}

void probe_worked(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note("worked", fmt, ap);
	va_end(ap);
	verdict = PROBE_WORKED;
}

void probe_broken(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note("broken", fmt, ap);
	va_end(ap);
	if (verdict == PROBE_REFUSED)
		verdict = PROBE_BROKEN;
}

void probe_hold(bool holds, const char *fmt, ...)
{
	va_list ap;

	if (holds)
		return;
	va_start(ap, fmt);
	note("worked", fmt, ap);
	va_end(ap);
	verdict = PROBE_WORKED;
}

void probe_deny_either(const char *what, long result, int errnum, int other)
{
	if (result != -1)
		probe_worked("%s", what);
	else if (errno != errnum && errno != other)
		probe_broken(
			"%s: %s, not %s", what, strerrorname_np(errno), strerrorname_np(errnum));
}

void probe_deny(const char *what, long result, int errnum)
{
	probe_deny_either(what, result, errnum, errnum);
}

void probe_tell(void)
{
	if (write(CHANNEL, "!", 1) != 1)
		probe_broken("tell the driver: %s", strerror(errno));
}

bool probe_wait(void)
{
	char byte;
	ssize_t n;

	do
		n = read(CHANNEL, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1;
}

int main(int argc, char **argv)
{
	static const struct probe_case *const tables[] = {
		probe_kernel_cases,
		probe_files_cases,
		probe_neighbours_cases,
		probe_limits_cases,
	};

	for (size_t t = 0; argc > 1 && t < NEST_ARRAY_SIZE(tables); t++) {
		for (const struct probe_case *c = tables[t]; c->name; c++) {
			if (strcmp(c->name, argv[1]) != 0)
				continue;
			c->attack(argc - 2, argv + 2);
			return verdict;
		}
	}
	dprintf(STDERR_FILENO, "broken: no such attack\n");
	return PROBE_BROKEN;
}
