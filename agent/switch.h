/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_SWITCH_H
#define NEST_AGENT_SWITCH_H

struct nest_alias;
struct nest_err;
struct nest_host;
struct nest_registry;

/*
 * Moves an alias ("live" too) of the admin API's function @name: has workers of the versions that it
 * names up, writes the registry, and then sends requests where it says. Copies @alias; borrows host
 * and registry until @cb is called, once, never before this returns 0: with NULL, or why nothing has
 * changed. Fails as nest_registry_set_alias() and -ENOMEM; -ENOENT also for a version that is not
 * deployed. Blocks on the disk.
 */
int nest_switch_start(struct nest_host *host, struct nest_registry *registry, const char *name,
	const struct nest_alias *alias, void (*cb)(void *arg, const struct nest_err *err),
	void *arg, struct nest_err *err);

/*
 * Has the host send requests of function @name (NULL: of every one) where the registry says. Takes
 * effect at once.
 */
void nest_switch_assert(struct nest_host *host, struct nest_registry *registry, const char *name);

#endif
