/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libarchive follows a zip's directory and doesn't ask whether two entries use the same bytes. In a
 * bomb of a few kilobytes thousands do, each with gigabytes to unpack. So the directory is walked
 * first: from the end record (APPNOTE.TXT 4.3.16; for zip64 4.3.14, 4.3.15) over its records
 * (4.3.12), each of which says where its entry begins and how many bytes it has at least.
 */
#include "loader/zip.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/unpack.h"

#define END_LEN 22u
#define END64_LEN 56u
#define LOCATOR64_LEN 20u
#define RECORD_LEN 46u
#define LOCAL_LEN 30u
#define COMMENT_MAX 65535u
#define ENTRIES_MAX 1000000u /* 16 MB of memory */
#define EXTRA_ZIP64 1u

struct entry {
	uint64_t begin;
	uint64_t end;
};

struct reader {
	const struct nest_unpack_source *source;
	const unsigned char *chunk;
	size_t chunk_len;
	struct nest_err *err;
};

static uint64_t le(const unsigned char *p, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static int damaged(struct nest_err *err, const char *what)
{
	return nest_err_say(err, -EBADMSG, "read the archive: a damaged zip: %s", what);
}

static int seek(struct reader *reader, int64_t offset, int whence, uint64_t *ret_at)
{
	int64_t at = reader->source->seek(reader->source->arg, offset, whence);

	reader->chunk_len = 0;
	if (at < 0)
		return nest_err_set(reader->err, (int)at, "seek in the archive");
	*ret_at = (uint64_t)at;
	return 0;
}

/* The next @n bytes; NULL @ret passes over them. */
static int take(struct reader *reader, unsigned char *ret, size_t n)
{
	while (n > 0) {
		size_t step;

		if (reader->chunk_len == 0) {
			const void *bytes;
			ssize_t got = reader->source->read(reader->source->arg, &bytes);

			if (got < 0)
				return nest_err_set(reader->err, (int)got, "read the archive");
			if (got == 0)
				return damaged(reader->err, "it is cut off");
			reader->chunk = bytes;
			reader->chunk_len = (size_t)got;
		}
		step = n < reader->chunk_len ? n : reader->chunk_len;
		if (ret) {
			memcpy(ret, reader->chunk, step);
			ret += step;
		}
		reader->chunk += step;
		reader->chunk_len -= step;
		n -= step;
	}
	return 0;
}

/* Where the directory is: right before its end record, from where libarchive reads it, too. */
struct directory {
	uint64_t at;
	uint64_t len;
};

static int set_directory(struct reader *reader, uint64_t end, uint64_t len, struct directory *ret)
{
	if (len > end)
		return damaged(reader->err, "its directory is longer than what is before its end");
	ret->at = end - len;
	ret->len = len;
	return 0;
}

static int find_zip64(struct reader *reader, const unsigned char *locator, struct directory *ret)
{
	unsigned char record[END64_LEN];
	uint64_t at = le(locator + 8, 8);
	int rc = at > INT64_MAX ? damaged(reader->err, "its directory lies nowhere")
				: seek(reader, (int64_t)at, SEEK_SET, &at);

	if (rc == 0)
		rc = take(reader, record, sizeof(record));
	if (rc == 0 && memcmp(record, "PK\6\6", 4) != 0)
		rc = damaged(reader->err, "its zip64 end record is not where it should be");
	if (rc == 0)
		rc = set_directory(reader, at, le(record + 40, 8), ret);
	if (rc == 0 && le(record + 48, 8) != ret->at)
		rc = damaged(reader->err, "its directory is not where it should be");
	return rc;
}

/*
 * Finds the end record in @tail, the last @n bytes of @size: the last thing that looks like one,
 * which two readers of the archive must agree on. A comment may follow it.
 */
static int find_in_tail(struct reader *reader, const unsigned char *tail, size_t n, uint64_t size,
	struct directory *ret)
{
	size_t at = n - END_LEN;
	const unsigned char *end;

	while (at > 0 && memcmp(tail + at, "PK\5\6", 4) != 0)
		at--;
	end = tail + at;
	if (memcmp(end, "PK\5\6", 4) != 0)
		return damaged(reader->err, "it has no directory at its end");
	if (le(end + 4, 4) != 0 || le(end + 8, 2) != le(end + 10, 2) ||
		le(end + 20, 2) != n - at - END_LEN)
		return damaged(reader->err, "its end record makes no sense");
	if (at >= LOCATOR64_LEN && memcmp(end - LOCATOR64_LEN, "PK\6\7", 4) == 0)
		return find_zip64(reader, end - LOCATOR64_LEN, ret);
	return set_directory(reader, size - n + at, le(end + 12, 4), ret);
}

static int find_directory(struct reader *reader, struct directory *dir)
{
	const size_t most = COMMENT_MAX + END_LEN + LOCATOR64_LEN;
	nest_autofree unsigned char *tail = malloc(most);
	uint64_t size = 0;
	uint64_t at;
	size_t n;
	int rc = tail ? seek(reader, 0, SEEK_END, &size)
		      : nest_err_set(reader->err, -ENOMEM, "read the archive");

	if (rc < 0)
		return rc;
	n = size < most ? (size_t)size : most;
	if (n < END_LEN)
		return damaged(reader->err, "it is cut off");
	rc = seek(reader, (int64_t)(size - n), SEEK_SET, &at);
	if (rc == 0)
		rc = take(reader, tail, n);
	return rc < 0 ? rc : find_in_tail(reader, tail, n, size, dir);
}

/*
 * The zip64 field holds what doesn't fit into the record, in this order: size, compressed size,
 * offset; each only if its place in the record says so.
 */
static void read_extra(const unsigned char *record, const unsigned char *extra, size_t n,
	uint64_t *compressed, uint64_t *offset)
{
	size_t at = 0;

	while (n - at >= 4 && le(extra + at, 2) != EXTRA_ZIP64) {
		size_t len = (size_t)le(extra + at + 2, 2);

		at += len < n - at - 4 ? 4 + len : n - at;
	}
	at += le(record + 24, 4) == UINT32_MAX ? 4 + 8 : 4;
	if (*compressed == UINT32_MAX && at + 8 <= n) {
		*compressed = le(extra + at, 8);
		at += 8;
	}
	if (*offset == UINT32_MAX && at + 8 <= n)
		*offset = le(extra + at, 8);
}

/* Reads one record and adds its length to @at. */
static int read_entry(struct reader *reader, uint64_t *at, struct entry *ret)
{
	unsigned char record[RECORD_LEN];
	unsigned char extra[UINT16_MAX];
	uint64_t compressed;
	size_t name_len;
	size_t extra_len;
	size_t comment_len;
	int rc = take(reader, record, sizeof(record));

	if (rc == 0 && memcmp(record, "PK\1\2", 4) != 0)
		rc = damaged(reader->err, "its directory holds something else than records");
	if (rc < 0)
		return rc;
	name_len = (size_t)le(record + 28, 2);
	extra_len = (size_t)le(record + 30, 2);
	comment_len = (size_t)le(record + 32, 2);
	*at += sizeof(record) + name_len + extra_len + comment_len;
	compressed = le(record + 20, 4);
	ret->begin = le(record + 42, 4);
	rc = take(reader, NULL, name_len);
	if (rc == 0)
		rc = take(reader, extra, extra_len);
	if (rc == 0)
		rc = take(reader, NULL, comment_len);
	if (rc < 0)
		return rc;
	read_extra(record, extra, extra_len, &compressed, &ret->begin);
	if (compressed > INT64_MAX || ret->begin > INT64_MAX)
		return damaged(reader->err, "an entry lies nowhere");
	ret->end = ret->begin + LOCAL_LEN + name_len + compressed;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct entry *x = a;
	const struct entry *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

static int check_apart(struct entry *entries, size_t n, struct nest_err *err)
{
	if (n > 1)
		qsort(entries, n, sizeof(*entries), compare);
	for (size_t i = 1; i < n; i++)
		if (entries[i].begin < entries[i - 1].end)
			return nest_err_say(err, -EBADMSG,
				"read the archive: two entries of the zip overlap at byte %llu, as "
				"in a bomb",
				(unsigned long long)entries[i].begin);
	return 0;
}

static int check(struct reader *reader, const struct directory *dir)
{
	nest_autofree struct entry *entries = NULL;
	uint64_t at = dir->at;
	uint64_t end = dir->at + dir->len;
	size_t cap = 0;
	size_t n = 0;
	int rc = seek(reader, (int64_t)dir->at, SEEK_SET, &at);

	while (rc == 0 && at < end) {
		if (n == cap) {
			struct entry *more;

			cap = cap ? 2 * cap : 256;
			more = realloc(entries, cap * sizeof(*entries));
			if (!more)
				return nest_err_set(reader->err, -ENOMEM, "read the archive");
			entries = more;
		}
		if (n == ENTRIES_MAX)
			return damaged(reader->err, "its directory has too many records");
		rc = read_entry(reader, &at, &entries[n++]);
	}
	if (rc == 0 && at != end)
		rc = damaged(reader->err, "its directory does not end where it should");
	return rc < 0 ? rc : check_apart(entries, n, reader->err);
}

int nest_zip_check(const struct nest_unpack_source *source, struct nest_err *err)
{
	struct reader reader = { .source = source, .err = err };
	struct directory dir = { .at = 0 };
	uint64_t at;
	int rc = find_directory(&reader, &dir);

	if (rc == 0)
		rc = check(&reader, &dir);
	return rc < 0 ? rc : seek(&reader, 0, SEEK_SET, &at);
}
