/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/err.h"
#include "runtime/funclog.h"
#include "runtime/host_impl.h"

/* A reader of a function's log, known to its host so that none outlives it. */
struct nest_log_reader {
	struct nest_host *host;
	struct nest_funclog_reader *reader;
	void (*line)(void *arg, const char *json, size_t n);
	void (*done)(void *arg);
	void *arg;
	struct nest_log_reader *prev, *next;
};

static void end_reader(struct nest_log_reader *reader)
{
	void (*done)(void *arg) = reader->done;
	void *arg = reader->arg;

	DL_DELETE(reader->host->readers, reader);
	free(reader);
	done(arg);
}

static void on_line(void *arg, const char *json, size_t n)
{
	struct nest_log_reader *reader = arg;

	reader->line(reader->arg, json, n);
}

static void on_done(void *arg)
{
	end_reader(arg);
}

int nest_host_logs_open(struct nest_host *host, const struct nest_log_query *query,
	void (*line)(void *arg, const char *json, size_t n), void (*done)(void *arg), void *arg,
	struct nest_log_reader **ret, struct nest_err *err)
{
	struct nest_lineage *lineage = nest_host_lineage(host, query->function);
	struct nest_log_reader *reader;
	int r;

	if (!lineage)
		return 1;
	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return nest_err_set(err, -ENOMEM, "read the log of '%s'", query->function);
	reader->host = host;
	reader->line = line;
	reader->done = done;
	reader->arg = arg;
	r = nest_funclog_reader_open(lineage->log, query->tail_lines, query->follow, on_line,
		on_done, reader, &reader->reader, err);
	if (r < 0) {
		free(reader);
		return r;
	}
	DL_APPEND(host->readers, reader);
	*ret = reader;
	return 0;
}

void nest_host_logs_pause(struct nest_log_reader *reader, bool pause)
{
	nest_funclog_reader_pause(reader->reader, pause);
}

void nest_host_logs_close(struct nest_log_reader *reader)
{
	nest_funclog_reader_close(reader->reader);
	DL_DELETE(reader->host->readers, reader);
	free(reader);
}

void nest_host_logs_end(struct nest_host *host)
{
	while (host->readers) {
		nest_funclog_reader_close(host->readers->reader);
		end_reader(host->readers);
	}
}
