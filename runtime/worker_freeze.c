/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/random.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/channel.h"
#include "runtime/frozen.h"
#include "runtime/function.h"
#include "runtime/output.h"
#include "runtime/services.h"
#include "runtime/worker_impl.h"
#include "sandbox/sandbox.h"
#include "sandbox/snapshot.h"

/* A worker into a snapshot, and clones out of it. */

#define ENTROPY_BYTES 64
#define REST_EXTRA_MS 10000 /* beyond its hooks: garbage, the handler's own threads */
#define DUMP_MS 120000

/* ---- frozen ---- */

static void on_rest_overdue(void *arg)
{
	struct nest_worker *worker = arg;
	char message[256];

	snprintf(message, sizeof(message), "function '%s' did not come to rest to be frozen",
		worker->plan->spec->name);
	nest_worker_doom(worker, NEST_RESTART_HUNG, message);
}

static void on_dump_overdue(void *arg)
{
	struct nest_worker *worker = arg;
	char message[256];

	snprintf(message, sizeof(message), "the dump of function '%s' took longer than %u s",
		worker->plan->spec->name, DUMP_MS / 1000u);
	nest_worker_doom(worker, NEST_RESTART_HUNG, message);
}

static void set_limit(struct nest_worker *worker, void (*cb)(void *arg), uint64_t ms)
{
	worker->stage_deadline.cb = cb;
	nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
		nest_clock_mono_us() + ms * 1000);
}

void nest_worker_begin_bare(struct nest_worker *worker)
{
	nest_deadlines_clear(worker->services->deadlines, &worker->stage_deadline);
	worker->stage = NEST_WORKER_STAGE_READY;
	worker->ready_us = nest_clock_mono_us();
	worker->events->ready(worker->arg, worker);
}

int nest_worker_checkpoint(struct nest_worker *worker)
{
	uint32_t hook_ms = worker->services->config->hook_timeout_ms;
	char text[64], *payload;
	int n = snprintf(text, sizeof(text), "{\"hookTimeoutMs\":%u}", hook_ms), r;

	if (worker->stage != NEST_WORKER_STAGE_READY || worker->streams.open > 0)
		return -EBUSY;
	r = nest_channel_put(
		worker->channel, NEST_FRAME_CHECKPOINT, false, 0, (uint32_t)n, &payload);
	if (r < 0)
		return r;
	memcpy(payload, text, (size_t)n);
	/* From now on nothing may lie in its channel: no PING, no DRAIN. */
	nest_deadlines_clear(worker->services->deadlines, &worker->ping_deadline);
	nest_deadlines_clear(worker->services->deadlines, &worker->idle_deadline);
	worker->stage = NEST_WORKER_STAGE_RESTING;
	set_limit(worker, on_rest_overdue, (uint64_t)hook_ms + REST_EXTRA_MS);
	return 0;
}

int nest_worker_on_checkpoint(struct nest_worker *worker, struct nest_err *err)
{
	if (worker->stage != NEST_WORKER_STAGE_RESTING || !worker->events->rested)
		return nest_err_say(err, -EPROTO, "it sent CHECKPOINT without being asked");
	set_limit(worker, on_dump_overdue, DUMP_MS);
	worker->rested = true;
	nest_worker_tell_rested(worker);
	return 0;
}

/* The spawner dumps none that it has not heard the start of, which may be later than we hear its worker. */
void nest_worker_tell_rested(struct nest_worker *worker)
{
	if (!worker->rested || !worker->born || worker->stage != NEST_WORKER_STAGE_RESTING)
		return;
	worker->rested = false;
	worker->events->rested(worker->arg, worker);
}

static void on_dumped(struct nest_cell *cell, uint64_t bytes, const struct nest_err *err, void *arg)
{
	struct nest_worker *worker = arg;

	(void)cell;
	nest_take_ptr(worker->dumped)(worker->arg, bytes, err);
}

int nest_worker_dump(struct nest_worker *worker, const char *key,
	void (*cb)(void *arg, uint64_t bytes, const struct nest_err *why))
{
	const struct nest_snapshot_kind kind = {
		.memory = worker->plan->mapped ? NEST_SNAPSHOT_MAPPED : NEST_SNAPSHOT_COPIED,
		.is_parent = !worker->plan->init,
	};
	int r;

	if (!worker->cell)
		return -ESRCH;
	r = nest_snapshot_dump(worker->cell, key, &kind, on_dumped, worker);
	if (r == 0)
		worker->dumped = cb;
	return r;
}

/* ---- restored ---- */

/* What a cell adds to a worker's: those that are restored into have a root of their own. */
static const char *const cell_env[] = {
	"NESTLET_FUNCTION_DIR=" NEST_SANDBOX_FUNCTION_DIR,
	"NESTLET_RUNTIME_DIR=" NEST_SANDBOX_RUNTIME_DIR,
	NULL,
};

static int add_variables(cJSON *env, const char *const *envp)
{
	char name[512];

	for (; *envp; envp++) {
		size_t n = strcspn(*envp, "=");

		if (n >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, *envp, n);
		name[n] = '\0';
		if (!cJSON_AddStringToObject(env, name, *envp + n + 1))
			return -ENOMEM;
	}
	return 0;
}

static int add_env(cJSON *told, const char *const *envp)
{
	cJSON *env = cJSON_AddObjectToObject(told, "env");
	int r = env ? add_variables(env, envp) : -ENOMEM;

	return r < 0 ? r : add_variables(env, cell_env);
}

static int add_entropy(cJSON *told)
{
	unsigned char bytes[ENTROPY_BYTES];
	char hex[2 * ENTROPY_BYTES + 1];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	return cJSON_AddStringToObject(told, "entropy", hex) ? 0 : -ENOMEM;
}

/* The environment is part of a function's snapshot's key: there it is what it was. */
static char *restored_json(const struct nest_worker *worker)
{
	nest_autojson cJSON *told = cJSON_CreateObject();

	if (!told || (worker->bare && add_env(told, worker->plan->envp) < 0) ||
		add_entropy(told) < 0 ||
		!cJSON_AddNumberToObject(
			told, "hookTimeoutMs", worker->services->config->hook_timeout_ms))
		return NULL;
	return cJSON_PrintUnformatted(told);
}

/* Of its runtime's snapshot it learns in the same breath what its function is. */
static int send_restored(struct nest_worker *worker, struct nest_err *err)
{
	char *text = restored_json(worker), *payload;
	size_t n = text ? strlen(text) : 0;
	int r = -ENOMEM;

	if (text)
		r = nest_channel_put(
			worker->channel, NEST_FRAME_RESTORED, false, 0, (uint32_t)n, &payload);
	if (r == 0) {
		memcpy(payload, text, n);
		if (worker->bare)
			r = nest_worker_put_init(worker);
		nest_channel_flush(worker->channel);
	}
	cJSON_free(text);
	return r < 0 ? nest_err_set(err, r, "tell a clone that it is one") : 0;
}

/* What lies in its channel from the beginning. */
static int tell_wired(struct nest_worker *worker, struct nest_err *err)
{
	if (worker->clone)
		return worker->standby ? 0 : send_restored(worker, err);
	return nest_worker_put_init(worker) < 0
		       ? nest_err_set(err, -ENOMEM, "send a worker its INIT")
		       : 0;
}

static void on_output(void *arg, int stream, const char *bytes, size_t n)
{
	nest_worker_output(arg, stream, bytes, n);
}

static int adopt_output(
	struct nest_worker *worker, int stream, int fd, int *left, struct nest_err *err)
{
	int r = nest_output_adopt(worker->services->loop, worker->services->wire, on_output, worker,
		stream, fd, &worker->outputs[stream - 1], err);

	if (r < 0)
		return r;
	*left = -1;
	worker->open_handles++;
	return 0;
}

static void on_wired(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg)
{
	struct nest_worker *worker = arg;
	nest_autoclose int channel = wires->channel_fd;
	nest_autoclose int out = wires->stdout_fd;
	nest_autoclose int errors = wires->stderr_fd;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	(void)cell;
	if (worker->stage == NEST_WORKER_STAGE_DYING)
		return;
	r = nest_worker_open_channel(worker, channel, &err);
	if (r == 0)
		channel = -1;
	if (r == 0)
		r = adopt_output(worker, 1, out, &out, &err);
	if (r == 0)
		r = adopt_output(worker, 2, errors, &errors, &err);
	if (r == 0)
		r = tell_wired(worker, &err);
	if (r < 0)
		nest_worker_doom(worker, NEST_RESTART_PROTOCOL, nest_err_text(&err));
	worker->wired = r == 0;
}

int nest_worker_start_to_freeze(struct nest_worker *worker, const struct nest_cell_spec *cell,
	const struct nest_cell_events *events, struct nest_err *err)
{
	return nest_snapshot_start(
		worker->services->sandbox, cell, events, on_wired, worker, &worker->cell, err);
}

int nest_worker_restore(struct nest_worker *worker, const struct nest_cell_spec *cell,
	const struct nest_cell_events *events, const char *key, struct nest_err *err)
{
	int r;

	worker->clone = true;
	worker->generation = nest_frozen_generation(worker->source);
	worker->greeted = true; /* its HELLO was the frozen worker's */
	r = nest_snapshot_restore(
		worker->services->sandbox, cell, key, events, on_wired, worker, &worker->cell, err);
	if (r == 0)
		return 0;
	worker->clone = false;
	worker->greeted = false;
	return r;
}

static void await_ready(struct nest_worker *worker)
{
	const struct nest_host_config *config = worker->services->config;

	nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
		nest_clock_mono_us() +
			((uint64_t)config->hook_timeout_ms + config->restore_timeout_ms) * 1000);
}

/* All that is left of its start is its function's to do. */
static void await_init(struct nest_worker *worker)
{
	nest_deadlines_set(worker->services->deadlines, &worker->stage_deadline,
		nest_clock_mono_us() + worker->plan->spec->init_timeout_ms * 1000ull);
}

/* It has run for a moment, and waits in its channel for the word that it is a clone. */
static void stand_by(struct nest_worker *worker)
{
	nest_deadlines_clear(worker->services->deadlines, &worker->stage_deadline);
	worker->stage = NEST_WORKER_STAGE_STANDBY;
	worker->stood = true;
	worker->private_bytes = 0; /* what was measured was its restorer's too */
	worker->measured_as_it_is = false;
	nest_frozen_timed(worker->plan->frozen, nest_clock_mono_us() - worker->start_us);
	nest_cell_freeze(worker->cell);
	worker->events->standing(worker->arg, worker);
}

void nest_worker_restored(struct nest_worker *worker)
{
	/* whose READY may have been quicker than the spawner's word */
	if (worker->bare)
		nest_frozen_timed(worker->source, nest_clock_mono_us() - worker->start_us);
	if (worker->stage != NEST_WORKER_STAGE_STARTING)
		return;
	if (worker->standby)
		stand_by(worker);
	else if (worker->bare)
		await_init(worker);
	else
		await_ready(worker);
}

/*
 * Told only now, it gets its entropy and clock as they are now. The thaw goes
 * first: it is under way while the words are put together.
 */
void nest_worker_wake(
	struct nest_worker *worker, const struct nest_worker_events *events, void *arg)
{
	struct nest_err err = NEST_ERR_INIT;

	worker->events = events;
	worker->arg = arg;
	worker->standby = false;
	worker->start_us = nest_clock_mono_us();
	if (worker->stage == NEST_WORKER_STAGE_STANDBY) {
		nest_cell_thaw(worker->cell);
		worker->stage = NEST_WORKER_STAGE_STARTING;
		await_ready(worker);
	}
	if (worker->wired && send_restored(worker, &err) < 0)
		nest_worker_doom(worker, NEST_RESTART_PROTOCOL, nest_err_text(&err));
}

void nest_worker_note_answer(struct nest_worker *worker)
{
	worker->answered = true;
	/* one of the runtime's has loaded its function in addition, as no clone on standby will */
	if (!worker->clone || worker->bare || !worker->services->standby ||
		nest_frozen_generation(worker->source) != worker->generation ||
		nest_frozen_is_learnt(worker->source))
		return;
	if (nest_snapshot_learn(worker->cell) == 0)
		nest_frozen_set_learnt(worker->source);
}
