/* SPDX-License-Identifier: Apache-2.0 */
/* Loads of archives that become images: errors, limits, downloads, and the images in the cache. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/decode.h"
#include "loader/digest.h"
#include "loader/reference.h"
#include "loader/tree_image.h"
#include "tests/unit/loader/images.h"
#include "tests/unit/loader/web.h"
#include "tests/unit/suite.h"

/* ---- what is wrong ---- */

/* Loads @artifact with images and without: it fails in the same way, and leaves nothing. */
static void check_fails(const struct nest_buf *artifact, const char *what)
{
	struct images_result plain;
	struct images_result made;

	images_open("fails", false);
	images_upload(artifact, &plain);
	ck_assert_msg(plain.tree == NULL, "%s: it is unpacked", what);
	images_close();
	images_open("fails", true);
	images_upload(artifact, &made);
	ck_assert_msg(made.tree == NULL, "%s: it becomes an image", what);
	images_close();
	ck_assert_msg(made.err.code == plain.err.code && strcmp(made.err.text, plain.err.text) == 0,
		"%s: %d: %s, without images %d: %s", what, made.err.code, made.err.text,
		plain.err.code, plain.err.text);
	ck_assert_uint_eq(kit_count(kit_path("fails/trees")), 0);
}

START_TEST(limits_hold_with_the_same_words)
{
	const struct kit_entry tree[] = { { .name = "a/b/c", .body = "c" },
		{ .name = "a/d", .type = AE_IFLNK, .link = "b" },
		{ .name = "a/e", .hardlink = "a/b/c" },
		{ .name = "f", .body = images_medium, .size = IMAGES_MEDIUM } };
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	kit_archive("gnutar", NULL, tree, 4, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	for (unsigned entries = 1; entries < 6; entries++) {
		images_config.max_tree_entries = entries;
		check_fails(&artifact, "entries");
	}
	images_config.max_tree_entries = 6;
	images_config.max_tree_bytes = IMAGES_MEDIUM;
	check_fails(&artifact, "bytes");
	images_config.max_tree_bytes = IMAGES_MEDIUM + 1;
	images_check_both(&artifact, "at the limits");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

static char over_long[400];

START_TEST(hostile_archives_fail_as_they_do_without_images)
{
	static const struct kit_entry cases[][3] = {
		{ { .name = "../victim", .body = "x" } },
		{ { .name = "/etc/victim", .body = "x" } },
		{ { .name = "a/..", .type = AE_IFDIR } },
		{ { .name = "." } },
		{ { .name = "out", .type = AE_IFLNK, .link = ".." } },
		{ { .name = "out", .type = AE_IFLNK, .link = "/etc/passwd" } },
		{ { .name = "l", .type = AE_IFLNK, .link = "d" }, { .name = "l/f", .body = "2" } },
		{ { .name = "l", .type = AE_IFLNK, .link = "d" },
			{ .name = "l", .type = AE_IFDIR } },
		{ { .name = "f", .body = "1" }, { .name = "f", .type = AE_IFDIR } },
		{ { .name = "f", .body = "1" }, { .name = "f/g", .body = "2" } },
		{ { .name = "f", .body = "1" }, { .name = "f/g/h", .type = AE_IFDIR } },
		{ { .name = "f", .body = "1" },
			{ .name = "f/l", .type = AE_IFLNK, .link = "../../.." } },
		{ { .name = "f", .body = "1" }, { .name = "f/h", .hardlink = "none" } },
		{ { .name = "f", .body = "1" }, { .name = "f", .body = "2" } },
		{ { .name = "f", .body = "1" }, { .name = "h", .hardlink = "f" },
			{ .name = "h", .hardlink = "f" } },
		{ { .name = "d/e", .body = "1" }, { .name = "d", .body = "2" } },
		{ { .name = "d", .type = AE_IFDIR },
			{ .name = "d", .type = AE_IFLNK, .link = "x" } },
		{ { .name = "h", .hardlink = "none" } },
		{ { .name = "h", .hardlink = "../none" } },
		{ { .name = "d", .type = AE_IFDIR }, { .name = "h", .hardlink = "d" } },
		{ { .name = "l", .type = AE_IFLNK, .link = "x" },
			{ .name = "h", .hardlink = "l" } },
		{ { .name = "null", .type = AE_IFCHR } },
		{ { .name = "pipe", .type = AE_IFIFO } },
		{ { .name = over_long, .body = "x" } },
		{ { .name = over_long, .type = AE_IFDIR } },
		{ { .name = over_long, .type = AE_IFLNK, .link = "x" } },
		{ { .name = "f", .body = "1" }, { .name = over_long, .hardlink = "f" } },
	};

	memset(over_long, 'n', 256);
	memcpy(over_long, "a/", 2);
	for (unsigned longer = 0; longer < 2; longer++) {
		for (size_t i = 0; i < NEST_ARRAY_SIZE(cases); i++) {
			struct nest_buf tar = NEST_BUF_INIT;
			struct nest_buf artifact;
			size_t n = 0;

			while (n < 3 && cases[i][n].name)
				n++;
			kit_archive("gnutar", NULL, cases[i], n, &tar);
			images_compress(&tar, &images_cuts[0], &artifact);
			if (longer || cases[i][n - 1].name != over_long)
				check_fails(&artifact, cases[i][n - 1].name);
			else
				images_check_both(&artifact, cases[i][n - 1].name);
			nest_buf_done(&artifact);
			nest_buf_done(&tar);
		}
		over_long[257 + longer] = 'n'; /* a part of 256 bytes */
		memset(over_long, 'n', 258);
		memcpy(over_long, "a/", 2);
	}
}
END_TEST

/* Each file of the other target's corpus, without its compression and then with ours. */
static void read_corpus(const char *name, struct nest_buf *ret)
{
	struct nest_buf raw_bytes = NEST_BUF_INIT;
	nest_autofree char *bytes = NULL;
	char path[512];
	size_t n;

	snprintf(path, sizeof(path), KIT_CORPUS "/%s", name);
	kit_ok(nest_file_read(AT_FDCWD, path, 1u << 20, &bytes, &n, NULL), NULL);
	ck_assert_int_eq(nest_buf_append(&raw_bytes, bytes, n), 0);
	if (nest_decode_kind(bytes, n) != NEST_DECODE_NONE) {
		nest_buf_done(&raw_bytes);
		kit_write(kit_path("packed"), bytes, n, 0600);
		images_run("cd %s && case %s in *.gz) gzip -dc;; *.zst) zstd -dc;; *.lz4) lz4 "
			   "-dc;; esac "
			   "<packed >unpacked",
			kit_path("."), name);
		free(bytes);
		kit_ok(nest_file_read(AT_FDCWD, kit_path("unpacked"), 1u << 20, &bytes, &n, NULL),
			NULL);
		raw_bytes = (struct nest_buf)NEST_BUF_INIT;
		ck_assert_int_eq(nest_buf_append(&raw_bytes, bytes, n), 0);
	}
	*ret = raw_bytes;
}

static bool loads_plainly(const struct nest_buf *artifact)
{
	struct images_result result;

	images_open("try", false);
	images_upload(artifact, &result);
	nest_tree_unref(result.tree);
	images_close();
	return result.tree != NULL;
}

START_TEST(what_is_fuzzed_is_the_same_either_way)
{
	static const char *const names[] = { "sample-gnu.tar", "sample-pax.tar", "sample.tar.gz",
		"sample.tar.zst", "sample.tar.lz4", "sample.zip" };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++) {
		struct nest_buf tar;
		struct nest_buf artifact;

		read_corpus(names[i], &tar);
		/* as it is, with bytes changed, and cut */
		for (size_t at = 0; at < 24; at++) {
			char *bytes = nest_buf_bytes(&tar);
			size_t len = tar.len;

			if (at > 0 && at < 20)
				bytes[at * 211 % tar.len] ^= (char)(1u << at % 8);
			if (at >= 20)
				tar.len = tar.len * (at - 18) / 6;
			images_compress(&tar, &images_cuts[2], &artifact);
			if (loads_plainly(&artifact))
				images_check_both(&artifact, names[i]);
			else
				check_fails(&artifact, names[i]);
			nest_buf_done(&artifact);
			if (at > 0 && at < 20)
				bytes[at * 211 % tar.len] ^= (char)(1u << at % 8);
			tar.len = len;
		}
		nest_buf_done(&tar);
	}
}
END_TEST

START_TEST(damaged_frames_fail_as_they_do_without_images)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_everything(true, &tar);
	images_compress(&tar, &images_cuts[1], &artifact);
	for (size_t i = 1; i < 6; i++) {
		char *byte = nest_buf_bytes(&artifact) + artifact.len * i / 6;

		*byte ^= 0x10;
		check_fails(&artifact, "a flipped bit");
		*byte ^= 0x10;
	}
	artifact.len -= 5;
	check_fails(&artifact, "cut short");
	artifact.len /= 2;
	check_fails(&artifact, "half of it");
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_full_disk_is_told_and_makes_room)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf first;
	struct nest_buf artifact;
	struct images_result result;

	images_fill(images_large, IMAGES_LARGE, true);
	kit_archive("gnutar", NULL,
		(const struct kit_entry[]){
			{ .name = "f", .body = images_large, .size = 1500000 } },
		1, &tar);
	images_compress(&tar, &images_cuts[0], &first);
	nest_buf_done(&tar);
	tar = (struct nest_buf)NEST_BUF_INIT;
	kit_archive("gnutar", NULL,
		(const struct kit_entry[]){
			{ .name = "g", .body = images_large, .size = 2000000 } },
		1, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	kit_mkdir(kit_path("made"));
	kit_mount(kit_path("made"), "mode=0700,size=5m");
	/* the archive and its image have no room beside the first one's image */
	images_open("made", true);
	images_upload(&first, &result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	{
		struct images_result second;

		images_upload(&artifact, &second);
		ck_assert_msg(second.err.code == -ENOSPC, "%d: %s", second.err.code,
			nest_err_text(&second.err));
		ck_assert_uint_eq(kit_count(kit_path("made/staging")), 0);
	}
	nest_tree_unref(result.tree);
	images_upload(&artifact, &result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	nest_tree_unref(result.tree);
	images_close();
	umount2(kit_path("made"), MNT_DETACH);
	nest_buf_done(&first);
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* ---- downloads ---- */

/* A server of the file "a". */
static void serve(const struct nest_buf *artifact)
{
	nest_autodigest struct nest_digest *sum = NULL;

	kit_mkdir(kit_path("files"));
	kit_write(kit_path("files/a"), nest_buf_bytes(artifact), artifact->len, 0644);
	strcpy(images_digest, NEST_DIGEST_PREFIX);
	nest_digest_new(&sum, NULL);
	nest_digest_update(sum, nest_buf_bytes(artifact), artifact->len, NULL);
	nest_digest_final(sum, images_digest + strlen(images_digest), NULL);
	web_serve();
}

/* @size 0: not known. */
static void fetch(const char *mode, const char *digest, uint64_t size, struct images_result *result)
{
	const struct nest_reference reference = {
		.url = web_url_of(mode, "a"), .digest = digest, .size = size
	};

	*result = (struct images_result){ .calls = 0 };
	kit_ok(nest_loader_load(images_loader, &reference, 1, images_on_load, result, &result->err),
		&result->err);
	while (result->calls == 0)
		uv_run(&images_loop, UV_RUN_ONCE);
}

/* A download that fails in the same way whether or not it is becoming an image. */
static void check_fetch_fails(const char *mode, const char *digest)
{
	struct images_result results[2];
	char *bytes[2];

	for (int images = 0; images < 2; images++) {
		images_open("fails", images);
		fetch(mode, digest, 0, &results[images]);
		ck_assert_msg(results[images].tree == NULL, "%s: it was loaded", mode);
		images_close();
		ck_assert_uint_eq(kit_count(kit_path("fails/trees")), 0);
		/* how many bytes were missing is chance */
		bytes[images] = strstr(results[images].err.text, " closed with ");
		if (bytes[images])
			*bytes[images] = '\0';
	}
	ck_assert_msg(results[0].err.code == results[1].err.code &&
			      strcmp(results[0].err.text, results[1].err.text) == 0,
		"%s: %s, without images %s", mode, results[1].err.text, results[0].err.text);
}

START_TEST(a_download_becomes_an_image_as_it_comes)
{
	static const char *const modes[] = { "good", "whole", "drops" };
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	char wanted[65];

	images_everything(true, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_plain(&artifact, wanted);
	serve(&artifact);
	for (size_t i = 0; i < 2 * NEST_ARRAY_SIZE(modes); i++) {
		struct images_result result;
		char hex[65];

		images_open("made", true);
		fetch(modes[i / 2], images_digest, i % 2 ? artifact.len : 0, &result);
		ck_assert_msg(
			result.tree != NULL, "%s: %s", modes[i / 2], nest_err_text(&result.err));
		ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
		{
			nest_autoclose int mounted = images_mount(result.tree);

			images_digest_mounted(mounted, NULL, hex);
		}
		ck_assert_str_eq(hex, wanted);
		nest_tree_unref(result.tree);
		uv_run(&images_loop, UV_RUN_DEFAULT);
		kit_ok(nest_loader_remove(images_loader, images_digest, NULL), NULL);
		images_close();
	}
	web_stop();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_download_that_fits_no_image_is_unpacked)
{
	static const size_t sizes[] = { 1000000, 1000000, (1u << 20) + 1 };
	static const struct made_cut unfit = { .name = "a long one later", .sizes = sizes, .n = 3 };
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct images_result result;
	char wanted[65];
	char hex[65];

	images_everything(true, &tar);
	images_compress(&tar, &unfit, &artifact);
	images_plain(&artifact, wanted);
	serve(&artifact);
	images_open("made", true);
	fetch("drops", images_digest, 0, &result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_DIRECTORY);
	kit_digest_dir(images_path(result.tree), hex);
	ck_assert_str_eq(hex, wanted);
	nest_tree_unref(result.tree);
	images_close();
	check_fetch_fails("good", NEST_DIGEST_PREFIX
		"0000000000000000000000000000000000000000000000000000000000000000");
	web_stop();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_download_that_breaks_fails_as_it_does_without_images)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;

	images_everything(true, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	/* what is behind the tar's end counts too */
	serve(&artifact);
	check_fetch_fails("good", NEST_DIGEST_PREFIX
		"0000000000000000000000000000000000000000000000000000000000000000");
	check_fetch_fails("breaks", images_digest);
	check_fetch_fails("drops_always", images_digest);
	web_stop();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

/* ---- the cache ---- */

static unsigned n_damaged;
static struct nest_loader_verified verified;

static void on_damaged(void *arg, const struct nest_tree *tree)
{
	(void)arg;
	(void)tree;
	n_damaged++;
}

static void on_verified(
	void *arg, const struct nest_loader_verified *totals, const struct nest_err *err)
{
	*(bool *)arg = true;
	ck_assert_msg(!err, "%s", nest_err_text(err));
	verified = *totals;
}

static void verify(void)
{
	bool done = false;

	n_damaged = 0;
	kit_ok(nest_loader_verify(images_loader, on_damaged, on_verified, &done, NULL), NULL);
	uv_run(&images_loop, UV_RUN_DEFAULT);
	ck_assert(done);
}

static void flip(const char *image, uint64_t at)
{
	int fd = open(image, O_RDWR | O_CLOEXEC);
	char byte;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static const char *image_path(const char *digest)
{
	return kit_path("made/trees/%s/" NEST_TREE_IMAGE_NAME, strchr(digest, ':') + 1);
}

START_TEST(an_image_is_still_one_after_a_restart_and_is_verified)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct images_result result;
	nest_autofree char *known = NULL;
	char wanted[65];
	char hex[65];
	struct stat st;

	images_everything(false, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_plain(&artifact, wanted);
	images_load(&artifact, &result);
	ck_assert_int_eq(stat(image_path(images_digest), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0400);
	ck_assert_uint_eq(nest_tree_bytes(result.tree), st.st_size);
	nest_tree_unref(result.tree);
	/* noted in the background: the first verification compares */
	verify();
	ck_assert_uint_eq(verified.trees, 1);
	ck_assert_uint_eq(verified.recorded, 0);
	ck_assert_uint_eq(n_damaged, 0);
	images_close();

	kit_ok(nest_file_read(AT_FDCWD, kit_path("made/trees/%s.json", images_digest + 7), 4096,
		       &known, NULL, NULL),
		NULL);
	ck_assert_ptr_nonnull(strstr(known, "\"image\":true,\"made\":true"));
	images_open("made", true);
	images_upload(&artifact, &result); /* it is there */
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	images_unpack(result.tree, hex); /* as only a made one can be */
	ck_assert_str_eq(hex, wanted);
	nest_tree_unref(result.tree);
	verify();
	ck_assert_uint_eq(verified.trees, 2);
	ck_assert_uint_eq(n_damaged, 0);
	flip(image_path(images_digest), 5000);
	verify();
	ck_assert_uint_eq(n_damaged, 1);
	ck_assert_uint_eq(verified.removed, 1);
	ck_assert_int_lt(access(image_path(images_digest), F_OK), 0);
	images_upload(&artifact, &result);
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	nest_tree_unref(result.tree);
	images_close();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_made_image_can_be_a_layer)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct images_result merged[2];
	struct images_result held;
	struct nest_reference layers[2];
	char hexes[2][65];

	images_everything(false, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	kit_mkdir(kit_path("above"));
	kit_write(kit_path("above/one"), "there\n", 6, 0644);
	kit_write(kit_path("above/more"), "more\n", 5, 0644);
	layers[1] = (struct nest_reference){ .url = kit_path("above") };
	for (int images = 0; images < 2; images++) {
		images_open(images ? "made" : "plain", images);
		images_upload(&artifact, &held);
		ck_assert_int_eq(
			nest_tree_kind(held.tree), images ? NEST_TREE_IMAGE : NEST_TREE_DIRECTORY);
		layers[0] = (struct nest_reference){ .digest = images_digest };
		merged[images] = (struct images_result){ .calls = 0 };
		kit_ok(nest_loader_load(images_loader, layers, 2, images_on_load, &merged[images],
			       &merged[images].err),
			&merged[images].err);
		uv_run(&images_loop, UV_RUN_DEFAULT);
		ck_assert_msg(
			merged[images].tree != NULL, "%s", nest_err_text(&merged[images].err));
		ck_assert_int_eq(nest_tree_kind(merged[images].tree), NEST_TREE_DIRECTORY);
		kit_check_tree(images_path(merged[images].tree));
		kit_digest_dir(images_path(merged[images].tree), hexes[images]);
		nest_tree_unref(merged[images].tree);
		nest_tree_unref(held.tree);
		images_close();
	}
	ck_assert_str_eq(hexes[0], hexes[1]);
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

START_TEST(a_damaged_image_is_not_unpacked)
{
	struct nest_buf tar = NEST_BUF_INIT;
	struct nest_buf artifact;
	struct images_result result;
	static const struct {
		uint64_t at;
		const char *words;
	} rows[] = {
		{ 1024, "no EROFS image" },    /* its magic */
		{ 1024 + 36, "" },	       /* how many blocks it has */
		{ 1024 + 42, "cut short" },    /* where the frames end: far behind the end */
		{ 1024 + 40, "" },	       /* a block earlier or later */
		{ 2 * 4096 + 100, "damaged" }, /* in a frame */
	};

	images_everything(true, &tar);
	images_compress(&tar, &images_cuts[0], &artifact);
	images_load(&artifact, &result);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		struct images_result unpacked = { .calls = 0 };

		flip(image_path(images_digest), rows[i].at);
		kit_ok(nest_loader_unpack(images_loader, result.tree, images_on_load, &unpacked,
			       &unpacked.err),
			&unpacked.err);
		uv_run(&images_loop, UV_RUN_DEFAULT);
		flip(image_path(images_digest), rows[i].at);
		if (rows[i].at == 1024 + 36) {
			nest_tree_unref(unpacked.tree); /* the frames are whole */
			continue;
		}
		ck_assert_msg(!unpacked.tree, "row %zu was unpacked", i);
		ck_assert_int_lt(unpacked.err.code, 0);
		ck_assert_msg(strstr(unpacked.err.text, rows[i].words) != NULL, "row %zu: %s", i,
			unpacked.err.text);
		ck_assert_uint_eq(kit_count(kit_path("made/staging")), 0);
	}
	nest_tree_unref(result.tree);
	images_close();
	nest_buf_done(&artifact);
	nest_buf_done(&tar);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { limits_hold_with_the_same_words,
		hostile_archives_fail_as_they_do_without_images,
		what_is_fuzzed_is_the_same_either_way,
		damaged_frames_fail_as_they_do_without_images, a_full_disk_is_told_and_makes_room,
		a_download_becomes_an_image_as_it_comes, a_download_that_fits_no_image_is_unpacked,
		a_download_that_breaks_fails_as_it_does_without_images,
		an_image_is_still_one_after_a_restart_and_is_verified, a_made_image_can_be_a_layer,
		a_damaged_image_is_not_unpacked };
	TCase *tcase = tcase_create("made_load");

	tcase_add_checked_fixture(tcase, images_enter, kit_leave);
	tcase_set_timeout(tcase, 2 * NEST_SUITE_TIMEOUT_S);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	return nest_suite_run_case("loader/made_load", tcase);
}
