/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "loader/fetch_impl.h"

#define CHUNK (256u * 1024)

struct nest_fetch_stream {
	struct nest_fetch_shared *shared;
	struct nest_unpack_source source;
	struct nest_digest *digest;
	int fd;
	uint64_t at;	 /* of the next read */
	uint64_t hashed; /* the digest is of the bytes before it */
	uint64_t waited_us;
	bool stopped; /* under the shared lock */
	char *chunk;
};

/* Waits until byte @at is there: how many bytes there are, or -errno. */
static int64_t wait_for(struct nest_fetch_stream *stream, uint64_t at)
{
	struct nest_fetch_shared *shared = stream->shared;
	uint64_t since = 0;
	int64_t n;

	pthread_mutex_lock(&shared->lock);
	while (shared->watermark <= at && !shared->done && !stream->stopped) {
		since = since ? since : nest_clock_mono_us();
		pthread_cond_wait(&shared->moved, &shared->lock);
	}
	n = stream->stopped ? -ECANCELED : (int64_t)shared->watermark;
	if (shared->err.code < 0)
		n = shared->err.code;
	pthread_mutex_unlock(&shared->lock);
	if (since)
		stream->waited_us += nest_clock_mono_us() - since;
	return n;
}

/* Reads up to @n bytes of the file, which are there. */
static ssize_t read_chunk(struct nest_fetch_stream *stream, uint64_t at, uint64_t n)
{
	ssize_t got;

	do
		got = pread(stream->fd, stream->chunk, n < CHUNK ? (size_t)n : CHUNK, (off_t)at);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -EIO;
	return got < 0 ? -errno : got;
}

/* Takes the digest of what of the chunk, which lies at @at, it has not seen. */
static int hash(struct nest_fetch_stream *stream, uint64_t at, size_t n)
{
	size_t seen;

	if (at > stream->hashed || at + n <= stream->hashed)
		return 0;
	seen = (size_t)(stream->hashed - at);
	stream->hashed = at + n;
	return nest_digest_update(stream->digest, stream->chunk + seen, n - seen, NULL);
}

static ssize_t stream_read(void *arg, const void **ret_bytes)
{
	struct nest_fetch_stream *stream = arg;
	int64_t have = wait_for(stream, stream->at);
	ssize_t n;
	int rc;

	if (have < 0)
		return (ssize_t)have;
	if ((uint64_t)have <= stream->at)
		return 0;
	n = read_chunk(stream, stream->at, (uint64_t)have - stream->at);
	if (n < 0)
		return n;
	rc = hash(stream, stream->at, (size_t)n);
	if (rc < 0)
		return rc;
	stream->at += (uint64_t)n;
	*ret_bytes = stream->chunk;
	return n;
}

/* The artifact's length, which may be known long before its end is there. */
static int64_t wait_for_total(struct nest_fetch_stream *stream)
{
	struct nest_fetch_shared *shared = stream->shared;
	int64_t total;

	pthread_mutex_lock(&shared->lock);
	while (shared->total == NEST_FETCH_UNKNOWN && !shared->done && !stream->stopped)
		pthread_cond_wait(&shared->moved, &shared->lock);
	total = stream->stopped ? -ECANCELED : (int64_t)shared->total;
	if (shared->err.code < 0)
		total = shared->err.code;
	pthread_mutex_unlock(&shared->lock);
	return total;
}

static int64_t stream_seek(void *arg, int64_t offset, int whence)
{
	struct nest_fetch_stream *stream = arg;
	int64_t base = 0;

	if (whence == SEEK_CUR)
		base = (int64_t)stream->at;
	if (whence == SEEK_END)
		base = wait_for_total(stream);
	if (base < 0)
		return base;
	if (__builtin_add_overflow(base, offset, &base) || base < 0)
		return -EINVAL;
	stream->at = (uint64_t)base;
	return base;
}

static void set_stopped(struct nest_fetch_stream *stream, bool stopped)
{
	pthread_mutex_lock(&stream->shared->lock);
	stream->stopped = stopped;
	pthread_cond_broadcast(&stream->shared->moved);
	pthread_mutex_unlock(&stream->shared->lock);
}

static void stream_stop(void *arg)
{
	set_stopped(arg, true);
}

int nest_fetch_stream_open(
	struct nest_fetch *fetch, struct nest_fetch_stream **ret, struct nest_err *err)
{
	struct nest_fetch_stream *stream = calloc(1, sizeof(*stream));
	int rc;

	if (!stream)
		return nest_err_set(err, -ENOMEM, "read a download");
	stream->chunk = malloc(CHUNK);
	rc = stream->chunk ? nest_digest_new(&stream->digest, err)
			   : nest_err_set(err, -ENOMEM, "read a download");
	if (rc < 0) {
		nest_fetch_stream_free(stream);
		return rc;
	}
	stream->shared = &fetch->shared;
	stream->fd = fetch->fd;
	stream->source = (struct nest_unpack_source){
		.read = stream_read, .seek = stream_seek, .stop = stream_stop, .arg = stream
	};
	*ret = stream;
	return 0;
}

void nest_fetch_stream_free(struct nest_fetch_stream *stream)
{
	if (!stream)
		return;
	nest_digest_free(stream->digest);
	free(stream->chunk);
	free(stream);
}

const struct nest_unpack_source *nest_fetch_stream_source(struct nest_fetch_stream *stream)
{
	return &stream->source;
}

bool nest_fetch_stream_failed(struct nest_fetch_stream *stream, struct nest_err *ret_err)
{
	struct nest_fetch_shared *shared = stream->shared;
	bool failed;

	pthread_mutex_lock(&shared->lock);
	failed = shared->err.code < 0;
	if (failed)
		*ret_err = shared->err;
	pthread_mutex_unlock(&shared->lock);
	return failed;
}

int nest_fetch_stream_wait(
	struct nest_fetch_stream *stream, uint64_t n, uint64_t *ret_n, struct nest_err *err)
{
	struct nest_err why = NEST_ERR_INIT;
	int64_t have = n > 0 ? wait_for(stream, n - 1) : 0;

	if (have < 0 && nest_fetch_stream_failed(stream, &why)) {
		if (err)
			*err = why;
		return why.code;
	}
	*ret_n = (uint64_t)have < n ? (uint64_t)have : n;
	return 0;
}

int nest_fetch_stream_finish(
	struct nest_fetch_stream *stream, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	uint64_t total;
	int rc;

	set_stopped(stream, false);
	stream->at = stream->hashed;
	do {
		const void *bytes;
		ssize_t n = stream_read(stream, &bytes);
		struct nest_err why = NEST_ERR_INIT;

		if (n < 0 && nest_fetch_stream_failed(stream, &why)) {
			if (err)
				*err = why;
			return why.code;
		}
		if (n < 0)
			return nest_err_set(err, (int)n, "read what was downloaded");
		if (n == 0)
			break;
	} while (true);
	rc = nest_fetch_stream_wait(stream, NEST_FETCH_UNKNOWN, &total, err);
	return rc < 0 ? rc : nest_digest_final(stream->digest, ret_hex, err);
}

uint64_t nest_fetch_stream_waited_us(const struct nest_fetch_stream *stream)
{
	return stream->waited_us;
}
