/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames are decompressed by as many workers as there are CPUs, and given out in their order:
 *
 *	source -> reader -> [ slot slot slot slot ... ] -> nest_pipeline_read()
 *	                      ^ workers take those that wait, from the front on
 *
 * The reader finds where a frame ends by its headers and those of its blocks (loader/frames.h), so
 * it needs neither a seek table, which stands at the end of a file that is still on its way, nor a
 * file it can seek in. A frame with more than WHOLE_MAX of content, or of unknown length, is
 * decompressed by the reader itself, piece by piece.
 *
 * Whoever writes what was read may hold its slot instead of copying it; the slot comes back when
 * nobody does and the next one was read.
 *
 * Memory: what lies in slots is charged to a budget before it is allocated, whatever a frame's header
 * claims. Only a slot that is alone may pass it. A frame's declared size decides how it is
 * decompressed, and how much room it gets; a frame that turns out to be larger is an error.
 */
#include "loader/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/codec.h"
#include "loader/frames.h"
#include "loader/threads.h"
#include "loader/unpack.h"

#define WHOLE_MAX (8u << 20)
#define WHOLE_IN_MAX (WHOLE_MAX + WHOLE_MAX / 64) /* incompressible bytes take a little more */
#define PIECE (512u << 10)
#define BUDGET_BASE (2u << 20)
#define BUDGET_PER_WORKER (3u << 20)
#define BUDGET_MAX (20u << 20)
#define SLOT_COST (64u << 10) /* at least, so that tiny frames don't make countless slots */
#define SPARE_MAX (4u << 20)  /* kept in slots that wait to be used again */

enum state {
	WAITING, /* for a worker */
	BUSY,
	READY,
};

struct slot {
	struct nest_pipeline *pipeline;
	atomic_uint refs; /* of what was read from it */
	enum state state;
	enum nest_frames_kind kind;
	char *in;
	size_t in_len;
	size_t in_cap;
	char *out;
	size_t out_len;
	size_t out_cap;
	size_t charged;
	struct nest_err err; /* why it has no bytes */
	struct slot *prev, *next;
};

struct nest_pipeline {
	struct nest_unpack_source source;
	const struct nest_pipeline_sink *sink; /* or NULL */
	unsigned n_workers;
	unsigned n_started;
	bool reader_started;
	pthread_t reader;
	pthread_t workers[NEST_THREADS_MAX];

	/* The reader's. */
	struct nest_codec *codec;
	enum nest_frames_kind kind; /* of all frames of the stream */
	const char *chunk;
	size_t chunk_len;
	char *in; /* the frame that is being gathered */
	size_t in_len;
	size_t in_cap;

	pthread_mutex_t lock; /* for what follows */
	pthread_cond_t room;
	pthread_cond_t work;
	pthread_cond_t ready;
	struct slot *queue; /* in the order of the stream */
	struct slot *todo;  /* none before it waits for a worker */
	struct slot *spare;
	size_t spare_bytes;
	size_t charged;
	size_t budget;
	bool stop;
	bool ended;	     /* the reader has: no slot is added any more */
	struct nest_err err; /* why, unless the stream has */

	struct slot *held; /* what the caller of read() looks at */
};

static void free_slot(struct slot *slot)
{
	free(slot->in);
	free(slot->out);
	free(slot);
}

/* Under the lock. */
static void release(struct nest_pipeline *pipeline, struct slot *slot)
{
	pipeline->charged -= slot->charged;
	slot->charged = slot->in_cap + slot->out_cap;
	if (pipeline->spare_bytes + slot->charged > SPARE_MAX) {
		free_slot(slot);
	} else {
		pipeline->spare_bytes += slot->charged;
		DL_PREPEND(pipeline->spare, slot);
	}
	pthread_cond_signal(&pipeline->room);
}

/* Under the lock: waits until @cost may be charged, and takes a spare slot; NULL: none, or stop. */
static struct slot *charge(struct nest_pipeline *pipeline, size_t cost)
{
	struct slot *slot;

	while (!pipeline->stop && pipeline->charged > 0 &&
		pipeline->charged + cost > pipeline->budget)
		pthread_cond_wait(&pipeline->room, &pipeline->lock);
	pipeline->charged += cost;
	slot = pipeline->spare;
	if (slot) {
		DL_DELETE(pipeline->spare, slot);
		pipeline->spare_bytes -= slot->charged;
	}
	return slot;
}

static int out_of_memory(struct nest_err *err)
{
	return nest_err_set(err, -ENOMEM, "decompress");
}

/* A slot with room for @out_cap bytes, and the bytes gathered so far if @with_in. */
static int make_slot(struct nest_pipeline *pipeline, size_t out_cap, bool with_in,
	struct slot **ret, struct nest_err *err)
{
	size_t cost = out_cap + (with_in ? pipeline->in_cap : 0) + SLOT_COST;
	struct slot *slot;
	bool stop;

	pthread_mutex_lock(&pipeline->lock);
	slot = charge(pipeline, cost);
	stop = pipeline->stop;
	pthread_mutex_unlock(&pipeline->lock);
	if (!slot)
		slot = calloc(1, sizeof(*slot));
	if (!slot)
		return out_of_memory(err);
	slot->pipeline = pipeline;
	atomic_store(&slot->refs, 1);
	slot->charged = cost;
	slot->err.code = 0;
	slot->in_len = slot->out_len = 0;
	if (slot->out_cap < out_cap || slot->out_cap > 4 * out_cap) {
		free(slot->out);
		slot->out = malloc(out_cap);
		slot->out_cap = slot->out ? out_cap : 0;
	}
	*ret = slot;
	if (stop)
		return nest_err_say(err, -ECANCELED, "the load was abandoned");
	return slot->out ? 0 : out_of_memory(err);
}

static void submit(struct nest_pipeline *pipeline, struct slot *slot, enum state state)
{
	slot->state = state;
	pthread_mutex_lock(&pipeline->lock);
	DL_APPEND(pipeline->queue, slot);
	if (state == WAITING) {
		if (!pipeline->todo)
			pipeline->todo = slot;
		pthread_cond_signal(&pipeline->work);
	} else {
		pthread_cond_signal(&pipeline->ready);
	}
	pthread_mutex_unlock(&pipeline->lock);
}

/* Gives back a slot that was never submitted. */
static void drop(struct nest_pipeline *pipeline, struct slot *slot)
{
	pthread_mutex_lock(&pipeline->lock);
	release(pipeline, slot);
	pthread_mutex_unlock(&pipeline->lock);
}

/* 1 when there are bytes in the chunk, 0 at the end of the source. */
static int refill(struct nest_pipeline *pipeline, struct nest_err *err)
{
	const void *bytes;
	ssize_t n;

	if (pipeline->chunk_len > 0)
		return 1;
	n = pipeline->source.read(pipeline->source.arg, &bytes);
	if (n < 0)
		return nest_err_set(err, (int)n, "read");
	pipeline->chunk = bytes;
	pipeline->chunk_len = (size_t)n;
	return n > 0;
}

static int truncated(struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG, "truncated compressed data: it ends within a frame");
}

static size_t least(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}

static int reserve(struct nest_pipeline *pipeline, size_t len, struct nest_err *err)
{
	size_t cap = pipeline->in_cap ? pipeline->in_cap : SLOT_COST;
	char *in;

	if (len <= pipeline->in_cap)
		return 0;
	while (cap < len)
		cap += cap / 2;
	in = realloc(pipeline->in, cap);
	if (!in)
		return out_of_memory(err);
	pipeline->in = in;
	pipeline->in_cap = cap;
	return 0;
}

/* Gathers the frame's bytes up to @len. 1: done, 0: the source ended before. */
static int gather(struct nest_pipeline *pipeline, size_t len, struct nest_err *err)
{
	int rc = reserve(pipeline, len, err);

	if (rc < 0)
		return rc;
	while (pipeline->in_len < len) {
		size_t n;

		rc = refill(pipeline, err);
		if (rc <= 0)
			return rc;
		n = least(len - pipeline->in_len, pipeline->chunk_len);
		memcpy(pipeline->in + pipeline->in_len, pipeline->chunk, n);
		pipeline->in_len += n;
		pipeline->chunk += n;
		pipeline->chunk_len -= n;
	}
	return 1;
}

/* Passes over the rest of a skippable frame. 1, or an error. */
static int skip(struct nest_pipeline *pipeline, uint64_t n, struct nest_err *err)
{
	while (n > 0) {
		int rc = refill(pipeline, err);
		size_t step;

		if (rc <= 0)
			return rc < 0 ? rc : truncated(err);
		step = least(n, pipeline->chunk_len);
		pipeline->chunk += step;
		pipeline->chunk_len -= step;
		n -= step;
	}
	return 1;
}

/* Hands the frame gathered to a worker. */
static int queue_frame(
	struct nest_pipeline *pipeline, const struct nest_frames *frames, struct nest_err *err)
{
	/* LZ4 writes by whole blocks straight to where they belong if there is room for them. */
	bool declared = frames->content != NEST_FRAMES_UNKNOWN && frames->kind == NEST_FRAMES_ZSTD;
	size_t cap = (size_t)(declared ? frames->content : frames->bound);
	struct slot *slot = NULL;
	char *in;
	size_t in_cap;
	int rc = make_slot(pipeline, cap + 1, true, &slot, err);

	if (rc < 0) {
		if (slot)
			drop(pipeline, slot);
		return rc;
	}
	in = slot->in;
	in_cap = slot->in_cap;
	slot->in = pipeline->in;
	slot->in_cap = pipeline->in_cap;
	slot->in_len = (size_t)frames->need;
	slot->kind = frames->kind;
	pipeline->in = in;
	pipeline->in_cap = in_cap;
	submit(pipeline, slot, WAITING);
	return 1;
}

/* One call of the decompressor; 1: the frame goes on, 0: it ended. */
static int step_stream(struct nest_pipeline *pipeline, enum nest_frames_kind kind,
	struct slot *slot, const char **in, size_t *in_len, struct nest_err *err)
{
	size_t in_n = *in_len;
	size_t out_n = slot->out_cap - slot->out_len;
	int rc = nest_codec_stream(
		pipeline->codec, kind, *in, &in_n, slot->out + slot->out_len, &out_n, err);

	if (rc < 0)
		return rc;
	if (rc == 1 && in_n == 0 && out_n == 0 && *in_len > 0)
		return nest_err_say(err, -EBADMSG, "damaged compressed data: it leads nowhere");
	*in += in_n;
	*in_len -= in_n;
	slot->out_len += out_n;
	return rc;
}

/* Decompresses into @slot until it is full (1) or the frame ends (0). */
static int fill_slot(struct nest_pipeline *pipeline, enum nest_frames_kind kind, struct slot *slot,
	const char **in, size_t *in_len, struct nest_err *err)
{
	int rc = 1;

	/* What the decompressor holds back must come out first: no input may be left for it. */
	if (*in_len == 0 && pipeline->chunk_len == 0)
		rc = step_stream(pipeline, kind, slot, in, in_len, err);
	while (rc == 1 && slot->out_len < slot->out_cap) {
		if (*in_len > 0) {
			rc = step_stream(pipeline, kind, slot, in, in_len, err);
			continue;
		}
		rc = refill(pipeline, err);
		if (rc <= 0)
			return rc < 0 ? rc : truncated(err);
		rc = step_stream(pipeline, kind, slot, &pipeline->chunk, &pipeline->chunk_len, err);
	}
	return rc;
}

/* Decompresses a frame of which some bytes were gathered. */
static int stream_frame(
	struct nest_pipeline *pipeline, enum nest_frames_kind kind, struct nest_err *err)
{
	const char *in = pipeline->in;
	size_t in_len = pipeline->in_len;
	struct slot *slot = NULL;
	int rc;

	do {
		rc = make_slot(pipeline, PIECE, false, &slot, err);
		if (rc == 0)
			rc = fill_slot(pipeline, kind, slot, &in, &in_len, err);
		if (rc < 0)
			break;
		submit(pipeline, nest_take_ptr(slot), READY);
	} while (rc == 1);
	if (slot)
		drop(pipeline, slot);
	return rc < 0 ? rc : 1;
}

/* Whether a frame is not worth, or not known to be worth, its memory. */
static bool is_long(const struct nest_frames *frames)
{
	uint64_t content = frames->content != NEST_FRAMES_UNKNOWN ? frames->content : frames->bound;

	return content > WHOLE_MAX || frames->bound > 2 * WHOLE_MAX || frames->need > WHOLE_IN_MAX;
}

static int check_kind(
	struct nest_pipeline *pipeline, enum nest_frames_kind kind, struct nest_err *err)
{
	if (kind == NEST_FRAMES_NONE || kind == NEST_FRAMES_SKIP)
		return 0;
	if (pipeline->kind != NEST_FRAMES_NONE && pipeline->kind != kind)
		return nest_err_say(
			err, -EBADMSG, "damaged compressed data: both zstd and LZ4 frames");
	pipeline->kind = kind;
	return 0;
}

static int show(struct nest_pipeline *pipeline, const struct nest_frames *frames, const void *bytes,
	struct nest_err *err)
{
	const struct nest_pipeline_sink *sink = pipeline->sink;

	return sink ? sink->take(sink->arg, frames, bytes, err) : 0;
}

/* 1: a frame was read, 0: there was none any more. */
static int read_frame(struct nest_pipeline *pipeline, struct nest_err *err)
{
	struct nest_frames frames = { 0 };
	int rc;

	pipeline->in_len = 0;
	for (;;) {
		rc = nest_frames_walk(
			&frames, (const unsigned char *)pipeline->in, pipeline->in_len, err);
		if (rc >= 0 && check_kind(pipeline, frames.kind, err) < 0)
			return -EBADMSG;
		if (rc < 0)
			return rc;
		if (frames.kind == NEST_FRAMES_SKIP && frames.last)
			return skip(pipeline, frames.need - pipeline->in_len, err);
		if (frames.at > 0 && is_long(&frames)) {
			rc = show(pipeline, &frames, NULL, err);
			return rc < 0 ? rc : stream_frame(pipeline, frames.kind, err);
		}
		if (rc == 0) {
			rc = show(pipeline, &frames, pipeline->in, err);
			return rc < 0 ? rc : queue_frame(pipeline, &frames, err);
		}
		rc = gather(pipeline, (size_t)frames.need, err);
		if (rc < 0)
			return rc;
		if (rc == 0)
			return pipeline->in_len == 0 ? 0 : truncated(err);
	}
}

static void *run_reader(void *arg)
{
	struct nest_pipeline *pipeline = arg;
	struct nest_err err = NEST_ERR_INIT;
	int rc;

	do
		rc = read_frame(pipeline, &err);
	while (rc == 1);
	pthread_mutex_lock(&pipeline->lock);
	pipeline->ended = true;
	pipeline->err = err;
	pthread_cond_signal(&pipeline->ready);
	pthread_mutex_unlock(&pipeline->lock);
	return NULL;
}

/* Under the lock: the next slot for a worker; NULL: there will be none. */
static struct slot *take_todo(struct nest_pipeline *pipeline)
{
	struct slot *slot;

	while (!pipeline->stop && !pipeline->todo)
		pthread_cond_wait(&pipeline->work, &pipeline->lock);
	if (pipeline->stop)
		return NULL;
	slot = pipeline->todo;
	slot->state = BUSY;
	do
		pipeline->todo = pipeline->todo->next;
	while (pipeline->todo && pipeline->todo->state != WAITING);
	return slot;
}

static void *run_worker(void *arg)
{
	struct nest_pipeline *pipeline = arg;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_codec *codec = NULL;
	struct slot *slot;

	nest_codec_new(&codec, &err);
	pthread_mutex_lock(&pipeline->lock);
	while ((slot = take_todo(pipeline))) {
		pthread_mutex_unlock(&pipeline->lock);
		slot->err = err;
		if (codec)
			nest_codec_whole(codec, slot->kind, slot->in, slot->in_len, slot->out,
				slot->out_cap, &slot->out_len, &slot->err);
		pthread_mutex_lock(&pipeline->lock);
		slot->state = READY;
		if (slot == pipeline->queue)
			pthread_cond_signal(&pipeline->ready);
	}
	pthread_mutex_unlock(&pipeline->lock);
	nest_codec_free(codec);
	return NULL;
}

static int start(struct nest_pipeline *pipeline, struct nest_err *err)
{
	int rc = nest_codec_new(&pipeline->codec, err);

	pipeline->n_workers = nest_threads_count();
	pipeline->budget = least(BUDGET_BASE + pipeline->n_workers * BUDGET_PER_WORKER, BUDGET_MAX);
	for (unsigned i = 0; rc == 0 && i < pipeline->n_workers; i++) {
		rc = nest_threads_start(
			&pipeline->workers[i], run_worker, pipeline, "decompress", err);
		pipeline->n_started += rc == 0;
	}
	/* One is enough, where there may be no more. */
	if (pipeline->n_started > 0)
		rc = nest_threads_start(&pipeline->reader, run_reader, pipeline, "read", err);
	pipeline->reader_started = rc == 0;
	return rc;
}

int nest_pipeline_new(const struct nest_unpack_source *source,
	const struct nest_pipeline_sink *sink, struct nest_pipeline **ret, struct nest_err *err)
{
	struct nest_pipeline *pipeline = calloc(1, sizeof(*pipeline));
	int rc;

	if (!pipeline)
		return out_of_memory(err);
	pipeline->source = *source;
	pipeline->sink = sink;
	pthread_mutex_init(&pipeline->lock, NULL);
	pthread_cond_init(&pipeline->room, NULL);
	pthread_cond_init(&pipeline->work, NULL);
	pthread_cond_init(&pipeline->ready, NULL);
	rc = start(pipeline, err);
	if (rc < 0) {
		nest_pipeline_free(pipeline);
		return rc;
	}
	*ret = pipeline;
	return 0;
}

static void stop(struct nest_pipeline *pipeline)
{
	bool reading;

	pthread_mutex_lock(&pipeline->lock);
	pipeline->stop = true;
	reading = pipeline->reader_started && !pipeline->ended;
	pthread_cond_broadcast(&pipeline->work);
	pthread_cond_broadcast(&pipeline->room);
	pthread_mutex_unlock(&pipeline->lock);
	if (reading && pipeline->source.stop)
		pipeline->source.stop(pipeline->source.arg);
	if (pipeline->reader_started)
		pthread_join(pipeline->reader, NULL);
	for (unsigned i = 0; i < pipeline->n_started; i++)
		pthread_join(pipeline->workers[i], NULL);
}

static void free_slots(struct slot *slots)
{
	struct slot *slot;
	struct slot *next;

	DL_FOREACH_SAFE(slots, slot, next) {
		DL_DELETE(slots, slot);
		free_slot(slot);
	}
}

void nest_pipeline_free(struct nest_pipeline *pipeline)
{
	if (!pipeline)
		return;
	stop(pipeline);
	free_slots(pipeline->queue);
	free_slots(pipeline->spare);
	if (pipeline->held)
		free_slot(pipeline->held);
	free(pipeline->in);
	nest_codec_free(pipeline->codec);
	pthread_cond_destroy(&pipeline->ready);
	pthread_cond_destroy(&pipeline->work);
	pthread_cond_destroy(&pipeline->room);
	pthread_mutex_destroy(&pipeline->lock);
	free(pipeline);
}

/* Under the lock: the next slot in order when it is ready; NULL: the reader ended. */
static struct slot *take_ready(struct nest_pipeline *pipeline)
{
	struct slot *slot;

	while (!(pipeline->queue && pipeline->queue->state == READY) &&
		!(!pipeline->queue && pipeline->ended))
		pthread_cond_wait(&pipeline->ready, &pipeline->lock);
	slot = pipeline->queue;
	if (slot)
		DL_DELETE(pipeline->queue, slot);
	return slot;
}

ssize_t nest_pipeline_read(
	struct nest_pipeline *pipeline, const void **ret_bytes, struct nest_err *err)
{
	struct nest_err *cause;
	struct slot *slot;

	pthread_mutex_lock(&pipeline->lock);
	do {
		if (pipeline->held && atomic_fetch_sub(&pipeline->held->refs, 1) == 1)
			release(pipeline, pipeline->held);
		slot = pipeline->held = take_ready(pipeline);
	} while (slot && slot->err.code == 0 && slot->out_len == 0);
	cause = slot ? &slot->err : &pipeline->err;
	pthread_mutex_unlock(&pipeline->lock);
	if (cause->code < 0) {
		*err = *cause;
		return cause->code;
	}
	if (!slot)
		return 0;
	*ret_bytes = slot->out;
	return (ssize_t)slot->out_len;
}

void *nest_pipeline_bytes(const struct nest_pipeline *pipeline)
{
	return pipeline->held;
}

void nest_pipeline_hold(void *bytes)
{
	struct slot *slot = bytes;

	atomic_fetch_add(&slot->refs, 1);
}

void nest_pipeline_let_go(void *bytes)
{
	struct slot *slot = bytes;
	struct nest_pipeline *pipeline = slot->pipeline;

	if (atomic_fetch_sub(&slot->refs, 1) > 1)
		return;
	pthread_mutex_lock(&pipeline->lock);
	release(pipeline, slot);
	pthread_mutex_unlock(&pipeline->lock);
}
