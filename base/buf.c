/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define MIN_CAP 64

void nest_buf_done(struct nest_buf *buf)
{
	free(buf->data);
	*buf = (struct nest_buf)NEST_BUF_INIT;
}

/* Moves the bytes to the front of the storage. */
static void compact(struct nest_buf *buf)
{
	if (buf->start == 0)
		return;
	memmove(buf->data, buf->data + buf->start, buf->len);
	buf->start = 0;
}

static int grow(struct nest_buf *buf, size_t need)
{
	size_t cap = buf->cap < MIN_CAP ? MIN_CAP : buf->cap;
	char *data;

	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	compact(buf);
	data = realloc(buf->data, cap);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->cap = cap;
	return 0;
}

int nest_buf_reserve(struct nest_buf *buf, size_t n, char **ret_room)
{
	if (n > (size_t)PTRDIFF_MAX - buf->len)
		return -ENOMEM;
	/*
	 * Consumed room is reused only when at least as much was consumed as has to move: each byte
	 * then moves a bounded number of times, however small the steps.
	 */
	if (!buf->data || buf->cap - buf->start - buf->len < n) {
		if (buf->data && buf->cap - buf->len >= n && buf->start >= buf->len)
			compact(buf);
		else if (grow(buf, buf->len + n) < 0)
			return -ENOMEM;
	}
	*ret_room = buf->data + buf->start + buf->len;
	return 0;
}

void nest_buf_commit(struct nest_buf *buf, size_t n)
{
	buf->len += n;
}

int nest_buf_append(struct nest_buf *buf, const void *bytes, size_t n)
{
	char *room;

	if (n == 0)
		return 0;
	if (nest_buf_reserve(buf, n, &room) < 0)
		return -ENOMEM;
	memcpy(room, bytes, n);
	nest_buf_commit(buf, n);
	return 0;
}

int nest_buf_puts(struct nest_buf *buf, const char *s)
{
	return nest_buf_append(buf, s, strlen(s));
}

int nest_buf_printf(struct nest_buf *buf, const char *fmt, ...)
{
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = nest_buf_vprintf(buf, fmt, ap);
	va_end(ap);
	return rc;
}

int nest_buf_vprintf(struct nest_buf *buf, const char *fmt, va_list ap)
{
	char *room;
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	/* glibc's printf fails for lack of memory, or for a result beyond INT_MAX: too much as well */
	if (n < 0 || nest_buf_reserve(buf, (size_t)n + 1, &room) < 0)
		return -ENOMEM;
	vsnprintf(room, (size_t)n + 1, fmt, ap);
	nest_buf_commit(buf, (size_t)n);
	return 0;
}

/* The escape for a byte that may not stand in a JSON string; NULL where it may. */
static const char *json_escape(unsigned char c, char room[static 7])
{
	switch (c) {
	case '"':
		return "\\\"";
	case '\\':
		return "\\\\";
	case '\n':
		return "\\n";
	case '\r':
		return "\\r";
	case '\t':
		return "\\t";
	default:
		if (c >= 0x20)
			return NULL;
		snprintf(room, 7, "\\u%04x", c);
		return room;
	}
}

static int append_json_chars(struct nest_buf *buf, const char *bytes, size_t n)
{
	size_t plain = 0; /* where the run starts that is copied as it is */
	size_t i = 0;

	while (i < n) {
		char room[7];
		size_t len = nest_utf8_char(bytes + i, n - i);
		const char *instead;

		instead = len == 0 ? "\xef\xbf\xbd" : json_escape((unsigned char)bytes[i], room);
		if (!instead) {
			i += len;
			continue;
		}
		if (nest_buf_append(buf, bytes + plain, i - plain) < 0 ||
			nest_buf_puts(buf, instead) < 0)
			return -ENOMEM;
		plain = ++i;
	}
	return nest_buf_append(buf, bytes + plain, n - plain);
}

int nest_buf_json_string(struct nest_buf *buf, const char *bytes, size_t n)
{
	size_t before = buf->len;

	if (nest_buf_append(buf, "\"", 1) < 0 || append_json_chars(buf, bytes, n) < 0 ||
		nest_buf_append(buf, "\"", 1) < 0) {
		buf->len = before;
		return -ENOMEM;
	}
	return 0;
}

void nest_buf_consume(struct nest_buf *buf, size_t n)
{
	if (n >= buf->len) {
		buf->start = 0;
		buf->len = 0;
		return;
	}
	buf->start += n;
	buf->len -= n;
}

void nest_buf_clear(struct nest_buf *buf, size_t keep)
{
	char *data;

	if (keep == 0) {
		nest_buf_done(buf);
		return;
	}
	buf->start = 0;
	buf->len = 0;
	if (buf->cap <= keep)
		return;
	data = realloc(buf->data, keep);
	if (!data)
		return; /* no room to shrink into: the larger storage serves as well */
	buf->data = data;
	buf->cap = keep;
}

char *nest_buf_take_string(struct nest_buf *buf)
{
	char *end;

	if (nest_buf_reserve(buf, 1, &end) < 0)
		return NULL;
	*end = '\0';
	compact(buf); /* moves len bytes; the NUL behind them is set again */
	buf->data[buf->len] = '\0';
	end = buf->data;
	*buf = (struct nest_buf)NEST_BUF_INIT;
	return end;
}
