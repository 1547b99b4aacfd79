/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FROZEN_IMPL_H
#define NEST_RUNTIME_FROZEN_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/deadline.h"
#include "runtime/frozen.h"
#include "runtime/services.h"
#include "runtime/worker.h"
#include "sandbox/snapshot.h"

enum nest_frozen_state {
	NEST_FROZEN_NONE,
	NEST_FROZEN_QUEUED,
	NEST_FROZEN_SEEKING, /* at the server that hosts share */
	NEST_FROZEN_MAKING,
	NEST_FROZEN_STANDS,
	NEST_FROZEN_PAUSED,
};

/* The inside of a version's snapshot, for the freezer that makes it. */
struct nest_frozen {
	struct nest_freezer *freezer;
	struct nest_dispatch *dispatch; /* NULL: of a runtime */
	struct nest_frozen *parent;	/* that it is made upon; NULL: none */
	const struct nest_function_spec *spec;
	struct nest_worker_plan plan; /* of the worker to be frozen */
	struct nest_tally tally;      /* which is not counted with those that serve */
	enum nest_frozen_state state;
	bool ended;
	bool sought; /* it is to be made here */
	bool learnt; /* its working set */
	uint32_t generation;
	uint32_t plain;	   /* so many of the next starts are plain: their restore failed */
	uint32_t failures; /* of restores, in a row */
	uint32_t pause_ms;
	struct nest_deadline retry;
	struct nest_snapshot_stats stats;
	char key[NEST_SNAPSHOT_KEY_CHARS + 1];
	char why[256];
	char label[160]; /* what it is of, for messages */
	struct nest_frozen *prev, *next;
};

/* Tries again in @ms. */
void nest_frozen_pause(struct nest_frozen *frozen, uint32_t ms);

/* The same, in twice as long as after the last failure, which @cause and @why are noted of. */
void nest_frozen_back_off(
	struct nest_frozen *frozen, enum nest_snapshot_failure cause, const char *why);

/* The snapshot stands, and has @bytes. */
void nest_frozen_set_made(struct nest_frozen *frozen, uint64_t bytes);

/* Nothing is made or used any more: puts it at rest, but for one that is being made, which is ended. */
void nest_frozen_bar(struct nest_frozen *frozen);

/* Asks for another host's, if there may be one: true, and it is SEEKING. */
bool nest_frozen_seek(struct nest_frozen *frozen);

/* Notes that the store has it already, if so. */
bool nest_frozen_take_found(struct nest_frozen *frozen);

#endif
