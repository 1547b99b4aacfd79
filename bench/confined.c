/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confined PROGRAM ARGUMENT...: executes a program under the system call filter of workers, for what
 * the host's workers are held against.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "sandbox/seccomp.h"

int main(int argc, char **argv)
{
	struct nest_seccomp *seccomp = NULL;
	struct nest_err err = NEST_ERR_INIT;

	if (argc < 2) {
		fprintf(stderr, "usage: confined PROGRAM ARGUMENT...\n");
		return 2;
	}
	if (nest_seccomp_new(&seccomp, &err) < 0 || nest_seccomp_install(seccomp, &err) < 0) {
		fprintf(stderr, "bench/confined: %s\n", nest_err_text(&err));
		return EXIT_FAILURE;
	}
	execv(argv[1], argv + 1);
	perror("bench/confined: execute the program");
	return EXIT_FAILURE;
}
