/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/sandbox/images.h"
#include "tests/unit/suite.h"

#define APART(flags_, status_)                                                     \
	{                                                                          \
		.first = 0x200, .pages = 2, .flags = (flags_), .status = (status_) \
	}

START_TEST(private_memory_becomes_mappings_of_one_file)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 4), IMAGES_PLAIN(0x200, 2),
		{ .first = 0x300,
			.pages = 3,
			.flags = MAP_PRIVATE | MAP_ANONYMOUS,
			.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE |
				  IMAGES_STATUS_HEAP,
			.madv = 1u << MADV_DONTFORK | 1u << MADV_DONTDUMP } };
	const struct images_run runs[] = { IMAGES_RUN(0x101, 2, IMAGES_PRESENT),
		{ .first = 0x200, .pages = 1, .flags = IMAGES_PRESENT, .compat = true },
		IMAGES_RUN(0x302, 1, IMAGES_PRESENT | IMAGES_LAZY) };
	struct images_area after[4];
	struct images_run left[4];
	uint64_t id, size = 0;

	images_write_process(areas, 3, runs, 3);
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(id, 18);
	ck_assert_uint_eq(images_size_of("memory"), 9 * IMAGES_PAGE);
	/* as large as it is going to be */
	ck_assert_uint_eq(size, 9 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, after, 4), 3);
	images_check_taken(&areas[0], &after[0], 0, id);
	images_check_taken(&areas[1], &after[1], 4 * IMAGES_PAGE, id);
	images_check_taken(&areas[2], &after[2], 6 * IMAGES_PAGE, id);
	ck_assert_uint_eq(images_read_runs(1001, left, 4), 0);
	ck_assert_uint_eq(images_size_of("pages-1.img"), 0);
	images_check_page("memory", 1 * IMAGES_PAGE, 0x101);
	images_check_page("memory", 2 * IMAGES_PAGE, 0x102);
	images_check_page("memory", 4 * IMAGES_PAGE, 0x200);
	images_check_page("memory", 8 * IMAGES_PAGE, 0x302);
}
END_TEST

/* Each is what the kernel treats apart, or what a file can't stand for. */
static const struct images_area apart[] = {
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN,
		IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE),
	APART(MAP_PRIVATE | MAP_ANONYMOUS,
		IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE | IMAGES_STATUS_STACK),
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
		IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE),
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED,
		IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE),
	{ .first = 0x200,
		.pages = 2,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS,
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE,
		.madv = 1u << MADV_WIPEONFORK },
	APART(MAP_SHARED | MAP_ANONYMOUS, IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_SHARED),
	/* a file's, of which a page was not written */
	{ .first = 0x200,
		.pages = 3,
		.flags = MAP_PRIVATE,
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_FILE_PRIVATE },
	APART(MAP_PRIVATE | MAP_ANONYMOUS, IMAGES_STATUS_ANON_PRIVATE), /* the vdso */
};

START_TEST(memory_that_the_kernel_treats_apart_is_left)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 1), apart[_i],
		IMAGES_PLAIN(0x300, 1) };
	const struct images_run runs[] = { IMAGES_RUN(0x100, 1, IMAGES_PRESENT),
		IMAGES_RUN(0x200, 2, IMAGES_PRESENT | IMAGES_LAZY),
		IMAGES_RUN(0x300, 1, IMAGES_PRESENT) };
	struct images_area after[4];
	struct images_run left[4];
	uint64_t size, id;

	images_write_process(areas, 3, runs, 3);
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(images_read_mm(1001, after, 4), 3);
	images_check_taken(&areas[0], &after[0], 0, id);
	images_check_left(&areas[1], &after[1]);
	images_check_taken(&areas[2], &after[2], IMAGES_PAGE, id);
	ck_assert_uint_eq(images_read_runs(1001, left, 4), 1);
	images_check_run(&left[0], 0x200, 2, IMAGES_PRESENT | IMAGES_LAZY);
	ck_assert_uint_eq(images_size_of("pages-1.img"), 2 * IMAGES_PAGE);
	images_check_page("pages-1.img", 0, 0x200);
	images_check_page("pages-1.img", IMAGES_PAGE, 0x201);
	images_check_page("memory", IMAGES_PAGE, 0x300);
}
END_TEST

START_TEST(a_file_mapping_that_was_written_all_over_is_taken)
{
	const struct images_area area = { .first = 0x200,
		.pages = 2,
		.flags = MAP_PRIVATE,
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_FILE_PRIVATE,
		.pgoff = 7 * IMAGES_PAGE,
		.shmid = 3 };
	const struct images_run run = IMAGES_RUN(0x200, 2, IMAGES_PRESENT);
	struct images_area after[2];
	struct images_run left[1];
	uint64_t id, size;

	images_write_process(&area, 1, &run, 1);
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(images_read_mm(1001, after, 2), 1);
	images_check_taken(&area, &after[0], 0, id);
	ck_assert_uint_eq(images_read_runs(1001, left, 1), 0);
	images_check_page("memory", IMAGES_PAGE, 0x201);
}
END_TEST

START_TEST(of_a_file_mapping_long_runs_that_were_written_are_taken)
{
	const struct images_area area = { .first = 0x200,
		.pages = 40,
		.flags = MAP_PRIVATE,
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_FILE_PRIVATE,
		.pgoff = 7 * IMAGES_PAGE,
		.shmid = 3 };
	const struct images_area parts[] = {
		{ .first = 0x200, .pages = 2 },
		{ .first = 0x202, .pages = 10 },
		{ .first = 0x20c, .pages = 12 },
		{ .first = 0x218, .pages = 16 },
	};
	/* the first two are one run in memory, the third is too short to be worth an area */
	const struct images_run runs[] = { IMAGES_RUN(0x202, 4, IMAGES_PRESENT),
		IMAGES_RUN(0x206, 6, IMAGES_PRESENT), IMAGES_RUN(0x20e, 4, IMAGES_PRESENT),
		IMAGES_RUN(0x218, 16, IMAGES_PRESENT) };
	struct images_area after[5];
	struct images_run left[2];
	uint64_t id, size;

	images_write_process(&area, 1, runs, 4);
	images_rewrite();
	id = images_read_memory_file(&size);
	ck_assert_uint_eq(images_read_mm(1001, after, 5), 4);
	for (int i = 0; i < 4; i++) {
		struct images_area part = area;

		part.first = parts[i].first;
		part.pages = parts[i].pages;
		part.pgoff += (part.first - area.first) * IMAGES_PAGE;
		if (i % 2 == 0)
			images_check_left(&part, &after[i]);
		else
			images_check_taken(&part, &after[i], i == 1 ? 0 : 10 * IMAGES_PAGE, id);
	}
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x20e, 4, IMAGES_PRESENT);
	images_check_page("pages-1.img", 0, 0x20e);
	images_check_page("memory", 9 * IMAGES_PAGE, 0x20b);
	images_check_page("memory", 10 * IMAGES_PAGE, 0x218);
}
END_TEST

START_TEST(a_run_over_several_areas_is_divided)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 2),
		{ .first = 0x102,
			.pages = 2,
			.flags = MAP_SHARED | MAP_ANONYMOUS,
			.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_SHARED },
		IMAGES_PLAIN(0x104, 80),
		{ .first = 0x154,
			.pages = 2,
			.flags = MAP_PRIVATE,
			.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_FILE_PRIVATE } };
	const struct images_run runs[] = { IMAGES_RUN(0x101, 84, IMAGES_PRESENT) };
	struct images_area after[4];
	struct images_run left[4];

	images_write_process(areas, 4, runs, 1);
	images_rewrite();
	ck_assert_uint_eq(images_read_mm(1001, after, 4), 4);
	ck_assert_uint_eq(after[2].pgoff, 2 * IMAGES_PAGE);
	ck_assert_uint_eq(images_read_runs(1001, left, 4), 2);
	images_check_run(&left[0], 0x102, 2, IMAGES_PRESENT);
	images_check_run(&left[1], 0x154, 1, IMAGES_PRESENT);
	ck_assert_uint_eq(images_size_of("pages-1.img"), 3 * IMAGES_PAGE);
	images_check_page("memory", IMAGES_PAGE, 0x101);
	for (uint64_t i = 0; i < 80; i++)
		images_check_page("memory", (2 + i) * IMAGES_PAGE, 0x104 + i);
	images_check_page("pages-1.img", 0, 0x102);
	images_check_page("pages-1.img", 2 * IMAGES_PAGE, 0x154);
}
END_TEST

START_TEST(what_was_never_touched_stays_anonymous)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 4), IMAGES_PLAIN(0x200, 4) };
	const struct images_run runs[] = { IMAGES_RUN(0x100, 4, 0),
		IMAGES_RUN(0x200, 1, IMAGES_PRESENT) };
	struct images_area after[2];
	struct images_run left[2];
	uint64_t size;

	images_write_process(areas, 2, runs, 2);
	images_rewrite();
	ck_assert_uint_eq(images_read_mm(1001, after, 2), 2);
	images_check_left(&areas[0], &after[0]);
	images_check_taken(&areas[1], &after[1], 0, images_read_memory_file(&size));
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x100, 4, 0);
}
END_TEST

START_TEST(without_memory_to_take_no_file_is_named)
{
	const struct images_area areas[] = { apart[5] };
	const struct images_run runs[] = { IMAGES_RUN(0x200, 2, IMAGES_PRESENT) };
	struct images_area after[1];
	uint64_t size, files;

	images_write_process(areas, 1, runs, 1);
	files = images_size_of("files.img");
	images_rewrite();
	ck_assert_uint_eq(images_size_of("files.img"), files);
	ck_assert_uint_eq(images_read_memory_file(&size), 0);
	ck_assert_uint_eq(images_read_mm(1001, after, 1), 1);
	images_check_left(&areas[0], &after[0]);
	images_check_page("pages-1.img", IMAGES_PAGE, 0x201);
}
END_TEST

/* Else CRIU would take the child's areas for its parent's, which are at the same addresses. */
START_TEST(each_process_has_an_entry_of_its_own_for_the_file)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 2) };
	const struct images_run runs[] = { IMAGES_RUN(0x100, 2, IMAGES_PRESENT) };
	struct images_area first, second;
	uint64_t size, last;

	images_write_process(areas, 1, runs, 1);
	images_write_mm(1002, areas, 1);
	images_write_pages(1002, 2, runs, 1);
	images_rewrite();
	last = images_read_memory_file(&size);
	ck_assert_uint_eq(size, 4 * IMAGES_PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(images_read_mm(1001, &first, 1) + images_read_mm(1002, &second, 1), 2);
	ck_assert_uint_eq(first.shmid + second.shmid, last - 1 + last);
	ck_assert(first.shmid == last || second.shmid == last);
	ck_assert_uint_eq(first.pgoff + second.pgoff, 2 * IMAGES_PAGE);
	images_check_page("memory", first.pgoff, 0x100);
	images_check_page("memory", second.pgoff + IMAGES_PAGE, 0x101);
}
END_TEST

/* 4 GiB is the most of one area, and from 64 GiB on nothing more is taken. */
START_TEST(reservations_are_left_and_the_file_is_bounded)
{
	const uint64_t most = 1u << 20;
	struct images_area areas[20], after[20];
	struct images_run runs[20], left[20];
	struct stat st;

	for (uint64_t i = 0; i < 20; i++) {
		areas[i] = (struct images_area)IMAGES_PLAIN((i + 1) * 2 * most, most + (i == 0));
		runs[i] = (struct images_run)IMAGES_RUN(areas[i].first, 1, IMAGES_PRESENT);
	}
	images_write_process(areas, 20, runs, 20);
	images_rewrite();
	ck_assert_uint_eq(images_read_mm(1001, after, 20), 20);
	images_check_left(&areas[0], &after[0]);
	for (uint64_t i = 1; i < 17; i++)
		ck_assert_uint_eq(after[i].pgoff, (i - 1) * most * IMAGES_PAGE);
	images_check_page("memory", 15 * most * IMAGES_PAGE, areas[16].first);
	images_check_left(&areas[19], &after[19]);
	ck_assert_uint_ge(images_read_runs(1001, left, 20), 3);
	images_check_run(&left[0], areas[0].first, 1, IMAGES_PRESENT);
	/* and it is holes but for what was written */
	ck_assert_int_eq(fstatat(images_fd, "memory", &st, 0), 0);
	ck_assert_uint_le((uint64_t)st.st_blocks * 512, 2u << 20);
}
END_TEST

START_TEST(a_second_time_there_is_nothing_left_to_take)
{
	const struct images_area areas[] = { IMAGES_PLAIN(0x100, 2), apart[5] };
	const struct images_run runs[] = { IMAGES_RUN(0x100, 2, IMAGES_PRESENT),
		IMAGES_RUN(0x200, 1, IMAGES_PRESENT) };
	struct images_area before[2], after[2];

	images_write_process(areas, 2, runs, 2);
	images_rewrite();
	images_read_mm(1001, before, 2);
	/* the memory file is never replaced: clones map it */
	images_refuse(-EEXIST, "make the memory file");
	ck_assert_int_eq(unlinkat(images_fd, "memory", 0), 0);
	images_rewrite();
	images_read_mm(1001, after, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(after[i].status, before[i].status);
		ck_assert_uint_eq(after[i].flags, before[i].flags);
		ck_assert_uint_eq(after[i].pgoff, before[i].pgoff);
		ck_assert_uint_eq(after[i].shmid, before[i].shmid);
	}
}
END_TEST

/* ---- images that are not as they should be ---- */

static const struct images_area fine[] = { IMAGES_PLAIN(0x100, 4) };
static const struct images_run fine_runs[] = { IMAGES_RUN(0x100, 4, IMAGES_PRESENT) };

static const struct {
	struct images_area areas[2];
} bad_areas[] = {
	{ { IMAGES_PLAIN(0x100, 0), IMAGES_PLAIN(0x200, 1) } },
	{ { IMAGES_PLAIN(0x100, 4), IMAGES_PLAIN(0x103, 4) } },
	{ { IMAGES_PLAIN(0x200, 4), IMAGES_PLAIN(0x100, 4) } },
	{ { IMAGES_PLAIN(0x100, (uint64_t)-4), IMAGES_PLAIN(0x200, 1) } },
};

START_TEST(areas_that_can_not_be_are_refused)
{
	images_write_process(bad_areas[_i].areas, 2, fine_runs, 1);
	images_refuse(-EBADMSG, "image 'mm-1001.img' is not as CRIU 4 writes it");
}
END_TEST

static const struct images_run bad_runs[] = {
	IMAGES_RUN(0x0ff, 2, IMAGES_PRESENT), /* begins where nothing is */
	IMAGES_RUN(0x103, 2, IMAGES_PRESENT), /* ends there */
	{ .first = 0x100,
		.pages = 1,
		.flags = IMAGES_PRESENT,
		.in_parent = true }, /* is in an image that CRIU would look for */
	IMAGES_RUN(0x100, UINT64_C(1) << 32, IMAGES_PRESENT),
	IMAGES_RUN(UINT64_MAX / IMAGES_PAGE, 2, IMAGES_PRESENT),
};

START_TEST(runs_that_can_not_be_are_refused)
{
	images_write_mm(1001, fine, 1);
	images_write_files(17);
	/* the pages of the huge ones would not fit anywhere: none are there */
	if (bad_runs[_i].pages > 4) {
		struct images_run none = bad_runs[_i];

		none.flags = 0;
		images_write_pages(1001, 1, &none, 1);
	} else {
		images_write_pages(1001, 1, &bad_runs[_i], 1);
	}
	images_refuse(-EBADMSG, "divide the pages of 'pagemap-1001.img'");
}
END_TEST

START_TEST(pages_that_are_missing_are_noticed)
{
	int fd;

	images_write_process(fine, 1, fine_runs, 1);
	fd = openat(images_fd, "pages-1.img", O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, 2 * IMAGES_PAGE), 0);
	close(fd);
	images_refuse(-EBADMSG, "divide the pages of 'pagemap-1001.img'");
}
END_TEST

static const char *const needed[] = { "files.img", "pagemap-1001.img", "pages-1.img" };

START_TEST(an_image_that_is_missing_is_named)
{
	images_write_process(fine, 1, fine_runs, 1);
	ck_assert_int_eq(unlinkat(images_fd, needed[_i], 0), 0);
	images_refuse(-ENOENT, needed[_i]);
}
END_TEST

static const char *const parsed[] = { "files.img", "mm-1001.img", "pagemap-1001.img" };

START_TEST(an_image_cut_anywhere_is_refused_or_whole)
{
	for (off_t cut = 1;; cut++) {
		struct nest_err err = NEST_ERR_INIT;
		off_t size;
		int fd, r;

		images_write_process(fine, 1, fine_runs, 1);
		unlinkat(images_fd, "memory", 0);
		unlinkat(images_fd, "pages-1.img.new", 0);
		size = (off_t)images_size_of(parsed[_i]);
		if (cut > size)
			return;
		fd = openat(images_fd, parsed[_i], O_WRONLY | O_CLOEXEC);
		ck_assert_int_eq(ftruncate(fd, size - cut), 0);
		close(fd);
		r = nest_image_rewrite_map(images_fd, IMAGES_PATH, -1, &err);
		/* the end of an entry may be the end of the file: then there are fewer of them */
		ck_assert_msg(r == 0 || (r == -EBADMSG && err.text[0]), "%d: %s", r, err.text);
		ck_assert(r < 0 || _i != 1);
	}
}
END_TEST

START_TEST(another_kind_of_image_is_refused)
{
	images_write_process(fine, 1, fine_runs, 1);
	ck_assert_int_eq(renameat(images_fd, "files.img", images_fd, "mm-1001.img"), 0);
	images_write_files(17);
	images_refuse(-EBADMSG, "image 'mm-1001.img' is not as CRIU 4 writes it");
}
END_TEST

START_TEST(without_a_free_number_there_is_no_file)
{
	images_write_process(fine, 1, fine_runs, 1);
	images_write_files(UINT32_MAX);
	images_refuse(-EBADMSG, "image 'files.img' is not as CRIU 4 writes it");
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("sandbox/image_rewrite");

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, images_enter, images_leave);
	tcase_add_test(tcase, private_memory_becomes_mappings_of_one_file);
	tcase_add_loop_test(tcase, memory_that_the_kernel_treats_apart_is_left, 0,
		sizeof(apart) / sizeof(*apart));
	tcase_add_test(tcase, a_file_mapping_that_was_written_all_over_is_taken);
	tcase_add_test(tcase, of_a_file_mapping_long_runs_that_were_written_are_taken);
	tcase_add_test(tcase, a_run_over_several_areas_is_divided);
	tcase_add_test(tcase, what_was_never_touched_stays_anonymous);
	tcase_add_test(tcase, without_memory_to_take_no_file_is_named);
	tcase_add_test(tcase, each_process_has_an_entry_of_its_own_for_the_file);
	tcase_add_test(tcase, reservations_are_left_and_the_file_is_bounded);
	tcase_add_test(tcase, a_second_time_there_is_nothing_left_to_take);
	tcase_add_loop_test(tcase, areas_that_can_not_be_are_refused, 0,
		sizeof(bad_areas) / sizeof(*bad_areas));
	tcase_add_loop_test(
		tcase, runs_that_can_not_be_are_refused, 0, sizeof(bad_runs) / sizeof(*bad_runs));
	tcase_add_test(tcase, pages_that_are_missing_are_noticed);
	tcase_add_loop_test(
		tcase, an_image_that_is_missing_is_named, 0, sizeof(needed) / sizeof(*needed));
	tcase_add_loop_test(tcase, an_image_cut_anywhere_is_refused_or_whole, 0,
		sizeof(parsed) / sizeof(*parsed));
	tcase_add_test(tcase, another_kind_of_image_is_refused);
	tcase_add_test(tcase, without_a_free_number_there_is_no_file);
	return nest_suite_run_case("sandbox/image_rewrite", tcase);
}
