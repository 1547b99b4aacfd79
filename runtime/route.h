/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_ROUTE_H
#define NEST_RUNTIME_ROUTE_H

#include <stddef.h>

struct nest_err;
struct nest_function_route;
struct nest_target;

/*
 * The routes of all live versions. A lookup costs a few hash probes (one for each '/' of the path,
 * for each form of the host), however many routes there are.
 */
struct nest_routes;

/* Makes an empty table. -ENOMEM. */
int nest_route_new(struct nest_routes **ret);

void nest_route_free(struct nest_routes *routes); /* NULL is fine */

/*
 * Adds one route to @target; borrows both. Of two that are equal the first one added is found.
 * -ENOMEM.
 */
int nest_route_add(struct nest_routes *routes, const struct nest_function_route *route,
	struct nest_target *target);

/*
 * The target of the most specific route that matches: exact host before "*.", that before none;
 * then the exact path before the longest prefix; then a named method. @host as in the Host header:
 * any case, with or without a port. NULL: none.
 */
struct nest_target *nest_route_find(const struct nest_routes *routes, const char *host,
	size_t host_len, const char *path, size_t path_len, const char *method);

#endif
