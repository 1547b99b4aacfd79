/* SPDX-License-Identifier: Apache-2.0 */
#include "base/jsonc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

/* A place in a text; every step stays within it, whatever the text holds. */
struct scan {
	const char *at;
	const char *end;
};

static bool starts_with(const struct scan *scan, const char *two)
{
	return scan->end - scan->at >= 2 && scan->at[0] == two[0] && scan->at[1] == two[1];
}

/* Passes a comment, if one stands here. Returns whether it did; *@ret_closed: whether it ends. */
static bool pass_comment(struct scan *scan, bool *ret_closed)
{
	*ret_closed = true;
	if (starts_with(scan, "//")) {
		while (scan->at < scan->end && *scan->at != '\n')
			scan->at++;
		return true;
	}
	if (!starts_with(scan, "/*"))
		return false;
	scan->at += 2;
	while (scan->at < scan->end && !starts_with(scan, "*/"))
		scan->at++;
	*ret_closed = scan->at < scan->end;
	if (*ret_closed)
		scan->at += 2;
	return true;
}

/* Passes a quoted string that begins here, with its quotes. */
static void pass_string(struct scan *scan)
{
	for (scan->at++; scan->at < scan->end; scan->at++) {
		if (*scan->at == '"') {
			scan->at++;
			return;
		}
		if (*scan->at == '\\' && scan->at + 1 < scan->end)
			scan->at++;
	}
}

/* Line breaks stay, so that every line keeps its number; so do columns, byte for byte. */
static void blank(char *from, const char *to)
{
	for (; from < to; from++) {
		if (*from != '\n')
			*from = ' ';
	}
}

static unsigned line_at(const char *text, const char *at)
{
	unsigned line = 1;

	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

static int blank_comments(char *text, size_t n, struct nest_err *err)
{
	struct scan scan = { .at = text, .end = text + n };

	while (scan.at < scan.end) {
		char *from = text + (scan.at - text);
		bool closed;

		if (*from == '"') {
			pass_string(&scan);
		} else if (!pass_comment(&scan, &closed)) {
			scan.at++;
		} else if (!closed) {
			return nest_err_say(err, -EINVAL, "line %u: a comment that does not end",
				line_at(text, from));
		} else {
			blank(from, scan.at);
		}
	}
	return 0;
}

int nest_jsonc_parse(const char *text, size_t n, cJSON **ret, struct nest_err *err)
{
	nest_autofree char *copy = malloc(n + 1);
	int rc;

	if (!copy)
		return nest_err_set(err, -ENOMEM, "parse %zu bytes of JSON", n);
	memcpy(copy, text, n);
	copy[n] = '\0';
	rc = blank_comments(copy, n, err);
	if (rc < 0)
		return rc;
	return nest_json_parse(copy, n, ret, err);
}

static void pass_blanks(struct scan *scan)
{
	bool closed;

	while (scan->at < scan->end) {
		if ((unsigned char)*scan->at <= ' ')
			scan->at++;
		else if (!pass_comment(scan, &closed))
			return;
	}
}

static char peek(struct scan *scan)
{
	pass_blanks(scan);
	return scan->at < scan->end ? *scan->at : '\0';
}

/* Passes a value up to the comma or bracket behind it; nesting is counted, not recursed into. */
static void pass_value(struct scan *scan)
{
	size_t depth = 0;
	char c;

	while ((c = peek(scan)) != '\0') {
		if (depth == 0 && (c == ',' || c == ']' || c == '}'))
			return;
		if (c == '"') {
			pass_string(scan);
			continue;
		}
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		scan->at++;
	}
}

/*
 * If the key that is quoted at @from..@to begins @path and a step ends there, the rest of the path
 * behind that step; else NULL. A key may itself hold dots.
 */
static const char *match_key(const char *from, const char *to, const char *path)
{
	nest_autojson cJSON *key = NULL;
	const char *rest;
	size_t len;

	if (nest_json_parse(from, (size_t)(to - from), &key, NULL) < 0 || !cJSON_IsString(key))
		return NULL;
	len = strlen(key->valuestring);
	if (strncmp(path, key->valuestring, len) != 0)
		return NULL;
	rest = path + len;
	if (*rest == '.')
		return rest[1] != '\0' ? rest + 1 : NULL;
	return *rest == '[' || *rest == '\0' ? rest : NULL;
}

static const char *find(struct scan scan, const char *path);

static const char *find_in_object(struct scan scan, const char *path)
{
	scan.at++;
	while (peek(&scan) == '"') {
		const char *key = scan.at;
		const char *rest, *found;

		pass_string(&scan);
		rest = match_key(key, scan.at, path);
		if (peek(&scan) != ':')
			return NULL;
		scan.at++;
		if (rest) {
			found = find(scan, rest);
			if (found)
				return found;
		}
		pass_value(&scan);
		if (peek(&scan) == ',')
			scan.at++;
	}
	return NULL;
}

static const char *find_in_array(struct scan scan, const char *path)
{
	char *rest;
	unsigned long index;

	if (path[1] < '0' || path[1] > '9')
		return NULL;
	index = strtoul(path + 1, &rest, 10);
	if (*rest++ != ']')
		return NULL;
	if (*rest == '.')
		rest++;
	scan.at++;
	while (peek(&scan) != ']' && scan.at < scan.end) {
		if (index-- == 0)
			return find(scan, rest);
		pass_value(&scan);
		if (peek(&scan) == ',')
			scan.at++;
	}
	return NULL;
}

/* Where the value at @path, seen from the value that begins at @scan, begins. */
static const char *find(struct scan scan, const char *path)
{
	char c = peek(&scan);

	if (*path == '\0')
		return c == '\0' ? NULL : scan.at;
	if (*path == '[')
		return c == '[' ? find_in_array(scan, path) : NULL;
	return c == '{' ? find_in_object(scan, path) : NULL;
}

unsigned nest_jsonc_line_of(const char *text, size_t n, const char *path)
{
	struct scan scan = { .at = text, .end = text + n };
	const char *found = find(scan, path);

	return found ? line_at(text, found) : 0;
}

size_t nest_jsonc_lines_in(
	const char *text, size_t n, const char *path, unsigned *ret_lines, size_t max)
{
	struct scan scan = { .at = text, .end = text + n };
	const char *counted = text;
	unsigned line = 1;
	size_t found = 0;

	scan.at = find(scan, path);
	if (!scan.at || *scan.at != '[')
		return 0;
	scan.at++;
	while (found < max && peek(&scan) != ']' && scan.at < scan.end) {
		line += line_at(counted, scan.at) - 1;
		counted = scan.at;
		ret_lines[found++] = line;
		pass_value(&scan);
		if (peek(&scan) == ',')
			scan.at++;
	}
	return found;
}
