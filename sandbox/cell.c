/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "sandbox/client.h"
#include "sandbox/footing.h"
#include "sandbox/sandbox.h"

/*
 * So many cells are measured at once. The spawner does one thing after the other: a start, or a kill,
 * must not wait behind the measuring of all.
 */
#define MEASURING_MAX 4u

/* ---- the start message ---- */

static int add_string(struct nest_buf *strings, const char *head, const char *tail)
{
	int r = nest_buf_puts(strings, head);

	return r < 0 ? r : nest_buf_append(strings, tail, strlen(tail) + 1);
}

/* In a cell without a root of its own /runtime is nowhere: the real directory takes its place. */
static int add_argument(
	struct nest_buf *strings, const struct nest_sandbox_terms *terms, const char *argument)
{
	size_t n = strlen(NEST_SANDBOX_RUNTIME_DIR);
	bool ours = strncmp(argument, NEST_SANDBOX_RUNTIME_DIR "/", n + 1) == 0;

	if (ours && !(terms->have & NEST_FOOTING_MOUNT))
		return add_string(strings, terms->runtimes_dir, argument + n);
	return add_string(strings, "", argument);
}

static int add_directories(
	struct nest_buf *strings, const struct nest_sandbox_terms *terms, int code_fd)
{
	bool own_root = terms->have & NEST_FOOTING_MOUNT;
	char function_dir[PATH_MAX] = NEST_SANDBOX_FUNCTION_DIR;
	char link[32];
	int r;

	if (!own_root) {
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", code_fd);
		n = readlink(link, function_dir, sizeof(function_dir) - 1);
		if (n < 0)
			return -errno;
		function_dir[n] = '\0';
	}
	r = add_string(strings, "NESTLET_FUNCTION_DIR=", function_dir);
	if (r < 0)
		return r;
	return add_string(strings,
		"NESTLET_RUNTIME_DIR=", own_root ? NEST_SANDBOX_RUNTIME_DIR : terms->runtimes_dir);
}

/* Appends all strings and counts them. */
static int add_strings(struct nest_buf *strings, const struct nest_sandbox_terms *terms,
	const struct nest_cell_spec *spec, struct nest_message_start *start)
{
	int r = 0;

	for (; r == 0 && spec->argv[start->argc]; start->argc++)
		r = add_argument(strings, terms, spec->argv[start->argc]);
	for (; r == 0 && spec->envp[start->envc]; start->envc++)
		r = add_string(strings, "", spec->envp[start->envc]);
	start->envc += 2;
	return r < 0 ? r : add_directories(strings, terms, spec->code_fd);
}

static void fill_numbers(struct nest_message_start *start, const struct nest_cell_spec *spec)
{
	start->memory_bytes = spec->memory_bytes;
	start->tmp_bytes = spec->tmp_bytes;
	start->network = spec->network;
	start->uid = spec->uid;
	start->pids = spec->pids;
	start->cpu_milli = spec->cpu_milli;
	start->nofile = spec->nofile;
	start->snapshot = spec->snapshot;
	start->standby = !spec->standby	  ? NEST_MESSAGE_STANDBY_NOT
			 : spec->prefetch ? NEST_MESSAGE_STANDBY_COPY
					  : NEST_MESSAGE_STANDBY_MAP;
}

static int build_start(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const char *key, struct nest_buf *ret, struct nest_err *err)
{
	struct nest_message_start start = { .argc = 0 };
	struct nest_message_start *whole;
	size_t len;
	int r = nest_buf_append(ret, &start, sizeof(start));

	if (strlen(spec->hostname) > NEST_MESSAGE_HOSTNAME_MAX)
		return nest_err_say(err, -EINVAL, "hostname has more than %d characters",
			NEST_MESSAGE_HOSTNAME_MAX);
	if (r == 0)
		r = add_strings(ret, sandbox->terms, spec, &start);
	if (r < 0)
		return nest_err_set(err, r, "gather arguments and environment");
	len = ret->len;
	if (len - sizeof(start) > NEST_MESSAGE_STRINGS_MAX)
		return nest_err_say(err, -EINVAL, "arguments and environment exceed %u bytes",
			NEST_MESSAGE_STRINGS_MAX);
	fill_numbers(&start, spec);
	start.strings_bytes = (uint32_t)(len - sizeof(start));
	memcpy(start.hostname, spec->hostname, strlen(spec->hostname));
	if (key)
		memcpy(start.key, key, NEST_MESSAGE_KEY_CHARS);
	nest_message_begin(&start.head, key ? NEST_MESSAGE_RESTORE : NEST_MESSAGE_START, len,
		sandbox->next_id + 1);
	memcpy(nest_buf_bytes(ret), &start, sizeof(start));
	whole = (struct nest_message_start *)nest_buf_bytes(ret);
	return nest_message_check_start(whole, len, &sandbox->terms->uids, err);
}

/* ---- the agent's verbs ---- */

static struct nest_cell *add_cell(
	struct nest_sandbox *sandbox, const struct nest_cell_events *events, void *arg)
{
	struct nest_cell *cell = calloc(1, sizeof(*cell));

	if (!cell)
		return NULL;
	cell->id = sandbox->next_id + 1;
	cell->sandbox = sandbox;
	cell->events = *events;
	cell->arg = arg;
	HASH_ADD(hh, sandbox->cells, id, sizeof(cell->id), cell);
	if (!cell->hh.tbl) {
		free(cell);
		return NULL;
	}
	sandbox->next_id++;
	return cell;
}

static int send_bare(struct nest_cell *cell, uint32_t type, struct nest_err *err)
{
	struct nest_message_head head;

	nest_message_begin(&head, type, sizeof(head), cell->id);
	return nest_client_send(cell->sandbox, &head, NULL, 0, err);
}

/* What can't be sent is tried again with the next one. */
static void measure_next(struct nest_sandbox *sandbox)
{
	while (sandbox->to_measure && sandbox->measuring < MEASURING_MAX) {
		struct nest_cell *cell = sandbox->to_measure;

		if (send_bare(cell, NEST_MESSAGE_MEASURE, NULL) < 0)
			return;
		DL_DELETE(sandbox->to_measure, cell);
		cell->measuring = true;
		sandbox->measuring++;
	}
}

static void stop_measuring(struct nest_cell *cell)
{
	if (cell->measuring)
		cell->sandbox->measuring--;
	else if (cell->measured)
		DL_DELETE(cell->sandbox->to_measure, cell);
	cell->measuring = false;
	cell->measured = NULL;
}

static void remove_cell(struct nest_cell *cell)
{
	stop_measuring(cell);
	HASH_DEL(cell->sandbox->cells, cell);
}

int nest_cell_start(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const struct nest_cell_events *events, void *arg, struct nest_cell **ret,
	struct nest_err *err)
{
	if (spec->snapshot)
		return nest_err_say(
			err, -EINVAL, "a cell whose worker is to be dumped wires it itself");
	return nest_cell_begin(sandbox, spec, NULL, events, arg, ret, err);
}

int nest_cell_begin(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const char *key, const struct nest_cell_events *events, void *arg, struct nest_cell **ret,
	struct nest_err *err)
{
	int fds[NEST_MESSAGE_FD_COUNT] = {
		[NEST_MESSAGE_FD_CODE] = spec->code_fd,
		[NEST_MESSAGE_FD_CHANNEL] = spec->channel_fd,
		[NEST_MESSAGE_FD_STDOUT] = spec->stdout_fd,
		[NEST_MESSAGE_FD_STDERR] = spec->stderr_fd,
	};
	struct nest_buf message = NEST_BUF_INIT;
	struct nest_cell *cell = NULL;
	int r = 0;

	if (HASH_COUNT(sandbox->cells) >= sandbox->terms->max_cells)
		r = nest_err_say(
			err, -EAGAIN, "all %u cells are in use", sandbox->terms->max_cells);
	if (r == 0)
		r = build_start(sandbox, spec, key, &message, err);
	if (r == 0) {
		cell = add_cell(sandbox, events, arg);
		r = cell ? nest_client_send(sandbox, nest_buf_bytes(&message), fds,
				   key || spec->snapshot ? 1 : NEST_MESSAGE_FD_COUNT, err)
			 : nest_err_set(err, -ENOMEM, "start a cell");
	}
	nest_buf_done(&message);
	if (r == 0) {
		*ret = cell;
		return 0;
	}
	if (cell) {
		remove_cell(cell);
		free(cell);
	}
	return r;
}

void nest_cell_kill(struct nest_cell *cell)
{
	struct nest_err err = NEST_ERR_INIT;
	int r;

	if (cell->kill_asked)
		return;
	cell->kill_asked = true;
	r = send_bare(cell, NEST_MESSAGE_KILL, &err);
	/* a cell that can't be told to die would live on: then all die with the spawner */
	if (r < 0 && r != -EPIPE)
		nest_client_break(cell->sandbox, &err);
}

int nest_cell_freeze(struct nest_cell *cell)
{
	return send_bare(cell, NEST_MESSAGE_FREEZE, NULL);
}

int nest_cell_thaw(struct nest_cell *cell)
{
	return send_bare(cell, NEST_MESSAGE_THAW, NULL);
}

int nest_cell_measure(struct nest_cell *cell,
	void (*cb)(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg),
	void *arg)
{
	struct nest_sandbox *sandbox = cell->sandbox;
	int r = cell->measured ? -EALREADY : 0;

	if (sandbox->over || sandbox->closing)
		return -EPIPE;
	if (r == 0) {
		cell->measured = cb;
		cell->measured_arg = arg;
		DL_APPEND(sandbox->to_measure, cell);
	}
	measure_next(sandbox);
	return r;
}

/* ---- what the spawner says of cells ---- */

void nest_cell_end(struct nest_cell *cell, const struct nest_cell_exit *how)
{
	remove_cell(cell);
	measure_next(cell->sandbox);
	cell->kill_asked = true; /* whoever kills it in its callback asks for nothing */
	cell->events.exited(cell, how, cell->arg);
	free(cell);
}

static void on_exited(struct nest_cell *cell, const struct nest_message_exited *exited)
{
	struct nest_cell_exit how = {
		.cause = exited->cause,
		.status = exited->status,
		.memory_peak_bytes = exited->memory_peak_bytes,
		.cpu_us = exited->cpu_us,
		.err = exited->cause == NEST_CELL_FAILED ? &exited->err : NULL,
	};

	nest_cell_end(cell, &how);
}

static void on_usage(struct nest_cell *cell, const struct nest_message_usage *message)
{
	struct nest_cell_usage usage = {
		.memory_bytes = message->memory_bytes,
		.memory_peak_bytes = message->memory_peak_bytes,
		.private_bytes = message->private_bytes,
		.shared_bytes = message->shared_bytes,
		.cpu_us = message->cpu_us,
		.pids = message->pids,
	};
	void (*cb)(struct nest_cell *, const struct nest_cell_usage *, void *) = cell->measured;

	if (!cell->measuring)
		return;
	stop_measuring(cell);
	measure_next(cell->sandbox);
	cb(cell, &usage, cell->measured_arg);
}

/* The fixed size of what the spawner says of a cell, 0 for what it doesn't. */
static size_t size_of(uint32_t type)
{
	switch (type) {
	case NEST_MESSAGE_STARTED:
		return sizeof(struct nest_message_started);
	case NEST_MESSAGE_EXITED:
		return sizeof(struct nest_message_exited);
	case NEST_MESSAGE_USAGE:
		return sizeof(struct nest_message_usage);
	default:
		return 0;
	}
}

int nest_cell_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	struct nest_err *err)
{
	uint32_t type = message->head.type;
	struct nest_cell *cell;
	int r = nest_message_check(message, n, type, size_of(type), err);

	if (r < 0)
		return r;
	HASH_FIND(hh, sandbox->cells, &message->head.cell, sizeof(message->head.cell), cell);
	if (!cell)
		return nest_err_say(err, -EBADMSG, "the spawner speaks of an unknown cell");
	if (type == NEST_MESSAGE_EXITED && message->exited.cause > NEST_CELL_FAILED)
		return nest_err_say(err, -EBADMSG, "the spawner told no cause of an exit");
	if (type == NEST_MESSAGE_STARTED)
		cell->events.started(cell, message->started.pid, cell->arg);
	else if (type == NEST_MESSAGE_EXITED)
		on_exited(cell, &message->exited);
	else
		on_usage(cell, &message->usage);
	return 0;
}
