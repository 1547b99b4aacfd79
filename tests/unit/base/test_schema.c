/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/schema.h"
#include "tests/unit/suite.h"

/* One key of each type, in a form like that of the config. */
struct sample {
	const char *name;
	unsigned network;
	bool enabled;
	uint32_t workers_min;
	uint64_t workers_bytes;
	uint64_t memory;
	uint32_t ratio;
	uint32_t mode;
	const char *const *paths;
	const char *const *env;
	const cJSON *extra;
	const cJSON *functions;
};

#define OWN NEST_SCHEMA_FLAG(0)
#define FORBIDDEN NEST_SCHEMA_FLAG(1)

static bool is_lower(const char *text)
{
	return text[strspn(text, "abcdefghijklmnopqrstuvwxyz")] == '\0';
}

#define KEY(member, path_, type_, fallback_, min_, max_, unit_, ...)                           \
	{                                                                                      \
		.path = path_, .type = NEST_SCHEMA_##type_,                                    \
		.offset = offsetof(struct sample, member), .fallback = fallback_, .min = min_, \
		.max = max_, .unit = unit_, .doc = "", __VA_ARGS__                             \
	}

static const struct nest_schema_key keys[] = {
	KEY(name, "name", STRING, NULL, 1, 8, "", .flags = NEST_SCHEMA_REQUIRED | OWN,
		.valid = is_lower, .form = "lower-case word"),
	KEY(network, "network", ENUM, "\"none\"", 0, 0, "", .choices = "pod|none"),
	KEY(enabled, "enabled", BOOL, "true", 0, 0, ""),
	KEY(workers_min, "workers.min", U32, "1", 0, 100, ""),
	KEY(workers_bytes, "workers.bytes", U64, NULL, 0, (int64_t)1 << 40, "", .flags = FORBIDDEN),
	KEY(memory, "memoryMb", MIB, "128", 16, 4096, "MiB"),
	KEY(ratio, "ratio", MILLI, "0.5", 10, 1000, ""),
	KEY(mode, "mode", MODE, "\"0660\"", 0, 0777, ""),
	KEY(paths, "paths", STRINGS, "[\"a\",\"b\"]", 1, 3, ""),
	KEY(env, "env", MAP, "{}", 0, 0, "", .valid = is_lower, .form = "lower-case word"),
	KEY(extra, "extra", OBJECT, NULL, 0, 0, ""),
	KEY(functions, "functions", OBJECTS, "[]", 0, 0, ""),
};

static const struct nest_schema schema = {
	.keys = keys,
	.n = NEST_ARRAY_SIZE(keys),
	.own = OWN,
};

static cJSON *parsed(const char *text)
{
	cJSON *root = NULL;

	ck_assert_int_eq(nest_json_parse(text, strlen(text), &root, NULL), 0);
	return root;
}

static void expect_list(const char *const *list, const char *const *want)
{
	for (; *want; list++, want++)
		ck_assert_str_eq(*list, *want);
	ck_assert_ptr_null(*list);
}

START_TEST(what_is_left_out_has_its_default)
{
	static const char *const paths[] = { "a", "b", NULL };
	static const char *const none[] = { NULL };
	nest_autojson cJSON *given = parsed("{\"name\":\"x\",\"mode\":null}");
	struct sample sample;
	cJSON *complete = NULL;

	ck_assert_int_eq(nest_schema_read(&schema, given, NULL, &sample, &complete, NULL, NULL), 0);
	ck_assert_str_eq(sample.name, "x");
	ck_assert_uint_eq(sample.network, 1);
	ck_assert(sample.enabled);
	ck_assert_uint_eq(sample.workers_min, 1);
	ck_assert_uint_eq(sample.workers_bytes, 0);
	ck_assert_uint_eq(sample.memory, (uint64_t)128 << 20);
	ck_assert_uint_eq(sample.ratio, 500);
	ck_assert_uint_eq(sample.mode, 0660);
	expect_list(sample.paths, paths);
	expect_list(sample.env, none);
	ck_assert_ptr_null(sample.extra);
	ck_assert_int_eq(cJSON_GetArraySize(sample.functions), 0);
	nest_schema_release(&schema, &sample, complete);
	ck_assert_ptr_null(sample.paths);
	ck_assert_ptr_null(sample.env);
}
END_TEST

START_TEST(what_is_given_is_stored)
{
	static const char *const paths[] = { "p", NULL };
	static const char *const env[] = { "a=1", "b=", NULL };
	nest_autojson cJSON *given = parsed(
		"{\"name\":\"abc\",\"network\":\"pod\",\"enabled\":false,"
		"\"workers\":{\"min\":0,\"bytes\":1099511627776},\"memoryMb\":4096,\"ratio\":0.123,"
		"\"mode\":\"700\",\"paths\":[\"p\"],\"env\":{\"a\":\"1\",\"b\":\"\"},"
		"\"extra\":{\"k\":1},\"functions\":[{},{}]}");
	struct sample sample;
	cJSON *complete = NULL;

	ck_assert_int_eq(nest_schema_read(&schema, given, NULL, &sample, &complete, NULL, NULL), 0);
	cJSON_Delete(nest_take_ptr(given)); /* nothing may point into what was given */
	ck_assert_str_eq(sample.name, "abc");
	ck_assert_uint_eq(sample.network, 0);
	ck_assert(!sample.enabled);
	ck_assert_uint_eq(sample.workers_min, 0);
	ck_assert_uint_eq(sample.workers_bytes, (uint64_t)1 << 40);
	ck_assert_uint_eq(sample.memory, (uint64_t)4 << 30);
	ck_assert_uint_eq(sample.ratio, 123);
	ck_assert_uint_eq(sample.mode, 0700);
	expect_list(sample.paths, paths);
	expect_list(sample.env, env);
	ck_assert_int_eq(cJSON_GetArraySize(sample.extra), 1);
	ck_assert_int_eq(cJSON_GetArraySize(sample.functions), 2);
	nest_schema_release(&schema, &sample, complete);
}
END_TEST

START_TEST(defaults_fill_all_but_own_keys_and_merge_maps)
{
	static const char *const env[] = { "a=mine", "b=theirs", NULL };
	nest_autojson cJSON *given = parsed("{\"name\":\"x\",\"env\":{\"a\":\"mine\"}}");
	nest_autojson cJSON *nameless = parsed("{}");
	nest_autojson cJSON *defaults = parsed(
		"{\"name\":\"y\",\"workers\":{\"min\":7},\"env\":{\"a\":\"no\",\"b\":\"theirs\"}}");
	struct nest_err err = NEST_ERR_INIT;
	struct sample sample;
	cJSON *complete = NULL;

	ck_assert_int_eq(
		nest_schema_read(&schema, given, defaults, &sample, &complete, NULL, NULL), 0);
	ck_assert_str_eq(sample.name, "x");
	ck_assert_uint_eq(sample.workers_min, 7);
	expect_list(sample.env, env);
	nest_schema_release(&schema, &sample, complete);

	complete = NULL;
	ck_assert_int_eq(
		nest_schema_read(&schema, nameless, defaults, &sample, &complete, NULL, &err),
		-EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'name' is missing");
	ck_assert_ptr_null(complete);
}
END_TEST

static const struct {
	const char *text;
	const char *place;
	const char *message;
} refused[] = {
	{ "[]", "", "must be an object, not an array" },
	{ "{\"nam\":\"x\"}", "nam", "unknown key 'nam', did you mean 'name'?" },
	{ "{\"workers\":{\"mix\":1}}", "workers.mix",
		"in 'workers': unknown key 'mix', did you mean 'min'?" },
	{ "{\"workers\":3}", "workers", "'workers' must be an object, not 3" },
	{ "{\"name\":\"X\"}", "name", "'name' must be a lower-case word, not \"X\"" },
	{ "{\"name\":7}", "name", "'name' must be a lower-case word, not 7" },
	{ "{\"name\":\"abcdefghi\"}", "name", "'name' must have 1 to 8 bytes, not 9" },
	{ "{\"network\":\"host\"}", "network",
		"'network' must be one of \"pod\", \"none\", not \"host\"" },
	{ "{\"network\":\"po\"}", "network",
		"'network' must be one of \"pod\", \"none\", not \"po\"" },
	{ "{\"enabled\":1}", "enabled", "'enabled' must be a boolean, not 1" },
	{ "{\"workers\":{\"min\":101}}", "workers.min",
		"'workers.min' must be an integer from 0 to 100, not 101" },
	{ "{\"workers\":{\"min\":-1}}", "workers.min",
		"'workers.min' must be an integer from 0 to 100, not -1" },
	{ "{\"workers\":{\"min\":1.5}}", "workers.min",
		"'workers.min' must be an integer from 0 to 100, not 1.5" },
	{ "{\"workers\":{\"min\":1,\"min\":2}}", "workers.min",
		"in 'workers': 'min' is given twice" },
	{ "{\"workers\":{\"bytes\":1}}", "workers.bytes", "'workers.bytes' can't be given here" },
	{ "{\"memoryMb\":1e999}", "memoryMb",
		"'memoryMb' must be an integer from 16 to 4096, not inf" },
	{ "{\"ratio\":0.001}", "ratio", "'ratio' must be a number from 0.01 to 1, not 0.001" },
	{ "{\"mode\":\"0999\"}", "mode",
		"'mode' must be an octal mode such as \"0660\", not \"0999\"" },
	{ "{\"mode\":\"7777\"}", "mode",
		"'mode' must be an octal mode such as \"0660\", not \"7777\"" },
	{ "{\"paths\":\"a\"}", "paths", "'paths' must be an array of strings, not \"a\"" },
	{ "{\"paths\":[]}", "paths", "'paths' must have 1 to 3 elements, not 0" },
	{ "{\"paths\":[\"a\",{}]}", "paths[1]", "'paths[1]' must be a string, not an object" },
	{ "{\"env\":[]}", "env", "'env' must be an object of strings, not an array" },
	{ "{\"env\":{\"a\":1}}", "env.a", "'env.a' must be a string, not 1" },
	{ "{\"env\":{\"A\":\"1\"}}", "env.A", "'env.A' must be named as lower-case word" },
	{ "{\"env\":{\"a\":\"1\",\"a\":\"2\"}}", "env.a", "'env.a' is given twice" },
	{ "{\"extra\":[]}", "extra", "'extra' must be an object, not an array" },
	{ "{\"functions\":[{},1]}", "functions[1]", "'functions[1]' must be an object, not 1" },
};

START_TEST(what_is_wrong_is_named_with_its_place)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(refused); i++) {
		nest_autojson cJSON *given = parsed(refused[i].text);
		struct nest_schema_place place = { .path = "untouched" };
		struct nest_err err = NEST_ERR_INIT;

		ck_assert_int_eq(
			nest_schema_check(&schema, given, FORBIDDEN, &place, &err), -EINVAL);
		ck_assert_str_eq(nest_err_text(&err), refused[i].message);
		ck_assert_str_eq(place.path, refused[i].place);
		ck_assert_int_eq(nest_schema_check(&schema, given, FORBIDDEN, NULL, NULL), -EINVAL);
	}
}
END_TEST

START_TEST(an_error_is_blamed_on_file_and_line)
{
	const char *text = "// sample\n{\n  \"workers\": {\n    \"min\": 101\n  }\n}\n";
	struct nest_schema_place place = { .path = "workers.min" };
	struct nest_err err = NEST_ERR_INIT;

	nest_err_say(&err, -EINVAL, "too many");
	nest_schema_blame(&err, "/etc/x.conf", text, strlen(text), &place);
	ck_assert_str_eq(nest_err_text(&err), "/etc/x.conf: line 4: too many");
	nest_schema_locate(&place, "none[%d]", 3);
	nest_err_say(&err, -EINVAL, "too few");
	nest_schema_blame(&err, "/etc/x.conf", text, strlen(text), &place);
	ck_assert_str_eq(nest_err_text(&err), "/etc/x.conf: too few");
}
END_TEST

START_TEST(a_key_describes_itself)
{
	static const struct {
		const char *path;
		const char *text;
	} rows[] = {
		{ "name", "lower-case word; required" },
		{ "network", "one of \"pod\", \"none\"; default \"none\"" },
		{ "workers.min", "integer from 0 to 100; default 1" },
		{ "workers.bytes", "integer from 0 to 1099511627776; no default" },
		{ "memoryMb", "integer from 16 to 4096, MiB; default 128" },
		{ "ratio", "number from 0.01 to 1; default 0.5" },
		{ "env", "object of strings; default {}" },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		const struct nest_schema_key *key = nest_schema_find(&schema, rows[i].path);
		struct nest_buf buf = NEST_BUF_INIT;
		nest_autofree char *text = NULL;

		ck_assert_ptr_nonnull(key);
		ck_assert_int_eq(nest_schema_describe(key, &buf), 0);
		text = nest_buf_take_string(&buf);
		ck_assert_str_eq(text, rows[i].text);
	}
	ck_assert_ptr_null(nest_schema_find(&schema, "workers"));
}
END_TEST

START_TEST(a_long_place_is_cut)
{
	char name[500];
	nest_autojson cJSON *given = cJSON_CreateObject();
	struct nest_schema_place place;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	cJSON_AddItemToObject(cJSON_AddObjectToObject(given, "env"), name, cJSON_CreateNumber(1));
	ck_assert_int_eq(nest_schema_check(&schema, given, 0, &place, NULL), -EINVAL);
	ck_assert_uint_eq(strlen(place.path), sizeof(place.path) - 1);
}
END_TEST

NEST_SUITE("base/schema", what_is_left_out_has_its_default, what_is_given_is_stored,
	defaults_fill_all_but_own_keys_and_merge_maps, what_is_wrong_is_named_with_its_place,
	an_error_is_blamed_on_file_and_line, a_key_describes_itself, a_long_place_is_cut)
