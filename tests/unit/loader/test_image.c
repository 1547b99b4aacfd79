/* SPDX-License-Identifier: Apache-2.0 */
/* EROFS images in the cache, and the cache as a whole: removing, verifying. */
#include "loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/file.h"
#include "loader/reference.h"
#include "loader/tree_image.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

static uv_loop_t loop;
static struct nest_loader *loader;
static const char *const admin_only[] = { "admin", NULL };

struct result {
	unsigned calls;
	struct nest_tree *tree;
	struct nest_err err;
};

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct result *result = arg;

	result->calls++;
	result->tree = tree;
	if (err)
		result->err = *err;
}

static void open_with(const char *const *sources, uint64_t max_tree_bytes)
{
	struct nest_loader_config config = {
		.dir = kit_path("cache"),
		.max_bytes = 64u << 20,
		.max_tree_bytes = max_tree_bytes,
		.max_tree_entries = 1000,
		.image_sources = sources,
	};
	struct nest_err err = NEST_ERR_INIT;

	if (access(config.dir, F_OK) < 0)
		kit_mkdir(config.dir);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	kit_ok(nest_loader_open(&loop, &config, &loader, &err), &err);
}

static void nothing(uv_work_t *work)
{
	(void)work;
}

/* The pool's descriptors are no leak. */
static void enter(void)
{
	uv_work_t work;

	kit_enter();
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	uv_queue_work(&loop, &work, nothing, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	kit_settle();
}

static void close_it(void)
{
	nest_loader_close(loader, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void upload(const void *bytes, size_t n, struct result *result)
{
	struct nest_upload *up;

	*result = (struct result){ .calls = 0 };
	kit_ok(nest_upload_open(loader, 32u << 20, &up, &result->err), &result->err);
	kit_ok(nest_upload_write(up, bytes, n, &result->err), &result->err);
	nest_upload_finish(up, on_load, result);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(result->calls, 1);
}

/* An image made by mkfs.erofs; the caller frees. */
static char *make_image(size_t *ret_n)
{
	char command[512];
	char *bytes;

	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/hello"), "world\n", 6, 0644);
	snprintf(command, sizeof(command), "mkfs.erofs -zlz4hc -x-1 -T0 %s %s >/dev/null 2>&1",
		kit_path("image"), kit_path("in"));
	ck_assert_msg(system(command) == 0, "%s (package erofs-utils)", command);
	kit_ok(nest_file_read(AT_FDCWD, kit_path("image"), 1u << 20, &bytes, ret_n, NULL), NULL);
	return bytes;
}

START_TEST(an_image_is_kept_as_it_is_and_is_still_one_after_a_restart)
{
	size_t n;
	nest_autofree char *bytes = make_image(&n);
	nest_autofree char *kept = NULL;
	char digest[NEST_TREE_DIGEST_LEN];
	struct result result;
	struct stat st;
	char path[64];
	int fd;

	open_with(admin_only, 1u << 20);
	upload(bytes, n, &result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	ck_assert_uint_eq(nest_tree_bytes(result.tree), n);
	snprintf(digest, sizeof(digest), "%s", nest_tree_digest(result.tree));
	nest_tree_unref(result.tree);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	close_it();

	open_with(admin_only, 1u << 20);
	kit_ok(nest_loader_find(loader, digest, &result.tree, &result.err), &result.err);
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_IMAGE);
	kit_ok(nest_tree_open_image(result.tree, &fd, &result.err), &result.err);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0400);
	ck_assert_int_eq(st.st_nlink, 1);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	kit_ok(nest_file_read(AT_FDCWD, path, 1u << 20, &kept, NULL, NULL), NULL);
	ck_assert_mem_eq(kept, bytes, n);
	close(fd);
	nest_tree_unref(result.tree);
	close_it();
}
END_TEST

START_TEST(an_image_of_a_source_that_is_not_named_is_unpacked)
{
	static const char *const other[] = { "https://example.com/", NULL };
	const char *const *const sources[] = { NULL, other };
	size_t n;
	nest_autofree char *bytes = make_image(&n);

	for (size_t i = 0; i < NEST_ARRAY_SIZE(sources); i++) {
		struct result result;
		char digest[NEST_TREE_DIGEST_LEN];
		char content[65];
		char wanted[65];

		open_with(sources[i], 1u << 20);
		upload(bytes, n, &result);
		ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
		ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_DIRECTORY);
		ck_assert_uint_eq(nest_tree_bytes(result.tree), 6);
		snprintf(digest, sizeof(digest), "%s", nest_tree_digest(result.tree));
		kit_digest_dir(kit_path("in"), wanted);
		kit_digest_dir(kit_path("cache/trees/%s", digest + 7), content);
		ck_assert_str_eq(content, wanted);
		nest_tree_unref(result.tree);
		kit_ok(nest_loader_remove(loader, digest, &result.err), &result.err);
		uv_run(&loop, UV_RUN_DEFAULT);
		close_it();
		ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	}
}
END_TEST

START_TEST(images_can_be_layers)
{
	struct nest_reference layers[2];
	size_t n;
	nest_autofree char *bytes = make_image(&n);

	kit_mkdir(kit_path("above"));
	kit_write(kit_path("above/hello"), "there\n", 6, 0644);
	kit_write(kit_path("above/more"), "more\n", 5, 0644);
	layers[0] = (struct nest_reference){ .url = kit_path("image") };
	layers[1] = (struct nest_reference){ .url = kit_path("above") };
	/* though this one could be mounted; then one that is kept for that */
	for (int kept = 0; kept < 2; kept++) {
		struct result result = { .calls = 0 };
		struct result first = { .calls = 0 };
		const char *digest;

		open_with((const char *const[]){ "*", NULL }, 1u << 20);
		if (kept) {
			upload(bytes, n, &first);
			ck_assert_int_eq(nest_tree_kind(first.tree), NEST_TREE_IMAGE);
		}
		kit_ok(nest_loader_load(loader, layers, 2, on_load, &result, &result.err),
			&result.err);
		uv_run(&loop, UV_RUN_DEFAULT);
		ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
		ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_DIRECTORY);
		ck_assert_uint_eq(nest_tree_bytes(result.tree), 11);
		digest = nest_tree_digest(result.tree);
		kit_check_tree(kit_path("cache/trees/%s", digest + 7));
		ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
		nest_tree_unref(result.tree);
		nest_tree_unref(first.tree);
		close_it();
		kit_ok(nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL), NULL);
	}
}
END_TEST

START_TEST(an_image_above_the_limit_is_refused)
{
	size_t n;
	nest_autofree char *bytes = make_image(&n);
	struct result result;

	open_with(admin_only, n - 1);
	upload(bytes, n, &result);
	ck_assert_int_eq(result.err.code, -EFBIG);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	close_it();
}
END_TEST

START_TEST(sources_are_words_or_beginnings_of_urls)
{
	static const char *const some[] = { "https://a.example/x/", "/srv/images/", NULL };
	static const char *const all[] = { "*", NULL };

	ck_assert(!nest_tree_image_allowed(NULL, "admin"));
	ck_assert(nest_tree_image_allowed(admin_only, "admin"));
	ck_assert(!nest_tree_image_allowed(admin_only, "https://admin/x"));
	ck_assert(!nest_tree_image_allowed(admin_only, "administrator"));
	ck_assert(nest_tree_image_allowed(some, "https://a.example/x/y.erofs"));
	ck_assert(nest_tree_image_allowed(some, "/srv/images/y.erofs"));
	ck_assert(!nest_tree_image_allowed(some, "https://a.example.evil/x/y"));
	ck_assert(!nest_tree_image_allowed(some, "https://a.example/"));
	ck_assert(!nest_tree_image_allowed(some, "http://a.example/x/y"));
	ck_assert(!nest_tree_image_allowed(some, "admin"));
	ck_assert(nest_tree_image_allowed(all, "admin"));
	ck_assert(nest_tree_image_allowed(all, "http://b/"));
}
END_TEST

START_TEST(a_superblock_is_believed_in_nothing)
{
	static const struct {
		size_t at;
		unsigned char byte;
		const char *text;
	} rows[] = {
		{ 0, 0, "no EROFS image" },
		{ 12, 13, "blocks of 4096 bytes" },
		{ 39, 1, "cut short" },
		{ 43, 1, "cut short" },
		{ 80, 0x08, "features 0x8" },
		{ 83, 0x80, "features 0x80000000" },
		{ 84, 0x02, "otherwise than by LZ4" },
		{ 87, 1, "other devices" },
	};
	size_t n;
	nest_autofree char *bytes = make_image(&n);
	unsigned char super[NEST_EROFS_BYTES];

	memcpy(super, bytes + NEST_EROFS_OFFSET, sizeof(super));
	kit_ok(nest_erofs_check(super, n, NEST_EROFS_LZ4, NULL), NULL);
	super[80] |= 2; /* what byte 84 means hangs on it */
	super[84] = 1;
	super[85] = 0;
	kit_ok(nest_erofs_check(super, n, NEST_EROFS_LZ4, NULL), NULL);
	ck_assert(!nest_tree_image_is(bytes, NEST_EROFS_OFFSET));
	ck_assert(nest_tree_image_is(bytes, NEST_TREE_IMAGE_LOOK));
	for (size_t i = 0; i < NEST_ARRAY_SIZE(rows); i++) {
		unsigned char hostile[NEST_EROFS_BYTES];
		struct nest_err err = NEST_ERR_INIT;

		memcpy(hostile, super, sizeof(hostile));
		hostile[rows[i].at] = rows[i].byte;
		ck_assert_int_eq(nest_erofs_check(hostile, n, NEST_EROFS_LZ4, &err), -EINVAL);
		ck_assert_msg(strstr(err.text, rows[i].text) != NULL, "%s", err.text);
	}
	ck_assert_int_eq(
		nest_erofs_check(super, n - NEST_EROFS_BLOCK, NEST_EROFS_LZ4, NULL), -EINVAL);
}
END_TEST

/* ---- removing and verifying ---- */

static char damaged[8][NEST_TREE_DIGEST_LEN];
static unsigned ndamaged;
static struct nest_loader_verified verified;
static struct nest_err verify_err;
static unsigned verifications;

static void on_damaged(void *arg, const struct nest_tree *tree)
{
	(void)arg;
	ck_assert_uint_lt(ndamaged, 8);
	snprintf(damaged[ndamaged++], NEST_TREE_DIGEST_LEN, "%s", nest_tree_digest(tree));
}

static void on_verified(
	void *arg, const struct nest_loader_verified *totals, const struct nest_err *err)
{
	(void)arg;
	verifications++;
	verified = *totals;
	if (err)
		verify_err = *err;
}

static void start_verify(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ndamaged = verifications = 0;
	verify_err = (struct nest_err)NEST_ERR_INIT;
	kit_ok(nest_loader_verify(loader, on_damaged, on_verified, NULL, &err), &err);
	ck_assert_uint_eq(verifications, 0);
}

static void verify(void)
{
	start_verify();
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(verifications, 1);
	ck_assert_msg(verify_err.code == 0, "%s", nest_err_text(&verify_err));
}

static void overwrite(const struct nest_tree *tree, const char *name)
{
	const char *path =
		kit_path("cache/trees/%s/%s", strchr(nest_tree_digest(tree), ':') + 1, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, "X", 1, 2), 1);
	close(fd);
}

START_TEST(verifying_finds_what_changed)
{
	static const struct kit_entry entries[] = { { .name = "a", .body = "hello" } };
	struct nest_buf archive = NEST_BUF_INIT;
	size_t n;
	nest_autofree char *bytes = make_image(&n);
	struct result image;
	struct result unpacked;
	struct result imported = { .calls = 0 };

	open_with(admin_only, 1u << 20);
	kit_archive("pax", NULL, entries, 1, &archive);
	upload(bytes, n, &image);
	upload(nest_buf_bytes(&archive), archive.len, &unpacked);
	kit_ok(nest_loader_import_dir(loader, kit_path("in"), on_load, &imported, NULL), NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(image.tree && unpacked.tree && imported.tree);
	verify();
	ck_assert_uint_eq(verified.trees, 3);
	/* what was in the archive was noted before, in the background */
	ck_assert_uint_eq(verified.recorded, 0);
	ck_assert_uint_eq(ndamaged, 0);
	overwrite(image.tree, NEST_TREE_IMAGE_NAME);
	overwrite(unpacked.tree, "a");
	overwrite(imported.tree, "hello");
	nest_tree_unref(image.tree);
	nest_tree_unref(unpacked.tree);
	verify();
	ck_assert_uint_eq(ndamaged, 3);
	ck_assert_uint_eq(verified.removed, 2);
	ck_assert_uint_eq(verified.in_use, 1);
	nest_tree_unref(imported.tree);
	nest_buf_done(&archive);
	close_it();
	ck_assert_uint_eq(
		kit_count(kit_path("cache/trees")), 2); /* one tree and what is known of it */
}
END_TEST

START_TEST(what_was_recorded_outlives_a_restart)
{
	static const struct kit_entry entries[] = { { .name = "a", .body = "hello" } };
	struct nest_buf archive = NEST_BUF_INIT;
	struct result unpacked;

	open_with(NULL, 1u << 20);
	kit_archive("pax", NULL, entries, 1, &archive);
	upload(nest_buf_bytes(&archive), archive.len, &unpacked);
	overwrite(unpacked.tree, "a");
	nest_tree_unref(unpacked.tree);
	close_it();
	open_with(NULL, 1u << 20);
	verify();
	ck_assert_uint_eq(verified.recorded, 0);
	ck_assert_uint_eq(verified.removed, 1);
	nest_buf_done(&archive);
	close_it();
}
END_TEST

/* Takes the record out of what is known of @tree, as an earlier version or a crash leaves it. */
static void forget_record(const char *digest)
{
	const char *path = kit_path("cache/trees/%s.json", digest + 7);
	nest_autofree char *text = NULL;
	char *content;
	size_t n;

	kit_ok(nest_file_read(AT_FDCWD, path, 4096, &text, &n, NULL), NULL);
	content = strstr(text, "\"content\":\"");
	ck_assert_ptr_nonnull(content);
	content += strlen("\"content\":\"");
	ck_assert_uint_eq(strcspn(content, "\""), 64);
	memmove(content, content + 64, strlen(content + 64) + 1);
	kit_write(path, text, strlen(text), 0600);
}

static bool count_refs(void *arg, const struct nest_tree *tree)
{
	*(unsigned *)arg += nest_tree_in_use(tree);
	return true;
}

START_TEST(what_was_not_recorded_is_after_a_restart)
{
	static const struct kit_entry entries[] = { { .name = "a", .body = "hello" } };
	struct nest_buf archive = NEST_BUF_INIT;
	struct result unpacked;
	unsigned in_use = 0;
	char digest[NEST_TREE_DIGEST_LEN];

	open_with(NULL, 1u << 20);
	kit_archive("pax", NULL, entries, 1, &archive);
	upload(nest_buf_bytes(&archive), archive.len, &unpacked);
	snprintf(digest, sizeof(digest), "%s", nest_tree_digest(unpacked.tree));
	nest_tree_unref(unpacked.tree);
	close_it();
	forget_record(digest);
	/* it may be asked for, and removed, while it is read */
	open_with(NULL, 1u << 20);
	nest_loader_each(loader, count_refs, &in_use);
	ck_assert_uint_eq(in_use, 0);
	close_it();
	open_with(NULL, 1u << 20);
	uv_run(&loop, UV_RUN_DEFAULT);
	verify();
	ck_assert_uint_eq(verified.trees, 1);
	ck_assert_uint_eq(verified.recorded, 0);
	close_it();
	forget_record(digest);
	open_with(NULL, 1u << 20);
	kit_ok(nest_loader_remove(loader, digest, NULL), NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	close_it();
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	nest_buf_done(&archive);
}
END_TEST

START_TEST(closing_ends_a_verification)
{
	struct result imported = { .calls = 0 };

	free(make_image(&(size_t){ 0 }));
	open_with(NULL, 1u << 20);
	kit_ok(nest_loader_import_dir(loader, kit_path("in"), on_load, &imported, NULL), NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	nest_tree_unref(imported.tree);
	start_verify();
	close_it();
	ck_assert_uint_eq(verifications, 1);
	ck_assert_int_eq(verify_err.code, -ECANCELED);
}
END_TEST

START_TEST(only_what_nobody_uses_is_removed)
{
	struct result imported = { .calls = 0 };
	struct nest_err err = NEST_ERR_INIT;
	char digest[NEST_TREE_DIGEST_LEN];

	kit_mkdir(kit_path("in"));
	kit_write(kit_path("in/hello"), "world\n", 6, 0644);
	open_with(NULL, 1u << 20);
	kit_ok(nest_loader_import_dir(loader, kit_path("in"), on_load, &imported, NULL), NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	snprintf(digest, sizeof(digest), "%s", nest_tree_digest(imported.tree));
	ck_assert(nest_tree_in_use(imported.tree));
	ck_assert_int_eq(nest_loader_remove(loader, digest, &err), -EBUSY);
	nest_tree_unref(imported.tree);
	kit_ok(nest_loader_remove(loader, digest, &err), &err);
	ck_assert_int_eq(nest_loader_remove(loader, digest, &err), 1);
	ck_assert_int_eq(nest_loader_remove(loader, "sha256:x", &err), -EINVAL);
	close_it();
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
}
END_TEST

NEST_SUITE_WITH("loader/image", enter, kit_leave,
	an_image_is_kept_as_it_is_and_is_still_one_after_a_restart,
	an_image_of_a_source_that_is_not_named_is_unpacked, images_can_be_layers,
	an_image_above_the_limit_is_refused, sources_are_words_or_beginnings_of_urls,
	a_superblock_is_believed_in_nothing, verifying_finds_what_changed,
	what_was_recorded_outlives_a_restart, what_was_not_recorded_is_after_a_restart,
	closing_ends_a_verification, only_what_nobody_uses_is_removed)
