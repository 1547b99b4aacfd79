/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/invoke.h"
#include "base/cleanup.h"

#define PREFIX "/2015-03-31/functions/"
#define SUFFIX "/invocations"
#define NAME_TEXT_MAX 256 /* an ARN with everything in it is shorter */

struct name_slot {
	const char *name;
	uint32_t len;
	size_t offset;
};

#define SLOT(text, member)                                                          \
	{                                                                           \
		text, sizeof(text) - 1, offsetof(struct nest_invoke_wishes, member) \
	}

static const struct name_slot slots[] = {
	SLOT("host", host),
	SLOT("connection", connection),
	SLOT("content-type", content_type),
	SLOT("content-length", content_length),
	SLOT("traceparent", traceparent),
	SLOT("x-request-id", request_id),
	SLOT("x-amzn-requestid", amzn_request_id),
	SLOT("x-amz-client-context", client_context),
	SLOT("x-amz-invocation-type", invocation_type),
	SLOT("x-amz-log-type", log_type),
	SLOT("x-nestlet-deadline-ms", deadline),
};

void nest_invoke_read_headers(
	const struct nest_http_request *request, struct nest_invoke_wishes *ret_wishes)
{
	*ret_wishes = (struct nest_invoke_wishes){ .host = NULL };
	for (size_t i = 0; i < request->nheaders; i++) {
		const struct nest_http_header *header = &request->headers[i];

		for (size_t k = 0; k < NEST_ARRAY_SIZE(slots); k++) {
			const struct nest_http_header **slot;

			if (slots[k].len != header->name_len ||
				memcmp(slots[k].name, header->name, header->name_len) != 0)
				continue;
			slot = (void *)((char *)ret_wishes + slots[k].offset);
			if (!*slot)
				*slot = header;
		}
	}
}

bool nest_invoke_path(const char *path, const char **ret_segment, size_t *ret_len)
{
	const char *segment = path + sizeof(PREFIX) - 1;
	size_t len;

	if (strncmp(path, PREFIX, sizeof(PREFIX) - 1) != 0)
		return false;
	len = strcspn(segment, "/");
	if (strcmp(segment + len, SUFFIX) != 0)
		return false;
	*ret_segment = segment;
	*ret_len = len;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes percent-encoding into @ret of @cap bytes; false when it is broken, too long, or hides a NUL. */
static bool percent_decode(const char *text, size_t n, char *ret, size_t cap)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (c == '%') {
			int high = i + 2 < n ? hex_digit(text[i + 1]) : -1;
			int low = i + 2 < n ? hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = (char)(high * 16 + low);
			i += 2;
		}
		if (c == '\0' || at + 1 >= cap)
			return false;
		ret[at++] = c;
	}
	ret[at] = '\0';
	return true;
}

static bool word_ok(const char *word, size_t max, const char *more)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	size_t n = strlen(word);

	if (n == 0 || n > max)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strchr(allowed, word[i]) && !strchr(more, word[i]))
			return false;
	return true;
}

/*
 * Skips what stands before the name in an ARN ("arn:aws:lambda:region:account:function:name") or in a partial one
 * ("account:function:name"); account and region mean nothing here.
 */
static const char *after_arn(const char *text)
{
	const char *mark = strstr(text, ":function:");

	if (mark && (strncmp(text, "arn:", 4) == 0 || strcspn(text, ":") == (size_t)(mark - text)))
		return mark + sizeof(":function:") - 1;
	return strncmp(text, "function:", 9) == 0 ? text + 9 : text;
}

/* The value of query parameter Qualifier, decoded; false when it is malformed. "" when absent. */
static bool query_qualifier(const char *query, char *ret, size_t cap)
{
	static const char key[] = "Qualifier=";

	ret[0] = '\0';
	while (*query) {
		size_t n = strcspn(query, "&");

		if (n >= sizeof(key) - 1 && strncmp(query, key, sizeof(key) - 1) == 0)
			return percent_decode(
				query + sizeof(key) - 1, n - (sizeof(key) - 1), ret, cap);
		query += n + (query[n] == '&');
	}
	return true;
}

static bool qualifier_ok(const char *qualifier)
{
	return strcmp(qualifier, "$LATEST") == 0 ||
	       word_ok(qualifier, NEST_FUNCTION_VERSION_MAX, ".");
}

int nest_invoke_parse_name(const char *segment, size_t len, const char *query,
	char ret_name[NEST_FUNCTION_NAME_MAX + 1],
	char ret_qualifier[NEST_FUNCTION_VERSION_MAX + 1], const char **ret_why)
{
	char text[NAME_TEXT_MAX], asked[NAME_TEXT_MAX];
	char *name, *colon;

	*ret_why = "the function's name is not of 1 to 64 letters, digits, '_' and '-'";
	if (!percent_decode(segment, len, text, sizeof(text)))
		return -EINVAL;
	name = (char *)after_arn(text);
	colon = strchr(name, ':');
	if (colon)
		*colon++ = '\0';
	if (!word_ok(name, NEST_FUNCTION_NAME_MAX, ""))
		return -EINVAL;
	*ret_why = "the qualifier is not a version: 1 to 32 letters, digits, '.', '_' and '-', or "
		   "$LATEST";
	if (!query_qualifier(query, asked, sizeof(asked)) || (asked[0] && !qualifier_ok(asked)) ||
		(colon && !qualifier_ok(colon)))
		return -EINVAL;
	*ret_why = "the path and the query name different qualifiers";
	if (colon && asked[0] && strcmp(colon, asked) != 0)
		return -EINVAL;
	if (!colon)
		colon = asked;
	memcpy(ret_name, name, strlen(name) + 1);
	memcpy(ret_qualifier, colon, strlen(colon) + 1);
	return 0;
}

int nest_invoke_parse_deadline(const struct nest_http_header *header, uint64_t *ret_ms)
{
	*ret_ms = 0;
	if (!header)
		return 0;
	if (header->value_len == 0 || header->value_len > 15 ||
		strspn(header->value, "0123456789") != header->value_len)
		return -EINVAL;
	*ret_ms = strtoull(header->value, NULL, 10);
	return *ret_ms > 0 ? 0 : -EINVAL;
}

bool nest_invoke_base64_ok(const char *value)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		"+/-_";
	size_t n = strspn(value, allowed);

	return n > 0 && strspn(value + n, "=") == strlen(value + n);
}

#define NAME(text)                        \
	{                                 \
		text, sizeof(text) - 1, 0 \
	}

static const struct name_slot hop_names[] = {
	NAME("connection"),
	NAME("keep-alive"),
	NAME("proxy-connection"),
	NAME("proxy-authenticate"),
	NAME("proxy-authorization"),
	NAME("te"),
	NAME("trailer"),
	NAME("transfer-encoding"),
	NAME("upgrade"),
	NAME("http2-settings"),
	NAME("expect"),
};

bool nest_invoke_hop_by_hop(const char *name, size_t name_len, const char *connection)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(hop_names); i++)
		if (hop_names[i].len == name_len && memcmp(hop_names[i].name, name, name_len) == 0)
			return true;
	if (!connection || !nest_http_has_token(connection, name))
		return false;
	/* what says where a request goes and where it ends can't be struck off by its sender */
	return strcmp(name, "host") != 0 && strcmp(name, "content-length") != 0;
}

static void put_header(struct nest_gateway *gateway, size_t *n, const char *name, uint32_t name_len,
	const char *value, uint32_t value_len)
{
	gateway->call_headers[(*n)++] = (struct nest_call_header){
		.name = name, .value = value, .name_len = name_len, .value_len = value_len
	};
}

static void gather_for_post(
	struct nest_gateway *gateway, const struct nest_invoke_wishes *wishes, size_t *n)
{
	const struct nest_http_header *kept[] = { wishes->host, wishes->content_length,
		wishes->traceparent };
	const struct nest_http_header *type = wishes->content_type;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(kept); i++)
		if (kept[i])
			put_header(gateway, n, kept[i]->name, kept[i]->name_len, kept[i]->value,
				kept[i]->value_len);
	put_header(gateway, n, "content-type", 12, type ? type->value : "application/json",
		type ? type->value_len : 16);
}

int nest_invoke_gather_headers(
	const struct nest_invoke *invoke, const struct nest_invoke_wishes *wishes, size_t *ret_n)
{
	struct nest_gateway *gateway = invoke->gateway;
	const struct nest_http_request *request = invoke->request;
	const char *connection = wishes->connection ? wishes->connection->value : NULL;
	size_t room = request->nheaders + 8;

	*ret_n = 0;
	if (invoke->kind == NEST_INVOKE_EVENT)
		return 0;
	if (room > gateway->call_headers_cap) {
		struct nest_call_header *grown =
			realloc(gateway->call_headers, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		gateway->call_headers = grown;
		gateway->call_headers_cap = room;
	}
	put_header(gateway, ret_n, "x-request-id", 12, invoke->id, (uint32_t)strlen(invoke->id));
	if (invoke->kind == NEST_INVOKE_POST) {
		gather_for_post(gateway, wishes, ret_n);
		return 0;
	}
	for (size_t i = 0; i < request->nheaders; i++) {
		const struct nest_http_header *header = &request->headers[i];

		if (nest_invoke_hop_by_hop(header->name, header->name_len, connection) ||
			strcmp(header->name, "x-request-id") == 0 || header == wishes->deadline)
			continue;
		put_header(gateway, ret_n, header->name, header->name_len, header->value,
			header->value_len);
	}
	return 0;
}
