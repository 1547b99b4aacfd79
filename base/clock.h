/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_CLOCK_H
#define NEST_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Microseconds of CLOCK_MONOTONIC. Any thread. */
uint64_t nest_clock_mono_us(void);

/* Milliseconds since the Unix epoch. Any thread. */
uint64_t nest_clock_wall_ms(void);

#define NEST_CLOCK_RFC3339_LEN 25
/* Writes "2026-01-02T03:04:05.678Z" and a NUL for @wall_ms. Any thread. */
void nest_clock_rfc3339(uint64_t wall_ms, char ret_text[NEST_CLOCK_RFC3339_LEN]);

#endif
