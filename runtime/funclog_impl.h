/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_FUNCLOG_IMPL_H
#define NEST_RUNTIME_FUNCLOG_IMPL_H

#include "base/buf.h"
#include "runtime/funclog.h"

#include <utlist.h>

/* What funclog.c (writing) and funclog_reader.c (reading) share; nobody else includes this. */
struct nest_funclog {
	struct nest_funclog_store *store;
	char *name;
	unsigned refs;
	uint64_t max_bytes;
	int fd; /* current segment; -1 while none could be opened */
	uint64_t segment_bytes;
	struct nest_buf pending; /* lines not yet handed to the disk */
	struct nest_buf writing; /* lines that the thread pool writes */
	uv_fs_t write_req;
	bool write_active;
	bool removed;
	uint64_t dropped_bytes;
	uint64_t dropped_untold; /* of them, not yet said in the log */
	uint64_t second;	 /* loop time of the present rate window, s */
	uint64_t second_bytes;	 /* taken in it */
	struct nest_funclog_reader *readers;
	struct nest_funclog *prev;
	struct nest_funclog *next;
};

struct nest_funclog_store {
	uv_loop_t *loop;
	char *dir;
	int dirfd;
	uint32_t line_bytes;
	struct nest_funclog *logs;
	bool closing;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* Hands one line (without newline) to the log's followers. */
void nest_funclog_reader_tell(struct nest_funclog *log, const char *json, size_t n);

/* Tells every reader of a removed log that it is done. */
void nest_funclog_reader_finish_all(struct nest_funclog *log);

/* Opens a segment for reading: @older picks the rotated one. -1 when there is none. */
int nest_funclog_open_segment(const struct nest_funclog *log, bool older);

#endif
