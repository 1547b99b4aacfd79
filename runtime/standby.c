/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/standby.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "runtime/dispatch.h"
#include "runtime/reserve.h"
#include "runtime/services.h"
#include "sandbox/sandbox.h"

#define REFILL_US 10000u    /* after a use: the request goes first; its restorer is gone, too */
#define NO_CELL_US 20000u   /* none is prepared: those who wait for a start would get the next */
#define MEASURING_US 20000u /* what one takes is known soon after it stands */
#define GUESS_BYTES 1048576 /* of a clone while none has been measured */
#define MARGIN 8u	    /* of so many cells one is left to starts, and one more */
#define PRESSURE_US 10000000u
/* The kernel tells when tasks waited for memory for 100 ms of 2 s; of others only root is told. */
#define PRESSURE_FILE "/proc/pressure/memory"
#define PRESSURE_TRIGGER "some 100000 2000000"

struct nest_standby {
	struct nest_services *services;
	struct nest_reserve_link *all;
	struct nest_deadline look;
	uint64_t calm_at_us; /* nothing is restored before */
	bool stopped;
	bool watched; /* @pressure is open */
	int pressure_fd;
	uv_poll_t pressure;
};

/* All reserves at one look. */
struct survey {
	uint64_t bytes;
	uint32_t standing;
	uint32_t restoring;
	uint32_t unmeasured; /* of those that stand */
	bool busy;	     /* a start that somebody waits for is under way */
	uint64_t bytes_each;
	struct nest_reserve *first; /* of those that want one more, the one used last */
	uint64_t first_us;
	uint64_t first_before_us; /* its start before the last */
	uint64_t first_bytes;	  /* what it would take, plain and prefetched; 0: not known */
	uint64_t first_bytes_prefetched;
	bool first_learnt;
	uint32_t prefetched;
	struct nest_reserve
		*stalest; /* of those with a prefetched one, the one that started longest ago */
	uint64_t stalest_us;
	struct nest_reserve *last; /* of those that have one, the one used longest ago */
	uint64_t last_us;
	uint64_t wanted_at_us;
};

static void add_view(
	struct survey *survey, struct nest_reserve *reserve, const struct nest_reserve_view *view)
{
	uint32_t have = view->standing + view->restoring;

	survey->bytes += view->bytes;
	survey->standing += view->standing;
	survey->restoring += view->restoring;
	survey->unmeasured += view->unmeasured;
	survey->busy |= nest_dispatch_is_starting(view->dispatch);
	survey->prefetched += view->prefetched;
	if (view->bytes_each)
		survey->bytes_each = view->bytes_each;
	if (view->wanted > have && (!survey->first || view->used_us > survey->first_us)) {
		survey->first = reserve;
		survey->first_us = view->used_us;
		survey->first_before_us = view->before_us;
		survey->first_bytes = view->bytes_each;
		survey->first_bytes_prefetched = view->bytes_prefetched;
		survey->first_learnt = view->learnt;
	}
	if (view->prefetched > 0 && (!survey->stalest || view->started_us < survey->stalest_us)) {
		survey->stalest = reserve;
		survey->stalest_us = view->started_us;
	}
	if (view->standing > 0 && (!survey->last || view->used_us < survey->last_us)) {
		survey->last = reserve;
		survey->last_us = view->used_us;
	}
	if (view->wanted_at_us &&
		(!survey->wanted_at_us || view->wanted_at_us < survey->wanted_at_us))
		survey->wanted_at_us = view->wanted_at_us;
}

static void survey_all(const struct nest_standby *standby, struct survey *ret)
{
	struct nest_reserve_link *link;

	*ret = (struct survey){ .bytes = 0 };
	DL_FOREACH(standby->all, link) {
		struct nest_reserve_view view;

		nest_reserve_view(link->reserve, &view);
		if (view.unwanted && view.standing > 0) {
			nest_reserve_clear(link->reserve, "its snapshot is gone");
			continue;
		}
		if (view.unmeasured)
			nest_reserve_measure(link->reserve);
		add_view(ret, link->reserve, &view);
	}
}

static void look_at(struct nest_standby *standby, uint64_t us)
{
	if (!standby->stopped &&
		(!nest_deadline_is_set(&standby->look) || standby->look.at_us > us))
		nest_deadlines_set(standby->services->deadlines, &standby->look, us);
}

/* Whether the host has a cell for one more, beside those that starts may need. */
static bool has_cell(const struct nest_standby *standby)
{
	const struct nest_host_config *config = standby->services->config;

	return standby->services->workers + config->max_cells / MARGIN + 1 < config->max_cells;
}

static bool fits(const struct nest_standby *standby, const struct survey *survey, bool prefetch)
{
	uint64_t typical = survey->bytes_each ? survey->bytes_each : GUESS_BYTES;
	uint64_t more = survey->first_bytes ? survey->first_bytes : typical;

	if (prefetch)
		more = survey->first_bytes_prefetched ? survey->first_bytes_prefetched
						      : more + GUESS_BYTES;
	return survey->bytes + survey->unmeasured * typical + more <=
	       standby->services->config->standby_bytes;
}

/*
 * Those that are prefetched are as few as configured. Who has one keeps it, unless another has started twice
 * since: by the last start but one (LRU-2: O'Neil and others, SIGMOD 1993) functions that each
 * start once in a while take none from each other, which would be a restore in vain for each start.
 */
static bool earns_prefetch(const struct nest_standby *standby, const struct survey *survey)
{
	uint32_t most = standby->services->config->standby_prefetched;

	if (!survey->first_learnt || most == 0)
		return false;
	return survey->prefetched < most ||
	       (survey->stalest != survey->first && survey->stalest_us < survey->first_before_us);
}

/* Over its budget, since a clone was larger than expected. */
static void shrink(struct nest_standby *standby, struct survey *survey)
{
	while (survey->bytes > standby->services->config->standby_bytes && survey->last) {
		nest_reserve_drop(survey->last, false);
		survey_all(standby, survey);
	}
}

static void refill(struct nest_standby *standby, const struct survey *survey)
{
	const struct nest_services *services = standby->services;
	bool prefetch = earns_prefetch(standby, survey) && fits(standby, survey, true);
	int r;

	if (!fits(standby, survey, prefetch) || !has_cell(standby)) {
		/* who was used before it gives way; its end is the next look */
		if (survey->unmeasured > 0)
			look_at(standby, nest_clock_mono_us() + MEASURING_US);
		else if (survey->last && survey->last_us < survey->first_us &&
			 survey->last != survey->first)
			nest_reserve_drop(survey->last, false);
		return;
	}
	if (services->config->pool_size > 0 && nest_sandbox_prepared(services->sandbox) == 0) {
		look_at(standby, nest_clock_mono_us() + NO_CELL_US);
		return;
	}
	if (prefetch && survey->prefetched >= services->config->standby_prefetched)
		nest_reserve_drop_prefetched(survey->stalest);
	r = nest_reserve_add(survey->first, prefetch);
	/* what makes room is a reason to look, too */
	if (r < 0 && r != -EAGAIN)
		nest_standby_look(standby->services);
}

static void on_look(void *arg)
{
	struct nest_standby *standby = arg;
	uint64_t now_us = nest_clock_mono_us();
	struct survey survey;

	if (standby->stopped || standby->services->closing || standby->services->draining)
		return;
	survey_all(standby, &survey);
	shrink(standby, &survey);
	/* the end of what is under way is the next look */
	if (survey.restoring > 0 || survey.busy)
		return;
	if (survey.first && now_us < standby->calm_at_us)
		look_at(standby, standby->calm_at_us);
	else if (survey.first)
		refill(standby, &survey);
	else if (survey.wanted_at_us)
		look_at(standby, survey.wanted_at_us);
}

void nest_standby_look(struct nest_services *services)
{
	if (services->standby)
		look_at(services->standby, nest_clock_mono_us() + REFILL_US);
}

bool nest_standby_yield(struct nest_services *services)
{
	struct survey survey;

	if (!services->standby)
		return false;
	survey_all(services->standby, &survey);
	return survey.last && nest_reserve_drop(survey.last, true);
}

/* ---- pressure ---- */

/* Half of them go at each word of the kernel's, which comes every two seconds while it lasts. */
static void on_pressure(uv_poll_t *handle, int status, int events)
{
	struct nest_standby *standby = handle->data;
	struct survey survey;

	(void)events;
	if (status < 0 || standby->stopped)
		return;
	survey_all(standby, &survey);
	for (uint32_t n = (survey.standing + 1) / 2; n > 0 && survey.last; n--) {
		nest_reserve_drop(survey.last, false);
		survey_all(standby, &survey);
	}
	standby->calm_at_us = nest_clock_mono_us() + PRESSURE_US;
}

/* Where the kernel does not tell of it (before Linux 6.5 only root is told), nothing is lost but this. */
static void watch_pressure(struct nest_standby *standby)
{
	static const char trigger[] = PRESSURE_TRIGGER;

	standby->pressure_fd = open(PRESSURE_FILE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (standby->pressure_fd < 0)
		return;
	if (write(standby->pressure_fd, trigger, sizeof(trigger)) < 0 ||
		uv_poll_init(standby->services->loop, &standby->pressure, standby->pressure_fd) <
			0) {
		close(standby->pressure_fd);
		return;
	}
	standby->pressure.data = standby;
	standby->watched = true;
	nest_services_hold(standby->services);
	uv_poll_start(&standby->pressure, UV_PRIORITIZED, on_pressure);
}

static void on_pressure_closed(uv_handle_t *handle)
{
	struct nest_standby *standby = handle->data;

	close(standby->pressure_fd);
	nest_services_release(standby->services);
}

/* ---- life ---- */

void nest_standby_add(struct nest_services *services, struct nest_reserve *reserve)
{
	if (services->standby)
		DL_APPEND(services->standby->all, nest_reserve_link(reserve));
}

void nest_standby_remove(struct nest_services *services, struct nest_reserve *reserve)
{
	if (services->standby)
		DL_DELETE(services->standby->all, nest_reserve_link(reserve));
}

int nest_standby_open(
	struct nest_services *services, struct nest_standby **ret, struct nest_err *err)
{
	struct nest_standby *standby = calloc(1, sizeof(*standby));

	if (!standby || nest_deadlines_reserve(services->deadlines, 1) < 0) {
		free(standby);
		return nest_err_set(err, -ENOMEM, "prepare for clones on standby");
	}
	standby->services = services;
	standby->look.cb = on_look;
	standby->look.arg = standby;
	watch_pressure(standby);
	*ret = standby;
	return 0;
}

void nest_standby_stop(struct nest_standby *standby)
{
	if (standby->stopped)
		return;
	standby->stopped = true;
	nest_deadlines_clear(standby->services->deadlines, &standby->look);
	if (standby->watched)
		uv_close((uv_handle_t *)&standby->pressure, on_pressure_closed);
}

void nest_standby_free(struct nest_standby *standby)
{
	if (!standby)
		return;
	nest_deadlines_release(standby->services->deadlines, 1);
	free(standby);
}
