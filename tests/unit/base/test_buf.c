/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tests/unit/suite.h"

static void expect(struct nest_buf *buf, const char *text)
{
	ck_assert_uint_eq(buf->len, strlen(text));
	ck_assert_int_eq(memcmp(nest_buf_bytes(buf), text, buf->len), 0);
}

START_TEST(zeroed_storage_is_empty)
{
	struct nest_buf buf = { .data = NULL };

	ck_assert_ptr_null(nest_buf_bytes(&buf));
	nest_buf_consume(&buf, 10);
	nest_buf_clear(&buf, 100);
	ck_assert_int_eq(nest_buf_append(&buf, NULL, 0), 0);
	ck_assert_ptr_null(nest_buf_bytes(&buf));
	nest_buf_done(&buf);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(bytes_come_out_as_they_went_in)
{
	struct nest_buf buf = NEST_BUF_INIT;
	unsigned char next_in = 0, next_out = 0;

	/* more is put in than taken out, in odd steps, so that it grows, moves and wraps often */
	for (unsigned step = 1; step < 2000; step++) {
		size_t n = step % 37, m = step % 31;

		for (size_t i = 0; i < n; i++, next_in++)
			ck_assert_int_eq(nest_buf_append(&buf, &next_in, 1), 0);
		if (m > buf.len)
			m = buf.len;
		for (size_t i = 0; i < m; i++, next_out++)
			ck_assert_uint_eq((unsigned char)nest_buf_bytes(&buf)[i], next_out);
		nest_buf_consume(&buf, m);
		ck_assert_uint_le(buf.start + buf.len, buf.cap);
	}
	ck_assert_uint_eq((unsigned char)nest_buf_bytes(&buf)[0], next_out);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(a_queue_of_bounded_length_keeps_bounded_storage)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char block[100];

	memset(block, 'x', sizeof(block));
	nest_buf_append(&buf, block, sizeof(block));
	for (int i = 0; i < 100000; i++) {
		nest_buf_append(&buf, block, sizeof(block));
		nest_buf_consume(&buf, sizeof(block));
	}
	ck_assert_uint_le(buf.cap, 1024);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(reserve_refuses_what_overflows)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char *room = NULL;

	ck_assert_int_eq(nest_buf_puts(&buf, "abc"), 0);
	ck_assert_int_eq(nest_buf_reserve(&buf, SIZE_MAX, &room), -ENOMEM);
	ck_assert_int_eq(nest_buf_reserve(&buf, SIZE_MAX - 2, &room), -ENOMEM);
	ck_assert_int_eq(nest_buf_reserve(&buf, PTRDIFF_MAX, &room), -ENOMEM);
	ck_assert_ptr_null(room);
	expect(&buf, "abc");
	nest_buf_done(&buf);
}
END_TEST

START_TEST(reserved_room_counts_when_committed)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char *room;

	ck_assert_int_eq(nest_buf_reserve(&buf, 1000, &room), 0);
	ck_assert_uint_eq(buf.len, 0);
	memcpy(room, "hello", 5);
	nest_buf_commit(&buf, 5);
	expect(&buf, "hello");
	ck_assert_int_eq(nest_buf_reserve(&buf, 0, &room), 0);
	ck_assert_ptr_nonnull(room);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(printf_appends_without_nul)
{
	struct nest_buf buf = NEST_BUF_INIT;

	ck_assert_int_eq(nest_buf_puts(&buf, "a="), 0);
	ck_assert_int_eq(nest_buf_printf(&buf, "%d %s", 42, "x"), 0);
	ck_assert_int_eq(nest_buf_printf(&buf, "%*s", 200, "!"), 0);
	ck_assert_uint_eq(buf.len, 2 + 4 + 200);
	ck_assert_int_eq(memcmp(nest_buf_bytes(&buf), "a=42 x   ", 9), 0);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(json_strings_are_escaped)
{
	static const struct {
		const char *in;
		size_t n;
		const char *out;
	} rows[] = {
		{ "", 0, "\"\"" },
		{ "plain", 5, "\"plain\"" },
		{ "a\"b\\c", 5, "\"a\\\"b\\\\c\"" },
		{ "\n\r\t", 3, "\"\\n\\r\\t\"" },
		{ "\0\x1f", 2, "\"\\u0000\\u001f\"" },
		{ "h\xc3\xa9", 3, "\"h\xc3\xa9\"" },
		{ "\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\"" },
		{ "\xff", 1, "\"\xef\xbf\xbd\"" },
		{ "a\xc3", 2, "\"a\xef\xbf\xbd\"" },
		{ "\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct nest_buf buf = NEST_BUF_INIT;

		ck_assert_int_eq(nest_buf_json_string(&buf, rows[i].in, rows[i].n), 0);
		expect(&buf, rows[i].out);
		nest_buf_done(&buf);
	}
}
END_TEST

START_TEST(clear_gives_storage_back)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char *room;

	ck_assert_int_eq(nest_buf_reserve(&buf, 100000, &room), 0);
	nest_buf_commit(&buf, 100000);
	nest_buf_clear(&buf, 4096);
	ck_assert_uint_eq(buf.len, 0);
	ck_assert_uint_le(buf.cap, 4096);
	ck_assert_int_eq(nest_buf_puts(&buf, "x"), 0);
	nest_buf_clear(&buf, 0);
	ck_assert_uint_eq(buf.cap, 0);
	ck_assert_ptr_null(nest_buf_bytes(&buf));
}
END_TEST

START_TEST(take_string_gives_the_bytes_away)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char *text;

	ck_assert_int_eq(nest_buf_puts(&buf, "hello world"), 0);
	nest_buf_consume(&buf, 6);
	text = nest_buf_take_string(&buf);
	ck_assert_str_eq(text, "world");
	ck_assert_ptr_null(buf.data);
	free(text);
	text = nest_buf_take_string(&buf);
	ck_assert_str_eq(text, "");
	free(text);
}
END_TEST

NEST_SUITE("base/buf", zeroed_storage_is_empty, bytes_come_out_as_they_went_in,
	a_queue_of_bounded_length_keeps_bounded_storage, reserve_refuses_what_overflows,
	reserved_room_counts_when_committed, printf_appends_without_nul, json_strings_are_escaped,
	clear_gives_storage_back, take_string_gives_the_bytes_away)
