/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/funclog.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "tests/unit/suite.h"

enum {
	LINE_BYTES = 64
};

static char dir[] = "/tmp/nest-funclog-XXXXXX";
static uv_loop_t loop;
static struct nest_funclog_store *store;
static struct nest_funclog *flog;
static const struct nest_funclog_origin out = { .version = "1", .worker = 7, .stream = 1 };

static struct nest_buf seen;
static unsigned seen_lines;
static bool seen_done;

static void on_line(void *arg, const char *json, size_t n)
{
	cJSON *parsed = cJSON_ParseWithLength(json, n);
	const cJSON *message = cJSON_GetObjectItem(parsed, "message");

	(void)arg;
	ck_assert_msg(cJSON_IsString(message), "no JSON line: %.*s", (int)n, json);
	nest_buf_puts(&seen, message->valuestring);
	nest_buf_puts(&seen, "\n");
	seen_lines++;
	cJSON_Delete(parsed);
}

static void on_done(void *arg)
{
	(void)arg;
	seen_done = true;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void setup_limit(uint64_t max_bytes)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(nest_funclog_store_open(&loop, dir, LINE_BYTES, &store, &err), 0);
	ck_assert_int_eq(nest_funclog_get(store, "f", max_bytes, &flog, &err), 0);
}

static void finish(void)
{
	struct nest_err err = NEST_ERR_INIT;
	bool closed = false;

	nest_funclog_put(flog);
	nest_funclog_store_close(store, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(closed);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, &err), 0);
	nest_buf_done(&seen);
}

static void read_all(uint32_t tail)
{
	struct nest_funclog_reader *reader;
	struct nest_err err = NEST_ERR_INIT;

	nest_buf_clear(&seen, 4096);
	seen_lines = 0;
	seen_done = false;
	ck_assert_int_eq(
		nest_funclog_reader_open(flog, tail, false, on_line, on_done, NULL, &reader, &err),
		0);
	while (!seen_done)
		uv_run(&loop, UV_RUN_ONCE);
	nest_buf_append(&seen, "", 1);
}

START_TEST(test_lines_are_split_kept_and_read_back_in_order)
{
	setup_limit(1 << 20);
	nest_funclog_write(flog, &out, "one\ntwo\n", 8);
	nest_funclog_write(flog, &out, "three", 5);
	read_all(100);
	ck_assert_str_eq(nest_buf_bytes(&seen), "one\ntwo\nthree\n");
	uv_run(&loop, UV_RUN_DEFAULT); /* now from the disk */
	read_all(2);
	ck_assert_str_eq(nest_buf_bytes(&seen), "two\nthree\n");
	read_all(0);
	ck_assert_str_eq(nest_buf_bytes(&seen), "");
	finish();
}
END_TEST

START_TEST(test_a_line_that_arrives_in_pieces_is_one_line)
{
	struct nest_funclog_pipe pipe = { .carry = NULL };

	setup_limit(1 << 20);
	nest_funclog_feed(flog, &pipe, &out, "ab", 2);
	nest_funclog_feed(flog, &pipe, &out, "c\nde", 4);
	nest_funclog_feed(flog, &pipe, &out, "f\n\nlast", 7);
	nest_funclog_pipe_done(flog, &pipe, &out);
	read_all(100);
	ck_assert_str_eq(nest_buf_bytes(&seen), "abc\ndef\n\nlast\n");
	finish();
}
END_TEST

START_TEST(test_a_line_too_long_is_cut_and_says_by_how_much)
{
	struct nest_funclog_pipe pipe = { .carry = NULL };
	char piece[1000];

	setup_limit(1 << 20);
	memset(piece, 'x', sizeof(piece));
	for (int i = 0; i < 1000; i++)
		nest_funclog_feed(flog, &pipe, &out, piece, sizeof(piece));
	nest_funclog_feed(flog, &pipe, &out, "\nnext\n", 6);
	nest_funclog_pipe_done(flog, &pipe, &out);
	read_all(100);
	ck_assert_uint_eq(seen_lines, 3);
	ck_assert_ptr_nonnull(strstr(nest_buf_bytes(&seen), "it was 999936 bytes longer"));
	ck_assert_ptr_nonnull(strstr(nest_buf_bytes(&seen), "\nnext\n"));
	ck_assert_uint_eq(nest_funclog_dropped_bytes(flog), 1000 * 1000 - LINE_BYTES);
	finish();
}
END_TEST

static uint64_t disk_bytes(void)
{
	char path[128];
	struct stat st;
	uint64_t sum = 0;

	snprintf(path, sizeof(path), "%s/f.log", dir);
	if (stat(path, &st) == 0)
		sum += (uint64_t)st.st_size;
	snprintf(path, sizeof(path), "%s/f.log.1", dir);
	if (stat(path, &st) == 0)
		sum += (uint64_t)st.st_size;
	return sum;
}

START_TEST(test_the_disk_limit_holds_and_the_newest_lines_survive)
{
	char text[64];

	setup_limit(16 << 10);
	for (int i = 0; i < 2000; i++) {
		int n = snprintf(text, sizeof(text), "line %d", i);

		nest_funclog_write(flog, &out, text, (size_t)n);
		uv_run(&loop, UV_RUN_DEFAULT);
		ck_assert_uint_le(disk_bytes(), (16 << 10) + 512);
	}
	read_all(1);
	ck_assert_str_eq(nest_buf_bytes(&seen), "line 1999\n");
	finish();
}
END_TEST

START_TEST(test_a_flood_is_dropped_counted_and_told)
{
	char text[64];

	memset(text, 'y', sizeof(text));
	setup_limit(16 << 10);
	for (int i = 0; i < 100000; i++)
		nest_funclog_write(flog, &out, text, sizeof(text));
	ck_assert_uint_gt(nest_funclog_dropped_bytes(flog), 5u << 20);
	uv_run(&loop, UV_RUN_DEFAULT);
	do { /* the next second's budget */
		uv_sleep(10);
		uv_update_time(&loop);
		nest_funclog_write(flog, &out, "after", 5);
		read_all(2);
	} while (!strstr(nest_buf_bytes(&seen), "after"));
	ck_assert_ptr_nonnull(strstr(nest_buf_bytes(&seen), "bytes of log lost"));
	finish();
}
END_TEST

START_TEST(test_a_follower_gets_old_and_new_lines_once)
{
	struct nest_funclog_reader *reader;
	struct nest_err err = NEST_ERR_INIT;

	setup_limit(1 << 20);
	nest_funclog_write(flog, &out, "old", 3);
	ck_assert_int_eq(
		nest_funclog_reader_open(flog, 10, true, on_line, on_done, NULL, &reader, &err), 0);
	nest_funclog_write(flog, &out, "new", 3);
	uv_run(&loop, UV_RUN_DEFAULT);
	nest_funclog_reader_pause(reader, true);
	nest_funclog_write(flog, &out, "while paused", 12);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(seen_lines, 2);
	nest_funclog_reader_pause(reader, false);
	uv_run(&loop, UV_RUN_DEFAULT);
	nest_buf_append(&seen, "", 1);
	ck_assert_str_eq(nest_buf_bytes(&seen), "old\nnew\nwhile paused\n");
	ck_assert(!seen_done);
	nest_funclog_reader_close(reader);
	uv_run(&loop, UV_RUN_DEFAULT);
	finish();
}
END_TEST

START_TEST(test_removal_takes_the_files_and_ends_followers)
{
	struct nest_funclog_reader *reader;
	struct nest_err err = NEST_ERR_INIT;

	setup_limit(1 << 20);
	nest_funclog_write(flog, &out, "x", 1);
	ck_assert_int_eq(
		nest_funclog_reader_open(flog, 0, true, on_line, on_done, NULL, &reader, &err), 0);
	nest_funclog_remove(flog);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(seen_done);
	ck_assert_uint_eq(disk_bytes(), 0);
	ck_assert_int_eq(nest_funclog_get(store, "f", 1 << 20, &flog, &err), 0);
	finish();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("funclog");

	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, test_lines_are_split_kept_and_read_back_in_order);
	tcase_add_test(tc, test_a_line_that_arrives_in_pieces_is_one_line);
	tcase_add_test(tc, test_a_line_too_long_is_cut_and_says_by_how_much);
	tcase_add_test(tc, test_the_disk_limit_holds_and_the_newest_lines_survive);
	tcase_add_test(tc, test_a_flood_is_dropped_counted_and_told);
	tcase_add_test(tc, test_a_follower_gets_old_and_new_lines_once);
	tcase_add_test(tc, test_removal_takes_the_files_and_ends_followers);
	return nest_suite_run_case("runtime/funclog", tc);
}
