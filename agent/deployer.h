/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_DEPLOYER_H
#define NEST_AGENT_DEPLOYER_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <uv.h>

struct nest_alias;
struct nest_config;
struct nest_err;
struct nest_host;
struct nest_registry;
struct nest_registry_reload;

/*
 * Brings the host to what the registry says should be deployed, and is the one way to change that: a new
 * version is deployed first, has workers up where the one before has, and is committed to the registry and sent
 * requests only then, so that what was acknowledged survives and what could not work was never promised. Loop
 * thread only.
 */
struct nest_deployer;

/* Borrows host and registry, which must outlive it. */
int nest_deployer_new(uv_loop_t *loop, struct nest_host *host, struct nest_registry *registry,
	struct nest_deployer **ret, struct nest_err *err);

/* Deploys under way are forgotten: their callbacks never come. Only once the host is closed. */
void nest_deployer_free(struct nest_deployer *deployer); /* NULL is fine */

/*
 * Takes over the config's functions and deploys all that the registry then holds. 0: @cb is called
 * once all have settled, those that failed included (each is logged, and kept for
 * nest_deployer_each_failure()), never before this returns; 1: there is nothing to wait for.
 */
int nest_deployer_start(struct nest_deployer *deployer, const struct nest_config *config,
	void (*cb)(void *arg), void *arg, struct nest_err *err);

/*
 * Deploys a spec as the admin API gives it, then commits it. @cb is called once, never before this
 * returns 0: with the version (borrowed) and whether it is new, or with NULL and why. @share says how
 * many of 100 of the live version's requests it is to get: 100, it becomes live; 1 to 99, a canary
 * beside the live one, which stays; 0, none. A function's first version is live whatever @share says.
 * -EINVAL: the spec is wrong; -EEXIST: this version stands with another spec; -EPERM: the config file
 * owns the function; -EBUSY: a deploy of it is under way.
 */
int nest_deployer_put_share(struct nest_deployer *deployer, const cJSON *spec,
	const cJSON *defaults, uint32_t share,
	void (*cb)(void *arg, const char *version, bool created, const struct nest_err *err),
	void *arg, struct nest_err *err);

/* Sets an alias (copied), "live" too: see nest_switch_start(). */
int nest_deployer_set_alias(struct nest_deployer *deployer, const char *name,
	const struct nest_alias *alias, void (*cb)(void *arg, const struct nest_err *err),
	void *arg, struct nest_err *err);

/*
 * Calls @cb for each alias of a function, "live" among them, until it returns false. -ENOENT: no such
 * function; -ENOMEM.
 */
int nest_deployer_each_alias(struct nest_deployer *deployer, const char *name,
	bool (*cb)(void *arg, const char *name, const struct nest_alias *alias), void *arg,
	struct nest_err *err);

/* Removes an alias; fails as nest_registry_remove_alias(). */
int nest_deployer_remove_alias(
	struct nest_deployer *deployer, const char *name, const char *alias, struct nest_err *err);

/*
 * Makes the version live that was so before: ends a canary, or takes back the last change of the live version. As
 * nest_deployer_set_alias(); -ENOENT: there is none. @ret_version has room for one.
 */
int nest_deployer_rollback(struct nest_deployer *deployer, const char *name, char *ret_version,
	void (*cb)(void *arg, const struct nest_err *err), void *arg, struct nest_err *err);

/* Removes a function, or one version. 1: there is none; -EPERM as above. */
int nest_deployer_remove(struct nest_deployer *deployer, const char *name, const char *version,
	struct nest_err *err);

/* Takes over the functions of a config that was read anew: what is gone goes, what is new comes. */
int nest_deployer_reload(
	struct nest_deployer *deployer, const struct nest_config *config, struct nest_err *err);

/*
 * Puts a reload of the registry into force (takes it), as nest_deployer_reload() does: what is new
 * is deployed, live versions move, then what is gone goes. What can't be deployed is a failure.
 */
void nest_deployer_apply(struct nest_deployer *deployer, struct nest_registry_reload *reload);

/* Whether deploys that a start, a reload or a retry began are under way. */
bool nest_deployer_is_settled(const struct nest_deployer *deployer);

/*
 * What should be deployed and is not: it is tried again after a second, and then after twice as
 * long each time, up to five minutes. Stops when @cb returns false.
 */
void nest_deployer_each_failure(struct nest_deployer *deployer,
	bool (*cb)(void *arg, const char *name, const char *version, const char *runtime,
		const char *why),
	void *arg);

#endif
