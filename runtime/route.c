/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/route.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "runtime/function.h"

/*
 * The key is host, a NUL, and path. A route without a host has the host "", a wildcard "*.a" the
 * host "*.a", a prefix the path with its "*".
 */
#define HOST_MAX 255u
#define PATH_MAX_ROUTE 1024u
#define KEY_MAX (HOST_MAX + 1 + PATH_MAX_ROUTE + 1)

struct choice {
	const char *method; /* NULL: any */
	struct nest_target *target;
	struct choice *next;
};

struct place {
	UT_hash_handle hh;
	struct choice *choices;
	size_t len;
	char key[];
};

struct nest_routes {
	struct place *places;
};

int nest_route_new(struct nest_routes **ret)
{
	struct nest_routes *routes = calloc(1, sizeof(*routes));

	if (!routes)
		return -ENOMEM;
	*ret = routes;
	return 0;
}

void nest_route_free(struct nest_routes *routes)
{
	struct place *place, *next;

	if (!routes)
		return;
	HASH_ITER(hh, routes->places, place, next) {
		HASH_DEL(routes->places, place);
		while (place->choices) {
			struct choice *choice = place->choices;

			place->choices = choice->next;
			free(choice);
		}
		free(place);
	}
	free(routes);
}

static size_t put_key(char key[static KEY_MAX], const char *host, size_t host_len, const char *path,
	size_t path_len, bool prefix)
{
	memcpy(key, host, host_len);
	key[host_len] = '\0';
	memcpy(key + host_len + 1, path, path_len);
	if (prefix)
		key[host_len + 1 + path_len] = '*';
	return host_len + 1 + path_len + prefix;
}

static struct place *add_place(struct nest_routes *routes, const char *key, size_t len)
{
	struct place *place = calloc(1, sizeof(*place) + len);

	if (!place)
		return NULL;
	memcpy(place->key, key, len);
	place->len = len;
	HASH_ADD_KEYPTR(hh, routes->places, place->key, len, place);
	if (!place->hh.tbl) { /* no memory for the table */
		free(place);
		return NULL;
	}
	return place;
}

int nest_route_add(struct nest_routes *routes, const struct nest_function_route *route,
	struct nest_target *target)
{
	const char *host = route->host ? route->host : "";
	struct choice *choice, **at;
	struct place *place;
	char key[KEY_MAX];
	size_t len;

	if (strlen(host) > HOST_MAX || strlen(route->path) > PATH_MAX_ROUTE)
		return 0; /* no request could match it */
	len = put_key(key, host, strlen(host), route->path, strlen(route->path), false);
	HASH_FIND(hh, routes->places, key, len, place);
	if (!place)
		place = add_place(routes, key, len);
	choice = calloc(1, sizeof(*choice));
	if (!place || !choice) {
		free(choice);
		return -ENOMEM;
	}
	choice->method = route->method;
	choice->target = target;
	for (at = &place->choices; *at; at = &(*at)->next)
		;
	*at = choice;
	return 0;
}

static struct nest_target *choose(const struct place *place, const char *method)
{
	struct nest_target *any = NULL;

	for (const struct choice *c = place->choices; c; c = c->next) {
		if (c->method && strcmp(c->method, method) == 0)
			return c->target;
		if (!c->method && !any)
			any = c->target;
	}
	return any;
}

static struct nest_target *look(const struct nest_routes *routes, const char *host, size_t host_len,
	const char *path, size_t path_len, bool prefix, const char *method)
{
	char key[KEY_MAX];
	size_t len = put_key(key, host, host_len, path, path_len, prefix);
	struct place *place;

	HASH_FIND(hh, routes->places, key, len, place);
	return place ? choose(place, method) : NULL;
}

static struct nest_target *find_path(const struct nest_routes *routes, const char *host,
	size_t host_len, const char *path, size_t path_len, const char *method)
{
	struct nest_target *target;

	if (path_len < PATH_MAX_ROUTE) {
		target = look(routes, host, host_len, path, path_len, false, method);
		if (target)
			return target;
	} else {
		path_len = PATH_MAX_ROUTE - 1; /* only a prefix can match */
	}
	for (size_t n = path_len; n > 0; n--) {
		if (path[n - 1] != '/')
			continue;
		target = look(routes, host, host_len, path, n, true, method);
		if (target)
			return target;
	}
	return NULL;
}

/* Lower case, without a port and a last dot. */
static size_t clean_host(char ret[static HOST_MAX], const char *host, size_t len)
{
	size_t n = 0;

	while (n < len && n < HOST_MAX && host[n] != ':') {
		ret[n] = (char)tolower((unsigned char)host[n]);
		n++;
	}
	if (n > 0 && ret[n - 1] == '.')
		n--;
	return n;
}

struct nest_target *nest_route_find(const struct nest_routes *routes, const char *host,
	size_t host_len, const char *path, size_t path_len, const char *method)
{
	char name[1 + HOST_MAX]; /* one byte before it, for the star of a wildcard */
	size_t len = clean_host(name + 1, host ? host : "", host ? host_len : 0);
	struct nest_target *target;

	if (!routes->places)
		return NULL;
	if (len > 0) {
		target = find_path(routes, name + 1, len, path, path_len, method);
		if (target)
			return target;
	}
	for (size_t i = 1; i < len; i++) {
		char kept = name[i];

		if (name[1 + i] != '.')
			continue;
		name[i] = '*';
		target = find_path(routes, name + i, len - i + 1, path, path_len, method);
		name[i] = kept;
		if (target)
			return target;
	}
	return find_path(routes, "", 0, path, path_len, method);
}
