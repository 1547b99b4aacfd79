/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"

#define REQUEST_HEAD 16u
#define RESPONSE_HEAD 8u
#define FIELD_HEAD 8u
#define LOG_HEAD 4u
#define DEADLINE_AT 8u

enum tag {
	TAG_ID = 1,
	TAG_TRACE,
	TAG_CLIENT_CONTEXT,
	TAG_METHOD,
	TAG_TARGET,
	TAG_HEADER,
};

/* What a worker may send: least and most payload, whether on stream 0 and on others, and FIN. */
static const struct rule {
	const char *name;
	uint32_t min;
	uint32_t max;
	bool from_worker;
	bool on_zero;
	bool on_stream;
	bool may_fin;
} rules[NEST_FRAME_TYPES] = {
	[NEST_FRAME_HELLO] = { "HELLO", 2, 4096, true, true, false, false },
	[NEST_FRAME_INIT] = { "INIT", 0, 0, false, true, false, false },
	[NEST_FRAME_READY] = { "READY", 0, 4096, true, true, false, false },
	[NEST_FRAME_REQUEST] = { "REQUEST", 0, 0, false, false, true, true },
	[NEST_FRAME_RESPONSE] = { "RESPONSE", RESPONSE_HEAD, NEST_FRAME_PAYLOAD_MAX, true, false,
		true, true },
	[NEST_FRAME_BODY] = { "BODY", 0, NEST_FRAME_BODY_MAX, true, false, true, true },
	[NEST_FRAME_ERROR] = { "ERROR", 0, NEST_FRAME_PAYLOAD_MAX, true, true, true, true },
	[NEST_FRAME_CREDIT_MORE] = { "CREDIT", 4, 4, true, false, true, false },
	[NEST_FRAME_CANCEL] = { "CANCEL", 0, 0, false, false, true, false },
	[NEST_FRAME_LOG] = { "LOG", LOG_HEAD, NEST_FRAME_PAYLOAD_MAX, true, true, true, false },
	[NEST_FRAME_PING] = { "PING", 8, 8, false, true, false, false },
	[NEST_FRAME_PONG] = { "PONG", 8, 8, true, true, false, false },
	[NEST_FRAME_DRAIN] = { "DRAIN", 0, 0, false, true, false, false },
	[NEST_FRAME_CHECKPOINT] = { "CHECKPOINT", 0, 4096, true, true, false, false },
	[NEST_FRAME_RESTORED] = { "RESTORED", 0, 0, false, true, false, false },
};

static const char *const levels[] = { NULL, "trace", "debug", "info", "warn", "error" };

static uint16_t get_u16(const char *from)
{
	uint16_t v;

	memcpy(&v, from, sizeof(v));
	return le16toh(v);
}

static uint32_t get_u32(const char *from)
{
	uint32_t v;

	memcpy(&v, from, sizeof(v));
	return le32toh(v);
}

static void put_u16(char *to, uint16_t value)
{
	value = htole16(value);
	memcpy(to, &value, sizeof(value));
}

void nest_frame_put_u32(char to[static 4], uint32_t value)
{
	value = htole32(value);
	memcpy(to, &value, sizeof(value));
}

const char *nest_frame_name(unsigned type)
{
	return type < NEST_FRAME_TYPES && rules[type].name ? rules[type].name : "unknown";
}

static int check_header(const char *bytes, const struct nest_frame *frame, struct nest_err *err)
{
	const struct rule *rule = &rules[frame->type < NEST_FRAME_TYPES ? frame->type : 0];
	unsigned flags = (unsigned char)bytes[5];

	if (!rule->from_worker)
		return nest_err_say(err, -EPROTO, "it sent a frame of type %u (%s)", frame->type,
			nest_frame_name(frame->type));
	if (frame->length < rule->min || frame->length > rule->max)
		return nest_err_say(err, -EPROTO, "its %s frame holds %u bytes (%u to %u allowed)",
			rule->name, frame->length, rule->min, rule->max);
	if ((flags & ~NEST_FRAME_FIN) || (frame->fin && !rule->may_fin) || get_u16(bytes + 6))
		return nest_err_say(err, -EPROTO, "its %s frame has unknown flags", rule->name);
	if (frame->stream ? !rule->on_stream : !rule->on_zero)
		return nest_err_say(
			err, -EPROTO, "its %s frame came on stream %u", rule->name, frame->stream);
	return 0;
}

int nest_frame_parse(
	const char *bytes, size_t n, struct nest_frame *ret, size_t *ret_need, struct nest_err *err)
{
	struct nest_frame frame;
	int r;

	if (n < NEST_FRAME_HEADER) {
		if (ret_need)
			*ret_need = NEST_FRAME_HEADER;
		return 1;
	}
	frame.length = get_u32(bytes);
	frame.type = (uint8_t)bytes[4];
	frame.fin = bytes[5] & NEST_FRAME_FIN;
	frame.stream = get_u32(bytes + 8);
	frame.payload = bytes + NEST_FRAME_HEADER;
	r = check_header(bytes, &frame, err);
	if (r < 0)
		return r;
	if (n - NEST_FRAME_HEADER < frame.length) {
		if (ret_need)
			*ret_need = NEST_FRAME_HEADER + (size_t)frame.length;
		return 1;
	}
	*ret = frame;
	return 0;
}

void nest_frame_put_header(char to[static NEST_FRAME_HEADER], enum nest_frame_type type, bool fin,
	uint32_t stream, uint32_t length)
{
	nest_frame_put_u32(to, length);
	to[4] = (char)type;
	to[5] = fin ? NEST_FRAME_FIN : 0;
	to[6] = 0;
	to[7] = 0;
	nest_frame_put_u32(to + 8, stream);
}

static size_t text_size(const char *text)
{
	return text ? FIELD_HEAD + strlen(text) : 0;
}

size_t nest_frame_request_size(const struct nest_call_request *request)
{
	size_t n = REQUEST_HEAD + text_size(request->id) + text_size(request->trace);

	if (request->http)
		n += text_size(request->method) + text_size(request->target);
	else
		n += text_size(request->client_context);
	for (size_t i = 0; request->http && i < request->nheaders; i++) {
		const struct nest_call_header *h = &request->headers[i];

		if (h->name_len > UINT16_MAX)
			return 0;
		n += FIELD_HEAD + (size_t)h->name_len + h->value_len;
	}
	return n <= NEST_FRAME_PAYLOAD_MAX ? n : 0;
}

static char *put_field(char *to, enum tag tag, const char *name, uint32_t name_len,
	const char *value, uint32_t value_len)
{
	put_u16(to, (uint16_t)tag);
	put_u16(to + 2, (uint16_t)name_len);
	nest_frame_put_u32(to + 4, value_len);
	to += FIELD_HEAD;
	if (name_len)
		memcpy(to, name, name_len);
	if (value_len)
		memcpy(to + name_len, value, value_len);
	return to + name_len + value_len;
}

static char *put_text(char *to, enum tag tag, const char *text, unsigned *fields)
{
	if (!text)
		return to;
	++*fields;
	return put_field(to, tag, NULL, 0, text, (uint32_t)strlen(text));
}

void nest_frame_put_request(char *to, const struct nest_call_request *request)
{
	char *at = to + REQUEST_HEAD;
	unsigned fields = 0;

	at = put_text(at, TAG_ID, request->id, &fields);
	at = put_text(at, TAG_TRACE, request->trace, &fields);
	if (request->http) {
		at = put_text(at, TAG_METHOD, request->method, &fields);
		at = put_text(at, TAG_TARGET, request->target, &fields);
		for (size_t i = 0; i < request->nheaders; i++, fields++) {
			const struct nest_call_header *h = &request->headers[i];

			at = put_field(
				at, TAG_HEADER, h->name, h->name_len, h->value, h->value_len);
		}
	} else {
		at = put_text(at, TAG_CLIENT_CONTEXT, request->client_context, &fields);
	}
	to[0] = request->http ? 2 : 1;
	to[1] = 0;
	put_u16(to + 2, (uint16_t)fields);
	nest_frame_put_u32(to + 4, (uint32_t)(at - to - REQUEST_HEAD));
	nest_frame_set_deadline(to, 0);
}

void nest_frame_set_deadline(char *head, uint64_t deadline_ms)
{
	deadline_ms = htole64(deadline_ms);
	memcpy(head + DEADLINE_AT, &deadline_ms, sizeof(deadline_ms));
}

/* RFC 9110 token characters, upper case left out: names travel in lower case. */
static bool is_name_char(unsigned char c)
{
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
		return true;
	return c && strchr("!#$%&'*+-.^_`|~", c);
}

static bool is_name(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!is_name_char((unsigned char)s[i]))
			return false;
	}
	return n > 0;
}

static bool is_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static int parse_header(
	const char **at, const char *end, struct nest_call_header *ret, struct nest_err *err)
{
	const char *p = *at;

	if ((size_t)(end - p) < FIELD_HEAD)
		return nest_err_say(err, -EPROTO, "a field of its response head is cut off");
	if (get_u16(p) != TAG_HEADER)
		return nest_err_say(
			err, -EPROTO, "its response head has a field of tag %u", get_u16(p));
	ret->name_len = get_u16(p + 2);
	ret->value_len = get_u32(p + 4);
	p += FIELD_HEAD;
	if (ret->name_len > (size_t)(end - p) || ret->value_len > (size_t)(end - p) - ret->name_len)
		return nest_err_say(err, -EPROTO, "a field of its response head is cut off");
	ret->name = p;
	ret->value = p + ret->name_len;
	*at = ret->value + ret->value_len;
	if (!is_name(ret->name, ret->name_len))
		return nest_err_say(err, -EPROTO,
			"a response header's name is not a lower-case token of RFC 9110");
	if (!is_value(ret->value, ret->value_len))
		return nest_err_say(err, -EPROTO, "response header '%.*s' holds control characters",
			(int)(ret->name_len < 64 ? ret->name_len : 64), ret->name);
	return 0;
}

int nest_frame_parse_response(const struct nest_frame *frame, bool http,
	struct nest_call_header headers[static NEST_FRAME_HEADERS_MAX],
	struct nest_frame_response *ret, struct nest_err *err)
{
	const char *at = frame->payload + RESPONSE_HEAD, *end;
	unsigned status, fields;
	uint32_t fields_length;

	if (frame->length < RESPONSE_HEAD)
		return nest_err_say(err, -EPROTO, "its response head is cut off");
	status = get_u16(frame->payload);
	fields = get_u16(frame->payload + 2);
	fields_length = get_u32(frame->payload + 4);
	if (http ? status < 100 || status > 599 : status != 0)
		return nest_err_say(err, -EPROTO, "it answered %s with status %u",
			http ? "an HTTP request" : "an event", status);
	if (fields_length > frame->length - RESPONSE_HEAD)
		return nest_err_say(err, -EPROTO, "its response head is cut off");
	if (fields > NEST_FRAME_HEADERS_MAX)
		return nest_err_say(err, -EPROTO, "its response has %u headers (at most %u)",
			fields, NEST_FRAME_HEADERS_MAX);
	end = at + fields_length;
	for (unsigned i = 0; i < fields; i++) {
		int r = parse_header(&at, end, &headers[i], err);

		if (r < 0)
			return r;
	}
	if (at != end)
		return nest_err_say(err, -EPROTO, "its response head is longer than its fields");
	ret->status = status;
	ret->nheaders = fields;
	ret->body = end;
	ret->body_len = frame->length - RESPONSE_HEAD - fields_length;
	return 0;
}

int nest_frame_parse_log(
	const struct nest_frame *frame, struct nest_frame_log *ret, struct nest_err *err)
{
	const unsigned char *p = (const unsigned char *)frame->payload;

	if (frame->length < LOG_HEAD || p[0] < 1 || p[0] > 2 ||
		p[1] >= sizeof(levels) / sizeof(levels[0]) || p[2] || p[3])
		return nest_err_say(err, -EPROTO, "its LOG frame has an unknown source or level");
	ret->stream = p[0];
	ret->level = levels[p[1]];
	ret->text = frame->payload + LOG_HEAD;
	ret->len = frame->length - LOG_HEAD;
	return 0;
}

uint32_t nest_frame_credit(const struct nest_frame *frame)
{
	return get_u32(frame->payload);
}
