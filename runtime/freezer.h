/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FREEZER_H
#define NEST_RUNTIME_FREEZER_H

#include <stdbool.h>

struct nest_err;
struct nest_frozen;
struct nest_services;
struct nest_snapshot_view;

/*
 * Makes snapshots of functions in the background, one at a time, each from a worker of its own that
 * serves nobody: started, warmed up, brought to rest, frozen.
 */
struct nest_freezer;

/* Opens it, and asks what the store holds from the host's last life. */
int nest_freezer_open(
	struct nest_services *services, struct nest_freezer **ret, struct nest_err *err);

/* Begins no more, and ends the worker that is being made a snapshot of. */
void nest_freezer_stop(struct nest_freezer *freezer);

/*
 * Snapshots don't work on this machine, and @why (copied): none is made or used from now on. False: a
 * clone has been restored in this life, so they do, and nothing changes.
 */
bool nest_freezer_bar(struct nest_freezer *freezer, const char *why);

/* Why none is made or used, or NULL. */
const char *nest_freezer_barred(const struct nest_freezer *freezer);

/* A clone was restored. */
void nest_freezer_prove(struct nest_freezer *freezer);

/* Frees one whose worker is gone. NULL is fine. */
void nest_freezer_free(struct nest_freezer *freezer);

/* Keeps @frozen among those whose snapshots it makes, until it is removed. */
void nest_freezer_add(struct nest_freezer *freezer, struct nest_frozen *frozen);
void nest_freezer_remove(struct nest_freezer *freezer, struct nest_frozen *frozen);

/* One is queued: makes it when its turn has come. */
void nest_freezer_wake(struct nest_freezer *freezer);

/* Ends the making of @frozen's snapshot. False: none is under way. */
bool nest_freezer_cancel(struct nest_freezer *freezer, const struct nest_frozen *frozen);

/* What the store held under @key when the host came up; NULL: nothing, or it has not told yet. */
const struct nest_snapshot_view *nest_freezer_find(
	const struct nest_freezer *freezer, const char *key);

/* The store has it no longer. */
void nest_freezer_unfind(struct nest_freezer *freezer, const char *key);

/* The host's parts; and whether it was stopped, or barred. */
struct nest_services *nest_freezer_services(const struct nest_freezer *freezer);
bool nest_freezer_is_stopped(const struct nest_freezer *freezer);

#endif
