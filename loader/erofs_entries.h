/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_EROFS_ENTRIES_H
#define NEST_LOADER_EROFS_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

enum nest_erofs_entry_type {
	NEST_EROFS_ENTRY_DIR,
	NEST_EROFS_ENTRY_FILE,
	NEST_EROFS_ENTRY_SYMLINK,
	NEST_EROFS_ENTRY_HARDLINK,
};

/* One entry of a tree that is to become an image. The first four of what follows its names are set by
 * whoever adds it, the rest by loader/erofs_write.c. */
struct nest_erofs_entry {
	enum nest_erofs_entry_type type;
	uint32_t number; /* in the order of their making; the top directory's is 0 */
	struct nest_erofs_entry *parent; /* the top's is itself */
	struct nest_erofs_entry *file;	 /* of a hard link: the file that has this name too */
	char *target;			 /* of a symbolic link; owned */
	uint64_t size;			 /* of a file */
	uint64_t at;			 /* its first byte, in the stream that the image holds */
	int64_t mtime_s;		 /* likewise */
	bool executable;
	uint32_t links; /* names of a file; directories in a directory */

	uint64_t inode;	  /* where it lies, from the image's first inode on */
	uint64_t bytes;	  /* of a directory's entries, or a link's target */
	uint32_t inlined; /* how many of them, the last ones, lie behind the inode */
	uint32_t blocks;  /* that hold the others */
	uint32_t block;	  /* the first of them, likewise */
	size_t first;	  /* of a directory's entries in their order */
	size_t n;	  /* how many they are */

	UT_hash_handle hh; /* by its key */
	size_t name_n;
	char *name; /* within the key, ends with a NUL */
	char key[]; /* its directory's number, then its name */
};

/* The entries, by name, in memory. Used by one thread at a time. */
struct nest_erofs_entries;

/* No more than @max entries besides the top directory, which is there. The caller owns @ret: 0 or
 * -ENOMEM. */
int nest_erofs_entries_new(uint64_t max, struct nest_erofs_entries **ret);

/* NULL is fine. */
void nest_erofs_entries_free(struct nest_erofs_entries *entries);

/* How many there are besides the top directory. */
uint64_t nest_erofs_entries_count(const struct nest_erofs_entries *entries);

/*
 * Adds an entry by its clean name (loader/name.h), and the directories above it that are missing.
 * The entry is owned by @entries. -EEXIST: the name is taken (a directory may come again, and is
 * given then), -ENOTDIR: by something above it that is no directory, -EFBIG: there would be more than
 * there may be, -E2BIG: their names take more memory than is worth it, -ENAMETOOLONG: a part of its
 * name has more than NAME_MAX bytes.
 */
int nest_erofs_entries_add(struct nest_erofs_entries *entries, const char *clean,
	enum nest_erofs_entry_type type, struct nest_erofs_entry **ret);

/* Sets the target of a symbolic link, once (copied): 0, -E2BIG as above, or -ENOMEM. */
int nest_erofs_entries_set_target(
	struct nest_erofs_entries *entries, struct nest_erofs_entry *link, const char *target);

/* The entry of a clean name, borrowed, or NULL. */
struct nest_erofs_entry *nest_erofs_entries_find(
	struct nest_erofs_entries *entries, const char *clean);

/*
 * All of them: the top directory first, then each directory's side by side, in the order of their
 * names' bytes; directories know their first and count of them. *@ret is freed by the caller, and
 * valid while nothing is added. 0 or -ENOMEM.
 */
int nest_erofs_entries_sort(
	struct nest_erofs_entries *entries, struct nest_erofs_entry ***ret, size_t *ret_n);

#endif
