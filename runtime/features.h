/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FEATURES_H
#define NEST_RUNTIME_FEATURES_H

#include <stddef.h>

#include <uv.h>

#include "runtime/host.h"

struct nest_err;
struct nest_feature_wish;

/*
 * What this machine lets the host do, tried by a child while the host starts: it runs at the lowest
 * priority, with the privilege that the host had, and is gone after a second or a few.
 */
struct nest_features;

/* Starts the child. Before threads, and before privileges are dropped. */
int nest_features_start(
	const struct nest_feature_wish *wish, struct nest_features **ret, struct nest_err *err);

/* Waits for the result on @loop, without keeping the loop alive, and calls @cb once it is there. */
int nest_features_open(struct nest_features *features, uv_loop_t *loop, void (*cb)(void *arg),
	void *arg, struct nest_err *err);

/* The rows; *@ret_n is 0 until they have come. Live with @features. */
const struct nest_feature_row *nest_features_rows(
	const struct nest_features *features, size_t *ret_n);

/* Stops the child if it still runs, and frees; opened or not. Its handle closes on a later turn. */
void nest_features_close(struct nest_features *features);

/* Tries everything here and now; one block that the caller frees. Blocks. */
int nest_features_probe(const struct nest_feature_wish *wish, struct nest_feature_row **ret,
	size_t *ret_n, struct nest_err *err);

#endif
