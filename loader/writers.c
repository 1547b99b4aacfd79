/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner creates files itself, in the order of its source, so that what may follow what is
 * decided by it alone: a name that comes twice, a link to a file, a file where a directory is. Only
 * bytes, modes and times, which nothing else depends on, are left to the threads.
 *
 * One thread at a time writes to a file: the kernel would let no second one in. There are PIECES
 * buffers. When all are under way, the owner writes its next bytes itself instead of waiting. What a
 * decompressor lends is written from where it is. After an error the threads go on taking pieces,
 * but write nothing more.
 */
#include "loader/writers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/err.h"
#include "loader/draft_file.h"
#include "loader/threads.h"

#define BATCH 12u
#define LARGE (32u << 10)
#define PIECES 48u /* 6 MB, of which small files touch little */

struct nest_writers {
	unsigned n_threads;
	pthread_t threads[NEST_THREADS_MAX];
	pthread_mutex_t lock; /* for what follows, and the files' refs */
	pthread_cond_t work;
	pthread_cond_t idle;
	struct nest_writers_piece *queue;
	struct nest_writers_piece *queue_end;
	struct nest_writers_piece *spare;
	unsigned made;
	unsigned queued;
	unsigned pending; /* pieces in the queue or being written */
	bool stop;
	struct nest_err err; /* the first one */
};

/* Ends a file whose last reference was dropped. */
static int end_file(struct nest_draft_file *file, bool failed, struct nest_err *err)
{
	if (!failed)
		return nest_draft_file_end(file, err);
	nest_draft_file_free(file);
	return 0;
}

/*
 * Under the lock: the first piece whose file no other thread writes to, because two in one file
 * would only wait for each other.
 */
static struct nest_writers_piece *find_queued(struct nest_writers *writers)
{
	struct nest_writers_piece *piece = writers->queue;
	struct nest_writers_piece *before = NULL;

	while (piece && piece->file->busy) {
		before = piece;
		piece = piece->next;
	}
	if (!piece)
		return NULL;
	if (before)
		before->next = piece->next;
	else
		writers->queue = piece->next;
	if (writers->queue_end == piece)
		writers->queue_end = before;
	piece->file->busy = true;
	writers->queued--;
	return piece;
}

/* Under the lock. NULL: there will be none any more. */
static struct nest_writers_piece *take_queued(struct nest_writers *writers)
{
	struct nest_writers_piece *piece = find_queued(writers);

	while (!piece && !(writers->stop && !writers->queue)) {
		pthread_cond_wait(&writers->work, &writers->lock);
		piece = find_queued(writers);
	}
	/* The last one at work lets go those that waited for its file. */
	if (!piece)
		pthread_cond_broadcast(&writers->work);
	return piece;
}

/* Under the lock, which it lets go of while it works: for each small file it is taken twice. */
static void write_piece(struct nest_writers *writers, struct nest_writers_piece *piece)
{
	struct nest_draft_file *file = piece->file;
	struct nest_err err = NEST_ERR_INIT;
	bool failed = writers->err.code < 0 || writers->stop;
	bool last;

	pthread_mutex_unlock(&writers->lock);
	if (!failed)
		nest_draft_file_write(file, piece->from, piece->n, piece->offset, &err);
	if (piece->let_go)
		piece->let_go(piece->token);
	pthread_mutex_lock(&writers->lock);
	if (writers->err.code == 0)
		writers->err = err;
	file->busy = false;
	last = --file->refs == 0;
	failed = writers->err.code < 0;
	LL_PREPEND(writers->spare, piece);
	if (last) {
		pthread_mutex_unlock(&writers->lock);
		end_file(file, failed, &err);
		pthread_mutex_lock(&writers->lock);
		if (writers->err.code == 0)
			writers->err = err;
	}
	if (--writers->pending == 0)
		pthread_cond_signal(&writers->idle);
}

static void *run(void *arg)
{
	struct nest_writers *writers = arg;
	struct nest_writers_piece *piece;

	pthread_mutex_lock(&writers->lock);
	while ((piece = take_queued(writers)))
		write_piece(writers, piece);
	pthread_mutex_unlock(&writers->lock);
	return NULL;
}

int nest_writers_new(struct nest_writers **ret, struct nest_err *err)
{
	struct nest_writers *writers = calloc(1, sizeof(*writers));
	unsigned n = nest_threads_count();
	int rc = 0;

	if (!writers)
		return nest_err_set(err, -ENOMEM, "write a code tree");
	pthread_mutex_init(&writers->lock, NULL);
	pthread_cond_init(&writers->work, NULL);
	pthread_cond_init(&writers->idle, NULL);
	while (rc == 0 && writers->n_threads < n) {
		rc = nest_threads_start(
			&writers->threads[writers->n_threads], run, writers, "write", err);
		writers->n_threads += rc == 0;
	}
	if (writers->n_threads == 0) {
		nest_writers_free(writers);
		return rc;
	}
	*ret = writers;
	return 0;
}

void nest_writers_free(struct nest_writers *writers)
{
	struct nest_writers_piece *piece;
	struct nest_writers_piece *next;

	if (!writers)
		return;
	pthread_mutex_lock(&writers->lock);
	writers->stop = true;
	pthread_cond_broadcast(&writers->work);
	pthread_mutex_unlock(&writers->lock);
	for (unsigned i = 0; i < writers->n_threads; i++)
		pthread_join(writers->threads[i], NULL);
	LL_FOREACH_SAFE(writers->spare, piece, next)
		free(piece);
	pthread_cond_destroy(&writers->idle);
	pthread_cond_destroy(&writers->work);
	pthread_mutex_destroy(&writers->lock);
	free(writers);
}

struct nest_writers_piece *nest_writers_take(
	struct nest_writers *writers, struct nest_draft_file *file)
{
	struct nest_writers_piece *piece;

	pthread_mutex_lock(&writers->lock);
	piece = writers->spare;
	if (piece)
		LL_DELETE(writers->spare, piece);
	pthread_mutex_unlock(&writers->lock);
	if (!piece && writers->made < PIECES) {
		piece = malloc(sizeof(*piece));
		writers->made += piece != NULL;
	}
	if (piece) {
		piece->file = file;
		piece->n = 0;
		piece->from = piece->bytes;
		piece->let_go = NULL;
	}
	return piece;
}

void nest_writers_lend(struct nest_writers_piece *piece, const char *bytes, size_t n,
	void (*let_go)(void *token), void *token)
{
	piece->from = bytes;
	piece->n = n;
	piece->let_go = let_go;
	piece->token = token;
}

void nest_writers_kick(struct nest_writers *writers)
{
	pthread_mutex_lock(&writers->lock);
	if (writers->queue)
		pthread_cond_signal(&writers->work);
	pthread_mutex_unlock(&writers->lock);
}

void nest_writers_put(struct nest_writers *writers, struct nest_writers_piece *piece, bool last)
{
	piece->next = NULL;
	pthread_mutex_lock(&writers->lock);
	piece->file->refs += !last;
	writers->pending++;
	if (writers->queue)
		writers->queue_end->next = piece;
	else
		writers->queue = piece;
	writers->queue_end = piece;
	/* To wake a thread costs as much as to write a small file. */
	if (++writers->queued >= BATCH || piece->n >= LARGE)
		pthread_cond_signal(&writers->work);
	pthread_mutex_unlock(&writers->lock);
}

int nest_writers_end(
	struct nest_writers *writers, struct nest_draft_file *file, struct nest_err *err)
{
	bool failed;
	bool last;

	pthread_mutex_lock(&writers->lock);
	last = --file->refs == 0;
	failed = writers->err.code < 0;
	pthread_mutex_unlock(&writers->lock);
	return last ? end_file(file, failed, err) : 0;
}

int nest_writers_check(struct nest_writers *writers, struct nest_err *err)
{
	int rc;

	pthread_mutex_lock(&writers->lock);
	rc = writers->err.code;
	if (rc < 0 && err)
		*err = writers->err;
	pthread_mutex_unlock(&writers->lock);
	return rc;
}

int nest_writers_flush(struct nest_writers *writers, struct nest_err *err)
{
	pthread_mutex_lock(&writers->lock);
	pthread_cond_broadcast(&writers->work);
	while (writers->pending > 0)
		pthread_cond_wait(&writers->idle, &writers->lock);
	pthread_mutex_unlock(&writers->lock);
	return nest_writers_check(writers, err);
}
