/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_ALIAS_H
#define NEST_RUNTIME_ALIAS_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

struct nest_err;
struct nest_schema_place;

/* The alias that requests without a qualifier, and those of routes, go to. */
#define NEST_ALIAS_LIVE "live"
#define NEST_ALIAS_NAME_MAX 32 /* [A-Za-z][A-Za-z0-9_-]*, so that no number is one */
#define NEST_ALIAS_PARTS_MAX 16
#define NEST_ALIAS_WEIGHT_MAX 100000

/* One version's share of an alias. */
struct nest_alias_part {
	const char *version;
	uint32_t weight;
	const char *header; /* lower case: a request that has it goes here, whatever the weights */
	const char *value;  /* if it has this value; NULL: any */
};

/*
 * A name for versions of one function: immutable, all strings its own. The first part is the main
 * one, which has a weight; the shares of all are their weights.
 */
struct nest_alias {
	const char *name;
	const char
		*sticky; /* lower case: requests with the same value of this header go together */
	const struct nest_alias_part *parts;
	uint32_t nparts;
	uint32_t total; /* of the weights */
	cJSON *json;	/* {"versions":[{"version","weight","header":{"name","value"}}],"sticky"} */
};

/* What of a request an alias may ask for: the value of a header, or NULL. */
struct nest_alias_asker {
	const char *(*header)(void *arg, const char *name);
	void *arg;
};

/*
 * Parses what alias @name says; unknown keys and wrong values are -EINVAL that names them. Copies.
 * @ret_place may be NULL. The caller owns *@ret. Any thread.
 */
int nest_alias_parse(const char *name, const cJSON *object, struct nest_alias **ret,
	struct nest_schema_place *ret_place, struct nest_err *err);

/* One that is all of @version, or of which @version has @weight of 100 and @main the rest. */
int nest_alias_make(const char *name, const char *main, const char *version, uint32_t weight,
	struct nest_alias **ret, struct nest_err *err);

void nest_alias_free(struct nest_alias *alias); /* NULL is fine */

/* Whether @text can be an alias's name. Any thread. */
bool nest_alias_is_name(const char *text);

/* Whether it is no more than another name of one version. Any thread. */
bool nest_alias_is_plain(const struct nest_alias *alias);

/* The index of @version's part, or -1. Any thread. */
int nest_alias_find(const struct nest_alias *alias, const char *version);

/*
 * The index of the part for the @turn-th request: by a part's header, else by the sticky one's
 * hash, else by turn, so that any run of requests is shared out as the weights say. Any thread.
 */
uint32_t nest_alias_choose(
	const struct nest_alias *alias, uint64_t turn, const struct nest_alias_asker *asker);

#endif
