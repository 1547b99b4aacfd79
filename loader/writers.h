/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_WRITERS_H
#define NEST_LOADER_WRITERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_draft_file;
struct nest_err;

/*
 * Threads that write what one other thread, their *owner*, hands to them: the bytes of files that it
 * has created. Only the owner calls what stands here.
 */
struct nest_writers;

#define NEST_WRITERS_PIECE_BYTES (128u << 10)

/* Bytes on their way into a file. */
struct nest_writers_piece {
	struct nest_draft_file *file;
	uint64_t offset;
	size_t n;
	struct nest_writers_piece *next;
	const char *from;	     /* where the bytes are: in the piece, or lent */
	void (*let_go)(void *token); /* of lent ones; NULL: they are in the piece */
	void *token;
	char bytes[NEST_WRITERS_PIECE_BYTES];
};

/* Starts the threads. The caller owns @ret. */
int nest_writers_new(struct nest_writers **ret, struct nest_err *err);

/* Abandons what isn't written yet, and joins the threads. NULL is fine. Blocks on the disk. */
void nest_writers_free(struct nest_writers *writers);

/* A piece to fill for @file; NULL when all are under way, and the owner had better help. */
struct nest_writers_piece *nest_writers_take(
	struct nest_writers *writers, struct nest_draft_file *file);

/* Makes @bytes, however many, those of an empty @piece; @let_go is called when they are written. */
void nest_writers_lend(struct nest_writers_piece *piece, const char *bytes, size_t n,
	void (*let_go)(void *token), void *token);

/* What was handed over, and perhaps waits for more, is to be written now. */
void nest_writers_kick(struct nest_writers *writers);

/*
 * Hands a piece over. With @last the owner is done with the piece's file as well, whose size, mode
 * and time are set: the file ends when all its pieces are written. Takes @piece, and the file if
 * @last.
 */
void nest_writers_put(struct nest_writers *writers, struct nest_writers_piece *piece, bool last);

/* The owner is done with @file without a last piece. Takes @file. May block on the disk. */
int nest_writers_end(
	struct nest_writers *writers, struct nest_draft_file *file, struct nest_err *err);

/* What the threads came upon so far: 0 or the first error. */
int nest_writers_check(struct nest_writers *writers, struct nest_err *err);

/* Waits until everything is written: 0 or the first error. Blocks on the disk. */
int nest_writers_flush(struct nest_writers *writers, struct nest_err *err);

#endif
