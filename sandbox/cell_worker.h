/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CELL_WORKER_H
#define NEST_SANDBOX_CELL_WORKER_H

#include "sandbox/cell_step.h"

/*
 * From the fork of a worker to its program. The order matters: what needs privilege comes first,
 * then privilege goes, and the filter comes last, for it refuses most of the calls made before.
 */
extern const struct nest_cell_step nest_cell_worker_steps[];
extern const size_t nest_cell_worker_steps_n;

#endif
