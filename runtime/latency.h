/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_LATENCY_H
#define NEST_RUNTIME_LATENCY_H

#include <stdint.h>

#include "runtime/host.h"

/* Counts one duration in @histogram. */
void nest_latency_observe(struct nest_histogram *histogram, uint64_t us);

#endif
