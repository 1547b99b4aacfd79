/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FROZEN_KEY_H
#define NEST_RUNTIME_FROZEN_KEY_H

#include "sandbox/snapshot.h"

struct nest_err;
struct nest_services;
struct nest_worker_plan;

/*
 * Writes the key of a snapshot of @plan's workers: a digest of all that makes one, so that a
 * snapshot of anything else is never tried. That is the host, the processor's features, the kernel,
 * CRIU, the runtime's program and its files, the code (@code_digest), and all that a worker is given at
 * its start, @init among it, and @parent, the key of the snapshot that it is made upon. NULL: without
 * code, INIT, parent; of a runtime's snapshot the user is no part either. Blocks on the disk.
 */
int nest_frozen_key_make(const struct nest_worker_plan *plan, const char *code_digest,
	const char *init, const char *parent, const struct nest_services *services,
	char ret[static NEST_SNAPSHOT_KEY_CHARS + 1], struct nest_err *err);

#endif
