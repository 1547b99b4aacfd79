/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/tree_image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fsverity.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "loader/cache.h"
#include "loader/draft.h"

#define DISK_BLOCK 512 /* of st_blocks */

_Static_assert(NEST_TREE_IMAGE_LOOK >= NEST_EROFS_OFFSET + NEST_EROFS_BYTES, "the superblock");

bool nest_tree_image_allowed(const char *const *sources, const char *source)
{
	for (; sources && *sources; sources++) {
		bool any = strcmp(*sources, "*") == 0;

		if (any || strcmp(*sources, source) == 0)
			return true;
		/* an upload's source is a word, and no word begins a URL */
		if (strchr(*sources, '/') && strncmp(*sources, source, strlen(*sources)) == 0)
			return true;
	}
	return false;
}

bool nest_tree_image_is(const void *bytes, size_t n)
{
	return n > NEST_EROFS_OFFSET &&
	       nest_erofs_is_image((const char *)bytes + NEST_EROFS_OFFSET, n - NEST_EROFS_OFFSET);
}

/*
 * Has the file system refuse any change from now on, if it can (ext4, f2fs and btrfs with the
 * feature on): the spawner then needs no copy of its own to mount.
 */
static void seal(int fd)
{
	const struct fsverity_enable_arg arg = {
		.version = 1,
		.hash_algorithm = FS_VERITY_HASH_ALG_SHA256,
		.block_size = NEST_EROFS_BLOCK,
	};

	(void)ioctl(fd, FS_IOC_ENABLE_VERITY, &arg);
}

static int link_into(int staging_fd, const char *file, const char *draft, struct nest_err *err)
{
	char name[NEST_CACHE_NAME_CAP + sizeof("/" NEST_TREE_IMAGE_NAME)];

	snprintf(name, sizeof(name), "%s/" NEST_TREE_IMAGE_NAME, draft);
	if (linkat(staging_fd, file, staging_fd, name, 0) < 0)
		return nest_err_set(err, -errno, "keep the image in the code cache");
	return 0;
}

static int keep(int fd, struct nest_draft_totals *ret, struct nest_err *err)
{
	struct stat st;

	if (fchmod(fd, 0400) < 0 || fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "keep the image in the code cache");
	seal(fd);
	*ret = (struct nest_draft_totals){
		.bytes = (uint64_t)st.st_size,
		.entries = 1,
		.disk = (uint64_t)st.st_blocks * DISK_BLOCK + NEST_EROFS_BLOCK,
		.image = true,
	};
	return 0;
}

int nest_tree_image_keep(int draft_fd, struct nest_draft_totals *ret, struct nest_err *err)
{
	nest_autoclose int fd =
		openat(draft_fd, NEST_TREE_IMAGE_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? nest_err_set(err, -errno, "open the image in staging") : keep(fd, ret, err);
}

int nest_tree_image_fill(int staging_fd, const char *file, const char *draft,
	const struct nest_draft_limits *limits, struct nest_draft_totals *ret, struct nest_err *err)
{
	nest_autoclose int fd = openat(staging_fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t bytes;
	int rc;

	if (fd < 0)
		return nest_err_set(err, -errno, "open the artifact");
	rc = nest_erofs_check_file(fd, NEST_EROFS_LZ4, &bytes, err);
	if (rc != 0)
		return rc;
	if (bytes > limits->max_bytes)
		return nest_err_say(err, -EFBIG, "the image is larger than %llu bytes",
			(unsigned long long)limits->max_bytes);
	rc = link_into(staging_fd, file, draft, err);
	return rc < 0 ? rc : keep(fd, ret, err);
}
