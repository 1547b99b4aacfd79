/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FUNCTION_H
#define NEST_RUNTIME_FUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "runtime/protection.h"
#include "runtime/scaling.h"

struct nest_err;
struct nest_schema;
struct nest_schema_place;

#define NEST_FUNCTION_NAME_MAX 64    /* [A-Za-z0-9_-], as AWS */
#define NEST_FUNCTION_VERSION_MAX 32 /* [A-Za-z0-9._-] */

enum nest_function_interface {
	NEST_FUNCTION_EVENT,
	NEST_FUNCTION_HTTP,
	NEST_FUNCTION_WSGI,
	NEST_FUNCTION_ASGI,
};

/* One route: a request matches when every part that is given does. */
struct nest_function_route {
	const char *host;   /* NULL: any; "example.org" or "*.example.org" */
	const char *path;   /* "/a/b" exact, "/a/b/" + "*" at its end: prefix */
	const char *method; /* NULL: any */
};

/* One artifact of code: exactly one of url, path and digest says where it is. */
struct nest_function_code {
	const char *url;    /* https://, http:// or file:// */
	const char *path;   /* a local directory, archive or image */
	const char *digest; /* "sha256:...": it is in the cache */
	const char *sha256; /* what a url's or path's content must have: 64 hex digits; or NULL */
	uint64_t size;	    /* that content's bytes; 0: not said */
	unsigned format;    /* of enum nest_reference_format (loader/reference.h) */
};

#define NEST_FUNCTION_LAYERS_MAX 31
#define NEST_FUNCTION_CODE_BYTES_MAX (INT64_C(1) << 50)

/*
 * What a function's spec says (nestlet-function(5)): immutable once parsed, all strings its own.
 */
struct nest_function_spec {
	const char *name;
	const char *version; /* "" until the registry numbers it */
	const char *description;
	const char *runtime;
	const char *handler; /* "": the runtime's default */
	enum nest_function_interface interface;
	struct nest_function_code code;
	const struct nest_function_code *layers; /* below the code, lowest first */
	uint32_t nlayers;
	const char *const *env; /* "K=V", NULL-terminated */
	uint64_t memory_bytes;	/* memoryMb; 0: the runtime's default */
	uint64_t tmp_bytes;	/* tmpMb */
	uint32_t cpu_milli;	/* cpu, cores * 1000; 0: no limit */
	uint32_t pids;
	uint32_t nofile;
	bool network_none; /* network: "none" */
	uint32_t timeout_ms;
	uint32_t init_timeout_ms;
	uint32_t concurrency; /* per worker; 0: the runtime's default */
	uint32_t workers_min;
	uint32_t workers_max;
	uint32_t workers_reserved; /* room for so many is kept, whoever else wants it */
	uint32_t idle_ms;	   /* workers.idleMs */
	uint32_t pause_ms;	   /* workers.freezeMs; 0: never */
	struct nest_scaling scaling;
	uint32_t queue_length;	/* queue.length */
	uint32_t queue_wait_ms; /* queue.waitMs */
	uint64_t log_bytes;	/* logs.bytes kept on disk */
	struct nest_protection protection;
	bool snapshot_off;
	bool reuse_never;   /* reuse: "never": a worker serves one request, and is gone */
	const char *warmup; /* snapshot.warmup: an event as JSON; NULL: none */
	const struct nest_function_route *routes;
	uint32_t nroutes;
	cJSON *json; /* the normalised spec, as describe shows it */
	char *lost;  /* what the machine no longer has of what it says, in words; NULL: nothing */
};

/*
 * Parses and checks one spec object (keys of nestlet-function(5)); unknown keys, wrong types and
 * values out of range are errors that name the key's path. Copies; @defaults is the config's
 * "functionDefaults" object or NULL. The caller owns *@ret. Any thread.
 */
int nest_function_parse(const cJSON *object, const cJSON *defaults, struct nest_function_spec **ret,
	struct nest_err *err);

/*
 * The same, and where it fails *@ret_place (may be NULL) says at which key, so that who has the
 * text can name the line. Any thread.
 */
int nest_function_parse_at(const cJSON *object, const cJSON *defaults,
	struct nest_function_spec **ret, struct nest_schema_place *ret_place, struct nest_err *err);

/*
 * The same for one that was taken before: a function must not be gone because the machine has lost the
 * time zone of one of its schedules since. That schedule never holds, and the spec's lost says so.
 */
int nest_function_parse_kept(const cJSON *object, const cJSON *defaults,
	struct nest_function_spec **ret, struct nest_schema_place *ret_place, struct nest_err *err);

/*
 * Checks a "functionDefaults" object: the keys of a spec but for those that only a function itself
 * can say (name, version, description, handler, code, routes). Any thread.
 */
int nest_function_check_defaults(
	const cJSON *object, struct nest_schema_place *ret_place, struct nest_err *err);

/* The table of all keys, in nestlet-function(5)'s order. Any thread. */
const struct nest_schema *nest_function_schema(void);

/*
 * Parses an array of such elements, which is called @key. The caller frees *@ret, whose strings are
 * @array's. -EINVAL with @ret_place (may be NULL). Any thread.
 */
int nest_function_parse_codes(const cJSON *array, const char *key, struct nest_function_code **ret,
	uint32_t *ret_n, struct nest_schema_place *ret_place, struct nest_err *err);

/* The table of the keys of one element of "routes". Any thread. */
const struct nest_schema *nest_function_route_schema(void);

/* Whether @text is "sha256:" and 64 lower-case hex digits. Any thread. */
bool nest_function_is_digest(const char *text);

/* Whether @text can be a function's name, a version, a runtime's name. Any thread. */
bool nest_function_is_name(const char *text);
bool nest_function_is_version(const char *text);
bool nest_function_is_runtime(const char *text);

/* A copy with another version. Caller owns. -ENOMEM. */
int nest_function_with_version(const struct nest_function_spec *spec, const char *version,
	struct nest_function_spec **ret, struct nest_err *err);

/* Whether two specs say the same but for their version. */
bool nest_function_equal(const struct nest_function_spec *a, const struct nest_function_spec *b);

void nest_function_free(struct nest_function_spec *spec); /* NULL is fine */

#endif
