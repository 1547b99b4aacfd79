/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/socket.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "runtime/call_impl.h"
#include "runtime/channel.h"
#include "runtime/frozen.h"
#include "runtime/function.h"
#include "runtime/latency.h"
#include "runtime/output.h"
#include "runtime/room.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"

/* A closed channel means that the process is about to be gone; one that stays is killed. */
#define EXIT_OVERDUE_MS 1000
#define DEADLINES 4 /* that a worker may have set at a time */

void nest_worker_charge(struct nest_worker *worker, uint64_t bytes)
{
	worker->services->memory_bytes += bytes - worker->charged_bytes;
	worker->plan->tally->memory_bytes += bytes - worker->charged_bytes;
	worker->charged_bytes = bytes;
}

static void on_closed(void *arg)
{
	struct nest_worker *worker = arg;
	struct nest_services *services = worker->services;

	if (--worker->open_handles > 0)
		return;
	nest_deadlines_clear(services->deadlines, &worker->stage_deadline);
	nest_deadlines_clear(services->deadlines, &worker->idle_deadline);
	nest_deadlines_clear(services->deadlines, &worker->ping_deadline);
	nest_deadlines_clear(services->deadlines, &worker->pause_deadline);
	nest_deadlines_release(services->deadlines, DEADLINES);
	nest_streams_done(&worker->streams);
	free(worker);
	nest_services_release(services);
}

static void close_handles(struct nest_worker *worker)
{
	if (worker->channel)
		nest_channel_close(worker->channel, on_closed, worker);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(worker->outputs); i++) {
		if (worker->outputs[i])
			nest_output_close(worker->outputs[i], on_closed, worker);
	}
}

/*
 * A clone that never became ready is its snapshot's failure, not the function's; what happens to
 * one that stands by is neither's. One of the runtime's snapshot had only its function left to load.
 */
static bool is_failed_clone(const struct nest_worker *worker)
{
	return worker->clone && !worker->ready_us && !(worker->standby && worker->stood) &&
	       !(worker->bare && worker->born);
}

static enum nest_snapshot_failure clone_cause(const struct nest_worker_end *end)
{
	if (end->error_json)
		return NEST_SNAPSHOT_FAILURE_HOOK;
	if (end->code == -ENOENT)
		return NEST_SNAPSHOT_FAILURE_MISSING;
	if (end->code == -EBADMSG || end->code == -ESTALE)
		return NEST_SNAPSHOT_FAILURE_DAMAGED;
	return end->code == -ETIMEDOUT ? NEST_SNAPSHOT_FAILURE_TIMEOUT
				       : NEST_SNAPSHOT_FAILURE_RESTORE;
}

void nest_worker_end(struct nest_worker *worker, const struct nest_worker_end *end)
{
	struct nest_worker_end told = *end;

	if (worker->ended)
		return;
	worker->ended = true;
	if (is_failed_clone(worker) && !told.was_ready) {
		told.clone_failed = true;
		nest_frozen_failed(worker->source, clone_cause(end), !worker->standby,
			end->detail && *end->detail ? end->detail : end->message);
	}
	worker->events->ended(worker->arg, worker, &told);
}

/* ---- death ---- */

static void set_dying(struct nest_worker *worker)
{
	worker->stage = NEST_WORKER_STAGE_DYING;
	nest_deadlines_clear(worker->services->deadlines, &worker->stage_deadline);
	nest_deadlines_clear(worker->services->deadlines, &worker->idle_deadline);
	nest_deadlines_clear(worker->services->deadlines, &worker->ping_deadline);
	nest_deadlines_clear(worker->services->deadlines, &worker->pause_deadline);
}

static bool can_move(const struct nest_worker *worker, const struct nest_call *call)
{
	return !call->detached && !call->moved && !call->body_sent &&
	       !nest_streams_begun(&worker->streams, call);
}

void nest_worker_fail_open(
	struct nest_worker *worker, enum nest_failure_kind kind, const char *message)
{
	/* The newest first: those that go back to the queue's head keep their order. */
	while (worker->streams.calls) {
		struct nest_call *call = worker->streams.calls->prev;
		bool move = can_move(worker, call);

		nest_streams_forget(&worker->streams, call);
		if (move) {
			call->moved = true;
			worker->events->unbegun(worker->arg, call);
			continue;
		}
		if (!call->detached)
			nest_call_fail(call, kind, 0, "%s", message);
		nest_call_free(call);
	}
}

void nest_worker_report(struct nest_worker *worker, const char *message, const char *detail)
{
	const struct nest_funclog_origin origin = {
		.version = worker->plan->spec->version,
		.worker = worker->id,
		.level = "error",
	};

	if (is_failed_clone(worker) || worker->plan->to_freeze)
		return; /* told once, as its snapshot's failure */
	nest_funclog_write(worker->plan->log, &origin, message, strlen(message));
	nest_services_event(worker->services, NEST_LOG_WARN, "%s%s%s (worker %llu, pid %d)",
		message, *detail ? ": " : "", detail, (unsigned long long)worker->id,
		(int)worker->pid);
}

static void kill_now(struct nest_worker *worker)
{
	set_dying(worker);
	worker->killed = true;
	if (worker->cell)
		nest_cell_kill(worker->cell);
}

void nest_worker_count_restart(struct nest_worker *worker, enum nest_restart_cause cause)
{
	if (!is_failed_clone(worker))
		worker->plan->tally->restarts_total[cause]++;
}

void nest_worker_doom(
	struct nest_worker *worker, enum nest_restart_cause cause, const char *message)
{
	struct nest_worker_end end = {
		.was_ready = worker->ready_us != 0,
		.barren = worker->requests_total == 0,
		.kind = NEST_FAILURE_INIT,
		.final = true,
		.message = message,
		.code = cause == NEST_RESTART_INIT ? -ETIMEDOUT : 0,
	};

	if (worker->stage == NEST_WORKER_STAGE_DYING)
		return;
	kill_now(worker);
	nest_worker_count_restart(worker, cause);
	nest_worker_report(worker, message, "the worker is killed");
	nest_worker_end(worker, &end);
	nest_worker_fail_open(worker, NEST_FAILURE_CRASHED, message);
}

void nest_worker_kill(struct nest_worker *worker, enum nest_failure_kind kind, const char *message)
{
	struct nest_worker_end end = {
		.was_ready = true, /* it did nothing wrong */
		.message = message,
	};

	if (worker->stage != NEST_WORKER_STAGE_DYING || !worker->killed)
		kill_now(worker);
	nest_worker_end(worker, &end);
	nest_worker_fail_open(worker, kind, message);
}

static void on_exit_overdue(void *arg)
{
	struct nest_worker *worker = arg;

	if (worker->cell)
		nest_cell_kill(worker->cell);
}

void nest_worker_await_exit(struct nest_worker *worker)
{
	set_dying(worker);
	worker->stage_deadline.cb = on_exit_overdue;
	nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
		nest_clock_mono_us() + EXIT_OVERDUE_MS * 1000);
}

static void on_channel_gone(void *arg, int code, const struct nest_err *why)
{
	struct nest_worker *worker = arg;
	char message[640];

	if (worker->killed)
		return;
	if (code == -EPROTO) {
		snprintf(message, sizeof(message), "function '%s' broke the worker protocol: %s",
			worker->plan->spec->name, nest_err_text(why));
		nest_worker_doom(worker, NEST_RESTART_PROTOCOL, message);
		return;
	}
	nest_worker_await_exit(worker);
}

struct cause {
	enum nest_restart_cause restart;
	enum nest_failure_kind kind;
	int code; /* of a cell that never ran */
	char text[128];
	const char *detail; /* for the operator's eyes only */
};

static void name_cause(
	const struct nest_worker *worker, const struct nest_cell_exit *how, struct cause *ret)
{
	const char *signal_name;

	ret->restart = NEST_RESTART_EXIT;
	ret->kind = NEST_FAILURE_CRASHED;
	ret->detail = "";
	ret->code = 0;
	switch (how->cause) {
	case NEST_CELL_EXITED:
		snprintf(ret->text, sizeof(ret->text), "exited with code %d", how->status);
		break;
	case NEST_CELL_SIGNALED:
		ret->restart = NEST_RESTART_SIGNAL;
		signal_name = sigabbrev_np(how->status);
		snprintf(ret->text, sizeof(ret->text), "was killed by signal %d (SIG%s)",
			how->status, signal_name ? signal_name : "?");
		break;
	case NEST_CELL_OOM:
		ret->restart = NEST_RESTART_OOM;
		ret->kind = NEST_FAILURE_OOM;
		snprintf(ret->text, sizeof(ret->text), "used more than its %llu MB of memory",
			(unsigned long long)(worker->plan->memory_bytes >> 20));
		break;
	case NEST_CELL_KILLED:
		snprintf(ret->text, sizeof(ret->text), "closed its channel and did not exit");
		break;
	case NEST_CELL_LOST:
		ret->kind = NEST_FAILURE_UNAVAILABLE;
		snprintf(ret->text, sizeof(ret->text), "was lost");
		ret->detail = "the spawner is gone";
		break;
	case NEST_CELL_FAILED:
		ret->kind = NEST_FAILURE_UNAVAILABLE;
		snprintf(ret->text, sizeof(ret->text), "could not be started");
		ret->detail = nest_err_text(how->err);
		ret->code = how->err ? how->err->code : 0;
		break;
	}
}

static void end_start(struct nest_worker *worker, const struct cause *cause)
{
	char message[640];
	struct nest_worker_end end = {
		.kind = cause->kind == NEST_FAILURE_CRASHED ? NEST_FAILURE_INIT : cause->kind,
		.message = message,
		.detail = cause->detail,
		.code = cause->code,
	};

	snprintf(message, sizeof(message), "function '%s' %s%s", worker->plan->spec->name,
		cause->text, worker->pid ? " before it was ready" : "");
	nest_worker_count_restart(worker, cause->restart);
	nest_worker_report(worker, message, cause->detail);
	nest_worker_end(worker, &end);
}

static void end_ready(
	struct nest_worker *worker, const struct nest_cell_exit *how, const struct cause *cause)
{
	bool drained =
		worker->leaving && worker->streams.live == 0 && how->cause == NEST_CELL_EXITED;
	struct nest_worker_end end = { .was_ready = true,
		.barren = !drained && worker->requests_total == 0 };
	char message[640], had[32];

	snprintf(message, sizeof(message), "function '%s' %s", worker->plan->spec->name,
		cause->text);
	if (!drained) {
		worker->plan->tally->restarts_total[cause->restart]++;
		snprintf(had, sizeof(had), "it had %u requests", worker->streams.live);
		nest_worker_report(worker, message, *cause->detail ? cause->detail : had);
	}
	end.message = message;
	nest_worker_end(worker, &end);
	snprintf(message, sizeof(message), "function '%s' %s while it had the request",
		worker->plan->spec->name, cause->text);
	/* what can't be given to another worker has begun: "not now" would ask for it to be sent again */
	nest_worker_fail_open(worker,
		cause->kind == NEST_FAILURE_UNAVAILABLE ? NEST_FAILURE_CRASHED : cause->kind,
		message);
}

/*
 * What the process wrote before it ended is still to be read: its answers, and what it printed,
 * which is kept of one that was killed too.
 */
static void read_the_rest(struct nest_worker *worker)
{
	if (worker->channel && !worker->killed) /* else no cell was found for it, or nobody waits */
		nest_channel_finish(worker->channel);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(worker->outputs); i++) {
		struct nest_funclog_origin origin = {
			.version = worker->plan->spec->version,
			.worker = worker->id,
			.stream = (int)i + 1,
		};

		if (!worker->outputs[i])
			continue;
		nest_output_finish(worker->outputs[i]);
		nest_funclog_pipe_done(worker->plan->log, &worker->pipes[i], &origin);
	}
}

static void on_exited(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg)
{
	struct nest_worker *worker = arg;
	struct cause cause;

	(void)cell;
	worker->cell = NULL;
	read_the_rest(worker);
	if (!worker->killed) {
		name_cause(worker, how, &cause);
		if (worker->ready_us)
			end_ready(worker, how, &cause);
		else if (!worker->ended)
			end_start(worker, &cause);
	}
	set_dying(worker);
	nest_worker_charge(worker, 0);
	worker->services->workers--;
	if (worker->measured)
		nest_take_ptr(worker->measured)(worker->measured_arg);
	worker->events->gone(worker->arg, worker);
	close_handles(worker);
	on_closed(worker);
}

/* ---- birth ---- */

static void on_started(struct nest_cell *cell, pid_t pid, void *arg)
{
	struct nest_worker *worker = arg;

	(void)cell;
	worker->pid = pid;
	worker->born = true;
	if (worker->clone)
		nest_worker_restored(worker);
	nest_worker_tell_rested(worker);
}

static void on_init_overdue(void *arg)
{
	struct nest_worker *worker = arg;
	char message[256];

	snprintf(message, sizeof(message), "function '%s' was not ready within %llu ms",
		worker->plan->spec->name,
		(unsigned long long)(worker->stage_deadline.at_us - worker->start_us + 500) / 1000);
	nest_worker_doom(worker, NEST_RESTART_INIT, message);
}

static void on_frame(void *arg, const struct nest_frame *frame)
{
	nest_worker_frame(arg, frame);
}

static const struct nest_channel_events channel_events = {
	.frame = on_frame,
	.gone = on_channel_gone,
};

static const struct nest_cell_events cell_events = {
	.started = on_started,
	.exited = on_exited,
};

static void on_output(void *arg, int stream, const char *bytes, size_t n)
{
	nest_worker_output(arg, stream, bytes, n);
}

/* The ends that the process gets; ours belong to the worker. */
struct ends {
	int channel;
	int outputs[2];
};

static void close_ends(struct ends *ends)
{
	nest_cleanup_close(&ends->channel);
	nest_cleanup_close(&ends->outputs[0]);
	nest_cleanup_close(&ends->outputs[1]);
}

int nest_worker_open_channel(struct nest_worker *worker, int fd, struct nest_err *err)
{
	int r = nest_channel_open(
		worker->services->wire, fd, &channel_events, worker, &worker->channel, err);

	if (r < 0)
		return r;
	worker->open_handles++;
	worker->streams.channel = worker->channel;
	return 0;
}

static int open_channel(struct nest_worker *worker, struct ends *ends, struct nest_err *err)
{
	int fds[2], r;

	r = nest_fd_socketpair(SOCK_STREAM, fds, err);
	if (r < 0)
		return r;
	ends->channel = fds[1];
	r = nest_worker_open_channel(worker, fds[0], err);
	if (r < 0)
		close(fds[0]);
	return r;
}

static int open_ends(struct nest_worker *worker, struct ends *ends, struct nest_err *err)
{
	int r = open_channel(worker, ends, err);

	for (int i = 0; i < 2 && r == 0; i++) {
		r = nest_output_open(worker->services->loop, worker->services->wire, on_output,
			worker, i + 1, &worker->outputs[i], &ends->outputs[i], err);
		if (r == 0)
			worker->open_handles++;
	}
	return r;
}

/* A host name has no underscore and at most 63 characters. */
static void name_host(
	const struct nest_function_spec *spec, char ret[static NEST_FUNCTION_NAME_MAX])
{
	snprintf(ret, NEST_FUNCTION_NAME_MAX, "%s", spec->name);
	for (char *c = ret; *c; c++)
		*c = *c == '_' ? '-' : *c;
}

static void describe_cell(const struct nest_worker_plan *plan, struct nest_cell_spec *ret)
{
	const struct nest_function_spec *spec = plan->spec;

	*ret = (struct nest_cell_spec){
		.network = spec->network_none ? NEST_CELL_NETWORK_NONE : NEST_CELL_NETWORK_POD,
		.uid = plan->uid,
		.memory_bytes = plan->memory_bytes,
		.tmp_bytes = spec->tmp_bytes,
		.pids = spec->pids,
		.cpu_milli = spec->cpu_milli,
		.nofile = spec->nofile,
		.code_fd = plan->code_fd,
		.channel_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.snapshot = plan->to_freeze,
		.argv = plan->argv,
		.envp = plan->envp,
	};
}

int nest_worker_put_init(struct nest_worker *worker)
{
	char *payload;
	int r;

	if (!worker->plan->init)
		return 0;
	r = nest_channel_put(
		worker->channel, NEST_FRAME_INIT, false, 0, worker->plan->init_len, &payload);

	if (r == 0)
		memcpy(payload, worker->plan->init, worker->plan->init_len);
	return r;
}

static int start_plainly(
	struct nest_worker *worker, struct nest_cell_spec *cell, struct nest_err *err)
{
	struct ends ends = { .channel = -1, .outputs = { -1, -1 } };
	int r = open_ends(worker, &ends, err);

	if (r == 0 && nest_worker_put_init(worker) < 0)
		r = nest_err_set(err, -ENOMEM, "send a worker its INIT");
	cell->channel_fd = ends.channel;
	cell->stdout_fd = ends.outputs[0];
	cell->stderr_fd = ends.outputs[1];
	if (r == 0)
		r = nest_cell_start(
			worker->services->sandbox, cell, &cell_events, worker, &worker->cell, err);
	close_ends(&ends);
	return r;
}

/* One rung: 0, -EAGAIN, or 1: the next one is to be tried. */
static int try_clone(
	struct nest_worker *worker, struct nest_cell_spec *cell, bool bare, struct nest_err *err)
{
	struct nest_frozen *source = bare ? worker->plan->runtime : worker->plan->frozen;
	const char *key = source ? nest_frozen_next(source) : NULL;
	int r;

	worker->bare = bare;
	worker->source = source;
	if (!key)
		return 1;
	r = nest_worker_restore(worker, cell, &cell_events, key, err);
	if (r == 0 || r == -EAGAIN)
		return r;
	nest_frozen_failed(source, NEST_SNAPSHOT_FAILURE_RESTORE, true, nest_err_text(err));
	nest_frozen_next(source); /* this start is the plain one */
	return 1;
}

/* The ladder: a clone of the function, or of its runtime, where there is a snapshot; a plain start. */
static int climb(struct nest_worker *worker, struct nest_cell_spec *cell, struct nest_err *err)
{
	int r = try_clone(worker, cell, false, err);

	if (r == 1)
		r = try_clone(worker, cell, true, err);
	if (r != 1)
		return r;
	worker->bare = false;
	return cell->snapshot ? nest_worker_start_to_freeze(worker, cell, &cell_events, err)
			      : start_plainly(worker, cell, err);
}

/* With @ahead it is to stand by. */
static int bring_up(
	struct nest_worker *worker, const struct nest_worker_ahead *ahead, struct nest_err *err)
{
	const struct nest_worker_plan *plan = worker->plan;
	char hostname[NEST_FUNCTION_NAME_MAX];
	struct nest_cell_spec cell;
	int r;

	name_host(plan->spec, hostname);
	describe_cell(plan, &cell);
	cell.hostname = hostname;
	worker->source = plan->frozen;
	if (ahead) {
		worker->standby = cell.standby = true;
		worker->prefetched = cell.prefetch = ahead->prefetch;
		r = nest_worker_restore(worker, &cell, &cell_events, ahead->key, err);
	} else {
		r = climb(worker, &cell, err);
	}
	if (r < 0)
		nest_err_wrap(err, "start a worker of function '%s'", plan->spec->name);
	return r;
}

static int start(struct nest_services *services, const struct nest_worker_plan *plan,
	const struct nest_worker_ahead *ahead, const struct nest_worker_events *events, void *arg,
	struct nest_worker **ret, struct nest_err *err)
{
	struct nest_worker *worker;
	int r;

	if (nest_deadlines_reserve(services->deadlines, DEADLINES) < 0)
		return nest_err_set(err, -ENOMEM, "start a worker");
	worker = calloc(1, sizeof(*worker));
	if (!worker || nest_streams_init(&worker->streams, plan->concurrency) < 0) {
		nest_deadlines_release(services->deadlines, DEADLINES);
		free(worker);
		return nest_err_set(err, -ENOMEM, "start a worker");
	}
	worker->services = services;
	worker->plan = plan;
	worker->events = events;
	worker->arg = arg;
	worker->link.worker = worker;
	worker->streams.buffered_max = services->config->response_bytes;
	worker->start_us = nest_clock_mono_us();
	nest_services_hold(services);
	worker->open_handles = 1; /* its cell's: a clone that fails may never have another */
	r = bring_up(worker, ahead, err);
	if (r < 0) {
		close_handles(worker);
		on_closed(worker);
		return r;
	}
	nest_worker_charge(worker, nest_room_estimate(plan));
	worker->id = ++services->last_worker_id;
	services->workers++;
	worker->stage_deadline.cb = on_init_overdue;
	worker->stage_deadline.arg = worker;
	nest_deadlines_set(services->deadlines, &worker->stage_deadline,
		worker->start_us + (worker->clone ? services->config->restore_timeout_ms
						  : plan->spec->init_timeout_ms) *
					   1000ull);
	*ret = worker;
	return 0;
}

int nest_worker_start(struct nest_services *services, const struct nest_worker_plan *plan,
	const struct nest_worker_events *events, void *arg, struct nest_worker **ret,
	struct nest_err *err)
{
	return start(services, plan, NULL, events, arg, ret, err);
}

int nest_worker_start_standby(struct nest_services *services, const struct nest_worker_plan *plan,
	const struct nest_worker_ahead *ahead, const struct nest_worker_events *events, void *arg,
	struct nest_worker **ret, struct nest_err *err)
{
	return start(services, plan, ahead, events, arg, ret, err);
}
