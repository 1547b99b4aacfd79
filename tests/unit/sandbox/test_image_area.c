/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_area.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_rewrite.h"
#include "tests/unit/sandbox/images.h"
#include "tests/unit/suite.h"

#define PARENT_ID 5
#define PARENT_PAGES 128
#define PARENT_NUMBER 0x7000 /* of its first page */
#define PARENT_PATH "/parent-snapshot/memory"

/* Adds to files.img a file of that path. */
static void name_parent(const char *path)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf entry = NEST_BUF_INIT;
	struct nest_buf reg = NEST_BUF_INIT;
	int fd = openat(images_fd, "files.img", O_WRONLY | O_APPEND | O_CLOEXEC);

	images_put(&reg, 1, PARENT_ID);
	ck_assert_int_eq(nest_wire_put_bytes(&reg, 6, path, strlen(path)), 0);
	images_put(&entry, 1, 1);
	images_put(&entry, 2, PARENT_ID);
	ck_assert_int_eq(nest_wire_put_bytes(&entry, 3, nest_buf_bytes(&reg), reg.len), 0);
	images_put_entry(&out, &entry);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, nest_buf_bytes(&out), out.len), (ssize_t)out.len);
	close(fd);
	nest_buf_done(&out);
	nest_buf_done(&reg);
}

static int open_parent(void)
{
	int fd = openat(images_fd, "../parent", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	unlinkat(images_fd, "../parent", 0);
	for (uint64_t i = 0; i < PARENT_PAGES; i++) {
		uint64_t words[IMAGES_PAGE / sizeof(uint64_t)];

		images_fill_page(words, PARENT_NUMBER + i);
		ck_assert_int_eq(write(fd, words, IMAGES_PAGE), IMAGES_PAGE);
	}
	return fd;
}

static const struct images_area upon = { .first = 0x100,
	.pages = 100,
	.flags = MAP_PRIVATE,
	.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_FILE_PRIVATE,
	.pgoff = 10 * IMAGES_PAGE,
	.shmid = PARENT_ID };

static void check_part(const struct images_area *is, uint64_t first, uint64_t pages, uint64_t pgoff)
{
	struct images_area want = upon;

	want.first = first;
	want.pages = pages;
	want.pgoff = pgoff * IMAGES_PAGE;
	images_check_left(&want, is);
}

START_TEST(of_the_parents_memory_what_was_written_is_divided_off)
{
	/* two near each other, two pages that don't pay, and the last ones */
	const struct images_run runs[] = { IMAGES_RUN(0x110, 8, IMAGES_PRESENT),
		IMAGES_RUN(0x11a, 2, IMAGES_PRESENT), IMAGES_RUN(0x140, 2, IMAGES_PRESENT),
		IMAGES_RUN(0x160, 4, IMAGES_PRESENT) };
	struct nest_err err = NEST_ERR_INIT;
	struct images_area part = upon;
	struct images_area after[6];
	struct images_run left[2];
	int parent = open_parent();
	uint64_t id, size;

	images_write_process(&upon, 1, runs, 4);
	name_parent(PARENT_PATH);
	ck_assert_msg(nest_image_rewrite_map(images_fd, IMAGES_PATH, parent, &err) == 0, "%s",
		nest_err_text(&err));
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(size, 16 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, after, 6), 4);
	check_part(&after[0], 0x100, 0x10, 10);
	part.first = 0x110;
	part.pages = 12;
	images_check_taken(&part, &after[1], 0, id);
	check_part(&after[2], 0x11c, 0x44, 10 + 0x1c);
	part.first = 0x160;
	part.pages = 4;
	images_check_taken(&part, &after[3], 12 * IMAGES_PAGE, id);
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x140, 2, IMAGES_PRESENT);
	images_check_page("memory", 0, 0x110);
	images_check_page("memory", 7 * IMAGES_PAGE, 0x117);
	/* what lies between is the parent's */
	images_check_page("memory", 8 * IMAGES_PAGE, PARENT_NUMBER + 10 + 0x18);
	images_check_page("memory", 9 * IMAGES_PAGE, PARENT_NUMBER + 10 + 0x19);
	images_check_page("memory", 10 * IMAGES_PAGE, 0x11a);
	images_check_page("memory", 15 * IMAGES_PAGE, 0x163);
	close(parent);
}
END_TEST

START_TEST(a_forked_process_has_the_parents_memory_too)
{
	const struct images_run of_one[] = { IMAGES_RUN(0x110, 8, IMAGES_PRESENT) };
	const struct images_run of_other[] = { IMAGES_RUN(0x110, 4, IMAGES_PRESENT) };
	struct nest_err err = NEST_ERR_INIT;
	struct images_area one[4], other[4];
	int parent = open_parent();
	uint64_t last, size;

	images_write_process(&upon, 1, of_one, 1);
	images_write_mm(1002, &upon, 1);
	images_write_pages(1002, 2, of_other, 1);
	name_parent(PARENT_PATH);
	ck_assert_msg(nest_image_rewrite_map(images_fd, IMAGES_PATH, parent, &err) == 0, "%s",
		nest_err_text(&err));
	last = images_read_memory_file(&size);
	ck_assert_uint_eq(size, 12 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, one, 4), 3);
	ck_assert_uint_eq(images_read_mm(1002, other, 4), 3);
	/* the same file where neither has written, and what is each one's own where they have */
	check_part(&one[0], 0x100, 0x10, 10);
	check_part(&other[0], 0x100, 0x10, 10);
	check_part(&one[2], 0x118, 0x4c, 10 + 0x18);
	check_part(&other[2], 0x114, 0x50, 10 + 0x14);
	ck_assert_uint_ne(one[1].shmid, other[1].shmid);
	ck_assert_uint_eq(one[1].shmid + other[1].shmid, last - 1 + last);
	images_check_page("memory", one[1].pgoff + 7 * IMAGES_PAGE, 0x117);
	images_check_page("memory", other[1].pgoff + 3 * IMAGES_PAGE, 0x113);
	close(parent);
}
END_TEST

START_TEST(the_parents_memory_is_known_by_its_path)
{
	/* enough for a part of the parent's memory, too few for one of another file's */
	const struct images_run run = IMAGES_RUN(0x110, 5, IMAGES_PRESENT);
	struct nest_err err = NEST_ERR_INIT;
	struct images_area after[2];
	struct images_run left[2];
	int parent = open_parent();

	images_write_process(&upon, 1, &run, 1);
	name_parent(PARENT_PATH "-not");
	ck_assert_int_eq(nest_image_rewrite_map(images_fd, IMAGES_PATH, parent, &err), 0);
	ck_assert_uint_eq(images_read_mm(1001, after, 2), 1);
	images_check_left(&upon, &after[0]);
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x110, 5, IMAGES_PRESENT);
	close(parent);
}
END_TEST

/* As memory has them that has grown beyond it. */
START_TEST(behind_the_parents_pages_are_zeros)
{
	const struct images_run runs[] = { IMAGES_RUN(0x110, 8, IMAGES_PRESENT),
		IMAGES_RUN(0x11a, 2, IMAGES_PRESENT) };
	static const char zeros[2 * IMAGES_PAGE];
	struct nest_err err = NEST_ERR_INIT;
	char gap[2 * IMAGES_PAGE];
	int parent = open_parent();
	int fd;

	images_write_process(&upon, 1, runs, 2);
	name_parent(PARENT_PATH);
	ck_assert_int_eq(ftruncate(parent, (10 + 0x18) * IMAGES_PAGE), 0);
	ck_assert_int_eq(nest_image_rewrite_map(images_fd, IMAGES_PATH, parent, &err), 0);
	images_check_page("memory", 7 * IMAGES_PAGE, 0x117);
	images_check_page("memory", 10 * IMAGES_PAGE, 0x11a);
	fd = openat(images_fd, "memory", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, gap, sizeof(gap), 8 * IMAGES_PAGE), sizeof(gap));
	ck_assert_mem_eq(gap, zeros, sizeof(gap));
	close(fd);
	close(parent);
}
END_TEST

/* ---- a program's own file ---- */

/* One of root's, larger than what is mapped of it. */
static const char *library(void)
{
	static char path[PATH_MAX];
	Dl_info info;
	struct stat st;

	ck_assert_int_ne(dladdr(dlsym(RTLD_DEFAULT, "qsort"), &info), 0);
	ck_assert_ptr_nonnull(realpath(info.dli_fname, path));
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_uid, 0);
	ck_assert_int_gt(st.st_size, 80 * (off_t)IMAGES_PAGE);
	return path;
}

/* Page @page of the memory file is page @number of file @path. */
static void check_copied(uint64_t page, const char *path, uint64_t number)
{
	char want[IMAGES_PAGE], have[IMAGES_PAGE];
	int from = open(path, O_RDONLY | O_CLOEXEC);
	int fd = openat(images_fd, "memory", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(
		pread(from, want, IMAGES_PAGE, (off_t)(number * IMAGES_PAGE)), IMAGES_PAGE);
	ck_assert_int_eq(pread(fd, have, IMAGES_PAGE, (off_t)(page * IMAGES_PAGE)), IMAGES_PAGE);
	ck_assert_mem_eq(want, have, IMAGES_PAGE);
	close(from);
	close(fd);
}

/* Two near each other and near the start, one that is too short, and one near the end. */
static const struct images_run written[] = { IMAGES_RUN(0x104, 4, IMAGES_PRESENT),
	IMAGES_RUN(0x10a, 2, IMAGES_PRESENT), IMAGES_RUN(0x120, 3, IMAGES_PRESENT),
	IMAGES_RUN(0x150, 8, IMAGES_PRESENT) };

START_TEST(what_lies_between_written_parts_of_a_program_comes_from_its_file)
{
	struct images_area part = upon;
	struct images_area after[4];
	struct images_run left[2];
	uint64_t id, size;

	part.pages = 0x5a;
	images_write_process(&part, 1, written, 4);
	name_parent(library());
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(size, 22 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, after, 4), 3);
	part.pages = 12;
	images_check_taken(&part, &after[0], 0, id);
	check_part(&after[1], 0x10c, 0x44, 10 + 0xc);
	part.first = 0x150;
	part.pages = 10;
	images_check_taken(&part, &after[2], 12 * IMAGES_PAGE, id);
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x120, 3, IMAGES_PRESENT);
	check_copied(0, library(), 10);
	check_copied(3, library(), 13);
	images_check_page("memory", 4 * IMAGES_PAGE, 0x104);
	check_copied(8, library(), 18);
	check_copied(9, library(), 19);
	images_check_page("memory", 11 * IMAGES_PAGE, 0x10b);
	images_check_page("memory", 12 * IMAGES_PAGE, 0x150);
	check_copied(21, library(), 10 + 0x59);
}
END_TEST

/* What a function may change is not read: a link, or a file that isn't root's. */
START_TEST(a_file_that_is_not_roots_is_not_read)
{
	char path[] = "/tmp/test-image-area-XXXXXX";
	struct images_area area = upon, after[3];
	struct images_run left[3];
	int fd = mkstemp(path);
	uint64_t size;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 200 * IMAGES_PAGE), 0);
	if (_i == 0)
		ck_assert_int_eq(fchown(fd, 65534, 65534), 0);
	if (_i == 1) {
		unlink(path);
		ck_assert_int_eq(symlink(library(), path), 0);
	}
	area.pages = 0x5a;
	images_write_process(&area, 1, written, 4);
	name_parent(path);
	images_rewrite();
	unlink(path);
	close(fd);
	images_read_memory_file(&size);
	ck_assert_uint_eq(size, 8 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, after, 3), 3);
	check_part(&after[0], 0x100, 0x50, 10);
	check_part(&after[2], 0x158, 2, 10 + 0x58);
	ck_assert_uint_eq(images_read_runs(1001, left, 3), 3);
	images_check_page("memory", 0, 0x150);
}
END_TEST

START_TEST(neighbours_that_are_alike_become_one)
{
	struct images_area areas[] = { IMAGES_PLAIN(0x100, 2), IMAGES_PLAIN(0x102, 3),
		IMAGES_PLAIN(0x105, 1), IMAGES_PLAIN(0x107, 1) };
	const struct images_run runs[] = { IMAGES_RUN(0x100, 6, IMAGES_PRESENT),
		IMAGES_RUN(0x107, 1, IMAGES_PRESENT) };
	struct images_area after[4], whole = areas[0];
	uint64_t size, id;

	areas[2].madv = 1u << MADV_DONTDUMP;
	images_write_process(areas, 4, runs, 2);
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(images_read_mm(1001, after, 4), 3);
	whole.pages = 5;
	images_check_taken(&whole, &after[0], 0, id);
	images_check_taken(&areas[2], &after[1], 5 * IMAGES_PAGE, id);
	images_check_taken(&areas[3], &after[2], 6 * IMAGES_PAGE, id);
	for (uint64_t i = 0; i < 6; i++)
		images_check_page("memory", i * IMAGES_PAGE, 0x100 + i);
}
END_TEST

/* A whole block that has a page is written, and one that has none is a hole. */
START_TEST(the_memory_file_is_made_of_blocks)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x1000, 0x1000) };
	const struct images_run runs[] = { IMAGES_RUN(0x1011, 1, IMAGES_PRESENT),
		IMAGES_RUN(0x1fff, 1, IMAGES_PRESENT) };
	int fd;

	images_write_process(areas, 1, runs, 2);
	images_rewrite();
	ck_assert_uint_eq(images_size_of("memory"), 0x1000 * IMAGES_PAGE);
	images_check_page("memory", 0x11 * IMAGES_PAGE, 0x1011);
	images_check_page("memory", 0xfff * IMAGES_PAGE, 0x1fff);
	fd = openat(images_fd, "memory", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(lseek(fd, 0, SEEK_DATA), 0x10 * IMAGES_PAGE);
	ck_assert_int_eq(lseek(fd, 0x10 * IMAGES_PAGE, SEEK_HOLE), 0x20 * IMAGES_PAGE);
	ck_assert_int_eq(lseek(fd, 0x20 * IMAGES_PAGE, SEEK_DATA), 0xff0 * IMAGES_PAGE);
	close(fd);
	ck_assert_int_lt(faccessat(images_fd, "memory.draft", F_OK, 0), 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("sandbox/image_area");

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, images_enter, images_leave);
	tcase_add_test(tcase, of_the_parents_memory_what_was_written_is_divided_off);
	tcase_add_test(tcase, a_forked_process_has_the_parents_memory_too);
	tcase_add_test(tcase, the_parents_memory_is_known_by_its_path);
	tcase_add_test(tcase, behind_the_parents_pages_are_zeros);
	tcase_add_test(tcase, what_lies_between_written_parts_of_a_program_comes_from_its_file);
	tcase_add_loop_test(tcase, a_file_that_is_not_roots_is_not_read, 0, 2);
	tcase_add_test(tcase, neighbours_that_are_alike_become_one);
	tcase_add_test(tcase, the_memory_file_is_made_of_blocks);
	return nest_suite_run_case("sandbox/image_area", tcase);
}
