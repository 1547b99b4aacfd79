/* SPDX-License-Identifier: Apache-2.0 */
/* Images that are made of archives: each is held against the directory that the archive gives. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/loader/images.h"
#include "tests/unit/suite.h"

static const size_t tiny[] = { 4000 };
static const size_t odd[] = { 1000003 };
static const size_t tiny_later[] = { 1000000, 3000, 3000, 3000 };
static const size_t long_later[] = { 1000000, 1000000, (1u << 20) + 1 };
static const size_t two_blocks[] = { 5000 };
static const struct made_cut unfit[] = {
	{ .name = "two in a block", .sizes = tiny, .n = 1 },
	{ .name = "two in a block, later", .sizes = tiny_later, .n = 4 },
	{ .name = "long ones", .sizes = long_later + 2, .n = 1 },
	{ .name = "a long one later", .sizes = long_later, .n = 3 },
	{ .name = "without their size", .sizes = odd, .n = 1, .unsized = true },
	{ .name = "with a large window", .sizes = odd, .n = 1, .window_bits = 21 },
	{ .name = "two blocks within two", .sizes = two_blocks, .n = 1, .window_bits = 12 },
};

/* ---- what is held ---- */

START_TEST(an_image_holds_what_its_archive_does)
{
	const struct made_cut *cut = &images_cuts[_i];
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_everything(false, &tar);
	images_compress(&tar, cut, &artifact);
	images_check_both(&artifact, cut->name);
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(bytes_that_are_not_compressible_can_be_in_an_image)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_everything(true, &tar);
	for (size_t i = 0; i < 2; i++) {
		images_compress(&tar, &images_cuts[i], &artifact);
		images_check_both(&artifact, images_cuts[i].name);
		nest_buf_done(&artifact);
	}
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_directory_of_thousands_of_names)
{
	static const unsigned lengths[] = { 250, 20, 244, 1, 100 };
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	char name[300];

	for (unsigned i = 0; i < 3000; i++) {
		unsigned n = lengths[i % 5];

		/* no order, and names that others begin with */
		n = (unsigned)snprintf(name, sizeof(name), "many/%u", i * 7919 % 3001) + n;
		memset(name + strlen(name), "!-z"[i % 3], sizeof(name) - strlen(name));
		name[n < 90 ? n : 90] = '\0';
		kit_tar_entry(&tar, name, i % 10 == 0 ? '2' : '0', i % 10 == 0 ? 0 : i % 50,
			i % 10 == 0 ? "there" : NULL, true);
	}
	kit_tar_end(&tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_check_both(&artifact, "many names");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* One more name at a time: blocks of names, inlined and not, end everywhere they can. */
START_TEST(blocks_of_names_that_are_just_full)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct kit_entry entries[700];
	static char names[700][300];
	size_t n = 0;

	for (unsigned dir = 0; dir < 40; dir++)
		for (unsigned i = 0; i < 17; i++, n++) {
			unsigned length = i < 16 ? 240 : 1 + dir * 6;

			/* 16 names of 252 bytes of a block, and one that grows beyond what is left */
			snprintf(names[n], sizeof(names[n]), "d%02u/%c%0*u", dir, 'a' + i,
				(int)length - 1 > 0 ? (int)length - 1 : 1, i);
			entries[n] = (struct kit_entry){ .name = names[n] };
		}
	kit_archive("gnutar", NULL, entries, n, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_check_both(&artifact, "full blocks");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(links_of_every_length)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct kit_entry entries[60];
	static char names[60][8];
	static char targets[60][4096];

	for (unsigned i = 0; i < 60; i++) {
		snprintf(names[i], sizeof(names[i]), "l%u", i);
		memset(targets[i], 'a', i < 30 ? 4095 - i * 5 : i < 40 ? 4036 - (i - 30) : i);
		entries[i] = (struct kit_entry){
			.name = names[i], .type = AE_IFLNK, .link = targets[i]
		};
	}
	kit_archive("gnutar", NULL, entries, 60, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_check_both(&artifact, "links");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* Whatever lies before the last inode: none goes over a block's end. */
START_TEST(inodes_end_everywhere_in_a_block)
{
	enum {
		FIRST = 40,
		LAST = 55
	};
	static char names[LAST][8];
	static char target[] =
		"31 bytes and one more are a slot of a block of inodes. So are these. "
		"And again, once more.";
	struct kit_entry entries[LAST] = { { .name = "l", .type = AE_IFLNK } };

	images_open("made", true);
	for (size_t i = 0; i < (LAST - FIRST) * 3; i++) {
		struct nest_buf tar = NEST_BUF_INIT;
		struct nest_buf artifact;
		struct images_result result;
		size_t n = FIRST + i / 3;

		for (size_t k = 1; k < n; k++) {
			snprintf(names[k], sizeof(names[k]), "f%zu", k);
			entries[k] = (struct kit_entry){ .name = names[k] };
		}
		entries[0].link = target + i % 3 * 32;
		kit_archive("ustar", NULL, entries, n, &tar);
		images_compress(&tar, &images_cuts[0], &artifact);
		images_upload(&artifact, &result);
		ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
		close(images_mount(result.tree));
		nest_tree_unref(result.tree);
		nest_buf_done(&artifact);
		nest_buf_done(&tar);
	}
	images_close();
}
END_TEST

START_TEST(a_tree_of_next_to_nothing)
{
	static const struct kit_entry top = { .name = "./", .type = AE_IFDIR };
	static const struct kit_entry dir = { .name = "d/e/", .type = AE_IFDIR };
	static const struct kit_entry file = { .name = "f" };
	const struct kit_entry *const only[] = { &top, &dir, &file };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(only); i++) {
		struct nest_buf tar = NEST_BUF_INIT;
		struct nest_buf artifact;

		kit_archive("ustar", NULL, only[i], 1, &tar);
		images_compress(&tar, &images_cuts[0], &artifact);
		images_check_both(&artifact, only[i]->name);
		nest_buf_done(&artifact);
		nest_buf_done(&tar);
	}
}
END_TEST

/* As long as paths can be; but not as deep, which takes any directory the square of its depth. */
START_TEST(a_path_as_long_as_paths_can_be)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	static char deep[1024];
	static char wide[4096];
	const struct kit_entry entries[] = { { .name = deep, .body = "deep" },
		{ .name = wide, .body = "long" } };

	for (size_t i = 0; i < 1022; i += 2)
		memcpy(deep + i, "d/", 2);
	strcpy(deep + 1022, "f");
	memset(wide, 'n', sizeof(wide));
	for (size_t i = 250; i < 4090; i += 251)
		wide[i] = '/';
	wide[4095] = '\0';
	kit_archive("gnutar", NULL, entries, 2, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_check_both(&artifact, "long paths");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* ---- reading ---- */

START_TEST(an_image_is_read_in_any_order_and_by_mmap)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct images_result result;
	uint32_t state = 1;
	char *mapped;

	images_everything(_i, &tar);
	images_compress(&tar, &images_cuts[_i], &artifact);
	images_load(&artifact, &result);
	{
		nest_autoclose int mounted = images_mount(result.tree);
		nest_autoclose int fd = openat(mounted, "large", O_RDONLY | O_CLOEXEC);
		nest_autoclose int linked = openat(mounted, "dir/harder", O_RDONLY | O_CLOEXEC);

		for (unsigned i = 0; i < 2000; i++) {
			char found[9000];
			size_t at;
			size_t n;

			state = state * 1664525 + 1013904223;
			at = (state >> 4) % IMAGES_LARGE;
			n = i % sizeof(found);
			if (n > IMAGES_LARGE - at)
				n = IMAGES_LARGE - at;
			ck_assert_int_eq(pread(fd, found, sizeof(found), (off_t)at),
				(ssize_t)(IMAGES_LARGE - at < sizeof(found) ? IMAGES_LARGE - at
									    : sizeof(found)));
			ck_assert_mem_eq(found, images_large + at, n);
		}
		mapped = mmap(NULL, IMAGES_LARGE, PROT_READ, MAP_PRIVATE, linked, 0);
		ck_assert_ptr_ne(mapped, MAP_FAILED);
		for (size_t at = IMAGES_LARGE - 1; at > 4099; at -= 4099)
			ck_assert_int_eq(mapped[at], images_large[at]);
		ck_assert_mem_eq(mapped, images_large, IMAGES_LARGE);
		munmap(mapped, IMAGES_LARGE);
	}
	nest_tree_unref(result.tree);
	images_close();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* ---- what can't be an image ---- */

START_TEST(frames_that_do_not_fit_are_unpacked)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_everything(_i == 0, &tar);
	images_compress(&tar, &unfit[_i], &artifact);
	images_check_refused(&artifact, unfit[_i].name);
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(sparse_files_are_unpacked)
{
	static const char *const formats[] = { "gnutar", "pax" };
	struct kit_entry entries[] = { { .name = "before", .body = "x" },
		{ .name = "hole", .body = "data", .size = 1u << 20, .sparse = true },
		{ .name = "behind", .body = "y" } };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(formats); i++) {
		struct nest_buf tar = NEST_BUF_INIT;
		struct nest_buf artifact;

		kit_archive(formats[i], NULL, entries, 3, &tar);
		images_compress(&tar, &images_cuts[0], &artifact);
		/* GNU's are written as they are, without holes */
		if (strcmp(formats[i], "pax") == 0)
			images_check_refused(&artifact, formats[i]);
		else
			images_check_both(&artifact, formats[i]);
		nest_buf_done(&artifact);
		nest_buf_done(&tar);
	}
}
END_TEST

/* Holes as GNU tar tells of them, in its own format and in pax's three. */
START_TEST(holes_told_by_tar_are_unpacked)
{
	static const char *const formats[] = { "--format=gnu", "--format=pax --sparse-version=0.0",
		"--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0" };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(formats); i++) {
		struct nest_buf tar = NEST_BUF_INIT;
		struct nest_buf artifact;
		nest_autofree char *bytes = NULL;
		size_t n;

		images_run("cd %s && mkdir -p s && rm -f s/* && printf begin >s/f && truncate -s "
			   "2M s/f "
			   "&& "
			   "printf end >>s/f && truncate -s 3M s/f && truncate -s 1M s/hole && "
			   "tar -cSf t.tar %s s",
			kit_path("."), formats[i]);
		kit_ok(nest_file_read(AT_FDCWD, kit_path("t.tar"), 8u << 20, &bytes, &n, NULL),
			NULL);
		ck_assert_int_eq(nest_buf_append(&tar, bytes, n), 0);
		ck_assert_uint_lt(n, 1u << 20);
		images_compress(&tar, &images_cuts[0], &artifact);
		images_check_refused(&artifact, formats[i]);
		nest_buf_done(&artifact);
		nest_buf_done(&tar);
	}
}
END_TEST

/* Their targets would lie in memory until the image is written. */
START_TEST(names_that_take_too_much_memory_are_unpacked)
{
	static char long_link[4096];
	static char names[6500][8];
	static struct kit_entry entries[6500];
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	memset(long_link, 't', 4095);
	for (unsigned i = 0; i < NEST_ARRAY_SIZE(entries); i++) {
		snprintf(names[i], sizeof(names[i]), "l%u", i);
		entries[i] =
			(struct kit_entry){ .name = names[i], .type = AE_IFLNK, .link = long_link };
	}
	kit_archive("gnutar", NULL, entries, NEST_ARRAY_SIZE(entries), &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_check_refused(&artifact, "6500 long links");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* An image of it would pass the limit, and be found damaged by a verification. */
START_TEST(an_image_larger_than_the_limit_is_unpacked)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_fill(images_large, IMAGES_LARGE, true);
	kit_archive("gnutar", NULL,
		(const struct kit_entry[]){
			{ .name = "f", .body = images_large, .size = 1u << 20 } },
		1, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_config.max_tree_bytes = 1u << 20;
	images_check_refused(&artifact, "a tree at the limit");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

int main(void)
{
	const TTest *const once[] = { bytes_that_are_not_compressible_can_be_in_an_image,
		a_directory_of_thousands_of_names, blocks_of_names_that_are_just_full,
		links_of_every_length, inodes_end_everywhere_in_a_block, a_tree_of_next_to_nothing,
		a_path_as_long_as_paths_can_be, sparse_files_are_unpacked,
		holes_told_by_tar_are_unpacked, names_that_take_too_much_memory_are_unpacked,
		an_image_larger_than_the_limit_is_unpacked };
	TCase *tcase = tcase_create("made_image");

	tcase_add_checked_fixture(tcase, images_enter, kit_leave);
	tcase_set_timeout(tcase, 2 * NEST_SUITE_TIMEOUT_S);
	tcase_add_loop_test(tcase, an_image_holds_what_its_archive_does, 0, IMAGES_CUTS);
	tcase_add_loop_test(tcase, frames_that_do_not_fit_are_unpacked, 0, NEST_ARRAY_SIZE(unfit));
	tcase_add_loop_test(tcase, an_image_is_read_in_any_order_and_by_mmap, 0, 2);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(once); i++)
		tcase_add_test(tcase, once[i]);
	return nest_suite_run_case("loader/made_image", tcase);
}
