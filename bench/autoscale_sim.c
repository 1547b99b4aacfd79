/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays a load against the autoscaler that ships and against fixed keep-alives, in simulated time.
 * Workers have slots and take a while to start; requests go to the least loaded worker with a free
 * slot, wait for want of one, and start as many workers as those that wait would fill: what
 * runtime/dispatch.h does. Only what keeps and what ends workers differs between policies.
 *
 *	autoscale_sim CASE POLICY [SERIES]
 *
 * prints "metric value" lines; SERIES gets "second rps load workers" lines, a summary of each step
 * of time.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "agent/autoscaler.h"
#include "base/cleanup.h"

#define S 1000000ull
#define HOUR (3600 * S)
#define WORKERS_MAX 4096u
#define QUEUE_LENGTH 256u   /* queue.length's default */
#define WAIT_BUCKETS 20001u /* of a millisecond; the last: longer */
#define SERIES_STEPS 300u

/* ---- what is played ---- */

struct load {
	const char *name;
	uint64_t length_us;
	unsigned functions;
	uint32_t slots;
	uint64_t run_us;  /* mean of a request */
	uint64_t cold_us; /* a worker's start */
	uint32_t min;
	uint32_t rps_target;
	double most_rps; /* bound of rate() for a function */
	double (*rate)(const struct load *load, unsigned function, uint64_t at_us);
};

static double noise(uint64_t n)
{
	n ^= n >> 33;
	n *= 0xff51afd7ed558ccdull;
	n ^= n >> 33;
	n *= 0xc4ceb9fe1a85ec53ull;
	n ^= n >> 33;
	return (double)(n >> 11) / 9007199254740992.0;
}

/* A quarter of an hour: a low level, up within three minutes, two on top, and down again. */
static double peak(uint64_t at_us, double low, double high)
{
	double s = (double)at_us / 1e6;
	double part = s < 180	? 0
		      : s < 360 ? (s - 180) / 180
		      : s < 480 ? 1
		      : s < 600 ? 1 - (s - 480) / 120
				: 0;

	return low + (high - low) * part;
}

static double rate_published(const struct load *load, unsigned function, uint64_t at_us)
{
	(void)function;
	return peak(at_us, 0.125 * load->most_rps, load->most_rps);
}

/* One to two rps, and every few minutes up to a hundred for 10 to 40 s. */
static double rate_bursty(const struct load *load, unsigned function, uint64_t at_us)
{
	uint64_t turn = at_us / (240 * S);
	double into_s = (double)(at_us % (240 * S)) / 1e6;
	double begin_s = 180 * noise(turn * 3 + 1), long_s = 10 + 30 * noise(turn * 3 + 2);

	(void)load;
	(void)function;
	if (into_s < begin_s || into_s > begin_s + long_s)
		return 1 + noise(turn);
	return 30 + 70 * noise(turn * 3 + 3);
}

static double rate_diurnal(const struct load *load, unsigned function, uint64_t at_us)
{
	double day = (double)at_us / (24.0 * (double)HOUR);

	(void)function;
	return 0.5 + (load->most_rps - 0.5) * pow(0.5 - 0.5 * cos(2 * M_PI * day), 2);
}

/* A call every few seconds, and at odd times hundreds within one second. */
static double rate_spiky(const struct load *load, unsigned function, uint64_t at_us)
{
	uint64_t turn = at_us / (600 * S);
	double into_s = (double)(at_us % (600 * S)) / 1e6 - 590 * noise(turn + 77);

	(void)function;
	return into_s >= 0 && into_s < 1 ? load->most_rps : 0.2;
}

/*
 * The shape published for Azure Functions (Shahrad et al., USENIX ATC 2020): 45 % of the
 * applications are called at most once an hour, 81 % at most once a minute; the rest, up to
 * hundreds of times a minute, has nearly all of the calls. Between these the rate is taken as
 * uniform in its logarithm.
 */
static double rate_long_tail(const struct load *load, unsigned function, uint64_t at_us)
{
	static const struct {
		double share, per_hour;
	} points[] = { { 0, 0.04 }, { 0.45, 1 }, { 0.81, 60 }, { 0.99, 6000 }, { 1, 36000 } };
	double share = ((double)function + 0.5) / (double)load->functions;
	unsigned i = 1;

	(void)at_us;
	while (points[i].share < share)
		i++;
	share = (share - points[i - 1].share) / (points[i].share - points[i - 1].share);
	return exp(log(points[i - 1].per_hour) +
		       share * log(points[i].per_hour / points[i - 1].per_hour)) /
	       3600;
}

static const struct load loads[] = {
	{ "published", 900 * S, 1, 100, 500000, 250000, 4, 0, 2000, rate_published },
	{ "published-rps", 900 * S, 1, 100, 100000, 250000, 4, 100, 1000, rate_published },
	{ "bursty", 2 * HOUR, 1, 4, 200000, 250000, 0, 0, 100, rate_bursty },
	{ "diurnal", 24 * HOUR, 1, 4, 200000, 250000, 0, 0, 60, rate_diurnal },
	{ "spiky", 4 * HOUR, 1, 4, 200000, 250000, 0, 0, 300, rate_spiky },
	{ "long-tail", 24 * HOUR, 500, 1, 200000, 250000, 0, 0, 10, rate_long_tail },
};

struct policy {
	const char *name;
	bool autoscaled;
	uint64_t idle_us; /* and the delay of scaling in */
	uint64_t cold_us; /* 0: the load's */
};

static const struct policy policies[] = {
	{ "nestlet", true, 60 * S, 0 },
	{ "nestlet-10m", true, 600 * S, 0 },
	{ "nestlet-snapshot", true, 60 * S, 10000 },
	{ "keep-alive-1m", false, 60 * S, 0 },
	{ "keep-alive-10m", false, 600 * S, 0 },
};

/* ---- the state of one function ---- */

struct request {
	uint64_t at_us;
	uint64_t end_us;
	unsigned worker;
	struct request *prev, *next; /* while it waits */
};

enum stage {
	ABSENT,
	STARTING,
	READY,
	LEAVING
};

struct worker {
	enum stage stage;
	uint32_t open;
	uint64_t since_us; /* of its start */
	uint64_t ready_us;
	uint64_t idle_us; /* since then it has nothing to do */
};

struct totals {
	uint64_t requests;
	uint64_t cold;	 /* that waited for a worker to come up */
	uint64_t waited; /* that waited at all */
	uint64_t failed; /* that found the queue full */
	uint64_t waits[WAIT_BUCKETS];
	double worker_s;
	uint64_t peak_workers;
	struct {
		double requests, load_s, worker_s;
	} series[SERIES_STEPS];
};

struct play {
	const struct load *load;
	const struct policy *policy;
	unsigned function;
	uint64_t arrivals,
		runs; /* two streams of random numbers: arrivals are every policy's alike */
	uint64_t now_us;
	struct worker workers[WORKERS_MAX];
	unsigned high; /* workers from here on are ABSENT */
	unsigned alive, starting, open;
	struct request *queue;
	unsigned queued;
	struct request **running; /* a heap by their ends */
	size_t nrunning, room;
	uint64_t next_arrival_us, next_tick_us;
	/* the autoscaler's */
	struct nest_autoscaler *scaler;
	uint32_t floor, ceiling, most_open;
	uint64_t load_us, calls, last_call_us;
	struct totals *totals;
};

static double draw(uint64_t *random)
{
	*random += 0x9e3779b97f4a7c15ull;
	return noise(*random) + 1e-18;
}

/* ---- a heap of what runs ---- */

static void swap(struct request **a, struct request **b)
{
	struct request *c = *a;

	*a = *b;
	*b = c;
}

static int push(struct play *play, struct request *request)
{
	size_t i = play->nrunning;

	if (i == play->room) {
		size_t room = play->room ? play->room * 2 : 64;
		struct request **grown = realloc(play->running, room * sizeof(struct request *));

		if (!grown)
			return -ENOMEM;
		play->running = grown;
		play->room = room;
	}
	play->running[play->nrunning++] = request;
	for (; i > 0 && play->running[(i - 1) / 2]->end_us > request->end_us; i = (i - 1) / 2)
		swap(&play->running[i], &play->running[(i - 1) / 2]);
	return 0;
}

static struct request *pop(struct play *play)
{
	struct request *first = play->running[0];
	size_t i = 0, child;

	play->running[0] = play->running[--play->nrunning];
	for (; (child = 2 * i + 1) < play->nrunning; i = child) {
		if (child + 1 < play->nrunning &&
			play->running[child + 1]->end_us < play->running[child]->end_us)
			child++;
		if (play->running[i]->end_us <= play->running[child]->end_us)
			break;
		swap(&play->running[i], &play->running[child]);
	}
	return first;
}

/* ---- time ---- */

/* Adds what time costs up to @until_us, to the step of the series that it falls into. */
static void pass(struct play *play, uint64_t until_us)
{
	uint64_t step_us = play->load->length_us / SERIES_STEPS;
	unsigned in_system = play->open + play->queued;

	while (play->now_us < until_us) {
		uint64_t step = play->now_us / step_us;
		uint64_t to_us = (step + 1) * step_us < until_us ? (step + 1) * step_us : until_us;
		double s = (double)(to_us - play->now_us) / 1e6;

		play->totals->worker_s += play->alive * s;
		if (step < SERIES_STEPS) {
			play->totals->series[step].worker_s += play->alive * s;
			play->totals->series[step].load_s += in_system * s;
		}
		play->load_us += in_system * (to_us - play->now_us);
		play->now_us = to_us;
	}
}

/* ---- dispatch ---- */

static void start_worker(struct play *play)
{
	unsigned i = 0;

	while (i < WORKERS_MAX && play->workers[i].stage != ABSENT)
		i++;
	if (i == WORKERS_MAX)
		return;
	play->workers[i] = (struct worker){
		.stage = STARTING,
		.since_us = play->now_us,
		.ready_us = play->now_us +
			    (play->policy->cold_us ? play->policy->cold_us : play->load->cold_us),
	};
	if (i >= play->high)
		play->high = i + 1;
	play->starting++;
	if (++play->alive > play->totals->peak_workers)
		play->totals->peak_workers = play->alive;
}

static void end_worker(struct play *play, struct worker *worker)
{
	worker->stage = ABSENT;
	play->alive--;
	while (play->high > 0 && play->workers[play->high - 1].stage == ABSENT)
		play->high--;
}

static struct worker *least_loaded(struct play *play)
{
	struct worker *best = NULL;

	for (unsigned i = 0; i < play->high; i++) {
		struct worker *worker = &play->workers[i];

		if (worker->stage == READY && worker->open < play->load->slots &&
			(!best || worker->open < best->open))
			best = worker;
	}
	return best;
}

static int run(struct play *play, struct worker *worker, struct request *request)
{
	uint64_t waited_us = play->now_us - request->at_us;
	uint64_t ms = waited_us / 1000;
	/* half of it fixed, half exponential */
	double run_us = (double)play->load->run_us * (0.5 - 0.5 * log(draw(&play->runs)));

	play->totals->waits[ms < WAIT_BUCKETS ? ms : WAIT_BUCKETS - 1]++;
	play->totals->waited += waited_us > 0;
	play->totals->cold += worker->ready_us > request->at_us;
	request->end_us = play->now_us + (uint64_t)run_us;
	request->worker = (unsigned)(worker - play->workers);
	worker->open++;
	play->open++;
	return push(play, request);
}

static int pump(struct play *play)
{
	uint32_t slots = play->load->slots, want, need;
	struct worker *worker;

	while (play->queue && (worker = least_loaded(play))) {
		struct request *request = play->queue;

		DL_DELETE(play->queue, request);
		play->queued--;
		if (run(play, worker, request) < 0)
			return -ENOMEM;
	}
	want = (play->open + play->queued + slots - 1) / slots;
	need = (play->queued + slots - 1) / slots;
	need = need > play->starting ? need - play->starting : 0;
	if (play->queued == 0 || want <= play->alive)
		need = 0;
	if (play->floor > play->alive && need < play->floor - play->alive)
		need = play->floor - play->alive;
	while (need-- > 0)
		start_worker(play);
	return 0;
}

static int arrive(struct play *play)
{
	struct request *request = calloc(1, sizeof(*request));
	uint64_t step = play->now_us / (play->load->length_us / SERIES_STEPS);

	if (!request)
		return -ENOMEM;
	request->at_us = play->now_us;
	play->totals->requests++;
	play->calls++;
	if (step < SERIES_STEPS)
		play->totals->series[step].requests++;
	if (play->queued >= QUEUE_LENGTH) {
		play->totals->failed++;
		free(request);
		return 0;
	}
	DL_APPEND(play->queue, request);
	play->queued++;
	if (play->open + play->queued > play->most_open)
		play->most_open = play->open + play->queued;
	return pump(play);
}

static int finish(struct play *play)
{
	struct request *request = pop(play);
	struct worker *worker = &play->workers[request->worker];

	play->open--;
	play->last_call_us = play->now_us;
	if (--worker->open == 0) {
		worker->idle_us = play->now_us;
		if (worker->stage == LEAVING)
			end_worker(play, worker);
	}
	free(request);
	return pump(play);
}

/* The next arrival of a Poisson process whose rate changes, by thinning. */
static void draw_arrival(struct play *play)
{
	const struct load *load = play->load;
	double bound = load->functions > 1 ? load->rate(load, play->function, 0) : load->most_rps;

	do {
		play->next_arrival_us += 1 + (uint64_t)(-log(draw(&play->arrivals)) / bound * 1e6);
		if (play->next_arrival_us >= load->length_us)
			return;
	} while (draw(&play->arrivals) * bound >
		 load->rate(load, play->function, play->next_arrival_us));
}

/* ---- what keeps and ends workers ---- */

static uint32_t ready_workers(const struct play *play)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < play->high; i++)
		n += play->workers[i].stage == READY;
	return n;
}

static void end_idle(struct play *play)
{
	uint32_t ready = ready_workers(play);

	for (unsigned i = play->high; i-- > 0 && ready > play->floor;) {
		struct worker *worker = &play->workers[i];

		if (worker->stage != READY || worker->open > 0 ||
			play->now_us - worker->idle_us < play->policy->idle_us)
			continue;
		end_worker(play, worker);
		ready--;
	}
	/* what has not been needed for the delay: the least loaded go, and finish what they have */
	for (; play->policy->autoscaled && ready > play->ceiling; ready--) {
		struct worker *worker = least_loaded(play);

		if (!worker)
			return;
		worker->stage = LEAVING;
		if (worker->open == 0)
			end_worker(play, worker);
	}
}

static int tick(struct play *play)
{
	const struct load *load = play->load;
	const struct nest_autoscaler_config config = {
		.min = load->min,
		.max = WORKERS_MAX,
		.concurrency_milli = load->slots * 1000,
		.rps_milli = load->rps_target * 1000,
		.utilization_milli = 700,
		.window_us = 60 * S,
		.panic_window_us = 6 * S,
		.panic_threshold_milli = 2000,
		.in_delay_us = play->policy->idle_us,
		.idle_us = play->policy->idle_us,
	};
	const struct nest_autoscaler_sample sample = {
		.now_us = play->now_us,
		.load_us = play->load_us,
		.requests = play->calls,
		.ready = ready_workers(play),
		.needed = (play->most_open + load->slots - 1) / load->slots,
		.quiet_us = play->open + play->queued > 0 ? 0 : play->now_us - play->last_call_us,
	};
	struct nest_autoscaler_decision decision;

	if (play->policy->autoscaled) {
		nest_autoscaler_step(play->scaler, &config, &sample, &decision);
		play->floor = decision.desired;
		play->ceiling = decision.ceiling;
		play->most_open = play->open + play->queued;
	}
	end_idle(play);
	return pump(play);
}

static struct worker *next_ready(struct play *play)
{
	struct worker *next = NULL;

	for (unsigned i = 0; play->starting > 0 && i < play->high; i++) {
		struct worker *worker = &play->workers[i];

		if (worker->stage == STARTING && (!next || worker->ready_us < next->ready_us))
			next = worker;
	}
	return next;
}

/* One event; 1: the end. */
static int step(struct play *play)
{
	struct worker *starting = next_ready(play);
	uint64_t ready_us = starting ? starting->ready_us : UINT64_MAX;
	uint64_t end_us = play->nrunning > 0 ? play->running[0]->end_us : UINT64_MAX;
	uint64_t at_us = play->next_arrival_us;

	/* nothing is alive: no tick is needed before the next request */
	if (play->alive == 0 && play->load->min == 0 && play->next_tick_us < at_us)
		play->next_tick_us = (at_us / S + 1) * S;
	at_us = play->next_tick_us < at_us ? play->next_tick_us : at_us;
	at_us = ready_us < at_us ? ready_us : at_us;
	at_us = end_us < at_us ? end_us : at_us;
	if (at_us >= play->load->length_us)
		return 1;
	pass(play, at_us);
	if (at_us == ready_us) {
		starting->stage = READY;
		starting->idle_us = at_us;
		play->starting--;
		return pump(play);
	}
	if (at_us == end_us)
		return finish(play);
	if (at_us == play->next_arrival_us) {
		draw_arrival(play);
		return arrive(play);
	}
	play->next_tick_us += S;
	return tick(play);
}

static int play_function(const struct load *load, const struct policy *policy, unsigned function,
	struct totals *totals)
{
	nest_autofree struct play *play = calloc(1, sizeof(*play));
	struct request *request, *next;
	int r;

	if (!play || nest_autoscaler_new(&play->scaler) < 0)
		return -ENOMEM;
	play->load = load;
	play->policy = policy;
	play->function = function;
	play->arrivals = 1000 + function;
	play->runs = 2000000 + function;
	play->totals = totals;
	play->floor = load->min;
	play->ceiling = WORKERS_MAX;
	for (unsigned i = 0; i < load->min; i++) {
		start_worker(play);
		play->workers[i].stage = READY;
		play->workers[i].ready_us = 0;
		play->starting--;
	}
	draw_arrival(play);
	while ((r = step(play)) == 0) {
	}
	pass(play, load->length_us);
	DL_FOREACH_SAFE(play->queue, request, next)
		free(request);
	while (play->nrunning > 0)
		free(pop(play));
	free(play->running);
	nest_autoscaler_free(play->scaler);
	return r < 0 ? r : 0;
}

/* ---- what it says ---- */

static double wait_quantile(const struct totals *totals, double q)
{
	uint64_t all = 0, seen = 0, want;

	for (unsigned i = 0; i < WAIT_BUCKETS; i++)
		all += totals->waits[i];
	want = (uint64_t)(q * (double)all);
	for (unsigned i = 0; i < WAIT_BUCKETS; i++) {
		seen += totals->waits[i];
		if (seen > want)
			return i;
	}
	return WAIT_BUCKETS - 1;
}

static void report(const struct totals *totals)
{
	double waited = 0;

	for (unsigned i = 0; i < WAIT_BUCKETS; i++)
		waited += (double)i * (double)totals->waits[i];
	printf("requests %llu\n", (unsigned long long)totals->requests);
	printf("failed %llu\n", (unsigned long long)totals->failed);
	printf("cold_share %.6f\n", (double)totals->cold / (double)totals->requests);
	printf("queued_share %.6f\n", (double)totals->waited / (double)totals->requests);
	printf("wait_mean_ms %.4f\n", waited / (double)totals->requests);
	printf("wait_p99_ms %.0f\n", wait_quantile(totals, 0.99));
	printf("wait_p999_ms %.0f\n", wait_quantile(totals, 0.999));
	printf("worker_seconds %.0f\n", totals->worker_s);
	printf("peak_workers %llu\n", (unsigned long long)totals->peak_workers);
}

static int write_series(const struct totals *totals, const struct load *load, const char *path)
{
	double step_s = (double)(load->length_us / SERIES_STEPS) / 1e6;
	FILE *out = fopen(path, "we");

	if (!out)
		return -errno;
	for (unsigned i = 0; i < SERIES_STEPS; i++)
		fprintf(out, "%.1f %.3f %.3f %.3f\n", i * step_s,
			totals->series[i].requests / step_s, totals->series[i].load_s / step_s,
			totals->series[i].worker_s / step_s);
	return fclose(out) == 0 ? 0 : -errno;
}

int main(int argc, char **argv)
{
	const struct load *load = NULL;
	const struct policy *policy = NULL;
	nest_autofree struct totals *totals = calloc(1, sizeof(*totals));
	int r = 0;

	for (size_t i = 0; argc >= 3 && i < NEST_ARRAY_SIZE(loads); i++)
		load = strcmp(loads[i].name, argv[1]) == 0 ? &loads[i] : load;
	for (size_t i = 0; argc >= 3 && i < NEST_ARRAY_SIZE(policies); i++)
		policy = strcmp(policies[i].name, argv[2]) == 0 ? &policies[i] : policy;
	if (!load || !policy || argc > 4) {
		fprintf(stderr, "usage: autoscale_sim CASE POLICY [SERIES]\n");
		return 2;
	}
	if (!totals)
		r = -ENOMEM;
	for (unsigned i = 0; i < load->functions && r == 0; i++)
		r = play_function(load, policy, i, totals);
	if (r == 0 && argc == 4)
		r = write_series(totals, load, argv[3]);
	if (r < 0) {
		fprintf(stderr, "autoscale_sim: %s\n", strerror(-r));
		return 1;
	}
	report(totals);
	return 0;
}
