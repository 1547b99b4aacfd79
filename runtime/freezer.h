/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FREEZER_H
#define NEST_RUNTIME_FREEZER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/host.h"

struct nest_dispatch;
struct nest_err;
struct nest_function_spec;
struct nest_services;
struct nest_worker_plan;

/*
 * Makes snapshots of functions in the background, one at a time, each from a worker of its own that
 * serves nobody: started, warmed up, brought to rest, frozen.
 */
struct nest_freezer;

/*
 * What one version of a function has in the way of a snapshot.
 *
 *      NONE --want--> QUEUED --> MAKING --> STANDS --two failures in a row--> PAUSED
 *                       ^          \------------------refused----------------/^
 *                       \------------ the pause, longer each time, is over --/
 */
struct nest_frozen;

/* Opens it, and asks what the store holds from the host's last life. */
int nest_freezer_open(
	struct nest_services *services, struct nest_freezer **ret, struct nest_err *err);

/* Begins no more, and ends the worker that is being made a snapshot of. */
void nest_freezer_stop(struct nest_freezer *freezer);

/* Frees one whose worker is gone. NULL is fine. */
void nest_freezer_free(struct nest_freezer *freezer);

/*
 * Makes one for the workers of @plan, whose snapshots have @key (copied), and whose own INIT says
 * that they will be frozen: @init. Borrows @plan, @init and @dispatch. -ENOMEM.
 */
int nest_frozen_new(struct nest_freezer *freezer, struct nest_dispatch *dispatch,
	const struct nest_worker_plan *plan, const char *key, const char *init,
	struct nest_frozen **ret);

/* Frees one that nest_frozen_end() has ended, or that nothing was asked of. NULL is fine. */
void nest_frozen_free(struct nest_frozen *frozen);

/* Wants its snapshot made as soon as others' are, unless it stands already. */
void nest_frozen_want(struct nest_frozen *frozen);

/* Makes it anew, also where it stands or was refused before. */
void nest_frozen_renew(struct nest_frozen *frozen);

/*
 * Its version is being removed: nothing more is made, and its snapshot is forgotten. Its dispatch is
 * held until its worker is gone.
 */
void nest_frozen_end(struct nest_frozen *frozen);

/* Forgets its snapshot, which is made anew only when asked for. */
void nest_frozen_forget(struct nest_frozen *frozen);

/*
 * The key that the next worker is to be restored from, or NULL: it is to be started plainly. Each
 * restore that failed has one worker started plainly, the one that is started in its place.
 */
const char *nest_frozen_next(struct nest_frozen *frozen);

/* A worker was restored from it, within @us. */
void nest_frozen_restored(struct nest_frozen *frozen, uint64_t us);

/* A restore from it failed, and why; the operator is told. */
void nest_frozen_failed(
	struct nest_frozen *frozen, enum nest_snapshot_failure cause, const char *why);

/* How it stands, for the admin API and metrics. */
void nest_frozen_view(const struct nest_frozen *frozen, struct nest_snapshot_stats *ret);

#endif
