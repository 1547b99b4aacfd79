/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "runtime/uids.h"
#include "tests/unit/suite.h"

static uid_t take(struct nest_uids *uids, const char *name)
{
	struct nest_err err = NEST_ERR_INIT;
	uid_t uid = 0;

	ck_assert_int_eq(nest_uids_take(uids, name, &uid, &err), 0);
	return uid;
}

START_TEST(each_is_taken_once_until_there_are_none)
{
	struct nest_err err = NEST_ERR_INIT;
	bool seen[3] = { false };
	struct nest_uids *uids;
	uid_t uid;

	ck_assert_int_eq(nest_uids_new(1000, 3, &uids), 0);
	for (int i = 0; i < 3; i++) {
		uid = take(uids, "same");
		ck_assert_uint_ge(uid, 1000);
		ck_assert_uint_lt(uid, 1003);
		ck_assert(!seen[uid - 1000]);
		seen[uid - 1000] = true;
	}
	ck_assert_int_eq(nest_uids_take(uids, "more", &uid, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "all 3 uids"));
	nest_uids_give(uids, 1001);
	ck_assert_uint_eq(take(uids, "more"), 1001);
	nest_uids_free(uids);
}
END_TEST

START_TEST(a_name_has_the_same_one_on_every_host)
{
	struct nest_uids *uids, *others;

	ck_assert_int_eq(nest_uids_new(1000, 4000, &uids), 0);
	ck_assert_int_eq(nest_uids_new(1000, 4000, &others), 0);
	take(others, "resize");
	ck_assert_uint_eq(take(uids, "thumbnail"), take(others, "thumbnail"));
	ck_assert_uint_ne(take(uids, "invoice"), take(others, "thumbnail"));
	nest_uids_free(uids);
	nest_uids_free(others);
}
END_TEST

NEST_SUITE("runtime/uids", each_is_taken_once_until_there_are_none,
	a_name_has_the_same_one_on_every_host)
