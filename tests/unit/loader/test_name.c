/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/name.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "tests/unit/suite.h"

START_TEST(names_are_cleaned)
{
	static const char *const cases[][2] = {
		{ "a", "a" },
		{ "./a", "a" },
		{ "a//b/./c/", "a/b/c" },
		{ ".", "" },
		{ "./", "" },
		{ "..a/b..", "..a/b.." },
		{ "...", "..." },
		{ "a\xff\n\xc3", "a\xff\n\xc3" },
	};
	char clean[NEST_NAME_CAP];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++) {
		ck_assert_int_eq(nest_name_clean(cases[i][0], clean, NULL), 0);
		ck_assert_str_eq(clean, cases[i][1]);
	}
}
END_TEST

START_TEST(names_that_lead_out_are_refused)
{
	static const char *const cases[] = { "", "/", "/etc/passwd", "//x", "..", "../x", "a/..",
		"a/../b", "a/b/../../../x", "./../x", "a/.././b" };
	char clean[NEST_NAME_CAP];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++) {
		struct nest_err err = NEST_ERR_INIT;

		ck_assert_msg(nest_name_clean(cases[i], clean, &err) == -EINVAL, "%s", cases[i]);
		ck_assert(strstr(err.text, "entry"));
	}
}
END_TEST

START_TEST(names_of_4095_bytes_fit)
{
	char clean[NEST_NAME_CAP];
	char name[NEST_NAME_CAP + 2];

	memset(name, 'a', sizeof(name));
	name[NEST_NAME_CAP - 1] = '\0';
	ck_assert_int_eq(nest_name_clean(name, clean, NULL), 0);
	ck_assert_str_eq(clean, name);
	name[NEST_NAME_CAP - 1] = 'a';
	name[NEST_NAME_CAP] = '\0';
	ck_assert_int_eq(nest_name_clean(name, clean, NULL), -ENAMETOOLONG);
}
END_TEST

START_TEST(link_targets_stay_inside)
{
	static const struct {
		const char *name;
		const char *target;
		int rc;
	} cases[] = {
		{ "a", "b", 0 },
		{ "a", ".", 0 },
		{ "a", "./b/c/", 0 },
		{ "d/a", "..", 0 },
		{ "d/a", "../b", 0 },
		{ "d/e/a", "../../b", 0 },
		{ "d/e/a", ".././../b", 0 },
		{ "a", "..b", 0 },
		{ "a", "", -EINVAL },
		{ "a", "/", -EINVAL },
		{ "a", "/etc/passwd", -EINVAL },
		{ "a", "..", -EINVAL },
		{ "a", "../x", -EINVAL },
		{ "d/a", "../../x", -EINVAL },
		{ "d/e/f/x", "a/..", -EINVAL },
		{ "d/a", "../b/../../x", -EINVAL },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++)
		ck_assert_msg(
			nest_name_check_target(cases[i].name, cases[i].target, NULL) == cases[i].rc,
			"%s -> %s", cases[i].name, cases[i].target);
}
END_TEST

START_TEST(quoted_names_are_printable_and_bounded)
{
	char quoted[NEST_NAME_QUOTED_CAP];
	char longest[NEST_NAME_CAP];

	ck_assert_str_eq(nest_name_quote("a b", quoted), "'a b'");
	ck_assert_str_eq(nest_name_quote("a\n\x1b\xff", quoted), "'a\\x0a\\x1b\\xff'");
	ck_assert_str_eq(nest_name_quote("", quoted), "''");
	memset(longest, '\x01', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_uint_lt(strlen(nest_name_quote(longest, quoted)), NEST_NAME_QUOTED_CAP);
	for (size_t n = 1; n < 120; n++) {
		longest[n] = '\0';
		ck_assert_uint_lt(strlen(nest_name_quote(longest, quoted)), NEST_NAME_QUOTED_CAP);
		longest[n] = '\x01';
	}
}
END_TEST

NEST_SUITE("loader/name", names_are_cleaned, names_that_lead_out_are_refused,
	names_of_4095_bytes_fit, link_targets_stay_inside, quoted_names_are_printable_and_bounded)
