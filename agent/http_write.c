/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <utlist.h>

#include "agent/http_conn.h"
#include "base/cleanup.h"

/*
 * Answers on their way out. A whole answer goes to the socket straight from where it lies, in one sendmsg(2); what the socket does
 * not take, streamed pieces, and answers of pipelined requests gather in conn->out.
 */

#define SPARE_OUT_BYTES (64u << 10) /* output storage that is worth keeping for the next */
#define GATHER_BYTES (32u << 10)    /* streamed bytes at which the turn's end is not waited for */

void nest_http_write_later(struct nest_http_exchange *conn)
{
	if (conn->dirty)
		return;
	conn->dirty = true;
	DL_APPEND2(conn->server->dirty, conn, dirty_prev, dirty_next);
}

void nest_http_write_forget(struct nest_http_exchange *conn)
{
	if (!conn->dirty)
		return;
	conn->dirty = false;
	DL_DELETE2(conn->server->dirty, conn, dirty_prev, dirty_next);
}

void nest_http_write_turn(struct nest_http_server *server)
{
	while (server->dirty) {
		struct nest_http_exchange *conn = server->dirty;

		nest_http_write_forget(conn);
		if (!conn->broken && !conn->blocked && nest_http_write_flush(conn) < 0)
			conn->broken = true;
		nest_http_conn_advance(conn);
	}
}

void nest_http_write_release(struct nest_http_exchange *conn)
{
	struct nest_http_server *server = conn->server;

	if (!conn->out.data)
		return;
	nest_buf_clear(&conn->out, SPARE_OUT_BYTES);
	if (!server->out.data && conn->out.data) {
		server->out = conn->out;
		conn->out = (struct nest_buf)NEST_BUF_INIT;
	}
	nest_buf_done(&conn->out);
}

static int keep(struct nest_http_exchange *conn, const void *bytes, size_t n)
{
	struct nest_http_server *server = conn->server;

	if (!conn->out.data && server->out.data) {
		conn->out = server->out;
		server->out = (struct nest_buf)NEST_BUF_INIT;
	}
	return nest_buf_append(&conn->out, bytes, n);
}

/* Bytes that the socket took, 0 when it is full, -errno when it failed. */
static ssize_t socket_write(struct nest_http_exchange *conn, struct iovec *parts, size_t nparts)
{
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = nparts };
	ssize_t n;

	do
		n = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n > 0 && conn->wait == NEST_HTTP_WAIT_WRITE)
		nest_http_wait(conn, NEST_HTTP_WAIT_NOTHING); /* it moves: the time begins anew */
	return n;
}

int nest_http_write_flush(struct nest_http_exchange *conn)
{
	while (conn->out.len > 0) {
		struct iovec part = { nest_buf_bytes(&conn->out), conn->out.len };
		ssize_t n = socket_write(conn, &part, 1);

		if (n < 0)
			return (int)n;
		nest_buf_consume(&conn->out, (size_t)n);
		if ((size_t)n < part.iov_len) {
			conn->blocked = true;
			return 0;
		}
	}
	conn->blocked = false;
	return 0;
}

/* Puts the parts out, at once or (with @gather, or behind others) when the turn ends. 0 or -errno. */
static int emit(struct nest_http_exchange *conn, struct iovec *parts, size_t nparts, bool gather)
{
	bool straight = !gather && !conn->blocked;
	ssize_t taken = 0;

	if (conn->broken)
		return -EPIPE;
	if (straight && conn->out.len > 0) {
		taken = nest_http_write_flush(conn);
		straight = !conn->blocked;
	}
	if (straight && taken == 0)
		taken = socket_write(conn, parts, nparts);
	if (taken < 0) {
		conn->broken = true;
		nest_http_write_later(conn);
		return (int)taken;
	}
	for (size_t i = 0; i < nparts; i++) {
		size_t skip = (size_t)taken < parts[i].iov_len ? (size_t)taken : parts[i].iov_len;

		taken -= (ssize_t)skip;
		if (skip == parts[i].iov_len)
			continue;
		if (keep(conn, (char *)parts[i].iov_base + skip, parts[i].iov_len - skip) < 0) {
			conn->broken = true;
			nest_http_write_later(conn);
			return -ENOMEM;
		}
		conn->blocked |= straight;
	}
	if (gather)
		nest_http_write_later(conn);
	return 0;
}

int nest_http_write_raw(struct nest_http_exchange *conn, const char *bytes, size_t n)
{
	struct iovec part = { (char *)bytes, n };

	return emit(conn, &part, 1, false);
}

static const char *date_now(struct nest_http_server *server)
{
	static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
		"Sep", "Oct", "Nov", "Dec" };
	uint64_t now = uv_now(server->loop);
	struct tm tm = { .tm_mday = 1 };
	time_t wall;

	if (server->date[0] && now - server->date_at_ms < 500)
		return server->date;
	wall = time(NULL);
	gmtime_r(&wall, &tm);
	/* not strftime(): its names depend on the locale */
	snprintf(server->date, sizeof(server->date), "%s, %02u %s %04u %02u:%02u:%02u GMT",
		days[tm.tm_wday % 7], (unsigned)tm.tm_mday % 100u, months[tm.tm_mon % 12],
		(unsigned)(tm.tm_year + 1900) % 10000u, (unsigned)tm.tm_hour % 100u,
		(unsigned)tm.tm_min % 100u, (unsigned)tm.tm_sec % 100u);
	server->date_at_ms = now;
	return server->date;
}

static bool named(const struct nest_http_header *header, const char *name, size_t n)
{
	return header->name_len == n && memcmp(header->name, name, n) == 0;
}

#define NAMED(header, literal) named((header), (literal), sizeof(literal) - 1)

bool nest_http_header_ok(const struct nest_http_header *header)
{
	static const char separators[] = "\"(),/:;<=>?@[\\]{}";

	if (header->name_len == 0 || NAMED(header, "content-length") ||
		NAMED(header, "transfer-encoding") || NAMED(header, "connection"))
		return false;
	for (uint32_t i = 0; i < header->name_len; i++) {
		unsigned char c = (unsigned char)header->name[i];

		if (c <= 0x20 || c >= 0x7f || memchr(separators, c, sizeof(separators) - 1))
			return false;
	}
	for (uint32_t i = 0; i < header->value_len; i++) {
		unsigned char c = (unsigned char)header->value[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static char *put(char *at, const char *bytes, size_t n)
{
	memcpy(at, bytes, n);
	return at + n;
}

static char *put_number(char *at, uint64_t number)
{
	char digits[20];
	size_t n = sizeof(digits);

	do
		digits[--n] = (char)('0' + number % 10);
	while (number /= 10);
	return put(at, digits + n, sizeof(digits) - n);
}

#define PUT(at, literal) put((at), (literal), sizeof(literal) - 1)

static char *put_headers(char *at, const struct nest_http_header *headers, size_t n, bool *ret_date)
{
	*ret_date = false;
	for (size_t i = 0; i < n; i++) {
		at = put(at, headers[i].name, headers[i].name_len);
		at = PUT(at, ": ");
		at = put(at, headers[i].value, headers[i].value_len);
		at = PUT(at, "\r\n");
		*ret_date |= NAMED(&headers[i], "date");
	}
	return at;
}

/* Room for status line, the headers of ours, and @headers; 0 when one of them is not fit to be sent. */
static size_t head_room(const struct nest_http_header *headers, size_t n)
{
	size_t room = 256;

	for (size_t i = 0; i < n; i++) {
		if (!nest_http_header_ok(&headers[i]))
			return 0;
		room += headers[i].name_len + headers[i].value_len + 4;
	}
	return room;
}

/*
 * Makes the head in server->head. @length < 0: no content-length. 0, -EINVAL or -ENOMEM.
 */
static int head_make(struct nest_http_exchange *conn, unsigned status,
	const struct nest_http_header *headers, size_t nheaders, int64_t length)
{
	struct nest_http_server *server = conn->server;
	struct nest_buf *head = &server->head;
	size_t room = head_room(headers, nheaders);
	const char *reason = nest_http_reason(status);
	const char *date = date_now(server);
	char *start, *at;
	bool dated;

	if (room == 0 || status < 200 || status > 599)
		return -EINVAL;
	nest_buf_clear(head, NEST_HTTP_BLOCK_BYTES);
	if (nest_buf_reserve(head, room, &start) < 0)
		return -ENOMEM;
	at = put_number(PUT(start, "HTTP/1.1 "), status);
	at = put(PUT(at, " "), reason, strlen(reason));
	at = PUT(at, "\r\n");
	at = put_headers(at, headers, nheaders, &dated);
	if (!dated) {
		at = PUT(at, "date: ");
		at = put(at, date, strlen(date));
		at = PUT(at, "\r\n");
	}
	if (length >= 0)
		at = PUT(put_number(PUT(at, "content-length: "), (uint64_t)length), "\r\n");
	else if (conn->chunked_out)
		at = PUT(at, "transfer-encoding: chunked\r\n");
	if (!conn->keepalive)
		at = PUT(at, "connection: close\r\n");
	else if (conn->old_client)
		at = PUT(at, "connection: keep-alive\r\n");
	at = PUT(at, "\r\n");
	nest_buf_commit(head, (size_t)(at - start));
	return 0;
}

/* What status and method say about the body, and whether the connection can serve another request. */
static void frame_answer(struct nest_http_exchange *conn, unsigned status, bool whole)
{
	bool rest = conn->phase == NEST_HTTP_BODY &&
		    (conn->chunked_in || conn->expects || conn->body_left > NEST_HTTP_SKIP_BYTES);

	conn->no_body_out =
		status == 204 || status == 304 || strcmp(conn->request.method, "HEAD") == 0;
	conn->chunked_out = false;
	/* a whole answer before the body has come: what still comes would have to be read in vain */
	if (conn->server->draining || (whole && rest))
		conn->keepalive = false;
}

/* The owner has said all: on to what was waiting for that, but never from inside the owner's call. */
static void answered(struct nest_http_exchange *conn)
{
	conn->answer = NEST_HTTP_ANSWER_OVER;
	if (conn->pumping)
		return;
	if (conn->broken || conn->pos < conn->len)
		nest_http_write_later(conn);
	else
		nest_http_conn_advance(conn);
}

int nest_http_respond(struct nest_http_exchange *conn, unsigned status,
	const struct nest_http_header *headers, size_t nheaders, const void *body, size_t n)
{
	struct iovec parts[2];
	bool has_length;
	int r;

	if (conn->closing || conn->answer != NEST_HTTP_ANSWER_NONE)
		return -EPIPE;
	frame_answer(conn, status, true);
	has_length = status != 204 && status != 304;
	r = head_make(conn, status, headers, nheaders, has_length ? (int64_t)n : -1);
	if (r < 0)
		return r;
	parts[0] = (struct iovec){ nest_buf_bytes(&conn->server->head), conn->server->head.len };
	parts[1] = (struct iovec){ (void *)body, conn->no_body_out ? 0 : n };
	/* more of a pipeline is already here: its answers leave together */
	emit(conn, parts, parts[1].iov_len > 0 ? 2 : 1, conn->pumping && conn->pos < conn->len);
	answered(conn);
	return 0;
}

int nest_http_respond_head(struct nest_http_exchange *conn, unsigned status,
	const struct nest_http_header *headers, size_t nheaders, int64_t content_length)
{
	struct iovec part;
	int r;

	if (conn->closing || conn->answer != NEST_HTTP_ANSWER_NONE)
		return -EPIPE;
	frame_answer(conn, status, false);
	if (status == 204)
		content_length = -1;
	if (content_length < 0 && !conn->no_body_out) {
		conn->chunked_out = !conn->old_client;
		if (conn->old_client)
			conn->keepalive =
				false; /* the end of the connection is the end of the body */
	}
	r = head_make(conn, status, headers, nheaders, content_length);
	if (r < 0)
		return r;
	conn->length_left = conn->no_body_out ? -1 : content_length;
	conn->answer = NEST_HTTP_ANSWER_STREAM;
	part = (struct iovec){ nest_buf_bytes(&conn->server->head), conn->server->head.len };
	return emit(conn, &part, 1, true);
}

int nest_http_send(struct nest_http_exchange *conn, const void *bytes, size_t n)
{
	char size[24];
	struct iovec parts[3];
	size_t first = 1, last = 2;
	int r;

	if (conn->closing || conn->answer != NEST_HTTP_ANSWER_STREAM)
		return -EPIPE;
	if (conn->length_left >= 0 && n > (uint64_t)conn->length_left)
		return -EMSGSIZE;
	if (conn->no_body_out || n == 0)
		return 0;
	if (conn->length_left >= 0)
		conn->length_left -= (int64_t)n;
	if (conn->chunked_out) {
		first = 0;
		last = 3;
		parts[0] =
			(struct iovec){ size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", n) };
		parts[2] = (struct iovec){ (void *)"\r\n", 2 };
	}
	parts[1] = (struct iovec){ (void *)bytes, n };
	r = emit(conn, parts + first, last - first, conn->out.len + n < GATHER_BYTES);
	if (r < 0)
		return r;
	/* the poll handle has to learn that the socket is full */
	if (conn->blocked)
		nest_http_write_later(conn);
	conn->tell_writable = conn->out.len > NEST_HTTP_HIGH_BYTES;
	return conn->tell_writable ? 1 : 0;
}

void nest_http_send_end(struct nest_http_exchange *conn)
{
	struct iovec end = { (void *)"0\r\n\r\n", 5 };

	if (conn->closing || conn->answer != NEST_HTTP_ANSWER_STREAM)
		return;
	if (conn->length_left > 0) {
		nest_http_abort(conn);
		return;
	}
	conn->tell_writable = false;
	if (conn->chunked_out)
		emit(conn, &end, 1, conn->pumping && conn->pos < conn->len);
	answered(conn);
}

static const struct {
	uint16_t status;
	const char *reason;
} reasons[] = {
	{ 100, "Continue" },
	{ 101, "Switching Protocols" },
	{ 200, "OK" },
	{ 201, "Created" },
	{ 202, "Accepted" },
	{ 203, "Non-Authoritative Information" },
	{ 204, "No Content" },
	{ 205, "Reset Content" },
	{ 206, "Partial Content" },
	{ 300, "Multiple Choices" },
	{ 301, "Moved Permanently" },
	{ 302, "Found" },
	{ 303, "See Other" },
	{ 304, "Not Modified" },
	{ 307, "Temporary Redirect" },
	{ 308, "Permanent Redirect" },
	{ 400, "Bad Request" },
	{ 401, "Unauthorized" },
	{ 402, "Payment Required" },
	{ 403, "Forbidden" },
	{ 404, "Not Found" },
	{ 405, "Method Not Allowed" },
	{ 406, "Not Acceptable" },
	{ 407, "Proxy Authentication Required" },
	{ 408, "Request Timeout" },
	{ 409, "Conflict" },
	{ 410, "Gone" },
	{ 411, "Length Required" },
	{ 412, "Precondition Failed" },
	{ 413, "Content Too Large" },
	{ 414, "URI Too Long" },
	{ 415, "Unsupported Media Type" },
	{ 416, "Range Not Satisfiable" },
	{ 417, "Expectation Failed" },
	{ 418, "I'm a teapot" },
	{ 421, "Misdirected Request" },
	{ 422, "Unprocessable Content" },
	{ 423, "Locked" },
	{ 424, "Failed Dependency" },
	{ 425, "Too Early" },
	{ 426, "Upgrade Required" },
	{ 428, "Precondition Required" },
	{ 429, "Too Many Requests" },
	{ 431, "Request Header Fields Too Large" },
	{ 451, "Unavailable For Legal Reasons" },
	{ 500, "Internal Server Error" },
	{ 501, "Not Implemented" },
	{ 502, "Bad Gateway" },
	{ 503, "Service Unavailable" },
	{ 504, "Gateway Timeout" },
	{ 505, "HTTP Version Not Supported" },
	{ 507, "Insufficient Storage" },
	{ 511, "Network Authentication Required" },
};

const char *nest_http_reason(unsigned status)
{
	if (status == 200)
		return "OK";
	for (size_t i = 0; i < NEST_ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}
