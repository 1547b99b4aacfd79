/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FROZEN_H
#define NEST_RUNTIME_FROZEN_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/host.h"

struct nest_dispatch;
struct nest_freezer;
struct nest_worker_plan;

/*
 * What one version of a function, or a runtime without one, has in the way of a snapshot.
 *
 *                       /--> SEEKING --> (another host's) STANDS
 *                       |<------/ there is none
 *      NONE --want--> QUEUED --> MAKING --> STANDS --two failures in a row--> PAUSED
 *                       ^          \------------------refused----------------/^
 *                       \------------ the pause, longer each time, is over --/
 */
struct nest_frozen;

/* What one is made of; all but @key, which is copied, is borrowed. */
struct nest_frozen_subject {
	const struct nest_worker_plan *plan;
	const char *key;
	const char *init; /* that says that a worker will be frozen; NULL: a runtime's */
	struct nest_dispatch *dispatch; /* NULL: a runtime's */
	struct nest_frozen *parent;	/* the runtime's, which it is made upon; NULL: none */
};

/* Makes one for the workers of @subject's plan. -ENOMEM. */
int nest_frozen_new(struct nest_freezer *freezer, const struct nest_frozen_subject *subject,
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

/* The key that a clone which stands by can be restored from, or NULL. */
const char *nest_frozen_key(const struct nest_frozen *frozen);

/* The key that its snapshot has, or will have. */
const char *nest_frozen_name(const struct nest_frozen *frozen);

/* Whether it is about to stand, or to be put off: nest_dispatch_snapshot_settled() tells then. */
bool nest_frozen_is_pending(const struct nest_frozen *frozen);

/* A clone of it is ready. */
void nest_frozen_restored(struct nest_frozen *frozen);

/* How often its snapshot has come to stand: clones of different ones are not alike. */
uint32_t nest_frozen_generation(const struct nest_frozen *frozen);

/* Whether the spawner was told to learn the working set of its snapshot: nest_snapshot_learn(). */
bool nest_frozen_is_learnt(const struct nest_frozen *frozen);
void nest_frozen_set_learnt(struct nest_frozen *frozen);

/* A restore of it took @us: of a clone that is ready, or stands by. */
void nest_frozen_timed(struct nest_frozen *frozen, uint64_t us);

/*
 * A restore from it failed, and why; the operator is told. @needed: a request waits, for which a
 * worker is started plainly.
 */
void nest_frozen_failed(
	struct nest_frozen *frozen, enum nest_snapshot_failure cause, bool needed, const char *why);

/* How it stands, for the admin API and metrics. */
void nest_frozen_view(const struct nest_frozen *frozen, struct nest_snapshot_stats *ret);

#endif
