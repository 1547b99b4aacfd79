/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The longest text: room for it is needed beside the error, whose own text may be an argument. */
struct text {
	char bytes[sizeof(((struct nest_err *)NULL)->text)];
};

static const char *describe(int code)
{
	const char *words = strerrordesc_np(-code);

	return words ? words : "unknown error";
}

/* Zero would look like success to whoever returns it, which a lost errno must not. */
static int as_failure(int code)
{
	return code < 0 ? code : -EIO;
}

static void store(struct nest_err *err, int code, const struct text *text)
{
	err->code = code;
	memcpy(err->text, text->bytes, sizeof(err->text));
}

/* Adds what fits of @tail; the text stays terminated. */
static void append(struct text *text, const char *tail)
{
	size_t len = strlen(text->bytes);
	size_t n = strnlen(tail, sizeof(text->bytes) - 1 - len);

	memcpy(text->bytes + len, tail, n);
	text->bytes[len + n] = '\0';
}

int nest_err_set(struct nest_err *err, int code, const char *fmt, ...)
{
	struct text text = { .bytes = "" };
	va_list ap;

	code = as_failure(code);
	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(text.bytes, sizeof(text.bytes), fmt, ap);
	va_end(ap);
	append(&text, ": ");
	append(&text, describe(code));
	store(err, code, &text);
	return code;
}

int nest_err_say(struct nest_err *err, int code, const char *fmt, ...)
{
	struct text text = { .bytes = "" };
	va_list ap;

	code = as_failure(code);
	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(text.bytes, sizeof(text.bytes), fmt, ap);
	va_end(ap);
	store(err, code, &text);
	return code;
}

int nest_err_wrap(struct nest_err *err, const char *fmt, ...)
{
	struct text text = { .bytes = "" };
	va_list ap;

	if (!err)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(text.bytes, sizeof(text.bytes), fmt, ap);
	va_end(ap);
	append(&text, ": ");
	append(&text, nest_err_text(err));
	store(err, as_failure(err->code), &text);
	return err->code;
}

const char *nest_err_text(const struct nest_err *err)
{
	if (!err)
		return "unknown error";
	if (err->text[0] != '\0')
		return err->text;
	return err->code < 0 ? describe(err->code) : "unknown error";
}
