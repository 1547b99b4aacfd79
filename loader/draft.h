/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_DRAFT_H
#define NEST_LOADER_DRAFT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;
struct nest_pipeline_sink;

/*
 * A tree that is being made in the staging directory: the one way by which anything is written into
 * a tree, whoever reads the source. Used by one thread at a time. Every call blocks on the disk.
 */
struct nest_draft;

struct nest_draft_limits {
	uint64_t max_bytes;
	uint64_t max_entries;
	const atomic_bool *cancel; /* borrowed; when it turns true the next step is -ECANCELED */
};

struct nest_draft_totals {
	uint64_t bytes;	  /* of all files */
	uint64_t entries; /* files, directories and links, without the tree's own directory */
	uint64_t disk;	  /* what it takes there: whole blocks, and one for each directory */
	bool image;	  /* it is one file-system image (loader/tree_image.h) */
	bool made;	  /* which was made here, of an archive */
	bool self_named;  /* the tree is called by the digest of what is in its directory */
};

/* Makes the directory @name in @staging_fd and starts a tree in it; the caller owns @ret. */
int nest_draft_new(int staging_fd, const char *name, const struct nest_draft_limits *limits,
	struct nest_draft **ret, struct nest_err *err);

/*
 * Lets the draft, which is empty, become one EROFS image of what is added, to be mounted, instead of
 * a directory of it. This takes an archive whose bytes are lent, of frames that the sink below is
 * shown and that an image can hold. What is called fails with -ENOTSUP where it can't, and
 * nest_draft_refused() is true then: the archive is to be unpacked into another draft.
 */
int nest_draft_make_image(struct nest_draft *draft, struct nest_err *err);

/* The image's sink for its archive's frames (loader/pipeline.h); NULL: it is to be a directory. */
const struct nest_pipeline_sink *nest_draft_sink(struct nest_draft *draft);

/* Whether the archive is the reason that there is no image. */
bool nest_draft_refused(const struct nest_draft *draft);

/* Writes the image, once its archive was read to its end. Nothing may be added any more. */
int nest_draft_finish_image(struct nest_draft *draft, struct nest_err *err);

/* Lets go of the draft, not of what was written; NULL is fine. */
void nest_draft_free(struct nest_draft *draft);

/*
 * Adds an entry. @name is as the source gives it: it is cleaned and checked here, and errors name
 * it. Missing directories above it are made. What exists is never replaced or written through:
 * -EEXIST (a directory may come again).
 */
int nest_draft_add_dir(struct nest_draft *draft, const char *name, struct nest_err *err);
int nest_draft_add_symlink(
	struct nest_draft *draft, const char *name, const char *target, struct nest_err *err);

/* Adds another name of the regular file that came as @target before. */
int nest_draft_add_hardlink(
	struct nest_draft *draft, const char *name, const char *target, struct nest_err *err);

/*
 * Begins a regular file, of @size bytes if that is known, or -1, and executable as far as that is
 * known. One file at a time.
 */
int nest_draft_begin_file(struct nest_draft *draft, const char *name, int64_t size, bool executable,
	struct nest_err *err);

/* Writes @n bytes of it at @offset. */
int nest_draft_write(struct nest_draft *draft, const void *bytes, size_t n, uint64_t offset,
	struct nest_err *err);

/* Bytes that stay where they are as long as they are held. */
struct nest_draft_loan {
	const char *bytes;
	size_t n;
	uint64_t at;		     /* of the first of them in the archive, decompressed */
	void (*hold)(void *token);   /* called by the draft's user's thread */
	void (*let_go)(void *token); /* any thread, as often */
	void *token;
};

/*
 * What nest_draft_write() is given from within @loan (copied) is held instead of copied from now on.
 * NULL ends that; what is held then is let go without any further call, so the lender may wait for
 * it. nest_draft_flush() waits until all was.
 */
void nest_draft_lend(struct nest_draft *draft, const struct nest_draft_loan *loan);

/* Shares the blocks of @source_fd with the file begun: 0, or 1 where the file system can't. */
int nest_draft_clone(struct nest_draft *draft, int source_fd);

/* Reads back what the file begun holds; as pread(2). */
ssize_t nest_draft_read(struct nest_draft *draft, void *bytes, size_t cap, uint64_t offset);

/*
 * Ends the file at @size bytes (a hole to there where nothing was written), executable or not, with
 * its modification time @mtime_s brought into the range from 1970 to now.
 */
int nest_draft_end_file(struct nest_draft *draft, uint64_t size, bool executable, int64_t mtime_s,
	struct nest_err *err);

/*
 * Counts one entry of the source against max_entries whether or not it adds something, so that a
 * source that repeats itself ends.
 */
int nest_draft_visit(struct nest_draft *draft, struct nest_err *err);

/*
 * From now on threads of the draft's own write small files, where there are CPUs for them. What they come upon is the error of a
 * later call, at the latest of nest_draft_flush(). The draft's other rules don't change: files are
 * created in the order of the calls.
 */
int nest_draft_start_writers(struct nest_draft *draft, struct nest_err *err);

/* Waits until all files that were ended are written. */
int nest_draft_flush(struct nest_draft *draft, struct nest_err *err);

/* What was written so far. */
void nest_draft_totals(const struct nest_draft *draft, struct nest_draft_totals *ret);

static inline void nest_draft_cleanup(struct nest_draft **p)
{
	nest_draft_free(*p);
}
#define nest_autodraft __attribute__((cleanup(nest_draft_cleanup)))

#endif
