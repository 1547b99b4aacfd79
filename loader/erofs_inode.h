/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_EROFS_INODE_H
#define NEST_LOADER_EROFS_INODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;

/*
 * An EROFS image that is read without being mounted, as fs/erofs/erofs_fs.h of Linux lays it out.
 * Every number in it is a stranger's: what it leads to is read from the file with pread(2), and what
 * lies outside of it is an error.
 */
struct nest_erofs_image {
	int fd;		    /* borrowed */
	uint64_t inodes_at; /* inode n lies 32 * n bytes behind */
	uint64_t root;	    /* the number of the top directory's inode */
	int64_t made_s;	    /* the time of those files that have none of their own */
	bool padded;	    /* compressed data ends where its blocks do, not begins */

	/* The part of the file that was read last, since indexes and inodes lie side by side. */
	uint64_t window_at;
	size_t window_n;
	unsigned char window[16384];
};

/* How the bytes of a file are kept. */
enum nest_erofs_layout {
	NEST_EROFS_LAYOUT_PLAIN,
	NEST_EROFS_LAYOUT_FULL,	   /* compressed, 8 bytes of index for each block */
	NEST_EROFS_LAYOUT_TAIL,	   /* plain, with what doesn't fill a block behind the inode */
	NEST_EROFS_LAYOUT_COMPACT, /* compressed, 2 or 4 bytes of index for each block */
	NEST_EROFS_LAYOUT_CHUNKS,
	NEST_EROFS_LAYOUTS
};

struct nest_erofs_inode {
	enum nest_erofs_layout layout;
	mode_t mode;
	uint64_t size;
	int64_t mtime_s;
	uint32_t start;	 /* the block of the first byte, or the form of the chunks */
	uint64_t behind; /* where the image goes on behind the inode and its attributes */
};

/* Begins to read the image in @fd, whose superblock nest_erofs_check_file() has found good. */
int nest_erofs_inode_open(int fd, struct nest_erofs_image *ret, struct nest_err *err);

/* Reads inode @number. Blocks on the disk. Any thread, one at a time for each image. */
int nest_erofs_inode_read(struct nest_erofs_image *image, uint64_t number,
	struct nest_erofs_inode *ret, struct nest_err *err);

/*
 * Reads at most @cap bytes at @offset, which lies before the end, of a file that isn't compressed;
 * as many as lie side by side, at least one. A hole reads as zeros. Blocks on the disk.
 */
ssize_t nest_erofs_inode_get(struct nest_erofs_image *image, const struct nest_erofs_inode *inode,
	uint64_t offset, void *bytes, size_t cap, struct nest_err *err);

/* Reads the @n bytes at @at of the image's file, through the window. */
int nest_erofs_inode_look(
	struct nest_erofs_image *image, uint64_t at, void *bytes, size_t n, struct nest_err *err);

/* Reads the @n bytes at @at of the image's file. */
int nest_erofs_inode_pull(const struct nest_erofs_image *image, uint64_t at, void *bytes, size_t n,
	struct nest_err *err);

/* Little-endian numbers at any address. */
uint16_t nest_erofs_inode_le16(const void *at);
uint32_t nest_erofs_inode_le32(const void *at);
uint64_t nest_erofs_inode_le64(const void *at);

#endif
