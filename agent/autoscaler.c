/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/autoscaler.h"

#include <errno.h>
#include <stdlib.h>

/*
 * What came over time is kept as points of cumulative values: the average over any window is the
 * difference of two points by the time between them, and between points it is interpolated. So
 * samples may come as they like, and a gap without samples is averaged rightly. What was decided is
 * kept as slots of the delay, each with the most that was wanted in it.
 */
#define POINTS 64u /* a window's points, and some for its edges */
#define POINTS_IN_WINDOW 60u
#define SLOTS 32u
#define SLOTS_IN_DELAY 30u
#define EPSILON 1e-9 /* 3.0000000001 workers are 3 */

struct point {
	uint64_t at_us;
	double load;	 /* requests x seconds */
	double requests; /* count */
	double cpu;	 /* core seconds */
	double memory;	 /* bytes x seconds */
};

struct slot {
	uint64_t from_us;
	uint64_t until_us; /* the last sample that it saw */
	uint32_t desired;
	uint32_t needed;
};

struct nest_autoscaler {
	struct point points[POINTS];
	unsigned first, n;
	struct point now;
	struct nest_autoscaler_sample last;
	struct slot slots[SLOTS];
	unsigned first_slot, nslots;
	uint64_t panic_until_us;
	uint32_t panic_desired; /* the most in this panic */
	bool started;
};

int nest_autoscaler_new(struct nest_autoscaler **ret)
{
	struct nest_autoscaler *scaler = calloc(1, sizeof(*scaler));

	if (!scaler)
		return -ENOMEM;
	*ret = scaler;
	return 0;
}

void nest_autoscaler_free(struct nest_autoscaler *scaler)
{
	free(scaler);
}

const char *nest_autoscaler_cause_name(enum nest_autoscaler_cause cause)
{
	static const char *const names[NEST_AUTOSCALER_CAUSES] = {
		[NEST_AUTOSCALER_BOUND] = "bound",
		[NEST_AUTOSCALER_CONCURRENCY] = "concurrency",
		[NEST_AUTOSCALER_REQUESTS] = "requests",
		[NEST_AUTOSCALER_CPU] = "cpu",
		[NEST_AUTOSCALER_MEMORY] = "memory",
	};

	return names[cause];
}

/* ---- what came ---- */

static const struct point *point_at(const struct nest_autoscaler *scaler, unsigned i)
{
	return &scaler->points[(scaler->first + i) % POINTS];
}

static void keep_point(struct nest_autoscaler *scaler)
{
	if (scaler->n == POINTS) {
		scaler->first = (scaler->first + 1) % POINTS;
		scaler->n--;
	}
	scaler->points[(scaler->first + scaler->n++) % POINTS] = scaler->now;
}

static void take_sample(struct nest_autoscaler *scaler, const struct nest_autoscaler_sample *sample,
	uint64_t every_us)
{
	const struct nest_autoscaler_sample *last = &scaler->last;
	struct point *now = &scaler->now;

	now->at_us = sample->now_us;
	if (scaler->started) {
		double s = (double)(sample->now_us - last->now_us) / 1e6;

		now->load += (double)(sample->load_us - last->load_us) / 1e6;
		now->requests += (double)(sample->requests - last->requests);
		now->cpu += (double)(sample->cpu_us - last->cpu_us) / 1e6;
		now->memory += (double)last->memory_bytes * s;
	}
	scaler->last = *sample;
	if (!scaler->started || now->at_us - point_at(scaler, scaler->n - 1)->at_us >= every_us)
		keep_point(scaler);
	scaler->started = true;
}

static double between(double a, double b, double part)
{
	return a + (b - a) * part;
}

/* What had come by @at_us, which is not after now. */
static struct point value_at(const struct nest_autoscaler *scaler, uint64_t at_us)
{
	const struct point *later = &scaler->now;
	const struct point *earlier;
	double part;

	for (unsigned i = scaler->n; i > 0; i--, later = earlier) {
		earlier = point_at(scaler, i - 1);
		if (earlier->at_us > at_us)
			continue;
		if (later->at_us == earlier->at_us)
			return *later;
		part = (double)(at_us - earlier->at_us) / (double)(later->at_us - earlier->at_us);
		return (struct point){ .at_us = at_us,
			.load = between(earlier->load, later->load, part),
			.requests = between(earlier->requests, later->requests, part),
			.cpu = between(earlier->cpu, later->cpu, part),
			.memory = between(earlier->memory, later->memory, part) };
	}
	return *point_at(scaler, 0);
}

struct average {
	double concurrency;
	double rps;
	double cpu;
	double memory;
};

/*
 * Over the last @window_us. What began less than that ago is averaged over its own time, but over
 * @least_us at least, so that a function's first requests don't count for more than they are.
 */
static struct average average_over(
	const struct nest_autoscaler *scaler, uint64_t window_us, uint64_t least_us)
{
	const struct point *now = &scaler->now;
	struct point from = value_at(scaler, now->at_us > window_us ? now->at_us - window_us : 0);
	uint64_t us = now->at_us - from.at_us;
	double s = (double)(us > least_us ? us : least_us) / 1e6;

	if (s <= 0)
		return (struct average){ 0 };
	return (struct average){ .concurrency = (now->load - from.load) / s,
		.rps = (now->requests - from.requests) / s,
		.cpu = (now->cpu - from.cpu) / s,
		/* a level, not a flow: over the time that it was seen */
		.memory = us > 0 ? (now->memory - from.memory) / ((double)us / 1e6) : 0 };
}

/* ---- what it asks for ---- */

static uint32_t workers_for(double load, double target, double utilization)
{
	double n;

	if (target <= 0 || utilization <= 0 || load <= 0)
		return 0;
	n = load / (target * utilization) - EPSILON;
	if (n >= (double)(UINT32_MAX / 2))
		return UINT32_MAX / 2;
	return n <= 0 ? 0 : (uint32_t)n + ((double)(uint32_t)n < n);
}

static uint32_t asked_for(const struct nest_autoscaler_config *config,
	const struct average *average, enum nest_autoscaler_cause *ret_cause)
{
	const struct {
		double load, target;
	} metrics[NEST_AUTOSCALER_CAUSES] = {
		[NEST_AUTOSCALER_CONCURRENCY] = { average->concurrency,
			config->concurrency_milli / 1000.0 },
		[NEST_AUTOSCALER_REQUESTS] = { average->rps, config->rps_milli / 1000.0 },
		[NEST_AUTOSCALER_CPU] = { average->cpu, config->cpu_milli / 1000.0 },
		[NEST_AUTOSCALER_MEMORY] = { average->memory, (double)config->memory_bytes },
	};
	double utilization = config->utilization_milli / 1000.0;
	uint32_t most = 0;

	*ret_cause = NEST_AUTOSCALER_BOUND;
	for (unsigned i = NEST_AUTOSCALER_CONCURRENCY; i < NEST_AUTOSCALER_CAUSES; i++) {
		uint32_t n = workers_for(metrics[i].load, metrics[i].target, utilization);

		if (n <= most)
			continue;
		most = n;
		*ret_cause = (enum nest_autoscaler_cause)i;
	}
	return most;
}

/* CPU and memory of workers that still start say nothing of a burst: requests do. */
static uint32_t asked_for_now(
	const struct nest_autoscaler *scaler, const struct nest_autoscaler_config *config)
{
	struct nest_autoscaler_config requests = *config;
	struct average average =
		average_over(scaler, config->panic_window_us, config->panic_window_us);
	enum nest_autoscaler_cause cause;

	requests.cpu_milli = 0;
	requests.memory_bytes = 0;
	return asked_for(&requests, &average, &cause);
}

/* The most that this panic asked for; 0: there is none. */
static uint32_t panic_over(struct nest_autoscaler *scaler,
	const struct nest_autoscaler_config *config, uint32_t ready, uint32_t desired)
{
	uint64_t now_us = scaler->now.at_us;
	uint32_t asked;

	if (config->panic_window_us == 0 || config->panic_threshold_milli == 0)
		return 0;
	asked = asked_for_now(scaler, config);
	if (asked * 1000.0 >= (double)config->panic_threshold_milli * (ready > 0 ? ready : 1))
		scaler->panic_until_us = now_us + config->window_us;
	if (now_us >= scaler->panic_until_us) {
		scaler->panic_desired = 0;
		return 0;
	}
	if (asked < desired)
		asked = desired;
	if (asked > scaler->panic_desired)
		scaler->panic_desired = asked;
	return scaler->panic_desired;
}

/* ---- what stays ---- */

static void forget_slots(struct nest_autoscaler *scaler, uint64_t before_us)
{
	while (scaler->nslots > 0 && scaler->slots[scaler->first_slot].until_us < before_us) {
		scaler->first_slot = (scaler->first_slot + 1) % SLOTS;
		scaler->nslots--;
	}
}

/* The most of what was wanted within the delay, this moment included. */
static struct slot most_wanted(
	struct nest_autoscaler *scaler, uint64_t delay_us, uint32_t desired, uint32_t needed)
{
	uint64_t now_us = scaler->now.at_us;
	struct slot most = { .from_us = now_us, .desired = desired, .needed = needed };
	struct slot *newest;

	forget_slots(scaler, now_us > delay_us ? now_us - delay_us : 0);
	newest = &scaler->slots[(scaler->first_slot + scaler->nslots + SLOTS - 1) % SLOTS];
	if (scaler->nslots == 0 || now_us - newest->from_us >= delay_us / SLOTS_IN_DELAY) {
		if (scaler->nslots == SLOTS)
			forget_slots(scaler, scaler->slots[scaler->first_slot].until_us + 1);
		newest = &scaler->slots[(scaler->first_slot + scaler->nslots++) % SLOTS];
		*newest = most;
	}
	newest->until_us = now_us;
	if (desired > newest->desired)
		newest->desired = desired;
	if (needed > newest->needed)
		newest->needed = needed;
	for (unsigned i = 0; i < scaler->nslots; i++) {
		const struct slot *slot = &scaler->slots[(scaler->first_slot + i) % SLOTS];

		if (slot->desired > most.desired)
			most.desired = slot->desired;
		if (slot->needed > most.needed)
			most.needed = slot->needed;
	}
	return most;
}

static uint32_t within(const struct nest_autoscaler_config *config, uint32_t n)
{
	if (n < config->min)
		n = config->min;
	return n < config->max ? n : config->max;
}

/* Nobody has asked for so long that what was before says nothing any more. */
static void go_down(struct nest_autoscaler *scaler, const struct nest_autoscaler_config *config,
	struct nest_autoscaler_decision *ret)
{
	scaler->panic_until_us = 0;
	scaler->panic_desired = 0;
	scaler->nslots = 0;
	ret->desired = within(config, 0);
	ret->ceiling = ret->desired;
	ret->settled = true;
}

void nest_autoscaler_step(struct nest_autoscaler *scaler,
	const struct nest_autoscaler_config *config, const struct nest_autoscaler_sample *sample,
	struct nest_autoscaler_decision *ret)
{
	uint64_t least_us =
		config->panic_window_us > 0 ? config->panic_window_us : config->window_us / 10;
	struct average average;
	enum nest_autoscaler_cause cause;
	uint32_t desired, panic;
	struct slot most;

	take_sample(scaler, sample, config->window_us / POINTS_IN_WINDOW);
	average = average_over(scaler, config->window_us, least_us);
	*ret = (struct nest_autoscaler_decision){
		.concurrency = average.concurrency,
		.rps = average.rps,
	};
	if (sample->quiet_us > 0 && sample->quiet_us >= config->idle_us) {
		go_down(scaler, config, ret);
		return;
	}
	desired = asked_for(config, &average, &cause);
	panic = panic_over(scaler, config, sample->ready, desired);
	if (panic > desired)
		desired = panic;
	most = most_wanted(scaler, config->in_delay_us, desired, sample->needed);
	ret->desired = within(config, most.desired);
	ret->ceiling = within(config, most.needed > most.desired ? most.needed : most.desired);
	ret->panic = panic > 0;
	ret->cause = ret->desired > config->min ? cause : NEST_AUTOSCALER_BOUND;
}
