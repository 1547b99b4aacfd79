/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/draft_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/erofs_entries.h"
#include "loader/erofs_frames.h"
#include "loader/erofs_write.h"
#include "loader/pipeline.h"

struct nest_draft_image {
	int fd;
	struct nest_erofs_frames frames; /* the sink's until its pipeline is gone, or has ended */
	struct nest_erofs_entries *entries;
	struct nest_erofs_entry *file; /* begun */
	struct nest_pipeline_sink sink;
	int64_t now_s;
	bool refused;
};

static int take_frame(
	void *arg, const struct nest_frames *head, const void *bytes, struct nest_err *err)
{
	struct nest_draft_image *image = arg;

	return nest_erofs_frames_take(&image->frames, head, bytes, err);
}

int nest_draft_image_new(
	int fd, uint64_t max_entries, struct nest_draft_image **ret, struct nest_err *err)
{
	struct nest_draft_image *image = calloc(1, sizeof(*image));

	if (!image || nest_erofs_entries_new(max_entries, &image->entries) < 0) {
		free(image);
		close(fd);
		return nest_err_set(err, -ENOMEM, "make an image");
	}
	image->fd = fd;
	image->now_s = time(NULL);
	image->sink = (struct nest_pipeline_sink){ .take = take_frame, .arg = image };
	nest_erofs_frames_start(&image->frames, fd, NEST_EROFS_WRITE_FIRST);
	*ret = image;
	return 0;
}

void nest_draft_image_free(struct nest_draft_image *image)
{
	if (!image)
		return;
	nest_erofs_entries_free(image->entries);
	nest_erofs_frames_end(&image->frames);
	nest_cleanup_close(&image->fd);
	free(image);
}

const struct nest_pipeline_sink *nest_draft_image_sink(struct nest_draft_image *image)
{
	return &image->sink;
}

bool nest_draft_image_refused(const struct nest_draft_image *image)
{
	return image->refused || atomic_load(&image->frames.refused);
}

uint64_t nest_draft_image_entries(const struct nest_draft_image *image)
{
	return nest_erofs_entries_count(image->entries);
}

int nest_draft_image_refuse(struct nest_draft_image *image)
{
	image->refused = true;
	return -ENOTSUP;
}

static int add(struct nest_draft_image *image, const char *clean, enum nest_erofs_entry_type type,
	struct nest_erofs_entry **ret)
{
	int rc = nest_erofs_entries_add(image->entries, clean, type, ret);

	return rc == -E2BIG ? nest_draft_image_refuse(image) : rc;
}

int nest_draft_image_add_dir(struct nest_draft_image *image, const char *clean)
{
	struct nest_erofs_entry *dir;

	return add(image, clean, NEST_EROFS_ENTRY_DIR, &dir);
}

int nest_draft_image_add_symlink(
	struct nest_draft_image *image, const char *clean, const char *target)
{
	struct nest_erofs_entry *link;
	int rc = add(image, clean, NEST_EROFS_ENTRY_SYMLINK, &link);

	if (rc < 0)
		return rc;
	link->mtime_s = image->now_s;
	rc = nest_erofs_entries_set_target(image->entries, link, target);
	return rc == -E2BIG ? nest_draft_image_refuse(image) : rc;
}

int nest_draft_image_add_hardlink(
	struct nest_draft_image *image, const char *clean, const char *clean_target)
{
	struct nest_erofs_entry *file = nest_erofs_entries_find(image->entries, clean_target);
	struct nest_erofs_entry *link;
	int rc;

	if (file && file->type == NEST_EROFS_ENTRY_HARDLINK)
		file = file->file;
	if (!file || file->type != NEST_EROFS_ENTRY_FILE)
		return -ENOENT;
	rc = add(image, clean, NEST_EROFS_ENTRY_HARDLINK, &link);
	if (rc < 0)
		return rc;
	link->file = file;
	file->links++;
	return 0;
}

int nest_draft_image_begin_file(struct nest_draft_image *image, const char *clean)
{
	return add(image, clean, NEST_EROFS_ENTRY_FILE, &image->file);
}

int nest_draft_image_add_bytes(
	struct nest_draft_image *image, uint64_t at, uint64_t n, uint64_t offset)
{
	struct nest_erofs_entry *file = image->file;

	if (file->size == 0)
		file->at = at;
	if (offset != file->size || at != file->at + file->size)
		return nest_draft_image_refuse(image);
	file->size += n;
	return 0;
}

int nest_draft_image_end_file(
	struct nest_draft_image *image, uint64_t size, bool executable, int64_t mtime_s)
{
	struct nest_erofs_entry *file = nest_take_ptr(image->file);

	if (file->size != size)
		return nest_draft_image_refuse(image);
	file->executable = executable;
	file->mtime_s = mtime_s < 0 ? 0 : mtime_s > image->now_s ? image->now_s : mtime_s;
	return 0;
}

int nest_draft_image_finish(
	struct nest_draft_image *image, uint64_t max_bytes, struct nest_err *err)
{
	int rc = nest_erofs_frames_finish(&image->frames, err);
	struct stat st;

	if (rc == 0)
		rc = nest_erofs_write(image->fd, image->entries, &image->frames, err);
	if (rc < 0)
		return rc;
	if (fstat(image->fd, &st) < 0)
		return nest_err_set(err, -errno, "look at the image");
	/* the archive's own headers are in it, of which a directory has none */
	if ((uint64_t)st.st_size > max_bytes)
		return nest_err_say(err, nest_draft_image_refuse(image),
			"the image would be larger than %llu bytes", (unsigned long long)max_bytes);
	return 0;
}
