/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "runtime/uids.h"
#include "tests/unit/suite.h"

START_TEST(each_is_taken_once_and_a_returned_one_comes_last)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_uids *uids;
	uid_t uid;

	ck_assert_int_eq(nest_uids_new(1000, 3, &uids), 0);
	for (uid_t i = 0; i < 3; i++) {
		ck_assert_int_eq(nest_uids_take(uids, &uid, &err), 0);
		ck_assert_uint_eq(uid, 1000 + i);
		if (i == 1)
			nest_uids_give(uids, 1000); /* not taken again while 1002 was free longer */
	}
	ck_assert_int_eq(nest_uids_take(uids, &uid, &err), 0);
	ck_assert_uint_eq(uid, 1000);
	ck_assert_int_eq(nest_uids_take(uids, &uid, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "all 3 uids"));
	nest_uids_free(uids);
}
END_TEST

NEST_SUITE("runtime/uids", each_is_taken_once_and_a_returned_one_comes_last)
