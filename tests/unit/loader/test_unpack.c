/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

/* Text that compresses to several blocks and repeats enough for a flipped bit to matter. */
static const char body[] = "exports.handler = async (event, context) => event; // 0123456789";

static const struct kit_entry sample[] = {
	{ .name = "./", .type = AE_IFDIR, .mode = 0777 },
	{ .name = "index.js", .body = body, .mtime = 1700000000 },
	{ .name = "bin/run", .body = "#!/bin/sh\n", .mode = 06711, .mtime = 5 },
	{ .name = "empty", .body = "", .mtime = INT32_MAX },
	{ .name = "dir", .type = AE_IFDIR, .mode = 01777 },
	{ .name = "dir/link", .type = AE_IFLNK, .link = "../bin/run" },
	{ .name = "dir/name with \n and \xc3\xa9", .body = "x", .mode = 0600 },
};

static const char *const archive_kinds[][2] = {
	{ "pax", NULL },
	{ "gnutar", NULL },
	{ "ustar", NULL },
	{ "pax", "gzip" },
	{ "pax", "zstd" },
	{ "gnutar", "lz4" },
	{ "zip", NULL },
};

START_TEST(every_format_gives_the_same_tree)
{
	char first[65];
	char hex[65];
	struct stat st;

	umask(0077);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(archive_kinds); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_buf buf = NEST_BUF_INIT;
		struct nest_draft_totals totals;
		const char *path = kit_path("t%zu", i);

		kit_archive(archive_kinds[i][0], archive_kinds[i][1], sample,
			NEST_ARRAY_SIZE(sample), &buf);
		kit_ok(kit_unpack(&buf, strrchr(path, '/') + 1, NULL, &totals, &err), &err);
		kit_check_tree(path);
		kit_digest_dir(path, hex);
		if (i == 0)
			strcpy(first, hex);
		ck_assert_msg(strcmp(hex, first) == 0, "%s differs", archive_kinds[i][0]);
		ck_assert_uint_eq(totals.bytes, sizeof(body) - 1 + 10 + 1);
		ck_assert_uint_eq(totals.entries, 7);
		nest_buf_done(&buf);
	}
	ck_assert_int_eq(stat(kit_path("t0/bin/run"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0755);
	ck_assert_int_eq(st.st_mtim.tv_sec, 5);
	ck_assert_int_eq(stat(kit_path("t0/index.js"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1700000000);
}
END_TEST

/* Unpacks what must be refused: the error has @code and @words, and @outside is as it was. */
static void expect_refused(
	const struct nest_buf *archive, const char *tree, int code, const char *words)
{
	struct nest_err err = NEST_ERR_INIT;
	int rc = kit_unpack(archive, tree, NULL, NULL, &err);

	ck_assert_msg(rc == code, "%s: %d, not %d: %s", tree, rc, code, nest_err_text(&err));
	ck_assert_msg(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
}

static void hostile_archives(void)
{
	static const struct {
		int code;
		const char *words;
		struct kit_entry entries[3];
	} cases[] = {
		{ -EINVAL, "'../victim' has '..'", { { .name = "../victim", .body = "x" } } },
		{ -EINVAL, "'a/../../victim'", { { .name = "a/../../victim", .body = "x" } } },
		{ -EINVAL, "absolute", { { .name = "/tmp/victim", .body = "x" } } },
		{ -EINVAL, "has '..'", { { .name = "..", .type = AE_IFDIR } } },
		{ -EINVAL, "points outside",
			{ { .name = "l", .type = AE_IFLNK, .link = "../victim" } } },
		{ -EINVAL, "absolute path", { { .name = "l", .type = AE_IFLNK, .link = "/etc" } } },
		{ -EINVAL, "has '..' in its path",
			{ { .name = "l/../../x", .type = AE_IFLNK, .link = "x" } } },
		{ -ENOTDIR, "'l/victim' is, or lies under",
			{ { .name = "d", .type = AE_IFDIR },
				{ .name = "l", .type = AE_IFLNK, .link = "d" },
				{ .name = "l/victim", .body = "x" } } },
		{ -ENOTDIR, "'l/' is, or lies under",
			{ { .name = "d", .type = AE_IFDIR },
				{ .name = "l", .type = AE_IFLNK, .link = "d" },
				{ .name = "l", .type = AE_IFDIR } } },
		{ -ENOTDIR, "'f/x' is, or lies under",
			{ { .name = "f", .body = "1" }, { .name = "f/x", .body = "2" } } },
		{ -EEXIST, "'./f' appears twice",
			{ { .name = "f", .body = "1" }, { .name = "./f", .body = "2" } } },
		{ -EEXIST, "'l' appears twice",
			{ { .name = "f", .body = "1" },
				{ .name = "l", .type = AE_IFLNK, .link = "f" },
				{ .name = "l", .body = "2" } } },
		{ -EEXIST, "'d' appears twice",
			{ { .name = "d", .type = AE_IFDIR }, { .name = "d", .body = "2" } } },
		{ -EINVAL, "hard link 'h': entry '../victim'",
			{ { .name = "h", .hardlink = "../victim" } } },
		{ -EINVAL, "absolute", { { .name = "h", .hardlink = "/etc/passwd" } } },
		{ -EINVAL, "no file that came before", { { .name = "h", .hardlink = "later" } } },
		{ -EINVAL, "no file that came before",
			{ { .name = "d/l", .type = AE_IFLNK, .link = ".." },
				{ .name = "h", .hardlink = "d/l" } } },
		{ -EINVAL, "no file that came before",
			{ { .name = "d/f", .body = "x" },
				{ .name = "l", .type = AE_IFLNK, .link = "d" },
				{ .name = "h", .hardlink = "l/f" } } },
		{ -EINVAL, "'dev' is a character device", { { .name = "dev", .type = AE_IFCHR } } },
		{ -EINVAL, "'dev' is a block device", { { .name = "dev", .type = AE_IFBLK } } },
		{ -EINVAL, "'p' is a fifo", { { .name = "p", .type = AE_IFIFO } } },
	};
	static const struct kit_entry victim = { .name = "victim", .body = "untouched" };
	const char *path = kit_path("victim");
	struct stat st;

	kit_write(path, victim.body, strlen(victim.body), 0600);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++) {
		struct nest_buf buf = NEST_BUF_INIT;
		char tree[16];
		size_t n = 0;

		while (n < 3 && cases[i].entries[n].name)
			n++;
		snprintf(tree, sizeof(tree), "h%zu", i);
		kit_archive("pax", NULL, cases[i].entries, n, &buf);
		expect_refused(&buf, tree, cases[i].code, cases[i].words);
		nest_buf_done(&buf);
		ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, kit_path("%s", tree), NULL), 0);
	}
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, (off_t)strlen(victim.body));
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert_int_eq(access("/tmp/victim", F_OK), -1);
	ck_assert_int_eq(unlink(path), 0);
}

START_TEST(hostile_entries_are_refused_and_named)
{
	hostile_archives();
}
END_TEST

START_TEST(hostile_entries_are_refused_without_openat2_too)
{
	kit_without_openat2(hostile_archives);
}
END_TEST

START_TEST(hard_links_within_the_archive_work)
{
	static const struct kit_entry entries[] = {
		{ .name = "d/f", .body = "12345", .mode = 0755 },
		{ .name = "g/h", .hardlink = "./d/f" },
	};
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_draft_totals totals;
	struct stat st;

	kit_archive("pax", NULL, entries, 2, &buf);
	kit_ok(kit_unpack(&buf, "t", NULL, &totals, &err), &err);
	ck_assert_int_eq(stat(kit_path("t/g/h"), &st), 0);
	ck_assert_uint_eq(st.st_nlink, 2);
	ck_assert_uint_eq(totals.bytes, 5);
	ck_assert_uint_eq(totals.entries, 4);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(hand_made_headers_are_refused)
{
	struct nest_buf socket = NEST_BUF_INIT;
	struct nest_buf huge = NEST_BUF_INIT;
	struct nest_buf link_body = NEST_BUF_INIT;

	kit_tar_entry(&huge, "f", '0', UINT64_C(077777777777), NULL, false);
	kit_tar_end(&huge);
	expect_refused(&huge, "a", -EFBIG, "code tree larger than 1073741824 bytes");
	kit_tar_entry(&link_body, "x", '5', 10000000, NULL, true);
	kit_tar_end(&link_body);
	{
		struct nest_err err = NEST_ERR_INIT;

		/* Either libarchive disregards the size of a directory, or it is refused. */
		ck_assert_int_lt(kit_unpack(&link_body, "b", NULL, NULL, &err), 0);
	}
	kit_tar_entry(&socket, "", '0', 0, NULL, true);
	kit_tar_end(&socket);
	expect_refused(&socket, "c", -EINVAL, "without a name");
	nest_buf_done(&socket);
	nest_buf_done(&huge);
	nest_buf_done(&link_body);
}
END_TEST

START_TEST(other_formats_are_not_read)
{
	static const char *const kinds[][2] = { { "cpio", NULL }, { "7zip", NULL }, { "ar", NULL },
		{ "iso9660", NULL }, { "xar", NULL }, { "mtree", NULL }, { "pax", "bzip2" },
		{ "pax", "xz" }, { "pax", "compress" }, { "pax", "uuencode" } };
	static const struct kit_entry entry = { .name = "f", .body = body };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(kinds); i++) {
		struct nest_buf buf = NEST_BUF_INIT;
		char tree[16];

		snprintf(tree, sizeof(tree), "o%zu", i);
		kit_archive(kinds[i][0], kinds[i][1], &entry, 1, &buf);
		/* An ISO image begins with zeros, as an empty tar does. */
		expect_refused(&buf, tree, -EBADMSG,
			strcmp(kinds[i][0], "iso9660") == 0
				? "holds no entry"
				: "tar, tar.gz, tar.zst, tar.lz4 or zip");
		ck_assert_uint_eq(kit_count(kit_path("%s", tree)), 0);
		nest_buf_done(&buf);
	}
}
END_TEST

START_TEST(text_and_nothing_are_no_archives)
{
	struct nest_buf buf = NEST_BUF_INIT;

	expect_refused(&buf, "a", -EBADMSG, "empty");
	nest_buf_puts(&buf, "module.exports = 1;\n");
	expect_refused(&buf, "b", -EBADMSG, "zip");
	nest_buf_done(&buf);
}
END_TEST

START_TEST(an_archive_compressed_twice_is_refused)
{
	struct nest_buf once = NEST_BUF_INIT;
	struct archive *archive = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	char bytes[20000];
	size_t used = 0;

	archive_write_set_format_pax(archive);
	archive_write_add_filter_gzip(archive);
	archive_write_add_filter_zstd(archive);
	archive_write_open_memory(archive, bytes, sizeof(bytes), &used);
	archive_entry_set_pathname(entry, "f");
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_size(entry, 0);
	archive_write_header(archive, entry);
	archive_entry_free(entry);
	archive_write_close(archive);
	archive_write_free(archive);
	nest_buf_append(&once, bytes, used);
	expect_refused(&once, "a", -EBADMSG, "tar, tar.gz, tar.zst, tar.lz4 or zip");
	nest_buf_done(&once);
}
END_TEST

START_TEST(bombs_stop_at_the_limit)
{
	static const struct nest_draft_limits limits = { .max_bytes = 1000000, .max_entries = 50 };
	static char zeros[8u << 20];
	const struct kit_entry cases[] = {
		{ .name = "zeros", .body = zeros, .size = sizeof(zeros) },
		{ .name = "hole", .body = "x", .size = (size_t)1 << 42, .sparse = true },
	};
	static const char *const kinds[][2] = { { "pax", "zstd" }, { "pax", "gzip" },
		{ "pax", "lz4" }, { "zip", NULL } };

	for (size_t c = 0; c < NEST_ARRAY_SIZE(cases); c++) {
		for (size_t k = 0; k < NEST_ARRAY_SIZE(kinds); k++) {
			struct nest_err err = NEST_ERR_INIT;
			struct nest_buf buf = NEST_BUF_INIT;
			struct nest_draft_totals totals;
			char tree[16];

			if (cases[c].sparse && strcmp(kinds[k][0], "zip") == 0)
				continue;
			snprintf(tree, sizeof(tree), "b%zu%zu", c, k);
			kit_archive(kinds[k][0], kinds[k][1], &cases[c], 1, &buf);
			ck_assert_int_eq(kit_unpack(&buf, tree, &limits, &totals, &err), -EFBIG);
			ck_assert_str_eq(err.text, "code tree larger than 1000000 bytes");
			ck_assert_uint_le(totals.bytes, limits.max_bytes);
			nest_buf_done(&buf);
		}
	}
}
END_TEST

START_TEST(a_sparse_file_keeps_its_size_and_holes)
{
	static const struct kit_entry entry = {
		.name = "hole", .body = "x", .size = 300000, .sparse = true
	};
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf buf = NEST_BUF_INIT;
	struct stat st;

	kit_archive("pax", NULL, &entry, 1, &buf);
	kit_ok(kit_unpack(&buf, "t", NULL, NULL, &err), &err);
	ck_assert_int_eq(stat(kit_path("t/hole"), &st), 0);
	ck_assert_int_eq(st.st_size, 300000);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(too_many_entries_are_refused_even_when_they_repeat)
{
	static const struct nest_draft_limits limits = { .max_bytes = 1000, .max_entries = 50 };
	struct nest_buf many = NEST_BUF_INIT;
	struct nest_buf same = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;
	char name[16];

	for (int i = 0; i < 51; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		kit_tar_entry(&many, name, '0', 0, NULL, true);
	}
	for (int i = 0; i < 1000; i++)
		kit_tar_entry(&same, "d/", '5', 0, NULL, true);
	kit_tar_end(&many);
	kit_tar_end(&same);
	ck_assert_int_eq(kit_unpack(&many, "a", &limits, NULL, &err), -EFBIG);
	ck_assert_str_eq(err.text, "code tree has more than 50 entries");
	ck_assert_int_eq(kit_unpack(&same, "b", &limits, NULL, &err), -EFBIG);
	ck_assert_str_eq(err.text, "code tree has more than 50 entries");
	nest_buf_done(&many);
	nest_buf_done(&same);
}
END_TEST

START_TEST(an_archive_cut_anywhere_is_refused)
{
	const char *path = kit_path("t");

	for (size_t k = 0; k < NEST_ARRAY_SIZE(archive_kinds); k++) {
		struct nest_buf buf = NEST_BUF_INIT;
		size_t full;
		size_t end;

		kit_archive(archive_kinds[k][0], archive_kinds[k][1], sample,
			NEST_ARRAY_SIZE(sample), &buf);
		full = buf.len;
		/*
		 * An uncompressed tar is whole once its end mark has begun; gzip has a padded
		 * end.
		 */
		for (end = full; end > 0 && nest_buf_bytes(&buf)[end - 1] == '\0';)
			end--;
		if (archive_kinds[k][1])
			end = full - 16;
		for (size_t cut = 1; cut < end; cut += 61) {
			struct nest_err err = NEST_ERR_INIT;

			buf.len = cut;
			ck_assert_msg(kit_unpack(&buf, "t", NULL, NULL, &err) < 0,
				"%s cut at %zu of %zu passed", archive_kinds[k][0], cut, full);
			ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, path, NULL), 0);
		}
		nest_buf_done(&buf);
	}
}
END_TEST

/* Flips one bit of every byte: an error, or the same tree. */
static void flip_bits(struct nest_buf *buf, bool checked)
{
	static const struct nest_draft_limits limits = { .max_bytes = 1u << 20,
		.max_entries = 100 };
	struct nest_err err = NEST_ERR_INIT;
	const char *path = kit_path("t");
	unsigned refused = 0;
	char good[65];
	char hex[65];

	kit_ok(kit_unpack(buf, "good", NULL, NULL, &err), &err);
	kit_digest_dir(kit_path("good"), good);
	for (size_t i = 0; i < buf->len; i++) {
		nest_buf_bytes(buf)[i] ^= (char)(1 << (i % 8));
		if (kit_unpack(buf, "t", &limits, NULL, &err) == 0) {
			kit_check_tree(path);
			kit_digest_dir(path, hex);
			ck_assert_msg(!checked || strcmp(hex, good) == 0,
				"byte %zu of %zu: another tree", i, buf->len);
		} else {
			refused++;
		}
		nest_buf_bytes(buf)[i] ^= (char)(1 << (i % 8));
		ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, path, NULL), 0);
	}
	ck_assert_uint_gt(refused, 0);
}

static void flip_made(const char *format, const char *filter, bool checked)
{
	struct nest_buf buf = NEST_BUF_INIT;

	kit_archive(format, filter, sample, NEST_ARRAY_SIZE(sample), &buf);
	flip_bits(&buf, checked);
	nest_buf_done(&buf);
}

START_TEST(a_flipped_bit_is_noticed_in_lz4)
{
	flip_made("gnutar", "lz4", true);
}
END_TEST

START_TEST(a_flipped_bit_is_noticed_in_gzip)
{
	flip_made("gnutar", "gzip", true);
}
END_TEST

/* The zstd command adds a checksum, which libarchive's writer doesn't. */
START_TEST(a_flipped_bit_is_noticed_in_zstd)
{
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;
	nest_autofree char *bytes = NULL;
	size_t n;

	kit_ok(nest_file_read(AT_FDCWD, KIT_CORPUS "/sample.tar.zst", 1u << 20, &bytes, &n, &err),
		&err);
	nest_buf_append(&buf, bytes, n);
	flip_bits(&buf, true);
	nest_buf_done(&buf);
}
END_TEST

/* Names have no checksum in zips and nothing has one in plain tars, but a tree stays a tree. */
START_TEST(a_flipped_bit_is_harmless_where_nothing_is_checked)
{
	flip_made("zip", NULL, false);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, kit_path("good"), NULL), 0);
	flip_made("pax", "zstd", false);
}
END_TEST

START_TEST(deep_trees_and_long_paths_work)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf buf = NEST_BUF_INIT;
	struct kit_entry entries[2] = { { .body = "deep" }, { .body = "long" } };
	struct nest_draft_totals totals;
	char deep[4096];
	char wide[4096];
	char hex[65];

	for (size_t i = 0; i < 4094; i += 2)
		memcpy(deep + i, "d/", 2);
	strcpy(deep + 4094, "f");
	memset(wide, 'n', sizeof(wide));
	for (size_t i = 250; i < 4090; i += 251)
		wide[i] = '/';
	wide[4095] = '\0';
	entries[0].name = deep;
	entries[1].name = wide;
	kit_archive("gnutar", NULL, entries, 2, &buf);
	kit_ok(kit_unpack(&buf, "t", NULL, &totals, &err), &err);
	ck_assert_uint_eq(totals.bytes, 8);
	ck_assert_uint_gt(totals.entries, 2047);
	kit_digest_dir(kit_path("t"), hex);
	nest_buf_done(&buf);
}
END_TEST

#define LARGE_FILE 3000000u

/* Large files that lie across frames, and many small ones between them. */
static void make_mixed(struct nest_buf *ret)
{
	static char bytes[LARGE_FILE];
	static char names[256][16];
	struct kit_entry entries[256];
	unsigned state = 1;

	for (size_t i = 0; i < sizeof(bytes); i++) {
		state = state * 1103515245u + 12345u;
		bytes[i] = (char)(state >> 24 & 15);
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(entries); i++) {
		size_t n = i % 50 == 7 ? LARGE_FILE - i : i * 37;

		snprintf(names[i], sizeof(names[i]), "d%zu/f%zu", i % 5, i);
		entries[i] = (struct kit_entry){ .name = names[i], .body = bytes + i, .size = n };
	}
	kit_archive("gnutar", NULL, entries, NEST_ARRAY_SIZE(entries), ret);
}

static void compress_in_frames(const struct nest_buf *tar, size_t frame, struct nest_buf *ret)
{
	const char *bytes = nest_buf_bytes(tar);
	size_t cap = ZSTD_compressBound(frame);
	nest_autofree char *out = malloc(cap);

	for (size_t at = 0; at < tar->len; at += frame) {
		size_t n = tar->len - at < frame ? tar->len - at : frame;
		size_t len = ZSTD_compress(out, cap, bytes + at, n, 1);

		ck_assert(!ZSTD_isError(len));
		ck_assert_int_eq(nest_buf_append(ret, out, len), 0);
	}
}

/* What the writers hold of a frame must not keep the next one from being decompressed. */
START_TEST(frames_of_every_size_give_the_same_tree)
{
	static const size_t frames[] = { 100000, 1u << 20, 5000000, 8u << 20 };
	struct nest_buf tar = NEST_BUF_INIT;
	char first[65];

	make_mixed(&tar);
	kit_ok(kit_unpack(&tar, "t", NULL, NULL, NULL), NULL);
	kit_digest_dir(kit_path("t"), first);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(frames); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_buf packed = NEST_BUF_INIT;
		const char *path = kit_path("t%zu", i);
		char hex[65];

		compress_in_frames(&tar, frames[i], &packed);
		kit_ok(kit_unpack(&packed, strrchr(path, '/') + 1, NULL, NULL, &err), &err);
		kit_digest_dir(path, hex);
		ck_assert_msg(strcmp(hex, first) == 0, "frames of %zu bytes differ", frames[i]);
		nest_buf_done(&packed);
	}
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_hundred_thousand_files_unpack)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_draft_totals totals;
	char name[32];

	for (int i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "d%d/f%d", i / 1000, i);
		kit_tar_entry(&buf, name, '0', 0, NULL, true);
	}
	kit_tar_end(&buf);
	kit_ok(kit_unpack(&buf, "t", NULL, &totals, &err), &err);
	ck_assert_uint_eq(totals.entries, 100100);
	ck_assert_uint_eq(kit_count(kit_path("t/d99")), 1000);
	nest_buf_done(&buf);
}
END_TEST

static ssize_t read_slowly(void *arg, const void **ret_bytes)
{
	struct nest_buf *buf = arg;
	size_t n = buf->len < 7 ? buf->len : 7;

	*ret_bytes = nest_buf_bytes(buf);
	nest_buf_consume(buf, n);
	return (ssize_t)n;
}

START_TEST(a_source_that_can_not_seek_will_do)
{
	static const struct nest_draft_limits limits = { .max_bytes = 10000, .max_entries = 20 };
	nest_autoclose int top = open(kit_path("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char first[65];
	char hex[65];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(archive_kinds); i++) {
		nest_autodraft struct nest_draft *draft = NULL;
		struct nest_buf buf = NEST_BUF_INIT;
		struct nest_unpack_source source = { .read = read_slowly, .arg = &buf };
		struct nest_err err = NEST_ERR_INIT;
		char tree[16];

		snprintf(tree, sizeof(tree), "s%zu", i);
		/* Without its directory a zip doesn't tell modes and links. */
		kit_archive(archive_kinds[i][0], archive_kinds[i][1], sample,
			NEST_ARRAY_SIZE(sample), &buf);
		kit_ok(nest_draft_new(top, tree, &limits, &draft, &err), &err);
		kit_ok(nest_unpack_run(&source, draft, &err), &err);
		kit_check_tree(kit_path("%s", tree));
		kit_digest_dir(kit_path("%s", tree), hex);
		if (i == 0)
			strcpy(first, hex);
		ck_assert_msg(strcmp(archive_kinds[i][0], "zip") == 0 || strcmp(hex, first) == 0,
			"%s differs", archive_kinds[i][0]);
		nest_buf_done(&buf);
	}
}
END_TEST

START_TEST(names_are_kept_as_bytes)
{
	static const char *const names[] = { "latin-\xe9", "decomposed-e\xcc\x81", "\x01\n\\\x7f",
		"\xf0\x9f\x98\x80" };
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_err err = NEST_ERR_INIT;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++)
		kit_tar_entry(&buf, names[i], '0', 1, NULL, true);
	kit_tar_end(&buf);
	kit_ok(kit_unpack(&buf, "t", NULL, NULL, &err), &err);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++)
		ck_assert_int_eq(access(kit_path("t/%s", names[i]), F_OK), 0);
	nest_buf_done(&buf);
}
END_TEST

START_TEST(a_source_that_fails_is_reported)
{
	/* A directory's descriptor: reading it fails with EISDIR. */
	nest_autoclose int dir = open(kit_path("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	static const struct nest_draft_limits limits = { .max_bytes = 1, .max_entries = 1 };
	nest_autodraft struct nest_draft *draft = NULL;
	struct nest_err err = NEST_ERR_INIT;

	kit_ok(nest_draft_new(dir, "t", &limits, &draft, &err), &err);
	ck_assert_int_lt(nest_unpack_file(dir, draft, &err), 0);
	ck_assert_msg(strstr(err.text, "Is a directory"), "%s", err.text);
}
END_TEST

NEST_SUITE_WITH("loader/unpack", kit_enter, kit_leave, every_format_gives_the_same_tree,
	hostile_entries_are_refused_and_named, hostile_entries_are_refused_without_openat2_too,
	hard_links_within_the_archive_work, hand_made_headers_are_refused,
	other_formats_are_not_read, text_and_nothing_are_no_archives,
	an_archive_compressed_twice_is_refused, bombs_stop_at_the_limit,
	a_sparse_file_keeps_its_size_and_holes, too_many_entries_are_refused_even_when_they_repeat,
	an_archive_cut_anywhere_is_refused, a_flipped_bit_is_noticed_in_lz4,
	a_flipped_bit_is_noticed_in_gzip, a_flipped_bit_is_noticed_in_zstd,
	a_flipped_bit_is_harmless_where_nothing_is_checked, deep_trees_and_long_paths_work,
	frames_of_every_size_give_the_same_tree, a_hundred_thousand_files_unpack,
	a_source_that_can_not_seek_will_do, names_are_kept_as_bytes,
	a_source_that_fails_is_reported)
