/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/reference.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/err.h"

#define URL_MAX 8192
#define SHOWN_MAX 200

static int refuse(struct nest_err *err, const char *why)
{
	return nest_err_say(err, -EINVAL, "%s", why);
}

static int check_characters(const char *url, struct nest_err *err)
{
	if (strnlen(url, URL_MAX + 1) > URL_MAX)
		return refuse(err, "the reference is longer than 8192 characters");
	for (const char *p = url; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '\\')
			return refuse(err,
				"the reference holds a space, a control character or a backslash: "
				"write it as %20 and the like");
	return 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The path of a file:// reference, whose %XX stand for bytes. */
static int decode_path(const char *text, char ret[NEST_REFERENCE_PATH_CAP], struct nest_err *err)
{
	size_t n = 0;

	for (; *text; text++) {
		char c = *text;

		if (c == '?' || c == '#')
			return refuse(err, "a file:// reference has no query and no fragment");
		if (c == '%') {
			int high = hex_value(text[1]);
			int low = high < 0 ? -1 : hex_value(text[2]);

			c = (char)(high * 16 + low);
			if (low < 0 || c == '\0')
				return refuse(err, "the reference holds a '%' that begins no byte");
			text += 2;
		}
		if (n + 1 >= NEST_REFERENCE_PATH_CAP)
			return refuse(err, "the path is too long");
		ret[n++] = c;
	}
	ret[n] = '\0';
	return 0;
}

static int parse_file(const char *rest, struct nest_reference_parts *parts, struct nest_err *err)
{
	if (strncasecmp(rest, "localhost/", 10) == 0)
		rest += 9;
	if (rest[0] != '/')
		return refuse(err, "a file:// reference must name a file of this machine: "
				   "file:///absolute/path");
	parts->kind = NEST_REFERENCE_PATH;
	return decode_path(rest, parts->path, err);
}

/* Digits up to @end as a port from 1 to 65535; 0 is none. */
static uint16_t parse_port(const char *text, const char *end)
{
	unsigned long port = 0;

	for (; text < end; text++) {
		if (!isdigit((unsigned char)*text))
			return 0;
		port = port * 10 + (unsigned long)(*text - '0');
		if (port > 65535)
			return 0;
	}
	return (uint16_t)port;
}

static bool is_host_character(char c, bool bracketed)
{
	if (bracketed)
		return isxdigit((unsigned char)c) || c == ':' || c == '.';
	return isalnum((unsigned char)c) || c == '-' || c == '.' || c == '_';
}

/* The host between @text and @end, without brackets. */
static int take_host(const char *text, const char *end, bool bracketed,
	struct nest_reference_parts *parts, struct nest_err *err)
{
	size_t n = (size_t)(end - text);

	if (n == 0)
		return refuse(err, "the reference names no host");
	if (n >= NEST_REFERENCE_HOST_CAP)
		return refuse(err, "the reference's host is too long");
	for (size_t i = 0; i < n; i++) {
		if (!is_host_character(text[i], bracketed))
			return refuse(
				err, "the reference's host holds a character that no host has");
		parts->host[i] = (char)tolower((unsigned char)text[i]);
	}
	parts->host[n] = '\0';
	return 0;
}

static int parse_authority(
	const char *text, struct nest_reference_parts *parts, struct nest_err *err)
{
	const char *end = text + strcspn(text, "/?#");
	bool bracketed = *text == '[';
	const char *host_end;
	int rc;

	if (memchr(text, '@', (size_t)(end - text)))
		return refuse(err, "the reference holds a user or password: put it into "
				   "loader.credentialsFile");
	if (strchr(end, '#'))
		return refuse(err, "the reference holds a fragment ('#')");
	host_end = memchr(text, bracketed ? ']' : ':', (size_t)(end - text));
	if (bracketed && !host_end)
		return refuse(err, "the reference's '[' is never closed");
	rc = take_host(text + bracketed, host_end ? host_end : end, bracketed, parts, err);
	if (rc < 0 || !host_end)
		return rc;
	host_end += bracketed;
	if (host_end == end)
		return 0;
	parts->port = *host_end == ':' ? parse_port(host_end + 1, end) : 0;
	return parts->port ? 0 : refuse(err, "the reference's port is no number from 1 to 65535");
}

int nest_reference_parse(
	const char *url, struct nest_reference_parts *ret_parts, struct nest_err *err)
{
	static const struct {
		const char *scheme;
		enum nest_reference_kind kind;
		uint16_t port;
	} schemes[] = {
		{ "https://", NEST_REFERENCE_HTTPS, 443 },
		{ "http://", NEST_REFERENCE_HTTP, 80 },
	};
	int rc;

	*ret_parts = (struct nest_reference_parts){ .kind = NEST_REFERENCE_PATH };
	if (url[0] == '/') {
		if (strnlen(url, NEST_REFERENCE_PATH_CAP) == NEST_REFERENCE_PATH_CAP)
			return refuse(err, "the path is too long");
		strcpy(ret_parts->path, url);
		return 0;
	}
	rc = check_characters(url, err);
	if (rc < 0)
		return rc;
	if (strncasecmp(url, "file://", 7) == 0)
		return parse_file(url + 7, ret_parts, err);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(schemes); i++) {
		size_t n = strlen(schemes[i].scheme);

		if (strncasecmp(url, schemes[i].scheme, n) != 0)
			continue;
		ret_parts->kind = schemes[i].kind;
		ret_parts->port = schemes[i].port;
		return parse_authority(url + n, ret_parts, err);
	}
	return refuse(err, "a reference begins with https://, http://, file:// or /");
}

size_t nest_reference_shown(const char *url)
{
	size_t n = url[0] == '/' ? strlen(url) : strcspn(url, "?");

	return n < SHOWN_MAX ? n : SHOWN_MAX;
}

bool nest_reference_is_loopback(const struct nest_reference_parts *parts)
{
	return strcmp(parts->host, "localhost") == 0 || strcmp(parts->host, "::1") == 0 ||
	       (strncmp(parts->host, "127.", 4) == 0 &&
		       strspn(parts->host, "0123456789.") == strlen(parts->host));
}

/* ---- formats ---- */

/* In the order in which they are tried; a tar is what is nothing else. */
static const struct {
	enum nest_reference_format format;
	const char *name;
	size_t offset;
	size_t len;
	const char *magic;
} formats[] = {
	{ NEST_REFERENCE_TAR_GZ, "tar.gz", 0, 2, "\x1f\x8b" },
	{ NEST_REFERENCE_TAR_ZST, "tar.zst", 0, 4, "\x28\xb5\x2f\xfd" },
	{ NEST_REFERENCE_TAR_ZST, "tar.zst", 1, 3, "\x2a\x4d\x18" }, /* a skippable frame */
	{ NEST_REFERENCE_TAR_LZ4, "tar.lz4", 0, 4, "\x04\x22\x4d\x18" },
	{ NEST_REFERENCE_ZIP, "zip", 0, 4, "PK\x03\x04" },
	{ NEST_REFERENCE_ZIP, "zip", 0, 4, "PK\x05\x06" },
	{ NEST_REFERENCE_EROFS, "erofs", 1024, 4, "\xe2\xe1\xf5\xe0" },
	{ NEST_REFERENCE_TAR, "tar", 0, 0, "" },
};

static const char *name_of(enum nest_reference_format format)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(formats); i++)
		if (formats[i].format == format)
			return formats[i].name;
	return "auto";
}

int nest_reference_check_format(
	enum nest_reference_format format, const void *bytes, size_t n, struct nest_err *err)
{
	size_t i = 0;

	if (format == NEST_REFERENCE_AUTO)
		return 0;
	while (formats[i].len > 0 && (n < formats[i].offset + formats[i].len ||
					     memcmp((const char *)bytes + formats[i].offset,
						     formats[i].magic, formats[i].len) != 0))
		i++;
	if (formats[i].format == format)
		return 0;
	return nest_err_say(err, -EBADMSG, "its content is %s, not %s as its format says",
		formats[i].name, name_of(format));
}
