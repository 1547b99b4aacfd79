/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compressed file has an index of each of its blocks, which says whether an extent begins in it:
 *
 *	block    0        1        2        3            file's end
 *	         |head 0  |        |  head 700          |
 *	         [ first extent       ][ second          ]
 *	index    head     inner    head     inner
 *
 * A head says where the extent's compressed block lies; if there may be more than one of them, the
 * inner index behind it says how many. Where a file ends within a block in which no extent does, that block's
 * index may be a head at the end of the file.
 *
 * In the compact form 2 or 16 indexes share one address: a head's own is that plus the blocks of
 * the heads before it.
 */
#include "loader/erofs_extents.h"

#include <errno.h>

#include "base/erofs.h"
#include "base/err.h"
#include "loader/erofs_inode.h"

#define BLOCK NEST_EROFS_BLOCK

/* The header before the indexes, which is aligned to its length. */
#define HEADER 8u
enum {
	HEADER_INLINED = 2,
	HEADER_ADVICE = 4,
	HEADER_ALGORITHMS = 6,
	HEADER_CLUSTER = 7,
};
#define ADVICE_TWOS 0x01u
#define ADVICE_BIG 0x02u
#define ADVICE_BIG_2 0x04u
#define ADVICE_INLINED 0x08u
#define ADVICE_TURNED 0x10u
#define ADVICE_KNOWN 0x1fu

#define FULL_INDEX 8u
#define FULL_GAP 8u /* between the header and the indexes of the full form */
#define FULL_PARTIAL 0x8000u

#define PACK_MAX 32u /* bytes of compact indexes that share an address */
#define LOW_BITS 12u
#define COUNTED 0x800u /* an inner index that holds its extent's number of blocks */

enum type {
	PLAIN,
	HEAD,
	INNER,
	HEAD_2
};

struct index {
	enum type type;
	unsigned
		low; /* of a head: its offset in the block; of an inner one: a distance, or COUNTED */
	uint32_t block; /* of a head */
};

static int damaged(struct nest_err *err, const char *what)
{
	return nest_err_say(err, -EBADMSG, "damaged EROFS image: %s", what);
}

static int read_full(
	struct nest_erofs_extents *walk, uint64_t i, struct index *ret, struct nest_err *err)
{
	unsigned char bytes[FULL_INDEX];
	unsigned form;
	int rc = nest_erofs_inode_look(
		walk->image, walk->index_at + i * FULL_INDEX, bytes, sizeof(bytes), err);

	if (rc < 0)
		return rc;
	form = nest_erofs_inode_le16(bytes);
	if (form & FULL_PARTIAL)
		return nest_err_say(err, -ENOTSUP,
			"it shares extents with other files (-Ededupe), which only the kernel can "
			"read: make the image with 'nestctl pack'");
	ret->type = (enum type)(form & 3);
	ret->low = nest_erofs_inode_le16(bytes + (ret->type == INNER ? 4 : 2));
	ret->block = nest_erofs_inode_le32(bytes + 4);
	return 0;
}

/* The pack that holds index @i: its place and length; returns which of its indexes that is. */
static unsigned find_pack(
	const struct nest_erofs_extents *walk, uint64_t i, uint64_t *ret_at, size_t *ret_n)
{
	uint64_t at = walk->index_at;
	bool two = i >= walk->fours && i - walk->fours < walk->twos;
	unsigned count = two ? 16 : 2;

	*ret_n = two ? PACK_MAX : PACK_MAX / 4;
	if (i >= walk->fours) {
		at += walk->fours * 4;
		i -= walk->fours;
		if (!two) {
			at += walk->twos * 2;
			i -= walk->twos;
		}
	}
	*ret_at = at + i / count * *ret_n;
	return (unsigned)(i % count);
}

static void decode(const unsigned char *pack, unsigned bits, unsigned i, struct index *ret)
{
	unsigned at = i * bits;
	uint32_t value = nest_erofs_inode_le32(pack + at / 8) >> at % 8;

	ret->low = value & ((1u << LOW_BITS) - 1);
	ret->type = (enum type)(value >> LOW_BITS & 3);
}

/* The blocks of those heads of a pack that come before its index @end. */
static uint32_t count_blocks(const unsigned char *pack, unsigned bits, unsigned end, bool big)
{
	uint32_t blocks = big ? 0 : 1;

	for (unsigned i = 0; i < end; i++) {
		struct index here;
		struct index next;

		decode(pack, bits, i, &here);
		decode(pack, bits, i + 1, &next);
		if (here.type != INNER)
			blocks += !(big && next.type == INNER && next.low & COUNTED);
		else if (big && here.low & COUNTED)
			blocks += here.low & ~COUNTED;
	}
	return blocks;
}

static int read_compact(
	struct nest_erofs_extents *walk, uint64_t i, struct index *ret, struct nest_err *err)
{
	unsigned char pack[PACK_MAX];
	uint64_t at;
	size_t n;
	unsigned slot = find_pack(walk, i, &at, &n);
	unsigned bits = n == PACK_MAX ? 14 : 16;
	int rc = nest_erofs_inode_look(walk->image, at, pack, n, err);

	if (rc < 0)
		return rc;
	decode(pack, bits, slot, ret);
	if (ret->type != INNER)
		ret->block = nest_erofs_inode_le32(pack + n - 4) +
			     count_blocks(pack, bits, slot, walk->advice & ADVICE_BIG);
	return 0;
}

static int read_index(struct nest_erofs_extents *walk, struct index *ret, struct nest_err *err)
{
	uint64_t i = walk->next++;

	return walk->inode->layout == NEST_EROFS_LAYOUT_FULL ? read_full(walk, i, ret, err)
							     : read_compact(walk, i, ret, err);
}

static void divide_compact(struct nest_erofs_extents *walk)
{
	walk->fours = (PACK_MAX - walk->index_at % PACK_MAX) % PACK_MAX / 4;
	walk->twos = 0;
	if (walk->advice & ADVICE_TWOS && walk->fours < walk->blocks)
		walk->twos = (walk->blocks - walk->fours) / 16 * 16;
}

static int check_header(const unsigned char *header, struct nest_err *err)
{
	if (nest_erofs_inode_le16(header + HEADER_ADVICE) & ~ADVICE_KNOWN ||
		header[HEADER_CLUSTER] != 0 || header[HEADER_ALGORITHMS] != 0)
		return nest_err_say(err, -ENOTSUP,
			"it is compressed in a way that only the kernel can read, as with "
			"-Efragments: make the image with 'nestctl pack'");
	return 0;
}

int nest_erofs_extents_start(struct nest_erofs_extents *walk, struct nest_erofs_image *image,
	const struct nest_erofs_inode *inode, struct nest_err *err)
{
	uint64_t at = (inode->behind + HEADER - 1) / HEADER * HEADER;
	unsigned char header[HEADER];
	int rc = nest_erofs_inode_look(image, at, header, sizeof(header), err);

	if (rc == 0)
		rc = check_header(header, err);
	if (rc < 0)
		return rc;
	*walk = (struct nest_erofs_extents){
		.image = image,
		.inode = inode,
		.index_at = at + HEADER,
		.blocks = inode->size / BLOCK + (inode->size % BLOCK > 0),
		.advice = nest_erofs_inode_le16(header + HEADER_ADVICE),
	};
	if (inode->layout == NEST_EROFS_LAYOUT_FULL)
		walk->index_at += FULL_GAP;
	else
		divide_compact(walk);
	if (!(walk->advice & ADVICE_INLINED))
		return 0;
	walk->inlined = nest_erofs_inode_le16(header + HEADER_INLINED);
	return walk->inlined > 0 ? 0 : damaged(err, "an end of a file without length");
}

/* Where the indexes end, and what is inlined begins. */
static uint64_t find_inlined(const struct nest_erofs_extents *walk)
{
	uint64_t at;
	size_t n;

	if (walk->inode->layout == NEST_EROFS_LAYOUT_FULL)
		return walk->index_at + walk->blocks * FULL_INDEX;
	find_pack(walk, walk->blocks - 1, &at, &n);
	return at + n;
}

/* Ends the extent that is open at @end of the file. */
static int finish(struct nest_erofs_extents *walk, uint64_t end, struct nest_erofs_extent *ret,
	struct nest_err *err)
{
	uint64_t n = end - walk->open.offset;

	*ret = walk->open;
	walk->began = false;
	if (end == walk->inode->size && walk->inlined > 0) {
		ret->at = find_inlined(walk);
		ret->packed = walk->inlined;
		if (ret->kind == NEST_EROFS_EXTENT_TURNED)
			ret->kind = NEST_EROFS_EXTENT_PLAIN;
		if (ret->at % BLOCK + ret->packed > BLOCK)
			return damaged(err, "the end of a file crosses a block");
	}
	if (n == 0 || n > NEST_EROFS_EXTENT_MAX || ret->packed == 0 ||
		ret->packed > NEST_EROFS_EXTENT_PACKED_MAX ||
		(ret->kind != NEST_EROFS_EXTENT_LZ4 && n > ret->packed))
		return damaged(err, "an extent of an impossible length");
	ret->n = (size_t)n;
	return 0;
}

static void begin(struct nest_erofs_extents *walk, const struct index *head, uint64_t offset)
{
	walk->open = (struct nest_erofs_extent){
		.kind = head->type != PLAIN	       ? NEST_EROFS_EXTENT_LZ4
			: walk->advice & ADVICE_TURNED ? NEST_EROFS_EXTENT_TURNED
						       : NEST_EROFS_EXTENT_PLAIN,
		.offset = offset,
		.at = (uint64_t)head->block * BLOCK,
		.packed = BLOCK,
	};
	walk->began = true;
	walk->began_at = walk->next - 1;
}

static int take_inner(
	struct nest_erofs_extents *walk, const struct index *inner, struct nest_err *err)
{
	if (!walk->began)
		return damaged(err, "a file whose first block begins no extent");
	if (!(inner->low & COUNTED) || !(walk->advice & (ADVICE_BIG | ADVICE_BIG_2)))
		return 0;
	if (walk->next - 2 != walk->began_at)
		return damaged(err, "the length of an extent in the wrong place");
	walk->open.packed = (size_t)(inner->low & ~COUNTED) * BLOCK;
	return 0;
}

/* 1: nothing ended here. */
static int take_head(struct nest_erofs_extents *walk, const struct index *head,
	struct nest_erofs_extent *ret, struct nest_err *err)
{
	uint64_t offset = (walk->next - 1) * BLOCK + head->low;
	bool first = walk->next == 1;
	int rc = 1;

	if (head->low >= BLOCK || offset > walk->inode->size || first != (offset == 0))
		return damaged(err, "an extent that begins where none can");
	if (!first)
		rc = finish(walk, offset, ret, err);
	if (rc >= 0 && offset < walk->inode->size)
		begin(walk, head, offset);
	return rc;
}

int nest_erofs_extents_next(
	struct nest_erofs_extents *walk, struct nest_erofs_extent *ret, struct nest_err *err)
{
	int rc = 1;

	while (rc == 1 && walk->next < walk->blocks) {
		struct index index = { .type = PLAIN };

		rc = read_index(walk, &index, err);
		if (rc < 0)
			return rc;
		rc = index.type == INNER ? take_inner(walk, &index, err) : 1;
		if (rc < 0)
			return rc;
		rc = index.type == INNER ? 1 : take_head(walk, &index, ret, err);
	}
	if (rc == 1 && walk->began)
		rc = finish(walk, walk->inode->size, ret, err);
	return rc;
}
