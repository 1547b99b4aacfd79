/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/compact.h"

#include <string.h>

#include "base/buf.h"

#define DIGITS_MAX 20

static void put(struct nest_compact *out, const char *bytes, size_t n)
{
	if (nest_buf_append(out->buf, bytes, n) < 0)
		out->failed = true;
}

static void begin(struct nest_compact *out, const char *key)
{
	size_t len = key ? strlen(key) : 0;
	char *room;

	if (nest_buf_reserve(out->buf, len + 4, &room) < 0) {
		out->failed = true;
		return;
	}
	nest_buf_commit(out->buf, (size_t)out->comma + (key ? len + 3 : 0));
	if (out->comma)
		*room++ = ',';
	out->comma = true;
	if (!key)
		return;
	*room++ = '"';
	memcpy(room, key, len);
	memcpy(room + len, "\":", 2);
}

void nest_compact_open(struct nest_compact *out, const char *key, char bracket)
{
	begin(out, key);
	put(out, &bracket, 1);
	out->comma = false;
}

void nest_compact_close(struct nest_compact *out, char bracket)
{
	put(out, &bracket, 1);
	out->comma = true;
}

static size_t format(char text[static DIGITS_MAX], uint64_t n)
{
	size_t at = DIGITS_MAX;

	do
		text[--at] = (char)('0' + n % 10);
	while (n /= 10);
	return at;
}

void nest_compact_number(struct nest_compact *out, const char *key, uint64_t n)
{
	char text[DIGITS_MAX];
	size_t at = format(text, n);

	begin(out, key);
	put(out, text + at, DIGITS_MAX - at);
}

void nest_compact_count(struct nest_compact *out, const char *key, uint64_t n)
{
	if (n > 0)
		nest_compact_number(out, key, n);
}

void nest_compact_milli(struct nest_compact *out, const char *key, uint64_t milli, bool keep_0)
{
	char rest[4] = { '.', (char)('0' + milli / 100 % 10), (char)('0' + milli / 10 % 10),
		(char)('0' + milli % 10) };
	size_t n = 4;

	if (milli == 0 && !keep_0)
		return;
	nest_compact_number(out, key, milli / 1000);
	while (n > 1 && rest[n - 1] == '0')
		n--;
	if (n > 1)
		put(out, rest, n);
}

void nest_compact_text(struct nest_compact *out, const char *key, const char *text)
{
	begin(out, key);
	if (nest_buf_json_string(out->buf, text, strlen(text)) < 0)
		out->failed = true;
}

void nest_compact_true(struct nest_compact *out, const char *key)
{
	begin(out, key);
	put(out, "true", 4);
}

void nest_compact_word(struct nest_compact *out, const char *key, const char *word)
{
	begin(out, key);
	put(out, "\"", 1);
	put(out, word, strlen(word));
	put(out, "\"", 1);
}
