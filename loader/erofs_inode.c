/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/erofs_inode.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/erofs.h"
#include "base/err.h"

#define BLOCK NEST_EROFS_BLOCK
#define SLOT 32u /* inodes are numbered in these */
#define NO_BLOCK UINT32_MAX

/* Where the fields lie in the superblock, */
enum {
	SUPER_ROOT = 14,
	SUPER_MADE = 24,
	SUPER_META_BLOCK = 40,
	SUPER_INCOMPATIBLE = 80,
	SUPER_DIRECTORY_BLOCKS = 90,
};
#define FEATURE_PADDED (1u << 0)

/* and in an inode, of which there are a short and a long form. */
enum {
	INODE_FORMAT = 0,
	INODE_ATTRIBUTES = 2,
	INODE_MODE = 4,
	INODE_SIZE = 8,
	INODE_START = 16,
	INODE_SHORT = 32,
	INODE_LONG_MTIME = 32,
	INODE_LONG = 64,
};
#define FORMAT_LONG 1u
#define FORMAT_LAYOUT(format) ((format) >> 1 & 7u)
#define FORMAT_KNOWN 0xfu
#define ATTRIBUTES_HEAD 12u

#define CHUNK_BITS 0x1fu
#define CHUNK_INDEXES 0x20u

uint16_t nest_erofs_inode_le16(const void *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

uint32_t nest_erofs_inode_le32(const void *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

uint64_t nest_erofs_inode_le64(const void *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* As many of the @n bytes at @at as the file has. */
static ssize_t read_some(const struct nest_erofs_image *image, uint64_t at, void *bytes, size_t n,
	struct nest_err *err)
{
	size_t got = 0;

	if (at > INT64_MAX - n)
		return 0;
	while (got < n) {
		ssize_t more = pread(image->fd, (char *)bytes + got, n - got, (off_t)(at + got));

		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			return nest_err_set(err, -errno, "read the image");
		if (more == 0)
			break;
		got += (size_t)more;
	}
	return (ssize_t)got;
}

static int cut_short(uint64_t at, struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG,
		"damaged EROFS image: it names byte %llu, where it has none",
		(unsigned long long)at);
}

int nest_erofs_inode_pull(const struct nest_erofs_image *image, uint64_t at, void *bytes, size_t n,
	struct nest_err *err)
{
	ssize_t got = read_some(image, at, bytes, n, err);

	if (got < 0)
		return (int)got;
	return (size_t)got < n ? cut_short(at, err) : 0;
}

int nest_erofs_inode_look(
	struct nest_erofs_image *image, uint64_t at, void *bytes, size_t n, struct nest_err *err)
{
	bool inside = at >= image->window_at && at - image->window_at <= image->window_n &&
		      image->window_n - (at - image->window_at) >= n;

	if (!inside) {
		uint64_t from = at / BLOCK * BLOCK;
		ssize_t got = read_some(image, from, image->window, sizeof(image->window), err);

		image->window_n = 0;
		if (got < 0)
			return (int)got;
		image->window_at = from;
		image->window_n = (size_t)got;
		if (at - from > (size_t)got || (size_t)got - (at - from) < n)
			return cut_short(at, err);
	}
	memcpy(bytes, image->window + (at - image->window_at), n);
	return 0;
}

int nest_erofs_inode_open(int fd, struct nest_erofs_image *ret, struct nest_err *err)
{
	unsigned char super[NEST_EROFS_BYTES] = { 0 };
	int rc;

	ret->fd = fd;
	ret->window_at = 0;
	ret->window_n = 0;
	rc = nest_erofs_inode_look(ret, NEST_EROFS_OFFSET, super, sizeof(super), err);
	if (rc < 0)
		return rc;
	if (super[SUPER_DIRECTORY_BLOCKS] != 0)
		return nest_err_say(err, -ENOTSUP,
			"the EROFS image has directory blocks of another size than 4096: make it "
			"with 'nestctl pack'");
	ret->inodes_at = (uint64_t)nest_erofs_inode_le32(super + SUPER_META_BLOCK) * BLOCK;
	ret->root = nest_erofs_inode_le16(super + SUPER_ROOT);
	ret->made_s = (int64_t)nest_erofs_inode_le64(super + SUPER_MADE);
	ret->padded = nest_erofs_inode_le32(super + SUPER_INCOMPATIBLE) & FEATURE_PADDED;
	return 0;
}

static int unknown_inode(uint64_t number, struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG, "damaged EROFS image: inode %llu is of an unknown form",
		(unsigned long long)number);
}

int nest_erofs_inode_read(struct nest_erofs_image *image, uint64_t number,
	struct nest_erofs_inode *ret, struct nest_err *err)
{
	unsigned char bytes[INODE_LONG];
	uint64_t at = image->inodes_at + number * SLOT;
	unsigned format;
	unsigned attributes;
	bool is_long;
	int rc;

	if (number > INT64_MAX / SLOT / 2)
		return cut_short(number, err);
	rc = nest_erofs_inode_look(image, at, bytes, INODE_SHORT, err);
	if (rc < 0)
		return rc;
	format = nest_erofs_inode_le16(bytes + INODE_FORMAT);
	attributes = nest_erofs_inode_le16(bytes + INODE_ATTRIBUTES);
	is_long = format & FORMAT_LONG;
	if (format & ~FORMAT_KNOWN || FORMAT_LAYOUT(format) >= NEST_EROFS_LAYOUTS)
		return unknown_inode(number, err);
	if (is_long)
		rc = nest_erofs_inode_look(image, at, bytes, INODE_LONG, err);
	if (rc < 0)
		return rc;
	ret->layout = (enum nest_erofs_layout)FORMAT_LAYOUT(format);
	ret->mode = nest_erofs_inode_le16(bytes + INODE_MODE);
	ret->size = is_long ? nest_erofs_inode_le64(bytes + INODE_SIZE)
			    : nest_erofs_inode_le32(bytes + INODE_SIZE);
	ret->mtime_s =
		is_long ? (int64_t)nest_erofs_inode_le64(bytes + INODE_LONG_MTIME) : image->made_s;
	ret->start = nest_erofs_inode_le32(bytes + INODE_START);
	ret->behind = at + (is_long ? INODE_LONG : INODE_SHORT);
	if (attributes > 0)
		ret->behind += ATTRIBUTES_HEAD + 4u * (attributes - 1);
	return ret->size > INT64_MAX ? unknown_inode(number, err) : 0;
}

static size_t least(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}

/* Where the byte at @offset lies, and how many follow it there. 1: in a hole. */
static int find_chunk(struct nest_erofs_image *image, const struct nest_erofs_inode *inode,
	uint64_t offset, uint64_t *ret_at, uint64_t *ret_n, struct nest_err *err)
{
	unsigned bits = 12 + (inode->start & CHUNK_BITS);
	size_t unit = inode->start & CHUNK_INDEXES ? 8 : 4;
	uint64_t at = (inode->behind + unit - 1) / unit * unit + (offset >> bits) * unit;
	uint64_t inside = offset & ((UINT64_C(1) << bits) - 1);
	unsigned char index[8];
	uint32_t block;
	int rc = nest_erofs_inode_look(image, at, index, unit, err);

	if (rc < 0)
		return rc;
	block = nest_erofs_inode_le32(index + unit - 4);
	*ret_at = (uint64_t)block * BLOCK + inside;
	*ret_n = (UINT64_C(1) << bits) - inside;
	return block == NO_BLOCK;
}

static int find_tail(const struct nest_erofs_inode *inode, uint64_t offset, uint64_t *ret_at,
	uint64_t *ret_n, struct nest_err *err)
{
	uint64_t tail = (inode->size - 1) / BLOCK * BLOCK;

	if (offset < tail) {
		*ret_at = (uint64_t)inode->start * BLOCK + offset;
		*ret_n = tail - offset;
		return 0;
	}
	if (inode->behind % BLOCK + (inode->size - tail) > BLOCK)
		return nest_err_say(
			err, -EBADMSG, "damaged EROFS image: the end of a file crosses a block");
	*ret_at = inode->behind + (offset - tail);
	*ret_n = inode->size - offset;
	return 0;
}

ssize_t nest_erofs_inode_get(struct nest_erofs_image *image, const struct nest_erofs_inode *inode,
	uint64_t offset, void *bytes, size_t cap, struct nest_err *err)
{
	uint64_t at = (uint64_t)inode->start * BLOCK + offset;
	uint64_t n = inode->size - offset;
	int rc = 0;

	switch (inode->layout) {
	case NEST_EROFS_LAYOUT_PLAIN:
		break;
	case NEST_EROFS_LAYOUT_TAIL:
		rc = find_tail(inode, offset, &at, &n, err);
		break;
	case NEST_EROFS_LAYOUT_CHUNKS:
		rc = find_chunk(image, inode, offset, &at, &n, err);
		break;
	default:
		return nest_err_say(err, -EBADMSG,
			"damaged EROFS image: a directory or a link that is compressed");
	}
	if (rc < 0)
		return rc;
	cap = least(least(n, inode->size - offset), cap);
	if (rc == 1)
		memset(bytes, 0, cap);
	else if (cap <= BLOCK)
		rc = nest_erofs_inode_look(image, at, bytes, cap, err);
	else
		rc = nest_erofs_inode_pull(image, at, bytes, cap, err);
	return rc < 0 ? rc : (ssize_t)cap;
}
