/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_FEATURE_CRIU_H
#define NEST_SANDBOX_FEATURE_CRIU_H

#include <stdbool.h>
#include <stddef.h>

struct nest_feature;

/* What CRIU must be at least: older ones can't restore on Linux 6.13 and later. */
#define NEST_FEATURE_CRIU_MAJOR 4
#define NEST_FEATURE_CRIU_MINOR 1

/*
 * Judges the CRIU at @wanted (as in struct nest_sandbox_config), by default that of our own prefix, or
 * else the one on PATH: its version, and what it says it lacks here. Fills @ret whole. Blocks on it
 * for up to five seconds.
 */
void nest_feature_criu_probe(const char *wanted, struct nest_feature *ret);

/* The parts below the probe, apart so that tests reach them. */

/* Finds "criu" in @prefix_path, or else in a directory of @path (may be NULL). Any thread. */
bool nest_feature_criu_find(const char *prefix_path, const char *path, char *ret, size_t cap);

/* Judges the program at @path, with @timeout_ms for each of its answers. Fills @ret whole. */
void nest_feature_criu_judge(const char *path, int timeout_ms, struct nest_feature *ret);

#endif
