/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "tests/unit/suite.h"

static cJSON *parsed(const char *text)
{
	struct nest_err err = NEST_ERR_INIT;
	cJSON *root = NULL;

	ck_assert_msg(nest_json_parse(text, strlen(text), &root, &err) == 0, "%s: %s", text,
		nest_err_text(&err));
	return root;
}

static void expect_refused(const char *text, size_t n, const char *message)
{
	struct nest_err err = NEST_ERR_INIT;
	cJSON *root = NULL;

	ck_assert_int_eq(nest_json_parse(text, n, &root, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), message);
	ck_assert_ptr_null(root);
}

START_TEST(values_are_read_by_type)
{
	nest_autojson cJSON *obj =
		parsed("{\"s\":\"x\",\"i\":-7,\"n\":1.5,\"b\":true,\"o\":{},\"a\":[1]}");
	const char *s = NULL;
	const cJSON *o = NULL, *a = NULL;
	int64_t i = 0;
	double n = 0;
	bool b = false;

	ck_assert_int_eq(nest_json_get_string(obj, "s", &s, NULL), 0);
	ck_assert_str_eq(s, "x");
	ck_assert_int_eq(nest_json_get_int(obj, "i", -7, 0, &i, NULL), 0);
	ck_assert_int_eq(i, -7);
	ck_assert_int_eq(nest_json_get_number(obj, "n", 0, 2, &n, NULL), 0);
	ck_assert_double_eq(n, 1.5);
	ck_assert_int_eq(nest_json_get_bool(obj, "b", &b, NULL), 0);
	ck_assert(b);
	ck_assert_int_eq(nest_json_get_object(obj, "o", &o, NULL), 0);
	ck_assert(cJSON_IsObject(o));
	ck_assert_int_eq(nest_json_get_array(obj, "a", &a, NULL), 0);
	ck_assert_int_eq(cJSON_GetArraySize(a), 1);
}
END_TEST

START_TEST(absent_and_null_leave_the_result)
{
	nest_autojson cJSON *obj = parsed("{\"s\":null,\"S\":\"other case\"}");
	const char *s = "kept";
	const cJSON *o = obj;
	int64_t i = 5;
	double n = 5;
	bool b = true;

	ck_assert_int_eq(nest_json_get_string(obj, "s", &s, NULL), 1);
	ck_assert_int_eq(nest_json_get_string(obj, "x", &s, NULL), 1);
	ck_assert_int_eq(nest_json_get_string(NULL, "x", &s, NULL), 1);
	ck_assert_int_eq(nest_json_get_int(obj, "s", 0, 1, &i, NULL), 1);
	ck_assert_int_eq(nest_json_get_number(obj, "s", 0, 1, &n, NULL), 1);
	ck_assert_int_eq(nest_json_get_bool(obj, "s", &b, NULL), 1);
	ck_assert_int_eq(nest_json_get_object(obj, "s", &o, NULL), 1);
	ck_assert_int_eq(nest_json_get_array(obj, "s", &o, NULL), 1);
	ck_assert_str_eq(s, "kept");
	ck_assert_int_eq(i, 5);
	ck_assert_double_eq(n, 5);
	ck_assert(b);
	ck_assert_ptr_eq(o, obj);
}
END_TEST

START_TEST(a_wrong_type_names_key_and_both_types)
{
	nest_autojson cJSON *obj = parsed("{\"k\":\"x\",\"n\":1}");
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *o;
	const char *s;
	double n;
	bool b;

	ck_assert_int_eq(nest_json_get_string(obj, "n", &s, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'n' must be a string, not a number");
	ck_assert_int_eq(nest_json_get_number(obj, "k", 0, 2.5, &n, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'k' must be a number from 0 to 2.5, not a string");
	ck_assert_int_eq(nest_json_get_bool(obj, "k", &b, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'k' must be true or false, not a string");
	ck_assert_int_eq(nest_json_get_object(obj, "k", &o, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'k' must be an object, not a string");
	ck_assert_int_eq(nest_json_get_array(obj, "k", &o, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'k' must be an array, not a string");
}
END_TEST

START_TEST(integers_are_whole_and_within_bounds)
{
	static const struct {
		const char *value;
		int64_t min, max;
		const char *message; /* NULL: accepted */
	} rows[] = {
		{ "1", 1, 900000, NULL },
		{ "900000", 1, 900000, NULL },
		{ "1e3", 1, 900000, NULL },
		{ "0", 1, 900000, "'t' must be an integer from 1 to 900000, not 0" },
		{ "900001", 1, 900000, "'t' must be an integer from 1 to 900000, not 900001" },
		{ "1.5", 1, 900000, "'t' must be an integer from 1 to 900000, not 1.5" },
		{ "\"5\"", 1, 900000, "'t' must be an integer from 1 to 900000, not a string" },
		{ "true", 1, 9, "'t' must be an integer from 1 to 9, not a boolean" },
		{ "-1", 0, INT64_MAX, "'t' must be an integer of at least 0, not -1" },
		{ "1e300", INT64_MIN, INT64_MAX, "'t' must be an integer, not 1e+300" },
		{ "-1e999", INT64_MIN, INT64_MAX, "'t' must be an integer, not -inf" },
		{ "9223372036854775808", INT64_MIN, INT64_MAX,
			"'t' must be an integer, not 9.22337203685478e+18" },
		{ "-9223372036854775808", INT64_MIN, INT64_MAX, NULL },
		{ "9007199254740993", 0, INT64_MAX, NULL },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		struct nest_err err = NEST_ERR_INIT;
		nest_autojson cJSON *obj = NULL;
		char text[64];
		int64_t value = 42;
		int rc;

		snprintf(text, sizeof(text), "{\"t\":%s}", rows[i].value);
		obj = parsed(text);
		rc = nest_json_get_int(obj, "t", rows[i].min, rows[i].max, &value, &err);
		ck_assert_int_eq(rc, rows[i].message ? -EINVAL : 0);
		if (rows[i].message) {
			ck_assert_str_eq(nest_err_text(&err), rows[i].message);
			ck_assert_int_eq(value, 42);
		}
	}
}
END_TEST

START_TEST(numbers_are_within_bounds)
{
	nest_autojson cJSON *obj = parsed("{\"n\":2.6,\"huge\":1e999}");
	struct nest_err err = NEST_ERR_INIT;
	double n;

	ck_assert_int_eq(nest_json_get_number(obj, "n", 0, 2.5, &n, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "'n' must be a number from 0 to 2.5, not 2.6");
	ck_assert_int_eq(nest_json_get_number(obj, "huge", 0, 1e300, &n, &err), -EINVAL);
}
END_TEST

START_TEST(every_type_has_a_name)
{
	nest_autojson cJSON *list = parsed("[{},[],\"\",0,true,false,null]");
	static const char *const names[] = { "an object", "an array", "a string", "a number",
		"a boolean", "a boolean", "null" };

	for (int i = 0; i < 7; i++)
		ck_assert_str_eq(nest_json_type_name(cJSON_GetArrayItem(list, i)), names[i]);
	ck_assert_str_eq(nest_json_type_name(NULL), "nothing");
}
END_TEST

static void expect_unknown(const char *text, const char *const *known, const char *message)
{
	nest_autojson cJSON *obj = parsed(text);
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_json_refuse_unknown(obj, known, &err), message ? -EINVAL : 0);
	if (message)
		ck_assert_str_eq(nest_err_text(&err), message);
}

START_TEST(unknown_keys_get_a_hint)
{
	static const char *const known[] = { "timeoutMs", "memoryMb", "name", NULL };
	static const char *const none[] = { NULL };

	expect_unknown("{}", known, NULL);
	expect_unknown("{\"name\":1,\"memoryMb\":2}", known, NULL);
	expect_unknown(
		"{\"memoryMB\":1}", known, "unknown key 'memoryMB', did you mean 'memoryMb'?");
	expect_unknown(
		"{\"timeout\":1}", known, "unknown key 'timeout', did you mean 'timeoutMs'?");
	expect_unknown("{\"nmae\":1}", known, "unknown key 'nmae', did you mean 'name'?");
	expect_unknown("{\"colour\":1}", known,
		"unknown key 'colour', known are 'timeoutMs', 'memoryMb', 'name'");
	expect_unknown("{\"x\":1}", none, "unknown key 'x'");
	expect_unknown("{\"name\":1,\"name\":2}", known, "'name' is given twice");
}
END_TEST

START_TEST(an_endless_unknown_key_is_cut)
{
	static const char *const known[] = { "name", NULL };
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;
	nest_autojson cJSON *obj = NULL;

	nest_buf_printf(&buf, "{\"%0100000d\":1}", 7);
	ck_assert_int_eq(nest_json_parse(nest_buf_bytes(&buf), buf.len, &obj, &err), 0);
	ck_assert_int_eq(nest_json_refuse_unknown(obj, known, &err), -EINVAL);
	ck_assert_uint_lt(strlen(nest_err_text(&err)), 120);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(a_parse_error_names_line_and_column)
{
	expect_refused("", 0, "line 1, column 1: no JSON value, only white space");
	expect_refused(" \n\t ", 4, "line 1, column 1: no JSON value, only white space");
	expect_refused("{\n  \"a\": nope\n}", 15, "line 2, column 8: not valid JSON");
	expect_refused("{\"h\xc3\xa9\": nope}", 13, "line 1, column 8: not valid JSON");
	expect_refused("{\"a\": 1", 7, "line 1, column 7: the JSON value ends too early");
	expect_refused("{} {}", 5, "line 1, column 4: more than one JSON value");
	expect_refused("1\n]\n", 4, "line 2, column 1: more than one JSON value");
}
END_TEST

START_TEST(bytes_that_hide_something_are_refused)
{
	expect_refused("\"\xff\"", 3, "line 1, column 2: not UTF-8");
	expect_refused("{}\0{}", 5, "line 1, column 3: a NUL byte");
	expect_refused("\"a\\u0000b\"", 10, "line 1, column 3: a string must not hold \\u0000");
	cJSON_Delete(parsed("\"a\\\\u0000b\""));
	cJSON_Delete(parsed("\"\\\"\\u0001\""));
}
END_TEST

START_TEST(nesting_is_bounded)
{
	nest_autofree char *text = malloc(2 * 100000 + 1);
	struct nest_err err = NEST_ERR_INIT;
	cJSON *root = NULL;

	memset(text, '[', 100000);
	memset(text + 100000, ']', 100000);
	ck_assert_int_eq(nest_json_parse(text, 200000, &root, &err), -EINVAL);
	ck_assert_int_eq(nest_json_parse(text + 100000 - 900, 1800, &root, &err), 0);
	cJSON_Delete(root);
}
END_TEST

START_TEST(the_text_needs_no_nul_behind_it)
{
	nest_autofree char *text = malloc(4);
	nest_autojson cJSON *root = NULL;

	memcpy(text, "1234", 4); /* a reader beyond the end would be seen by the sanitizer */
	ck_assert_int_eq(nest_json_parse(text, 4, &root, NULL), 0);
	ck_assert_double_eq(root->valuedouble, 1234);
}
END_TEST

NEST_SUITE("base/json", values_are_read_by_type, absent_and_null_leave_the_result,
	a_wrong_type_names_key_and_both_types, integers_are_whole_and_within_bounds,
	numbers_are_within_bounds, every_type_has_a_name, unknown_keys_get_a_hint,
	an_endless_unknown_key_is_cut, a_parse_error_names_line_and_column,
	bytes_that_hide_something_are_refused, nesting_is_bounded, the_text_needs_no_nul_behind_it)
