/* SPDX-License-Identifier: Apache-2.0 */
#include "base/erofs.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

/* Where the fields lie in the superblock. */
enum {
	AT_MAGIC = 0,
	AT_BLOCK_BITS = 12,
	AT_BLOCKS = 36,
	AT_META_BLOCK = 40,
	AT_INCOMPATIBLE = 80,
	AT_ALGORITHMS = 84, /* a bit for each; LZ4's largest distance instead without the feature */
	AT_EXTRA_DEVICES = 86,
};

#define FEATURE_LZ4 (1u << 0) /* its data ends where its blocks do */
#define FEATURE_ALGORITHMS (1u << 1)
#define FEATURE_CHUNKS (1u << 2)
#define FEATURE_TAILS (1u << 4)
#define FEATURE_FRAGMENTS (1u << 5)
#define FEATURES_KNOWN \
	(FEATURE_LZ4 | FEATURE_ALGORITHMS | FEATURE_CHUNKS | FEATURE_TAILS | FEATURE_FRAGMENTS)

static uint16_t read_16(const unsigned char *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static uint32_t read_32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

bool nest_erofs_is_image(const void *bytes, size_t n)
{
	return n >= sizeof(uint32_t) && read_32(bytes) == NEST_EROFS_MAGIC;
}

int nest_erofs_check(
	const void *bytes, uint64_t file_bytes, unsigned algorithms, struct nest_err *err)
{
	const unsigned char *super = bytes;
	uint32_t features = read_32(super + AT_INCOMPATIBLE);
	uint64_t blocks = read_32(super + AT_BLOCKS);

	if (!nest_erofs_is_image(super, NEST_EROFS_BYTES))
		return nest_err_say(err, -EINVAL, "it is no EROFS image");
	if (super[AT_BLOCK_BITS] != NEST_EROFS_BLOCK_BITS)
		return nest_err_say(err, -EINVAL,
			"the EROFS image must have blocks of %u bytes: make it with 'nestctl pack'",
			NEST_EROFS_BLOCK);
	if (features & ~FEATURES_KNOWN)
		return nest_err_say(err, -EINVAL,
			"the EROFS image needs features 0x%x that are not known here: make it with "
			"'nestctl pack'",
			features & ~FEATURES_KNOWN);
	if (features & FEATURE_ALGORITHMS && read_16(super + AT_ALGORITHMS) & ~algorithms)
		return nest_err_say(err, -EINVAL,
			"the EROFS image is compressed otherwise than by LZ4: make it with "
			"'nestctl pack'");
	if (read_16(super + AT_EXTRA_DEVICES) != 0)
		return nest_err_say(err, -EINVAL, "the EROFS image names other devices");
	if (blocks == 0 || blocks > file_bytes / NEST_EROFS_BLOCK ||
		read_32(super + AT_META_BLOCK) >= blocks)
		return nest_err_say(err, -EINVAL,
			"the EROFS image is cut short: it has %llu blocks of %u bytes, the file "
			"%llu "
			"bytes",
			(unsigned long long)blocks, NEST_EROFS_BLOCK,
			(unsigned long long)file_bytes);
	return 0;
}

static ssize_t read_at(int fd, void *bytes, size_t n, off_t offset)
{
	ssize_t got;

	do
		got = pread(fd, bytes, n, offset);
	while (got < 0 && errno == EINTR);
	return got;
}

int nest_erofs_check_file(int fd, unsigned algorithms, uint64_t *ret_bytes, struct nest_err *err)
{
	unsigned char super[NEST_EROFS_BYTES];
	struct stat st;
	ssize_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "look at the image");
	n = read_at(fd, super, sizeof(super), NEST_EROFS_OFFSET);
	if (n < 0)
		return nest_err_set(err, -errno, "read the image");
	if (!nest_erofs_is_image(super, (size_t)n))
		return 1;
	if ((size_t)n < sizeof(super))
		return nest_err_say(err, -EINVAL, "the EROFS image is cut short");
	r = nest_erofs_check(super, (uint64_t)st.st_size, algorithms, err);
	if (r == 0)
		*ret_bytes = (uint64_t)st.st_size;
	return r;
}
