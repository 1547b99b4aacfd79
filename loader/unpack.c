/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive into a draft. libarchive decodes; it never touches a path. What it reports as an
 * entry is a stranger's claim, and loader/draft.c decides what may be written.
 *
 *	source -> first chunk says: compressed -> loader/decode.c -> tar
 *	                            or not     -> tar or zip
 *
 * No other format or filter is enabled. Duplicate names are refused, as two readers of one
 * archive would otherwise disagree on what it holds; owners, set-id bits, xattrs, ACLs and flags
 * are not looked at; devices, fifos and sockets are refused.
 *
 * libarchive takes names in pax and zip headers for UTF-8 and converts them to the character set
 * of the thread's locale, in which what isn't text is a warning; so unpacking runs in C.UTF-8. It
 * also composes such names (NFC), which no option turns off. Names in ustar and GNU headers, and
 * in pax headers with hdrcharset=BINARY, stay the bytes they are.
 */
#include "loader/unpack.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/decode.h"
#include "loader/draft.h"
#include "loader/name.h"
#include "loader/pipeline.h"
#include "loader/zip.h"

#define CHUNK (256u * 1024)
#define TAR_BLOCK 512u
#define MAX_PADDING (64u << 20)

struct unpack {
	const struct nest_unpack_source *source;
	struct nest_decode *decode; /* NULL: the source isn't compressed */
	const void *first;	    /* its first chunk, while it is still to be given out */
	size_t first_len;
	struct nest_draft *draft;
	struct archive *archive;
	struct nest_err *err;
	uint64_t entries;
	bool zip;		 /* it begins as a zip does, and its directory was checked */
	uint64_t at;		 /* of the next chunk, decompressed */
	uint64_t trailing_zeros; /* at the end of what was read so far */
	char name[NEST_NAME_QUOTED_CAP];
};

/*
 * The one place where libarchive's failures become ours; @where stands before the last entry's
 * name.
 */
static int adapt(struct unpack *unpack, const char *where)
{
	const char *words = archive_error_string(unpack->archive);
	int code = archive_errno(unpack->archive);

	/* Numbers of libarchive's own say no more than EBADMSG does. */
	code = code == ENOMEM || code == EIO || code == EFBIG || code == ECANCELED ||
			       code == ENOSPC || code == EDQUOT
		       ? -code
		       : -EBADMSG;
	if (archive_format(unpack->archive) == 0)
		return nest_err_say(unpack->err, code,
			"read the archive as tar, tar.gz, tar.zst, tar.lz4 or zip: %s",
			words ? words : "damaged");
	return nest_err_say(unpack->err, code, "read the archive %s entry %s: %s", where,
		unpack->name[0] ? unpack->name : "0", words ? words : "damaged");
}

static void count_zeros(struct unpack *unpack, const char *bytes, size_t n)
{
	size_t zeros = 0;

	while (zeros < n && zeros < 2 * TAR_BLOCK && bytes[n - 1 - zeros] == '\0')
		zeros++;
	unpack->trailing_zeros = zeros == n ? unpack->trailing_zeros + n : zeros;
}

/* The source, with the chunk that was looked at put back. */
static ssize_t read_source(void *arg, const void **ret_bytes)
{
	struct unpack *unpack = arg;

	if (!unpack->first)
		return unpack->source->read(unpack->source->arg, ret_bytes);
	*ret_bytes = nest_take_ptr(unpack->first);
	return (ssize_t)unpack->first_len;
}

static void stop_source(void *arg)
{
	struct unpack *unpack = arg;

	unpack->source->stop(unpack->source->arg);
}

/* libarchive mostly hands out a file's bytes where they are: then they need not be copied. */
static void lend(struct unpack *unpack, const void *bytes, size_t n)
{
	void *token = nest_decode_bytes(unpack->decode);
	const struct nest_draft_loan loan = { .bytes = bytes,
		.n = n,
		.at = unpack->at,
		.hold = nest_pipeline_hold,
		.let_go = nest_pipeline_let_go,
		.token = token };

	if (token)
		nest_draft_lend(unpack->draft, &loan);
}

static la_ssize_t on_read(struct archive *archive, void *arg, const void **ret_bytes)
{
	struct unpack *unpack = arg;
	ssize_t n;

	nest_draft_lend(unpack->draft, NULL);
	n = unpack->decode ? nest_decode_read(unpack->decode, ret_bytes)
			   : read_source(unpack, ret_bytes);
	if (n < 0) {
		archive_set_error(archive, (int)-n, "%s",
			unpack->decode ? nest_decode_why(unpack->decode)
				       : strerrordesc_np((int)-n));
		return ARCHIVE_FATAL;
	}
	count_zeros(unpack, *ret_bytes, (size_t)n);
	if (unpack->decode)
		lend(unpack, *ret_bytes, (size_t)n);
	unpack->at += (uint64_t)n;
	return n;
}

static la_int64_t on_seek(struct archive *archive, void *arg, la_int64_t offset, int whence)
{
	struct unpack *unpack = arg;
	int64_t at;

	/* The source stands behind a chunk that wasn't given out yet. */
	if (unpack->first && whence == SEEK_CUR)
		offset -= (la_int64_t)unpack->first_len;
	unpack->first = NULL;
	at = unpack->source->seek(unpack->source->arg, offset, whence);
	if (at < 0) {
		archive_set_error(archive, (int)-at, "seek: %s", strerrordesc_np((int)-at));
		return ARCHIVE_FATAL;
	}
	return at;
}

/* What begins as a zip, and can be read anywhere, must hold no entry twice. */
static int check_zip(struct unpack *unpack)
{
	unpack->zip = unpack->first_len >= 4 && (memcmp(unpack->first, "PK\3\4", 4) == 0 ||
							memcmp(unpack->first, "PK\5\6", 4) == 0);
	if (!unpack->zip || !unpack->source->seek)
		return 0;
	unpack->first = NULL;
	return nest_zip_check(unpack->source, unpack->err);
}

/* Looks at the first chunk, and puts a decoder before the source if it takes one. */
static int open_source(struct unpack *unpack)
{
	struct nest_unpack_source whole = { .read = read_source,
		.stop = unpack->source->stop ? stop_source : NULL,
		.arg = unpack };
	enum nest_decode_kind kind;
	ssize_t n = unpack->source->read(unpack->source->arg, &unpack->first);

	if (n < 0)
		return nest_err_set(unpack->err, (int)n, "read the archive");
	if (n == 0)
		return nest_err_say(unpack->err, -EBADMSG, "the archive is empty");
	unpack->first_len = (size_t)n;
	kind = nest_decode_kind(unpack->first, unpack->first_len);
	if (kind == NEST_DECODE_NONE)
		return check_zip(unpack);
	return nest_decode_new(
		kind, &whole, nest_draft_sink(unpack->draft), &unpack->decode, unpack->err);
}

static int open_archive(struct unpack *unpack)
{
	struct archive *archive = unpack->archive;
	bool plain = !unpack->decode;
	int rc = ARCHIVE_OK;

	/*
	 * Never both ways of reading a zip: one without its directory would pass for a whole one.
	 */
	if (plain && unpack->source->seek)
		rc = archive_read_support_format_zip_seekable(archive);
	else if (plain)
		rc = archive_read_support_format_zip_streamable(archive);
	if (rc != ARCHIVE_OK || archive_read_support_format_tar(archive) != ARCHIVE_OK)
		return nest_err_say(unpack->err, -ENOTSUP,
			"read the archive: this libarchive lacks tar or zip");
	archive_read_set_read_callback(archive, on_read);
	if (plain && unpack->source->seek)
		archive_read_set_seek_callback(archive, on_seek);
	archive_read_set_callback_data(archive, unpack);
	return archive_read_open1(archive) == ARCHIVE_OK ? 0 : adapt(unpack, "before");
}

static bool format_is(struct unpack *unpack, int format)
{
	return (archive_format(unpack->archive) & ARCHIVE_FORMAT_BASE_MASK) == format;
}

/* 1: end of archive. */
static int next_entry(struct unpack *unpack, struct archive_entry **ret)
{
	const char *name;
	int rc = archive_read_next_header(unpack->archive, ret);

	if (rc == ARCHIVE_EOF)
		return 1;
	if (rc < ARCHIVE_WARN)
		return adapt(unpack, "behind");
	if (format_is(unpack, ARCHIVE_FORMAT_ZIP) && !unpack->zip)
		return nest_err_say(unpack->err, -EBADMSG,
			"read the archive: a zip that begins with something else");
	name = archive_entry_pathname(*ret);
	if (!name)
		return nest_err_say(unpack->err, -EBADMSG,
			"read the archive behind entry %s: an entry without a name", unpack->name);
	nest_name_quote(name, unpack->name);
	/*
	 * Warnings are of names that aren't UTF-8 where they must be, and of malformed
	 * attributes.
	 */
	if (rc != ARCHIVE_OK)
		return adapt(unpack, "at");
	unpack->entries++;
	return nest_draft_visit(unpack->draft, unpack->err);
}

/* Copies the blocks of the entry; *@ret_end is where the last one ended. */
static int copy_blocks(struct unpack *unpack, uint64_t *ret_end)
{
	uint64_t end = 0;

	for (;;) {
		const void *bytes;
		la_int64_t offset;
		size_t n;
		int rc = archive_read_data_block(unpack->archive, &bytes, &n, &offset);

		if (rc == ARCHIVE_EOF)
			break;
		/* A warning here is a checksum that is wrong. */
		if (rc != ARCHIVE_OK)
			return adapt(unpack, "at");
		if (offset < 0)
			return nest_err_say(unpack->err, -EBADMSG,
				"read the archive at entry %s: a block before its beginning",
				unpack->name);
		rc = nest_draft_write(unpack->draft, bytes, n, (uint64_t)offset, unpack->err);
		if (rc < 0)
			return rc;
		end = (uint64_t)offset + n;
	}
	*ret_end = end;
	return 0;
}

static int add_file(struct unpack *unpack, struct archive_entry *entry, const char *name)
{
	int64_t size = archive_entry_size_is_set(entry) ? archive_entry_size(entry) : -1;
	int64_t mtime_s = archive_entry_mtime_is_set(entry) ? archive_entry_mtime(entry) : 0;
	uint64_t end = 0;
	int rc = nest_draft_begin_file(
		unpack->draft, name, size, (archive_entry_perm(entry) & 0111) != 0, unpack->err);

	if (rc == 0)
		rc = copy_blocks(unpack, &end);
	if (rc < 0)
		return rc;
	/* A zip's sizes may stand behind its data, and are known only now. */
	if (archive_entry_size_is_set(entry))
		size = archive_entry_size(entry);
	if (size >= 0 && end != (uint64_t)size && archive_entry_sparse_count(entry) == 0)
		return nest_err_say(unpack->err, -EBADMSG,
			"read the archive at entry %s: %llu bytes where %lld are announced",
			unpack->name, (unsigned long long)end, (long long)size);
	if (size >= 0)
		end = (uint64_t)size;
	return nest_draft_end_file(
		unpack->draft, end, (archive_entry_perm(entry) & 0111) != 0, mtime_s, unpack->err);
}

static int refuse_type(struct unpack *unpack, struct archive_entry *entry)
{
	static const struct {
		unsigned type;
		const char *word;
	} words[] = {
		{ AE_IFCHR, "a character device" },
		{ AE_IFBLK, "a block device" },
		{ AE_IFIFO, "a fifo" },
		{ AE_IFSOCK, "a socket" },
	};
	const char *word = "of an unknown type";

	for (size_t i = 0; i < NEST_ARRAY_SIZE(words); i++)
		if (words[i].type == archive_entry_filetype(entry))
			word = words[i].word;
	return nest_err_say(unpack->err, -EINVAL,
		"entry %s is %s: a code tree holds files, directories and links only", unpack->name,
		word);
}

static int add_symlink(struct unpack *unpack, struct archive_entry *entry, const char *name)
{
	const char *target = archive_entry_symlink(entry);

	return nest_draft_add_symlink(unpack->draft, name, target ? target : "", unpack->err);
}

static int add_entry(struct unpack *unpack, struct archive_entry *entry)
{
	const char *name = archive_entry_pathname(entry);
	const char *hardlink = archive_entry_hardlink(entry);

	if (hardlink)
		return nest_draft_add_hardlink(unpack->draft, name, hardlink, unpack->err);
	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		return add_file(unpack, entry, name);
	case AE_IFDIR:
		return nest_draft_add_dir(unpack->draft, name, unpack->err);
	case AE_IFLNK:
		return add_symlink(unpack, entry, name);
	default:
		return refuse_type(unpack, entry);
	}
}

/*
 * What is skipped is still decompressed: an entry that isn't a file and claims to have bytes
 * would let a small archive keep a thread busy for hours.
 */
static int refuse_body(struct unpack *unpack, struct archive_entry *entry)
{
	bool file = archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry);

	if (file || !archive_entry_size_is_set(entry) || archive_entry_size(entry) <= NEST_NAME_CAP)
		return 0;
	return nest_err_say(unpack->err, -EINVAL, "entry %s is no file, yet has %lld bytes",
		unpack->name, (long long)archive_entry_size(entry));
}

/*
 * Reads on behind tar's end mark, where there is padding and, in a compressed stream, the checksum.
 * Bounded, because padding compresses well.
 */
static int drain(struct unpack *unpack)
{
	const void *bytes;
	la_ssize_t n;

	for (uint64_t all = 0; all < MAX_PADDING; all += (uint64_t)n) {
		n = on_read(unpack->archive, unpack, &bytes);
		if (n == 0)
			return 0;
		if (n < 0)
			return adapt(unpack, "behind");
	}
	return nest_err_say(unpack->err, -EBADMSG,
		"read the archive: more than %u bytes behind its end", MAX_PADDING);
}

/*
 * A tar cut between two entries looks complete to libarchive, which doesn't insist on the end
 * mark, and so does a file full of zeros.
 */
static int check_end(struct unpack *unpack)
{
	bool tar = format_is(unpack, ARCHIVE_FORMAT_TAR);
	int rc = tar ? drain(unpack) : 0;

	if (rc < 0)
		return rc;
	if (unpack->entries == 0)
		return nest_err_say(unpack->err, -EBADMSG, "the archive holds no entry");
	if (tar && unpack->trailing_zeros < TAR_BLOCK)
		return nest_err_say(unpack->err, -EBADMSG,
			"read the archive: it is cut off behind entry %s", unpack->name);
	return nest_draft_flush(unpack->draft, unpack->err);
}

static int unpack_all(struct unpack *unpack)
{
	struct archive_entry *entry;
	int rc = open_source(unpack);

	if (rc == 0)
		rc = open_archive(unpack);
	if (rc == 0)
		rc = nest_draft_start_writers(unpack->draft, unpack->err);
	while (rc == 0) {
		rc = next_entry(unpack, &entry);
		if (rc == 1)
			return check_end(unpack);
		if (rc == 0)
			rc = refuse_body(unpack, entry);
		if (rc == 0)
			rc = add_entry(unpack, entry);
	}
	return rc;
}

int nest_unpack_run(
	const struct nest_unpack_source *source, struct nest_draft *draft, struct nest_err *err)
{
	struct nest_err unused = NEST_ERR_INIT;
	struct unpack unpack = { .source = source, .draft = draft, .err = err ? err : &unused };
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t before = (locale_t)0;
	int rc;

	unpack.archive = archive_read_new();
	if (!unpack.archive) {
		rc = nest_err_set(err, -ENOMEM, "read the archive");
		goto out;
	}
	if (utf8)
		before = uselocale(utf8);
	rc = unpack_all(&unpack);
	archive_read_free(unpack.archive);
	nest_draft_lend(draft, NULL);
	(void)nest_draft_flush(draft, NULL);
	nest_decode_free(unpack.decode);
	if (utf8)
		uselocale(before);
out:
	if (utf8)
		freelocale(utf8);
	return rc;
}

struct file_source {
	int fd;
	int64_t offset;
	char *chunk;
};

static ssize_t file_read(void *arg, const void **ret_bytes)
{
	struct file_source *file = arg;
	ssize_t n;

	do
		n = pread(file->fd, file->chunk, CHUNK, (off_t)file->offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	file->offset += n;
	*ret_bytes = file->chunk;
	return n;
}

static int64_t file_seek(void *arg, int64_t offset, int whence)
{
	struct file_source *file = arg;
	off_t at;

	/* The descriptor's own offset stays where it is, except to learn the size. */
	if (whence == SEEK_CUR)
		offset += file->offset;
	if (whence == SEEK_END) {
		at = lseek(file->fd, 0, SEEK_END);
		if (at < 0)
			return -errno;
		offset += at;
	}
	if (offset < 0)
		return -EINVAL;
	file->offset = offset;
	return offset;
}

int nest_unpack_file(int fd, struct nest_draft *draft, struct nest_err *err)
{
	nest_autofree char *chunk = malloc(CHUNK);
	struct file_source file = { .fd = fd, .chunk = chunk };
	struct nest_unpack_source source = { .read = file_read, .seek = file_seek, .arg = &file };

	if (!chunk)
		return nest_err_set(err, -ENOMEM, "read the archive");
	return nest_unpack_run(&source, draft, err);
}
