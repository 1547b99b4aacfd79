/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "runtime/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte of what was parsed is looked at, so that a slice out of bounds is found. */
static unsigned sum(const char *bytes, size_t n)
{
	unsigned s = 0;

	for (size_t i = 0; i < n; i++)
		s += (unsigned char)bytes[i];
	return s;
}

static unsigned look(const struct nest_frame *frame)
{
	struct nest_call_header headers[NEST_FRAME_HEADERS_MAX];
	struct nest_frame_response response;
	struct nest_frame_log log;
	struct nest_err err = NEST_ERR_INIT;
	unsigned s = sum(frame->payload, frame->length);

	for (int http = 0; http < 2 && frame->type == NEST_FRAME_RESPONSE; http++) {
		if (nest_frame_parse_response(frame, http, headers, &response, &err) < 0)
			continue;
		for (size_t i = 0; i < response.nheaders; i++)
			s += sum(headers[i].name, headers[i].name_len) +
			     sum(headers[i].value, headers[i].value_len);
		s += sum(response.body, response.body_len);
	}
	if (frame->type == NEST_FRAME_LOG && nest_frame_parse_log(frame, &log, &err) == 0)
		s += sum(log.text, log.len);
	if (frame->type == NEST_FRAME_CREDIT_MORE)
		s += nest_frame_credit(frame);
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_frame frame;
	size_t at = 0, need;
	static volatile unsigned sink;

	while (at < size) {
		/* A copy of its own, so that a read past the frame's end is past the block's. */
		size_t left = size - at;
		char *bytes = malloc(left);
		int r;

		if (!bytes)
			return 0;
		memcpy(bytes, data + at, left);
		r = nest_frame_parse(bytes, left, &frame, &need, &err);
		if (r == 0) {
			sink += look(&frame);
			at += NEST_FRAME_HEADER + frame.length;
		}
		free(bytes);
		if (r != 0)
			break;
	}
	(void)sink;
	return 0;
}
