/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decompression, apart from what the bytes mean: so that a stream is always read to its end,
 * where its checksum is (a tar reader stops before), and so that another decoder can take this
 * one's place.
 *
 * zstd and lz4 are decoded by libarchive's filters, gzip by zlib itself, because libarchive
 * doesn't check gzip's checksum.
 */
#include "loader/decode.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "base/err.h"

#define CHUNK (256u * 1024)

struct nest_decode {
	struct nest_unpack_source source;
	struct archive *archive; /* zstd, lz4 */
	bool begun;
	z_stream gzip;
	bool gzip_ready;
	bool gzip_between; /* at the end of a member */
	Bytef *out;
	struct nest_err err;
};

enum nest_decode_kind nest_decode_kind(const void *bytes, size_t n)
{
	static const struct {
		enum nest_decode_kind kind;
		size_t len;
		const char *magic;
	} kinds[] = {
		{ NEST_DECODE_GZIP, 2, "\x1f\x8b" },
		{ NEST_DECODE_ZSTD, 4, "\x28\xb5\x2f\xfd" },
		{ NEST_DECODE_LZ4, 4, "\x04\x22\x4d\x18" },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(kinds); i++)
		if (n >= kinds[i].len && memcmp(bytes, kinds[i].magic, kinds[i].len) == 0)
			return kinds[i].kind;
	return NEST_DECODE_NONE;
}

static la_ssize_t on_read(struct archive *archive, void *arg, const void **ret_bytes)
{
	struct nest_decode *decode = arg;
	ssize_t n = decode->source.read(decode->source.arg, ret_bytes);

	if (n < 0) {
		archive_set_error(archive, (int)-n, "%s", strerrordesc_np((int)-n));
		return ARCHIVE_FATAL;
	}
	return n;
}

static int adapt(struct nest_decode *decode)
{
	const char *words = archive_error_string(decode->archive);
	int code = archive_errno(decode->archive) == ENOMEM ? -ENOMEM : -EBADMSG;

	return nest_err_say(&decode->err, code, "%s", words ? words : "damaged");
}

/* ARCHIVE_WARN from enabling a filter means that it would start an external program. */
static int begin_archive(struct nest_decode *decode, enum nest_decode_kind kind)
{
	int rc;

	decode->archive = archive_read_new();
	if (!decode->archive)
		return nest_err_set(&decode->err, -ENOMEM, "decompress");
	rc = kind == NEST_DECODE_ZSTD ? archive_read_support_filter_zstd(decode->archive)
				      : archive_read_support_filter_lz4(decode->archive);
	if (rc != ARCHIVE_OK || archive_read_support_format_raw(decode->archive) != ARCHIVE_OK)
		return nest_err_say(
			&decode->err, -ENOTSUP, "this libarchive can't decompress zstd or lz4");
	return 0;
}

static int begin_gzip(struct nest_decode *decode)
{
	decode->out = malloc(CHUNK);
	/* 16: a gzip header and trailer, and nothing else. */
	if (!decode->out || inflateInit2(&decode->gzip, 16 + MAX_WBITS) != Z_OK)
		return nest_err_set(&decode->err, -ENOMEM, "decompress");
	decode->gzip_ready = true;
	return 0;
}

int nest_decode_new(enum nest_decode_kind kind, const struct nest_unpack_source *source,
	struct nest_decode **ret, struct nest_err *err)
{
	nest_autodecode struct nest_decode *decode = calloc(1, sizeof(*decode));
	int rc;

	if (!decode)
		return nest_err_set(err, -ENOMEM, "decompress");
	decode->source = *source;
	rc = kind == NEST_DECODE_GZIP ? begin_gzip(decode) : begin_archive(decode, kind);
	if (rc < 0) {
		if (err)
			*err = decode->err;
		return rc;
	}
	*ret = nest_take_ptr(decode);
	return 0;
}

void nest_decode_free(struct nest_decode *decode)
{
	if (!decode)
		return;
	if (decode->archive)
		archive_read_free(decode->archive);
	if (decode->gzip_ready)
		inflateEnd(&decode->gzip);
	free(decode->out);
	free(decode);
}

const char *nest_decode_why(const struct nest_decode *decode)
{
	return nest_err_text(&decode->err);
}

/*
 * Opening reads, so it waits for the first read. 0, or 1 when there is nothing in the stream.
 */
static int open_archive(struct nest_decode *decode)
{
	struct archive_entry *entry;
	int rc;

	decode->begun = true;
	archive_read_set_read_callback(decode->archive, on_read);
	archive_read_set_callback_data(decode->archive, decode);
	if (archive_read_open1(decode->archive) != ARCHIVE_OK)
		return adapt(decode);
	if (archive_filter_count(decode->archive) > 2)
		return nest_err_say(&decode->err, -EBADMSG, "it is compressed more than once");
	rc = archive_read_next_header(decode->archive, &entry);
	if (rc == ARCHIVE_EOF)
		return 1;
	return rc == ARCHIVE_OK ? 0 : adapt(decode);
}

static ssize_t read_archive(struct nest_decode *decode, const void **ret_bytes)
{
	la_int64_t offset;
	size_t n = 0;
	int rc = decode->begun ? 0 : open_archive(decode);

	if (rc != 0)
		return rc < 0 ? rc : 0;
	do
		rc = archive_read_data_block(decode->archive, ret_bytes, &n, &offset);
	while (rc == ARCHIVE_OK && n == 0);
	if (rc == ARCHIVE_EOF)
		return 0;
	return rc == ARCHIVE_OK ? (ssize_t)n : adapt(decode);
}

/* More input for inflate: 1 when there is some, 0 at the end of the source. */
static int refill_gzip(struct nest_decode *decode)
{
	const void *bytes;
	ssize_t n;

	if (decode->gzip.avail_in > 0)
		return 1;
	n = decode->source.read(decode->source.arg, &bytes);
	if (n < 0)
		return nest_err_set(&decode->err, (int)n, "read");
	decode->gzip.next_in = (Bytef *)bytes;
	decode->gzip.avail_in = (uInt)n;
	return n > 0;
}

/* One call of inflate; a member's end begins the next one. */
static int step_gzip(struct nest_decode *decode)
{
	int rc;

	if (decode->gzip_between && inflateReset(&decode->gzip) != Z_OK)
		return nest_err_say(&decode->err, -EIO, "zlib gave up");
	decode->gzip_between = false;
	rc = inflate(&decode->gzip, Z_NO_FLUSH);
	decode->gzip_between = rc == Z_STREAM_END;
	if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR)
		return 0;
	return nest_err_say(&decode->err, rc == Z_MEM_ERROR ? -ENOMEM : -EBADMSG,
		"damaged gzip data: %s", decode->gzip.msg ? decode->gzip.msg : "no more is known");
}

static ssize_t read_gzip(struct nest_decode *decode, const void **ret_bytes)
{
	decode->gzip.next_out = decode->out;
	decode->gzip.avail_out = CHUNK;
	while (decode->gzip.avail_out == CHUNK) {
		int rc = refill_gzip(decode);

		if (rc < 0)
			return rc;
		if (rc == 0)
			return decode->gzip_between ? 0
						    : nest_err_say(&decode->err, -EBADMSG,
							      "truncated gzip data");
		rc = step_gzip(decode);
		if (rc < 0)
			return rc;
	}
	*ret_bytes = decode->out;
	return CHUNK - decode->gzip.avail_out;
}

ssize_t nest_decode_read(struct nest_decode *decode, const void **ret_bytes)
{
	return decode->archive ? read_archive(decode, ret_bytes) : read_gzip(decode, ret_bytes);
}
