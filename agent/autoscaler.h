/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_AUTOSCALER_H
#define NEST_AGENT_AUTOSCALER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How many workers one version of a function should have: a function of samples, settings and time.
 * It reads no clock and does nothing; whoever has one brings samples and carries out what it says.
 *
 *	load of a metric, averaged over the window / (target x utilisation), rounded up;
 *	the largest of the metrics counts; up at once, down only after the delay.
 *
 * A burst shorter than the window is seen by a second, short window: when that wants the threshold
 * times as many workers as are ready there is a panic, during which nothing is scaled in.
 */
struct nest_autoscaler;

/* A metric whose target is 0 is not looked at. */
struct nest_autoscaler_config {
	uint32_t min; /* workers to be kept without any load */
	uint32_t max;
	/* what one worker should have at most, before utilisation */
	uint32_t concurrency_milli; /* requests at once, in thousandths */
	uint32_t rps_milli;	    /* requests a second, in thousandths */
	uint32_t cpu_milli;	    /* cores, in thousandths */
	uint64_t memory_bytes;
	uint32_t utilization_milli; /* how much of it is to be used: 700 is 70 % */
	uint64_t window_us;
	uint64_t panic_window_us;	/* 0: no panic */
	uint32_t panic_threshold_milli; /* 2000: twice what is ready */
	uint64_t in_delay_us;
	uint64_t idle_us; /* without a request for so long, it goes down to min at once */
};

struct nest_autoscaler_sample {
	uint64_t now_us; /* of any clock that never goes back */
	/* cumulative; only differences count */
	uint64_t load_us; /* the time that requests have spent waiting and running, together */
	uint64_t requests;
	uint64_t cpu_us; /* of all workers, those that ended too */
	/* now */
	uint64_t memory_bytes; /* of all workers */
	uint32_t ready;	       /* workers that take requests */
	/* since the last sample */
	uint32_t needed;   /* workers that the most requests at once would have filled */
	uint64_t quiet_us; /* time since there was a request, 0 while there is one */
};

enum nest_autoscaler_cause {
	NEST_AUTOSCALER_BOUND, /* min, or nothing to do */
	NEST_AUTOSCALER_CONCURRENCY,
	NEST_AUTOSCALER_REQUESTS,
	NEST_AUTOSCALER_CPU,
	NEST_AUTOSCALER_MEMORY,
	NEST_AUTOSCALER_CAUSES
};

struct nest_autoscaler_decision {
	uint32_t desired; /* at least so many workers, started at once and kept while idle */
	uint32_t ceiling; /* more than these have not been needed for the delay: they can go */
	bool panic;
	bool settled;			  /* without a request nothing of this will change */
	enum nest_autoscaler_cause cause; /* the metric that asks for the most */
	double concurrency;		  /* averages over the window, for who wants to see them */
	double rps;
};

/* Makes one without history. The caller owns *@ret. -ENOMEM. */
int nest_autoscaler_new(struct nest_autoscaler **ret);

void nest_autoscaler_free(struct nest_autoscaler *scaler); /* NULL is fine */

/*
 * Takes the next sample (samples come in the order of their times, a few or many a window), and
 * says what to do. @config may differ from call to call.
 */
void nest_autoscaler_step(struct nest_autoscaler *scaler,
	const struct nest_autoscaler_config *config, const struct nest_autoscaler_sample *sample,
	struct nest_autoscaler_decision *ret);

/* "concurrency", ... ; "bound" where no metric asks for more. Any thread. */
const char *nest_autoscaler_cause_name(enum nest_autoscaler_cause cause);

#endif
