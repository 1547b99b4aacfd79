/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar archive in zstd frames of about 1 MB each, none of which needs another: the host decodes them
 * in parallel, and may mount them as they are (loader/erofs_frames.h): so no frame, even of what can't
 * be compressed, takes more than EROFS's largest, 1 MB with its headers. The seek table at the end is
 * that of zstd's contrib/seekable_format, in a skippable frame, so that every zstd reads the file.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <zstd.h>

#include "agent/nestctl/pack_impl.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"

#define FRAME ((1u << 20) - 4096)
#define SKIPPABLE 0x184d2a5eu
#define SEEKABLE 0x8f92eab1u

struct writer {
	struct nest_pack *pack;
	struct archive *archive;
	struct nest_err *err; /* of the callbacks below libarchive */
	int fd;
	ZSTD_CCtx *context;
	char *frame; /* FRAME bytes, of which @filled are */
	size_t filled;
	char *packed;
	size_t packed_cap;
	struct nest_buf table; /* the seek table's entries */
	uint32_t frames;
};

static int put_u32(struct nest_buf *buf, uint32_t value)
{
	uint32_t little = htole32(value);

	return nest_buf_append(buf, &little, sizeof(little));
}

static int end_frame(struct writer *w, struct nest_err *err)
{
	size_t n;

	if (w->filled == 0)
		return 0;
	n = ZSTD_compress2(w->context, w->packed, w->packed_cap, w->frame, w->filled);
	if (ZSTD_isError(n))
		return nest_err_say(err, -EIO, "compress: %s", ZSTD_getErrorName(n));
	if (put_u32(&w->table, (uint32_t)n) < 0 || put_u32(&w->table, (uint32_t)w->filled) < 0)
		return nest_err_set(err, -ENOMEM, "compress");
	w->frames++;
	w->filled = 0;
	return nest_fd_write_all(w->fd, w->packed, n, err);
}

static int end_file(struct writer *w, struct nest_err *err)
{
	struct nest_buf end = NEST_BUF_INIT;
	const char descriptor = 0; /* no checksums here: the frames have their own */
	int r = end_frame(w, err);

	if (r < 0)
		return r;
	r = put_u32(&end, SKIPPABLE);
	if (r == 0)
		r = put_u32(&end, (uint32_t)w->table.len + 9);
	if (r == 0)
		r = nest_buf_append(&end, nest_buf_bytes(&w->table), w->table.len);
	if (r == 0)
		r = put_u32(&end, w->frames);
	if (r == 0)
		r = nest_buf_append(&end, &descriptor, 1);
	if (r == 0)
		r = put_u32(&end, SEEKABLE);
	r = r < 0 ? nest_err_set(err, -ENOMEM, "write the seek table")
		  : nest_fd_write_all(w->fd, nest_buf_bytes(&end), end.len, err);
	nest_buf_done(&end);
	return r;
}

/* libarchive's way out: bytes of the tar. */
static la_ssize_t on_bytes(struct archive *archive, void *arg, const void *bytes, size_t n)
{
	struct writer *w = arg;
	const char *at = bytes;
	size_t left = n;

	while (left > 0) {
		size_t room = FRAME - w->filled;
		size_t part = left < room ? left : room;

		memcpy(w->frame + w->filled, at, part);
		w->filled += part;
		at += part;
		left -= part;
		if (w->filled == FRAME && end_frame(w, w->err) < 0) {
			archive_set_error(archive, EIO, "%s", nest_err_text(w->err));
			return -1;
		}
	}
	return (la_ssize_t)n;
}

static int adapt_error(struct writer *w, const char *what, struct nest_err *err)
{
	if (err->code != 0)
		return nest_err_wrap(err, "pack '%s'", what);
	return nest_err_say(err, -EIO, "pack '%s': %s", what, archive_error_string(w->archive));
}

static int take_bytes(void *arg, const void *bytes, size_t n, struct nest_err *err)
{
	struct writer *w = arg;

	return archive_write_data(w->archive, bytes, n) == (la_ssize_t)n
		       ? 0
		       : adapt_error(w, w->pack->dir, err);
}

static int set_link(struct archive_entry *entry, const FTSENT *ent, struct nest_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlink(ent->fts_accpath, target, sizeof(target) - 1);

	if (n < 0)
		return nest_err_set(err, -errno, "read link '%s'", ent->fts_path);
	target[n] = '\0';
	archive_entry_set_symlink(entry, target);
	return 0;
}

static int add_entry(struct nest_pack *pack, const FTSENT *ent, const char *name, void *arg,
	struct nest_err *err)
{
	struct writer *w = arg;
	struct archive_entry *entry = archive_entry_new();
	const struct stat *st = ent->fts_statp;
	int r = 0;

	if (!entry)
		return nest_err_set(err, -ENOMEM, "pack '%s'", ent->fts_path);
	archive_entry_set_pathname(entry, name);
	archive_entry_set_mtime(entry, PACK_TIME, 0);
	archive_entry_set_filetype(entry, st->st_mode & S_IFMT);
	archive_entry_set_perm(entry, S_ISDIR(st->st_mode) || (st->st_mode & 0100) ? 0755 : 0644);
	if (S_ISLNK(st->st_mode))
		r = set_link(entry, ent, err);
	else if (S_ISREG(st->st_mode))
		archive_entry_set_size(entry, st->st_size);
	/*
	 * It warns of names that are not ASCII, and marks them as mere bytes, which is what they are:
	 * without a locale none is translated. To mark all would put a header before every file.
	 */
	if (r == 0 && archive_write_header(w->archive, entry) < ARCHIVE_WARN)
		r = adapt_error(w, ent->fts_path, err);
	archive_entry_free(entry);
	if (r == 0 && S_ISREG(st->st_mode))
		r = nest_pack_read(pack, ent, take_bytes, w, err);
	return r;
}

static int start(struct writer *w, int level, struct nest_err *err)
{
	w->context = ZSTD_createCCtx();
	w->frame = malloc(FRAME);
	w->packed_cap = ZSTD_compressBound(FRAME);
	w->packed = malloc(w->packed_cap);
	w->archive = archive_write_new();
	if (!w->context || !w->frame || !w->packed || !w->archive)
		return nest_err_set(err, -ENOMEM, "pack '%s'", w->pack->dir);
	ZSTD_CCtx_setParameter(w->context, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(w->context, ZSTD_c_checksumFlag, 1);
	/* 0: never for a frame of 1 MB; it would have the decoder keep more than that */
	ZSTD_CCtx_setParameter(w->context, ZSTD_c_enableLongDistanceMatching, 0);
	if (archive_write_set_format_pax_restricted(w->archive) != ARCHIVE_OK ||
		archive_write_set_bytes_in_last_block(w->archive, 1) != ARCHIVE_OK ||
		archive_write_open(w->archive, w, NULL, on_bytes, NULL) != ARCHIVE_OK)
		return adapt_error(w, w->pack->dir, err);
	return 0;
}

int nest_pack_write_zst(struct nest_pack *pack, int fd, struct nest_err *err)
{
	struct writer w = { .pack = pack, .fd = fd, .err = err, .table = NEST_BUF_INIT };
	int r = start(&w, pack->options->level, err);

	if (r == 0)
		r = nest_pack_each(pack, add_entry, &w, err);
	if (r == 0 && archive_write_close(w.archive) != ARCHIVE_OK)
		r = adapt_error(&w, pack->dir, err);
	if (r == 0)
		r = end_file(&w, err);
	archive_write_free(w.archive); /* after a failure it may call back: w is whole */
	ZSTD_freeCCtx(w.context);
	nest_buf_done(&w.table);
	free(w.frame);
	free(w.packed);
	return r;
}
