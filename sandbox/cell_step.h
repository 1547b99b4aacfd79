/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CELL_STEP_H
#define NEST_SANDBOX_CELL_STEP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/cell_init.h"

struct nest_err;

/* What the steps of a cell's set-up work on. */
struct nest_cell_step_context {
	struct nest_cell_init *init;
	const struct nest_message_start *start; /* NULL while preparing */
	int fds[NEST_MESSAGE_FD_MOST];		/* of the START; -1 once used up */
	int report;				/* the worker's: closes when its program runs */
};

/*
 * One step of setting a cell up. Each function's comment says why it is safe to do with privilege,
 * and its name stands in every error that it ends with.
 */
struct nest_cell_step {
	const char *name;
	uint32_t needs; /* enum nest_footing_bit; left out where one is missing */
	int (*run)(struct nest_cell_step_context *context, struct nest_err *err);
};

/* The first two lists: before the START, and after it. The worker's is in cell_worker.h. */
extern const struct nest_cell_step nest_cell_step_prepare[];
extern const size_t nest_cell_step_prepare_n;
extern const struct nest_cell_step nest_cell_step_dress[];
extern const size_t nest_cell_step_dress_n;

/* Runs @n steps in order until one fails; its error then begins with the step's name. */
int nest_cell_step_run(const struct nest_cell_step *steps, size_t n,
	struct nest_cell_step_context *context, struct nest_err *err);

#endif
