/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/http_conn.h"

/*
 * What llhttp leaves to its user: the version, the form of the target, Host, and framing that is legal for some server but not
 * for one behind a proxy. The head's bytes are changed in place: names to lower case, NULs behind
 * each part (over ':', CR and SP, which have been parsed).
 */

/* The headers that decide how the request is read; each at most once. */
struct known {
	struct nest_http_header *host;
	struct nest_http_header *transfer_encoding;
	struct nest_http_header *expect;
	struct nest_http_header *upgrade;
	bool twice;
};

static const struct {
	const char *name;
	size_t offset;
} known_names[] = {
	{ "host", offsetof(struct known, host) },
	{ "transfer-encoding", offsetof(struct known, transfer_encoding) },
	{ "expect", offsetof(struct known, expect) },
	{ "upgrade", offsetof(struct known, upgrade) },
};

bool nest_http_has_token(const char *value, const char *token)
{
	size_t len = strlen(token);

	for (;;) {
		size_t n;

		value += strspn(value, " \t,");
		if (*value == '\0')
			return false;
		n = strcspn(value, " \t,;");
		if (n == len && strncasecmp(value, token, len) == 0)
			return true;
		value += strcspn(value, ",");
	}
}

static void lower(char *s, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (s[i] >= 'A' && s[i] <= 'Z')
			s[i] = (char)(s[i] | 0x20);
}

/* Ends name and value with NULs, trims the value; a tab inside of it becomes a blank. */
static void finish_header(struct nest_http_header *header)
{
	char *name = (char *)header->name; /* the connection's own bytes */
	char *value = (char *)header->value;
	uint32_t n = header->value_len;
	char *tab;

	lower(name, header->name_len);
	name[header->name_len] = '\0';
	if (!value || n == 0) {
		header->value = "";
		header->value_len = 0;
		return;
	}
	while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
		n--;
	value[n] = '\0';
	header->value_len = n;
	for (tab = memchr(value, '\t', n); tab; tab = memchr(tab, '\t', n - (size_t)(tab - value)))
		*tab = ' ';
}

static void note_known(struct known *known, struct nest_http_header *header)
{
	for (size_t i = 0; i < sizeof(known_names) / sizeof(known_names[0]); i++) {
		struct nest_http_header **slot = (void *)((char *)known + known_names[i].offset);

		if (header->name[0] != known_names[i].name[0] ||
			strcmp(header->name, known_names[i].name) != 0)
			continue;
		if (*slot)
			known->twice = true;
		*slot = header;
	}
}

/* "GET /x HTTP/1.1": one blank each, and a version that is ours. */
static bool line_ok(struct nest_http_exchange *conn)
{
	const char *target = conn->request.target;
	const char *version = target + conn->target_len;

	if (target[-1] != ' ' || target[-2] == ' ')
		return false;
	if (strncmp(version, " HTTP/1.", 8) != 0 || (version[8] != '0' && version[8] != '1'))
		return false;
	conn->old_client = version[8] == '0';
	return true;
}

/* A uri-host with an optional port: no path, no user, nothing that a proxy could read otherwise. */
static bool host_ok(const char *host)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		"-._~%!$&'()*+;=:[]";

	return host[strspn(host, allowed)] == '\0';
}

/*
 * "http://host:80/path?query" -> target "/path?query", Host "host:80" (RFC 9112, 3.2.2). The authority moves two bytes
 * to the left, over the "//", which makes room for its NUL and for the "/" that an empty path needs.
 */
static bool absolute_to_origin(struct nest_http_exchange *conn, struct nest_http_header *host)
{
	char *target = (char *)conn->request.target;
	char *authority;
	size_t n;

	if (strncasecmp(target, "http://", 7) == 0)
		authority = target + 7;
	else if (strncasecmp(target, "https://", 8) == 0)
		authority = target + 8;
	else
		return false;
	n = strcspn(authority, "/?");
	target = authority + n;
	if (n == 0)
		return false;
	memmove(authority - 2, authority, n);
	authority -= 2;
	authority[n] = '\0';
	if (*target != '/')
		*--target = '/';
	conn->request.target = target;
	if (!host_ok(authority))
		return false;
	if (host) {
		host->value = authority;
		host->value_len = (uint32_t)n;
	}
	return true;
}

static const char *check_target(struct nest_http_exchange *conn, struct nest_http_header *host)
{
	const char *target = conn->request.target;

	if (conn->parser.method == HTTP_CONNECT)
		return "CONNECT is not supported: this is no proxy";
	for (const char *c = target; *c; c++)
		if (*c < 0x21 || *c > 0x7e || *c == '#')
			return "the target has a character that must be percent-encoded";
	if (strcmp(target, "*") == 0)
		return conn->parser.method == HTTP_OPTIONS ? NULL
							   : "only OPTIONS may have target *";
	if (target[0] != '/' && !absolute_to_origin(conn, host))
		return "the target must be a path, or an http URL";
	return NULL;
}

/* Cuts path and query; 0 or -ENOMEM. */
static int split_target(struct nest_http_exchange *conn)
{
	struct nest_http_request *request = &conn->request;
	const char *mark = strchr(request->target, '?');
	char *path = conn->block->short_path;
	size_t n;

	if (!mark) {
		request->path = request->target;
		request->query = "";
		return 0;
	}
	n = (size_t)(mark - request->target);
	if (n >= sizeof(conn->block->short_path)) {
		conn->long_path = malloc(n + 1);
		if (!conn->long_path)
			return -ENOMEM;
		path = conn->long_path;
	}
	memcpy(path, request->target, n);
	path[n] = '\0';
	request->path = path;
	request->query = mark + 1;
	return 0;
}

static unsigned check_framing(
	struct nest_http_exchange *conn, const struct known *known, const char **ret_why)
{
	const struct nest_http_header *coding = known->transfer_encoding;

	conn->chunked_in = coding != NULL;
	conn->expects = false;
	/* where two readers could disagree about where a request ends, there is no request */
	*ret_why = "a header that may stand once stands twice";
	if (known->twice)
		return 400;
	*ret_why = "transfer-encoding must be chunked, and only in HTTP/1.1";
	if (coding && (conn->old_client || strcasecmp(coding->value, "chunked") != 0))
		return 400;
	*ret_why = "an Expect other than 100-continue can't be met";
	if (known->expect && strcasecmp(known->expect->value, "100-continue") != 0)
		return 417;
	conn->expects = known->expect && !conn->old_client;
	*ret_why = "this connection can't be upgraded to another protocol";
	if (known->upgrade && (conn->parser.flags & F_CONNECTION_UPGRADE) &&
		!nest_http_has_token(known->upgrade->value, "h2c"))
		return 400;
	conn->parser.upgrade = 0; /* h2c is an offer that may be passed over */
	return 0;
}

int nest_http_head_check(struct nest_http_exchange *conn, const char **ret_why)
{
	struct known known = { .twice = false };
	struct nest_http_request *request = &conn->request;
	unsigned status;

	*ret_why = "the request line must be 'METHOD target HTTP/1.1'";
	if (!line_ok(conn))
		return 400;
	((char *)request->target)[conn->target_len] = '\0';
	for (uint32_t i = 0; i < conn->nheaders; i++) {
		finish_header(&conn->block->headers[i]);
		note_known(&known, &conn->block->headers[i]);
	}
	status = check_framing(conn, &known, ret_why);
	if (status != 0)
		return (int)status;
	*ret_why = "HTTP/1.1 demands one valid Host header";
	if (known.host ? !host_ok(known.host->value) : !conn->old_client)
		return 400;
	*ret_why = check_target(conn, known.host);
	if (*ret_why)
		return 400;
	*ret_why = "out of memory";
	if (split_target(conn) < 0)
		return 503;
	*ret_why = "the announced body is too long";
	if (!conn->chunked_in && conn->parser.content_length > INT64_MAX)
		return 413;
	request->method = llhttp_method_name((llhttp_method_t)conn->parser.method);
	request->headers = conn->block->headers;
	request->nheaders = conn->nheaders;
	conn->body_left = conn->chunked_in ? 0 : conn->parser.content_length;
	request->content_length = conn->chunked_in ? -1 : (int64_t)conn->body_left;
	conn->keepalive = llhttp_should_keep_alive(&conn->parser);
	return 0;
}

const char *nest_http_header_get(const struct nest_http_request *request, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < request->nheaders; i++)
		if (request->headers[i].name_len == n &&
			memcmp(request->headers[i].name, name, n) == 0)
			return request->headers[i].value;
	return NULL;
}
