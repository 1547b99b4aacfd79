/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "agent/http_conn.h"

/*
 * llhttp in its strict mode finds the parts of a head and the bytes of a chunked body. It stops (pauses) at the end of the
 * head and of the message, so that no owner is ever called from inside of it. Slices point into the
 * connection's block, whose bytes stay contiguous however the reads split them.
 */

/* What the extensions of all chunks and the trailers of one request may take together. */
#define FRAMING_BYTES 16384u
/* The least that one read of a chunked body can take. */
#define CHUNKS_ROOM 4096u

static int refuse(struct nest_http_exchange *conn, unsigned status, const char *why)
{
	conn->why = why;
	conn->why_status = (uint16_t)status;
	return HPE_USER;
}

static int on_url(llhttp_t *parser, const char *at, size_t n)
{
	struct nest_http_exchange *conn = parser->data;

	if (!conn->request.target)
		conn->request.target = at;
	conn->target_len += (uint32_t)n;
	return 0;
}

/* Trailers and chunk extensions are checked, charged and dropped. */
static int charge(llhttp_t *parser, const char *at, size_t n)
{
	struct nest_http_exchange *conn = parser->data;

	(void)at;
	if (n > conn->framing_left)
		return refuse(conn, 431, "chunk extensions and trailers are too long");
	conn->framing_left -= (uint32_t)n;
	return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t n)
{
	struct nest_http_exchange *conn = parser->data;

	if (conn->head_done)
		return charge(parser, at, n);
	if (!conn->name_open) {
		if (conn->nheaders == conn->block->headers_cap ||
			conn->nheaders >= conn->server->limits.header_count)
			return refuse(conn, 431, "there are too many headers");
		conn->block->headers[conn->nheaders++] = (struct nest_http_header){ .name = at };
		conn->name_open = true;
	}
	conn->block->headers[conn->nheaders - 1].name_len += (uint32_t)n;
	return 0;
}

static int on_field_complete(llhttp_t *parser)
{
	struct nest_http_exchange *conn = parser->data;

	conn->name_open = false;
	return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
	struct nest_http_exchange *conn = parser->data;
	struct nest_http_header *header;

	if (conn->head_done)
		return charge(parser, at, n);
	header = &conn->block->headers[conn->nheaders - 1];
	if (!header->value)
		header->value = at;
	header->value_len += (uint32_t)n;
	return 0;
}

static int on_head_complete(llhttp_t *parser)
{
	struct nest_http_exchange *conn = parser->data;

	conn->head_done = true;
	return HPE_PAUSED;
}

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
	struct nest_http_exchange *conn = parser->data;

	memmove(conn->decoded, at, n);
	conn->decoded += n;
	return 0;
}

static int on_message_complete(llhttp_t *parser)
{
	struct nest_http_exchange *conn = parser->data;

	conn->message_done = true;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_field_complete = on_field_complete,
	.on_header_value = on_value,
	.on_headers_complete = on_head_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
	.on_chunk_extension_name = charge,
	.on_chunk_extension_value = charge,
};

void nest_http_parse_begin(struct nest_http_exchange *conn)
{
	llhttp_init(&conn->parser, HTTP_REQUEST, &settings);
	conn->parser.data = conn;
	conn->head_start = conn->pos;
	conn->nheaders = 0;
	conn->target_len = 0;
	conn->name_open = false;
	conn->head_done = false;
	conn->message_done = false;
	conn->framing_left = FRAMING_BYTES;
	conn->request.target = NULL;
}

static unsigned parse_failed(struct nest_http_exchange *conn, const char **ret_why)
{
	llhttp_errno_t code = llhttp_get_errno(&conn->parser);
	const char *reason = llhttp_get_error_reason(&conn->parser);

	if (code == HPE_USER && conn->why) {
		*ret_why = conn->why;
		return conn->why_status;
	}
	if (code == HPE_PAUSED_H2_UPGRADE)
		*ret_why = "HTTP/2 is not spoken here, use HTTP/1.1";
	else if (code == HPE_INVALID_METHOD)
		*ret_why = "unknown method";
	else
		*ret_why = reason && *reason ? reason : "not HTTP/1.1";
	return 400;
}

int nest_http_parse_head(struct nest_http_exchange *conn, const char **ret_why)
{
	char *bytes = conn->block->bytes;
	llhttp_errno_t code;

	code = llhttp_execute(&conn->parser, bytes + conn->pos, conn->len - conn->pos);
	if (code == HPE_PAUSED)
		conn->pos = (uint32_t)(llhttp_get_error_pos(&conn->parser) - bytes);
	else if (code == HPE_OK)
		conn->pos = conn->len;
	else
		return (int)parse_failed(conn, ret_why);
	if (conn->pos - conn->head_start > conn->server->limits.header_bytes) {
		*ret_why = "the request's head is too long";
		return 431;
	}
	if (code == HPE_OK)
		return 1;
	/* chunks are read into the room behind the head, which stays put once its owner has slices of it */
	*ret_why = "out of memory";
	if ((conn->parser.flags & F_CHUNKED) && nest_http_block_reserve(conn, CHUNKS_ROOM) < 0)
		return 503;
	return nest_http_head_check(conn, ret_why);
}

int nest_http_parse_chunked(struct nest_http_exchange *conn, char *bytes, size_t n, size_t *ret_n,
	size_t *ret_used, bool *ret_complete, const char **ret_why)
{
	llhttp_errno_t code;

	conn->decoded = bytes;
	if (llhttp_get_errno(&conn->parser) == HPE_PAUSED)
		llhttp_resume(&conn->parser);
	code = llhttp_execute(&conn->parser, bytes, n);
	if (code != HPE_OK && !(code == HPE_PAUSED && conn->message_done))
		return (int)parse_failed(conn, ret_why);
	*ret_n = (size_t)(conn->decoded - bytes);
	*ret_used = code == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&conn->parser) - bytes);
	*ret_complete = conn->message_done;
	return 0;
}
