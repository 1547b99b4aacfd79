/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/wire.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"

#define VARINT_MAX 10

static int take_varint(struct nest_wire *wire, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < VARINT_MAX && i < wire->left; i++) {
		uint8_t byte = wire->at[i];

		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte & 0x80)
			continue;
		wire->at += i + 1;
		wire->left -= i + 1;
		*ret = value;
		return 0;
	}
	return -EBADMSG;
}

static int take_fixed(struct nest_wire *wire, size_t n, uint64_t *ret)
{
	uint64_t value = 0;

	if (wire->left < n)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		value |= (uint64_t)wire->at[i] << (8 * i);
	wire->at += n;
	wire->left -= n;
	*ret = value;
	return 0;
}

static int take_bytes(struct nest_wire *wire, struct nest_wire *ret)
{
	uint64_t n = 0;
	int r = take_varint(wire, &n);

	if (r < 0 || n > wire->left)
		return -EBADMSG;
	*ret = (struct nest_wire){ .at = wire->at, .left = (size_t)n };
	wire->at += n;
	wire->left -= (size_t)n;
	return 0;
}

int nest_wire_next(struct nest_wire *wire, struct nest_wire_field *ret)
{
	const uint8_t *start = wire->at;
	uint64_t tag = 0;
	int r;

	if (wire->left == 0)
		return 0;
	*ret = (struct nest_wire_field){ .number = 0 };
	r = take_varint(wire, &tag);
	if (r < 0 || tag >> 3 == 0 || tag >> 3 > UINT32_MAX >> 3)
		return -EBADMSG;
	ret->number = (uint32_t)(tag >> 3);
	ret->type = tag & 7;
	switch (tag & 7) {
	case NEST_WIRE_VARINT:
		r = take_varint(wire, &ret->value);
		break;
	case NEST_WIRE_FIXED64:
		r = take_fixed(wire, 8, &ret->value);
		break;
	case NEST_WIRE_FIXED32:
		r = take_fixed(wire, 4, &ret->value);
		break;
	case NEST_WIRE_BYTES:
		r = take_bytes(wire, &ret->in);
		break;
	default:
		r = -EBADMSG;
	}
	ret->raw = (struct nest_wire){ .at = start, .left = (size_t)(wire->at - start) };
	return r < 0 ? r : 1;
}

static int append_varint(struct nest_buf *out, uint64_t value)
{
	uint8_t bytes[VARINT_MAX];
	size_t n = 0;

	do {
		bytes[n] = value & 0x7f;
		value >>= 7;
		bytes[n++] |= value ? 0x80 : 0;
	} while (value);
	return nest_buf_append(out, bytes, n);
}

int nest_wire_put_varint(struct nest_buf *out, uint32_t number, uint64_t value)
{
	int r = append_varint(out, (uint64_t)number << 3 | NEST_WIRE_VARINT);

	return r < 0 ? r : append_varint(out, value);
}

int nest_wire_put_bytes(struct nest_buf *out, uint32_t number, const void *bytes, size_t n)
{
	int r = append_varint(out, (uint64_t)number << 3 | NEST_WIRE_BYTES);

	if (r == 0)
		r = append_varint(out, n);
	return r < 0 || n == 0 ? r : nest_buf_append(out, bytes, n);
}

int nest_wire_put_string(struct nest_buf *out, uint32_t number, const char *text)
{
	return nest_wire_put_bytes(out, number, text, strlen(text));
}

int nest_wire_put_raw(struct nest_buf *out, const struct nest_wire *raw)
{
	return nest_buf_append(out, raw->at, raw->left);
}

int nest_wire_put_with(
	struct nest_buf *out, struct nest_wire in, nest_wire_put_cb *put, const void *arg)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		r = put(out, &field, arg);
		if (r < 0)
			return r;
	}
	return r;
}

int nest_wire_put_inside(struct nest_buf *out, const struct nest_wire_field *field,
	nest_wire_put_cb *put, const void *arg)
{
	struct nest_buf message = NEST_BUF_INIT;
	int r = field->type == NEST_WIRE_BYTES ? nest_wire_put_with(&message, field->in, put, arg)
					       : -EBADMSG;

	if (r == 0)
		r = nest_wire_put_bytes(out, field->number, nest_buf_bytes(&message), message.len);
	nest_buf_done(&message);
	return r;
}
