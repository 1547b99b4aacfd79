/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/jsonc.h"
#include "tests/unit/suite.h"

static void expect_refused(const char *text, const char *message)
{
	struct nest_err err = NEST_ERR_INIT;
	cJSON *root = NULL;

	ck_assert_int_eq(nest_jsonc_parse(text, strlen(text), &root, &err), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), message);
	ck_assert_ptr_null(root);
}

START_TEST(comments_are_blanks)
{
	const char *text = "// head\n"
			   "{ /* a */ \"a\": 1, // it's\n"
			   "  \"b\" /* \"c\": 5, \n // */ : [1,/**/2 /***/],\n"
			   "  \"url\": \"http://x/*y*/\", \"q\": \"\\\"//\"\n"
			   "} // end";
	nest_autojson cJSON *root = NULL;
	const char *s;

	ck_assert_int_eq(nest_jsonc_parse(text, strlen(text), &root, NULL), 0);
	ck_assert_int_eq(cJSON_GetArraySize(root), 4);
	ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(root, "b")), 2);
	ck_assert_int_eq(nest_json_get_string(root, "url", &s, NULL), 0);
	ck_assert_str_eq(s, "http://x/*y*/");
	ck_assert_int_eq(nest_json_get_string(root, "q", &s, NULL), 0);
	ck_assert_str_eq(s, "\"//");
}
END_TEST

START_TEST(errors_keep_their_place)
{
	expect_refused("{ /* one\n two */ \"a\": nope }", "line 2, column 14: not valid JSON");
	expect_refused("// x\n{\n/* y */ \"a\" 1 }", "line 3, column 13: not valid JSON");
	expect_refused("{}\n\n  /* and so on", "line 3: a comment that does not end");
	expect_refused("{}\n/*/", "line 2: a comment that does not end");
	expect_refused("// only this", "line 1, column 1: no JSON value, only white space");
	expect_refused("{\"a\": 1 / 2}", "line 1, column 9: not valid JSON");
	expect_refused("{\"a\": \"//}", "line 1, column 8: not valid JSON");
}
END_TEST

static const char config[] = "// config\n"			       /* 1 */
			     "{\n"				       /* 2 */
			     "  \"listen\": \"/run\",\n"	       /* 3 */
			     "  \"functions\": [\n"		       /* 4 */
			     "    { \"name\": \"a\" },\n"	       /* 5 */
			     "    /* ] } */ {\n"		       /* 6 */
			     "      \"name\": \"]}\\\"\",\n"	       /* 7 */
			     "      \"env\": { \"A.B\": \"1\",\n"      /* 8 */
			     "        \"A\": { \"C\":\n"	       /* 9 */
			     "          2 } }\n"		       /* 10 */
			     "    },\n"				       /* 11 */
			     "    [[1, 2],\n"			       /* 12 */
			     "     [3, { \"deep\\u0065r\": null }]]\n" /* 13 */
			     "  ]\n"
			     "}\n";

START_TEST(a_path_has_its_line)
{
	static const struct {
		const char *path;
		unsigned line;
	} rows[] = {
		{ "", 2 },
		{ "listen", 3 },
		{ "functions", 4 },
		{ "functions[0]", 5 },
		{ "functions[0].name", 5 },
		{ "functions[1]", 6 },
		{ "functions[1].name", 7 },
		{ "functions[1].env.A.B", 8 },
		{ "functions[1].env.A", 9 },
		{ "functions[1].env.A.C", 10 },
		{ "functions[2][0][1]", 12 },
		{ "functions[2][1][1].deeper", 13 },
		{ "functions[3]", 0 },
		{ "functions[1].names", 0 },
		{ "functions[1].nam", 0 },
		{ "functions.name", 0 },
		{ "listen.x", 0 },
		{ "listen[0]", 0 },
		{ "functions[", 0 },
		{ "functions[]", 0 },
		{ "functions[-1]", 0 },
		{ "functions[0", 0 },
		{ "functions[99999999999999999999]", 0 },
		{ "listen.", 0 },
		{ ".listen", 0 },
	};
	cJSON *root = NULL;

	ck_assert_int_eq(nest_jsonc_parse(config, strlen(config), &root, NULL), 0);
	cJSON_Delete(root);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(
			nest_jsonc_line_of(config, strlen(config), rows[i].path) == rows[i].line,
			"'%s' is not on line %u", rows[i].path, rows[i].line);
}
END_TEST

START_TEST(any_text_is_walked_safely)
{
	size_t n = strlen(config);

	/* every beginning and every end of a text, in storage of just its size */
	for (size_t from = 0; from < n; from++) {
		char *tail = malloc(n - from);
		char *head = malloc(n - from);

		memcpy(tail, config + from, n - from);
		memcpy(head, config, n - from);
		nest_jsonc_line_of(tail, n - from, "functions[1].env.A.C");
		nest_jsonc_line_of(head, n - from, "functions[2][1][1].deeper");
		free(tail);
		free(head);
	}
	ck_assert_uint_eq(nest_jsonc_line_of("", 0, ""), 0);
	ck_assert_uint_eq(nest_jsonc_line_of("{\"a\"", 4, "a"), 0);
}
END_TEST

NEST_SUITE("base/jsonc", comments_are_blanks, errors_keep_their_place, a_path_has_its_line,
	any_text_is_walked_safely)
