/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "runtime/frame.h"
#include "tests/unit/suite.h"

static struct nest_frame parse(const char *bytes, size_t n)
{
	struct nest_frame frame;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(
		nest_frame_parse(bytes, n, &frame, NULL, &err) == 0, "%s", nest_err_text(&err));
	return frame;
}

static void refuse(const char *bytes, size_t n, const char *words)
{
	struct nest_frame frame;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_frame_parse(bytes, n, &frame, NULL, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, words) != NULL, "'%s' lacks '%s'", err.text, words);
}

START_TEST(a_header_comes_back_as_it_was_put)
{
	char bytes[NEST_FRAME_HEADER + 3];
	struct nest_frame frame;
	size_t need = 0;

	nest_frame_put_header(bytes, NEST_FRAME_BODY, true, 0x01020304, 3);
	memcpy(bytes + NEST_FRAME_HEADER, "abc", 3);
	for (size_t n = 0; n < sizeof(bytes); n++) {
		ck_assert_int_eq(nest_frame_parse(bytes, n, &frame, &need, NULL), 1);
		ck_assert_uint_eq(need, n < NEST_FRAME_HEADER ? NEST_FRAME_HEADER : sizeof(bytes));
	}
	frame = parse(bytes, sizeof(bytes));
	ck_assert_uint_eq(frame.type, NEST_FRAME_BODY);
	ck_assert_uint_eq(frame.stream, 0x01020304);
	ck_assert_uint_eq(frame.length, 3);
	ck_assert(frame.fin);
	ck_assert_mem_eq(frame.payload, "abc", 3);
	/* little-endian on the wire */
	ck_assert_mem_eq(bytes + 8, "\x04\x03\x02\x01", 4);
}
END_TEST

START_TEST(what_no_worker_may_send_is_refused_by_its_header)
{
	char h[NEST_FRAME_HEADER];

	nest_frame_put_header(h, NEST_FRAME_REQUEST, false, 1, 0);
	refuse(h, sizeof(h), "type 4 (REQUEST)");
	nest_frame_put_header(h, NEST_FRAME_BODY, false, 1, 65537);
	refuse(h, sizeof(h), "BODY frame holds 65537 bytes");
	nest_frame_put_header(h, NEST_FRAME_RESPONSE, false, 1, (1u << 20) + 1);
	refuse(h, sizeof(h), "RESPONSE frame holds");
	nest_frame_put_header(h, NEST_FRAME_BODY, false, 0, 1);
	refuse(h, sizeof(h), "came on stream 0");
	nest_frame_put_header(h, NEST_FRAME_HELLO, false, 1, 2);
	refuse(h, sizeof(h), "came on stream 1");
	nest_frame_put_header(h, NEST_FRAME_CREDIT_MORE, false, 1, 5);
	refuse(h, sizeof(h), "4 to 4 allowed");
	nest_frame_put_header(h, NEST_FRAME_CREDIT_MORE, true, 1, 4);
	refuse(h, sizeof(h), "flags");
	nest_frame_put_header(h, NEST_FRAME_BODY, false, 1, 0);
	h[5] = 2;
	refuse(h, sizeof(h), "flags");
	h[5] = 0;
	h[6] = 1;
	refuse(h, sizeof(h), "flags");
	h[6] = 0;
	h[4] = 0;
	refuse(h, sizeof(h), "type 0 (unknown)");
	h[4] = (char)200;
	refuse(h, sizeof(h), "type 200 (unknown)");
}
END_TEST

START_TEST(a_request_head_is_laid_out_as_documented)
{
	static const struct nest_call_header headers[] = {
		{ .name = "a", .value = "b c", .name_len = 1, .value_len = 3 },
	};
	const struct nest_call_request request = {
		.id = "id",
		.http = true,
		.trace = "t",
		.method = "GET",
		.target = "/x",
		.headers = headers,
		.nheaders = 1,
	};
	static const char expected[] = "\x02\x00"			  /* kind */
				       "\x05\x00"			  /* fields */
				       "\x34\x00\x00\x00"		  /* their bytes */
				       "\x08\x07\x06\x05\x04\x03\x02\x01" /* deadline */
				       "\x01\x00\x00\x00\x02\x00\x00\x00id"
				       "\x02\x00\x00\x00\x01\x00\x00\x00t"
				       "\x04\x00\x00\x00\x03\x00\x00\x00GET"
				       "\x05\x00\x00\x00\x02\x00\x00\x00/x"
				       "\x06\x00\x01\x00\x03\x00\x00\x00"
				       "ab c";
	char head[256];

	ck_assert_uint_eq(nest_frame_request_size(&request), sizeof(expected) - 1);
	nest_frame_put_request(head, &request);
	nest_frame_set_deadline(head, 0x0102030405060708);
	ck_assert_mem_eq(head, expected, sizeof(expected) - 1);
}
END_TEST

START_TEST(an_event_carries_its_client_context_and_no_http)
{
	const struct nest_call_request request = {
		.id = "i", .client_context = "e30=", .method = "GET", .target = "/"
	};
	static const char expected[] = "\x01\x00\x02\x00\x15\x00\x00\x00"
				       "\x00\x00\x00\x00\x00\x00\x00\x00"
				       "\x01\x00\x00\x00\x01\x00\x00\x00i"
				       "\x03\x00\x00\x00\x04\x00\x00\x00"
				       "e30=";
	char head[256];

	ck_assert_uint_eq(nest_frame_request_size(&request), sizeof(expected) - 1);
	nest_frame_put_request(head, &request);
	ck_assert_mem_eq(head, expected, sizeof(expected) - 1);
}
END_TEST

static int parse_response(const char *payload, size_t n, bool http,
	struct nest_call_header *headers, struct nest_frame_response *ret, struct nest_err *err)
{
	struct nest_frame frame = {
		.type = NEST_FRAME_RESPONSE, .stream = 1, .length = (uint32_t)n, .payload = payload
	};

	return nest_frame_parse_response(&frame, http, headers, ret, err);
}

/* status 200, one field of 8 + 1 + 2 bytes, body "xy" */
#define HEAD "\xc8\x00\x01\x00\x0b\x00\x00\x00"
#define FIELD "\x06\x00\x01\x00\x02\x00\x00\x00"

START_TEST(a_response_is_read_in_place)
{
	static const char payload[] = HEAD FIELD "abcxy";
	struct nest_call_header headers[NEST_FRAME_HEADERS_MAX];
	struct nest_frame_response response;

	ck_assert_int_eq(
		parse_response(payload, sizeof(payload) - 1, true, headers, &response, NULL), 0);
	ck_assert_uint_eq(response.status, 200);
	ck_assert_uint_eq(response.nheaders, 1);
	ck_assert_mem_eq(headers[0].name, "a", 1);
	ck_assert_mem_eq(headers[0].value, "bc", 2);
	ck_assert_uint_eq(response.body_len, 2);
	ck_assert_mem_eq(response.body, "xy", 2);
}
END_TEST

static void refuse_response(const char *payload, size_t n, bool http, const char *words)
{
	struct nest_call_header headers[NEST_FRAME_HEADERS_MAX];
	struct nest_frame_response response;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(parse_response(payload, n, http, headers, &response, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, words) != NULL, "'%s' lacks '%s'", err.text, words);
}

#define REFUSE(payload, http, words) refuse_response(payload, sizeof(payload) - 1, http, words)

START_TEST(a_bad_response_head_is_named)
{
	REFUSE("\xc8\x00", true, "cut off");
	REFUSE(HEAD FIELD "abcxy", false, "an event with status 200");
	REFUSE("\x63\x00\x00\x00\x00\x00\x00\x00", true, "status 99");
	REFUSE("\x58\x02\x00\x00\x00\x00\x00\x00", true, "status 600");
	REFUSE("\x00\x00\x00\x00\x00\x00\x00\x00", true, "status 0");
	REFUSE("\xc8\x00\x01\x00\x0c\x00\x00\x00" FIELD "abc", true, "cut off");
	REFUSE("\xc8\x00\x01\x00\x0a\x00\x00\x00" FIELD "abc", true, "cut off");
	REFUSE("\xc8\x00\x02\x00\x0b\x00\x00\x00" FIELD "abc", true, "cut off");
	REFUSE("\xc8\x00\x00\x00\x0b\x00\x00\x00" FIELD "abc", true, "longer than its fields");
	REFUSE("\xc8\x00\x01\x01\x0b\x00\x00\x00" FIELD "abc", true, "257 headers");
	REFUSE(HEAD "\x01\x00\x01\x00\x02\x00\x00\x00"
		    "abc",
		true, "tag 1");
	REFUSE(HEAD FIELD "Abc", true, "lower-case token");
	REFUSE(HEAD FIELD " bc", true, "lower-case token");
	REFUSE(HEAD "\x06\x00\x00\x00\x03\x00\x00\x00"
		    "abc",
		true, "lower-case token");
	REFUSE(HEAD FIELD "ab\n", true, "header 'a' holds control characters");
	REFUSE(HEAD FIELD "ab\x7f", true, "control characters");
	REFUSE(HEAD FIELD "ab\0", true, "control characters");
	REFUSE(HEAD "\x06\x00\x01\x00\xff\xff\xff\xff"
		    "abc",
		true, "cut off");
}
END_TEST

START_TEST(a_log_frame_names_its_stream_and_level)
{
	struct nest_frame frame = {
		.type = NEST_FRAME_LOG, .length = 6, .payload = "\x02\x04\x00\x00hi"
	};
	struct nest_frame_log log;

	ck_assert_int_eq(nest_frame_parse_log(&frame, &log, NULL), 0);
	ck_assert_int_eq(log.stream, 2);
	ck_assert_str_eq(log.level, "warn");
	ck_assert_uint_eq(log.len, 2);
	frame.payload = "\x03\x04\x00\x00hi";
	ck_assert_int_eq(nest_frame_parse_log(&frame, &log, NULL), -EPROTO);
	frame.payload = "\x01\x06\x00\x00hi";
	ck_assert_int_eq(nest_frame_parse_log(&frame, &log, NULL), -EPROTO);
	frame.payload = "\x01\x00\x00\x00hi";
	ck_assert_int_eq(nest_frame_parse_log(&frame, &log, NULL), 0);
	ck_assert_ptr_null(log.level);
}
END_TEST

NEST_SUITE("runtime/frame", a_header_comes_back_as_it_was_put,
	what_no_worker_may_send_is_refused_by_its_header, a_request_head_is_laid_out_as_documented,
	an_event_carries_its_client_context_and_no_http, a_response_is_read_in_place,
	a_bad_response_head_is_named, a_log_frame_names_its_stream_and_level)
