/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/loader/images.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <archive_entry.h>
#include <check.h>
#include <curl/curl.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "loader/tree_image.h"

#define FAR 4102444800 /* a time to come */

uv_loop_t images_loop;
struct nest_loader *images_loader;
struct nest_loader_config images_config;
char images_digest[NEST_TREE_DIGEST_LEN];

void images_on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct images_result *result = arg;

	result->calls++;
	result->tree = tree;
	if (err)
		result->err = *err;
}

static void nothing(uv_work_t *work)
{
	(void)work;
}

/* The pool's and libcurl's descriptors are no leak. */
void images_enter(void)
{
	static const char *const anywhere[] = { "*", NULL };
	uv_work_t work;

	signal(SIGPIPE, SIG_IGN);
	kit_enter();
	ck_assert_int_eq(curl_global_init(CURL_GLOBAL_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_init(&images_loop), 0);
	uv_queue_work(&images_loop, &work, nothing, NULL);
	uv_run(&images_loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&images_loop), 0);
	kit_settle();
	images_config = (struct nest_loader_config){
		.max_bytes = 256u << 20,
		.max_tree_bytes = 64u << 20,
		.max_tree_entries = 20000,
		.image_sources = anywhere,
		.fetch = {
			.connections = 2,
			.timeout_ms = 15000,
			.connect_timeout_ms = 3000,
			.stall_ms = 1000,
			.retries = 2,
			.backoff_ms = 5,
			.max_bytes = 64u << 20,
		},
	};
}

/* A loader of its own cache @name, that makes images or doesn't. */
void images_open(const char *name, bool zstd_images)
{
	struct nest_err err = NEST_ERR_INIT;

	images_config.dir = kit_path("%s", name);
	images_config.zstd_images = zstd_images;
	if (access(images_config.dir, F_OK) < 0)
		kit_mkdir(images_config.dir);
	ck_assert_int_eq(uv_loop_init(&images_loop), 0);
	kit_ok(nest_loader_open(&images_loop, &images_config, &images_loader, &err), &err);
}

void images_close(void)
{
	nest_loader_close(images_loader, NULL, NULL);
	uv_run(&images_loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&images_loop), 0);
	ck_assert_uint_eq(
		kit_count(kit_path("%s/staging", strrchr(images_config.dir, '/') + 1)), 0);
}

void images_upload(const struct nest_buf *artifact, struct images_result *result)
{
	struct nest_upload *up;

	*result = (struct images_result){ .calls = 0 };
	kit_ok(nest_upload_open(images_loader, 64u << 20, &up, &result->err), &result->err);
	kit_ok(nest_upload_write(up, nest_buf_bytes(artifact), artifact->len, &result->err),
		&result->err);
	nest_upload_finish(up, images_on_load, result);
	uv_run(&images_loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(result->calls, 1);
	if (result->tree)
		strcpy(images_digest, nest_tree_digest(result->tree));
}

const char *images_path(const struct nest_tree *tree)
{
	return kit_path("%s/trees/%s", strrchr(images_config.dir, '/') + 1,
		strchr(nest_tree_digest(tree), ':') + 1);
}

/* ---- the kernel's view ---- */

/* A copy of the image without a name, on a file system from which it can be mounted. */
static int copy_image(const struct nest_tree *tree)
{
	nest_autofree char *bytes = NULL;
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int from = -1;
	int to = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char path[32];
	size_t n;
	const char *fault;

	ck_assert_msg(to >= 0, "/var/tmp: %s", strerror(errno));
	kit_ok(nest_tree_open_image(tree, &from, &err), &err);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", from);
	kit_ok(nest_file_read(AT_FDCWD, path, 128u << 20, &bytes, &n, &err), &err);
	fault = made_fault(bytes, n);
	ck_assert_msg(!fault, "the image has %s", fault);
	ck_assert_int_eq(write(to, bytes, n), (ssize_t)n);
	return to;
}

/* The image mounted nowhere: its descriptor. */
int images_mount(const struct nest_tree *tree)
{
	nest_autoclose int file = copy_image(tree);
	nest_autoclose int fs = fsopen("erofs", FSOPEN_CLOEXEC);
	char path[32];
	char said[256] = "";
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	ck_assert_msg(fs >= 0, "fsopen: %s", strerror(errno));
	ck_assert_int_eq(fsconfig(fs, FSCONFIG_SET_STRING, "source", path, 0), 0);
	rc = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	ck_assert(rc == 0 || read(fs, said, sizeof(said) - 1) > 0);
	ck_assert_msg(rc == 0, "mount the image: %s %s", strerror(errno), said);
	rc = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	ck_assert_int_ge(rc, 0);
	return rc;
}

static const char *walk_top;
static int walk_mount;
static time_t walk_since;

/* An entry of the directory as the mount shows it: all that a digest doesn't tell. */
static int compare_entry(const char *path, const struct stat *st, int flag, struct FTW *at)
{
	const char *name = path + strlen(walk_top);
	struct stat found;

	(void)at;
	(void)flag;
	name += *name == '/';
	ck_assert_msg(fstatat(walk_mount, name, &found, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) == 0,
		"'%s': %s", name, strerror(errno));
	ck_assert_msg(found.st_mode == st->st_mode, "'%s' has mode %o, not %o", name, found.st_mode,
		st->st_mode);
	ck_assert_msg(found.st_uid == 0 && found.st_gid == 0, "'%s' has another owner", name);
	ck_assert_msg(found.st_ino != 0, "'%s' has no number", name);
	if (S_ISDIR(st->st_mode))
		return 0;
	ck_assert_msg(found.st_size == st->st_size, "'%s' has another size", name);
	ck_assert_msg(found.st_nlink == st->st_nlink, "'%s' has %u names, not %u", name,
		(unsigned)found.st_nlink, (unsigned)st->st_nlink);
	ck_assert_msg(found.st_size == 0 || found.st_blocks > 0, "'%s' looks like a hole", name);
	ck_assert_msg(
		found.st_mtim.tv_sec == st->st_mtim.tv_sec ||
			(found.st_mtim.tv_sec >= walk_since && found.st_mtim.tv_sec <= time(NULL)),
		"'%s' has time %lld, not %lld", name, (long long)found.st_mtim.tv_sec,
		(long long)st->st_mtim.tv_sec);
	return 0;
}

/* The digest of what is mounted, which is held against the directory @path (NULL: against none). */
void images_digest_mounted(int mounted, const char *path, char ret_hex[65])
{
	char proc[32];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", mounted);
	kit_digest_dir(proc, ret_hex);
	if (!path)
		return;
	walk_top = path;
	walk_mount = mounted;
	walk_since = time(NULL) - 60;
	ck_assert_int_eq(nftw(path, compare_entry, 16, FTW_PHYS), 0);
}

void images_unpack(struct nest_tree *tree, char ret_hex[65])
{
	struct images_result result = { .calls = 0 };

	kit_ok(nest_loader_unpack(images_loader, tree, images_on_load, &result, &result.err),
		&result.err);
	ck_assert_uint_eq(result.calls, 0);
	uv_run(&images_loop, UV_RUN_DEFAULT);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_DIRECTORY);
	ck_assert_str_ne(nest_tree_digest(result.tree), nest_tree_digest(tree));
	kit_check_tree(images_path(result.tree));
	kit_digest_dir(images_path(result.tree), ret_hex);
	nest_tree_unref(result.tree);
}

/* ---- archives ---- */

/* As nestctl cuts them, and others that an image can hold. */
static const size_t of_nestctl[] = { (1u << 20) - 4096 };
static const size_t odd[] = { 1000003 };
static const size_t small[] = { 5000 };
static const size_t smallest[] = { 4097 };
static const size_t mixed[] = { 0, 70001, 0, 0, 4096, 1 << 20, 4100 };
static const size_t raw[] = { 1000000, 8191 };
const struct made_cut images_cuts[IMAGES_CUTS] = {
	{ .name = "nestctl", .sizes = of_nestctl, .n = 1 },
	{ .name = "odd", .sizes = odd, .n = 1 },
	{ .name = "small", .sizes = small, .n = 1 },
	{ .name = "smallest", .sizes = smallest, .n = 1 },
	{ .name = "mixed", .sizes = mixed, .n = NEST_ARRAY_SIZE(mixed) },
	{ .name = "with others between", .sizes = odd, .n = 1, .skippable = true },
	{ .name = "with a window", .sizes = raw, .n = 1, .window_bits = 20 },
};

void images_fill(char *bytes, size_t n, bool random)
{
	uint32_t state = 12345;

	for (size_t i = 0; i < n; i++) {
		state = state * 1664525 + 1013904223;
		bytes[i] = random ? (char)(state >> 24) : (char)('a' + i / 100 % 26);
	}
}

char images_large[IMAGES_LARGE];
char images_medium[IMAGES_MEDIUM];
static char long_target[4096];
static char long_name[300];
static char deep_name[1200];

static const struct kit_entry everything[] = {
	{ .name = "./", .type = AE_IFDIR, .mode = 0700 },
	{ .name = "empty", .mtime = 1000000000 },
	{ .name = "large", .body = images_large, .size = IMAGES_LARGE, .mtime = 1500000000 },
	{ .name = "run", .body = "#!/bin/sh\n", .mode = 0755, .mtime = 1 },
	{ .name = "one", .body = "1", .mode = 0601, .mtime = -5 },
	{ .name = "later", .body = "later", .mode = 04711, .mtime = FAR },
	{ .name = "dir", .type = AE_IFDIR, .mode = 0700 },
	{ .name = "dir/empty too" },
	{ .name = "dir", .type = AE_IFDIR, .mode = 0777 },
	{ .name = "never/came/file", .body = images_medium, .size = IMAGES_MEDIUM },
	{ .name = "!a", .body = "before '.'" },
	{ .name = "-", .body = "too" },
	{ .name = "+", .type = AE_IFDIR },
	{ .name = "+/-x", .body = "in there" },
	{ .name = ".-", .body = "between '.' and '..'" },
	{ .name = "..a", .body = "behind both" },
	{ .name = ".hidden", .body = "behind" },
	{ .name = "\x80\xff", .body = "bytes" },
	{ .name = "\xc3\xa9t\xc3\xa9", .body = "utf-8" },
	{ .name = long_name, .body = "long" },
	{ .name = deep_name, .body = "deep" },
	{ .name = "short", .type = AE_IFLNK, .link = "x" },
	{ .name = "long", .type = AE_IFLNK, .link = long_target },
	{ .name = "dir/up", .type = AE_IFLNK, .link = "../one" },
	{ .name = "dir/hard", .hardlink = "large" },
	{ .name = "dir/harder", .hardlink = "dir/hard" },
	{ .name = "hard", .hardlink = "empty" },
	{ .name = "last", .body = images_medium, .size = 4096 },
};

void images_everything(bool random, struct nest_buf *ret)
{
	images_fill(images_large, IMAGES_LARGE, random);
	images_fill(images_medium, IMAGES_MEDIUM, false);
	memset(long_target, 't', 4095);
	memset(long_name, 'n', 255);
	for (size_t i = 0; i + 2 < sizeof(deep_name) - 1; i += 3)
		memcpy(deep_name + i, "d1/", 3);
	strcpy(deep_name + 1194, "f");
	kit_archive("gnutar", NULL, everything, NEST_ARRAY_SIZE(everything), ret);
}

void images_compress(const struct nest_buf *tar, const struct made_cut *cut, struct nest_buf *ret)
{
	*ret = (struct nest_buf)NEST_BUF_INIT;
	made_frames(nest_buf_bytes(tar), tar->len, cut, ret);
}

/* The directory that @artifact gives, in the cache "plain": its digest and path. */
const char *images_plain(const struct nest_buf *artifact, char ret_hex[65])
{
	struct images_result result;
	const char *path;

	images_open("plain", false);
	images_upload(artifact, &result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_int_eq(nest_tree_kind(result.tree), NEST_TREE_DIRECTORY);
	path = images_path(result.tree);
	kit_digest_dir(path, ret_hex);
	nest_tree_unref(result.tree);
	images_close();
	return path;
}

/* Loads @artifact both ways: what the image shows, and what it unpacks to, is the directory. */
void images_check_both(const struct nest_buf *artifact, const char *what)
{
	struct images_result result;
	char wanted[65];
	char hex[65];
	const char *path = images_plain(artifact, wanted);

	images_open("made", true);
	images_upload(artifact, &result);
	ck_assert_msg(result.tree != NULL, "%s: %s", what, nest_err_text(&result.err));
	ck_assert_msg(nest_tree_kind(result.tree) == NEST_TREE_IMAGE, "%s: no image", what);
	{
		nest_autoclose int mounted = images_mount(result.tree);

		images_digest_mounted(mounted, path, hex);
		ck_assert_msg(strcmp(hex, wanted) == 0, "%s: the image holds another tree", what);
	}
	images_unpack(result.tree, hex);
	ck_assert_msg(strcmp(hex, wanted) == 0, "%s: it unpacks to another tree", what);
	nest_tree_unref(result.tree);
	images_close();
}

void images_load(const struct nest_buf *artifact, struct images_result *result)
{
	images_open("made", true);
	images_upload(artifact, result);
	ck_assert_msg(result->tree != NULL, "%s", nest_err_text(&result->err));
	ck_assert_int_eq(nest_tree_kind(result->tree), NEST_TREE_IMAGE);
}

/* It becomes the directory that it becomes without images, and leaves nothing else. */
void images_check_refused(const struct nest_buf *artifact, const char *what)
{
	struct images_result result;
	char wanted[65];
	char hex[65];

	images_plain(artifact, wanted);
	images_open("made", true);
	images_upload(artifact, &result);
	ck_assert_msg(result.tree != NULL, "%s: %s", what, nest_err_text(&result.err));
	ck_assert_msg(nest_tree_kind(result.tree) == NEST_TREE_DIRECTORY, "%s: an image", what);
	kit_digest_dir(images_path(result.tree), hex);
	ck_assert_msg(strcmp(hex, wanted) == 0, "%s: another tree", what);
	ck_assert_int_lt(access(kit_path("made/trees/%s/" NEST_TREE_IMAGE_NAME,
					strchr(nest_tree_digest(result.tree), ':') + 1),
				 F_OK),
		0);
	nest_tree_unref(result.tree);
	images_close();
}

void images_run(const char *format, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	ck_assert_msg(system(command) == 0, "%s", command);
}
