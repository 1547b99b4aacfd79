/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/function.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/schema.h"
#include "loader/reference.h"

#define ENV_BYTES_MAX (32 * 1024)
#define ROUTES_MAX 64
#define DAY_MS 86400000

/* A spec and what the struct that others see has no place for. */
struct parsed {
	struct nest_function_spec spec; /* first: both have one address */
	struct nest_function_route *routes;
	const cJSON *routes_json;
	struct nest_function_code *layers;
	const cJSON *layers_json;
	unsigned network;
	unsigned reuse;
	const cJSON *snapshot;
	const cJSON *schedules_json;
	char *warmup;
};

/* ---- forms of strings ---- */

static bool is_made_of(const char *text, const char *extra, size_t max)
{
	size_t n = 0;

	for (; text[n]; n++) {
		if (n >= max || (!isalnum((unsigned char)text[n]) && !strchr(extra, text[n])))
			return false;
	}
	return n > 0;
}

bool nest_function_is_name(const char *text)
{
	return is_made_of(text, "_-", NEST_FUNCTION_NAME_MAX);
}

/* A version becomes a file name, so it can't be "." or "..", nor hidden. */
bool nest_function_is_version(const char *text)
{
	return text[0] != '.' && is_made_of(text, "._-", NEST_FUNCTION_VERSION_MAX);
}

bool nest_function_is_digest(const char *text)
{
	if (strncmp(text, "sha256:", 7) != 0)
		return false;
	return strlen(text + 7) == 64 && strspn(text + 7, "0123456789abcdef") == 64;
}

static bool is_version_or_empty(const char *text)
{
	return *text == '\0' || nest_function_is_version(text);
}

bool nest_function_is_runtime(const char *text)
{
	return text[0] != '.' && is_made_of(text, "._-", 32);
}

static bool is_printable(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	}
	return true;
}

static bool is_absolute(const char *text)
{
	return text[0] == '/';
}

/* The loader takes it apart, and says more. */
static bool is_url(const char *text)
{
	return is_printable(text) &&
	       (strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0 ||
		       strncmp(text, "file:///", 8) == 0);
}

static bool is_sha256(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static bool is_env_name(const char *text)
{
	return !isdigit((unsigned char)text[0]) && is_made_of(text, "_", 256);
}

/* A name of labels, or "*." before one: in lower case, as hosts are compared. */
static bool is_host(const char *text)
{
	size_t label = 0;

	if (strncmp(text, "*.", 2) == 0)
		text += 2;
	if (*text == '\0' || strlen(text) > 253)
		return false;
	for (; *text; text++) {
		if (*text == '.' && label == 0)
			return false;
		if (*text != '.' && *text != '-' && !islower((unsigned char)*text) &&
			!isdigit((unsigned char)*text))
			return false;
		label = *text == '.' ? 0 : label + 1;
	}
	return label > 0;
}

/* '*' only as a whole last segment; what never reaches a path (query, fragment, space) is refused. */
static bool is_route_path(const char *text)
{
	const char *star = strchr(text, '*');

	if (text[0] != '/' || text[strcspn(text, "?# \"<>\\^`{|}")] != '\0' || !is_printable(text))
		return false;
	return !star || (star[1] == '\0' && star[-1] == '/');
}

static bool is_method(const char *text)
{
	return *text && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == strlen(text);
}

/* ---- the tables ---- */

#define OWN NEST_SCHEMA_FLAG(0) /* only the function itself can say it */
#define URL_FORM "URL that begins with https://, http:// or file:///"
#define AT(member) offsetof(struct parsed, spec.member)
#define AT_CODE(member) offsetof(struct parsed, spec.code.member)

/* The keys of one artifact: the code, a layer. @at says where a member of it is. */
#define CODE_KEYS(prefix, at, own)                                                       \
	{ .path = prefix "path",                                                         \
		.type = NEST_SCHEMA_STRING,                                              \
		.offset = at(path),                                                      \
		.min = 1,                                                                \
		.max = 4095,                                                             \
		.unit = "",                                                              \
		.valid = is_absolute,                                                    \
		.form = "absolute path",                                                 \
		.flags = own },                                                          \
		{ .path = prefix "digest",                                               \
			.type = NEST_SCHEMA_STRING,                                      \
			.offset = at(digest),                                            \
			.min = 71,                                                       \
			.max = 71,                                                       \
			.unit = "",                                                      \
			.valid = nest_function_is_digest,                                \
			.form = "digest: \"sha256:\" and 64 lower-case hex digits",      \
			.flags = own },                                                  \
		{ .path = prefix "url",                                                  \
			.type = NEST_SCHEMA_STRING,                                      \
			.offset = at(url),                                               \
			.min = 1,                                                        \
			.max = 8192,                                                     \
			.unit = "",                                                      \
			.valid = is_url,                                                 \
			.form = URL_FORM,                                                \
			.flags = own },                                                  \
		{ .path = prefix "sha256",                                               \
			.type = NEST_SCHEMA_STRING,                                      \
			.offset = at(sha256),                                            \
			.min = 64,                                                       \
			.max = 64,                                                       \
			.unit = "",                                                      \
			.valid = is_sha256,                                              \
			.form = "64 lower-case hex digits",                              \
			.flags = own },                                                  \
		{ .path = prefix "size",                                                 \
			.type = NEST_SCHEMA_U64,                                         \
			.offset = at(size),                                              \
			.min = 1,                                                        \
			.max = NEST_FUNCTION_CODE_BYTES_MAX,                             \
			.unit = "bytes",                                                 \
			.flags = own },                                                  \
	{                                                                                \
		.path = prefix "format", .type = NEST_SCHEMA_ENUM, .offset = at(format), \
		.unit = "", .choices = NEST_REFERENCE_FORMATS, .flags = own              \
	}

static const struct nest_schema_key keys[] = {
	{ .path = "name",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(name),
		.max = NEST_FUNCTION_NAME_MAX,
		.unit = "",
		.valid = nest_function_is_name,
		.form = "name of 1 to 64 characters A-Z a-z 0-9 _ -",
		.flags = NEST_SCHEMA_REQUIRED | OWN },
	{ .path = "version",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(version),
		.fallback = "\"\"",
		.max = NEST_FUNCTION_VERSION_MAX,
		.unit = "",
		.valid = is_version_or_empty,
		.form = "version of 1 to 32 characters A-Z a-z 0-9 . _ - that begins with no dot",
		.flags = OWN },
	{ .path = "description",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(description),
		.fallback = "\"\"",
		.max = 1024,
		.unit = "",
		.flags = OWN },
	{ .path = "runtime",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(runtime),
		.max = 32,
		.unit = "",
		.valid = nest_function_is_runtime,
		.form = "name of a runtime such as \"nodejs\"",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "handler",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(handler),
		.fallback = "\"\"",
		.max = 256,
		.unit = "",
		.valid = is_printable,
		.form = "string without control characters",
		.flags = OWN },
	{ .path = "interface",
		.type = NEST_SCHEMA_ENUM,
		.offset = AT(interface),
		.fallback = "\"event\"",
		.unit = "",
		.choices = "event|http|wsgi|asgi" },
	CODE_KEYS("code.", AT_CODE, OWN),
	{ .path = "layers",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct parsed, layers_json),
		.fallback = "[]",
		.unit = "",
		.flags = OWN },
	{ .path = "env",
		.type = NEST_SCHEMA_MAP,
		.offset = AT(env),
		.fallback = "{}",
		.unit = "",
		.valid = is_env_name,
		.form = "letters, digits and '_', not beginning with a digit" },
	{ .path = "memoryMb",
		.type = NEST_SCHEMA_MIB,
		.offset = AT(memory_bytes),
		.fallback = "0",
		.max = 1 << 20,
		.unit = "MiB" },
	{ .path = "tmpMb",
		.type = NEST_SCHEMA_MIB,
		.offset = AT(tmp_bytes),
		.fallback = "64",
		.min = 1,
		.max = 1 << 20,
		.unit = "MiB" },
	{ .path = "cpu",
		.type = NEST_SCHEMA_MILLI,
		.offset = AT(cpu_milli),
		.fallback = "0",
		.max = 1024 * 1000,
		.unit = "cores" },
	{ .path = "pids",
		.type = NEST_SCHEMA_U32,
		.offset = AT(pids),
		.fallback = "128",
		.min = 1,
		.max = 32768,
		.unit = "" },
	{ .path = "nofile",
		.type = NEST_SCHEMA_U32,
		.offset = AT(nofile),
		.fallback = "1024",
		.min = 16,
		.max = 1 << 20,
		.unit = "" },
	{ .path = "network",
		.type = NEST_SCHEMA_ENUM,
		.offset = offsetof(struct parsed, network),
		.fallback = "\"pod\"",
		.unit = "",
		.choices = "pod|none" },
	{ .path = "timeoutMs",
		.type = NEST_SCHEMA_U32,
		.offset = AT(timeout_ms),
		.fallback = "30000",
		.min = 1,
		.max = DAY_MS,
		.unit = "ms" },
	{ .path = "initTimeoutMs",
		.type = NEST_SCHEMA_U32,
		.offset = AT(init_timeout_ms),
		.fallback = "10000",
		.min = 1,
		.max = DAY_MS,
		.unit = "ms" },
	{ .path = "concurrency",
		.type = NEST_SCHEMA_U32,
		.offset = AT(concurrency),
		.fallback = "0",
		.max = 10000,
		.unit = "requests" },
#define KEY(path_, kind, member, fallback_, min_, max_, unit_) \
	{ .path = (path_),                                     \
		.type = NEST_SCHEMA_##kind,                    \
		.offset = AT(member),                          \
		.fallback = (fallback_),                       \
		.min = (min_),                                 \
		.max = (max_),                                 \
		.unit = (unit_) },
#include "runtime/scaling.def"
#undef KEY
	{ .path = "scaling.schedules",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct parsed, schedules_json),
		.fallback = "[]",
		.unit = "",
		.flags = OWN },
	{ .path = "queue.length",
		.type = NEST_SCHEMA_U32,
		.offset = AT(queue_length),
		.fallback = "256",
		.max = 100000,
		.unit = "requests" },
	{ .path = "queue.waitMs",
		.type = NEST_SCHEMA_U32,
		.offset = AT(queue_wait_ms),
		.fallback = "10000",
		.max = DAY_MS,
		.unit = "ms" },
	{ .path = "logs.bytes",
		.type = NEST_SCHEMA_U64,
		.offset = AT(log_bytes),
		.fallback = "1048576",
		.min = 65536,
		.max = (int64_t)1 << 40,
		.unit = "bytes" },
#include "runtime/protection.def"
	{ .path = "snapshot",
		.type = NEST_SCHEMA_CHOICE,
		.offset = offsetof(struct parsed, snapshot),
		.fallback = "\"on\"",
		.unit = "",
		.choices = "on|off",
		.form = "an object {\"warmup\": event}" },
	{ .path = "reuse",
		.type = NEST_SCHEMA_ENUM,
		.offset = offsetof(struct parsed, reuse),
		.fallback = "\"always\"",
		.unit = "",
		.choices = "always|never" },
	{ .path = "routes",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct parsed, routes_json),
		.fallback = "[]",
		.unit = "",
		.flags = OWN },
};

static const struct nest_schema schema = { keys, NEST_ARRAY_SIZE(keys), OWN };

static const struct nest_schema_key route_keys[] = {
	{ .path = "host",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_function_route, host),
		.max = 255,
		.unit = "",
		.valid = is_host,
		.form = "lower-case host name, or \"*.\" before one" },
	{ .path = "path",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_function_route, path),
		.max = 1024,
		.unit = "",
		.valid = is_route_path,
		.form = "path from \"/\" on, with \"*\" only as its last segment",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "method",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_function_route, method),
		.max = 32,
		.unit = "",
		.valid = is_method,
		.form = "upper-case HTTP method" },
};

#define IN_CODE(member) offsetof(struct nest_function_code, member)

static const struct nest_schema_key code_keys[] = { CODE_KEYS("", IN_CODE, 0) };

static const struct nest_schema code_schema = { code_keys, NEST_ARRAY_SIZE(code_keys), 0 };

static const struct nest_schema route_schema = { route_keys, NEST_ARRAY_SIZE(route_keys), 0 };

const struct nest_schema *nest_function_schema(void)
{
	return &schema;
}

const struct nest_schema *nest_function_route_schema(void)
{
	return &route_schema;
}

/* ---- what a table can't say ---- */

static const struct {
	const char *prefix;
	const char *why;
} reserved[] = {
	{ "NESTLET_", "the host sets the variables of this prefix" },
	{ "LD_", "it would change how the runtime itself is linked" },
};

static int check_env(const cJSON *env, struct nest_schema_place *place, struct nest_err *err)
{
	size_t bytes = 0;
	const cJSON *item;

	cJSON_ArrayForEach(item, env) {
		for (size_t i = 0; i < NEST_ARRAY_SIZE(reserved); i++) {
			size_t len = strlen(reserved[i].prefix);

			if (strncmp(item->string, reserved[i].prefix, len) != 0)
				continue;
			nest_schema_locate(place, "env.%s", item->string);
			return nest_err_say(err, -EINVAL, "'env.%s' is reserved: %s", item->string,
				reserved[i].why);
		}
		bytes += strlen(item->string) + strlen(item->valuestring) + 2;
	}
	if (bytes <= ENV_BYTES_MAX)
		return 0;
	nest_schema_locate(place, "env");
	return nest_err_say(err, -EINVAL,
		"'env' has %zu bytes, more than %d: put large values into the code or /tmp", bytes,
		ENV_BYTES_MAX);
}

/* One place, and no digest or size of what is named by its digest. */
static int check_code(const struct nest_function_code *code, const char *key,
	struct nest_schema_place *place, struct nest_err *err)
{
	int places = (code->path != NULL) + (code->digest != NULL) + (code->url != NULL);
	const char *extra = code->sha256 ? "sha256" : code->size ? "size" : NULL;

	if (places == 1 && !(code->digest && extra))
		return 0;
	/* what isn't there has no place of its own */
	nest_schema_locate(place, "%s", places > 0 || strcmp(key, "code") != 0 ? key : "");
	if (places == 1)
		return nest_err_say(err, -EINVAL,
			"'%s' has both 'digest' and '%s': of what is in the cache the digest says "
			"all",
			key, extra);
	if (places > 1)
		return nest_err_say(err, -EINVAL,
			"'%s' has more than one of 'path', 'url' and 'digest', must have one", key);
	return nest_err_say(err, -EINVAL,
		"'%s' is missing: give '%s.path', '%s.url' or '%s.digest'", key, key, key, key);
}

static unsigned format_index(const char *text)
{
	const char *words = NEST_REFERENCE_FORMATS;
	unsigned index = 0;

	for (size_t n; *words; words += n + (words[n] == '|'), index++) {
		n = strcspn(words, "|");
		if (strlen(text) == n && strncmp(words, text, n) == 0)
			return index;
	}
	return 0;
}

static int read_code(const cJSON *object, struct nest_function_code *code, const char *key,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" };
	const char *format = NULL;
	int64_t size = 0;
	int rc = nest_schema_check(&code_schema, object, 0, &inner, err);

	if (rc < 0) {
		nest_schema_locate(place, "%s%s%s", key, inner.path[0] ? "." : "", inner.path);
		nest_err_wrap(err, "'%s'", key);
		return rc;
	}
	nest_json_get_string(object, "url", &code->url, NULL);
	nest_json_get_string(object, "path", &code->path, NULL);
	nest_json_get_string(object, "digest", &code->digest, NULL);
	nest_json_get_string(object, "sha256", &code->sha256, NULL);
	nest_json_get_string(object, "format", &format, NULL);
	nest_json_get_int(object, "size", 1, NEST_FUNCTION_CODE_BYTES_MAX, &size, NULL);
	code->size = (uint64_t)size;
	code->format = format ? format_index(format) : 0;
	return check_code(code, key, place, err);
}

int nest_function_parse_codes(const cJSON *array, const char *key, struct nest_function_code **ret,
	uint32_t *ret_n, struct nest_schema_place *ret_place, struct nest_err *err)
{
	int n = cJSON_GetArraySize(array);
	nest_autofree struct nest_function_code *codes = calloc((size_t)n + 1, sizeof(*codes));
	const cJSON *item;
	uint32_t i = 0;

	if (!codes)
		return nest_err_set(err, -ENOMEM, "read '%s'", key);
	if (n > NEST_FUNCTION_LAYERS_MAX) {
		nest_schema_locate(ret_place, "%s", key);
		return nest_err_say(err, -EINVAL, "'%s' has %d elements, more than %d", key, n,
			NEST_FUNCTION_LAYERS_MAX);
	}
	cJSON_ArrayForEach(item, array) {
		char name[64];
		int rc;

		snprintf(name, sizeof(name), "%s[%u]", key, (unsigned)i);
		rc = read_code(item, &codes[i], name, ret_place, err);
		if (rc < 0)
			return rc;
		i++;
	}
	*ret = nest_take_ptr(codes);
	*ret_n = i;
	return 0;
}

static int check_workers(const struct nest_function_spec *spec, struct nest_schema_place *place,
	struct nest_err *err)
{
	const char *key = spec->workers_min > spec->workers_max ? "min" : "reserved";
	uint32_t n = *key == 'm' ? spec->workers_min : spec->workers_reserved;

	if (spec->reuse_never && spec->concurrency > 1) {
		nest_schema_locate(place, "concurrency");
		return nest_err_say(err, -EINVAL,
			"'concurrency' is %u: with 'reuse' \"never\" a worker serves one request",
			spec->concurrency);
	}
	if (n <= spec->workers_max)
		return 0;
	nest_schema_locate(place, "workers");
	return nest_err_say(err, -EINVAL, "'workers.%s' is %u, more than 'workers.max', %u", key, n,
		spec->workers_max);
}

static int read_snapshot(
	struct parsed *parsed, struct nest_schema_place *place, struct nest_err *err)
{
	const cJSON *snapshot = parsed->snapshot;
	const cJSON *warmup = cJSON_GetObjectItemCaseSensitive(snapshot, "warmup");

	if (cJSON_IsString(snapshot)) {
		parsed->spec.snapshot_off = strcmp(snapshot->valuestring, "off") == 0;
		return 0;
	}
	if (!warmup || cJSON_GetArraySize(snapshot) != 1) {
		nest_schema_locate(place, "snapshot");
		return nest_err_say(err, -EINVAL,
			"'snapshot' has one key, 'warmup': the event that warms a worker up");
	}
	parsed->warmup = cJSON_PrintUnformatted(warmup);
	if (!parsed->warmup)
		return nest_err_set(err, -ENOMEM, "read 'snapshot'");
	parsed->spec.warmup = parsed->warmup;
	return 0;
}

/* ---- routes ---- */

static bool same_part(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static int refuse_repeated(const struct nest_function_route *routes, unsigned n,
	struct nest_schema_place *place, struct nest_err *err)
{
	for (unsigned i = 0; i < n; i++) {
		if (!same_part(routes[i].host, routes[n].host) ||
			!same_part(routes[i].path, routes[n].path) ||
			!same_part(routes[i].method, routes[n].method))
			continue;
		nest_schema_locate(place, "routes[%u]", n);
		return nest_err_say(err, -EINVAL, "'routes[%u]' repeats 'routes[%u]'", n, i);
	}
	return 0;
}

static int read_route(const cJSON *object, struct nest_function_route *route, unsigned index,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" };
	int rc = nest_schema_check(&route_schema, object, 0, &inner, err);

	if (rc == 0 && nest_json_get_string(object, "path", &route->path, NULL) != 0)
		rc = nest_err_say(err, -EINVAL, "'path' is missing");
	if (rc < 0) {
		nest_schema_locate(
			place, "routes[%u]%s%s", index, inner.path[0] ? "." : "", inner.path);
		nest_err_wrap(err, "'routes[%u]'", index);
		return rc;
	}
	nest_json_get_string(object, "host", &route->host, NULL);
	nest_json_get_string(object, "method", &route->method, NULL);
	return 0;
}

static int read_routes(struct parsed *parsed, struct nest_schema_place *place, struct nest_err *err)
{
	int n = cJSON_GetArraySize(parsed->routes_json);
	const cJSON *item;
	int rc = 0;

	if (n > ROUTES_MAX) {
		nest_schema_locate(place, "routes");
		return nest_err_say(
			err, -EINVAL, "'routes' has %d elements, more than %d", n, ROUTES_MAX);
	}
	parsed->routes = calloc((size_t)n + 1, sizeof(*parsed->routes));
	if (!parsed->routes)
		return nest_err_set(err, -ENOMEM, "read 'routes'");
	cJSON_ArrayForEach(item, parsed->routes_json) {
		unsigned index = parsed->spec.nroutes;

		rc = read_route(item, &parsed->routes[index], index, place, err);
		if (rc == 0)
			rc = refuse_repeated(parsed->routes, index, place, err);
		if (rc < 0)
			return rc;
		parsed->spec.nroutes++;
	}
	parsed->spec.routes = parsed->routes;
	return 0;
}

/* ---- a whole spec ---- */

static void release(struct parsed *parsed)
{
	nest_schema_release(&schema, parsed, parsed->spec.json);
	nest_scaling_done(&parsed->spec.scaling);
	free(parsed->routes);
	free(parsed->layers);
	cJSON_free(parsed->warmup);
	free(parsed->spec.lost);
	free(parsed);
}

static int parse(const cJSON *object, const cJSON *defaults, bool kept,
	struct nest_function_spec **ret, struct nest_schema_place *ret_place, struct nest_err *err)
{
	struct parsed *parsed = calloc(1, sizeof(*parsed));
	struct nest_function_spec *spec;
	int rc;

	if (!parsed)
		return nest_err_set(err, -ENOMEM, "read a function");
	spec = &parsed->spec;
	rc = nest_schema_read(&schema, object, defaults, parsed, &spec->json, ret_place, err);
	if (rc < 0) {
		free(parsed);
		return rc;
	}
	spec->network_none = parsed->network != 0;
	spec->reuse_never = parsed->reuse != 0;
	rc = check_env(cJSON_GetObjectItemCaseSensitive(spec->json, "env"), ret_place, err);
	if (rc == 0)
		rc = check_code(&spec->code, "code", ret_place, err);
	if (rc == 0)
		rc = nest_function_parse_codes(parsed->layers_json, "layers", &parsed->layers,
			&spec->nlayers, ret_place, err);
	spec->layers = parsed->layers;
	if (rc == 0)
		rc = check_workers(spec, ret_place, err);
	if (rc == 0)
		rc = nest_scaling_read_schedules(parsed->schedules_json, spec->workers_max,
			&spec->scaling, kept ? &spec->lost : NULL, ret_place, err);
	if (rc == 0)
		rc = nest_protection_check(&spec->protection, ret_place, err);
	if (rc == 0)
		rc = read_snapshot(parsed, ret_place, err);
	if (rc == 0)
		rc = read_routes(parsed, ret_place, err);
	if (rc < 0) {
		release(parsed);
		return rc;
	}
	*ret = spec;
	return 0;
}

int nest_function_parse_at(const cJSON *object, const cJSON *defaults,
	struct nest_function_spec **ret, struct nest_schema_place *ret_place, struct nest_err *err)
{
	return parse(object, defaults, false, ret, ret_place, err);
}

int nest_function_parse_kept(const cJSON *object, const cJSON *defaults,
	struct nest_function_spec **ret, struct nest_schema_place *ret_place, struct nest_err *err)
{
	return parse(object, defaults, true, ret, ret_place, err);
}

int nest_function_parse(const cJSON *object, const cJSON *defaults, struct nest_function_spec **ret,
	struct nest_err *err)
{
	return nest_function_parse_at(object, defaults, ret, NULL, err);
}

int nest_function_check_defaults(
	const cJSON *object, struct nest_schema_place *ret_place, struct nest_err *err)
{
	int rc = nest_schema_check(&schema, object, OWN, ret_place, err);

	if (rc < 0)
		return rc;
	return check_env(cJSON_GetObjectItemCaseSensitive(object, "env"), ret_place, err);
}

int nest_function_with_version(const struct nest_function_spec *spec, const char *version,
	struct nest_function_spec **ret, struct nest_err *err)
{
	nest_autojson cJSON *json = cJSON_Duplicate(spec->json, true);

	/* not replaced: cJSON leaves the new item without its name when memory is short */
	cJSON_DeleteItemFromObjectCaseSensitive(json, "version");
	if (!json || !cJSON_AddStringToObject(json, "version", version))
		return nest_err_set(err, -ENOMEM, "copy function '%s'", spec->name);
	return nest_function_parse_kept(json, NULL, ret, NULL, err);
}

bool nest_function_equal(const struct nest_function_spec *a, const struct nest_function_spec *b)
{
	const cJSON *x = a->json->child, *y = b->json->child;

	/* both are complete and in the table's order */
	for (; x && y; x = x->next, y = y->next) {
		if (strcmp(x->string, "version") != 0 && !cJSON_Compare(x, y, true))
			return false;
	}
	return x == y;
}

void nest_function_free(struct nest_function_spec *spec)
{
	if (spec)
		release((struct parsed *)spec);
}
