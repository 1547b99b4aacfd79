/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/suite.h"

START_TEST(set_adds_the_words_of_errno)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_err_set(&err, -ENOENT, "open '%s'", "/run/x"), -ENOENT);
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_str_eq(nest_err_text(&err), "open '/run/x': No such file or directory");
}
END_TEST

START_TEST(say_adds_nothing)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_err_say(&err, -EINVAL, "no such key"), -EINVAL);
	ck_assert_str_eq(nest_err_text(&err), "no such key");
}
END_TEST

START_TEST(wrap_puts_words_in_front)
{
	struct nest_err err = NEST_ERR_INIT;

	nest_err_say(&err, -ENOSPC, "no space left");
	ck_assert_int_eq(nest_err_wrap(&err, "unpack layer %d", 3), -ENOSPC);
	ck_assert_int_eq(nest_err_wrap(&err, "load function '%s'", "a"), -ENOSPC);
	ck_assert_str_eq(nest_err_text(&err), "load function 'a': unpack layer 3: no space left");
}
END_TEST

START_TEST(wrap_of_nothing_is_still_a_failure)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_err_wrap(NULL, "x"), -EIO);
	ck_assert_int_eq(nest_err_wrap(&err, "x"), -EIO);
	ck_assert_str_eq(nest_err_text(&err), "x: unknown error");
}
END_TEST

START_TEST(a_lost_errno_does_not_become_success)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_err_set(&err, 0, "read"), -EIO);
	ck_assert_int_eq(nest_err_say(NULL, 0, "read"), -EIO);
	ck_assert_int_eq(err.code, -EIO);
}
END_TEST

START_TEST(the_code_alone_has_a_text)
{
	struct nest_err err = { .code = -EPERM };

	ck_assert_str_eq(nest_err_text(&err), "Operation not permitted");
	ck_assert_str_eq(nest_err_text(NULL), "unknown error");
	err.code = -100000;
	ck_assert_str_eq(nest_err_text(&err), "unknown error");
}
END_TEST

START_TEST(a_long_text_loses_its_end)
{
	struct nest_err err = NEST_ERR_INIT;
	char name[2 * sizeof(err.text)];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	nest_err_set(&err, -EIO, "open '%s'", name);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_int_eq(strncmp(err.text, "open 'xxx", 9), 0);
	nest_err_wrap(&err, "load 'a'");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_int_eq(strncmp(err.text, "load 'a': open 'xxx", 19), 0);
}
END_TEST

START_TEST(its_own_text_may_be_an_argument)
{
	struct nest_err err = NEST_ERR_INIT;

	nest_err_say(&err, -EIO, "inner");
	nest_err_say(&err, -EIO, "outer (%s)", nest_err_text(&err));
	ck_assert_str_eq(nest_err_text(&err), "outer (inner)");
}
END_TEST

START_TEST(an_error_fits_one_atomic_pipe_write)
{
	ck_assert_uint_le(sizeof(struct nest_err), PIPE_BUF);
}
END_TEST

NEST_SUITE("base/err", set_adds_the_words_of_errno, say_adds_nothing, wrap_puts_words_in_front,
	wrap_of_nothing_is_still_a_failure, a_lost_errno_does_not_become_success,
	the_code_alone_has_a_text, a_long_text_loses_its_end, its_own_text_may_be_an_argument,
	an_error_fits_one_atomic_pipe_write)
