/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/utf8.h"

#define TWO_POW_63 9223372036854775808.0

const char *nest_json_type_name(const cJSON *value)
{
	if (!value)
		return "nothing";
	if (cJSON_IsObject(value))
		return "an object";
	if (cJSON_IsArray(value))
		return "an array";
	if (cJSON_IsString(value))
		return "a string";
	if (cJSON_IsNumber(value))
		return "a number";
	if (cJSON_IsBool(value))
		return "a boolean";
	return "null";
}

static const cJSON *member(const cJSON *obj, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsNull(value) ? NULL : value;
}

static int wrong_type(struct nest_err *err, const char *key, const char *wanted, const cJSON *value)
{
	return nest_err_say(
		err, -EINVAL, "'%s' must be %s, not %s", key, wanted, nest_json_type_name(value));
}

int nest_json_get_string(const cJSON *obj, const char *key, const char **ret, struct nest_err *err)
{
	const cJSON *value = member(obj, key);

	if (!value)
		return 1;
	if (!cJSON_IsString(value))
		return wrong_type(err, key, "a string", value);
	*ret = value->valuestring;
	return 0;
}

static int wrong_number(
	struct nest_err *err, const char *key, const char *wanted, const cJSON *value)
{
	if (!cJSON_IsNumber(value))
		return wrong_type(err, key, wanted, value);
	return nest_err_say(
		err, -EINVAL, "'%s' must be %s, not %.15g", key, wanted, value->valuedouble);
}

int nest_json_get_int(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct nest_err *err)
{
	const cJSON *value = member(obj, key);
	char wanted[80];

	if (!value)
		return 1;
	if (cJSON_IsNumber(value)) {
		double number = value->valuedouble;

		/* only within these bounds has the conversion a meaning */
		if (number >= -TWO_POW_63 && number < TWO_POW_63 && floor(number) == number &&
			(int64_t)number >= min && (int64_t)number <= max) {
			*ret = (int64_t)number;
			return 0;
		}
	}
	if (min == INT64_MIN && max == INT64_MAX)
		snprintf(wanted, sizeof(wanted), "an integer");
	else if (max == INT64_MAX)
		snprintf(wanted, sizeof(wanted), "an integer of at least %jd", (intmax_t)min);
	else
		snprintf(wanted, sizeof(wanted), "an integer from %jd to %jd", (intmax_t)min,
			(intmax_t)max);
	return wrong_number(err, key, wanted, value);
}

int nest_json_get_number(const cJSON *obj, const char *key, double min, double max, double *ret,
	struct nest_err *err)
{
	const cJSON *value = member(obj, key);
	char wanted[80];

	if (!value)
		return 1;
	if (cJSON_IsNumber(value) && value->valuedouble >= min && value->valuedouble <= max) {
		*ret = value->valuedouble;
		return 0;
	}
	snprintf(wanted, sizeof(wanted), "a number from %.15g to %.15g", min, max);
	return wrong_number(err, key, wanted, value);
}

int nest_json_get_bool(const cJSON *obj, const char *key, bool *ret, struct nest_err *err)
{
	const cJSON *value = member(obj, key);

	if (!value)
		return 1;
	if (!cJSON_IsBool(value))
		return wrong_type(err, key, "true or false", value);
	*ret = cJSON_IsTrue(value);
	return 0;
}

int nest_json_get_object(const cJSON *obj, const char *key, const cJSON **ret, struct nest_err *err)
{
	const cJSON *value = member(obj, key);

	if (!value)
		return 1;
	if (!cJSON_IsObject(value))
		return wrong_type(err, key, "an object", value);
	*ret = value;
	return 0;
}

int nest_json_get_array(const cJSON *obj, const char *key, const cJSON **ret, struct nest_err *err)
{
	const cJSON *value = member(obj, key);

	if (!value)
		return 1;
	if (!cJSON_IsArray(value))
		return wrong_type(err, key, "an array", value);
	*ret = value;
	return 0;
}

#define HINT_MAX_LEN 48

static unsigned least_of(unsigned a, unsigned b, unsigned c)
{
	unsigned ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Levenshtein's distance, in one row, blind to case; UINT32_MAX for keys too long to be a slip. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[HINT_MAX_LEN + 1];
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > HINT_MAX_LEN || b_len > HINT_MAX_LEN)
		return UINT32_MAX;
	for (size_t k = 0; k <= b_len; k++)
		row[k] = (unsigned)k;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t k = 1; k <= b_len; k++) {
			unsigned above = row[k];
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[k - 1]);

			row[k] = least_of(above + 1, row[k - 1] + 1, diagonal + (same ? 0 : 1));
			diagonal = above;
		}
	}
	return row[b_len];
}

/* The known key that @key was most likely meant to be, or NULL. */
static const char *nearest(const char *key, const char *const *known)
{
	unsigned best = (unsigned)strlen(key) / 3 + 1;
	const char *hint = NULL;

	for (; *known; known++) {
		unsigned d = distance(key, *known);

		if (d <= best && (!hint || d < best)) {
			best = d;
			hint = *known;
		}
	}
	return hint;
}

static int refuse_key(const char *key, const char *const *known, struct nest_err *err)
{
	const char *hint = nearest(key, known);
	struct nest_buf list = NEST_BUF_INIT;
	nest_autofree char *text = NULL;
	int rc = 0;

	if (hint)
		return nest_err_say(
			err, -EINVAL, "unknown key '%.64s', did you mean '%s'?", key, hint);
	for (const char *const *k = known; *k && rc == 0; k++)
		rc = nest_buf_printf(&list, "%s'%s'", k == known ? "" : ", ", *k);
	text = nest_buf_take_string(&list);
	nest_buf_done(&list);
	if (rc < 0 || !text || !*known)
		return nest_err_say(err, -EINVAL, "unknown key '%.64s'", key);
	return nest_err_say(err, -EINVAL, "unknown key '%.64s', known are %s", key, text);
}

static bool is_known(const char *key, const char *const *known)
{
	for (; *known; known++) {
		if (strcmp(key, *known) == 0)
			return true;
	}
	return false;
}

int nest_json_refuse_unknown(const cJSON *obj, const char *const *known, struct nest_err *err)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, obj) {
		if (!item->string)
			continue;
		if (!is_known(item->string, known))
			return refuse_key(item->string, known, err);
		if (cJSON_GetObjectItemCaseSensitive(obj, item->string) != item)
			return nest_err_say(err, -EINVAL, "'%.64s' is given twice", item->string);
	}
	return 0;
}

/* -EINVAL for what stands at @at, with its place; @what says what is wrong. */
static int refuse_at(const char *bytes, size_t n, size_t at, const char *what, struct nest_err *err)
{
	unsigned line = 1, column = 1;

	if (at > n)
		at = n;
	for (size_t i = 0; i < at; i++) {
		if (bytes[i] == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)bytes[i] & 0xc0) != 0x80) {
			column++; /* a column is a character, not a byte */
		}
	}
	return nest_err_say(err, -EINVAL, "line %u, column %u: %s", line, column, what);
}

static bool is_nul_escape(const char *at, size_t left)
{
	return left >= 6 && memcmp(at, "\\u0000", 6) == 0;
}

/*
 * Refuses what cJSON lets pass and others would stumble over: bytes that are not UTF-8 (they would
 * come out again in our own JSON), and NUL in a string (what follows it would vanish unseen).
 */
static int check_bytes(const char *bytes, size_t n, struct nest_err *err)
{
	size_t i = 0;

	while (i < n) {
		size_t len = nest_utf8_char(bytes + i, n - i);

		if (len == 0)
			return refuse_at(bytes, n, i, "not UTF-8", err);
		if (bytes[i] == '\0')
			return refuse_at(bytes, n, i, "a NUL byte", err);
		if (is_nul_escape(bytes + i, n - i))
			return refuse_at(bytes, n, i, "a string must not hold \\u0000", err);
		/* the character behind a backslash is never the start of an escape */
		i += bytes[i] == '\\' && i + 1 < n && bytes[i + 1] == '\\' ? 2 : len;
	}
	return 0;
}

/* cJSON notes the place of its last error in a global; the place we use is our own. */
static pthread_mutex_t parser = PTHREAD_MUTEX_INITIALIZER;

static cJSON *parse_locked(const char *bytes, size_t n, const char **ret_end)
{
	cJSON *root;

	pthread_mutex_lock(&parser);
	root = cJSON_ParseWithLengthOpts(bytes, n, ret_end, false);
	pthread_mutex_unlock(&parser);
	return root;
}

int nest_json_parse(const char *bytes, size_t n, cJSON **ret, struct nest_err *err)
{
	nest_autojson cJSON *root = NULL;
	const char *end = bytes;
	size_t at;
	int rc;

	rc = check_bytes(bytes, n, err);
	if (rc < 0)
		return rc;
	at = n;
	while (at > 0 && isspace((unsigned char)bytes[at - 1]))
		at--;
	if (at == 0)
		return refuse_at(bytes, n, 0, "no JSON value, only white space", err);
	root = parse_locked(bytes, n, &end);
	if (!root)
		return refuse_at(bytes, n, (size_t)(end - bytes),
			(size_t)(end - bytes) + 1 >= at ? "the JSON value ends too early"
							: "not valid JSON",
			err);
	at = (size_t)(end - bytes);
	while (at < n && isspace((unsigned char)bytes[at]))
		at++;
	if (at < n)
		return refuse_at(bytes, n, at, "more than one JSON value", err);
	*ret = nest_take_ptr(root);
	return 0;
}
