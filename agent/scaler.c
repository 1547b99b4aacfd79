/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "agent/scaler.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>
#include <zstd.h>

#include "agent/desired.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/curl.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"

#define ATTEMPTS_MAX 4u /* at once: the oldest then gives way */
#define TOKEN_MAX 16384
#define RETRY_AFTER_MAX_MS 60000u
#define COMPRESSION_LEVEL 1

/* One report on its way. */
struct attempt {
	struct nest_scaler *scaler;
	CURL *easy;
	struct curl_slist *headers;
	struct nest_buf body;
	struct nest_buf reply;
	bool compressed;
	bool too_long;
	char curl_text[CURL_ERROR_SIZE];
	struct attempt *prev, *next; /* oldest first */
};

struct nest_scaler {
	uv_loop_t *loop;
	struct nest_scaler_config config; /* the strings are ours */
	struct nest_scaler_env env;
	struct nest_curl *curl;
	uv_timer_t timer;
	ZSTD_CCtx *zstd;
	struct attempt *attempts;
	uint64_t sequence;
	bool plain; /* the scaler has refused compressed reports */
	bool draining;
	bool looking; /* before a report */
	struct nest_scaler_status status;
	char why[400];
	bool closing;
	unsigned parts; /* the timer, the client, and a look that is under way */
	void (*close_cb)(void *arg);
	void *close_arg;
};

static void on_tick(uv_timer_t *timer);

/* ---- the end ---- */

static void scaler_free(struct nest_scaler *scaler)
{
	ZSTD_freeCCtx(scaler->zstd);
	free((char *)scaler->config.url);
	free((char *)scaler->config.token_file);
	free((char *)scaler->config.ca_file);
	free(scaler);
}

static void part_closed(void *arg)
{
	struct nest_scaler *scaler = arg;
	void (*cb)(void *) = scaler->close_cb;
	void *cb_arg = scaler->close_arg;

	if (--scaler->parts > 0)
		return;
	scaler_free(scaler);
	if (cb)
		cb(cb_arg);
}

/* ---- what came of a report ---- */

static uint64_t backoff_max_ms(const struct nest_scaler *scaler)
{
	return scaler->config.backoff_max_ms > 0 ? scaler->config.backoff_max_ms
						 : scaler->config.interval_ms * UINT64_C(2);
}

/*
 * Half of a pause is by chance, so that hosts that failed together don't come back together. By
 * default it never exceeds two intervals: that is how soon a scaler that is back hears from all.
 */
static uint64_t pause_ms(const struct nest_scaler *scaler)
{
	uint32_t doublings = scaler->status.failures < 20 ? scaler->status.failures : 20;
	uint64_t pause = (uint64_t)scaler->config.interval_ms << doublings;

	if (scaler->status.failures == 0)
		return scaler->config.interval_ms;
	if (pause > backoff_max_ms(scaler))
		pause = backoff_max_ms(scaler);
	return pause - arc4random_uniform((uint32_t)(pause / 2 + 1));
}

static void report_failed(struct nest_scaler *scaler, const struct nest_err *why)
{
	bool news = scaler->status.failures == 0;

	scaler->status.failures++;
	scaler->status.failures_total++;
	snprintf(scaler->why, sizeof(scaler->why), "%s", nest_err_text(why));
	nest_log(news ? NEST_LOG_WARN : NEST_LOG_DEBUG, "scaler",
		"report to '%s': %s; what it said last stays in force", scaler->config.url,
		scaler->why);
}

static void report_succeeded(struct nest_scaler *scaler)
{
	if (scaler->status.failures > 0)
		nest_log(NEST_LOG_INFO, "scaler", "'%s' answers again, after %u failed reports",
			scaler->config.url, scaler->status.failures);
	scaler->status.contact_ms = nest_clock_wall_ms();
	if (scaler->status.failures == 0)
		return;
	scaler->status.failures = 0;
	if (uv_timer_get_due_in(&scaler->timer) > scaler->config.interval_ms)
		uv_timer_start(&scaler->timer, on_tick, scaler->config.interval_ms, 0);
}

static void on_taken(
	void *arg, enum nest_desired_result result, bool drain, const struct nest_err *err)
{
	struct nest_scaler *scaler = arg;

	if (err) {
		report_failed(scaler, err);
		return;
	}
	if (result == NEST_DESIRED_OLD) {
		if (scaler->status.old_total++ == 0)
			nest_log(NEST_LOG_WARN, "scaler",
				"'%s' sends an older generation than %" PRIu64
				", which stays in force",
				scaler->config.url, nest_desired_generation(scaler->env.desired));
	} else if (result == NEST_DESIRED_APPLIED) {
		nest_log(NEST_LOG_INFO, "scaler", "generation %" PRIu64 " is in force",
			nest_desired_generation(scaler->env.desired));
	}
	report_succeeded(scaler);
	if (drain && !scaler->draining) {
		nest_log(NEST_LOG_INFO, "scaler", "the scaler wants this host to drain");
		scaler->env.drain(scaler->env.daemon);
	}
}

static void take_reply(struct nest_scaler *scaler, struct attempt *attempt)
{
	size_t n = attempt->reply.len;
	struct nest_err err = NEST_ERR_INIT;
	char *bytes;
	int rc;

	if (scaler->draining) {
		report_succeeded(scaler);
		return;
	}
	bytes = nest_buf_take_string(&attempt->reply);
	rc = bytes ? nest_desired_take(scaler->env.desired, bytes, n, on_taken, scaler, &err)
		   : nest_err_set(&err, -ENOMEM, "take the reply");
	/* while one is being taken the next report will bring this one again, if it is news */
	if (rc < 0 && rc != -EBUSY)
		report_failed(scaler, &err);
}

/* ---- one attempt ---- */

static void attempt_free(struct attempt *attempt)
{
	DL_DELETE(attempt->scaler->attempts, attempt);
	if (attempt->easy) {
		nest_curl_remove(attempt->scaler->curl, attempt->easy);
		curl_easy_cleanup(attempt->easy);
	}
	curl_slist_free_all(attempt->headers);
	nest_buf_done(&attempt->body);
	nest_buf_done(&attempt->reply);
	free(attempt);
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;

	n *= size;
	if (attempt->reply.len + n > attempt->scaler->config.reply_bytes) {
		attempt->too_long = true;
		return 0;
	}
	return nest_buf_append(&attempt->reply, bytes, n) < 0 ? 0 : n;
}

/* Why the transfer failed, or what is wrong with the status. 0: neither. */
static int judge(struct attempt *attempt, CURLcode code, long status, struct nest_err *err)
{
	if (attempt->too_long || code == CURLE_FILESIZE_EXCEEDED)
		return nest_err_say(err, -EFBIG,
			"the reply has more than %" PRIu64
			" bytes: raise scaler.replyBytes, if that is what it should be",
			attempt->scaler->config.reply_bytes);
	if (code != CURLE_OK)
		return nest_err_say(err, -EIO, "%s",
			*attempt->curl_text ? attempt->curl_text : curl_easy_strerror(code));
	if (status == 401 || status == 403)
		return nest_err_say(err, -EACCES,
			"the scaler answered %ld: it doesn't take the token of scaler.tokenFile",
			status);
	if (status != 200 && status != 204)
		return nest_err_say(err, -EPROTO, "the scaler answered %ld", status);
	return 0;
}

static void wait_as_told(struct nest_scaler *scaler, CURL *easy)
{
	curl_off_t seconds = 0;
	uint64_t ms;

	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
	if (seconds <= 0)
		return;
	ms = (uint64_t)seconds < RETRY_AFTER_MAX_MS / 1000 ? (uint64_t)seconds * 1000
							   : RETRY_AFTER_MAX_MS;
	if (ms > uv_timer_get_due_in(&scaler->timer))
		uv_timer_start(&scaler->timer, on_tick, ms, 0);
}

static void on_done(void *arg, CURL *easy, CURLcode code)
{
	struct nest_scaler *scaler = arg;
	struct attempt *attempt = NULL;
	struct nest_err err = NEST_ERR_INIT;
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &attempt);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK && status == 415 && attempt->compressed) {
		nest_log(NEST_LOG_WARN, "scaler",
			"'%s' takes no compressed reports (415): they go uncompressed from now on",
			scaler->config.url);
		scaler->plain = true;
		uv_timer_start(&scaler->timer, on_tick, 0, 0);
	} else if (judge(attempt, code, status, &err) < 0) {
		report_failed(scaler, &err);
		wait_as_told(scaler, easy);
	} else if (status == 204) {
		report_succeeded(scaler);
	} else {
		take_reply(scaler, attempt);
	}
	attempt_free(attempt);
}

/* ---- sending ---- */

static int add_header(struct attempt *attempt, const char *header)
{
	struct curl_slist *list = curl_slist_append(attempt->headers, header);

	if (!list)
		return -ENOMEM;
	attempt->headers = list;
	return 0;
}

static int add_token(struct attempt *attempt, struct nest_err *err)
{
	const char *path = attempt->scaler->config.token_file;
	nest_autofree char *token = NULL;
	nest_autofree char *header = NULL;
	size_t n;
	int rc;

	if (!*path)
		return 0;
	rc = nest_file_read(AT_FDCWD, path, TOKEN_MAX, &token, &n, err);
	if (rc < 0)
		return nest_err_wrap(err, "read scaler.tokenFile");
	while (n > 0 && strchr(" \t\r\n", token[n - 1]))
		n--;
	token[n] = '\0';
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)token[i] <= ' ' || (unsigned char)token[i] >= 0x7f)
			n = 0;
	}
	if (n == 0)
		return nest_err_say(
			err, -EINVAL, "scaler.tokenFile '%s' holds no token of one word", path);
	if (asprintf(&header, "Authorization: Bearer %s", token) < 0) {
		header = NULL;
		return nest_err_set(err, -ENOMEM, "send a report");
	}
	rc = add_header(attempt, header);
	explicit_bzero(header, strlen(header));
	explicit_bzero(token, n);
	return rc < 0 ? nest_err_set(err, rc, "send a report") : 0;
}

static int add_headers(struct attempt *attempt, struct nest_err *err)
{
	/* without Expect: a report needs no second round trip */
	if (add_header(attempt, "Content-Type: application/json") < 0 ||
		add_header(attempt, "Accept: application/json") < 0 ||
		add_header(attempt, "Expect:") < 0 ||
		(attempt->compressed && add_header(attempt, "Content-Encoding: zstd") < 0))
		return nest_err_set(err, -ENOMEM, "send a report");
	return add_token(attempt, err);
}

static void set_options(struct attempt *attempt)
{
	const struct nest_scaler_config *config = &attempt->scaler->config;
	CURL *easy = attempt->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, attempt);
	curl_easy_setopt(easy, CURLOPT_URL, config->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "nestlet/" PACKAGE_VERSION);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, attempt->curl_text);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, attempt->headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, nest_buf_bytes(&attempt->body));
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)attempt->body.len);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, attempt);
	curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)config->reply_bytes);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)config->timeout_ms);
	if (*config->ca_file) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
}

static int compress_body(struct attempt *attempt, struct nest_err *err)
{
	struct nest_scaler *scaler = attempt->scaler;
	struct nest_buf plain = attempt->body;
	char *room;
	size_t n;

	if (scaler->plain || scaler->config.compress_bytes == 0 ||
		plain.len < scaler->config.compress_bytes)
		return 0;
	if (!scaler->zstd)
		scaler->zstd = ZSTD_createCCtx();
	attempt->body = (struct nest_buf)NEST_BUF_INIT;
	if (!scaler->zstd ||
		nest_buf_reserve(&attempt->body, ZSTD_compressBound(plain.len), &room) < 0) {
		nest_buf_done(&plain);
		return nest_err_set(err, -ENOMEM, "compress a report");
	}
	n = ZSTD_compressCCtx(scaler->zstd, room, ZSTD_compressBound(plain.len),
		nest_buf_bytes(&plain), plain.len, COMPRESSION_LEVEL);
	nest_buf_done(&plain);
	if (ZSTD_isError(n))
		return nest_err_say(err, -EIO, "compress a report: %s", ZSTD_getErrorName(n));
	nest_buf_commit(&attempt->body, n);
	attempt->compressed = true;
	return 0;
}

static int write_body(struct attempt *attempt, struct nest_err *err)
{
	struct nest_scaler *scaler = attempt->scaler;
	uint64_t start_us = nest_clock_mono_us();
	int rc = scaler->env.report(scaler->env.daemon, ++scaler->sequence, &attempt->body);

	if (rc < 0)
		return nest_err_set(err, rc, "write a report");
	scaler->status.report_bytes = attempt->body.len;
	rc = compress_body(attempt, err);
	scaler->status.sent_bytes = attempt->body.len;
	scaler->status.report_us = nest_clock_mono_us() - start_us;
	return rc;
}

static int send_report(struct nest_scaler *scaler, struct nest_err *err)
{
	struct attempt *attempt = calloc(1, sizeof(*attempt));
	int rc;

	if (!attempt)
		return nest_err_set(err, -ENOMEM, "send a report");
	attempt->scaler = scaler;
	DL_APPEND(scaler->attempts, attempt);
	scaler->status.reports_total++;
	rc = write_body(attempt, err);
	if (rc == 0)
		rc = add_headers(attempt, err);
	if (rc == 0) {
		attempt->easy = curl_easy_init();
		if (attempt->easy)
			set_options(attempt);
		if (!attempt->easy || nest_curl_add(scaler->curl, attempt->easy) < 0)
			rc = nest_err_set(err, -ENOMEM, "send a report");
	}
	if (rc < 0)
		attempt_free(attempt);
	return rc;
}

/* What hangs must not keep a scaler that is back from hearing of us. */
static void make_way(struct nest_scaler *scaler)
{
	struct nest_err err = NEST_ERR_INIT;
	struct attempt *attempt;
	unsigned n;

	DL_COUNT(scaler->attempts, attempt, n);
	if (n < ATTEMPTS_MAX)
		return;
	nest_err_say(&err, -ETIMEDOUT, "%u reports wait for an answer: the oldest is given up", n);
	attempt_free(scaler->attempts);
	report_failed(scaler, &err);
}

static void on_looked(void *arg)
{
	struct nest_scaler *scaler = arg;
	struct nest_err err = NEST_ERR_INIT;

	scaler->looking = false;
	if (scaler->closing) {
		part_closed(scaler);
		return;
	}
	make_way(scaler);
	if (send_report(scaler, &err) < 0)
		report_failed(scaler, &err);
}

static void look(struct nest_scaler *scaler)
{
	struct nest_err err = NEST_ERR_INIT;
	int rc;

	if (scaler->looking)
		return;
	rc = scaler->env.look(scaler->env.daemon, on_looked, scaler);
	scaler->looking = rc == 0;
	if (rc == 0)
		return;
	nest_err_set(&err, rc, "look at what a report tells");
	report_failed(scaler, &err);
}

static void on_tick(uv_timer_t *timer)
{
	struct nest_scaler *scaler = timer->data;

	nest_desired_reconcile(scaler->env.desired);
	look(scaler);
	uv_timer_start(&scaler->timer, on_tick, pause_ms(scaler), 0);
}

/* ---- life ---- */

int nest_scaler_open(uv_loop_t *loop, const struct nest_scaler_config *config,
	const struct nest_scaler_env *env, struct nest_scaler **ret, struct nest_err *err)
{
	static const struct nest_curl_events events = { .done = on_done };
	struct nest_scaler *scaler = calloc(1, sizeof(*scaler));
	int rc;

	if (!scaler)
		return nest_err_set(err, -ENOMEM, "open the scaler's client");
	scaler->loop = loop;
	scaler->env = *env;
	scaler->config = *config;
	scaler->config.url = strdup(config->url);
	scaler->config.token_file = strdup(config->token_file);
	scaler->config.ca_file = strdup(config->ca_file);
	rc = scaler->config.url && scaler->config.token_file && scaler->config.ca_file
		     ? nest_curl_open(loop, &events, scaler, &scaler->curl, err)
		     : nest_err_set(err, -ENOMEM, "open the scaler's client");
	if (rc < 0) {
		scaler_free(scaler);
		return rc;
	}
	curl_multi_setopt(nest_curl_multi(scaler->curl), CURLMOPT_MAXCONNECTS, (long)ATTEMPTS_MAX);
	uv_timer_init(loop, &scaler->timer); /* never fails */
	scaler->timer.data = scaler;
	scaler->parts = 2;
	uv_timer_start(&scaler->timer, on_tick, 0, 0);
	*ret = scaler;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

void nest_scaler_close(struct nest_scaler *scaler, void (*cb)(void *arg), void *arg)
{
	scaler->close_cb = cb;
	scaler->close_arg = arg;
	scaler->closing = true;
	scaler->parts += scaler->looking;
	while (scaler->attempts)
		attempt_free(scaler->attempts);
	nest_curl_close(scaler->curl, part_closed, scaler);
	uv_close((uv_handle_t *)&scaler->timer, on_timer_closed);
}

void nest_scaler_drain(struct nest_scaler *scaler)
{
	scaler->draining = true;
	uv_timer_start(&scaler->timer, on_tick, 0, 0);
}

void nest_scaler_status(const struct nest_scaler *scaler, struct nest_scaler_status *ret)
{
	*ret = scaler->status;
	ret->why = scaler->why;
}
