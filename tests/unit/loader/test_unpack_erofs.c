/* SPDX-License-Identifier: Apache-2.0 */
/* Images by mkfs.erofs in all of its forms, and such as no mkfs.erofs makes. */
#include "loader/unpack_erofs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/file.h"
#include "loader/erofs_inode.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

static int top; /* the test's directory */

static const struct nest_draft_limits generous = { .max_bytes = 64u << 20, .max_entries = 20000 };

/* Bytes that compress well, badly and not at all, in turns of different lengths. */
static void fill(char *bytes, size_t n)
{
	unsigned state = 1;

	for (size_t i = 0; i < n; i++) {
		state = state * 1103515245u + 12345u;
		if (i / 30000 % 4 == 0)
			bytes[i] = (char)(state >> 16);
		else if (i / 30000 % 4 == 1)
			bytes[i] = "abcdefgh"[state >> 16 & 7];
		else
			bytes[i] = i / 30000 % 4 == 2 ? 'x' : (char)(i % 251);
	}
}

static void make_sample(void)
{
	static const size_t sizes[] = { 0, 1, 59, 4095, 4096, 4097, 8192, 12289, 65536, 99999,
		1000000, 3000001 };
	static char bytes[3000001];

	fill(bytes, sizeof(bytes));
	kit_mkdir(kit_path("in"));
	kit_mkdir(kit_path("in/empty"));
	kit_mkdir(kit_path("in/many"));
	for (size_t i = 0; i < NEST_ARRAY_SIZE(sizes); i++)
		kit_write(kit_path("in/%zu", sizes[i]), bytes, sizes[i], i % 2 ? 0644 : 0755);
	for (unsigned i = 0; i < 300; i++)
		kit_write(kit_path("in/many/a rather long name of a file %u", i),
			bytes + 30000 + (size_t)i * 100, (size_t)i * 34, 0600);
	kit_mkdir(kit_path("in/many/z"));
	kit_write(kit_path("in/many/z/\xff\n"), "odd", 3, 0644);
	memset(bytes, 0, 2000000);
	kit_write(kit_path("in/zeros"), bytes, 2000000, 04755);
	ck_assert_int_eq(symlink("many/z", kit_path("in/link")), 0);
	ck_assert_int_eq(symlink("../../zeros", kit_path("in/many/z/up")), 0);
	ck_assert_int_eq(link(kit_path("in/99999"), kit_path("in/another name")), 0);
	ck_assert_int_eq(setxattr(kit_path("in/99999"), "user.note", "odd", 3, 0), 0);
	ck_assert_int_eq(setxattr(kit_path("in/many"), "trusted.note", "odd", 3, 0), 0);
	ck_assert_int_eq(chmod(kit_path("in/many"), 03777), 0);
}

static void make_image(const char *options)
{
	char command[512];

	/* chunks go through a file in /tmp, and mkfs.erofs 1.5 can't take them to another file system */
	snprintf(command, sizeof(command),
		"f=$(mktemp -p /tmp) && mkfs.erofs %s -T1000000 $f %s >/dev/null 2>&1 && mv $f %s",
		options, kit_path("in"), kit_path("image"));
	ck_assert_msg(system(command) == 0, "%s (package erofs-utils)", command);
}

static int unpack(const char *name, const struct nest_draft_limits *limits,
	struct nest_draft_totals *ret_totals, struct nest_err *err)
{
	nest_autoclose int fd = openat(top, "image", O_RDONLY | O_CLOEXEC);
	nest_autodraft struct nest_draft *draft = NULL;
	uint64_t bytes;
	int rc;

	kit_ok(nest_draft_new(top, name, limits, &draft, err), err);
	rc = nest_erofs_check_file(fd, NEST_EROFS_LZ4, &bytes, err);
	if (rc == 0)
		rc = nest_unpack_erofs_file(fd, draft, err);
	nest_draft_totals(draft, ret_totals);
	return rc;
}

static void remove_tree(const char *name)
{
	kit_ok(nest_file_remove_tree(top, name, NULL), NULL);
}

static void enter(void)
{
	kit_enter();
	top = open(kit_path("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void leave(void)
{
	close(top);
	kit_leave();
}

static void check_forms(const char *const *forms)
{
	char wanted[65];

	kit_digest_dir(kit_path("in"), wanted);
	for (; *forms; forms++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;
		char found[65];

		make_image(*forms);
		ck_assert_msg(unpack("out", &generous, &totals, &err) == 0, "%s: %s", *forms,
			nest_err_text(&err));
		kit_check_tree(kit_path("out"));
		kit_digest_dir(kit_path("out"), found);
		ck_assert_msg(strcmp(found, wanted) == 0, "%s: not what was packed", *forms);
		remove_tree("out");
	}
}

START_TEST(every_form_of_an_image_gives_what_was_packed)
{
	static const char *const forms[] = {
		"",
		"-Eforce-inode-extended",
		"-Enoinline_data",
		"-zlz4",
		"-zlz4 -Elegacy-compress",
		"-zlz4hc -C16384",
		"-zlz4hc -C65536 -Eforce-inode-compact",
		"-zlz4 -C262144",
		"-zlz4 -Eztailpacking",
		"-zlz4hc -C32768 -Eztailpacking",
		"-zlz4 --max-extent-bytes=8192",
		NULL,
	};

	make_sample();
	check_forms(forms);
}
END_TEST

static void make_chunky_sample(void)
{
	static char bytes[29000];

	fill(bytes, sizeof(bytes));
	kit_mkdir(kit_path("in"));
	kit_mkdir(kit_path("in/d"));
	kit_write(kit_path("in/chunks"), bytes, sizeof(bytes), 0644);
	kit_write(kit_path("in/d/small"), "small", 5, 0755);
	kit_write(kit_path("in/none"), "", 0, 0644);
}

START_TEST(files_in_chunks_are_joined)
{
	static const char *const forms[] = { "--chunksize=4096", "--chunksize=16384",
		"--chunksize=4096 -Eforce-chunk-indexes", NULL };

	make_chunky_sample();
	check_forms(forms);
}
END_TEST

START_TEST(times_are_those_of_the_image)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_draft_totals totals;
	struct stat st;

	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/f"), "x", 1, 0644);
	for (int i = 0; i < 2; i++) {
		make_image(i ? "-Eforce-inode-extended" : "-Eforce-inode-compact");
		kit_ok(unpack("out", &generous, &totals, &err), &err);
		ck_assert_int_eq(stat(kit_path("out/f"), &st), 0);
		ck_assert_int_eq(st.st_mtim.tv_sec, 1000000);
		ck_assert_uint_eq(totals.entries, 1);
		ck_assert_uint_eq(totals.bytes, 1);
		remove_tree("out");
	}
}
END_TEST

START_TEST(what_a_tree_may_not_hold_is_refused)
{
	static const struct {
		const char *command;
		int code;
		const char *words;
	} rows[] = {
		{ "mkfifo in/p", -EINVAL, "entry 'p' is a fifo" },
		{ "mkdir in/d && mknod in/d/null c 1 3", -EINVAL,
			"entry 'd/null' is a character device" },
		{ "mknod in/disk b 8 0", -EINVAL, "entry 'disk' is a block device" },
		{ "ln -s /etc/passwd in/l", -EINVAL, "'l'" },
		{ "ln -s ../out2 in/l", -EINVAL, "'l'" },
		{ "truncate -s 100M in/huge", -EFBIG, "larger than 67108864 bytes" },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;
		char command[512];
		int rc;

		snprintf(command, sizeof(command), "cd %s && mkdir in && %s", kit_path("."),
			rows[i].command);
		ck_assert_msg(system(command) == 0, "%s", command);
		make_image("-zlz4");
		rc = unpack("out", &generous, &totals, &err);
		ck_assert_msg(rc == rows[i].code && strstr(err.text, rows[i].words), "%s: %d: %s",
			rows[i].command, rc, err.text);
		remove_tree("out");
		remove_tree("in");
	}
}
END_TEST

START_TEST(limits_hold)
{
	static const struct nest_draft_limits few = { .max_bytes = 1u << 30, .max_entries = 100 };
	static const struct nest_draft_limits small = { .max_bytes = 500000, .max_entries = 20000 };
	struct nest_draft_totals totals;
	struct nest_err err = NEST_ERR_INIT;

	make_sample();
	make_image("-zlz4");
	ck_assert_int_eq(unpack("a", &few, &totals, &err), -EFBIG);
	ck_assert_uint_le(totals.entries, few.max_entries);
	err = (struct nest_err)NEST_ERR_INIT;
	ck_assert_int_eq(unpack("b", &small, &totals, &err), -EFBIG);
	ck_assert_uint_le(totals.bytes, small.max_bytes);
}
END_TEST

/* Overwrites a part of the image with what a stranger may put there. */
static void patch(size_t at, const void *bytes, size_t n)
{
	nest_autoclose int fd = openat(top, "image", O_WRONLY | O_CLOEXEC);

	ck_assert_int_eq(pwrite(fd, bytes, n, (off_t)at), (ssize_t)n);
}

/* Where @word stands in the image. */
static size_t find_word(const char *word)
{
	nest_autofree char *bytes = NULL;
	const char *found;
	size_t n;

	kit_ok(nest_file_read(top, "image", 16u << 20, &bytes, &n, NULL), NULL);
	found = memmem(bytes, n, word, strlen(word));
	ck_assert_msg(found != NULL, "no '%s'", word);
	return (size_t)(found - bytes);
}

START_TEST(names_lead_nowhere_else)
{
	static const struct {
		const char *name;
		const char *words;
	} rows[] = {
		{ "../evil1", "slash" },
		{ "/tmp/e/1", "slash" },
		{ "a/../../", "slash" },
		{ "evil/def", "slash" },
	};

	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/namename"), "x", 1, 0644);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;

		make_image("");
		patch(find_word("namename"), rows[i].name, 8);
		ck_assert_int_eq(unpack("out", &generous, &totals, &err), -EBADMSG);
		ck_assert_msg(strstr(err.text, rows[i].words) != NULL, "%s", err.text);
		ck_assert_uint_eq(kit_count(kit_path("out")), 0);
		remove_tree("out");
	}
}
END_TEST

/* Where the header of the indexes of 'in/file_name' is, whose inode is a short one. */
static size_t find_indexes(void)
{
	nest_autofree char *bytes = NULL;
	size_t entry = find_word("...file_name") - 12;
	size_t n;

	kit_ok(nest_file_read(top, "image", 16u << 20, &bytes, &n, NULL), NULL);
	return (size_t)(nest_erofs_inode_le64(bytes + entry) + 1) * 32;
}

START_TEST(what_only_the_kernel_can_read_is_refused)
{
	static const struct {
		size_t at;
		unsigned char value;
		const char *words;
	} rows[] = {
		{ 4, 0x20, "compressed in a way" }, /* its end in a file of ends */
		{ 6, 0x01, "compressed in a way" }, /* LZMA */
		{ 7, 0x02, "compressed in a way" }, /* an index for each 16 KB */
		{ 17, 0x80, "shares extents" },
	};
	static char bytes[60000];

	fill(bytes, sizeof(bytes));
	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/file_name"), bytes + 30000, 30000, 0644);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;

		make_image("-zlz4 -Elegacy-compress -Eforce-inode-compact -x-1");
		patch(find_indexes() + rows[i].at, &rows[i].value, 1);
		ck_assert_int_eq(unpack("out", &generous, &totals, &err), -ENOTSUP);
		ck_assert_msg(strstr(err.text, rows[i].words) != NULL, "%s", err.text);
		remove_tree("out");
	}
}
END_TEST

START_TEST(a_name_that_comes_twice_is_refused)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_draft_totals totals;

	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/first_name"), "1", 1, 0644);
	kit_write(kit_path("in/other_name"), "2", 1, 0644);
	make_image("");
	patch(find_word("other_name"), "first_name", 10);
	ck_assert_int_eq(unpack("out", &generous, &totals, &err), -EEXIST);
	ck_assert_msg(strstr(err.text, "'first_name' appears twice") != NULL, "%s", err.text);
}
END_TEST

START_TEST(directories_that_lead_back_end)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_draft_totals totals;
	nest_autofree char *bytes = NULL;
	size_t n;
	int rc;

	/* The one entry besides the dots becomes the directory itself. */
	kit_mkdir(kit_path("in"));
	kit_mkdir(kit_path("in/directory_name"));
	make_image("");
	kit_ok(nest_file_read(top, "image", 1u << 20, &bytes, &n, NULL), NULL);
	patch(find_word("...directory_name") - 12, bytes + find_word("...directory_name") - 36, 8);
	rc = unpack("out", &generous, &totals, &err);
	ck_assert_msg(rc == -ENAMETOOLONG || rc == -EFBIG, "%d: %s", rc, err.text);
}
END_TEST

/* Each of these images is taken, or refused with a reason; the sanitizers watch. */
static void spoil(const char *options, size_t step)
{
	static const struct nest_draft_limits tight = { .max_bytes = 2u << 20, .max_entries = 50 };
	static const unsigned char values[] = { 0x00, 0xff, 0x80, 0x01 };
	const char *image = kit_path("image");
	nest_autofree char *bytes = NULL;
	size_t n;

	make_image(options);
	kit_ok(nest_file_read(top, "image", 16u << 20, &bytes, &n, NULL), NULL);
	for (size_t at = NEST_EROFS_OFFSET; at < n; at += at < 3 * 4096 ? step : step * 97) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;

		patch(at, &values[at / step % sizeof(values)], 1);
		if (unpack("out", &tight, &totals, &err) < 0)
			ck_assert_str_ne(err.text, "");
		ck_assert_uint_le(totals.bytes, tight.max_bytes);
		remove_tree("out");
		patch(at, bytes + at, 1);
	}
	/* cut short, too */
	for (size_t at = n / 4096; at > 0; at -= at / 8 + 1) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_draft_totals totals;

		ck_assert_int_eq(truncate(image, (off_t)(at - 1) * 4096), 0);
		ck_assert_int_ne(unpack("out", &tight, &totals, &err), 0);
		remove_tree("out");
	}
}

START_TEST(damaged_images_are_refused_or_read)
{
	static char bytes[200000];

	fill(bytes, sizeof(bytes));
	kit_mkdir(kit_path("in"));
	kit_mkdir(kit_path("in/d"));
	kit_write(kit_path("in/d/text"), bytes + 30000, 90000, 0644);
	kit_write(kit_path("in/all"), bytes, sizeof(bytes), 0644);
	kit_write(kit_path("in/small"), "small", 5, 0755);
	ck_assert_int_eq(symlink("d/text", kit_path("in/link")), 0);
	spoil("-zlz4", 9);
	spoil("-zlz4hc -C65536 -Eztailpacking", 9);
	spoil("-zlz4 -Elegacy-compress", 11);
	remove_tree("in");
	make_chunky_sample();
	spoil("--chunksize=4096", 11);
}
END_TEST

NEST_SUITE_WITH("loader/unpack_erofs", enter, leave, every_form_of_an_image_gives_what_was_packed,
	files_in_chunks_are_joined, times_are_those_of_the_image,
	what_a_tree_may_not_hold_is_refused, limits_hold, names_lead_nowhere_else,
	what_only_the_kernel_can_read_is_refused, a_name_that_comes_twice_is_refused,
	directories_that_lead_back_end, damaged_images_are_refused_or_read)
