/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "tests/unit/sandbox/images.h"
#include "tests/unit/suite.h"

/* The numbers of CRIU's messages, once more: a slip in the tested file's shall be seen. */
#define TYPE_REG 1
#define FILE_REG 3
#define REG_NAME 6
#define REG_SIZE 8
#define REG_BUILD_ID 11

static char program[64], other[64], link_to[80];

static void make(char path[static 64], uid_t owner)
{
	int fd;

	snprintf(path, 64, "/tmp/test-image-program-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "text", 4), 4);
	ck_assert_int_eq(fchown(fd, owner, owner), 0);
	close(fd);
}

static void enter(void)
{
	images_enter();
	make(program, 0);
	make(other, 65534);
	snprintf(link_to, sizeof(link_to), "%s-link", program);
	ck_assert_int_eq(symlink(program, link_to), 0);
}

static void leave(void)
{
	unlink(program);
	unlink(other);
	unlink(link_to);
	images_leave();
}

static void put_reg(struct nest_buf *out, uint32_t id, const char *name, bool build_id)
{
	struct nest_buf file = NEST_BUF_INIT, reg = NEST_BUF_INIT;

	images_put(&reg, 1, id);
	ck_assert_int_eq(nest_wire_put_string(&reg, REG_NAME, name), 0);
	images_put(&reg, REG_SIZE, 4);
	for (uint32_t i = 0; build_id && i < 5; i++)
		images_put(&reg, REG_BUILD_ID, i);
	images_put(&reg, 99, 7);
	images_put(&file, 1, TYPE_REG);
	images_put(&file, 2, id);
	ck_assert_int_eq(nest_wire_put_bytes(&file, FILE_REG, nest_buf_bytes(&reg), reg.len), 0);
	nest_buf_done(&reg);
	images_put_entry(out, &file);
}

/* files.img as it is before, or after: then the program has no build id any more. */
static void put_files(struct nest_buf *out, bool after)
{
	ck_assert_int_eq(nest_criu_image_begin(out, NEST_CRIU_IMAGE_FILES), 0);
	put_reg(out, 1, program, !after);
	put_reg(out, 2, other, true);
	put_reg(out, 3, link_to, true);
	put_reg(out, 4, "/not/there", true);
	put_reg(out, 5, "relative", true);
	put_reg(out, 6, program, false);
}

static void note(void)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf files = NEST_BUF_INIT;

	put_files(&files, false);
	ck_assert_int_eq(nest_file_write_atomic(images_fd, "files.img", nest_buf_bytes(&files),
				 files.len, 0600, NULL),
		0);
	nest_buf_done(&files);
	ck_assert_msg(nest_image_program_note(images_fd, &err) == 0, "%s", nest_err_text(&err));
}

static void refused(const char *why)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_image_program_check(images_fd, &err), -EBADMSG);
	ck_assert_msg(strstr(nest_err_text(&err), why), "%s", nest_err_text(&err));
}

START_TEST(build_ids_of_roots_files_are_taken_out_and_nothing_else)
{
	struct nest_buf is = NEST_BUF_INIT;
	char *bytes = NULL;
	size_t len = 0;

	note();
	put_files(&is, true);
	ck_assert_int_eq(nest_file_read(images_fd, "files.img", 4096, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, is.len);
	ck_assert_mem_eq(bytes, nest_buf_bytes(&is), len);
	free(bytes);
	nest_buf_done(&is);
	ck_assert_int_eq(nest_image_program_check(images_fd, NULL), 0);
}
END_TEST

START_TEST(a_program_that_has_changed_is_named)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1, .tv_nsec = 5 } };
	int fd;

	ck_assert_int_eq(utimensat(AT_FDCWD, program, times, 0), 0);
	note();
	times[1].tv_nsec++;
	ck_assert_int_eq(utimensat(AT_FDCWD, program, times, 0), 0);
	refused(program);
	times[1].tv_nsec--;
	ck_assert_int_eq(utimensat(AT_FDCWD, program, times, 0), 0);
	ck_assert_int_eq(nest_image_program_check(images_fd, NULL), 0);
	fd = open(program, O_WRONLY | O_APPEND | O_CLOEXEC);
	ck_assert_int_eq(write(fd, "more", 4), 4);
	close(fd);
	ck_assert_int_eq(utimensat(AT_FDCWD, program, times, 0), 0);
	refused(program);
	unlink(program);
	refused(program);
}
END_TEST

START_TEST(without_a_list_criu_looks_at_build_ids)
{
	ck_assert_int_eq(nest_image_program_check(images_fd, NULL), 0);
}
END_TEST

START_TEST(a_malformed_list_is_refused)
{
	char *bytes = NULL;
	size_t len = 0;

	note();
	ck_assert_int_eq(nest_file_read(images_fd, "programs", 4096, &bytes, &len, NULL), 0);
	for (size_t n = 1; n < len; n++) {
		ck_assert_int_eq(
			nest_file_write_atomic(images_fd, "programs", bytes, n, 0600, NULL), 0);
		refused("'programs' is malformed");
	}
	/* a name with an end in its middle */
	bytes[len - 3] = '\0';
	ck_assert_int_eq(nest_file_write_atomic(images_fd, "programs", bytes, len, 0600, NULL), 0);
	refused("'programs' is malformed");
	free(bytes);
}
END_TEST

START_TEST(malformed_files_are_refused)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf files = NEST_BUF_INIT;

	put_files(&files, false);
	ck_assert_int_eq(nest_file_write_atomic(images_fd, "files.img", nest_buf_bytes(&files),
				 files.len - 1, 0600, NULL),
		0);
	nest_buf_done(&files);
	ck_assert_int_eq(nest_image_program_note(images_fd, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "files.img"));
}
END_TEST

NEST_SUITE_WITH("sandbox/image_program", enter, leave,
	build_ids_of_roots_files_are_taken_out_and_nothing_else,
	a_program_that_has_changed_is_named, without_a_list_criu_looks_at_build_ids,
	a_malformed_list_is_refused, malformed_files_are_refused)
