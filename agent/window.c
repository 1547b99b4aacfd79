/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/window.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/function.h"
#include "runtime/host.h"

#define BUCKETS (NEST_LATENCY_BUCKETS + 1)

/* One version's counters at a look. The histogram's are cut to 32 bits: only differences count. */
struct entry {
	uint64_t requests;
	uint64_t failed;
	uint32_t durations[BUCKETS];
	char name[NEST_FUNCTION_NAME_MAX + 1];
	char version[NEST_FUNCTION_VERSION_MAX + 1];
};

struct look {
	uint64_t at_us;
	uint64_t calls_total;
	uint64_t load_us;
	struct entry *entries; /* by name */
	size_t n;
	size_t cap;
};

struct nest_window {
	uint64_t least_us;
	struct look base;    /* what is compared with */
	struct look next;    /* what will be, once it is old enough; at_us 0: none */
	struct look current; /* under way */
	bool keep;	     /* the current one becomes next or base */
	size_t at;	     /* in base: those before it have smaller names */
};

int nest_window_new(uint64_t least_us, uint64_t start_us, struct nest_window **ret)
{
	struct nest_window *window = calloc(1, sizeof(*window));

	if (!window)
		return -ENOMEM;
	window->least_us = least_us;
	window->base.at_us = start_us;
	*ret = window;
	return 0;
}

void nest_window_free(struct nest_window *window)
{
	if (!window)
		return;
	free(window->base.entries);
	free(window->next.entries);
	free(window->current.entries);
	free(window);
}

/* ---- a look ---- */

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

/* @n * 1000000000 / @us: thousandths a second. */
static uint64_t per_second_milli(uint64_t n, uint64_t us)
{
	return us > 0 ? (uint64_t)((double)n * 1e9 / (double)us + 0.5) : 0;
}

void nest_window_begin(struct nest_window *window, uint64_t now_us, uint64_t calls_total,
	uint64_t load_us, struct nest_window_totals *ret)
{
	uint64_t span = grown(now_us, window->base.at_us);

	window->at = 0;
	window->current.at_us = now_us;
	window->current.calls_total = calls_total;
	window->current.load_us = load_us;
	window->current.n = 0;
	window->keep = window->next.at_us == 0 || now_us - window->next.at_us >= window->least_us;
	*ret = (struct nest_window_totals){
		.span_us = span,
		.rps_milli = per_second_milli(grown(calls_total, window->base.calls_total), span),
	};
	/* a difference of what wraps around: never negative, as time is not */
	if (span > 0)
		ret->concurrency_milli =
			(uint64_t)((double)(load_us - window->base.load_us) * 1e3 / (double)span +
				   0.5);
}

static void keep_entry(struct nest_window *window, const struct entry *entry)
{
	struct look *look = &window->current;

	if (look->n == look->cap) {
		size_t cap = look->cap ? look->cap * 2 : 16;
		struct entry *entries = realloc(look->entries, cap * sizeof(*entries));

		if (!entries)
			return;
		look->entries = entries;
		look->cap = cap;
	}
	look->entries[look->n++] = *entry;
}

/* The versions come by name; those of one name in any order. */
static const struct entry *find_before(struct nest_window *window, const struct entry *entry)
{
	const struct look *base = &window->base;

	while (window->at < base->n && strcmp(base->entries[window->at].name, entry->name) < 0)
		window->at++;
	for (size_t i = window->at; i < base->n; i++) {
		if (strcmp(base->entries[i].name, entry->name) != 0)
			return NULL;
		if (strcmp(base->entries[i].version, entry->version) == 0)
			return &base->entries[i];
	}
	return NULL;
}

/* Where in its bucket the @q-th part of the requests ends, if they lie there evenly. */
static uint64_t quantile_us(const uint32_t counts[BUCKETS], uint64_t total, double q)
{
	double rank = q * (double)total, below = 0;

	for (size_t i = 0; i < NEST_LATENCY_BUCKETS; i++) {
		double from = i > 0 ? nest_latency_bounds_s[i - 1] : 0;

		if (below + counts[i] >= rank && counts[i] > 0)
			return (uint64_t)((from + (nest_latency_bounds_s[i] - from) *
							  (rank - below) / counts[i]) *
					  1e6);
		below += counts[i];
	}
	return (uint64_t)(nest_latency_bounds_s[NEST_LATENCY_BUCKETS - 1] * 1e6);
}

static void fill_entry(struct entry *entry, const struct nest_target_stats *stats)
{
	*entry = (struct entry){ .requests = stats->requests_total[NEST_FAILURE_NONE] };
	for (int k = 0; k < NEST_FAILURE_KINDS; k++)
		entry->failed += k == NEST_FAILURE_NONE ? 0 : stats->requests_total[k];
	entry->requests += entry->failed;
	for (size_t i = 0; i < BUCKETS; i++)
		entry->durations[i] = (uint32_t)stats->duration.count[i];
	/* the registry bounds both */
	strncpy(entry->name, stats->spec->name, sizeof(entry->name) - 1);
	strncpy(entry->version, stats->spec->version, sizeof(entry->version) - 1);
}

void nest_window_add(struct nest_window *window, const struct nest_target_stats *stats,
	struct nest_window_rates *ret)
{
	static const struct entry nothing;
	const struct entry *before;
	uint32_t counts[BUCKETS];
	struct entry entry;
	uint64_t total = 0;

	fill_entry(&entry, stats);
	before = find_before(window, &entry);
	/* one that was removed and deployed again counts from 0 */
	if (!before || before->requests > entry.requests)
		before = &nothing;
	if (window->keep)
		keep_entry(window, &entry);
	*ret = (struct nest_window_rates){
		.span_us = grown(window->current.at_us, window->base.at_us),
		.requests = entry.requests - before->requests,
		.failed = grown(entry.failed, before->failed),
	};
	if (ret->requests == 0)
		return;
	ret->rps_milli = per_second_milli(ret->requests, ret->span_us);
	for (size_t i = 0; i < BUCKETS; i++) {
		counts[i] = entry.durations[i] - before->durations[i];
		total += counts[i];
	}
	if (total == 0)
		return;
	ret->p50_us = quantile_us(counts, total, 0.50);
	ret->p95_us = quantile_us(counts, total, 0.95);
	ret->p99_us = quantile_us(counts, total, 0.99);
}

static void move_look(struct look *to, struct look *from)
{
	struct look old = *to;

	*to = *from;
	*from = old;
	from->n = 0;
}

void nest_window_end(struct nest_window *window)
{
	if (!window->keep)
		return;
	if (window->least_us == 0) {
		move_look(&window->base, &window->current);
		return;
	}
	if (window->next.at_us > 0)
		move_look(&window->base, &window->next);
	move_look(&window->next, &window->current);
}
