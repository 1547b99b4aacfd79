/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "runtime/funclog_impl.h"

/*
 * A reader first delivers what was on disk when it was opened (copied at once: the limit per
 * function bounds it, and rotation can't pull it away), a piece per loop turn while it is not
 * paused; then what was appended since, which waits in `live`; then lines as they are written.
 */

enum {
	READER_TURN_LINES = 256,
	READER_LIVE_MAX = 1 << 20, /* bytes kept for a slow follower */
};

struct nest_funclog_reader {
	struct nest_funclog *log;
	void (*line)(void *arg, const char *json, size_t n);
	void (*done)(void *arg);
	void *arg;
	struct nest_buf text; /* lines to deliver, each with its newline */
	uint64_t missed_lines;
	bool follow;
	bool paused;
	bool finished; /* the log was removed */
	bool closed;
	uv_idle_t turn;
	struct nest_funclog_reader *prev;
	struct nest_funclog_reader *next;
};

static void reader_freed(uv_handle_t *handle)
{
	struct nest_funclog_reader *reader = handle->data;
	struct nest_funclog *log = reader->log;

	nest_buf_done(&reader->text);
	DL_DELETE(log->readers, reader);
	free(reader);
	nest_funclog_put(log);
}

void nest_funclog_reader_close(struct nest_funclog_reader *reader)
{
	if (reader->closed)
		return;
	reader->closed = true;
	uv_close((uv_handle_t *)&reader->turn, reader_freed);
}

static void reader_deliver(struct nest_funclog_reader *reader)
{
	for (int i = 0; i < READER_TURN_LINES && !reader->paused && !reader->closed; i++) {
		const char *bytes = nest_buf_bytes(&reader->text);
		const char *end = reader->text.len ? memchr(bytes, '\n', reader->text.len) : NULL;
		size_t n;

		if (!end)
			return;
		n = (size_t)(end - bytes);
		reader->line(reader->arg, bytes, n);
		nest_buf_consume(&reader->text, n + 1);
	}
}

static void on_turn(uv_idle_t *turn)
{
	struct nest_funclog_reader *reader = turn->data;
	char note[128];

	reader_deliver(reader);
	if (reader->closed || reader->paused)
		return;
	if (reader->text.len > 0)
		return;
	if (reader->missed_lines > 0) {
		int n = snprintf(note, sizeof(note),
			"{\"stream\":\"host\",\"message\":\"%llu lines missed: the reader is "
			"slow\"}",
			(unsigned long long)reader->missed_lines);

		reader->missed_lines = 0;
		reader->line(reader->arg, note, (size_t)n);
		return;
	}
	uv_idle_stop(turn);
	if (!reader->follow || reader->finished) {
		void (*done)(void *arg) = reader->done;
		void *arg = reader->arg;

		nest_funclog_reader_close(reader);
		done(arg);
	}
}

static void reader_wake(struct nest_funclog_reader *reader)
{
	if (!reader->closed && !reader->paused)
		uv_idle_start(&reader->turn, on_turn);
}

void nest_funclog_reader_tell(struct nest_funclog *log, const char *json, size_t n)
{
	struct nest_funclog_reader *reader;

	DL_FOREACH(log->readers, reader) {
		if (reader->closed || !reader->follow)
			continue;
		if (reader->text.len + n > READER_LIVE_MAX + 2 * log->max_bytes ||
			nest_buf_append(&reader->text, json, n) != 0) {
			reader->missed_lines++;
			continue;
		}
		if (nest_buf_append(&reader->text, "\n", 1) != 0) {
			reader->text.len -= n;
			reader->missed_lines++;
			continue;
		}
		reader_wake(reader);
	}
}

void nest_funclog_reader_finish_all(struct nest_funclog *log)
{
	struct nest_funclog_reader *reader;

	DL_FOREACH(log->readers, reader) {
		reader->finished = true;
		reader_wake(reader);
	}
}

void nest_funclog_reader_pause(struct nest_funclog_reader *reader, bool pause)
{
	reader->paused = pause;
	if (pause)
		uv_idle_stop(&reader->turn);
	else
		reader_wake(reader);
}

/*
 * The current segment is read only as far as finished writes reach: what the thread pool may be
 * writing at this moment is taken from memory instead, so no line comes twice or in part.
 */
static int read_segment(struct nest_funclog *log, bool older, struct nest_buf *text)
{
	nest_autoclose int fd = nest_funclog_open_segment(log, older);
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) != 0)
		return -errno;
	for (size_t left = older ? (size_t)st.st_size : log->segment_bytes; left > 0;) {
		char *room;
		ssize_t n;

		if (nest_buf_reserve(text, left, &room) != 0)
			return -ENOMEM;
		n = read(fd, room, left);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		nest_buf_commit(text, (size_t)n);
		left -= (size_t)n;
	}
	return 0;
}

static int append_all(struct nest_buf *text, const struct nest_buf *more)
{
	return more->len > 0 ? nest_buf_append(text, nest_buf_bytes(more), more->len) : 0;
}

/* Drops all but the last @lines lines. */
static void keep_tail(struct nest_buf *text, uint32_t lines)
{
	const char *bytes = nest_buf_bytes(text);
	size_t at = text->len;

	if (lines == 0)
		at = text->len;
	for (uint32_t seen = 0; lines > 0 && at > 0; at--) {
		if (bytes[at - 1] == '\n' && at != text->len && ++seen == lines)
			break;
	}
	nest_buf_consume(text, at);
}

int nest_funclog_reader_open(struct nest_funclog *log, uint32_t tail_lines, bool follow,
	void (*line)(void *arg, const char *json, size_t n), void (*done)(void *arg), void *arg,
	struct nest_funclog_reader **ret, struct nest_err *err)
{
	struct nest_funclog_reader *reader = calloc(1, sizeof(*reader));
	int r;

	if (!reader)
		return nest_err_set(err, -ENOMEM, "read log of function '%s'", log->name);
	r = read_segment(log, true, &reader->text);
	if (r == 0)
		r = read_segment(log, false, &reader->text);
	if (r == 0)
		r = append_all(&reader->text, &log->writing);
	if (r == 0)
		r = append_all(&reader->text, &log->pending);
	if (r < 0) {
		nest_buf_done(&reader->text);
		free(reader);
		return nest_err_set(err, r, "read log of function '%s'", log->name);
	}
	keep_tail(&reader->text, tail_lines);
	reader->log = log;
	reader->line = line;
	reader->done = done;
	reader->arg = arg;
	reader->follow = follow;
	uv_idle_init(log->store->loop, &reader->turn);
	reader->turn.data = reader;
	log->refs++;
	DL_APPEND(log->readers, reader);
	uv_idle_start(&reader->turn, on_turn);
	*ret = reader;
	return 0;
}
