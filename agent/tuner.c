/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tuner.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "agent/autoscaler.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "runtime/function.h"
#include "runtime/host.h"

#define MEASURE_EVERY_US 2000000u
#define WAIT_MAX_S 3600 /* for a schedule: clocks may be set */

/* What is kept of a version that has something to do, or a schedule. */
struct tuned {
	uint64_t id;
	struct nest_autoscaler *scaler;
	struct nest_target_scale scale; /* as the host was told */
	int64_t scheduled_from_s;	/* the schedules' minimum is right from here */
	int64_t scheduled_until_s;	/* to here */
	uint32_t scheduled;
	uint64_t seen; /* the last look that found it */
	UT_hash_handle hh;
};

struct nest_tuner {
	struct nest_host *host;
	struct nest_tuner_config config;
	uv_timer_t timer;
	struct tuned *tuned;
	uint64_t look;
	uint64_t measured_us;
	int64_t wall_s;
	bool stirred; /* another look follows this one, and no call may ask for more of them */
	/* of the look under way */
	bool busy;	    /* some function is not settled */
	bool wants_measure; /* and goes by CPU or memory */
	int64_t change_s;   /* the next of any schedule */
	void (*on_closed)(void *arg);
	void *on_closed_arg;
};

static void look(struct nest_tuner *tuner);

/* ---- one version ---- */

static void drop(struct nest_tuner *tuner, struct tuned *tuned)
{
	HASH_DEL(tuner->tuned, tuned);
	nest_autoscaler_free(tuned->scaler);
	free(tuned);
}

static struct tuned *add(struct nest_tuner *tuner, uint64_t id)
{
	struct tuned *tuned = calloc(1, sizeof(*tuned)), *added;

	if (!tuned || nest_autoscaler_new(&tuned->scaler) < 0) {
		free(tuned);
		return NULL;
	}
	tuned->id = id;
	HASH_ADD(hh, tuner->tuned, id, sizeof(tuned->id), tuned);
	HASH_FIND(hh, tuner->tuned, &id, sizeof(id), added);
	if (added)
		return added;
	nest_autoscaler_free(tuned->scaler);
	free(tuned);
	return NULL;
}

/* Schedules are looked at only when one may have changed, or the clock was set back. */
static void keep_to_schedule(
	struct nest_tuner *tuner, struct tuned *tuned, const struct nest_scaling *scaling)
{
	if (tuner->wall_s < tuned->scheduled_from_s || tuner->wall_s >= tuned->scheduled_until_s) {
		tuned->scheduled = nest_scaling_scheduled(scaling, tuner->wall_s);
		tuned->scheduled_from_s = tuner->wall_s;
		tuned->scheduled_until_s = nest_scaling_next_change(scaling, tuner->wall_s);
	}
	if (tuned->scheduled_until_s < tuner->change_s)
		tuner->change_s = tuned->scheduled_until_s;
}

static void decide(const struct tuned *tuned, const struct nest_target_load *load,
	struct nest_autoscaler_decision *ret)
{
	const struct nest_function_spec *spec = nest_target_spec(load->target);
	const struct nest_scaling *scaling = &spec->scaling;
	const struct nest_autoscaler_config config = {
		.min = load->least > tuned->scheduled ? load->least : tuned->scheduled,
		.max = load->most,
		.concurrency_milli = scaling->concurrency_milli ? scaling->concurrency_milli
								: load->slots * 1000,
		.rps_milli = scaling->rps_milli,
		.cpu_milli = scaling->cpu_milli,
		.memory_bytes = scaling->memory_bytes,
		.utilization_milli = scaling->utilization_milli,
		.window_us = scaling->window_ms * 1000ull,
		.panic_window_us = scaling->panic_window_ms * 1000ull,
		.panic_threshold_milli = scaling->panic_threshold_milli,
		.in_delay_us = scaling->in_delay_ms * 1000ull,
		.idle_us = spec->idle_ms * 1000ull,
	};
	const struct nest_autoscaler_sample sample = {
		.now_us = load->now_us,
		.load_us = load->load_us,
		.requests = load->requests,
		.cpu_us = load->cpu_us,
		.memory_bytes = load->memory_bytes,
		.ready = load->ready,
		.needed = load->needed,
		.quiet_us = load->quiet_us,
	};

	nest_autoscaler_step(tuned->scaler, &config, &sample, ret);
}

static void carry_out(struct tuned *tuned, const struct nest_target_load *load,
	const struct nest_autoscaler_decision *decision)
{
	const struct nest_function_spec *spec = nest_target_spec(load->target);
	const struct nest_target_scale scale = {
		.least = tuned->scheduled,
		.desired = decision->desired,
		.ceiling = decision->ceiling,
	};

	if (scale.desired != tuned->scale.desired)
		nest_log(NEST_LOG_DEBUG, "autoscaler",
			"function '%s' version '%s': %u workers, after %u (%s; %.2f at once, "
			"%.2f a second%s)",
			spec->name, spec->version, scale.desired, tuned->scale.desired,
			nest_autoscaler_cause_name(decision->cause), decision->concurrency,
			decision->rps, decision->panic ? ", panic" : "");
	tuned->scale = scale;
	/* said anew each time: what it says depends on the workers, too */
	nest_target_set_scale(load->target, &scale);
}

static void on_load(void *arg, const struct nest_target_load *load)
{
	struct nest_tuner *tuner = arg;
	const struct nest_function_spec *spec = nest_target_spec(load->target);
	struct nest_autoscaler_decision decision;
	struct tuned *tuned;

	HASH_FIND(hh, tuner->tuned, &load->id, sizeof(load->id), tuned);
	if (!tuned && spec->scaling.nschedules == 0 && load->quiet_us >= spec->idle_ms * 1000ull &&
		load->quiet_us > 0)
		return;
	if (!tuned && !(tuned = add(tuner, load->id))) {
		tuner->busy = true; /* memory is short: at the next look */
		return;
	}
	tuned->seen = tuner->look;
	if (spec->scaling.nschedules > 0)
		keep_to_schedule(tuner, tuned, &spec->scaling);
	decide(tuned, load, &decision);
	carry_out(tuned, load, &decision);
	if (decision.settled && spec->scaling.nschedules == 0) {
		drop(tuner, tuned);
		return;
	}
	if (decision.settled)
		return;
	tuner->busy = true;
	if (spec->scaling.cpu_milli > 0 || spec->scaling.memory_bytes > 0)
		tuner->wants_measure = true;
}

/* ---- a look at all ---- */

static void on_measured(void *arg)
{
	(void)arg; /* the next look finds it */
}

static void measure(struct nest_tuner *tuner)
{
	uint64_t now_us = nest_clock_mono_us();

	if (!tuner->wants_measure && tuner->config.workers_bytes == 0)
		return;
	if (now_us - tuner->measured_us < MEASURE_EVERY_US)
		return;
	tuner->measured_us = now_us;
	nest_host_refresh(tuner->host, on_measured, NULL);
}

static void on_timer(uv_timer_t *timer)
{
	look(timer->data);
}

static void on_stir(void *arg)
{
	struct nest_tuner *tuner = arg;

	/* on a later turn: what stirs is not done yet */
	tuner->stirred = true;
	uv_timer_start(&tuner->timer, on_timer, 0, 0);
}

static void wait_for_next(struct nest_tuner *tuner)
{
	int64_t wait_s = tuner->change_s - tuner->wall_s;

	if (tuner->busy) {
		uv_timer_start(&tuner->timer, on_timer, tuner->config.interval_ms, 0);
		return;
	}
	nest_host_on_stir(tuner->host, on_stir, tuner);
	if (tuner->change_s == INT64_MAX)
		uv_timer_stop(&tuner->timer);
	else
		uv_timer_start(&tuner->timer, on_timer,
			(uint64_t)(wait_s < WAIT_MAX_S ? wait_s : WAIT_MAX_S) * 1000, 0);
}

static void look(struct nest_tuner *tuner)
{
	struct tuned *tuned, *next;

	tuner->look++;
	tuner->busy = tuner->stirred;
	tuner->stirred = false;
	tuner->wants_measure = false;
	tuner->change_s = INT64_MAX;
	tuner->wall_s = (int64_t)(nest_clock_wall_ms() / 1000);
	nest_host_on_stir(tuner->host, NULL, NULL);
	nest_host_each_load(tuner->host, on_load, tuner);
	HASH_ITER(hh, tuner->tuned, tuned, next) {
		if (tuned->seen != tuner->look)
			drop(tuner, tuned);
	}
	if (tuner->busy)
		measure(tuner);
	wait_for_next(tuner);
}

/* ---- life ---- */

int nest_tuner_open(uv_loop_t *loop, struct nest_host *host, const struct nest_tuner_config *config,
	struct nest_tuner **ret, struct nest_err *err)
{
	struct nest_tuner *tuner = calloc(1, sizeof(*tuner));

	if (!tuner)
		return nest_err_set(err, -ENOMEM, "open the autoscaler");
	tuner->host = host;
	tuner->config = *config;
	uv_timer_init(loop, &tuner->timer);
	tuner->timer.data = tuner;
	look(tuner);
	*ret = tuner;
	return 0;
}

void nest_tuner_configure(struct nest_tuner *tuner, const struct nest_tuner_config *config)
{
	tuner->config = *config;
}

static void on_closed(uv_handle_t *handle)
{
	struct nest_tuner *tuner = handle->data;
	void (*cb)(void *arg) = tuner->on_closed;
	void *arg = tuner->on_closed_arg;

	free(tuner);
	cb(arg);
}

void nest_tuner_close(struct nest_tuner *tuner, void (*cb)(void *arg), void *arg)
{
	struct tuned *tuned, *next;

	nest_host_on_stir(tuner->host, NULL, NULL);
	HASH_ITER(hh, tuner->tuned, tuned, next)
		drop(tuner, tuned);
	tuner->on_closed = cb;
	tuner->on_closed_arg = arg;
	uv_close((uv_handle_t *)&tuner->timer, on_closed);
}
