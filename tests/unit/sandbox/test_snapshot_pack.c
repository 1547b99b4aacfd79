/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/snapshot_pack.h"
#include "tests/unit/suite.h"

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define OTHER_KEY "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const struct nest_snapshot_pack_secret secret = { .n = 32,
	.bytes = "0123456789abcdef0123456789abcde" };

static char root[64];
static struct nest_snapshot_store_contents sealed;

static int make_dir(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void write_file(int dir, const char *name, const void *bytes, size_t n)
{
	nest_autoclose int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(nest_fd_write_all(fd, bytes, n, NULL), 0);
}

/* A snapshot is made, packed, and unpacked by a tar of another hand; its directory. */
static int travel(void)
{
	nest_autoclose int made = -1;
	struct nest_err err = NEST_ERR_INIT;
	char pages[70000], command[256];
	int unpacked, status = -1;
	FILE *tar;

	strcpy(root, "/tmp/nest-pack-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	made = make_dir("made");
	unpacked = make_dir("unpacked");
	memset(pages, 'p', sizeof(pages));
	write_file(made, "pages-1.img", pages, sizeof(pages));
	write_file(made, "core-1.img", "core", 4);
	write_file(made, "empty.img", "", 0);
	sealed =
		(struct nest_snapshot_store_contents){ .key = KEY, .memory = NEST_SNAPSHOT_MAPPED };
	ck_assert_int_eq(nest_snapshot_store_seal(made, &sealed, &err), 0);
	snprintf(command, sizeof(command), "tar -x -f - -C %s/unpacked", root);
	tar = popen(command, "w");
	ck_assert_ptr_nonnull(tar);
	ck_assert_msg(nest_snapshot_pack_write(made, KEY, &secret, fileno(tar), &err) == 0, "%s",
		nest_err_text(&err));
	status = pclose(tar);
	ck_assert_int_eq(status, 0);
	return unpacked;
}

static int take(int from, const char *key, const struct nest_snapshot_pack_secret *with,
	uint64_t max_bytes, const char *name, struct nest_err *err)
{
	struct nest_snapshot_store_contents contents;
	nest_autoclose int draft = make_dir(name);
	int r = nest_snapshot_pack_take(from, key, with, max_bytes, draft, &contents, err);

	if (r == 0)
		ck_assert_mem_eq(&contents, &sealed, sizeof(sealed));
	if (r == 0)
		ck_assert_int_eq(nest_snapshot_store_verify(draft, err), 0);
	return r;
}

static void expect_refused(int from, const char *words)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_lt(take(from, KEY, &secret, 0, "refused", &err), 0);
	ck_assert_msg(strstr(nest_err_text(&err), words) != NULL, "'%s' has no '%s'",
		nest_err_text(&err), words);
}

static void clean_up(int from)
{
	close(from);
	nest_file_remove_tree(AT_FDCWD, root, NULL);
}

START_TEST(what_was_packed_is_taken)
{
	struct nest_err err = NEST_ERR_INIT;
	int from = travel();

	ck_assert_msg(take(from, KEY, &secret, 0, "a", &err) == 0, "%s", nest_err_text(&err));
	ck_assert_int_eq(take(from, KEY, &secret, 70004, "b", &err), 0);
	ck_assert_int_eq(take(from, KEY, &secret, 70003, "c", &err), -EFBIG);
	clean_up(from);
}
END_TEST

START_TEST(another_key_or_secret_is_refused)
{
	struct nest_snapshot_pack_secret other = secret;
	struct nest_err err = NEST_ERR_INIT;
	int from = travel();

	other.bytes[31] ^= 1;
	ck_assert_int_eq(take(from, OTHER_KEY, &secret, 0, "a", &err), -EBADMSG);
	ck_assert_int_eq(take(from, KEY, &other, 0, "b", &err), -EBADMSG);
	other.bytes[31] ^= 1;
	other.n = 30;
	ck_assert_int_eq(take(from, KEY, &other, 0, "c", &err), -EBADMSG);
	clean_up(from);
}
END_TEST

START_TEST(changed_files_are_refused)
{
	int from = travel();

	write_file(from, "core-1.img", "Core", 4);
	expect_refused(from, "'core-1.img' was changed");
	clean_up(from);

	from = travel();
	write_file(from, "pages-1.img", "short", 5);
	expect_refused(from, "'pages-1.img' is too short");
	clean_up(from);

	from = travel();
	ck_assert_int_eq(unlinkat(from, "empty.img", 0), 0);
	expect_refused(from, "'empty.img'");
	clean_up(from);
}
END_TEST

START_TEST(changed_contents_are_refused)
{
	static const char *const files[] = { "seal", "contents" };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(files); i++) {
		int from = travel();
		nest_autoclose int fd = openat(from, files[i], O_RDWR | O_CLOEXEC);
		char byte;

		ck_assert_int_eq(pread(fd, &byte, 1, 20), 1);
		byte ^= 4;
		ck_assert_int_eq(pwrite(fd, &byte, 1, 20), 1);
		expect_refused(from, "not sealed");
		clean_up(from);
	}
}
END_TEST

START_TEST(links_and_devices_are_not_followed)
{
	int from = travel();

	ck_assert_int_eq(unlinkat(from, "core-1.img", 0), 0);
	ck_assert_int_eq(symlinkat("/etc/passwd", from, "core-1.img"), 0);
	expect_refused(from, "core-1.img");
	clean_up(from);

	from = travel();
	ck_assert_int_eq(unlinkat(from, "core-1.img", 0), 0);
	ck_assert_int_eq(mkfifoat(from, "core-1.img", 0600), 0);
	expect_refused(from, "'core-1.img' is no file");
	clean_up(from);
}
END_TEST

START_TEST(a_secret_must_be_secret_and_long_enough)
{
	struct nest_snapshot_pack_secret got = { .n = 0 };
	struct nest_err err = NEST_ERR_INIT;
	char path[] = "/tmp/nest-secret-XXXXXX";
	nest_autoclose int fd = mkstemp(path);

	ck_assert_int_eq(write(fd, "0123456789abcdef0123456789abcde", 31), 31);
	ck_assert_int_eq(nest_snapshot_pack_read_secret(path, &got, &err), -EINVAL);
	ck_assert_int_eq(write(fd, "f", 1), 1);
	ck_assert_int_eq(nest_snapshot_pack_read_secret(path, &got, &err), 0);
	ck_assert_uint_eq(got.n, 32);
	ck_assert_mem_eq(got.bytes, "0123456789abcdef0123456789abcdef", 32);
	ck_assert_int_eq(fchmod(fd, 0640), 0);
	ck_assert_int_eq(nest_snapshot_pack_read_secret(path, &got, &err), -EPERM);
	ck_assert_int_eq(fchmod(fd, 0600), 0);
	ck_assert_int_eq(ftruncate(fd, 257), 0);
	ck_assert_int_eq(nest_snapshot_pack_read_secret(path, &got, &err), -EINVAL);
	unlink(path);
	ck_assert_int_eq(nest_snapshot_pack_read_secret(path, &got, &err), -ENOENT);
}
END_TEST

NEST_SUITE("sandbox/snapshot_pack", what_was_packed_is_taken, another_key_or_secret_is_refused,
	changed_files_are_refused, changed_contents_are_refused, links_and_devices_are_not_followed,
	a_secret_must_be_secret_and_long_enough)
