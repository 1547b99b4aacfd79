/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_JSON_H
#define NEST_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

struct nest_err;

/*
 * Typed access to members of a cJSON object. Each getter: 0 and *@ret set; 1 when the member is
 * absent or null, *@ret untouched; -EINVAL with an error that names the key and both types
 * ("'timeoutMs' must be an integer from 1 to 900000, not a string"). Any thread, per tree.
 */
int nest_json_get_string(const cJSON *obj, const char *key, const char **ret, struct nest_err *err);
int nest_json_get_int(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct nest_err *err);
int nest_json_get_number(const cJSON *obj, const char *key, double min, double max, double *ret,
	struct nest_err *err);
int nest_json_get_bool(const cJSON *obj, const char *key, bool *ret, struct nest_err *err);
int nest_json_get_object(
	const cJSON *obj, const char *key, const cJSON **ret, struct nest_err *err);
int nest_json_get_array(const cJSON *obj, const char *key, const cJSON **ret, struct nest_err *err);

/* "an object", "a string", ... for messages. */
const char *nest_json_type_name(const cJSON *value);

/*
 * -EINVAL naming the first member of @obj that @known (NULL-terminated) lacks, with the nearest
 * known key as a hint, or that is given twice; or 0.
 */
int nest_json_refuse_unknown(const cJSON *obj, const char *const *known, struct nest_err *err);

/*
 * Parses @n bytes, refusing trailing bytes, bytes that are not UTF-8, strings that hold \u0000 and
 * nesting deeper than cJSON's limit. The caller owns *@ret (cJSON_Delete). -EINVAL with line and
 * column. Any thread.
 */
int nest_json_parse(const char *bytes, size_t n, cJSON **ret, struct nest_err *err);

static inline void nest_json_cleanup(cJSON **p)
{
	cJSON_Delete(*p);
}
#define nest_autojson __attribute__((cleanup(nest_json_cleanup)))

#endif
