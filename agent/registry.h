/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_REGISTRY_H
#define NEST_AGENT_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_alias;
struct nest_buf;
struct nest_config_function;
struct nest_err;
struct nest_function_spec;

/*
 * Which functions should be deployed: those of the config, those of the admin API, which are kept
 * in a file, and those that the scaler places (agent/desired.h keeps them). A version never changes.
 * A name belongs to one owner: where several have it, the config comes before the admin API, and
 * that before the scaler; the others' versions wait, shadowed, until it lets go.
 *
 * Names of versions move: "live", which calls without a qualifier go to, and aliases
 * (runtime/alias.h), of the admin API's functions only. What a name points to is kept.
 *
 * The registry deploys nothing. Who does brings up a version first and commits it then:
 *
 *      plan --> (deploy) --worked--> commit: on disk, and live, or what its share says
 *                   \------failed--> abandon: nothing has changed
 */
struct nest_registry;

/* Who wants a function, in the order in which they count. */
enum nest_registry_owner {
	NEST_REGISTRY_CONFIG,
	NEST_REGISTRY_ADMIN,
	NEST_REGISTRY_SCALER,
	NEST_REGISTRY_OWNERS
};

/* "config", "admin", "scaler". Any thread. */
const char *nest_registry_owner_name(enum nest_registry_owner owner);

/* One version of one function. Valid until the registry changes. */
struct nest_registry_entry {
	const struct nest_function_spec *spec; /* with its version */
	bool live;			       /* the one that calls without a version go to */
	bool shared;			       /* but not all of them: alias "live" says which */
	enum nest_registry_owner owner;
	const char *file; /* of the config; NULL: another's */
	unsigned line;
};

/*
 * Opens the registry kept in @path (absent: an empty one), and removes what a crash left
 * half-written beside it. A file that is damaged, or of a newer format, is an error that names its
 * line and says what to do; it is never dropped. @keep: see nest_registry_set_keep(). Copies @path.
 * The caller owns *@ret. Blocks on the disk.
 */
int nest_registry_open(
	const char *path, uint32_t keep, struct nest_registry **ret, struct nest_err *err);

/* Frees it. No plan may be pending. NULL is fine. */
void nest_registry_free(struct nest_registry *registry);

/* At the next commit, keep at most @keep (from 1) versions of a name, and those with a name always. */
void nest_registry_set_keep(struct nest_registry *registry, uint32_t keep);

/* Calls @cb for each version that should be deployed: by name, oldest first. Stops at false. */
void nest_registry_each(struct nest_registry *registry,
	bool (*cb)(void *arg, const struct nest_registry_entry *entry), void *arg);

/* One version (@version NULL: the live one). 0 and *@ret; 1: there is none. */
int nest_registry_find(const struct nest_registry *registry, const char *name, const char *version,
	struct nest_registry_entry *ret);

/*
 * Appends the names, separated by ", ", of the admin API's functions that the config shadows: worth
 * a warning. Their number, or -ENOMEM.
 */
int nest_registry_shadowed(struct nest_registry *registry, struct nest_buf *ret_names);

/* ---- the admin API's part ---- */

/* A version on its way in; while it is, its function takes no other. */
struct nest_registry_plan;

/*
 * Plans @spec (copied). A spec without a version gets the next number, or, when it equals the
 * newest version, that one. 0 and *@ret_plan, for commit or abandon; 1: it stands already as
 * *@ret_entry, there is nothing to deploy (it may be not live). -EEXIST: this version stands with
 * another spec; -EPERM: the name is the config's; -EREMOTE: it is the scaler's; -EBUSY: a plan for
 * this name is pending.
 */
int nest_registry_plan(struct nest_registry *registry, const struct nest_function_spec *spec,
	struct nest_registry_plan **ret_plan, struct nest_registry_entry *ret_entry,
	struct nest_err *err);

/* What to deploy: the spec with its version. Lives with @plan. */
const struct nest_function_spec *nest_registry_plan_spec(const struct nest_registry_plan *plan);

/*
 * What the version is to get of the live one's requests: 100, unless this is called, makes it the
 * live one; 1 to 99, that many of 100; 0, none. A function's first version is live whatever this says.
 */
void nest_registry_plan_share(struct nest_registry_plan *plan, uint32_t share);

/*
 * Writes the planned version to disk and gives it its share; takes @plan, also when it fails:
 * then nothing has changed, and what was deployed should be removed. @dropped (may be NULL) is
 * called for each older version that is no longer kept. Blocks on the disk.
 */
int nest_registry_commit(struct nest_registry_plan *plan,
	void (*dropped)(void *arg, const char *name, const char *version), void *arg,
	struct nest_err *err);

/* Forgets a plan; takes it. NULL is fine. */
void nest_registry_abandon(struct nest_registry_plan *plan);

/*
 * Removes one version, or with @version NULL the function. 0; 1: there is none; -EPERM, -EREMOTE: the
 * name is the config's, or the scaler's; -EBUSY: the version is live, or an alias names it, and it is
 * not the only one, or a plan is pending. When it fails nothing has changed. Blocks on the disk.
 */
int nest_registry_remove(struct nest_registry *registry, const char *name, const char *version,
	struct nest_err *err);

/* Makes a version the live one, all of it; results and blocking as nest_registry_remove(). */
int nest_registry_set_live(struct nest_registry *registry, const char *name, const char *version,
	struct nest_err *err);

/*
 * Sets an alias (copied), "live" too. -ENOENT: no such function or version; -EEXIST: a version has
 * this name; -EPERM, -EBUSY and blocking as nest_registry_remove(). When it fails nothing has changed.
 */
int nest_registry_set_alias(struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, struct nest_err *err);

/* The same checks and nothing else. */
int nest_registry_check_alias(const struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, struct nest_err *err);

/* Removes an alias. -ENOENT: there is none; -EBUSY: it is "live", which a function always has. */
int nest_registry_remove_alias(
	struct nest_registry *registry, const char *name, const char *alias, struct nest_err *err);

/*
 * Where a rollback goes, for nest_registry_set_live(): while requests are shared out, to the main
 * version; else to the one that was live before. 1: there is none.
 */
int nest_registry_find_before(
	const struct nest_registry *registry, const char *name, struct nest_registry_entry *ret);

/*
 * Calls @cb for each alias that counts (@name NULL: of every function); "live" only where it is more
 * than the live version's name. Stops at false.
 */
void nest_registry_each_alias(const struct nest_registry *registry, const char *name,
	bool (*cb)(void *arg, const char *name, const struct nest_alias *alias), void *arg);

/* ---- the config's part, and the scaler's ---- */

struct nest_registry_reload;

enum nest_registry_change {
	NEST_REGISTRY_DEPLOY,
	NEST_REGISTRY_REMOVE,
	NEST_REGISTRY_SET_LIVE, /* after the deployments */
};

/*
 * Works out what replacing the config's part by @functions (copied) changes. At start: commit it
 * and deploy what nest_registry_each() says. Versions that specs don't give are numbered; the last one listed of a name is live.
 * -EEXIST, with file and line: a version that stands is given with another spec. Changes nothing.
 */
int nest_registry_reload(struct nest_registry *registry,
	const struct nest_config_function *functions, size_t n, struct nest_registry_reload **ret,
	struct nest_err *err);

/* What the scaler says of one version. */
struct nest_registry_placement {
	const char *name;
	const struct nest_function_spec *spec; /* NULL: it could not be read */
};

/*
 * The same for the scaler's part; the last version listed of a name is live. A placement that can't
 * be taken, because it has no version or because its version stands with another spec, is told to
 * @refused with its index; the others are taken. Of a name with a placement that was refused, or has
 * no spec, the versions that stand stay.
 */
int nest_registry_place(struct nest_registry *registry,
	const struct nest_registry_placement *placements, size_t n,
	void (*refused)(void *arg, size_t i, const struct nest_err *why), void *arg,
	struct nest_registry_reload **ret, struct nest_err *err);

/*
 * Calls @cb for each change: all removals, then all deployments, then which versions become live.
 * Of a shadowed or resurfacing function all versions count.
 */
void nest_registry_reload_each(const struct nest_registry_reload *reload,
	void (*cb)(
		void *arg, enum nest_registry_change change, const struct nest_function_spec *spec),
	void *arg);

/* Puts the reload into force; takes it. Never fails; neither part is written to disk by it. */
void nest_registry_reload_commit(struct nest_registry_reload *reload);

/* Forgets it; takes it. NULL is fine. */
void nest_registry_reload_abandon(struct nest_registry_reload *reload);

#endif
