/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "loader/credentials.h"
#include "loader/reference.h"
#include "loader/threads.h"

#define FRAME (1u << 20)
#define LEVEL 3
#define STALL_BYTES 1024L

enum decision {
	DECISION_OPEN,
	DECISION_SEND,
	DECISION_ABORT
};

struct nest_publish {
	uv_async_t done;
	pthread_t thread;
	char *url;
	struct nest_fetcher_config config; /* with strings of our own */
	struct nest_reference_parts server;
	int in;
	int staging;
	pthread_mutex_t mutex;
	pthread_cond_t decided;
	enum decision decision;
	atomic_bool aborted;
	/* the thread's, then the loop's */
	uint64_t bytes;
	curl_off_t sent;
	struct nest_err err;
	void (*cb)(void *arg, uint64_t bytes, const struct nest_err *err);
	void *arg;
};

static void free_publish(struct nest_publish *publish)
{
	if (publish->in >= 0)
		close(publish->in);
	if (publish->staging >= 0)
		close(publish->staging);
	pthread_cond_destroy(&publish->decided);
	pthread_mutex_destroy(&publish->mutex);
	free((char *)publish->config.ca_file);
	free((char *)publish->config.credentials_file);
	free(publish->url);
	free(publish);
}

/* ---- the thread: from the pipe to the file ---- */

/* Fills @frame as far as the pipe has bytes: how many, 0 at its end. */
static ssize_t read_frame(int in, char *frame, struct nest_err *err)
{
	size_t n = 0;

	while (n < FRAME) {
		ssize_t got = read(in, frame + n, FRAME - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return nest_err_set(err, -errno, "read what is to be published");
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

static void free_context(ZSTD_CCtx **context)
{
	ZSTD_freeCCtx(*context);
}

static int compress_all(struct nest_publish *publish)
{
	__attribute__((cleanup(free_context))) ZSTD_CCtx *context = ZSTD_createCCtx();
	nest_autofree char *frame = malloc(FRAME);
	nest_autofree char *packed = malloc(ZSTD_compressBound(FRAME));
	ssize_t n;

	if (!context || !frame || !packed)
		return nest_err_set(&publish->err, -ENOMEM, "compress what is to be published");
	ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, LEVEL);
	while ((n = read_frame(publish->in, frame, &publish->err)) > 0) {
		size_t len = ZSTD_compress2(
			context, packed, ZSTD_compressBound(FRAME), frame, (size_t)n);
		int r;

		if (ZSTD_isError(len))
			return nest_err_say(
				&publish->err, -EIO, "compress: %s", ZSTD_getErrorName(len));
		publish->bytes += len;
		if (publish->bytes > publish->config.max_bytes)
			return nest_err_say(&publish->err, -EFBIG,
				"it has more than %llu bytes, the most that others would load",
				(unsigned long long)publish->config.max_bytes);
		r = nest_fd_write_all(publish->staging, packed, len, &publish->err);
		if (r < 0)
			return r;
	}
	return (int)n;
}

/* ---- the thread: from the file to the server ---- */

static size_t on_read(char *bytes, size_t size, size_t count, void *arg)
{
	struct nest_publish *publish = arg;
	ssize_t n = pread(publish->staging, bytes, size * count, publish->sent);

	if (n < 0)
		return CURL_READFUNC_ABORT;
	publish->sent += n;
	return (size_t)n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct nest_publish *publish = arg;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	publish->sent = offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_answer(char *bytes, size_t size, size_t count, void *arg)
{
	(void)bytes;
	(void)arg;
	return size * count;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct nest_publish *publish = arg;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return atomic_load(&publish->aborted);
}

/* Nothing secret goes over an open wire; over loopback there is none. */
static int add_credentials(struct nest_publish *publish, CURL *easy)
{
	struct nest_credentials credentials = { .token = NULL };
	const char *path = publish->config.credentials_file;
	int r;

	if (!*path || (publish->server.kind != NEST_REFERENCE_HTTPS &&
			      !nest_reference_is_loopback(&publish->server)))
		return 0;
	r = nest_credentials_find(
		path, publish->server.host, publish->server.port, &credentials, &publish->err);
	if (r != 0)
		return r < 0 ? r : 0;
	if (credentials.token) {
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
		curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, credentials.token);
	} else {
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(easy, CURLOPT_USERNAME, credentials.login);
		curl_easy_setopt(easy, CURLOPT_PASSWORD, credentials.password);
	}
	nest_credentials_done(&credentials);
	return 0;
}

static void set_up(struct nest_publish *publish, CURL *easy)
{
	const struct nest_fetcher_config *config = &publish->config;

	curl_easy_setopt(easy, CURLOPT_URL, publish->url);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "nestlet");
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)publish->bytes);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(easy, CURLOPT_READDATA, publish);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, publish);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, publish);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)config->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)config->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(config->stall_ms + 999) / 1000);
	if (*config->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
}

static int put(struct nest_publish *publish)
{
	char text[CURL_ERROR_SIZE] = "";
	CURL *easy = curl_easy_init();
	long status = 0;
	CURLcode code;
	int r;

	if (!easy)
		return nest_err_set(&publish->err, -ENOMEM, "ask the server");
	set_up(publish, easy);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, text);
	r = add_credentials(publish, easy);
	if (r == 0) {
		code = curl_easy_perform(easy);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (atomic_load(&publish->aborted))
			r = nest_err_set(&publish->err, -ECANCELED, "publish");
		else if (code != CURLE_OK)
			r = nest_err_say(&publish->err, -EIO, "put '%.*s': %s",
				(int)nest_reference_shown(publish->url), publish->url,
				text[0] ? text : curl_easy_strerror(code));
		else if (status < 200 || status > 299)
			r = nest_err_say(&publish->err, -EREMOTEIO,
				"put '%.*s': the server answers %ld",
				(int)nest_reference_shown(publish->url), publish->url, status);
	}
	curl_easy_cleanup(easy);
	return r;
}

static enum decision await_decision(struct nest_publish *publish)
{
	enum decision decision;

	pthread_mutex_lock(&publish->mutex);
	while (publish->decision == DECISION_OPEN)
		pthread_cond_wait(&publish->decided, &publish->mutex);
	decision = publish->decision;
	pthread_mutex_unlock(&publish->mutex);
	return decision;
}

static void *run(void *arg)
{
	struct nest_publish *publish = arg;
	int r = compress_all(publish);

	/* who writes learns that nobody reads */
	close(nest_take_fd(publish->in));
	if (await_decision(publish) == DECISION_ABORT)
		r = nest_err_set(&publish->err, -ECANCELED, "publish");
	if (r == 0)
		put(publish);
	uv_async_send(&publish->done);
	return NULL;
}

/* ---- the loop ---- */

static void on_closed(uv_handle_t *handle)
{
	struct nest_publish *publish = handle->data;
	const struct nest_err *err = publish->err.code < 0 ? &publish->err : NULL;

	publish->cb(publish->arg, publish->bytes, err);
	free_publish(publish);
}

static void on_done(uv_async_t *async)
{
	struct nest_publish *publish = async->data;

	pthread_join(publish->thread, NULL);
	uv_close((uv_handle_t *)async, on_closed);
}

static void on_never_started(uv_handle_t *handle)
{
	free_publish(handle->data);
}

static int copy_config(
	struct nest_publish *publish, const struct nest_fetcher_config *config, const char *url)
{
	publish->config = *config;
	publish->config.ca_file = strdup(config->ca_file ? config->ca_file : "");
	publish->config.credentials_file =
		strdup(config->credentials_file ? config->credentials_file : "");
	publish->url = strdup(url);
	return publish->url && publish->config.ca_file && publish->config.credentials_file
		       ? 0
		       : -ENOMEM;
}

static int prepare(struct nest_publish *publish, const struct nest_publish_config *config,
	const char *url, int *ret_pipe, struct nest_err *err)
{
	int pipe[2];
	int r = copy_config(publish, config->fetch, url);

	if (r < 0)
		return nest_err_set(err, r, "publish");
	r = nest_reference_parse(url, &publish->server, err);
	if (r < 0)
		return r;
	if (publish->server.kind == NEST_REFERENCE_PATH)
		return nest_err_say(err, -EINVAL, "'%s' is no server's", url);
	publish->staging = open(config->staging, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	if (publish->staging < 0)
		return nest_err_set(err, -errno, "make a file in '%s'", config->staging);
	r = nest_fd_pipe(0, pipe, err);
	if (r < 0)
		return r;
	publish->in = pipe[0];
	*ret_pipe = pipe[1];
	return 0;
}

int nest_publish_open(uv_loop_t *loop, const struct nest_publish_config *config, const char *url,
	void (*cb)(void *arg, uint64_t bytes, const struct nest_err *err), void *arg, int *ret_pipe,
	struct nest_publish **ret, struct nest_err *err)
{
	struct nest_publish *publish = calloc(1, sizeof(*publish));
	int writer = -1;
	int r;

	if (!publish)
		return nest_err_set(err, -ENOMEM, "publish");
	publish->in = publish->staging = -1;
	pthread_mutex_init(&publish->mutex, NULL);
	pthread_cond_init(&publish->decided, NULL);
	publish->cb = cb;
	publish->arg = arg;
	r = prepare(publish, config, url, &writer, err);
	if (r < 0) {
		free_publish(publish);
		return r;
	}
	r = uv_async_init(loop, &publish->done, on_done);
	if (r < 0) {
		close(writer);
		free_publish(publish);
		return nest_err_set(err, r, "publish");
	}
	publish->done.data = publish;
	r = nest_threads_start(&publish->thread, run, publish, "publish", err);
	if (r < 0) {
		close(writer);
		uv_close((uv_handle_t *)&publish->done, on_never_started);
		return r;
	}
	*ret_pipe = writer;
	*ret = publish;
	return 0;
}

static void decide(struct nest_publish *publish, enum decision decision)
{
	pthread_mutex_lock(&publish->mutex);
	publish->decision = decision;
	pthread_cond_signal(&publish->decided);
	pthread_mutex_unlock(&publish->mutex);
}

void nest_publish_send(struct nest_publish *publish)
{
	decide(publish, DECISION_SEND);
}

void nest_publish_abort(struct nest_publish *publish)
{
	atomic_store(&publish->aborted, true);
	decide(publish, DECISION_ABORT);
}
