/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <utlist.h>

#include "base/err.h"
#include "runtime/alias.h"
#include "runtime/dispatch.h"
#include "runtime/function.h"
#include "runtime/host_impl.h"
#include "runtime/route.h"
#include "runtime/target.h"

/* Which version a request goes to, and how that changes. */

struct nest_target *nest_host_find(struct nest_host *host, const char *name, const char *qualifier)
{
	return nest_host_choose(host, name, qualifier, NULL);
}

/* A version before an alias of the same name: it can always be asked for. */
struct nest_target *nest_host_choose(struct nest_host *host, const char *name,
	const char *qualifier, const struct nest_alias_asker *asker)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_lineage_version *version = NULL;

	if (!lineage)
		return NULL;
	if (!qualifier || !*qualifier || strcmp(qualifier, "$LATEST") == 0)
		qualifier = NULL;
	else
		version = nest_lineage_find(lineage, qualifier);
	if (!version)
		version = nest_lineage_choose(lineage, qualifier, asker);
	return version ? version->target : NULL;
}

void nest_host_reroute(struct nest_host *host)
{
	struct nest_lineage *lineage, *next;

	nest_route_free(host->routes);
	host->routes = NULL;
	host->splits = 0;
	HASH_ITER(hh, host->lineages, lineage, next)
		host->splits += lineage->split ? 1 : 0;
}

static struct nest_routes *make_routes(const struct nest_host *host)
{
	struct nest_routes *routes;
	struct nest_lineage *lineage, *next;
	int r = nest_route_new(&routes);

	if (r < 0)
		return NULL;
	HASH_ITER(hh, host->lineages, lineage, next) {
		const struct nest_function_spec *spec;

		if (!lineage->live)
			continue;
		spec = nest_target_spec(lineage->live->target);
		for (uint32_t i = 0; i < spec->nroutes && r == 0; i++)
			r = nest_route_add(routes, &spec->routes[i], lineage->live->target);
	}
	if (r < 0) {
		nest_route_free(routes);
		return NULL;
	}
	return routes;
}

struct nest_target *nest_host_route(struct nest_host *host, const char *hostname,
	size_t hostname_len, const char *path, size_t path_len, const char *method,
	const struct nest_alias_asker *asker)
{
	struct nest_target *target;

	if (!host->routes)
		host->routes = make_routes(host);
	if (!host->routes)
		return NULL;
	target = nest_route_find(host->routes, hostname, hostname_len, path, path_len, method);
	if (!target || host->splits == 0)
		return target;
	return nest_host_choose(host, nest_target_spec(target)->name, NULL, asker);
}

/* ---- changing it ---- */

int nest_host_set_live(struct nest_host *host, const char *name, const char *version)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_lineage_version *v = lineage ? nest_lineage_find(lineage, version) : NULL;

	if (!v)
		return 1;
	nest_lineage_set_live(lineage, v);
	nest_host_reroute(host);
	return 0;
}

int nest_host_set_alias(struct nest_host *host, const char *name, const struct nest_alias *alias)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *copy = NULL;
	int r;

	if (!lineage)
		return 1;
	r = nest_alias_parse(alias->name, alias->json, &copy, NULL, &err);
	if (r == 0)
		r = nest_lineage_set_alias(lineage, copy);
	nest_host_reroute(host);
	return r;
}

int nest_host_remove_alias(struct nest_host *host, const char *name, const char *alias)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	int r = lineage ? nest_lineage_remove_alias(lineage, alias) : 1;

	nest_host_reroute(host);
	return r;
}

/* The workers that take the live alias's requests now. */
static uint32_t live_workers(const struct nest_lineage *lineage)
{
	const struct nest_lineage_version *version;
	uint32_t n = 0;

	DL_FOREACH(lineage->versions, version) {
		if (nest_lineage_is_live(lineage, version))
			n += nest_dispatch_alive(nest_target_dispatch(version->target));
	}
	return n;
}

int nest_host_warm(struct nest_host *host, const char *name, const char *version, uint32_t weight,
	uint32_t total, void (*cb)(void *arg, const struct nest_err *why), void *arg)
{
	struct nest_lineage *lineage = nest_host_lineage(host, name);
	struct nest_lineage_version *v = lineage ? nest_lineage_find(lineage, version) : NULL;
	const struct nest_function_spec *spec;
	uint64_t n;

	if (!v)
		return 1;
	spec = nest_target_spec(v->target);
	n = ((uint64_t)live_workers(lineage) * weight + total - 1) / total;
	if (n < spec->workers_min)
		n = spec->workers_min;
	if (n > spec->workers_max)
		n = spec->workers_max;
	return nest_dispatch_warm(nest_target_dispatch(v->target), (uint32_t)n, cb, arg);
}
