/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that fs-verity seals: not copied before they are mounted, since the kernel itself refuses
 * changes. Needs a kernel with CONFIG_FS_VERITY, so it is run by tests/vm/run only, and a loop device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "loader/draft.h"
#include "loader/tree_image.h"
#include "sandbox/spawner_image.h"
#include "tests/unit/suite.h"

static char top[32];
static int disk; /* an ext4 that can seal files */

static void run(const char *command)
{
	ck_assert_msg(system(command) == 0, "%s", command);
}

static void enter(void)
{
	char command[512];
	char path[64];

	strcpy(top, "/tmp/verity-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(command, sizeof(command),
		"cd %s && mkdir in disk other && mount -t tmpfs tmpfs other && echo world "
		">in/hello && truncate -s 64M disk.img && "
		"mkfs.ext4 -q -O verity -b 4096 disk.img && mount -o loop disk.img disk && "
		"mkdir disk/draft && mkfs.erofs -zlz4hc -T0 disk/image in >/dev/null 2>&1",
		top);
	run(command);
	snprintf(path, sizeof(path), "%s/disk", top);
	disk = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(disk, 0);
}

static void leave(void)
{
	char path[64];

	close(disk);
	snprintf(path, sizeof(path), "%s/disk", top);
	umount2(path, MNT_DETACH);
	snprintf(path, sizeof(path), "%s/other", top);
	umount2(path, MNT_DETACH);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, top, NULL), 0);
}

/* Keeps the image as the loader does, and opens it. */
static int keep(void)
{
	static const struct nest_draft_limits limits = { .max_bytes = 1u << 20, .max_entries = 10 };
	struct nest_draft_totals totals;
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_tree_image_fill(disk, "image", "draft", &limits, &totals, &err);
	int file = openat(disk, "draft/" NEST_TREE_IMAGE_NAME, O_RDONLY | O_CLOEXEC);

	ck_assert_msg(r == 0 && file >= 0, "%d: %s", r, nest_err_text(&err));
	return file;
}

START_TEST(a_kept_image_is_sealed)
{
	nest_autoclose int file = keep();
	struct statx stx;

	ck_assert_int_eq(statx(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), 0);
	ck_assert(stx.stx_attributes & STATX_ATTR_VERITY);
	ck_assert_int_eq(openat(disk, "draft/" NEST_TREE_IMAGE_NAME, O_RDWR | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(openat(disk, "image", O_WRONLY | O_TRUNC | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

static bool is_same(int a, int b)
{
	struct stat first;
	struct stat second;

	ck_assert_int_eq(fstat(a, &first), 0);
	ck_assert_int_eq(fstat(b, &second), 0);
	return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

START_TEST(a_sealed_image_is_mounted_as_it_is)
{
	nest_autoclose int file = keep();
	nest_autoclose int frozen = -1;
	nest_autoclose int mount = -1;
	nest_autoclose int hello = -1;
	struct nest_err err = NEST_ERR_INIT;
	char text[16] = "";

	ck_assert_int_eq(nest_spawner_image_freeze(disk, 0, file, 0, &frozen, &err), 0);
	ck_assert(is_same(file, frozen));
	ck_assert_msg(nest_spawner_image_mount_file(frozen, true, &mount, &err) == 0, "%s",
		nest_err_text(&err));
	hello = openat(mount, "hello", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(read(hello, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "world\n");
}
END_TEST

/* The seal is that file system's word, and only our own is believed. */
START_TEST(what_is_sealed_elsewhere_is_copied)
{
	nest_autoclose int file = keep();
	nest_autoclose int frozen = -1;
	nest_autoclose int elsewhere = -1;
	nest_autoclose int mount = -1;
	char path[64];

	snprintf(path, sizeof(path), "%s/other", top);
	elsewhere = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_eq(nest_spawner_image_freeze(elsewhere, 0, file, 0, &frozen, NULL), 0);
	ck_assert(!is_same(file, frozen));
	ck_assert_int_eq(nest_spawner_image_mount_file(frozen, true, &mount, NULL), 0);
	ck_assert_int_eq(faccessat(mount, "hello", F_OK, 0), 0);
}
END_TEST

START_TEST(what_is_not_sealed_is_copied)
{
	nest_autoclose int file = openat(disk, "image", O_RDONLY | O_CLOEXEC);
	nest_autoclose int frozen = -1;

	ck_assert_int_eq(nest_spawner_image_freeze(disk, 0, file, 0, &frozen, NULL), 0);
	ck_assert(!is_same(file, frozen));
}
END_TEST

NEST_SUITE_WITH("sandbox/verity", enter, leave, a_kept_image_is_sealed,
	a_sealed_image_is_mounted_as_it_is, what_is_sealed_elsewhere_is_copied,
	what_is_not_sealed_is_copied)
