/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_BUF_H
#define NEST_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

/*
 * A growing run of bytes that is filled at its end and consumed at its front. Zeroed storage is an
 * empty buffer. The bytes are data[start .. start+len). Not thread-safe.
 */
struct nest_buf {
	char *data;
	size_t start;
	size_t len;
	size_t cap;
};

#define NEST_BUF_INIT        \
	{                    \
		.data = NULL \
	}

/* Frees the bytes and leaves an empty buffer. */
void nest_buf_done(struct nest_buf *buf);

/* The first unconsumed byte; NULL while nothing was ever reserved. */
static inline char *nest_buf_bytes(const struct nest_buf *buf)
{
	return buf->data ? buf->data + buf->start : NULL;
}

/*
 * Makes room for @n more bytes and stores where they go in @ret_room; they count once
 * nest_buf_commit() says so. 0 or -ENOMEM (also for sizes that overflow).
 */
int nest_buf_reserve(struct nest_buf *buf, size_t n, char **ret_room);

/* Counts @n bytes written to reserved room. */
void nest_buf_commit(struct nest_buf *buf, size_t n);

/* Copies @n bytes to the end. 0 or -ENOMEM, and then nothing was added. */
int nest_buf_append(struct nest_buf *buf, const void *bytes, size_t n);

/* Appends a NUL-terminated string without its NUL. 0 or -ENOMEM. */
int nest_buf_puts(struct nest_buf *buf, const char *s);

/* Appends printf output without its NUL. 0 or -ENOMEM. */
int nest_buf_printf(struct nest_buf *buf, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int nest_buf_vprintf(struct nest_buf *buf, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

/* Appends @n bytes as a quoted JSON string; bytes that are not UTF-8 become U+FFFD. 0 or -ENOMEM. */
int nest_buf_json_string(struct nest_buf *buf, const char *bytes, size_t n);

/* Drops @n bytes (at most all) from the front. Keeps the storage. */
void nest_buf_consume(struct nest_buf *buf, size_t n);

/* Drops all bytes; keeps at most @keep bytes of storage. */
void nest_buf_clear(struct nest_buf *buf, size_t keep);

/* NUL-terminates and gives the bytes away; the caller frees. NULL on lack of memory. */
char *nest_buf_take_string(struct nest_buf *buf);

#endif
