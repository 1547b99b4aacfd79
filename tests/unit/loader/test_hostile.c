/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile archives against the whole loader: each is refused with an error that names the entry or
 * the place and the cause, and leaves nothing in the cache and nothing beside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <uv.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/loader.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

static uv_loop_t loop;
static struct nest_loader *loader;

struct result {
	bool done;
	struct nest_tree *tree;
	struct nest_err err;
};

static void open_loader(void)
{
	const struct nest_loader_config config = {
		.dir = kit_path("cache"),
		.max_bytes = 1u << 30,
		.max_tree_bytes = 16u << 20,
		.max_tree_entries = 1000,
		.fetch = { .connections = 1,
			.timeout_ms = 1000,
			.connect_timeout_ms = 1000,
			.stall_ms = 1000,
			.max_bytes = 1u << 20,
			.ca_file = "",
			.credentials_file = "" },
	};
	struct nest_err err = NEST_ERR_INIT;

	kit_mkdir(kit_path("cache"));
	ck_assert_int_eq(chmod(kit_path("cache"), 0700), 0);
	kit_write(kit_path("victim"), "untouched", 9, 0600);
	uv_loop_init(&loop);
	kit_ok(nest_loader_open(&loop, &config, &loader, &err), &err);
}

static void close_loader(void)
{
	nest_loader_close(loader, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	/* libuv's threads keep theirs. */
	kit_settle();
}

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct result *result = arg;

	result->done = true;
	result->tree = tree;
	if (err)
		result->err = *err;
}

static void load(const struct nest_buf *archive, struct result *result)
{
	struct nest_upload *upload;
	struct nest_err err = NEST_ERR_INIT;

	kit_ok(nest_upload_open(loader, 64u << 20, &upload, &err), &err);
	kit_ok(nest_upload_write(upload, nest_buf_bytes(archive), archive->len, &err), &err);
	nest_upload_finish(upload, on_load, result);
	while (!result->done)
		uv_run(&loop, UV_RUN_ONCE);
}

/* What the sweep hasn't come to yet has no name that anything could be found by. */
static void check_untouched(void)
{
	struct stat st;

	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	ck_assert_int_eq(stat(kit_path("victim"), &st), 0);
	ck_assert_int_eq(st.st_size, 9);
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_eq(kit_count(kit_path(".")), 2);
}

static void expect_refused(struct nest_buf *archive, const char *what, const char *words)
{
	struct result result = { .done = false };

	load(archive, &result);
	nest_buf_done(archive);
	ck_assert_msg(!result.tree, "%s was unpacked", what);
	ck_assert_int_lt(result.err.code, 0);
	ck_assert_msg(strstr(result.err.text, words), "%s: '%s' lacks '%s'", what, result.err.text,
		words);
	check_untouched();
}

START_TEST(paths_links_and_devices_that_lead_out)
{
	static const struct {
		const char *words;
		struct kit_entry entries[4];
	} cases[] = {
		{ "'../victim' has '..'", { { .name = "../victim", .body = "x" } } },
		{ "'a/b/../../../victim'", { { .name = "a/b/../../../victim", .body = "x" } } },
		{ "'../../victim'", { { .name = "../../victim", .body = "x" } } },
		{ "'./../victim'", { { .name = "./../victim", .body = "x" } } },
		{ "'a//..//..//victim'", { { .name = "a//..//..//victim", .body = "x" } } },
		{ "absolute", { { .name = "/etc/victim", .body = "x" } } },
		{ "absolute", { { .name = "//etc/victim", .body = "x" } } },
		{ "has '..'", { { .name = "a/..", .type = AE_IFDIR } } },
		{ "'out' -> '..' points outside",
			{ { .name = "out", .type = AE_IFLNK, .link = ".." } } },
		{ "'a/out'", { { .name = "a/out", .type = AE_IFLNK, .link = "../../victim" } } },
		{ "absolute", { { .name = "out", .type = AE_IFLNK, .link = "/etc/passwd" } } },
		{ "'a/l'", { { .name = "a/l", .type = AE_IFLNK, .link = "x/../../../victim" } } },
		{ "'l/f' is, or lies under", { { .name = "d/x", .body = "1" },
						     { .name = "l", .type = AE_IFLNK, .link = "d" },
						     { .name = "l/f", .body = "2" } } },
		{ "'l' appears twice", { { .name = "l", .type = AE_IFLNK, .link = "f" },
					       { .name = "l", .body = "through it" } } },
		{ "hard link 'h'", { { .name = "h", .hardlink = "../../victim" } } },
		{ "absolute", { { .name = "h", .hardlink = "/etc/passwd" } } },
		{ "no file that came before",
			{ { .name = "d/f", .body = "x" },
				{ .name = "l", .type = AE_IFLNK, .link = "d" },
				{ .name = "h", .hardlink = "l/f" } } },
		{ "no file that came before", { { .name = "l", .type = AE_IFLNK, .link = "x" },
						      { .name = "h", .hardlink = "l" } } },
		{ "'null' is a character device", { { .name = "null", .type = AE_IFCHR } } },
		{ "'disk' is a block device", { { .name = "disk", .type = AE_IFBLK } } },
		{ "'pipe' is a fifo", { { .name = "pipe", .type = AE_IFIFO } } },
		{ "'f' appears twice",
			{ { .name = "f", .body = "1" }, { .name = "f", .body = "2" } } },
	};
	static const char *const filters[] = { NULL, "zstd", "lz4", "gzip" };

	open_loader();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++) {
		struct nest_buf buf = NEST_BUF_INIT;
		size_t n = 0;

		while (n < 4 && cases[i].entries[n].name)
			n++;
		kit_archive("pax", filters[i % 4], cases[i].entries, n, &buf);
		expect_refused(&buf, cases[i].entries[n - 1].name, cases[i].words);
	}
	close_loader();
}
END_TEST

/* Files before the bad entry are on their way to disk by other threads when it comes. */
START_TEST(a_bad_entry_behind_many_good_ones)
{
	struct nest_buf buf = NEST_BUF_INIT;
	char name[32];

	open_loader();
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "d%d/f%d", i % 7, i);
		kit_tar_entry(&buf, name, '0', 3000, NULL, true);
	}
	kit_tar_entry(&buf, "../victim", '0', 1, NULL, true);
	kit_tar_end(&buf);
	expect_refused(&buf, "the last of many", "'../victim' has '..'");
	close_loader();
}
END_TEST

static void make_bomb(const char *format, const char *filter, struct nest_buf *ret)
{
	static char zeros[20u << 20];
	const struct kit_entry entry = { .name = "zeros", .body = zeros, .size = sizeof(zeros) };

	kit_archive(format, filter, &entry, 1, ret);
}

START_TEST(bombs)
{
	static const char *const kinds[][2] = { { "pax", "zstd" }, { "pax", "lz4" },
		{ "pax", "gzip" }, { "zip", NULL }, { "pax", NULL } };
	struct nest_buf sparse = NEST_BUF_INIT;
	struct nest_buf many = NEST_BUF_INIT;
	const struct kit_entry hole = {
		.name = "hole", .body = "x", .size = (size_t)1 << 40, .sparse = true
	};
	char name[16];

	open_loader();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(kinds); i++) {
		struct nest_buf buf = NEST_BUF_INIT;

		make_bomb(kinds[i][0], kinds[i][1], &buf);
		expect_refused(&buf, "zeros", "code tree larger than 16777216 bytes");
	}
	kit_archive("pax", NULL, &hole, 1, &sparse);
	expect_refused(&sparse, "hole", "code tree larger than 16777216 bytes");
	for (int i = 0; i < 1001; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		kit_tar_entry(&many, name, '0', 0, NULL, true);
	}
	kit_tar_end(&many);
	expect_refused(&many, "files", "more than 1000 entries");
	close_loader();
}
END_TEST

static const struct kit_entry good[] = {
	{ .name = "d/a.js", .body = "exports.handler = async (event) => event; // 0123456789" },
	{ .name = "d/b.js", .body = "exports.other = async (event) => event; // 9876543210" },
};

START_TEST(cut_and_damaged_frames)
{
	static const char *const filters[] = { "zstd", "lz4", "gzip" };
	static const char *const words[] = { "truncated compressed data",
		"truncated compressed data", "truncated gzip data" };

	open_loader();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(filters); i++) {
		struct nest_buf cut = NEST_BUF_INIT;
		struct nest_buf garbage = NEST_BUF_INIT;

		kit_archive("pax", filters[i], good, 2, &cut);
		cut.len /= 2;
		expect_refused(&cut, filters[i], words[i]);
		kit_archive("pax", filters[i], good, 2, &garbage);
		memset(nest_buf_bytes(&garbage) + garbage.len / 2, 0xff, garbage.len / 4);
		expect_refused(&garbage, filters[i], "damaged");
	}
	close_loader();
}
END_TEST

START_TEST(an_archive_in_an_archive)
{
	struct nest_buf inner = NEST_BUF_INIT;
	struct nest_buf twice = NEST_BUF_INIT;
	struct nest_buf outer = NEST_BUF_INIT;
	struct kit_entry entry = { .name = "inner.tar" };
	struct result result = { .done = false };
	struct nest_err err = NEST_ERR_INIT;
	int fd = -1;
	size_t cap;

	open_loader();
	kit_tar_entry(&inner, "../victim", '0', 1, NULL, true);
	kit_tar_end(&inner);
	/* Compressed twice: refused. */
	kit_archive("pax", "gzip", good, 2, &twice);
	cap = ZSTD_compressBound(twice.len);
	{
		nest_autofree char *out = malloc(cap);
		size_t n = ZSTD_compress(out, cap, nest_buf_bytes(&twice), twice.len, 1);

		nest_buf_done(&twice);
		twice = (struct nest_buf)NEST_BUF_INIT;
		nest_buf_append(&twice, out, n);
	}
	expect_refused(&twice, "compressed twice", "tar, tar.gz, tar.zst, tar.lz4 or zip");
	/* A tar in a tar is a file like any other: nobody looks into it. */
	entry.body = nest_buf_bytes(&inner);
	entry.size = inner.len;
	kit_archive("pax", "zstd", &entry, 1, &outer);
	load(&outer, &result);
	ck_assert_msg(result.tree != NULL, "%s", result.err.text);
	kit_ok(nest_tree_open(result.tree, &fd, &err), &err);
	ck_assert_int_eq(faccessat(fd, "inner.tar", F_OK, 0), 0);
	close(fd);
	nest_tree_unref(result.tree);
	nest_buf_done(&inner);
	nest_buf_done(&outer);
	close_loader();
}
END_TEST

/* A stored zip, made by hand, whose directory says what it likes. */
struct zip {
	struct nest_buf bytes;
	struct nest_buf directory;
	unsigned entries;
};

static void put(struct nest_buf *buf, uint64_t value, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char byte = (char)(value >> (8 * i));

		nest_buf_append(buf, &byte, 1);
	}
}

/* What the local header and the directory's record have in common. */
static void zip_common(struct nest_buf *buf, const char *name, const char *body, size_t n)
{
	put(buf, 10, 2);
	put(buf, 0, 2 + 2 + 2 + 2);
	put(buf, crc32(0, (const Bytef *)body, (uInt)n), 4);
	put(buf, n, 4);
	put(buf, n, 4);
	put(buf, strlen(name), 2);
	put(buf, 0, 2);
}

static void zip_local(struct nest_buf *buf, const char *name, const char *body, size_t n)
{
	nest_buf_append(buf, "PK\3\4", 4);
	zip_common(buf, name, body, n);
	nest_buf_puts(buf, name);
	nest_buf_append(buf, body, n);
}

static void zip_record(struct zip *zip, const char *name, const char *body, size_t n, uint64_t at)
{
	nest_buf_append(&zip->directory, "PK\1\2", 4);
	put(&zip->directory, 0x0314, 2);
	zip_common(&zip->directory, name, body, n);
	put(&zip->directory, 0, 2 + 2 + 2);
	put(&zip->directory, (uint64_t)0100644 << 16, 4);
	put(&zip->directory, at, 4);
	nest_buf_puts(&zip->directory, name);
	zip->entries++;
}

static void zip_end(struct zip *zip)
{
	uint64_t at = zip->bytes.len;

	nest_buf_append(&zip->bytes, nest_buf_bytes(&zip->directory), zip->directory.len);
	nest_buf_append(&zip->bytes, "PK\5\6\0\0\0\0", 8);
	put(&zip->bytes, zip->entries, 2);
	put(&zip->bytes, zip->entries, 2);
	put(&zip->bytes, zip->directory.len, 4);
	put(&zip->bytes, at, 4);
	put(&zip->bytes, 0, 2);
	nest_buf_done(&zip->directory);
}

START_TEST(zip_entries_that_overlap)
{
	struct zip apart = { .entries = 0 };
	struct zip same = { .entries = 0 };
	struct zip nested = { .entries = 0 };
	struct nest_buf inner = NEST_BUF_INIT;
	struct result result = { .done = false };
	size_t second;

	open_loader();
	/* Two names for one place. */
	zip_local(&same.bytes, "a", "body", 4);
	zip_record(&same, "a", "body", 4, 0);
	zip_record(&same, "b", "body", 4, 0);
	zip_end(&same);
	expect_refused(&same.bytes, "one place", "overlap at byte 0");
	/* The second entry is the body of the first. */
	zip_local(&inner, "b", "body", 4);
	zip_local(&nested.bytes, "a", nest_buf_bytes(&inner), inner.len);
	zip_record(&nested, "a", nest_buf_bytes(&inner), inner.len, 0);
	zip_record(&nested, "b", "body", 4, 31);
	zip_end(&nested);
	nest_buf_done(&inner);
	expect_refused(&nested.bytes, "nested", "overlap at byte 31");
	/* The same by the rules is fine. */
	zip_local(&apart.bytes, "a", "body", 4);
	second = apart.bytes.len;
	zip_local(&apart.bytes, "b", "body", 4);
	zip_record(&apart, "b", "body", 4, second);
	zip_record(&apart, "a", "body", 4, 0);
	zip_end(&apart);
	load(&apart.bytes, &result);
	ck_assert_msg(result.tree != NULL, "%s", result.err.text);
	nest_tree_unref(result.tree);
	nest_buf_done(&apart.bytes);
	close_loader();
}
END_TEST

START_TEST(zips_with_a_directory_that_makes_no_sense)
{
	struct nest_buf cut = NEST_BUF_INIT;
	struct nest_buf behind = NEST_BUF_INIT;
	struct nest_buf shifted = NEST_BUF_INIT;

	open_loader();
	kit_archive("zip", NULL, good, 2, &cut);
	cut.len -= 10;
	expect_refused(&cut, "cut", "no directory at its end");
	kit_archive("zip", NULL, good, 2, &behind);
	nest_buf_puts(&behind, "garbage");
	expect_refused(&behind, "behind", "end record makes no sense");
	kit_archive("zip", NULL, good, 2, &shifted);
	nest_buf_bytes(&shifted)[shifted.len - 10]--;
	expect_refused(&shifted, "shifted", "damaged zip");
	close_loader();
}
END_TEST

NEST_SUITE_WITH("loader/hostile", kit_enter, kit_leave, paths_links_and_devices_that_lead_out,
	a_bad_entry_behind_many_good_ones, bombs, cut_and_damaged_frames, an_archive_in_an_archive,
	zip_entries_that_overlap, zips_with_a_directory_that_makes_no_sense)
