/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_SCHEMA_H
#define NEST_BASE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

struct nest_buf;
struct nest_err;

/*
 * One table says which keys a JSON object may have, of which type, range and default: it checks
 * the object, fills the gaps, stores the values in a plain struct, and describes itself for the
 * manual. A key is "name" or "group.name"; JSON null is the same as leaving the key out.
 */
enum nest_schema_type {
	NEST_SCHEMA_STRING,  /* const char *; min and max are its length */
	NEST_SCHEMA_ENUM,    /* unsigned: the index of the word in choices */
	NEST_SCHEMA_BOOL,    /* bool */
	NEST_SCHEMA_U32,     /* uint32_t */
	NEST_SCHEMA_U64,     /* uint64_t */
	NEST_SCHEMA_MIB,     /* uint64_t bytes, given in MiB */
	NEST_SCHEMA_MILLI,   /* uint32_t thousandths of a number; min and max are thousandths too */
	NEST_SCHEMA_MODE,    /* uint32_t, given as an octal string: "0660" */
	NEST_SCHEMA_STRINGS, /* const char *const *, NULL-terminated; min and max are their count */
	NEST_SCHEMA_MAP,     /* const char *const *, "K=V", NULL-terminated; an object of strings */
	NEST_SCHEMA_OBJECT,  /* const cJSON *; its owner checks the inside */
	NEST_SCHEMA_CHOICE,  /* const cJSON *: a word of choices, or an object as form says, whose
				inside its owner checks */
	NEST_SCHEMA_OBJECTS, /* const cJSON *: an array of objects; its owner checks the inside */
};

#define NEST_SCHEMA_REQUIRED (1u << 0)	      /* there is no default: the key must be given */
#define NEST_SCHEMA_FLAG(n) (1u << (8 + (n))) /* the table's owner gives these a meaning */

struct nest_schema_key {
	const char *path;
	enum nest_schema_type type;
	size_t offset;	      /* of the value in the owner's struct */
	const char *fallback; /* the default as JSON; NULL: none, the struct then holds NULL or 0 */
	int64_t min;
	int64_t max;
	const char *unit;		 /* "ms", "bytes", ...; "" */
	const char *choices;		 /* NEST_SCHEMA_ENUM: "pod|none"; else NULL */
	bool (*valid)(const char *text); /* of each string, or of each name of a map; may be NULL */
	const char *form;		 /* what valid wants: "an absolute path"; or NULL */
	unsigned flags;
	const char *doc; /* one sentence or more for the manual */
};

struct nest_schema {
	const struct nest_schema_key *keys; /* the keys of one group stand together */
	size_t n;
	unsigned own; /* keys with one of these flags are never taken from the defaults */
};

/* Where in the object an error is: "workers.min", "env.LD_PRELOAD"; "" for the object as a whole. */
#define NEST_SCHEMA_PLACE_MAX 160
struct nest_schema_place {
	char path[NEST_SCHEMA_PLACE_MAX];
};

/* Sets @place (may be NULL) from a printf text, cut to fit. Any thread. */
void nest_schema_locate(struct nest_schema_place *place, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Checks what is given in @object, an incomplete one: unknown keys, keys that bear one of the
 * @refused flags, wrong types, values out of range are -EINVAL, and @ret_place (may be NULL) is
 * set. Any thread.
 */
int nest_schema_check(const struct nest_schema *schema, const cJSON *object, unsigned refused,
	struct nest_schema_place *ret_place, struct nest_err *err);

/*
 * Checks @object, completes it from @defaults (checked before; may be NULL) and from the table, and
 * stores the values in @ret_struct. Maps are merged name by name. *@ret_json is the complete object
 * in the table's order; the strings in @ret_struct point into it. On success the caller releases
 * the two together with nest_schema_release(); on failure both are untouched. Any thread.
 */
int nest_schema_read(const struct nest_schema *schema, const cJSON *object, const cJSON *defaults,
	void *ret_struct, cJSON **ret_json, struct nest_schema_place *ret_place,
	struct nest_err *err);

/* Frees @json and what nest_schema_read() allocated in @object, whose members are NULL after. */
void nest_schema_release(const struct nest_schema *schema, void *object, cJSON *json);

/* The key of this path, or NULL. Any thread. */
const struct nest_schema_key *nest_schema_find(const struct nest_schema *schema, const char *path);

/*
 * Puts "<@file>: line <n>: " before what @err says, where the line is that of @place in the @n
 * bytes of @text that the object was parsed from. Any thread.
 */
void nest_schema_blame(struct nest_err *err, const char *file, const char *text, size_t n,
	const struct nest_schema_place *place);

/*
 * Appends type, range, unit and default as the manual shows them:
 * "integer from 1 to 900000, ms; default 30000". 0 or -ENOMEM. Any thread.
 */
int nest_schema_describe(const struct nest_schema_key *key, struct nest_buf *buf);

#endif
