/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/desired.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "agent/deployer.h"
#include "agent/desired_state.h"
#include "agent/registry.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "runtime/function.h"
#include "runtime/host.h"

#define FILE_MAX ((size_t)256 * 1024 * 1024)

/* One reply on its way through the thread. */
struct taking {
	uv_work_t work;
	struct nest_desired *desired;
	char *bytes;
	size_t n;
	uint64_t held;
	cJSON *defaults; /* ours: the config may be replaced meanwhile */
	struct nest_desired_state *state;
	struct nest_err err;
	void (*cb)(
		void *arg, enum nest_desired_result result, bool drain, const struct nest_err *err);
	void *arg;
};

struct nest_desired {
	uv_loop_t *loop;
	struct nest_desired_env env;
	struct nest_deployer *deployer;
	char *path;
	struct nest_desired_state *state; /* in force; NULL: none */
	struct taking *taking;
	uv_timer_t closing; /* so that the close has a turn of its own */
	void (*close_cb)(void *arg);
	void *close_arg;
	bool closed;
};

/* ---- putting a state into force ---- */

static void on_refused(void *arg, size_t i, const struct nest_err *why)
{
	struct nest_desired_state *state = arg;

	free(state->functions[i].why);
	state->functions[i].why = strdup(nest_err_text(why));
}

/* What @state says of functions, as a change of the registry. */
static int plan(struct nest_desired *desired, struct nest_desired_state *state,
	struct nest_registry_reload **ret, struct nest_err *err)
{
	nest_autofree struct nest_registry_placement *placements =
		calloc(state->nfunctions + 1, sizeof(*placements));

	if (!placements)
		return nest_err_set(err, -ENOMEM, "take the scaler's functions");
	for (size_t i = 0; i < state->nfunctions; i++) {
		placements[i].name = state->functions[i].name;
		placements[i].spec = state->functions[i].spec;
	}
	return nest_registry_place(
		desired->env.registry, placements, state->nfunctions, on_refused, state, ret, err);
}

static void log_refusals(const struct nest_desired_state *state)
{
	for (size_t i = 0; i < state->nfunctions; i++) {
		if (state->functions[i].why)
			nest_log(NEST_LOG_WARN, "scaler",
				"generation %llu: functions[%zu], '%s': %s",
				(unsigned long long)state->generation, i, state->functions[i].name,
				state->functions[i].why);
	}
	for (size_t i = 0; i < state->nbounds; i++) {
		if (state->bounds[i].why)
			nest_log(NEST_LOG_WARN, "scaler", "generation %llu: workers of '%s': %s",
				(unsigned long long)state->generation, state->bounds[i].name,
				state->bounds[i].why);
	}
}

static void log_lost(const struct nest_desired_state *state)
{
	for (size_t i = 0; i < state->nfunctions; i++) {
		const struct nest_function_spec *spec = state->functions[i].spec;

		if (spec && spec->lost)
			nest_log(NEST_LOG_WARN, "scaler",
				"function '%s' version '%s' runs without a schedule: %s",
				spec->name, spec->version, spec->lost);
	}
}

static void unbind_all(struct nest_desired *desired)
{
	for (size_t i = 0; desired->state && i < desired->state->nbounds; i++)
		nest_host_set_bounds(desired->env.host, desired->state->bounds[i].name, 0, 0);
}

void nest_desired_reconcile(struct nest_desired *desired)
{
	for (size_t i = 0; desired->state && i < desired->state->nbounds; i++) {
		const struct nest_desired_bounds *bounds = &desired->state->bounds[i];

		if (bounds->max > 0)
			nest_host_set_bounds(
				desired->env.host, bounds->name, bounds->min, bounds->max);
	}
}

/* @state is the one that counts from now on; its specs have been copied. */
static void adopt(struct nest_desired *desired, struct nest_desired_state *state)
{
	nest_desired_state_free(desired->state);
	desired->state = state;
	for (size_t i = 0; i < state->nfunctions; i++)
		nest_function_free(nest_take_ptr(state->functions[i].spec));
	log_refusals(state);
}

/* ---- opening ---- */

static int read_kept(struct nest_desired *desired, struct nest_err *err)
{
	const struct nest_config *config = desired->env.config(desired->env.daemon);
	struct nest_desired_state *state = NULL;
	struct nest_registry_reload *reload;
	nest_autofree char *text = NULL;
	size_t n;
	int rc;

	rc = nest_file_read(AT_FDCWD, desired->path, FILE_MAX, &text, &n, err);
	if (rc == -ENOENT)
		return 0;
	if (rc == 0)
		rc = nest_desired_state_parse(
			text, n, config->function_defaults, 0, true, &state, err);
	if (rc < 0)
		return nest_err_wrap(err, "read '%s'", desired->path);
	if (state->unchanged) {
		nest_desired_state_free(state);
		return nest_err_say(err, -EINVAL, "'%s' holds no state", desired->path);
	}
	rc = plan(desired, state, &reload, err);
	if (rc < 0) {
		nest_desired_state_free(state);
		return rc;
	}
	nest_registry_reload_commit(reload);
	log_lost(state);
	adopt(desired, state);
	return 0;
}

int nest_desired_open(uv_loop_t *loop, const struct nest_desired_env *env, const char *path,
	struct nest_desired **ret, struct nest_err *err)
{
	struct nest_desired *desired = calloc(1, sizeof(*desired));
	struct nest_err why = NEST_ERR_INIT;

	if (desired)
		desired->path = strdup(path);
	if (!desired || !desired->path) {
		free(desired);
		return nest_err_set(err, -ENOMEM, "open the scaler's state");
	}
	desired->loop = loop;
	desired->env = *env;
	uv_timer_init(loop, &desired->closing);
	desired->closing.data = desired;
	if (read_kept(desired, &why) < 0)
		nest_log(NEST_LOG_ERROR, "scaler",
			"%s; its functions come back with the scaler's next reply",
			nest_err_text(&why));
	*ret = desired;
	return 0;
}

void nest_desired_set_deployer(struct nest_desired *desired, struct nest_deployer *deployer)
{
	desired->deployer = deployer;
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
	struct nest_desired *desired = handle->data;
	void (*cb)(void *arg) = desired->close_cb;
	void *arg = desired->close_arg;

	nest_desired_state_free(desired->state);
	free(desired->path);
	free(desired);
	if (cb)
		cb(arg);
}

void nest_desired_close(struct nest_desired *desired, void (*cb)(void *arg), void *arg)
{
	desired->closed = true;
	desired->close_cb = cb;
	desired->close_arg = arg;
	if (!desired->taking)
		uv_close((uv_handle_t *)&desired->closing, on_closed);
}

/* ---- taking a reply ---- */

static void taking_free(struct taking *taking)
{
	nest_desired_state_free(taking->state);
	cJSON_Delete(taking->defaults);
	free(taking->bytes);
	free(taking);
}

static bool is_news(const struct taking *taking)
{
	return !taking->state->unchanged && taking->state->generation > taking->held;
}

/* In a thread: nothing of the loop's is touched. */
static void on_work(uv_work_t *work)
{
	struct taking *taking = work->data;
	int rc = nest_desired_state_parse(taking->bytes, taking->n, taking->defaults, taking->held,
		false, &taking->state, &taking->err);

	if (rc == 0 && is_news(taking))
		rc = nest_file_write_atomic(AT_FDCWD, taking->desired->path, taking->bytes,
			taking->n, 0600, &taking->err);
	taking->err.code = rc;
}

static enum nest_desired_result put_in_force(
	struct nest_desired *desired, struct taking *taking, struct nest_err *err)
{
	struct nest_registry_reload *reload;

	if (!is_news(taking))
		return taking->state->unchanged || taking->state->generation == taking->held
			       ? NEST_DESIRED_UNCHANGED
			       : NEST_DESIRED_OLD;
	err->code = plan(desired, taking->state, &reload, err);
	if (err->code < 0)
		return NEST_DESIRED_UNCHANGED;
	unbind_all(desired);
	adopt(desired, nest_take_ptr(taking->state));
	nest_deployer_apply(desired->deployer, reload);
	nest_desired_reconcile(desired);
	return NEST_DESIRED_APPLIED;
}

static void on_worked(uv_work_t *work, int status)
{
	struct taking *taking = work->data;
	struct nest_desired *desired = taking->desired;
	enum nest_desired_result result = NEST_DESIRED_UNCHANGED;
	bool drain = false;

	desired->taking = NULL;
	if (desired->closed) {
		taking_free(taking);
		uv_close((uv_handle_t *)&desired->closing, on_closed);
		return;
	}
	if (status < 0)
		nest_err_set(&taking->err, status, "take the scaler's reply");
	if (taking->err.code == 0) {
		drain = taking->state->drain;
		result = put_in_force(desired, taking, &taking->err);
	}
	taking->cb(taking->arg, result, drain && result != NEST_DESIRED_OLD,
		taking->err.code < 0 ? &taking->err : NULL);
	taking_free(taking);
}

int nest_desired_take(struct nest_desired *desired, char *bytes, size_t n,
	void (*cb)(
		void *arg, enum nest_desired_result result, bool drain, const struct nest_err *err),
	void *arg, struct nest_err *err)
{
	const struct nest_config *config = desired->env.config(desired->env.daemon);
	struct taking *taking = NULL;
	int rc = -EBUSY;

	if (!desired->taking) {
		taking = calloc(1, sizeof(*taking));
		rc = -ENOMEM;
	}
	if (!taking) {
		free(bytes);
		return nest_err_set(err, rc, "take the scaler's reply");
	}
	*taking =
		(struct taking){ .desired = desired, .bytes = bytes, .n = n, .cb = cb, .arg = arg };
	taking->work.data = taking;
	taking->held = nest_desired_generation(desired);
	taking->defaults = cJSON_Duplicate(config->function_defaults, true);
	if (taking->defaults)
		rc = uv_queue_work(desired->loop, &taking->work, on_work, on_worked);
	if (rc < 0) {
		taking_free(taking);
		return nest_err_set(err, rc, "take the scaler's reply");
	}
	desired->taking = taking;
	return 0;
}

/* ---- showing ---- */

uint64_t nest_desired_generation(const struct nest_desired *desired)
{
	return desired->state ? desired->state->generation : 0;
}

void nest_desired_each_refusal(const struct nest_desired *desired,
	bool (*cb)(void *arg, const char *name, const char *version, const char *why), void *arg)
{
	const struct nest_desired_state *state = desired->state;

	for (size_t i = 0; state && i < state->nfunctions; i++) {
		const struct nest_desired_function *f = &state->functions[i];

		if (f->why && !cb(arg, f->name, f->version, f->why))
			return;
	}
	for (size_t i = 0; state && i < state->nbounds; i++) {
		const struct nest_desired_bounds *b = &state->bounds[i];

		if (b->why && !cb(arg, b->name, "", b->why))
			return;
	}
}
