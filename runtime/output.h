/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_OUTPUT_H
#define NEST_RUNTIME_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

struct nest_err;
struct nest_wire;

/* What one process writes to its stdout or its stderr, as it comes. */
struct nest_output;

/*
 * Makes a pipe and reads it: *@ret_fd is the end for the process, which the caller owns. @bytes is
 * called with what comes.
 */
int nest_output_open(uv_loop_t *loop, struct nest_wire *wire,
	void (*bytes)(void *arg, int stream, const char *bytes, size_t n), void *arg, int stream,
	struct nest_output **ret, int *ret_fd, struct nest_err *err);

/* The same with the read end @fd of a pipe that stands already; takes it on success. */
int nest_output_adopt(uv_loop_t *loop, struct nest_wire *wire,
	void (*bytes)(void *arg, int stream, const char *bytes, size_t n), void *arg, int stream,
	int fd, struct nest_output **ret, struct nest_err *err);

/* Reads what a process that is gone has left in the pipe. */
void nest_output_finish(struct nest_output *output);

/* Stops reading; calls @cb once it is freed, on a later turn. */
void nest_output_close(struct nest_output *output, void (*cb)(void *arg), void *arg);

#endif
