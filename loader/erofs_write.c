/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image, as fs/erofs/erofs_fs.h of Linux lays it out:
 *
 *	block 0			the superblock, at byte 1024
 *	NEST_EROFS_WRITE_FIRST	frames (loader/erofs_frames.h): the content of the packed inode
 *	behind them		inodes, each with what is inlined behind it; the packed inode's is the
 *				last one, with its indexes
 *	at the end		blocks of directories that don't fit behind their inode
 *
 * A file is a *fragment* of the packed inode: nothing of its own but where it begins there, which is
 * where it lies in the archive. All inodes are of the long form, which has times. The kernel never
 * sees a number that isn't ours: what the archive says ends up in names, targets, sizes that were
 * checked against the stream, modes of two kinds, and times.
 */
#include "loader/erofs_write.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "base/fd.h"
#include "loader/erofs_entries.h"
#include "loader/erofs_frames.h"

#define BLOCK NEST_EROFS_BLOCK
#define SLOT 32u /* an inode's number counts these */
#define INODE 64u
#define MAP_HEADER 8u  /* of a compressed file, behind its inode */
#define INDEXES_AT 16u /* likewise: what lies between is unused */
#define DIRENT 12u
#define DIRENTS_MAX (BLOCK / (DIRENT + 1))
#define CHUNK (64u << 10)
#define NOWHERE UINT32_MAX

enum layout {
	LAYOUT_BLOCKS = 0,
	LAYOUT_COMPRESSED = 1,
	LAYOUT_INLINED = 2,
};

/* Values of the format's fields. */
enum {
	LONG_INODE = 1,
	ZSTD = 3,
	ZSTD_WINDOW_BITS = 10, /* above 10: NEST_EROFS_FRAMES_MAX */
	BIG_FRAMES = 1 << 1,
	TYPE_FILE = 1,
	TYPE_DIR = 2,
	TYPE_SYMLINK = 7,
	FEATURES = 1 << 0 | 1 << 1 | 1 << 5, /* padding, compression's settings, fragments */
};
#define WHOLE_FRAGMENT (UINT64_C(1) << 63)

/* What is written comes in order, and goes out in chunks. */
struct writer {
	int fd;
	uint64_t at; /* of the chunk */
	size_t n;
	int rc;
	struct nest_err *err;
	unsigned char chunk[CHUNK];
};

struct image {
	struct nest_erofs_entry **order;
	size_t n;
	uint64_t inodes;
	const struct nest_erofs_frames *frames;
	uint32_t first;	 /* block of inodes */
	uint32_t blocks; /* of them */
	uint32_t others; /* blocks behind them */
	int64_t now_s;
	struct nest_erofs_entry packed; /* without a name, the room for which is at its end */
};

/* ---- bytes ---- */

static void flush(struct writer *writer)
{
	if (writer->rc == 0 && writer->n > 0)
		writer->rc = nest_fd_pwrite_all(
			writer->fd, writer->chunk, writer->n, writer->at, writer->err);
	writer->at += writer->n;
	writer->n = 0;
}

static void put(struct writer *writer, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	while (n > 0) {
		size_t step = sizeof(writer->chunk) - writer->n;

		if (step > n)
			step = n;
		memcpy(writer->chunk + writer->n, p, step);
		writer->n += step;
		p += step;
		n -= step;
		if (writer->n == sizeof(writer->chunk))
			flush(writer);
	}
}

static void put_zeros(struct writer *writer, uint64_t up_to)
{
	static const unsigned char zeros[BLOCK];

	while (writer->at + writer->n < up_to) {
		uint64_t left = up_to - (writer->at + writer->n);

		put(writer, zeros, left < sizeof(zeros) ? (size_t)left : sizeof(zeros));
	}
}

static unsigned char *set_16(unsigned char *at, uint16_t value)
{
	value = htole16(value);
	return (unsigned char *)memcpy(at, &value, sizeof(value)) + sizeof(value);
}

static unsigned char *set_32(unsigned char *at, uint32_t value)
{
	value = htole32(value);
	return (unsigned char *)memcpy(at, &value, sizeof(value)) + sizeof(value);
}

static unsigned char *set_64(unsigned char *at, uint64_t value)
{
	value = htole64(value);
	return (unsigned char *)memcpy(at, &value, sizeof(value)) + sizeof(value);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* ---- directories ---- */

/* A directory's names, among them its own and its parent's, in the order of their bytes. */
struct names {
	const struct image *image;
	const struct nest_erofs_entry *dir;
	size_t next;
	bool dot;  /* "." was given, */
	bool dots; /* and ".." */
};

struct name {
	const char *text;
	size_t n;
	const struct nest_erofs_entry *entry;
};

static bool is_before(const char *text, const struct nest_erofs_entry *entry)
{
	return !entry || strcmp(text, entry->name) < 0;
}

/* false: there is none any more. */
static bool peek(const struct names *names, struct name *ret)
{
	const struct nest_erofs_entry *dir = names->dir;
	const struct nest_erofs_entry *entry =
		names->next < dir->n ? names->image->order[dir->first + names->next] : NULL;

	if (!names->dot && is_before(".", entry))
		*ret = (struct name){ ".", 1, dir };
	else if (names->dot && !names->dots && is_before("..", entry))
		*ret = (struct name){ "..", 2, dir->parent };
	else if (entry)
		*ret = (struct name){ entry->name, entry->name_n, entry };
	else
		return false;
	return true;
}

static void pass(struct names *names, const struct name *name)
{
	if (name->text[0] == '.' && name->n == 1)
		names->dot = true;
	else if (name->text[0] == '.' && name->n == 2 && name->text[1] == '.')
		names->dots = true;
	else
		names->next++;
}

static const struct nest_erofs_entry *inode_of(const struct nest_erofs_entry *entry)
{
	return entry->type == NEST_EROFS_ENTRY_HARDLINK ? entry->file : entry;
}

static unsigned char type_of(const struct nest_erofs_entry *entry)
{
	return entry->type == NEST_EROFS_ENTRY_DIR	 ? TYPE_DIR
	       : entry->type == NEST_EROFS_ENTRY_SYMLINK ? TYPE_SYMLINK
							 : TYPE_FILE;
}

/* Fills one block with as many of the next names as fit: how many bytes that is; 0: none was left. */
static size_t fill_block(struct names *names, unsigned char ret[BLOCK])
{
	struct name list[DIRENTS_MAX];
	struct name name;
	size_t used = 0;
	size_t n = 0;
	size_t at;

	while (peek(names, &name) && used + DIRENT + name.n <= BLOCK) {
		list[n++] = name;
		used += DIRENT + name.n;
		pass(names, &name);
	}
	at = n * DIRENT;
	for (size_t i = 0; i < n; i++) {
		unsigned char *p = ret + i * DIRENT;

		p = set_64(p, inode_of(list[i].entry)->inode / SLOT);
		p = set_16(p, (uint16_t)at);
		*p++ = type_of(list[i].entry);
		*p = 0;
		memcpy(ret + at, list[i].text, list[i].n);
		at += list[i].n;
	}
	return used;
}

/* ---- where everything lies ---- */

/* Divides @bytes between the inode's own block and others. */
static void divide(struct image *image, struct nest_erofs_entry *entry, uint64_t bytes)
{
	uint32_t tail = (uint32_t)(bytes % BLOCK);

	entry->bytes = bytes;
	entry->inlined = tail <= BLOCK - INODE ? tail : 0;
	entry->blocks = (uint32_t)((bytes - entry->inlined + BLOCK - 1) / BLOCK);
	entry->block = image->others;
	image->others += entry->blocks;
}

static void measure_dir(struct image *image, struct nest_erofs_entry *dir)
{
	struct names names = { .image = image, .dir = dir };
	unsigned char block[BLOCK];
	uint64_t bytes = 0;
	size_t n;

	while ((n = fill_block(&names, block)) > 0)
		bytes = round_up(bytes, BLOCK) + n;
	divide(image, dir, bytes);
}

static int check_file(const struct image *image, const struct nest_erofs_entry *file)
{
	return file->size > 0 && (file->at > image->frames->content ||
					 file->size > image->frames->content - file->at)
		       ? -ERANGE
		       : 0;
}

/* Behind @at, in the same block with what is inlined: where that ends. */
static uint64_t place_inode(struct nest_erofs_entry *entry, uint64_t at)
{
	bool fragment = entry->type == NEST_EROFS_ENTRY_FILE && entry->size > 0;
	uint64_t n = INODE + (fragment ? MAP_HEADER : entry->inlined);

	at = round_up(at, SLOT);
	if (at / BLOCK != (at + n - 1) / BLOCK)
		at = round_up(at, BLOCK);
	entry->inode = at;
	return at + n;
}

static int place_all(struct image *image, struct nest_err *err)
{
	uint64_t at = SLOT; /* an inode's number is seen by programs, and 0 is none */

	for (size_t i = 0; i < image->n; i++) {
		struct nest_erofs_entry *entry = image->order[i];

		if (check_file(image, entry) < 0)
			return nest_err_say(
				err, -ERANGE, "a file that ends behind the archive's end");
		if (entry->type == NEST_EROFS_ENTRY_DIR)
			measure_dir(image, entry);
		else if (entry->type == NEST_EROFS_ENTRY_SYMLINK)
			divide(image, entry, strlen(entry->target));
		if (entry->type == NEST_EROFS_ENTRY_HARDLINK)
			continue;
		at = place_inode(entry, at);
		image->inodes++;
	}
	image->packed.size = image->frames->content;
	image->packed.links = 1;
	place_inode(&image->packed, at);
	at = image->packed.inode + INODE + INDEXES_AT +
	     nest_erofs_frames_count(image->frames) * NEST_EROFS_FRAMES_INDEX;
	image->first = image->frames->block;
	image->blocks = (uint32_t)((at + BLOCK - 1) / BLOCK);
	return 0;
}

/* ---- what lies there ---- */

static uint32_t mode_of(const struct nest_erofs_entry *entry)
{
	if (entry->type == NEST_EROFS_ENTRY_DIR)
		return 0040755;
	if (entry->type == NEST_EROFS_ENTRY_SYMLINK)
		return 0120777;
	return entry->executable ? 0100755 : 0100644;
}

/* @where: of its blocks, or how many it has if it is compressed. */
static void put_inode(struct writer *writer, const struct image *image,
	const struct nest_erofs_entry *entry, enum layout layout, uint32_t where)
{
	bool file = entry->type == NEST_EROFS_ENTRY_FILE;
	unsigned char inode[INODE] = { 0 };
	unsigned char *p = inode;

	p = set_16(p, (uint16_t)(LONG_INODE | layout << 1));
	p = set_16(p, 0);
	p = set_16(p, (uint16_t)mode_of(entry));
	p = set_16(p, 0);
	p = set_64(p, file ? entry->size : entry->bytes);
	p = set_32(p, where);
	p = set_32(p, entry->number + 1);
	p = set_32(p, 0); /* the owner: root, as far as the mount's users can tell */
	p = set_32(p, 0);
	p = set_64(
		p, (uint64_t)(entry->type == NEST_EROFS_ENTRY_DIR ? image->now_s : entry->mtime_s));
	p = set_32(p, 0);
	set_32(p, file ? entry->links : entry->type == NEST_EROFS_ENTRY_DIR ? entry->links + 2 : 1);
	put(writer, inode, sizeof(inode));
}

static void put_file(
	struct writer *writer, const struct image *image, const struct nest_erofs_entry *file)
{
	unsigned char map[MAP_HEADER];

	if (file->size == 0) {
		put_inode(writer, image, file, LAYOUT_BLOCKS, NOWHERE);
		return;
	}
	/* It has no block of its own; but a file with bytes and no blocks looks like a hole. */
	put_inode(writer, image, file, LAYOUT_COMPRESSED,
		(uint32_t)((file->size + BLOCK - 1) / BLOCK));
	set_64(map, file->at | WHOLE_FRAGMENT);
	put(writer, map, sizeof(map));
}

/* The last block of the names of @dir if @last, else those before it, each padded to its end. */
static void put_names(struct writer *writer, const struct image *image,
	const struct nest_erofs_entry *dir, bool last)
{
	struct names names = { .image = image, .dir = dir };
	unsigned char block[BLOCK];
	uint32_t i = 0;
	size_t n;

	for (; (n = fill_block(&names, block)) > 0; i++) {
		if (i < dir->blocks && !last) {
			memset(block + n, 0, BLOCK - n);
			put(writer, block, BLOCK);
		} else if (i == dir->blocks && last) {
			put(writer, block, n);
		}
	}
}

static void put_entry(
	struct writer *writer, const struct image *image, const struct nest_erofs_entry *entry)
{
	uint32_t where = entry->blocks ? image->first + image->blocks + entry->block : NOWHERE;

	put_zeros(writer, (uint64_t)image->first * BLOCK + entry->inode);
	if (entry->type == NEST_EROFS_ENTRY_FILE) {
		put_file(writer, image, entry);
		return;
	}
	put_inode(writer, image, entry, entry->inlined ? LAYOUT_INLINED : LAYOUT_BLOCKS, where);
	if (entry->type == NEST_EROFS_ENTRY_DIR && entry->inlined)
		put_names(writer, image, entry, true);
	else if (entry->inlined)
		put(writer, entry->target, entry->inlined);
}

static void put_packed(struct writer *writer, const struct image *image)
{
	uint64_t count = nest_erofs_frames_count(image->frames);
	unsigned char map[INDEXES_AT] = { 0 };
	size_t at = 0;

	put_zeros(writer, (uint64_t)image->first * BLOCK + image->packed.inode);
	put_inode(writer, image, &image->packed, LAYOUT_COMPRESSED,
		image->frames->block - NEST_EROFS_WRITE_FIRST);
	set_16(map + 4, BIG_FRAMES);
	map[6] = ZSTD;
	put(writer, map, sizeof(map));
	for (uint64_t i = 0; i < count; i++) {
		unsigned char index[NEST_EROFS_FRAMES_INDEX];

		nest_erofs_frames_index(image->frames, i, &at, index);
		put(writer, index, sizeof(index));
	}
}

static void put_others(struct writer *writer, const struct image *image)
{
	put_zeros(writer, (uint64_t)(image->first + image->blocks) * BLOCK);
	for (size_t i = 0; i < image->n; i++) {
		const struct nest_erofs_entry *entry = image->order[i];

		if (entry->blocks == 0)
			continue;
		if (entry->type == NEST_EROFS_ENTRY_DIR)
			put_names(writer, image, entry, false);
		else
			put(writer, entry->target, entry->bytes);
		put_zeros(writer, round_up(writer->at + writer->n, BLOCK));
	}
}

static void put_superblock(struct writer *writer, const struct image *image)
{
	unsigned char super[NEST_EROFS_BYTES + 8] = { 0 };

	set_32(super, NEST_EROFS_MAGIC);
	super[12] = NEST_EROFS_BLOCK_BITS;
	set_16(super + 14, (uint16_t)(image->order[0]->inode / SLOT));
	set_64(super + 16, image->inodes);
	set_64(super + 24, (uint64_t)image->now_s);
	set_32(super + 36, image->first + image->blocks + image->others);
	set_32(super + 40, image->first);
	set_32(super + 80, FEATURES);
	set_16(super + 84, 1u << ZSTD);
	set_64(super + 96, image->packed.inode / SLOT);
	/* of the algorithm: the settings' length, their format, the largest window */
	set_16(super + NEST_EROFS_BYTES, 6);
	super[NEST_EROFS_BYTES + 3] = ZSTD_WINDOW_BITS;
	put(writer, super, sizeof(super));
}

int nest_erofs_write(int fd, struct nest_erofs_entries *entries,
	const struct nest_erofs_frames *frames, struct nest_err *err)
{
	nest_autofree struct writer *writer = calloc(1, sizeof(*writer));
	struct image image = {
		.frames = frames, .packed.type = NEST_EROFS_ENTRY_FILE, .now_s = time(NULL)
	};
	int rc;

	if (!writer || nest_erofs_entries_sort(entries, &image.order, &image.n) < 0)
		return nest_err_set(err, -ENOMEM, "make an image");
	image.packed.number = (uint32_t)image.n;
	rc = place_all(&image, err);
	if (rc == 0) {
		*writer = (struct writer){
			.fd = fd, .at = (uint64_t)image.first * BLOCK, .err = err
		};
		for (size_t i = 0; i < image.n; i++)
			if (image.order[i]->type != NEST_EROFS_ENTRY_HARDLINK)
				put_entry(writer, &image, image.order[i]);
		put_packed(writer, &image);
		put_others(writer, &image);
		flush(writer);
		writer->at = NEST_EROFS_OFFSET;
		put_superblock(writer, &image);
		flush(writer);
		rc = writer->rc;
	}
	free(image.order);
	return rc;
}
