/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/loader/made.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#define BLOCK 4096u
#define SLOT 32u
#define SUPER 1024u
#define INODE 64u
#define FRAME_MAX (1u << 20)
#define DEPTH_MAX 4096u
#define RAW 1000u /* bytes of a block that is not compressed */

enum layout {
	PLAIN = 0,
	COMPRESSED = 1,
	INLINED = 2,
};

/* ---- frames ---- */

static void append(struct nest_buf *buf, const void *bytes, size_t n)
{
	if (nest_buf_append(buf, bytes, n) < 0)
		abort();
}

static void append_compressed(
	ZSTD_CCtx *zstd, const char *bytes, size_t n, bool sized, struct nest_buf *ret)
{
	size_t cap = ZSTD_compressBound(n);
	ZSTD_inBuffer in = { .src = bytes, .size = n };
	ZSTD_outBuffer out = { .size = cap };
	char *room;

	if (nest_buf_reserve(ret, cap, &room) < 0)
		abort();
	out.dst = room;
	if (sized && ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(zstd, n)))
		abort();
	if (ZSTD_compressStream2(zstd, &out, &in, ZSTD_e_end) != 0)
		abort();
	nest_buf_commit(ret, out.pos);
}

/* RFC 8878, with a window that no encoder would ask for. */
static void append_raw(const char *bytes, size_t n, unsigned window_bits, struct nest_buf *ret)
{
	const unsigned char head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x80,
		(unsigned char)(window_bits - 10) << 3, (unsigned char)n, (unsigned char)(n >> 8),
		(unsigned char)(n >> 16), (unsigned char)(n >> 24) };

	append(ret, head, sizeof(head));
	do {
		size_t step = n < RAW ? n : RAW;
		uint32_t word = (uint32_t)step << 3 | (step == n);
		const unsigned char block[] = { (unsigned char)word, (unsigned char)(word >> 8),
			(unsigned char)(word >> 16) };

		append(ret, block, sizeof(block));
		append(ret, bytes, step);
		bytes += step;
		n -= step;
	} while (n > 0);
}

void made_frames(const void *bytes, size_t n, const struct made_cut *cut, struct nest_buf *ret)
{
	static const char skippable[] = "\x5e\x2a\x4d\x18\x05\0\0\0hello";
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	const char *p = bytes;
	size_t i = 0;

	if (!zstd)
		abort();
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 1);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_contentSizeFlag, !cut->unsized);
	for (; n > 0; i++) {
		size_t step = cut->sizes[i % cut->n] < n ? cut->sizes[i % cut->n] : n;

		if (cut->window_bits)
			append_raw(p, step, cut->window_bits, ret);
		else
			append_compressed(zstd, p, step, !cut->unsized, ret);
		if (cut->skippable && i % 3 == 0)
			append(ret, skippable, sizeof(skippable) - 1);
		p += step;
		n -= step;
	}
	if (cut->skippable)
		append(ret, skippable, sizeof(skippable) - 1);
	ZSTD_freeCCtx(zstd);
}

/* ---- an image ---- */

struct image {
	const unsigned char *bytes;
	size_t n;
	size_t meta;	  /* where inodes are counted from */
	uint64_t content; /* of the packed inode */
	uint32_t *names;  /* of each inode, by number */
	uint64_t inodes;
	char *scratch; /* FRAME_MAX */
};

struct inode {
	uint64_t nid;
	size_t at;
	enum layout layout;
	uint32_t mode;
	uint64_t size;
	uint32_t where;
	uint32_t links;
};

static uint16_t get_16(const unsigned char *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static uint32_t get_32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get_64(const unsigned char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static const char *read_inode(const struct image *image, uint64_t nid, struct inode *ret)
{
	const unsigned char *p;
	uint16_t format;
	int64_t mtime;

	if (nid == 0 || nid > (image->n - image->meta) / SLOT)
		return "an inode's number outside of the image";
	*ret = (struct inode){ .nid = nid, .at = image->meta + (size_t)nid * SLOT };
	if (ret->at + INODE > image->n || ret->at / BLOCK != (ret->at + INODE - 1) / BLOCK)
		return "an inode over a block's end";
	p = image->bytes + ret->at;
	format = get_16(p);
	if ((format & 1) != 1 || format >> 4 != 0 || get_16(p + 2) != 0)
		return "an inode that isn't long, or has attributes";
	ret->layout = format >> 1 & 7;
	ret->mode = get_16(p + 4);
	ret->size = get_64(p + 8);
	ret->where = get_32(p + 16);
	ret->links = get_32(p + 44);
	mtime = (int64_t)get_64(p + 32);
	if (get_32(p + 24) != 0 || get_32(p + 28) != 0)
		return "an inode that isn't root's";
	if (mtime < 0 || mtime > time(NULL))
		return "a time that can't be";
	return NULL;
}

/* Where the bytes of a link or of a directory's block @i lie, and how many these are. */
static const char *find_bytes(const struct image *image, const struct inode *inode, uint64_t i,
	const unsigned char **ret, size_t *ret_n)
{
	uint64_t left = inode->size - i * BLOCK;
	size_t n = left < BLOCK ? (size_t)left : BLOCK;
	uint64_t at = ((uint64_t)inode->where + i) * BLOCK;

	if (inode->layout == INLINED && left < BLOCK) {
		at = inode->at + INODE;
		if (at / BLOCK != (at + n - 1) / BLOCK)
			return "inlined bytes over a block's end";
	} else if (inode->layout != PLAIN && inode->layout != INLINED) {
		return "a directory or link that is compressed";
	}
	if (at > image->n || n > image->n - at)
		return "bytes outside of the image";
	*ret = image->bytes + at;
	*ret_n = n;
	return NULL;
}

static const char *check_file(const struct image *image, const struct inode *inode)
{
	const unsigned char *p = image->bytes + inode->at + INODE;
	uint64_t fragment;

	if (inode->size == 0)
		return inode->layout == PLAIN ? NULL : "an empty file that is compressed";
	if (inode->layout != COMPRESSED || inode->at + INODE + 8 > image->n)
		return "a file that is no fragment";
	fragment = get_64(p);
	if (!(fragment >> 63))
		return "a file that is no whole fragment";
	fragment &= ~(UINT64_C(1) << 63);
	if (fragment > image->content || inode->size > image->content - fragment)
		return "a fragment outside of the stream";
	if (inode->where == 0)
		return "a file that looks like a hole";
	return NULL;
}

static const char *check_symlink(const struct image *image, const struct inode *inode)
{
	const unsigned char *bytes;
	size_t n;
	const char *fault;

	if (inode->size == 0 || inode->size >= BLOCK)
		return "a symbolic link that is too short or too long";
	fault = find_bytes(image, inode, 0, &bytes, &n);
	if (!fault && (n != inode->size || memchr(bytes, '\0', n)))
		fault = "a symbolic link that ends early";
	if (!fault && inode->links != 1)
		fault = "a symbolic link of several names";
	return fault;
}

struct names {
	const unsigned char *last;
	size_t last_n;
	uint64_t nid;
	uint64_t parent;
	bool dot;
	bool dots;
	uint32_t dirs;
};

static const char *check_order(struct names *names, const unsigned char *name, size_t n)
{
	size_t least = n < names->last_n ? n : names->last_n;
	int rc = names->last ? memcmp(names->last, name, least) : -1;

	if (rc > 0 || (rc == 0 && names->last_n >= n))
		return "names out of order";
	names->last = name;
	names->last_n = n;
	return NULL;
}

static const char *check_inode(
	struct image *image, uint64_t nid, uint64_t parent, unsigned type, unsigned depth);

static const char *check_name(struct image *image, struct names *names, const unsigned char *name,
	size_t n, uint64_t nid, unsigned type, unsigned depth)
{
	const char *fault = check_order(names, name, n);

	if (fault)
		return fault;
	if (n == 0 || n > 255 || memchr(name, '/', n) || memchr(name, '\0', n))
		return "a name that can't be";
	if (n == 1 && name[0] == '.') {
		names->dot = true;
		return nid == names->nid && type == 2 ? NULL : "'.' that is another";
	}
	if (n == 2 && memcmp(name, "..", 2) == 0) {
		names->dots = true;
		return nid == names->parent && type == 2 ? NULL : "'..' that is another";
	}
	names->dirs += type == 2;
	return check_inode(image, nid, names->nid, type, depth + 1);
}

static const char *check_block(struct image *image, struct names *names, const unsigned char *block,
	size_t bytes, unsigned depth)
{
	size_t n;
	const char *fault = NULL;

	if (bytes < 12 || get_16(block + 8) % 12 != 0)
		return "a block of names that begins with none";
	n = get_16(block + 8) / 12;
	if (n == 0 || n * 12 > bytes)
		return "a block of names with too many";
	for (size_t i = 0; !fault && i < n; i++) {
		const unsigned char *p = block + i * 12;
		size_t at = get_16(p + 8);
		size_t end = i + 1 < n ? get_16(p + 20) : bytes;

		if (at < n * 12 || end < at || end > bytes)
			return "a name outside of its block";
		/* the last one of a block that isn't full ends at a NUL */
		if (i + 1 == n && memchr(block + at, '\0', end - at))
			end = (size_t)((const unsigned char *)memchr(block + at, '\0', end - at) -
				       block);
		fault = check_name(image, names, block + at, end - at, get_64(p), p[10], depth);
	}
	return fault;
}

static const char *check_dir(
	struct image *image, const struct inode *inode, uint64_t parent, unsigned depth)
{
	struct names names = { .nid = inode->nid, .parent = parent };
	const char *fault = NULL;

	for (uint64_t i = 0; !fault && i * BLOCK < inode->size; i++) {
		const unsigned char *block;
		size_t n;

		fault = find_bytes(image, inode, i, &block, &n);
		if (!fault)
			fault = check_block(image, &names, block, n, depth);
	}
	if (fault)
		return fault;
	if (!names.dot || !names.dots)
		return "a directory without '.' or '..'";
	return inode->links == names.dirs + 2 ? NULL : "a directory's count of links";
}

static const char *check_inode(
	struct image *image, uint64_t nid, uint64_t parent, unsigned type, unsigned depth)
{
	static const struct {
		unsigned mode;
		unsigned type;
	} kinds[] = { { 0040755, 2 }, { 0100644, 1 }, { 0100755, 1 }, { 0120777, 7 } };
	struct inode inode;
	const char *fault = read_inode(image, nid, &inode);
	size_t kind = 0;

	if (fault)
		return fault;
	while (kind < 4 && (kinds[kind].mode != inode.mode || kinds[kind].type != type))
		kind++;
	if (kind == 4)
		return "a mode that can't be, or that its name gainsays";
	if (depth > DEPTH_MAX)
		return "a tree that is too deep";
	if (image->names[nid]++ > 0)
		return type == 1 ? NULL : "what is no file has two names";
	image->inodes++;
	if (type == 2)
		return check_dir(image, &inode, parent, depth);
	return type == 1 ? check_file(image, &inode) : check_symlink(image, &inode);
}

/* Files have as many names as they say. */
static const char *check_links(const struct image *image)
{
	for (uint64_t nid = 0; nid <= (image->n - image->meta) / SLOT; nid++) {
		struct inode inode;

		if (image->names[nid] == 0 || read_inode(image, nid, &inode))
			continue;
		if ((inode.mode & 0170000) == 0100000 && inode.links != image->names[nid])
			return "a file's count of links";
	}
	return NULL;
}

/* ---- the packed inode ---- */

/* Decompresses a frame of @blocks, which must hold @n bytes. */
static const char *check_frame(
	const struct image *image, uint32_t block, uint32_t blocks, uint64_t n)
{
	const unsigned char *p = image->bytes + (size_t)block * BLOCK;
	size_t left = (size_t)blocks * BLOCK;
	size_t frame;
	size_t got;

	if (blocks == 0 || left > FRAME_MAX || (uint64_t)block * BLOCK + left > image->meta)
		return "a frame outside of its place";
	for (size_t zeros = 0; left > 0 && *p == 0; zeros++, left--, p++)
		if (zeros == BLOCK)
			return "a block of zeros before a frame";
	frame = ZSTD_findFrameCompressedSize(p, left);
	if (ZSTD_isError(frame) || frame != left)
		return "a frame that doesn't end where its blocks do";
	got = ZSTD_decompress(image->scratch, FRAME_MAX, p, left);
	return ZSTD_isError(got) || got != n ? "a frame of another length" : NULL;
}

/* A frame that begins in block @i of the stream; *@ret_next is where the next one does. */
static const char *check_head(const struct image *image, const unsigned char *indexes,
	uint64_t count, uint64_t i, uint32_t *block, uint64_t *ret_next)
{
	const unsigned char *head = indexes + i * 8;
	uint64_t at = i * BLOCK + get_16(head + 2);
	uint64_t next = i + 1;
	uint32_t blocks = 1;
	uint64_t end;
	const char *fault;

	if (get_16(head) != 1 || get_16(head + 2) >= BLOCK)
		return "an index that is no frame's head";
	if (get_32(head + 4) != *block)
		return "frames with a gap";
	for (; next < count && get_16(indexes + next * 8) == 2; next++) {
		uint16_t back = get_16(indexes + next * 8 + 4);

		if (next == i + 1 && !(back & 1u << 11))
			return "no count of a frame's blocks";
		if (next == i + 1)
			blocks = back & ~(1u << 11);
		else if (back != next - i)
			return "an index that leads back to another frame";
	}
	for (uint64_t k = i + 1; k < next; k++)
		if (get_16(indexes + k * 8 + 6) != next - k)
			return "an index that leads on to another frame";
	end = next < count ? next * BLOCK + get_16(indexes + next * 8 + 2) : image->content;
	fault = end <= at ? "a frame without content"
			  : check_frame(image, *block, blocks, end - at);
	*block += blocks;
	*ret_next = next;
	return fault;
}

static const char *check_packed(struct image *image, uint64_t nid)
{
	const unsigned char *map;
	struct inode packed;
	const char *fault = read_inode(image, nid, &packed);
	uint64_t count;
	uint32_t block = 1;

	if (fault)
		return fault;
	map = image->bytes + packed.at + INODE;
	count = (packed.size + BLOCK - 1) / BLOCK;
	if (packed.layout != COMPRESSED || packed.mode != 0100644 || packed.size == 0)
		return "a packed inode that holds nothing";
	if (count > (image->n - packed.at) / 8 || packed.at + INODE + 16 + count * 8 > image->n)
		return "indexes outside of the image";
	if (get_32(map) != 0 || get_16(map + 4) != 2 || map[6] != 3 || map[7] != 0)
		return "a packed inode that isn't compressed as it must be";
	image->content = packed.size;
	if (get_16(map + 16 + 2) != 0)
		return "a stream without a beginning";
	for (uint64_t i = 0; !fault && i < count;)
		fault = check_head(image, map + 16, count, i, &block, &i);
	if (!fault && (size_t)block * BLOCK != image->meta)
		fault = "a gap behind the frames";
	if (!fault && packed.where != block - 1)
		fault = "a packed inode's count of blocks";
	return fault;
}

static const char *check_all(struct image *image)
{
	const unsigned char *super = image->bytes + SUPER;
	uint64_t root = get_16(super + 14);
	const char *fault = check_packed(image, get_64(super + 96));

	if (!fault)
		fault = check_inode(image, root, root, 2, 0);
	if (!fault && image->names[get_64(super + 96)] > 0)
		fault = "a packed inode with a name";
	if (!fault && get_64(super + 16) != image->inodes)
		fault = "another count of inodes";
	return fault ? fault : check_links(image);
}

const char *made_fault(const void *bytes, size_t n)
{
	const unsigned char *super = (const unsigned char *)bytes + SUPER;
	struct image image = { .bytes = bytes, .n = n };
	const char *fault;

	if (n < 2 * BLOCK || n % BLOCK != 0 || get_32(super) != 0xe0f5e1e2u || super[12] != 12)
		return "no image";
	if ((uint64_t)get_32(super + 36) * BLOCK != n)
		return "an image of another size";
	image.meta = (size_t)get_32(super + 40) * BLOCK;
	if (image.meta < BLOCK || image.meta >= n)
		return "no place for inodes";
	if (get_32(super + 80) != 0x23 || get_16(super + 84) != 8 || get_16(super + 86) != 0)
		return "other features";
	if (get_16(super + 128) != 6 || super[130] != 0 || super[131] != 10)
		return "other settings of zstd";
	image.names = calloc((n - image.meta) / SLOT + 1, sizeof(*image.names));
	image.scratch = malloc(FRAME_MAX);
	if (!image.names || !image.scratch)
		abort();
	fault = check_all(&image);
	free(image.names);
	free(image.scratch);
	return fault;
}
