/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why ".." may only begin a link's target: what "a/.." means depends on whether "a" is itself a
 * link, so counting components can't tell whether it stays inside ("deep/x -> a/.." leaves the
 * tree when "deep/a -> .." leads to its top). At the beginning it is exact, because a link's
 * directory is never reached through another link while the tree is made; and the components
 * behind lead down, or through links that obey the same rule.
 */
#include "loader/name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

static bool is_dots(const char *part, size_t n, size_t dots)
{
	return n == dots && memcmp(part, "..", dots) == 0;
}

int nest_name_clean(const char *raw, char ret_clean[NEST_NAME_CAP], struct nest_err *err)
{
	char quoted[NEST_NAME_QUOTED_CAP];
	char clean[NEST_NAME_CAP];
	size_t len = 0;

	if (raw[0] == '\0')
		return nest_err_say(err, -EINVAL, "entry without a name");
	if (raw[0] == '/')
		return nest_err_say(err, -EINVAL, "entry %s has an absolute path",
			nest_name_quote(raw, quoted));
	for (const char *part = raw; *part;) {
		size_t n = strcspn(part, "/");

		if (is_dots(part, n, 2))
			return nest_err_say(err, -EINVAL, "entry %s has '..' in its path",
				nest_name_quote(raw, quoted));
		if (n > 0 && !is_dots(part, n, 1)) {
			if (len + (len > 0) + n + 1 > sizeof(clean))
				return nest_err_say(err, -ENAMETOOLONG,
					"entry %s has a path longer than %d bytes",
					nest_name_quote(raw, quoted), NEST_NAME_CAP - 1);
			if (len > 0)
				clean[len++] = '/';
			memcpy(clean + len, part, n);
			len += n;
		}
		part += n + (part[n] == '/');
	}
	clean[len] = '\0';
	memcpy(ret_clean, clean, len + 1);
	return 0;
}

/* Counts the directories above a clean name. */
static size_t depth_of(const char *clean)
{
	size_t depth = 0;

	for (const char *p = clean; *p; p++)
		depth += *p == '/';
	return depth;
}

static const char *judge_target(size_t depth, const char *target)
{
	bool down = false;

	if (target[0] == '\0')
		return "has no target";
	if (target[0] == '/')
		return "points to an absolute path";
	if (strlen(target) >= NEST_NAME_CAP)
		return "has a target that is too long";
	for (const char *part = target; *part;) {
		size_t n = strcspn(part, "/");

		if (is_dots(part, n, 2)) {
			if (down)
				return "has a '..' behind a name in its target (put each '..' "
				       "first)";
			if (depth-- == 0)
				return "points outside the tree";
		} else if (n > 0 && !is_dots(part, n, 1)) {
			down = true;
		}
		part += n + (part[n] == '/');
	}
	return NULL;
}

int nest_name_check_target(const char *clean, const char *target, struct nest_err *err)
{
	const char *fault = judge_target(depth_of(clean), target);
	char quoted[NEST_NAME_QUOTED_CAP];
	char quoted_target[NEST_NAME_QUOTED_CAP];

	if (!fault)
		return 0;
	return nest_err_say(err, -EINVAL, "symbolic link %s -> %s %s",
		nest_name_quote(clean, quoted), nest_name_quote(target, quoted_target), fault);
}

/* Writes one byte printably; returns how many characters it took. */
static size_t put_byte(char *at, unsigned char byte)
{
	if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
		*at = (char)byte;
		return 1;
	}
	return (size_t)sprintf(at, "\\x%02x", byte);
}

const char *nest_name_quote(const char *name, char ret[NEST_NAME_QUOTED_CAP])
{
	/* Each byte takes up to 4 characters: room for the quotes, the gap and two ends. */
	const size_t end_bytes = (NEST_NAME_QUOTED_CAP - 8) / 2 / 4;
	size_t n = strlen(name);
	size_t len = 0;

	ret[len++] = '\'';
	for (size_t i = 0; i < n; i++) {
		if (n > 2 * end_bytes && i == end_bytes) {
			memcpy(ret + len, "...", 3);
			len += 3;
			i = n - end_bytes;
		}
		len += put_byte(ret + len, (unsigned char)name[i]);
	}
	ret[len++] = '\'';
	ret[len] = '\0';
	return ret;
}
