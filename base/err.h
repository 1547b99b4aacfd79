/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_ERR_H
#define NEST_BASE_ERR_H

#include <stdarg.h>

/*
 * What went wrong, in words, without allocating. It holds no pointer and is smaller than PIPE_BUF,
 * so that the spawner and a cell's init send home the very object that a function filled.
 *
 * Results are ints: 0 is done, negative is -errno, positive is a condition that the called
 * function's header names. Text is set where the failure happens and wrapped on the way up.
 */
struct nest_err {
	int code; /* -errno, or 0 while unset */
	char text[508];
};

#define NEST_ERR_INIT     \
	{                 \
		.code = 0 \
	}

/*
 * Sets @err (which may be NULL) to @code, a negative errno, with a printf text such as
 * "open '/run/x'"; ": <strerror>" is added. Returns @code, so that callers can `return` it.
 * Any thread.
 */
int nest_err_set(struct nest_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same without the strerror: for errors whose text says it all. Any thread. */
int nest_err_say(struct nest_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Puts "<text>: " before what @err says already; returns @err->code, or -EIO where @err is NULL or
 * unset. A text too long loses its end, never its beginning. Any thread.
 */
int nest_err_wrap(struct nest_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The text of @err, never NULL and never empty. Any thread. */
const char *nest_err_text(const struct nest_err *err);

#endif
