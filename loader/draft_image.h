/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_DRAFT_IMAGE_H
#define NEST_LOADER_DRAFT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;
struct nest_pipeline_sink;

/*
 * What a draft (loader/draft.h) is made of when it becomes an EROFS image instead of a directory: the
 * archive's frames as they came, and where in them each entry lies. For loader/draft.c, which cleans
 * names, words errors and keeps the limits: what is called -errno here has no words yet. By one
 * thread at a time, but for the sink.
 */
struct nest_draft_image;

/* Begins one of at most @max_entries in @fd, an empty file, which is taken. The caller owns @ret. */
int nest_draft_image_new(
	int fd, uint64_t max_entries, struct nest_draft_image **ret, struct nest_err *err);

/* NULL is fine. */
void nest_draft_image_free(struct nest_draft_image *image);

/* Where the archive's frames go. Lives as long as @image; called by a thread of the pipeline's. */
const struct nest_pipeline_sink *nest_draft_image_sink(struct nest_draft_image *image);

/* Whether what failed did because this archive can't be an image, but may be a directory. */
bool nest_draft_image_refused(const struct nest_draft_image *image);

/* Says so: the result is -ENOTSUP. */
int nest_draft_image_refuse(struct nest_draft_image *image);

/* How many entries there are. */
uint64_t nest_draft_image_entries(const struct nest_draft_image *image);

/*
 * Add an entry by its clean name: 0 or -errno, as nest_erofs_entries_add() has it. The target of a
 * hard link is clean too: -ENOENT: there is no such file.
 */
int nest_draft_image_add_dir(struct nest_draft_image *image, const char *clean);
int nest_draft_image_add_symlink(
	struct nest_draft_image *image, const char *clean, const char *target);
int nest_draft_image_add_hardlink(
	struct nest_draft_image *image, const char *clean, const char *clean_target);
int nest_draft_image_begin_file(struct nest_draft_image *image, const char *clean);

/*
 * @n bytes of the file begun, at @offset in it, lie at @at in the stream of the frames. -ENOTSUP: not
 * right behind those before.
 */
int nest_draft_image_add_bytes(
	struct nest_draft_image *image, uint64_t at, uint64_t n, uint64_t offset);

/* The file begun had @size bytes. -ENOTSUP: not all of them came. */
int nest_draft_image_end_file(
	struct nest_draft_image *image, uint64_t size, bool executable, int64_t mtime_s);

/*
 * All is there: writes the image. -ENOTSUP: its frames can't be in one, or it would be larger than
 * @max_bytes. Blocks on the disk.
 */
int nest_draft_image_finish(
	struct nest_draft_image *image, uint64_t max_bytes, struct nest_err *err);

#endif
