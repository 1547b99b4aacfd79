/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_wires.h"
#include "tests/unit/sandbox/images.h"
#include "tests/unit/suite.h"

/* The numbers of CRIU's messages, once more: a slip in the tested file's shall be seen. */
#define TYPE_PIPE 2
#define TYPE_UNIX 5
#define FILE_UNIX 16
#define FILE_PIPE 18

static struct nest_image_gate gate;
static const struct nest_image_gate none = NEST_IMAGE_GATE_INIT;

static void enter(void)
{
	images_enter();
	gate = none;
}

static void leave(void)
{
	nest_image_gate_leave(&gate);
	if (gate.dir >= 0)
		close(gate.dir);
	images_leave();
}

static void write_image(const char *name, const char *text)
{
	ck_assert_int_eq(
		nest_file_write_atomic(images_fd, name, text, strlen(text), 0600, NULL), 0);
}

static void make_gate_for(const char *path)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_image_gate_make(&gate, path, &err) == 0, "%s", nest_err_text(&err));
}

/* Where the images are is where CRIU finds them. */
static const char *where(void)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", images_fd);
	return path;
}

static void make_gate(void)
{
	make_gate_for(where());
}

static void pass(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_image_gate_pass(
			      &gate, images_fd, where(), NEST_IMAGE_GATE_OWNER_STAYS, &err) == 0,
		"%s", nest_err_text(&err));
}

static int open_inventory(void)
{
	int fd = openat(gate.dir, "inventory.img", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* Reads on to the end, as CRIU does. */
static void check_inventory(int fd)
{
	char bytes[64];

	ck_assert_int_eq(read(fd, bytes, sizeof(bytes)), 9);
	ck_assert_int_eq(memcmp(bytes, "inventory", 9), 0);
	ck_assert_int_eq(read(fd, bytes, sizeof(bytes)), 0);
	close(fd);
}

START_TEST(one_who_reads_early_waits)
{
	struct pollfd polled = { .events = POLLIN };

	write_image("inventory.img", "inventory");
	make_gate();
	polled.fd = open_inventory();
	ck_assert_int_eq(poll(&polled, 1, 0), 0);
	pass();
	ck_assert_int_eq(poll(&polled, 1, 0), 1);
	check_inventory(polled.fd);
}
END_TEST

START_TEST(one_who_reads_late_misses_nothing)
{
	write_image("inventory.img", "inventory");
	make_gate();
	pass();
	check_inventory(open_inventory());
}
END_TEST

START_TEST(only_images_are_there_and_none_can_be_added)
{
	char *text = NULL;

	write_image("inventory.img", "inventory");
	write_image("pstree.img", "tree");
	write_image("contents", "digests");
	make_gate();
	pass();
	ck_assert_int_eq(nest_file_read(gate.dir, "pstree.img", 64, &text, NULL, NULL), 0);
	ck_assert_str_eq(text, "tree");
	free(text);
	ck_assert_int_eq(faccessat(gate.dir, "contents", F_OK, AT_SYMLINK_NOFOLLOW), -1);
	ck_assert_int_eq(
		openat(gate.dir, "stats-restore", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
	ck_assert_int_eq(errno, EROFS);
}
END_TEST

/* Of the usual images and of others, those that there are; wherever they were expected. */
START_TEST(images_are_found_by_links_from_before_and_new_ones)
{
	const bool elsewhere = _i & 1, noted = _i & 2;
	static const char *const names[] = { "files.img", "pages-1.img", "ghost-file-1.img",
		"core-1050.img" };

	write_image("inventory.img", "inventory");
	for (size_t i = 0; i < 4; i++)
		write_image(names[i], names[i]);
	if (noted)
		ck_assert_int_eq(nest_image_gate_note(images_fd, NULL), 0);
	make_gate_for(elsewhere ? "/elsewhere" : where());
	ck_assert_int_eq(faccessat(gate.dir, names[0], F_OK, 0), elsewhere ? -1 : 0);
	pass();
	for (size_t i = 0; i < 4; i++) {
		char *text = NULL;

		ck_assert_int_eq(nest_file_read(gate.dir, names[i], 64, &text, NULL, NULL), 0);
		ck_assert_str_eq(text, names[i]);
		free(text);
	}
	ck_assert_int_eq(openat(gate.dir, "seccomp.img", O_RDONLY | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(what_is_noted_is_not_looked_for)
{
	struct nest_err err = NEST_ERR_INIT;
	char *text = NULL;
	size_t len = 0;

	write_image("inventory.img", "inventory");
	write_image("mm-1001.img", "mm");
	write_image("mm-1007.img", "mm");
	write_image("contents", "digests");
	ck_assert_int_eq(nest_image_gate_note(images_fd, NULL), 0);
	ck_assert_int_eq(nest_file_read(images_fd, "others", 64, &text, &len, NULL), 0);
	ck_assert_uint_eq(len, sizeof("mm-1007.img"));
	ck_assert_str_eq(text, "mm-1007.img");
	free(text);
	write_image("mm-1008.img", "mm");
	make_gate();
	pass();
	ck_assert_int_eq(faccessat(gate.dir, "mm-1007.img", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(gate.dir, "mm-1008.img", F_OK, 0), -1);
	write_image("others", "mm-1007.img");
	nest_image_gate_leave(&gate);
	close(gate.dir);
	gate = none;
	make_gate();
	ck_assert_int_eq(
		nest_image_gate_pass(&gate, images_fd, where(), NEST_IMAGE_GATE_OWNER_STAYS, &err),
		-EBADMSG);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "'others' is malformed"));
}
END_TEST

/* A link from before is not written through. */
START_TEST(images_with_another_owner_are_copies)
{
	struct nest_buf core = NEST_BUF_INIT, creds = NEST_BUF_INIT, thread = NEST_BUF_INIT,
			entry = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;
	struct stat st;

	images_put(&creds, 1, 5);
	ck_assert_int_eq(nest_wire_put_bytes(&thread, 10, nest_buf_bytes(&creds), creds.len), 0);
	ck_assert_int_eq(nest_wire_put_bytes(&entry, 5, nest_buf_bytes(&thread), thread.len), 0);
	ck_assert_int_eq(nest_criu_image_begin(&core, NEST_CRIU_IMAGE_CORE), 0);
	images_put_entry(&core, &entry);
	write_image("inventory.img", "inventory");
	write_image("core-1001.img", "");
	ck_assert_int_eq(nest_criu_image_replace(images_fd, "core-1001.img", &core, NULL), 0);
	make_gate();
	ck_assert_msg(nest_image_gate_pass(&gate, images_fd, where(), 70000, &err) == 0, "%s",
		nest_err_text(&err));
	ck_assert_int_eq(fstatat(gate.dir, "core-1001.img", &st, AT_SYMLINK_NOFOLLOW), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_int_gt(st.st_size, (off_t)core.len);
	ck_assert_uint_eq(images_size_of("core-1001.img"), core.len);
	nest_buf_done(&core);
	nest_buf_done(&creds);
	nest_buf_done(&thread);
}
END_TEST

START_TEST(without_an_inventory_who_waits_goes_on_waiting)
{
	struct nest_err err = NEST_ERR_INIT;
	struct pollfd polled = { .events = POLLIN };

	write_image("pstree.img", "tree");
	make_gate();
	polled.fd = open_inventory();
	ck_assert_int_eq(
		nest_image_gate_pass(&gate, images_fd, "/", NEST_IMAGE_GATE_OWNER_STAYS, &err),
		-ENOENT);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "inventory.img"));
	ck_assert_int_eq(poll(&polled, 1, 0), 0);
	close(polled.fd);
}
END_TEST

/* ---- wires ---- */

static void put_message(
	struct nest_buf *out, uint32_t type, uint32_t id, uint32_t number, uint64_t ino)
{
	struct nest_buf file = NEST_BUF_INIT;
	struct nest_buf inner = NEST_BUF_INIT;

	images_put(&inner, 1, id);
	images_put(&inner, 2, ino);
	images_put(&inner, 99, 7);
	images_put(&file, 1, type);
	images_put(&file, 2, id);
	ck_assert_int_eq(nest_wire_put_bytes(&file, number, nest_buf_bytes(&inner), inner.len), 0);
	nest_buf_done(&inner);
	images_put_entry(out, &file);
}

static const struct file {
	uint32_t type, number;
	uint64_t was, is;
} files[] = {
	{ TYPE_UNIX, FILE_UNIX, 4711, NEST_CRIU_RPC_WIRE_INO(NEST_CRIU_RPC_CHANNEL) },
	{ TYPE_PIPE, FILE_PIPE, 4712, NEST_CRIU_RPC_WIRE_INO(NEST_CRIU_RPC_STDOUT) },
	{ TYPE_PIPE, FILE_PIPE, 4713, NEST_CRIU_RPC_WIRE_INO(NEST_CRIU_RPC_STDERR) },
	/* the function's own */
	{ TYPE_UNIX, FILE_UNIX, 5000, 5000 },
	{ TYPE_PIPE, FILE_PIPE, 5001, 5001 },
	/* another program has the output, too */
	{ TYPE_PIPE, FILE_PIPE, 4712, NEST_CRIU_RPC_WIRE_INO(NEST_CRIU_RPC_STDOUT) },
};
static const uint64_t inos[NEST_CRIU_RPC_WIRES] = { 4711, 4712, 4713 };

static void put_files(struct nest_buf *out, bool after)
{
	ck_assert_int_eq(nest_criu_image_begin(out, NEST_CRIU_IMAGE_FILES), 0);
	for (uint32_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		put_message(out, files[i].type, i + 1, files[i].number,
			after ? files[i].is : files[i].was);
}

START_TEST(wires_are_renumbered_and_nothing_else)
{
	struct nest_buf was = NEST_BUF_INIT, is = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;
	char *bytes = NULL;
	size_t len = 0;

	put_files(&was, false);
	put_files(&is, true);
	write_image("files.img", "");
	ck_assert_int_eq(nest_criu_image_replace(images_fd, "files.img", &was, NULL), 0);
	ck_assert_msg(
		nest_image_wires_renumber(images_fd, inos, &err) == 0, "%s", nest_err_text(&err));
	ck_assert_int_eq(nest_file_read(images_fd, "files.img", 4096, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, is.len);
	ck_assert_int_eq(memcmp(bytes, nest_buf_bytes(&is), len), 0);
	free(bytes);
	nest_buf_done(&was);
	nest_buf_done(&is);
}
END_TEST

START_TEST(a_malformed_image_is_refused)
{
	struct nest_buf bytes = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;

	put_files(&bytes, false);
	bytes.len--;
	write_image("files.img", "");
	ck_assert_int_eq(nest_criu_image_replace(images_fd, "files.img", &bytes, NULL), 0);
	ck_assert_int_eq(nest_image_wires_renumber(images_fd, inos, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "files.img"));
	nest_buf_done(&bytes);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("sandbox/image_gate");

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, enter, leave);
	tcase_add_test(tcase, one_who_reads_early_waits);
	tcase_add_test(tcase, one_who_reads_late_misses_nothing);
	tcase_add_test(tcase, only_images_are_there_and_none_can_be_added);
	tcase_add_loop_test(tcase, images_are_found_by_links_from_before_and_new_ones, 0, 4);
	tcase_add_test(tcase, what_is_noted_is_not_looked_for);
	tcase_add_test(tcase, images_with_another_owner_are_copies);
	tcase_add_test(tcase, without_an_inventory_who_waits_goes_on_waiting);
	tcase_add_test(tcase, wires_are_renumbered_and_nothing_else);
	tcase_add_test(tcase, a_malformed_image_is_refused);
	return nest_suite_run_case("sandbox/image_gate", tcase);
}
