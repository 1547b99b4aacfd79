/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/utf8.h"
#include "tests/unit/suite.h"

START_TEST(well_formed_characters_have_a_length)
{
	ck_assert_uint_eq(nest_utf8_char("", 0), 0);
	ck_assert_uint_eq(nest_utf8_char("", 1), 1);
	ck_assert_uint_eq(nest_utf8_char("a", 1), 1);
	ck_assert_uint_eq(nest_utf8_char("\x7f", 1), 1);
	ck_assert_uint_eq(nest_utf8_char("\xc2\x80", 2), 2);
	ck_assert_uint_eq(nest_utf8_char("\xdf\xbf", 2), 2);
	ck_assert_uint_eq(nest_utf8_char("\xe0\xa0\x80", 3), 3);
	ck_assert_uint_eq(nest_utf8_char("\xed\x9f\xbf", 3), 3);
	ck_assert_uint_eq(nest_utf8_char("\xef\xbf\xbf", 3), 3);
	ck_assert_uint_eq(nest_utf8_char("\xf0\x90\x80\x80", 4), 4);
	ck_assert_uint_eq(nest_utf8_char("\xf4\x8f\xbf\xbf", 4), 4);
}
END_TEST

START_TEST(ill_formed_bytes_have_none)
{
	static const char *const bad[] = {
		"\x80",		    /* continuation without a lead */
		"\xc0\x80",	    /* overlong */
		"\xc1\xbf",	    /* overlong */
		"\xc2",		    /* cut */
		"\xc2\x41",	    /* broken off */
		"\xe0\x9f\xbf",	    /* overlong */
		"\xed\xa0\x80",	    /* surrogate */
		"\xe1\x80",	    /* cut */
		"\xe1\x80\x41",	    /* broken off */
		"\xf0\x8f\xbf\xbf", /* overlong */
		"\xf4\x90\x80\x80", /* above U+10FFFF */
		"\xf1\x80\x80",	    /* cut */
		"\xf5\x80\x80\x80", /* no such lead */
		"\xff",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(nest_utf8_char(bad[i], strlen(bad[i])) == 0, "row %zu", i);
}
END_TEST

START_TEST(a_cut_never_splits_a_character)
{
	const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
	static const size_t kept[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };

	for (size_t n = 0; n < sizeof(text); n++)
		ck_assert_uint_eq(nest_utf8_cut(text, n), kept[n]);
}
END_TEST

START_TEST(a_cut_keeps_bytes_that_are_no_utf8_anyway)
{
	ck_assert_uint_eq(nest_utf8_cut("\x80\x80\x80\x80\x80", 5), 5);
	ck_assert_uint_eq(nest_utf8_cut("a\x80", 2), 2);
}
END_TEST

NEST_SUITE("base/utf8", well_formed_characters_have_a_length, ill_formed_bytes_have_none,
	a_cut_never_splits_a_character, a_cut_keeps_bytes_that_are_no_utf8_anyway)
