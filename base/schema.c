/* SPDX-License-Identifier: Apache-2.0 */
#include "base/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/jsonc.h"

#define GROUP_MAX 40 /* bytes of a group's name */
#define KNOWN_MAX 64 /* keys of one object */
#define WANTED_MAX 160

/* One check under way: where it is, and who hears of trouble. */
struct check {
	const struct nest_schema *schema;
	struct nest_schema_place *place;
	struct nest_err *err;
};

void nest_schema_locate(struct nest_schema_place *place, const char *fmt, ...)
{
	va_list ap;

	if (!place)
		return;
	va_start(ap, fmt);
	vsnprintf(place->path, sizeof(place->path), fmt, ap);
	va_end(ap);
}

static const cJSON *member(const cJSON *object, const char *name)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);

	return cJSON_IsNull(value) ? NULL : value;
}

/* The bytes of @path that name its group; 0 when it has none. */
static size_t group_len(const char *path)
{
	const char *dot = strchr(path, '.');

	return dot ? (size_t)(dot - path) : 0;
}

static const char *leaf(const char *path)
{
	size_t n = group_len(path);

	return n ? path + n + 1 : path;
}

static void group_name(const char *path, char ret_name[GROUP_MAX])
{
	snprintf(ret_name, GROUP_MAX, "%.*s", (int)group_len(path), path);
}

/* The value at @path, or NULL where it, or its group, isn't given. */
static const cJSON *lookup(const cJSON *object, const char *path)
{
	char group[GROUP_MAX];

	if (!object)
		return NULL;
	if (group_len(path) == 0)
		return member(object, path);
	group_name(path, group);
	return member(member(object, group), leaf(path));
}

/* ---- words ---- */

static void say_choices(const char *choices, char *text, size_t n)
{
	const char *sep = "one of";

	for (size_t used = 0; *choices && used < n;) {
		size_t len = strcspn(choices, "|");

		used += (size_t)snprintf(
			text + used, n - used, "%s \"%.*s\"", sep, (int)len, choices);
		choices += len + (choices[len] == '|');
		sep = ",";
	}
}

static void say_range(const struct nest_schema_key *key, const char *noun, char *text, size_t n)
{
	double scale = key->type == NEST_SCHEMA_MILLI ? 1000 : 1;

	snprintf(text, n, "%s from %.15g to %.15g", noun, (double)key->min / scale,
		(double)key->max / scale);
}

/* What the value of @key must be, without its article. */
static void say_type(const struct nest_schema_key *key, char *text, size_t n)
{
	static const char *const nouns[] = {
		[NEST_SCHEMA_BOOL] = "boolean",
		[NEST_SCHEMA_MODE] = "octal mode such as \"0660\"",
		[NEST_SCHEMA_STRINGS] = "array of strings",
		[NEST_SCHEMA_MAP] = "object of strings",
		[NEST_SCHEMA_OBJECT] = "object",
		[NEST_SCHEMA_OBJECTS] = "array of objects",
	};

	switch (key->type) {
	case NEST_SCHEMA_STRING:
		snprintf(text, n, "%s", key->form ? key->form : "string");
		break;
	case NEST_SCHEMA_ENUM:
		say_choices(key->choices, text, n);
		break;
	case NEST_SCHEMA_CHOICE:
		say_choices(key->choices, text, n);
		snprintf(text + strlen(text), n - strlen(text), ", or %s", key->form);
		break;
	case NEST_SCHEMA_U32:
	case NEST_SCHEMA_U64:
	case NEST_SCHEMA_MIB:
		say_range(key, "integer", text, n);
		break;
	case NEST_SCHEMA_MILLI:
		say_range(key, "number", text, n);
		break;
	default:
		snprintf(text, n, "%s", nouns[key->type]);
	}
}

static const char *article(const char *noun)
{
	if (strncmp(noun, "one of", 6) == 0)
		return "";
	return strchr("aeiou", noun[0]) ? "an " : "a ";
}

int nest_schema_describe(const struct nest_schema_key *key, struct nest_buf *buf)
{
	char type[WANTED_MAX];
	int rc;

	say_type(key, type, sizeof(type));
	rc = nest_buf_puts(buf, type);
	if (rc == 0 && *key->unit)
		rc = nest_buf_printf(buf, ", %s", key->unit);
	if (rc < 0)
		return rc;
	if (key->flags & NEST_SCHEMA_REQUIRED)
		return nest_buf_puts(buf, "; required");
	if (!key->fallback)
		return nest_buf_puts(buf, "; no default");
	return nest_buf_printf(buf, "; default %s", key->fallback);
}

/* "'<path>' must be <what>, not <what it is>" at the place @path. */
static int refuse(struct check *check, const char *path, const char *wanted, const cJSON *value)
{
	nest_schema_locate(check->place, "%s", path);
	if (cJSON_IsNumber(value))
		return nest_err_say(check->err, -EINVAL, "'%s' must be %s%s, not %.15g", path,
			article(wanted), wanted, value->valuedouble);
	if (cJSON_IsString(value))
		return nest_err_say(check->err, -EINVAL, "'%s' must be %s%s, not \"%.80s\"", path,
			article(wanted), wanted, value->valuestring);
	return nest_err_say(check->err, -EINVAL, "'%s' must be %s%s, not %s", path, article(wanted),
		wanted, nest_json_type_name(value));
}

static int refuse_type(struct check *check, const struct nest_schema_key *key, const cJSON *value)
{
	char wanted[WANTED_MAX];

	say_type(key, wanted, sizeof(wanted));
	return refuse(check, key->path, wanted, value);
}

/* ---- one value ---- */

static bool in_range(const struct nest_schema_key *key, const cJSON *value)
{
	double number = value->valuedouble;

	if (!cJSON_IsNumber(value))
		return false;
	if (key->type == NEST_SCHEMA_MILLI)
		number *= 1000;
	else if (floor(number) != number)
		return false;
	return number >= (double)key->min && number <= (double)key->max;
}

static int choice_index(const char *choices, const char *word)
{
	for (int i = 0;; i++) {
		size_t len = strcspn(choices, "|");

		if (strlen(word) == len && strncmp(choices, word, len) == 0)
			return i;
		if (choices[len] == '\0')
			return -1;
		choices += len + 1;
	}
}

static bool parse_mode(const char *text, uint32_t *ret_mode)
{
	uint32_t mode = 0;
	size_t len = strspn(text, "01234567");

	if (len < 3 || len > 4 || text[len] != '\0')
		return false;
	for (; *text; text++)
		mode = mode * 8 + (uint32_t)(*text - '0');
	*ret_mode = mode;
	return mode <= 0777;
}

static int check_text(struct check *check, const struct nest_schema_key *key, const char *path,
	const cJSON *value)
{
	size_t len;

	if (!cJSON_IsString(value))
		return refuse(check, path, key->form ? key->form : "string", value);
	len = strlen(value->valuestring);
	if (key->valid && !key->valid(value->valuestring))
		return refuse(check, path, key->form, value);
	if (key->type == NEST_SCHEMA_STRING && (len < (size_t)key->min || len > (size_t)key->max)) {
		nest_schema_locate(check->place, "%s", path);
		return nest_err_say(check->err, -EINVAL,
			"'%s' must have %" PRId64 " to %" PRId64 " bytes, not %zu", path, key->min,
			key->max, len);
	}
	return 0;
}

static int check_strings(struct check *check, const struct nest_schema_key *key, const cJSON *array)
{
	struct nest_schema_place at;
	const cJSON *item;
	int n = 0;

	if (!cJSON_IsArray(array))
		return refuse_type(check, key, array);
	cJSON_ArrayForEach(item, array) {
		int rc;

		nest_schema_locate(&at, "%s[%d]", key->path, n++);
		rc = check_text(check, key, at.path, item);
		if (rc < 0)
			return rc;
	}
	if (n >= key->min && n <= key->max)
		return 0;
	nest_schema_locate(check->place, "%s", key->path);
	return nest_err_say(check->err, -EINVAL,
		"'%s' must have %" PRId64 " to %" PRId64 " elements, not %d", key->path, key->min,
		key->max, n);
}

static int check_map(struct check *check, const struct nest_schema_key *key, const cJSON *map)
{
	struct nest_schema_place at;
	const cJSON *item;

	if (!cJSON_IsObject(map))
		return refuse_type(check, key, map);
	cJSON_ArrayForEach(item, map) {
		nest_schema_locate(&at, "%s.%s", key->path, item->string);
		if (!cJSON_IsString(item))
			return refuse(check, at.path, "string", item);
		if (key->valid && !key->valid(item->string)) {
			nest_schema_locate(check->place, "%s", at.path);
			return nest_err_say(check->err, -EINVAL, "'%s' must be named as %s",
				at.path, key->form);
		}
		if (cJSON_GetObjectItemCaseSensitive(map, item->string) != item) {
			nest_schema_locate(check->place, "%s", at.path);
			return nest_err_say(check->err, -EINVAL, "'%s' is given twice", at.path);
		}
	}
	return 0;
}

static int check_objects(struct check *check, const struct nest_schema_key *key, const cJSON *array)
{
	struct nest_schema_place at;
	const cJSON *item;
	int n = 0;

	if (!cJSON_IsArray(array))
		return refuse_type(check, key, array);
	cJSON_ArrayForEach(item, array) {
		nest_schema_locate(&at, "%s[%d]", key->path, n++);
		if (!cJSON_IsObject(item))
			return refuse(check, at.path, "object", item);
	}
	return 0;
}

static int check_value(struct check *check, const struct nest_schema_key *key, const cJSON *value)
{
	uint32_t mode;
	bool fits = true;

	switch (key->type) {
	case NEST_SCHEMA_STRING:
		return check_text(check, key, key->path, value);
	case NEST_SCHEMA_STRINGS:
		return check_strings(check, key, value);
	case NEST_SCHEMA_MAP:
		return check_map(check, key, value);
	case NEST_SCHEMA_OBJECTS:
		return check_objects(check, key, value);
	case NEST_SCHEMA_OBJECT:
		fits = cJSON_IsObject(value);
		break;
	case NEST_SCHEMA_BOOL:
		fits = cJSON_IsBool(value);
		break;
	case NEST_SCHEMA_ENUM:
		fits = cJSON_IsString(value) && choice_index(key->choices, value->valuestring) >= 0;
		break;
	case NEST_SCHEMA_CHOICE:
		fits = cJSON_IsObject(value) ||
		       (cJSON_IsString(value) &&
			       choice_index(key->choices, value->valuestring) >= 0);
		break;
	case NEST_SCHEMA_MODE:
		fits = cJSON_IsString(value) && parse_mode(value->valuestring, &mode);
		break;
	case NEST_SCHEMA_U32:
	case NEST_SCHEMA_U64:
	case NEST_SCHEMA_MIB:
	case NEST_SCHEMA_MILLI:
		fits = in_range(key, value);
		break;
	}
	return fits ? 0 : refuse_type(check, key, value);
}

/* ---- a whole object ---- */

static bool is_in_group(const char *path, const char *group)
{
	size_t n = group_len(path);

	return strlen(group) == n && strncmp(path, group, n) == 0;
}

/* Lists the names that may stand in @group ("": in the object itself, where groups do too). */
static void list_known(const struct nest_schema *schema, const char *group, const char **known,
	char (*names)[GROUP_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < schema->n && n < KNOWN_MAX; i++) {
		const char *path = schema->keys[i].path;

		if (is_in_group(path, group)) {
			known[n++] = leaf(path);
		} else if (*group == '\0') {
			group_name(path, names[n]);
			if (n == 0 || strcmp(known[n - 1], names[n]) != 0) {
				known[n] = names[n];
				n++;
			}
		}
	}
	known[n] = NULL;
}

static bool is_known(const char *name, const char *const *known)
{
	for (; *known; known++) {
		if (strcmp(name, *known) == 0)
			return true;
	}
	return false;
}

/* Refuses unknown and doubled names in @object, which is @group or (for "") the whole. */
static int check_names(struct check *check, const cJSON *object, const char *group)
{
	const char *known[KNOWN_MAX + 1];
	char names[KNOWN_MAX][GROUP_MAX];
	const char *dot = *group ? "." : "";
	const cJSON *item;
	int rc;

	list_known(check->schema, group, known, names);
	rc = nest_json_refuse_unknown(object, known, check->err);
	if (rc == 0)
		return 0;
	cJSON_ArrayForEach(item, object) {
		if (!is_known(item->string, known) ||
			cJSON_GetObjectItemCaseSensitive(object, item->string) != item)
			break;
	}
	nest_schema_locate(check->place, "%s%s%.100s", group, dot, item ? item->string : "");
	if (*group)
		nest_err_wrap(check->err, "in '%s'", group);
	return rc;
}

static int check_group(struct check *check, const cJSON *object, const char *path)
{
	char group[GROUP_MAX];
	const cJSON *value;

	group_name(path, group);
	value = member(object, group);
	if (!value)
		return 0;
	if (!cJSON_IsObject(value))
		return refuse(check, group, "object", value);
	return check_names(check, value, group);
}

static int check_given(struct check *check, const struct nest_schema_key *key, const cJSON *object,
	unsigned refused)
{
	const cJSON *value = lookup(object, key->path);

	if (!value)
		return 0;
	if (key->flags & refused) {
		nest_schema_locate(check->place, "%s", key->path);
		return nest_err_say(check->err, -EINVAL, "'%s' can't be given here", key->path);
	}
	return check_value(check, key, value);
}

static int check_object(struct check *check, const cJSON *object, unsigned refused)
{
	const struct nest_schema *schema = check->schema;
	int rc;

	nest_schema_locate(check->place, "%s", "");
	if (!cJSON_IsObject(object))
		return nest_err_say(check->err, -EINVAL, "must be an object, not %s",
			nest_json_type_name(object));
	rc = check_names(check, object, "");
	for (size_t i = 0; i < schema->n && rc == 0; i++) {
		const char *path = schema->keys[i].path;
		const char *before = i > 0 ? schema->keys[i - 1].path : "";

		if (group_len(path) > 0 && (group_len(before) != group_len(path) ||
						   strncmp(before, path, group_len(path)) != 0))
			rc = check_group(check, object, path);
		if (rc == 0)
			rc = check_given(check, &schema->keys[i], object, refused);
	}
	return rc;
}

int nest_schema_check(const struct nest_schema *schema, const cJSON *object, unsigned refused,
	struct nest_schema_place *ret_place, struct nest_err *err)
{
	struct check check = { .schema = schema, .place = ret_place, .err = err };

	return check_object(&check, object, refused);
}

/* ---- completing ---- */

static int add_item(cJSON *object, const char *name, cJSON *item)
{
	if (item && cJSON_AddItemToObject(object, name, item))
		return 0;
	cJSON_Delete(item);
	return -ENOMEM;
}

/* Adds the names of @more that @map lacks. */
static int merge_map(cJSON *map, const cJSON *more)
{
	const cJSON *item;
	int rc = 0;

	cJSON_ArrayForEach(item, more) {
		if (rc == 0 && !cJSON_GetObjectItemCaseSensitive(map, item->string))
			rc = add_item(map, item->string, cJSON_Duplicate(item, true));
	}
	return rc;
}

/* The complete value of @key: given, else from the defaults, else the table's. 1: none. */
static int resolve(const struct nest_schema *schema, const struct nest_schema_key *key,
	const cJSON *object, const cJSON *defaults, cJSON **ret)
{
	const cJSON *given = lookup(object, key->path);
	const cJSON *inherited = key->flags & schema->own ? NULL : lookup(defaults, key->path);
	nest_autojson cJSON *value = NULL;

	if (given)
		value = cJSON_Duplicate(given, true);
	else if (inherited)
		value = cJSON_Duplicate(inherited, true);
	else if (!key->fallback)
		return 1;
	else
		value = cJSON_Parse(key->fallback);
	if (!value)
		return -ENOMEM;
	if (given && inherited && key->type == NEST_SCHEMA_MAP && merge_map(value, inherited) < 0)
		return -ENOMEM;
	*ret = nest_take_ptr(value);
	return 0;
}

/* Where @key's value belongs in the complete object; its group is made when missing. */
static cJSON *home(cJSON *json, const char *path)
{
	char group[GROUP_MAX];
	cJSON *object;

	if (group_len(path) == 0)
		return json;
	group_name(path, group);
	object = cJSON_GetObjectItemCaseSensitive(json, group);
	return object ? object : cJSON_AddObjectToObject(json, group);
}

/* One block: the pointers, then (for a map) their "K=V" texts. */
static const char **list_strings(const cJSON *list, bool map)
{
	size_t count = 1, bytes = 0;
	const cJSON *item;
	const char **block, **slot;
	char *text;

	cJSON_ArrayForEach(item, list) {
		count++;
		bytes += map ? strlen(item->string) + strlen(item->valuestring) + 2 : 0;
	}
	block = malloc(count * sizeof(*block) + bytes);
	if (!block)
		return NULL;
	slot = block;
	text = (char *)(block + count);
	cJSON_ArrayForEach(item, list) {
		*slot++ = map ? text : item->valuestring;
		if (map)
			text = stpcpy(stpcpy(stpcpy(text, item->string), "="), item->valuestring) +
			       1;
	}
	*slot = NULL;
	return block;
}

static bool is_allocated(const struct nest_schema_key *key)
{
	return key->type == NEST_SCHEMA_STRINGS || key->type == NEST_SCHEMA_MAP;
}

static void store_number(const struct nest_schema_key *key, double number, void *at)
{
	switch (key->type) {
	case NEST_SCHEMA_U32:
		*(uint32_t *)at = (uint32_t)number;
		break;
	case NEST_SCHEMA_MILLI:
		*(uint32_t *)at = (uint32_t)(number * 1000 + 0.5);
		break;
	case NEST_SCHEMA_MIB:
		*(uint64_t *)at = (uint64_t)number << 20;
		break;
	default:
		*(uint64_t *)at = (uint64_t)number;
	}
}

/* Stores a checked value; none (NULL) is stored as 0, NULL or an empty list. */
static int store(const struct nest_schema_key *key, const cJSON *value, void *object)
{
	void *at = (char *)object + key->offset;

	switch (key->type) {
	case NEST_SCHEMA_STRING:
		*(const char **)at = value ? value->valuestring : NULL;
		return 0;
	case NEST_SCHEMA_ENUM:
		*(unsigned *)at =
			value ? (unsigned)choice_index(key->choices, value->valuestring) : 0;
		return 0;
	case NEST_SCHEMA_BOOL:
		*(bool *)at = cJSON_IsTrue(value);
		return 0;
	case NEST_SCHEMA_MODE:
		*(uint32_t *)at = 0;
		parse_mode(value ? value->valuestring : "000", at);
		return 0;
	case NEST_SCHEMA_STRINGS:
	case NEST_SCHEMA_MAP:
		*(const char ***)at = list_strings(value, key->type == NEST_SCHEMA_MAP);
		return *(const char ***)at ? 0 : -ENOMEM;
	case NEST_SCHEMA_CHOICE:
	case NEST_SCHEMA_OBJECT:
	case NEST_SCHEMA_OBJECTS:
		*(const cJSON **)at = value;
		return 0;
	default:
		store_number(key, value ? value->valuedouble : 0, at);
		return 0;
	}
}

static int complete(struct check *check, const cJSON *object, const cJSON *defaults, cJSON *json)
{
	const struct nest_schema *schema = check->schema;

	for (size_t i = 0; i < schema->n; i++) {
		const struct nest_schema_key *key = &schema->keys[i];
		nest_autojson cJSON *value = NULL;
		cJSON *at;
		int rc;

		rc = resolve(schema, key, object, defaults, &value);
		if (rc > 0 && key->flags & NEST_SCHEMA_REQUIRED) {
			nest_schema_locate(check->place, "%s", "");
			return nest_err_say(check->err, -EINVAL, "'%s' is missing", key->path);
		}
		if (rc > 0)
			continue;
		at = rc == 0 ? home(json, key->path) : NULL;
		if (!at || !cJSON_AddItemToObject(at, leaf(key->path), value))
			return nest_err_set(check->err, -ENOMEM, "read '%s'", key->path);
		value = NULL; /* it is the tree's now */
	}
	return 0;
}

static void release_blocks(const struct nest_schema *schema, void *object)
{
	for (size_t i = 0; i < schema->n; i++) {
		const struct nest_schema_key *key = &schema->keys[i];
		const char ***at = (void *)((char *)object + key->offset);

		if (is_allocated(key)) {
			free(*at);
			*at = NULL;
		}
	}
}

/* All or nothing: blocks that were made before one failed are freed again. */
static int store_all(const struct nest_schema *schema, const cJSON *json, void *object)
{
	for (size_t i = 0; i < schema->n; i++) {
		if (is_allocated(&schema->keys[i]))
			*(const char ***)((char *)object + schema->keys[i].offset) = NULL;
	}
	for (size_t i = 0; i < schema->n; i++) {
		const struct nest_schema_key *key = &schema->keys[i];
		const cJSON *at = json;
		char group[GROUP_MAX];

		if (group_len(key->path) > 0) {
			group_name(key->path, group);
			at = cJSON_GetObjectItemCaseSensitive(json, group);
		}
		if (store(key, cJSON_GetObjectItemCaseSensitive(at, leaf(key->path)), object) < 0) {
			release_blocks(schema, object);
			return -ENOMEM;
		}
	}
	return 0;
}

int nest_schema_read(const struct nest_schema *schema, const cJSON *object, const cJSON *defaults,
	void *ret_struct, cJSON **ret_json, struct nest_schema_place *ret_place,
	struct nest_err *err)
{
	struct check check = { .schema = schema, .place = ret_place, .err = err };
	nest_autojson cJSON *json = NULL;
	int rc;

	rc = check_object(&check, object, 0);
	if (rc < 0)
		return rc;
	json = cJSON_CreateObject();
	if (!json)
		return nest_err_set(err, -ENOMEM, "read an object");
	rc = complete(&check, object, defaults, json);
	if (rc < 0)
		return rc;
	if (store_all(schema, json, ret_struct) < 0)
		return nest_err_set(err, -ENOMEM, "read an object");
	*ret_json = nest_take_ptr(json);
	return 0;
}

void nest_schema_release(const struct nest_schema *schema, void *object, cJSON *json)
{
	release_blocks(schema, object);
	cJSON_Delete(json);
}

const struct nest_schema_key *nest_schema_find(const struct nest_schema *schema, const char *path)
{
	for (size_t i = 0; i < schema->n; i++) {
		if (strcmp(schema->keys[i].path, path) == 0)
			return &schema->keys[i];
	}
	return NULL;
}

void nest_schema_blame(struct nest_err *err, const char *file, const char *text, size_t n,
	const struct nest_schema_place *place)
{
	unsigned line = nest_jsonc_line_of(text, n, place->path);

	if (line == 0)
		nest_err_wrap(err, "%s", file);
	else
		nest_err_wrap(err, "%s: line %u", file, line);
}
