/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An EROFS image into a draft. It is walked from its top directory down, depth first; a draft bounds
 * how deep that goes (names) and how long it takes (entries, bytes), so an image whose directories
 * lead back into each other ends as one that is too large.
 */
#include "loader/unpack_erofs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <lz4.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "loader/draft.h"
#include "loader/erofs_extents.h"
#include "loader/erofs_inode.h"
#include "loader/name.h"

#define BLOCK NEST_EROFS_BLOCK
#define CHUNK (128u << 10)

/* Where the fields of a directory's entry lie; the names come behind the entries of a block. */
enum {
	ENTRY_INODE = 0,
	ENTRY_NAME = 8,
	ENTRY = 12,
};

/* A directory that is being walked. */
struct dir {
	struct nest_erofs_inode inode;
	uint64_t block; /* offset of the block that is being read */
	unsigned next;	/* entry in it */
	size_t name_n;	/* of the directory's own name */
};

struct unpack {
	struct nest_erofs_image image;
	struct nest_draft *draft;
	struct nest_err *err;
	struct dir *dirs; /* from the top down to the one being walked */
	size_t n_dirs;
	size_t room;
	char name[NEST_NAME_CAP];
	unsigned char block[BLOCK]; /* of the last of them */
	size_t block_n;
	char *packed; /* as it is in the image */
	size_t packed_room;
	char *bytes; /* of a file */
	size_t bytes_room;
};

/* Puts the entry's name before an error that came of its bytes. */
static int at_entry(struct unpack *unpack, int rc)
{
	char quoted[NEST_NAME_QUOTED_CAP];

	if (rc < 0)
		nest_err_wrap(unpack->err, "read the image at entry %s",
			nest_name_quote(unpack->name[0] ? unpack->name : ".", quoted));
	return rc;
}

static int damaged(struct unpack *unpack, const char *what)
{
	return at_entry(
		unpack, nest_err_say(unpack->err, -EBADMSG, "damaged EROFS image: %s", what));
}

static int reserve(struct unpack *unpack, char **buffer, size_t *room, size_t n)
{
	if (n <= *room)
		return 0;
	free(*buffer);
	*buffer = malloc(n);
	*room = *buffer ? n : 0;
	return *buffer ? 0 : nest_err_set(unpack->err, -ENOMEM, "unpack the image");
}

/* ---- files ---- */

static int write_plain(struct unpack *unpack, const struct nest_erofs_inode *inode)
{
	int rc = reserve(unpack, &unpack->bytes, &unpack->bytes_room, CHUNK);
	uint64_t at = 0;

	while (rc == 0 && at < inode->size) {
		ssize_t n = nest_erofs_inode_get(
			&unpack->image, inode, at, unpack->bytes, CHUNK, unpack->err);

		if (n < 0)
			return at_entry(unpack, (int)n);
		rc = nest_draft_write(unpack->draft, unpack->bytes, (size_t)n, at, unpack->err);
		at += (size_t)n;
	}
	return rc;
}

static int decompress(struct unpack *unpack, const struct nest_erofs_extent *extent)
{
	const char *in = unpack->packed;
	size_t n = extent->packed;
	int got;

	/* No LZ4 data begins with a zero. */
	while (unpack->image.padded && n > 0 && *in == '\0') {
		in++;
		n--;
	}
	if (unpack->image.padded)
		got = LZ4_decompress_safe(in, unpack->bytes, (int)n, (int)extent->n);
	else
		got = LZ4_decompress_safe_partial(
			in, unpack->bytes, (int)n, (int)extent->n, (int)extent->n);
	return got < 0 || (size_t)got != extent->n ? damaged(unpack, "LZ4 data that is none") : 0;
}

static int write_extent(struct unpack *unpack, const struct nest_erofs_extent *extent)
{
	const char *bytes = unpack->packed;
	int rc = reserve(unpack, &unpack->packed, &unpack->packed_room, extent->packed);

	if (rc == 0)
		rc = reserve(unpack, &unpack->bytes, &unpack->bytes_room, extent->n);
	if (rc < 0)
		return rc;
	rc = at_entry(unpack, nest_erofs_inode_pull(&unpack->image, extent->at, unpack->packed,
				      extent->packed, unpack->err));
	if (rc == 0 && extent->kind == NEST_EROFS_EXTENT_LZ4)
		rc = decompress(unpack, extent);
	bytes = extent->kind == NEST_EROFS_EXTENT_PLAIN ? unpack->packed : unpack->bytes;
	if (extent->kind == NEST_EROFS_EXTENT_TURNED)
		for (size_t i = 0; i < extent->n; i++)
			unpack->bytes[i] = unpack->packed[(extent->offset + i) % BLOCK];
	return rc < 0 ? rc
		      : nest_draft_write(
				unpack->draft, bytes, extent->n, extent->offset, unpack->err);
}

static int write_compressed(struct unpack *unpack, const struct nest_erofs_inode *inode)
{
	struct nest_erofs_extents walk;
	struct nest_erofs_extent extent;
	int rc;

	if (inode->size == 0)
		return 0;
	rc = at_entry(unpack, nest_erofs_extents_start(&walk, &unpack->image, inode, unpack->err));
	while (rc == 0) {
		rc = at_entry(unpack, nest_erofs_extents_next(&walk, &extent, unpack->err));
		if (rc == 0)
			rc = write_extent(unpack, &extent);
	}
	return rc < 0 ? rc : 0;
}

static int add_file(struct unpack *unpack, const struct nest_erofs_inode *inode)
{
	bool compressed = inode->layout == NEST_EROFS_LAYOUT_FULL ||
			  inode->layout == NEST_EROFS_LAYOUT_COMPACT;
	bool executable = inode->mode & 0111;
	int rc = nest_draft_begin_file(
		unpack->draft, unpack->name, (int64_t)inode->size, executable, unpack->err);

	if (rc == 0)
		rc = compressed ? write_compressed(unpack, inode) : write_plain(unpack, inode);
	return rc < 0 ? rc
		      : nest_draft_end_file(unpack->draft, inode->size, executable, inode->mtime_s,
				unpack->err);
}

/* ---- other entries ---- */

static int add_symlink(struct unpack *unpack, const struct nest_erofs_inode *inode)
{
	char target[NEST_NAME_CAP];
	size_t n = 0;

	if (inode->size >= sizeof(target))
		return damaged(unpack, "a link's target that is too long");
	while (n < inode->size) {
		ssize_t more = nest_erofs_inode_get(
			&unpack->image, inode, n, target + n, inode->size - n, unpack->err);

		if (more < 0)
			return at_entry(unpack, (int)more);
		n += (size_t)more;
	}
	target[n] = '\0';
	if (strlen(target) != n)
		return damaged(unpack, "a link's target with a NUL in it");
	return nest_draft_add_symlink(unpack->draft, unpack->name, target, unpack->err);
}

static int refuse_type(struct unpack *unpack, mode_t mode)
{
	char quoted[NEST_NAME_QUOTED_CAP];
	const char *word = S_ISCHR(mode)    ? "a character device"
			   : S_ISBLK(mode)  ? "a block device"
			   : S_ISFIFO(mode) ? "a fifo"
			   : S_ISSOCK(mode) ? "a socket"
					    : "of an unknown type";

	return nest_err_say(unpack->err, -EINVAL,
		"entry %s is %s: a code tree holds files, directories and links only",
		nest_name_quote(unpack->name, quoted), word);
}

/* Goes down into a directory, whose name is unpack->name. */
static int push(struct unpack *unpack, const struct nest_erofs_inode *inode)
{
	if (unpack->n_dirs == unpack->room) {
		size_t room = unpack->room ? 2 * unpack->room : 16;
		struct dir *dirs = realloc(unpack->dirs, room * sizeof(*dirs));

		if (!dirs)
			return nest_err_set(unpack->err, -ENOMEM, "unpack the image");
		unpack->dirs = dirs;
		unpack->room = room;
	}
	unpack->dirs[unpack->n_dirs++] =
		(struct dir){ .inode = *inode, .name_n = strlen(unpack->name) };
	unpack->block_n = 0;
	return 0;
}

static int add_entry(struct unpack *unpack, uint64_t number)
{
	struct nest_erofs_inode inode;
	int rc = nest_draft_visit(unpack->draft, unpack->err);

	if (rc == 0)
		rc = at_entry(
			unpack, nest_erofs_inode_read(&unpack->image, number, &inode, unpack->err));
	if (rc < 0)
		return rc;
	if (S_ISREG(inode.mode))
		return add_file(unpack, &inode);
	if (S_ISLNK(inode.mode))
		return add_symlink(unpack, &inode);
	if (!S_ISDIR(inode.mode))
		return refuse_type(unpack, inode.mode);
	rc = nest_draft_add_dir(unpack->draft, unpack->name, unpack->err);
	return rc < 0 ? rc : push(unpack, &inode);
}

/* ---- directories ---- */

/* 1: the directory's end. */
static int read_block(struct unpack *unpack, const struct dir *dir)
{
	uint64_t left = dir->inode.size - dir->block;
	size_t want = left < BLOCK ? (size_t)left : BLOCK;
	ssize_t n;

	if (want == 0)
		return 1;
	n = nest_erofs_inode_get(
		&unpack->image, &dir->inode, dir->block, unpack->block, want, unpack->err);
	if (n < 0)
		return at_entry(unpack, (int)n);
	if ((size_t)n < want || want < ENTRY)
		return damaged(unpack, "a directory that is cut short");
	unpack->block_n = want;
	return 0;
}

/* The name of entry @i of the block, of which there are @count, within its bytes; 0: it has none. */
static size_t find_name(const struct unpack *unpack, unsigned i, unsigned count, const char **ret)
{
	const unsigned char *entry = unpack->block + (size_t)i * ENTRY;
	size_t from = nest_erofs_inode_le16(entry + ENTRY_NAME);
	size_t to =
		i + 1 < count ? nest_erofs_inode_le16(entry + ENTRY + ENTRY_NAME) : unpack->block_n;

	if (from < (size_t)count * ENTRY || from >= to || to > unpack->block_n)
		return 0;
	*ret = (const char *)unpack->block + from;
	return strnlen(*ret, to - from);
}

static bool is_dots(const char *name, size_t n)
{
	return name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.'));
}

/* Makes unpack->name that of an entry @name of @dir. */
static int set_name(struct unpack *unpack, const struct dir *dir, const char *name, size_t n)
{
	size_t at = dir->name_n;

	if (memchr(name, '/', n))
		return damaged(unpack, "a name with a slash in it");
	if (at + n + 2 > sizeof(unpack->name))
		return at_entry(unpack, nest_err_say(unpack->err, -ENAMETOOLONG,
						"its entries' names are too long"));
	if (at > 0)
		unpack->name[at++] = '/';
	memcpy(unpack->name + at, name, n);
	unpack->name[at + n] = '\0';
	return 0;
}

/* Takes the next entry of the directory that is being walked, or goes on to its next block, or up. */
static int step(struct unpack *unpack)
{
	struct dir *dir = &unpack->dirs[unpack->n_dirs - 1];
	unsigned count;
	const char *name;
	size_t n;
	int rc;

	unpack->name[dir->name_n] = '\0';
	rc = unpack->block_n == 0 ? read_block(unpack, dir) : 0;
	if (rc < 0)
		return rc;
	if (rc == 1) {
		unpack->n_dirs--;
		return 0;
	}
	count = nest_erofs_inode_le16(unpack->block + ENTRY_NAME) / ENTRY;
	if (count == 0 || (size_t)count * ENTRY > unpack->block_n)
		return damaged(unpack, "a directory block without entries");
	if (dir->next >= count) {
		dir->block += unpack->block_n;
		dir->next = 0;
		unpack->block_n = 0;
		return 0;
	}
	n = find_name(unpack, dir->next, count, &name);
	if (n == 0)
		return damaged(unpack, "an entry without a name");
	rc = is_dots(name, n) ? 1 : set_name(unpack, dir, name, n);
	if (rc < 0)
		return rc;
	return rc == 1 ? (dir->next++, 0)
		       : add_entry(unpack, nest_erofs_inode_le64(
						   unpack->block + (size_t)dir->next++ * ENTRY));
}

static int unpack_all(struct unpack *unpack)
{
	struct nest_erofs_inode top;
	int rc = at_entry(unpack,
		nest_erofs_inode_read(&unpack->image, unpack->image.root, &top, unpack->err));

	if (rc == 0 && !S_ISDIR(top.mode))
		rc = damaged(unpack, "its top is no directory");
	if (rc == 0)
		rc = nest_draft_start_writers(unpack->draft, unpack->err);
	if (rc == 0)
		rc = push(unpack, &top);
	while (rc == 0 && unpack->n_dirs > 0)
		rc = step(unpack);
	return rc < 0 ? rc : nest_draft_flush(unpack->draft, unpack->err);
}

int nest_unpack_erofs_file(int fd, struct nest_draft *draft, struct nest_err *err)
{
	struct nest_err unused = NEST_ERR_INIT;
	nest_autofree struct unpack *unpack = calloc(1, sizeof(*unpack));
	int rc;

	if (!unpack)
		return nest_err_set(err, -ENOMEM, "unpack the image");
	unpack->draft = draft;
	unpack->err = err ? err : &unused;
	rc = nest_erofs_inode_open(fd, &unpack->image, unpack->err);
	if (rc == 0)
		rc = unpack_all(unpack);
	free(unpack->dirs);
	free(unpack->packed);
	free(unpack->bytes);
	return rc;
}
