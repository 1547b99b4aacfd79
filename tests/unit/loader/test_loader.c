/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/beneath.h"
#include "loader/cache.h"
#include "loader/copy.h"
#include "loader/draft.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

static uv_loop_t loop;
static struct nest_loader *loader;
static bool closed;

/* One asked-for load and its answer. */
struct result {
	unsigned calls;
	int code;
	struct nest_tree *tree;
	struct nest_err err;
};

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct result *result = arg;

	result->calls++;
	result->tree = tree;
	ck_assert_msg((tree == NULL) == (err != NULL), "either a tree or an error");
	if (err)
		result->err = *err;
	result->code = err ? err->code : 0;
}

static void on_closed(void *arg)
{
	(void)arg;
	closed = true;
}

static void open_cold(uint64_t max_bytes)
{
	struct nest_loader_config config = {
		.dir = kit_path("cache"),
		.max_bytes = max_bytes,
		.max_tree_bytes = 64u << 20,
		.max_tree_entries = 20000,
	};
	struct nest_err err = NEST_ERR_INIT;

	if (access(config.dir, F_OK) < 0)
		kit_mkdir(config.dir);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	kit_ok(nest_loader_open(&loop, &config, &loader, &err), &err);
	closed = false;
}

static void nothing(uv_work_t *work)
{
	(void)work;
}

/* The pool's threads must see the test's mount, and their descriptors are no leak. */
static void warm_up(void)
{
	static bool warm;
	uv_work_t work;

	if (warm)
		return;
	warm = true;
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	uv_queue_work(&loop, &work, nothing, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	kit_settle();
}

static void open_with(uint64_t max_bytes)
{
	warm_up();
	open_cold(max_bytes);
}

static void close_it(void)
{
	nest_loader_close(loader, on_closed, NULL);
	ck_assert(!closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(closed);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void upload_bytes(const void *bytes, size_t n, struct result *result)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_upload *upload;

	memset(result, 0, sizeof(*result));
	kit_ok(nest_upload_open(loader, 64u << 20, &upload, &err), &err);
	for (size_t at = 0; at < n; at += 1000)
		kit_ok(nest_upload_write(upload, (const char *)bytes + at,
			       n - at < 1000 ? n - at : 1000, &err),
			&err);
	nest_upload_finish(upload, on_load, result);
	ck_assert_uint_eq(result->calls, 0);
}

/* Starts the upload of a tar with one file of @size bytes; equal names give equal digests. */
static void upload(const char *name, size_t size, struct result *result)
{
	struct nest_buf buf = NEST_BUF_INIT;

	kit_tar_entry(&buf, name, '0', size, NULL, true);
	kit_tar_end(&buf);
	upload_bytes(nest_buf_bytes(&buf), buf.len, result);
	nest_buf_done(&buf);
}

static void expect_tree(struct result *result)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(result->calls, 1);
	ck_assert_msg(result->tree != NULL, "%s", nest_err_text(&result->err));
}

static struct nest_loader_stats stats(void)
{
	struct nest_loader_stats ret;

	nest_loader_stats(loader, &ret);
	return ret;
}

static void check_tree(const struct nest_tree *tree)
{
	kit_check_tree(kit_path("cache/trees/%s", nest_tree_digest(tree) + strlen("sha256:")));
}

START_TEST(an_upload_becomes_a_tree)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result result;
	struct stat st;
	int fd;

	umask(0077);
	open_with(1u << 30);
	upload("a/b", 5, &result);
	expect_tree(&result);
	check_tree(result.tree);
	ck_assert_uint_eq(nest_tree_bytes(result.tree), 5);
	ck_assert_int_eq(nest_tree_open(result.tree, &fd, &err), 0);
	ck_assert_int_eq(fstatat(fd, "a/b", &st, 0), 0);
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_int_ge(fcntl(fd, F_GETFD) & FD_CLOEXEC, 1);
	close(fd);
	ck_assert_uint_eq(stats().trees, 1);
	ck_assert_uint_eq(stats().misses_total, 1);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	nest_tree_unref(result.tree);
	close_it();
}
END_TEST

START_TEST(the_digest_is_that_of_the_archive)
{
	struct nest_err err = NEST_ERR_INIT;
	nest_autofree char *bytes = NULL;
	struct nest_tree *tree = NULL;
	struct result result;
	size_t n;

	kit_ok(nest_file_read(AT_FDCWD, KIT_CORPUS "/sample.tar.gz", 1u << 20, &bytes, &n, &err),
		&err);
	open_with(1u << 30);
	upload_bytes(bytes, n, &result);
	expect_tree(&result);
	ck_assert_str_eq(nest_tree_digest(result.tree),
		"sha256:03bd8731ff13a0c811cf0ee8666e4852b0013fb7e57e46a412b4eed89b948702");
	ck_assert_int_eq(nest_loader_find(loader, nest_tree_digest(result.tree), &tree, &err), 0);
	ck_assert_ptr_eq(tree, result.tree);
	nest_tree_unref(tree);
	nest_tree_unref(result.tree);
	ck_assert_int_eq(nest_loader_find(loader,
				 "sha256:"
				 "0000000000000000000000000000000000000000000000000000000000000000",
				 &tree, &err),
		1);
	ck_assert_int_eq(nest_loader_find(loader, "sha256:00", &tree, &err), -EINVAL);
	ck_assert_int_eq(nest_loader_find(loader, "md5:00", &tree, &err), -EINVAL);
	close_it();
}
END_TEST

START_TEST(the_same_content_at_once_is_made_once)
{
	struct result results[20];

	open_with(1u << 30);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(results); i++)
		upload("a", 100000, &results[i]);
	uv_run(&loop, UV_RUN_DEFAULT);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(results); i++) {
		ck_assert_uint_eq(results[i].calls, 1);
		ck_assert_ptr_eq(results[i].tree, results[0].tree);
	}
	ck_assert_uint_eq(stats().misses_total, 1);
	ck_assert_uint_eq(stats().hits_total, NEST_ARRAY_SIZE(results) - 1);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(results); i++)
		nest_tree_unref(results[i].tree);
	upload("a", 100000, &results[0]);
	expect_tree(&results[0]);
	ck_assert_uint_eq(stats().misses_total, 1);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	nest_tree_unref(results[0].tree);
	close_it();
}
END_TEST

START_TEST(the_same_directory_is_stored_once)
{
	struct result results[3] = { 0 };
	struct nest_err err = NEST_ERR_INIT;

	open_with(1u << 30);
	kit_mkdir(kit_path("a"));
	kit_write(kit_path("a/f"), "x", 1, 0600);
	kit_mkdir(kit_path("b"));
	kit_write(kit_path("b/f"), "x", 1, 0644);
	for (int i = 0; i < 3; i++)
		kit_ok(nest_loader_import_dir(
			       loader, kit_path(i < 2 ? "a" : "b"), on_load, &results[i], &err),
			&err);
	ck_assert_uint_eq(results[0].calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	for (int i = 0; i < 3; i++) {
		ck_assert_msg(results[i].tree, "%s", nest_err_text(&results[i].err));
		ck_assert_ptr_eq(results[i].tree, results[0].tree);
	}
	check_tree(results[0].tree);
	ck_assert_uint_eq(stats().misses_total, 1);
	ck_assert_uint_eq(stats().hits_total, 2);
	for (int i = 0; i < 3; i++)
		nest_tree_unref(results[i].tree);
	close_it();
}
END_TEST

START_TEST(failures_are_told_and_leave_nothing)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result results[2] = { 0 };

	open_with(1u << 30);
	upload_bytes("no archive at all", 17, &results[0]);
	kit_ok(nest_loader_import_dir(loader, kit_path("none"), on_load, &results[1], &err), &err);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(results[0].code, -EBADMSG);
	ck_assert_int_eq(results[1].code, -ENOENT);
	ck_assert_msg(
		strstr(results[1].err.text, "import directory '/"), "%s", results[1].err.text);
	ck_assert_uint_eq(stats().failures_total, 2);
	ck_assert_uint_eq(stats().trees, 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	close_it();
}
END_TEST

START_TEST(an_upload_above_its_limit_or_aborted_leaves_nothing)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_upload *upload = NULL;
	struct result result = { 0 };

	open_with(1u << 30);
	kit_ok(nest_upload_open(loader, 10, &upload, &err), &err);
	kit_ok(nest_upload_write(upload, "0123456789", 10, &err), &err);
	ck_assert_int_eq(nest_upload_write(upload, "x", 1, &err), -EFBIG);
	ck_assert_str_eq(err.text, "archive larger than 10 bytes");
	ck_assert_int_eq(nest_upload_write(upload, "", 0, &err), -EFBIG);
	nest_upload_abort(upload);
	kit_ok(nest_upload_open(loader, 10, &upload, &err), &err);
	ck_assert_int_eq(nest_upload_write(upload, "01234567890", 11, &err), -EFBIG);
	nest_upload_finish(upload, on_load, &result);
	ck_assert_uint_eq(result.calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(result.code, -EFBIG);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	close_it();
}
END_TEST

START_TEST(eviction_takes_the_least_recently_used_and_never_what_is_in_use)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result results[6];
	char digests[6][NEST_TREE_DIGEST_LEN];
	struct nest_tree *tree;
	char name[8];

	open_with(350000);
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		upload(name, 100000, &results[i]);
		expect_tree(&results[i]);
		strcpy(digests[i], nest_tree_digest(results[i].tree));
		if (i != 0)
			nest_tree_unref(results[i].tree);
		/* The second is used again, so that the third is the oldest. */
		if (i == 2) {
			ck_assert_int_eq(nest_loader_find(loader, digests[1], &tree, &err), 0);
			nest_tree_unref(tree);
		}
		if (i == 3)
			ck_assert_int_eq(nest_loader_find(loader, digests[2], &tree, &err), 1);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	check_tree(results[0].tree);
	ck_assert_uint_le(stats().bytes, 350000);
	ck_assert_uint_eq(stats().trees, 3);
	ck_assert_uint_eq(stats().evictions_total, 3);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 6);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	nest_tree_unref(results[0].tree);
	close_it();
}
END_TEST

START_TEST(what_is_over_the_limit_goes_when_it_is_no_longer_used)
{
	struct result results[2];

	open_with(150000);
	upload("a", 100000, &results[0]);
	expect_tree(&results[0]);
	upload("b", 100000, &results[1]);
	expect_tree(&results[1]);
	ck_assert_uint_eq(stats().trees, 2);
	nest_tree_unref(results[0].tree);
	ck_assert_uint_eq(stats().trees, 1);
	check_tree(results[1].tree);
	nest_tree_unref(results[1].tree);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	close_it();
}
END_TEST

START_TEST(trees_survive_a_restart_in_their_order)
{
	struct nest_err err = NEST_ERR_INIT;
	char digests[3][NEST_TREE_DIGEST_LEN];
	struct nest_tree *tree = NULL;
	struct result result;
	char name[8];

	open_with(1u << 30);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		upload(name, 100000, &result);
		expect_tree(&result);
		strcpy(digests[i], nest_tree_digest(result.tree));
		nest_tree_unref(result.tree);
	}
	ck_assert_int_eq(nest_loader_find(loader, digests[0], &tree, &err), 0);
	nest_tree_unref(tree);
	close_it();
	open_with(250000);
	ck_assert_uint_eq(stats().trees, 2);
	ck_assert_int_eq(nest_loader_find(loader, digests[1], &tree, &err), 1);
	ck_assert_int_eq(nest_loader_find(loader, digests[2], &tree, &err), 0);
	nest_tree_unref(tree);
	ck_assert_int_eq(nest_loader_find(loader, digests[0], &tree, &err), 0);
	ck_assert_uint_eq(nest_tree_bytes(tree), 100000);
	check_tree(tree);
	nest_tree_unref(tree);
	close_it();
}
END_TEST

START_TEST(leftovers_are_removed_at_open)
{
	static const char hex[] =
		"abababababababababababababababababababababababababababababababab";
	struct result result;

	open_with(1u << 30);
	upload("a", 10, &result);
	expect_tree(&result);
	nest_tree_unref(result.tree);
	close_it();
	kit_mkdir(kit_path("cache/staging/draft-0"));
	kit_write(kit_path("cache/staging/draft-0/f"), "x", 1, 0600);
	kit_write(kit_path("cache/staging/upload-1"), "x", 1, 0600);
	kit_mkdir(kit_path("cache/trees/%s", hex));
	kit_write(kit_path("cache/trees/%.63sc.json", hex), "{}", 2, 0600);
	kit_mkdir(kit_path("cache/trees/%.63sd", hex));
	kit_write(kit_path("cache/trees/%.63sd.json", hex), "{\"format\":1}", 12, 0600);
	kit_write(kit_path("cache/trees/%.63se", hex), "x", 1, 0600);
	kit_mkdir(kit_path("cache/trees/what"));
	open_with(1u << 30);
	ck_assert_uint_eq(stats().trees, 1);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 2);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	close_it();
}
END_TEST

/* What a power cut between the two steps of publishing leaves: the tree is there, but not settled. */
START_TEST(a_tree_that_was_placed_but_not_settled_is_gone_after_a_crash)
{
	static const char *const hexes[] = {
		"abababababababababababababababababababababababababababababababab",
		"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
	};
	const struct nest_draft_totals totals = { .bytes = 1, .entries = 1, .disk = 8192 };
	struct nest_cache *cache;

	kit_mkdir(kit_path("cache"));
	kit_ok(nest_cache_open(kit_path("cache"), 1u << 30, &cache, NULL), NULL);
	for (size_t i = 0; i < 2; i++) {
		kit_mkdir(kit_path("cache/staging/draft"));
		kit_write(kit_path("cache/staging/draft/f"), "x", 1, 0644);
		kit_ok(nest_cache_place(cache, "draft", hexes[i], NULL), NULL);
		ck_assert_int_eq(access(kit_path("cache/trees/%s/f", hexes[i]), F_OK), 0);
	}
	kit_ok(nest_cache_settle(cache, hexes[1], &totals, NULL), NULL);
	nest_cache_unref(cache);
	kit_ok(nest_cache_open(kit_path("cache"), 1u << 30, &cache, NULL), NULL);
	ck_assert_ptr_null(nest_cache_find(cache, hexes[0]));
	ck_assert_ptr_nonnull(nest_cache_find(cache, hexes[1]));
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 2);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	nest_cache_unref(cache);
}
END_TEST

START_TEST(a_cache_is_opened_once_and_must_be_ours_alone)
{
	struct nest_loader_config config = { .dir = kit_path("cache"), .max_bytes = 1 };
	struct nest_loader *second = NULL;
	struct nest_err err = NEST_ERR_INIT;

	open_with(1);
	ck_assert_int_eq(nest_loader_open(&loop, &config, &second, &err), -EBUSY);
	ck_assert_msg(strstr(err.text, "another process uses it"), "%s", err.text);
	close_it();
	ck_assert_int_eq(chmod(config.dir, 0755), 0);
	ck_assert_int_eq(nest_loader_open(&loop, &config, &second, &err), -EPERM);
	ck_assert_msg(strstr(err.text, "mode is 0755 and must be 0700"), "%s", err.text);
	ck_assert_int_eq(rmdir(kit_path("cache/trees")), 0);
	ck_assert_int_eq(rmdir(kit_path("cache/staging")), 0);
	ck_assert_int_eq(rmdir(config.dir), 0);
	ck_assert_int_eq(nest_loader_open(&loop, &config, &second, &err), -ENOENT);
}
END_TEST

START_TEST(closing_cancels_what_is_under_way)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_upload *late = NULL;
	struct result results[8];
	struct result import = { 0 };
	struct result finished = { 0 };
	char name[8];

	open_with(1u << 30);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(results); i++) {
		/* The last ones join the first ones. */
		snprintf(name, sizeof(name), "f%zu", i % 6);
		upload(name, 3000000, &results[i]);
	}
	kit_ok(nest_loader_import_dir(loader, "/usr/bin", on_load, &import, &err), &err);
	kit_ok(nest_upload_open(loader, 100, &late, &err), &err);
	nest_loader_close(loader, on_closed, NULL);
	ck_assert_int_eq(nest_upload_write(late, "x", 1, &err), -ECANCELED);
	ck_assert_int_eq(nest_loader_import_dir(loader, "/", on_load, &import, &err), -ECANCELED);
	nest_upload_finish(late, on_load, &finished);
	ck_assert_uint_eq(finished.calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(closed);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(results); i++) {
		ck_assert_uint_eq(results[i].calls, 1);
		ck_assert_int_eq(results[i].code, -ECANCELED);
	}
	ck_assert_int_eq(import.code, -ECANCELED);
	ck_assert_int_eq(finished.code, -ECANCELED);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
}
END_TEST

START_TEST(a_tree_may_outlive_its_loader)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result result;
	int fd = -1;

	open_with(1);
	upload("a", 10, &result);
	expect_tree(&result);
	close_it();
	kit_ok(nest_tree_open(result.tree, &fd, &err), &err);
	close(fd);
	nest_tree_unref(nest_tree_ref(result.tree));
	nest_tree_unref(result.tree);
}
END_TEST

START_TEST(a_full_disk_evicts_what_is_unused_and_then_is_an_error)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result held;
	struct result result;
	struct nest_upload *late;
	static char block[100000];
	int rc = 0;

	kit_mkdir(kit_path("cache"));
	kit_mount(kit_path("cache"), "size=4m,mode=0700");
	open_with(1u << 30);
	upload("held", 500000, &held);
	expect_tree(&held);
	upload("old", 1200000, &result);
	expect_tree(&result);
	nest_tree_unref(result.tree);
	/* 1.4 MB as an archive and 1.4 as a tree: there is room for one of them only. */
	upload("new", 1400000, &result);
	expect_tree(&result);
	ck_assert_uint_eq(stats().evictions_total, 1);
	check_tree(held.tree);
	check_tree(result.tree);
	/* With both in use nothing is left to evict. */
	{
		struct result failed;

		upload("big", 1400000, &failed);
		uv_run(&loop, UV_RUN_DEFAULT);
		ck_assert_msg(failed.code == -ENOSPC, "%s", nest_err_text(&failed.err));
		ck_assert_msg(
			strstr(failed.err.text, "nothing unused to evict"), "%s", failed.err.text);
	}
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	/* An upload too makes room, as long as there is something to evict. */
	nest_tree_unref(result.tree);
	kit_ok(nest_upload_open(loader, 64u << 20, &late, &err), &err);
	for (int i = 0; rc == 0 && i < 100; i++)
		rc = nest_upload_write(late, block, sizeof(block), &err);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_eq(stats().evictions_total, 2);
	nest_upload_abort(late);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
	nest_tree_unref(held.tree);
	close_it();
	ck_assert_int_eq(umount(kit_path("cache")), 0);
}
END_TEST

/* In a child: loads one small tree after another, until it is killed. */
static void load_for_ever(void)
{
	struct result result;
	char name[16];

	open_cold(400000);
	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		upload(name, 50000, &result);
		expect_tree(&result);
		nest_tree_unref(result.tree);
	}
}

/* Every tree that is left holds one file, and all of it. */
static void check_all_trees(void)
{
	nest_autoclosedir DIR *dir = opendir(kit_path("cache/trees"));
	const struct dirent *entry;

	ck_assert(dir);
	while ((entry = readdir(dir))) {
		nest_autofree char *path = NULL;
		struct nest_draft_limits limits = { .max_bytes = 50000, .max_entries = 1 };
		struct nest_err err = NEST_ERR_INIT;
		char hex[65];

		if (strchr(entry->d_name, '.'))
			continue;
		ck_assert_int_gt(
			asprintf(&path, "%s/%s", kit_path("cache/trees"), entry->d_name), 0);
		kit_check_tree(path);
		ck_assert_uint_eq(kit_count(path), 1);
		kit_ok(nest_copy_dir(path, &limits, NULL, hex, &err), &err);
	}
}

/* The pool is used by the children only: they are forked while there is one thread. */
START_TEST(a_killed_host_leaves_a_whole_cache)
{
	unsigned most = 0;
	unsigned seed = 1;

	/* libuv makes a pipe with the first loop, and keeps it. */
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	kit_settle();
	for (int round = 0; round < 12; round++) {
		struct timespec wait = { .tv_nsec = rand_r(&seed) % 30000000 };
		pid_t child = fork();
		unsigned trees;
		int status;

		ck_assert_int_ge(child, 0);
		if (child == 0)
			load_for_ever();
		/* Any moment will do: this is the point of the test, not a synchronisation. */
		nanosleep(&wait, NULL);
		kill(child, SIGKILL);
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		open_cold(1u << 30);
		trees = (unsigned)stats().trees;
		most = trees > most ? trees : most;
		ck_assert_uint_eq(stats().bytes, trees * (13u * 4096 + 4096));
		ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
		ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 2 * trees);
		check_all_trees();
		close_it();
	}
	ck_assert_uint_gt(most, 0);
}
END_TEST

START_TEST(another_user_can_read_a_tree_that_is_handed_to_it)
{
	struct nest_err err = NEST_ERR_INIT;
	struct result result;
	char byte = 0;
	int tree_fd = -1;
	int fd;

	umask(0077);
	open_with(1u << 30);
	upload("d/f", 3, &result);
	expect_tree(&result);
	kit_ok(nest_tree_open(result.tree, &tree_fd, &err), &err);
	ck_assert_int_eq(seteuid(65534), 0);
	fd = nest_beneath_open(tree_fd, "d/f", O_RDONLY);
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, &byte, 1), 1);
	ck_assert_int_eq(byte, 'x');
	close(fd);
	close(tree_fd);
	nest_tree_unref(result.tree);
	close_it();
}
END_TEST

/* A cache with a file system of its own, and a tree in it. */
static void open_on_a_disk(struct result *ret_held)
{
	kit_mkdir(kit_path("cache"));
	kit_mount(kit_path("cache"), "mode=0700");
	open_with(1u << 30);
	upload("held", 500000, ret_held);
	expect_tree(ret_held);
}

static void remount(unsigned long flags)
{
	ck_assert_int_eq(mount(NULL, kit_path("cache"), NULL,
				 MS_REMOUNT | MS_NOSUID | MS_NODEV | flags, "mode=0700"),
		0);
}

START_TEST(a_disk_that_turns_read_only_serves_what_it_holds)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_upload *refused;
	struct result held;
	struct result again;

	open_on_a_disk(&held);
	remount(MS_RDONLY);
	ck_assert_int_eq(nest_upload_open(loader, 64u << 20, &refused, &err), -EROFS);
	ck_assert_msg(
		strstr(nest_err_text(&err), "ead-only file system"), "%s", nest_err_text(&err));
	check_tree(held.tree);
	remount(0);
	upload("more", 500000, &again);
	expect_tree(&again);
	nest_tree_unref(held.tree);
	nest_tree_unref(again.tree);
	close_it();
	ck_assert_int_eq(umount(kit_path("cache")), 0);
}
END_TEST

START_TEST(a_cache_on_a_read_only_disk_serves_what_it_holds)
{
	struct nest_err err = NEST_ERR_INIT;
	char digest[NEST_TREE_DIGEST_LEN];
	struct nest_tree *tree = NULL;
	struct result held;

	open_on_a_disk(&held);
	strcpy(digest, nest_tree_digest(held.tree));
	nest_tree_unref(held.tree);
	close_it();
	remount(MS_RDONLY);
	open_with(1u << 30);
	ck_assert_int_eq(nest_loader_find(loader, digest, &tree, &err), 0);
	check_tree(tree);
	nest_tree_unref(tree);
	close_it();
	ck_assert_int_eq(umount(kit_path("cache")), 0);
}
END_TEST

NEST_SUITE_WITH("loader/loader", kit_enter, kit_leave, an_upload_becomes_a_tree,
	the_digest_is_that_of_the_archive, the_same_content_at_once_is_made_once,
	the_same_directory_is_stored_once, failures_are_told_and_leave_nothing,
	an_upload_above_its_limit_or_aborted_leaves_nothing,
	eviction_takes_the_least_recently_used_and_never_what_is_in_use,
	what_is_over_the_limit_goes_when_it_is_no_longer_used,
	trees_survive_a_restart_in_their_order, leftovers_are_removed_at_open,
	a_tree_that_was_placed_but_not_settled_is_gone_after_a_crash,
	a_cache_is_opened_once_and_must_be_ours_alone, closing_cancels_what_is_under_way,
	a_tree_may_outlive_its_loader, a_full_disk_evicts_what_is_unused_and_then_is_an_error,
	a_disk_that_turns_read_only_serves_what_it_holds,
	a_cache_on_a_read_only_disk_serves_what_it_holds, a_killed_host_leaves_a_whole_cache,
	another_user_can_read_a_tree_that_is_handed_to_it)
