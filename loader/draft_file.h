/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_DRAFT_FILE_H
#define NEST_LOADER_DRAFT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;

/*
 * A new file of a draft, between its creation and its end, which may come on another thread
 * (loader/writers.h). Whoever has it may use it; nobody shares it.
 */
struct nest_draft_file {
	int fd;
	mode_t mode;	  /* that it has; 0: not known */
	uint64_t written; /* where the last written byte ended; UINT64_MAX: not known */
	uint64_t size;	  /* what follows is set before it ends */
	bool executable;
	int64_t mtime_s;
	unsigned refs; /* for loader/writers.c */
	bool busy;     /* the same: a thread writes to it */
	char name[];   /* for errors */
};

/* A file that is open as @fd, which it takes even on failure. The caller owns @ret. Any thread. */
int nest_draft_file_new(
	int fd, const char *name, struct nest_draft_file **ret, struct nest_err *err);

/* Closes it as it is; NULL is fine. Any thread. */
void nest_draft_file_free(struct nest_draft_file *file);

/* Writes @n bytes at @offset. Blocks on the disk. Any thread, several at once. */
int nest_draft_file_write(const struct nest_draft_file *file, const void *bytes, size_t n,
	uint64_t offset, struct nest_err *err);

/* Gives the file its size, mode and time, and frees it. Blocks on the disk. Any thread. */
int nest_draft_file_end(struct nest_draft_file *file, struct nest_err *err);

#endif
