/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/funclog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "runtime/funclog_impl.h"

/*
 * On disk a log is two segments, <name>.log and the older <name>.log.1, each of at most half the
 * limit. Lines gather in `pending`, never more than fit in a segment, while one write is under way
 * on the thread pool; when that returns, the buffers change places. A flood is cut where it can't
 * matter: more than the retained bytes within one second could never be read back, so it is dropped
 * before it is formatted. The count of what was dropped is told by the next line kept.
 */

enum {
	FUNCLOG_SECOND_MIN = 256 << 10, /* taken in a second, however little is kept */
	FUNCLOG_KEEP_BYTES = 4 << 10,	/* of an idle log's buffer */
};

static void funclog_submit(struct nest_funclog *log);

static void segment_name(const struct nest_funclog *log, bool older, char *ret, size_t n)
{
	snprintf(ret, n, "%s.log%s", log->name, older ? ".1" : "");
}

static void segment_open(struct nest_funclog *log)
{
	char name[160];
	struct stat st;

	segment_name(log, false, name, sizeof(name));
	log->fd = openat(log->store->dirfd, name,
		O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	log->segment_bytes = log->fd >= 0 && fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void segment_rotate(struct nest_funclog *log)
{
	char name[160], older[160];

	segment_name(log, false, name, sizeof(name));
	segment_name(log, true, older, sizeof(older));
	if (renameat(log->store->dirfd, name, log->store->dirfd, older) != 0)
		return; /* tried again with the next write; the limit is kept by dropping until then */
	close(log->fd);
	segment_open(log);
}

int nest_funclog_open_segment(const struct nest_funclog *log, bool older)
{
	char name[160];

	segment_name(log, older, name, sizeof(name));
	return openat(log->store->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

int nest_funclog_store_open(uv_loop_t *loop, const char *dir, uint32_t line_bytes,
	struct nest_funclog_store **ret, struct nest_err *err)
{
	nest_autofree struct nest_funclog_store *store = calloc(1, sizeof(*store));

	if (!store || !(store->dir = strdup(dir)))
		return nest_err_set(err, -ENOMEM, "open log store '%s'", dir);
	store->loop = loop;
	store->line_bytes = line_bytes;
	store->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dirfd < 0) {
		int r = nest_err_set(err, -errno, "open log store '%s'", dir);

		free(store->dir);
		return r;
	}
	*ret = nest_take_ptr(store);
	return 0;
}

static void store_maybe_closed(struct nest_funclog_store *store)
{
	void (*cb)(void *arg) = store->close_cb;
	void *arg = store->close_arg;

	if (!store->closing || store->logs)
		return;
	close(store->dirfd);
	free(store->dir);
	free(store);
	cb(arg);
}

static void funclog_maybe_free(struct nest_funclog *log)
{
	struct nest_funclog_store *store = log->store;

	if (log->refs > 0 || log->write_active || log->readers)
		return;
	DL_DELETE(store->logs, log);
	if (log->fd >= 0)
		close(log->fd);
	nest_buf_done(&log->pending);
	nest_buf_done(&log->writing);
	free(log->name);
	free(log);
	store_maybe_closed(store);
}

void nest_funclog_store_close(struct nest_funclog_store *store, void (*cb)(void *arg), void *arg)
{
	store->closing = true;
	store->close_cb = cb;
	store->close_arg = arg;
	store_maybe_closed(store);
}

int nest_funclog_get(struct nest_funclog_store *store, const char *function, uint64_t max_bytes,
	struct nest_funclog **ret, struct nest_err *err)
{
	struct nest_funclog *log;

	DL_FOREACH(store->logs, log) {
		if (!log->removed && strcmp(log->name, function) == 0)
			break;
	}
	if (!log) {
		log = calloc(1, sizeof(*log));
		if (!log || !(log->name = strdup(function))) {
			free(log);
			return nest_err_set(err, -ENOMEM, "open log of function '%s'", function);
		}
		log->store = store;
		segment_open(log);
		if (log->fd < 0) {
			int r = nest_err_set(err, -errno, "open '%s/%s.log'", store->dir, function);

			free(log->name);
			free(log);
			return r;
		}
		DL_APPEND(store->logs, log);
	}
	log->refs++;
	log->max_bytes = max_bytes;
	*ret = log;
	return 0;
}

void nest_funclog_put(struct nest_funclog *log)
{
	if (!log)
		return;
	log->refs--;
	funclog_maybe_free(log);
}

void nest_funclog_remove(struct nest_funclog *log)
{
	char name[160];

	if (!log->removed) {
		log->removed = true;
		segment_name(log, false, name, sizeof(name));
		unlinkat(log->store->dirfd, name, 0);
		segment_name(log, true, name, sizeof(name));
		unlinkat(log->store->dirfd, name, 0);
		nest_buf_clear(&log->pending, 0);
		nest_funclog_reader_finish_all(log);
	}
	nest_funclog_put(log);
}

uint64_t nest_funclog_dropped_bytes(const struct nest_funclog *log)
{
	return log->dropped_bytes;
}

static void funclog_drop(struct nest_funclog *log, uint64_t n)
{
	log->dropped_bytes += n;
	log->dropped_untold += n;
}

static void on_written(uv_fs_t *req)
{
	struct nest_funclog *log = req->data;
	ssize_t n = req->result;

	uv_fs_req_cleanup(req);
	log->write_active = false;
	if (n < 0 || (size_t)n < log->writing.len)
		funclog_drop(log, log->writing.len - (n > 0 ? (size_t)n : 0));
	if (n > 0)
		log->segment_bytes += (uint64_t)n;
	nest_buf_clear(&log->writing, FUNCLOG_KEEP_BYTES);
	if (log->pending.len > 0 && !log->removed)
		funclog_submit(log);
	funclog_maybe_free(log);
}

static uint64_t segment_max(const struct nest_funclog *log)
{
	return log->max_bytes / 2;
}

/* Makes room for what is pending; false when the segment that is full can't be put aside. */
static bool segment_prepare(struct nest_funclog *log)
{
	if (log->segment_bytes + log->pending.len > segment_max(log) && log->segment_bytes > 0)
		segment_rotate(log);
	return log->segment_bytes + log->pending.len <= segment_max(log);
}

static void funclog_submit(struct nest_funclog *log)
{
	struct nest_buf filled = log->pending;
	uv_buf_t bytes;

	if (log->write_active)
		return;
	if (log->fd < 0)
		segment_open(log);
	if (log->fd < 0)
		return; /* kept while it fits; tried again with the next line */
	if (!segment_prepare(log)) {
		funclog_drop(log, log->pending.len);
		nest_buf_clear(&log->pending, FUNCLOG_KEEP_BYTES);
		return;
	}
	log->pending = log->writing;
	log->writing = filled;
	bytes = uv_buf_init(nest_buf_bytes(&log->writing), (unsigned)log->writing.len);
	log->write_req.data = log;
	log->write_active = true;
	if (uv_fs_write(log->store->loop, &log->write_req, log->fd, &bytes, 1, -1, on_written) <
		0) {
		log->write_active = false;
		funclog_drop(log, log->writing.len);
		nest_buf_clear(&log->writing, FUNCLOG_KEEP_BYTES);
	}
}

/* Whether @n more bytes of text fit in this second's budget; charges them if so. */
static bool funclog_charge(struct nest_funclog *log, size_t n)
{
	uint64_t second = uv_now(log->store->loop) / 1000;
	uint64_t budget = log->max_bytes > FUNCLOG_SECOND_MIN ? log->max_bytes : FUNCLOG_SECOND_MIN;

	if (second != log->second) {
		log->second = second;
		log->second_bytes = 0;
	}
	if (log->second_bytes + n > budget || log->pending.len + n > segment_max(log))
		return false;
	log->second_bytes += n;
	return true;
}

static int line_format(struct nest_buf *buf, const struct nest_funclog *log,
	const struct nest_funclog_origin *origin, const char *text, size_t n)
{
	static const char *const streams[] = { "host", "stdout", "stderr" };
	char when[NEST_CLOCK_RFC3339_LEN];
	int r;

	nest_clock_rfc3339(nest_clock_wall_ms(), when);
	r = nest_buf_printf(buf,
		"{\"time\":\"%s\",\"function\":\"%s\",\"version\":\"%s\",\"worker\":%llu,"
		"\"stream\":\"%s\"",
		when, log->name, origin->version, (unsigned long long)origin->worker,
		streams[origin->stream]);
	if (r == 0 && origin->level)
		r = nest_buf_printf(buf, ",\"level\":\"%s\"", origin->level);
	if (r == 0 && origin->request_id) {
		r = nest_buf_puts(buf, ",\"requestId\":");
		if (r == 0)
			r = nest_buf_json_string(
				buf, origin->request_id, strlen(origin->request_id));
	}
	if (r == 0)
		r = nest_buf_puts(buf, ",\"message\":");
	if (r == 0)
		r = nest_buf_json_string(buf, text, n);
	if (r == 0)
		r = nest_buf_puts(buf, "}\n");
	return r;
}

/* Formats one line into pending and tells the followers; a line that can't be held is dropped. */
static void line_put(struct nest_funclog *log, const struct nest_funclog_origin *origin,
	const char *text, size_t n)
{
	size_t before = log->pending.len;

	if (line_format(&log->pending, log, origin, text, n) != 0 ||
		log->pending.len > segment_max(log)) {
		/* for want of memory or room; a half-formatted line must not stay */
		log->pending.len = before;
		funclog_drop(log, n);
		return;
	}
	nest_funclog_reader_tell(
		log, nest_buf_bytes(&log->pending) + before, log->pending.len - before - 1);
}

static void line_write(struct nest_funclog *log, const struct nest_funclog_origin *origin,
	const char *text, size_t n, uint64_t cut)
{
	char note[96];
	int len;

	if (log->removed)
		return;
	if (!funclog_charge(log, n)) {
		funclog_drop(log, n + cut);
		return;
	}
	if (log->dropped_untold > 0) {
		struct nest_funclog_origin host = { .version = origin->version };
		size_t before = log->pending.len;

		len = snprintf(note, sizeof(note), "%llu bytes of log lost: written too fast",
			(unsigned long long)log->dropped_untold);
		line_put(log, &host, note, (size_t)len);
		if (log->pending.len > before)
			log->dropped_untold = 0;
	}
	line_put(log, origin, text, n);
	if (cut > 0) {
		struct nest_funclog_origin host = { .version = origin->version,
			.worker = origin->worker,
			.request_id = origin->request_id };

		log->dropped_bytes += cut;
		len = snprintf(note, sizeof(note),
			"the line above is cut: it was %llu bytes longer than can be kept",
			(unsigned long long)cut);
		line_put(log, &host, note, (size_t)len);
	}
	funclog_submit(log);
}

/* A line must fit in a segment, with what is told of it. */
static size_t line_max(const struct nest_funclog *log)
{
	uint64_t most = segment_max(log) / 2;

	return most < log->store->line_bytes ? (size_t)most : log->store->line_bytes;
}

void nest_funclog_write(struct nest_funclog *log, const struct nest_funclog_origin *origin,
	const char *text, size_t n)
{
	size_t max = line_max(log);

	while (n > 0) {
		const char *end = memchr(text, '\n', n);
		size_t len = end ? (size_t)(end - text) : n;
		size_t kept = len < max ? len : max;

		line_write(log, origin, text, kept, len - kept);
		len += end != NULL;
		text += len;
		n -= len;
	}
}

/* Adds to the unfinished line what fits; the rest counts as cut. */
static void pipe_carry(
	struct nest_funclog *log, struct nest_funclog_pipe *pipe, const char *bytes, size_t n)
{
	size_t max = line_max(log);
	size_t room = pipe->len < max ? max - pipe->len : 0; /* the limit may have come down */
	size_t take = n < room ? n : room;

	if (take > 0) {
		char *grown = realloc(pipe->carry, pipe->len + take);

		if (!grown)
			take = 0;
		else
			pipe->carry = grown;
	}
	if (take > 0)
		memcpy(pipe->carry + pipe->len, bytes, take);
	pipe->len += take;
	pipe->cut += n - take;
}

static void pipe_flush(struct nest_funclog *log, struct nest_funclog_pipe *pipe,
	const struct nest_funclog_origin *origin)
{
	line_write(log, origin, pipe->carry, pipe->len, pipe->cut);
	free(pipe->carry);
	*pipe = (struct nest_funclog_pipe){ .carry = NULL };
}

void nest_funclog_feed(struct nest_funclog *log, struct nest_funclog_pipe *pipe,
	const struct nest_funclog_origin *origin, const char *bytes, size_t n)
{
	size_t max = line_max(log);

	while (n > 0) {
		const char *end = memchr(bytes, '\n', n);
		size_t len = end ? (size_t)(end - bytes) : n;

		if (!end) {
			pipe_carry(log, pipe, bytes, len);
			return;
		}
		if (pipe->carry || pipe->cut) {
			pipe_carry(log, pipe, bytes, len);
			pipe_flush(log, pipe, origin);
		} else {
			size_t kept = len < max ? len : max;

			line_write(log, origin, bytes, kept, len - kept);
		}
		bytes += len + 1;
		n -= len + 1;
	}
}

void nest_funclog_pipe_done(struct nest_funclog *log, struct nest_funclog_pipe *pipe,
	const struct nest_funclog_origin *origin)
{
	if (pipe->len > 0 || pipe->cut > 0)
		pipe_flush(log, pipe, origin);
	free(pipe->carry);
	pipe->carry = NULL;
}
