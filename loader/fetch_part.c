/* SPDX-License-Identifier: Apache-2.0 */
/* One request of a download: asking, checking what the answer is, storing its body, judging its end. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/curl.h"
#include "loader/credentials.h"
#include "loader/fetch_impl.h"

/* libcurl gives us so much at once, and reads that often before it lets go of the loop. */
#define RECEIVE_BYTES (64 * 1024L)
/*
 * libcurl hands over 16 KB at a time. Written one by one, they cost three times as much as in pieces
 * for which the file system can take large folios.
 */
#define HELD_BYTES (512u * 1024)
/* A connection is given up when it brings less than this in a second, for stall_ms. */
#define STALL_BYTES 1024L
#define REFUSED_BODY_MAX (64u * 1024)

/* ---- the answer ---- */

static int refuse_length(struct nest_fetch_part *part, uint64_t length)
{
	return nest_err_say(&part->err, -EKEYREJECTED,
		"its content is not what was asked for: it is %" PRIu64 " bytes long, not %" PRIu64,
		length, part->fetch->size);
}

/* A length that the server tells: is it what the reference says, and within the limit? */
static int check_length(struct nest_fetch_part *part, uint64_t length)
{
	uint64_t max = part->fetch->fetcher->config.max_bytes;

	if (length == NEST_FETCH_UNKNOWN)
		return 0;
	if (part->fetch->size > 0 && length != part->fetch->size)
		return refuse_length(part, length);
	if (length > max)
		return nest_err_say(&part->err, -EFBIG,
			"the file is %" PRIu64 " bytes long, and %" PRIu64 " are allowed", length,
			max);
	return 0;
}

/* A 206: is it the range that was asked for, of the file that was? */
static int accept_range(struct nest_fetch_part *part)
{
	const struct nest_fetch_head *head = &part->head;

	if (!head->has_range || head->total == NEST_FETCH_UNKNOWN)
		return nest_err_say(&part->err, -EPROTO,
			"the server sent a part of the file (206) without a Content-Range that "
			"says which, and of how many bytes");
	if (head->last >= head->total || head->first != part->at ||
		(part->end != NEST_FETCH_UNKNOWN && head->last >= part->end))
		return nest_err_say(&part->err, -EPROTO,
			"the server sent bytes %" PRIu64 "-%" PRIu64 " of %" PRIu64
			" when it was asked for %" PRIu64 "-",
			head->first, head->last, head->total, part->at);
	if (head->length != NEST_FETCH_UNKNOWN && head->length != head->last - head->first + 1)
		return nest_err_say(&part->err, -EPROTO,
			"the server's Content-Length (%" PRIu64
			") is not that of the range %" PRIu64 "-%" PRIu64 " it sends",
			head->length, head->first, head->last);
	return check_length(part, head->total);
}

/* A 200: the whole file, which is right only where there is one stream. */
static int accept_whole(struct nest_fetch_part *part)
{
	const struct nest_fetch *fetch = part->fetch;
	struct nest_fetch_head *head = &part->head;

	head->total = head->length;
	if (fetch->settled && fetch->ranges) {
		int rc = nest_fetch_head_compare(&fetch->first, head, &part->err);

		if (rc < 0)
			return rc;
		return nest_err_say(&part->err, -EPROTO,
			"the server, which has sent ranges before, answered a request for bytes "
			"%" PRIu64 "- with the whole file",
			part->at);
	}
	part->skip = part->at;
	return check_length(part, head->length);
}

/* The first answer is the whole file: whichever part it came to goes on alone. */
static void take_all(struct nest_fetch_part *part)
{
	struct nest_fetch *fetch = part->fetch;

	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++) {
		struct nest_fetch_part *other = &fetch->parts[i];

		if (other == part)
			continue;
		if (other->state == NEST_FETCH_PART_RUNNING)
			other->dropped = true; /* stopped when libcurl isn't at work */
		else
			other->state = NEST_FETCH_PART_IDLE;
	}
	part->at = part->began_at = part->skip = 0;
}

/* Learns from the first answer; holds the others against it. */
static int settle(struct nest_fetch_part *part, bool ranges)
{
	struct nest_fetch *fetch = part->fetch;
	struct nest_fetch_head *head = &part->head;
	curl_off_t sent_us = 0;

	if (fetch->settled) {
		int rc = nest_fetch_head_compare(&fetch->first, head, &part->err);

		return rc;
	}
	curl_easy_getinfo(part->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
	fetch->round_trip_us = (double)(nest_clock_mono_us() - part->started_us) - (double)sent_us;
	fetch->settled = true;
	fetch->ranges = ranges;
	fetch->first = *head;
	if (!ranges)
		take_all(part);
	if (!ranges || part->end > head->total)
		part->end = head->total;
	if (!ranges || fetch->frontier == NEST_FETCH_UNKNOWN)
		fetch->frontier = part->end;
	nest_fetch_publish(fetch);
	return 0;
}

static int on_head(struct nest_fetch_part *part)
{
	long status = 0;
	int rc;

	if (part->dropped)
		return -ECANCELED;
	curl_easy_getinfo(part->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200)
		return 0;
	if (status != 200 && status != 206)
		return 0; /* judged when it has ended */
	rc = status == 206 ? accept_range(part) : accept_whole(part);
	if (rc == 0)
		rc = settle(part, status == 206);
	part->answered = rc == 0;
	return rc;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct nest_fetch_part *part = arg;
	size_t len = n;

	(void)size;
	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
		len--;
	if (part->answered)
		return n; /* a trailer */
	if (len >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
		part->head = (struct nest_fetch_head){ .total = NEST_FETCH_UNKNOWN,
			.length = NEST_FETCH_UNKNOWN };
		return n;
	}
	if (len > 0) {
		nest_fetch_head_take(&part->head, line, len);
		return n;
	}
	return on_head(part) < 0 ? 0 : n;
}

/* ---- the body ---- */

int nest_fetch_part_flush(struct nest_fetch_part *part)
{
	struct nest_fetch *fetch = part->fetch;
	int rc;

	if (part->n_held == 0)
		return 0;
	rc = nest_fd_pwrite_all(fetch->fd, part->held, part->n_held, part->at, NULL);
	if ((rc == -ENOSPC || rc == -EDQUOT) && fetch->events.make_room(fetch->arg))
		rc = nest_fd_pwrite_all(fetch->fd, part->held, part->n_held, part->at, NULL);
	if (rc == -ENOSPC || rc == -EDQUOT)
		rc = -ENOSPC;
	if (rc < 0)
		return nest_err_set(&part->err, rc, "write the file to the code cache");
	part->at += part->n_held;
	part->n_held = 0;
	nest_fetch_publish(fetch);
	return 0;
}

static int store(struct nest_fetch_part *part, const char *bytes, size_t n)
{
	uint64_t at = part->at + part->n_held;
	uint64_t max = part->fetch->fetcher->config.max_bytes;
	uint64_t size = part->fetch->size;

	if (part->end == NEST_FETCH_UNKNOWN && size > 0 && n > size - at)
		return refuse_length(part, at + n);
	if (n > part->end - at)
		return nest_err_say(&part->err, -EPROTO,
			"the server sent more than the bytes up to %" PRIu64 " that it promised",
			part->end);
	if (at > max || n > max - at)
		return nest_err_say(&part->err, -EFBIG,
			"the file is longer than the %" PRIu64 " bytes that are allowed", max);
	while (n > 0) {
		size_t fits = HELD_BYTES - part->n_held < n ? HELD_BYTES - part->n_held : n;
		int rc;

		memcpy(part->held + part->n_held, bytes, fits);
		part->n_held += fits;
		bytes += fits;
		n -= fits;
		rc = part->n_held == HELD_BYTES ? nest_fetch_part_flush(part) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct nest_fetch_part *part = arg;
	size_t left = n;

	(void)size;
	part->fetch->totals.bytes += n;
	if (part->dropped)
		return 0;
	if (!part->answered) {
		/* An error's page: a short one is read to its end to keep the connection. */
		part->skip += n;
		return part->skip > REFUSED_BODY_MAX ? 0 : n;
	}
	if (part->skip > 0) {
		size_t skipped = part->skip < left ? (size_t)part->skip : left;

		part->skip -= skipped;
		bytes += skipped;
		left -= skipped;
	}
	return left > 0 && store(part, bytes, left) < 0 ? 0 : n;
}

/* ---- asking ---- */

static int on_connect(void *arg, curl_socket_t socket, curlsocktype purpose)
{
	struct nest_fetch_part *part = arg;

	(void)socket;
	(void)purpose;
	if (part->reached_us == 0)
		part->reached_us = nest_clock_mono_us();
	return CURL_SOCKOPT_OK;
}

/* A handshake takes a while even with a server next door: that begins to count behind it. */
static int on_request(void *arg, char *to, char *from, int to_port, int from_port)
{
	struct nest_fetch_part *part = arg;

	(void)to;
	(void)from;
	(void)to_port;
	(void)from_port;
	if (part->reached_us == 0 || part->fetch->server.kind == NEST_REFERENCE_HTTPS)
		part->reached_us = nest_clock_mono_us();
	part->asked = true;
	return CURL_PREREQFUNC_OK;
}

uint64_t nest_fetch_part_reached_us(const struct nest_fetch_part *part)
{
	curl_off_t connected_us = 0;

	if (part->state != NEST_FETCH_PART_RUNNING)
		return 0;
	if (part->fetch->server.kind == NEST_REFERENCE_HTTPS && !part->asked)
		curl_easy_getinfo(part->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	return connected_us > 0 ? 0 : part->reached_us;
}

static int add_header(struct nest_fetch_part *part, const char *name, const char *value)
{
	struct curl_slist *more;
	char line[8192];

	if ((size_t)snprintf(line, sizeof(line), "%s: %s", name, value) >= sizeof(line))
		return nest_err_say(&part->err, -EINVAL, "the value of %s is too long", name);
	more = curl_slist_append(part->headers, line);
	explicit_bzero(line, sizeof(line));
	if (!more)
		return nest_err_set(&part->err, -ENOMEM, "ask the server");
	part->headers = more;
	return 0;
}

/* Nothing secret goes over an open wire; over loopback there is none. */
static int add_credentials(struct nest_fetch_part *part)
{
	const struct nest_fetch *fetch = part->fetch;
	const char *path = fetch->fetcher->config.credentials_file;
	struct nest_credentials credentials = { .token = NULL };
	char value[8000];
	int rc;

	if (!*path || (fetch->server.kind != NEST_REFERENCE_HTTPS &&
			      !nest_reference_is_loopback(&fetch->server)))
		return 0;
	rc = nest_credentials_find(
		path, fetch->server.host, fetch->server.port, &credentials, &part->err);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	if (credentials.token) {
		snprintf(value, sizeof(value), "Bearer %s", credentials.token);
		rc = add_header(part, "Authorization", value);
		explicit_bzero(value, sizeof(value));
	} else {
		curl_easy_setopt(part->easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(part->easy, CURLOPT_USERNAME, credentials.login);
		curl_easy_setopt(part->easy, CURLOPT_PASSWORD, credentials.password);
	}
	nest_credentials_done(&credentials);
	return rc;
}

/* A server without ranges is asked for the whole file again. */
static int add_range(struct nest_fetch_part *part)
{
	const struct nest_fetch *fetch = part->fetch;
	const char *validator = nest_fetch_head_validator(&fetch->first);
	char range[64];

	if (fetch->settled && !fetch->ranges)
		return 0;
	if (part->end == NEST_FETCH_UNKNOWN)
		snprintf(range, sizeof(range), "%" PRIu64 "-", part->at);
	else
		snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, part->at, part->end - 1);
	curl_easy_setopt(part->easy, CURLOPT_RANGE, range);
	return fetch->settled && validator ? add_header(part, "If-Range", validator) : 0;
}

static void set_limits(CURL *easy, const struct nest_fetcher_config *config)
{
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)config->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(config->stall_ms + 999) / 1000);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
	if (*config->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
}

static int set_up(struct nest_fetch_part *part)
{
	CURL *easy = part->easy;
	int rc;

	set_limits(easy, &part->fetch->fetcher->config);
	curl_easy_setopt(easy, CURLOPT_URL, part->fetch->url);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "nestlet");
	curl_easy_setopt(easy, CURLOPT_PRIVATE, part);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, part->curl_text);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, part);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, part);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_connect);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, part);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, part);
	rc = add_credentials(part);
	if (rc == 0)
		rc = add_range(part);
	if (rc == 0)
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, part->headers);
	return rc;
}

int nest_fetch_part_start(struct nest_fetch_part *part)
{
	int rc;

	part->held = malloc(HELD_BYTES);
	part->easy = part->held ? curl_easy_init() : NULL;
	part->err = (struct nest_err)NEST_ERR_INIT;
	part->curl_text[0] = '\0';
	part->answered = false;
	part->skip = 0;
	part->began_at = part->at;
	part->hop = part->fetch->redirects;
	part->started_us = nest_clock_mono_us();
	part->reached_us = 0;
	part->asked = false;
	part->head = (struct nest_fetch_head){ .total = NEST_FETCH_UNKNOWN,
		.length = NEST_FETCH_UNKNOWN };
	rc = part->easy ? set_up(part) : nest_err_set(&part->err, -ENOMEM, "ask the server");
	if (rc == 0 && nest_curl_add(part->fetch->fetcher->curl, part->easy) < 0)
		rc = nest_err_set(&part->err, -ENOMEM, "ask the server");
	part->state = NEST_FETCH_PART_RUNNING;
	if (rc < 0)
		nest_fetch_part_stop(part);
	return rc;
}

void nest_fetch_part_stop(struct nest_fetch_part *part)
{
	if (part->easy) {
		nest_curl_remove(part->fetch->fetcher->curl, part->easy);
		curl_easy_cleanup(part->easy);
	}
	curl_slist_free_all(part->headers);
	free(part->held);
	part->dropped = false;
	part->easy = NULL;
	part->headers = NULL;
	part->held = NULL;
	part->n_held = 0;
	part->state = NEST_FETCH_PART_IDLE;
}

/* ---- judging ---- */

static const char *words(const struct nest_fetch_part *part, CURLcode code)
{
	return part->curl_text[0] ? part->curl_text : curl_easy_strerror(code);
}

/* What may pass is tried again; all else is the server's, or the operator's, to put right. */
static int judge_code(struct nest_fetch_part *part, CURLcode code)
{
	static const struct {
		CURLcode code;
		int result; /* 1: may pass */
		int error;
	} table[] = {
		{ CURLE_COULDNT_RESOLVE_HOST, 1, -EHOSTUNREACH },
		{ CURLE_COULDNT_RESOLVE_PROXY, 1, -EHOSTUNREACH },
		{ CURLE_COULDNT_CONNECT, 1, -ECONNREFUSED },
		{ CURLE_OPERATION_TIMEDOUT, 1, -ETIMEDOUT },
		{ CURLE_SEND_ERROR, 1, -ECONNRESET },
		{ CURLE_RECV_ERROR, 1, -ECONNRESET },
		{ CURLE_GOT_NOTHING, 1, -ECONNRESET },
		{ CURLE_PARTIAL_FILE, 1, -ECONNRESET },
		{ CURLE_OUT_OF_MEMORY, -1, -ENOMEM },
		{ CURLE_SSL_CACERT_BADFILE, -1, -EINVAL },
		{ CURLE_PEER_FAILED_VERIFICATION, -1, -ECONNABORTED },
		{ CURLE_SSL_CONNECT_ERROR, -1, -ECONNABORTED },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(table); i++) {
		if (table[i].code != code)
			continue;
		nest_err_say(&part->err, table[i].error, "%s", words(part, code));
		return table[i].result > 0 ? 1 : table[i].error;
	}
	return nest_err_say(&part->err, -EPROTO, "%s", words(part, code));
}

static int judge_status(struct nest_fetch_part *part, long status, uint64_t *ret_wait_ms)
{
	static const long passing[] = { 408, 425, 429, 500, 502, 503, 504 };
	bool secret = part->fetch->fetcher->config.credentials_file[0];
	curl_off_t after = 0;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(passing); i++) {
		if (status != passing[i])
			continue;
		curl_easy_getinfo(part->easy, CURLINFO_RETRY_AFTER, &after);
		*ret_wait_ms = after > 0 ? (uint64_t)after * 1000 : 0;
		nest_err_say(&part->err, -EREMOTEIO, "the server answered %ld", status);
		return 1;
	}
	if (status == 416 && part->fetch->settled &&
		nest_fetch_head_compare(&part->fetch->first, &part->head, &part->err) < 0)
		return part->err.code;
	if (status == 416 && check_length(part, part->head.total) < 0)
		return part->err.code;
	if (status == 401 || status == 403)
		return nest_err_say(&part->err, -EACCES, "the server answered %ld: %s", status,
			secret ? "it wants other credentials than loader.credentialsFile has "
				 "for it, if any"
			       : "it may want credentials, which loader.credentialsFile would "
				 "name");
	if (status == 404 || status == 410)
		return nest_err_say(&part->err, -ENOENT,
			"the server answered %ld: there is no such file", status);
	return nest_err_say(&part->err, -EREMOTEIO, "the server answered %ld", status);
}

/* An empty file has no first byte to send. */
static bool is_empty_file(const struct nest_fetch_part *part, long status)
{
	return status == 416 && !part->fetch->settled && part->fetch->size == 0 &&
	       !part->head.has_range && part->head.total == 0;
}

static int judge_end(struct nest_fetch_part *part)
{
	struct nest_fetch *fetch = part->fetch;

	/* Of a stream whose length nobody told, the end is where it ended. */
	if (part->end == NEST_FETCH_UNKNOWN) {
		if (fetch->size > 0 && part->at != fetch->size)
			return refuse_length(part, part->at);
		fetch->first.total = fetch->frontier = part->end = part->at;
		nest_fetch_publish(fetch);
	}
	if (part->at == part->end)
		return 0;
	nest_err_say(&part->err, -ECONNRESET,
		"the server ended its answer at byte %" PRIu64 " of %" PRIu64, part->at, part->end);
	return 1;
}

int nest_fetch_part_judge(
	struct nest_fetch_part *part, CURLcode code, uint64_t *ret_wait_ms, const char **ret_url)
{
	long status = 0;

	*ret_wait_ms = 0;
	if (part->err.code < 0)
		return part->err.code;
	curl_easy_getinfo(part->easy, CURLINFO_RESPONSE_CODE, &status);
	if (part->answered)
		return code == CURLE_OK ? judge_end(part) : judge_code(part, code);
	if (status >= 300 && status != 0) {
		*ret_url = NULL;
		if (status < 400)
			curl_easy_getinfo(part->easy, CURLINFO_REDIRECT_URL, ret_url);
		if (*ret_url)
			return 2;
		if (is_empty_file(part, status)) {
			part->fetch->settled = true;
			part->fetch->first = part->head;
			part->fetch->frontier = part->end = part->at = 0;
			nest_fetch_publish(part->fetch);
			return 0;
		}
		return judge_status(part, status, ret_wait_ms);
	}
	if (code != CURLE_OK)
		return judge_code(part, code);
	return nest_err_say(&part->err, -EPROTO,
		"the server answered %ld, which is neither the file nor a part of it", status);
}
