/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A download is a file that fills from its front:
 *
 *	0 ......... watermark ....... frontier ............ total
 *	  all there           parts            not asked for
 *
 * The first request asks for the first megabyte, so that its connection can go on with another
 * range after it; the answer says how long the file is and whether the server has ranges. If so,
 * every connection takes the next range behind the frontier as it becomes free, and the watermark,
 * up to which a reader may read, is the least byte that a part misses. If not, the one answer is
 * the whole file.
 *
 * Of a file whose length the reference says, all of it is asked for in such ranges before the first
 * answer, unless that comes so soon that the server must be next door. An answer with the whole file
 * makes its part the only one, whichever it was; the others are dropped.
 *
 * Ranges are small enough that the watermark keeps moving and that all connections end at about
 * the same time, but long enough that the round trip between two of them costs little: a multiple
 * of what a connection was seen to bring in one.
 *
 * Whatever the first answer said of the file (ETag, Last-Modified, length), all others must say
 * too: parts of different files never meet.
 */
#include "loader/fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "loader/fetch_impl.h"

#define FIRST_BYTES (1024u * 1024)
#define BLIND_MAX (4u * 1024 * 1024) /* of a range before a connection's speed is known */
#define BLIND_STEP 4096u	     /* ranges that meet share no page of the file's */
#define RANGE_MIN (256u * 1024)
#define LEAST_MAX (2u * 1024 * 1024)
#define RANGE_MAX (16u * 1024 * 1024)
#define ROUND_TRIPS 10.0       /* a range's length in round trips */
#define RANGE_LEAST_US 40000.0 /* and in time, at least */
#define NEAR_US 2000u	       /* a round trip to a server next door */
#define NEAR_WORTH_US 50000.0
#define REDIRECTS_MAX 5
#define BACKOFF_MAX_MS 10000u
#define PROGRESS_BYTES (64u * 1024) /* an attempt that brought so much was none in vain */

static bool is_over(const struct nest_fetch *fetch)
{
	return fetch->ended_us != 0;
}

static unsigned count_running(const struct nest_fetch *fetch)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++)
		n += fetch->parts[i].state == NEST_FETCH_PART_RUNNING;
	return n;
}

static bool is_complete(const struct nest_fetch *fetch)
{
	if (!fetch->settled || fetch->first.total == NEST_FETCH_UNKNOWN ||
		fetch->frontier < fetch->first.total)
		return false;
	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++)
		if (fetch->parts[i].state != NEST_FETCH_PART_IDLE)
			return false;
	return true;
}

void nest_fetch_publish(struct nest_fetch *fetch)
{
	uint64_t watermark = fetch->frontier;

	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++) {
		const struct nest_fetch_part *part = &fetch->parts[i];

		if (part->state != NEST_FETCH_PART_IDLE && part->at < watermark)
			watermark = part->at;
	}
	pthread_mutex_lock(&fetch->shared.lock);
	if (fetch->settled)
		fetch->shared.total = fetch->first.total;
	/* It never moves back, not even for a server without ranges that begins anew. */
	if (fetch->settled && watermark != NEST_FETCH_UNKNOWN &&
		watermark > fetch->shared.watermark)
		fetch->shared.watermark = watermark;
	pthread_cond_broadcast(&fetch->shared.moved);
	pthread_mutex_unlock(&fetch->shared.lock);
}

static void end(struct nest_fetch *fetch, const struct nest_err *err)
{
	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++)
		nest_fetch_part_stop(&fetch->parts[i]);
	fetch->ended_us = nest_clock_mono_us();
	pthread_mutex_lock(&fetch->shared.lock);
	fetch->shared.done = true;
	if (err)
		fetch->shared.err = *err;
	pthread_cond_broadcast(&fetch->shared.moved);
	pthread_mutex_unlock(&fetch->shared.lock);
}

void nest_fetch_fail(struct nest_fetch *fetch, const struct nest_err *err)
{
	if (!is_over(fetch))
		end(fetch, err);
}

void nest_fetch_expire(struct nest_fetch *fetch, uint64_t now_us)
{
	struct nest_err err = NEST_ERR_INIT;

	if (is_over(fetch) || now_us < fetch->deadline_us)
		return;
	nest_err_say(&err, -ETIMEDOUT,
		"it was not complete after %u ms: %" PRIu64 " bytes had arrived%s%s",
		(unsigned)fetch->fetcher->config.timeout_ms, fetch->totals.bytes,
		fetch->parts[0].err.code ? "; the last problem: " : "",
		fetch->parts[0].err.code ? nest_err_text(&fetch->parts[0].err) : "");
	nest_fetch_fail(fetch, &err);
}

/* ---- starting ---- */

/*
 * How many connections may work at once. A single one to a server next door may be as fast as the
 * machine, and more would only get into each other's way: there is one more for each NEAR_WORTH_US
 * that one would take for what isn't asked for yet. To wait for that measure costs little there.
 */
static uint32_t worth_connections(const struct nest_fetch *fetch)
{
	uint32_t max = fetch->fetcher->config.connections;
	double left = (double)(fetch->first.total - fetch->frontier);
	double each = fetch->bytes_per_us * NEAR_WORTH_US;

	if (fetch->round_trip_us >= NEAR_US)
		return max;
	if (each <= 0)
		return 1;
	return left >= each * max ? max : (uint32_t)(left / each) + 1;
}

static uint64_t range_length(const struct nest_fetch *fetch)
{
	uint64_t left = fetch->first.total - fetch->frontier;
	uint64_t share = left / worth_connections(fetch);
	double us = fetch->round_trip_us * ROUND_TRIPS;
	double wanted = fetch->bytes_per_us * (us > RANGE_LEAST_US ? us : RANGE_LEAST_US);
	uint64_t n = wanted > RANGE_MAX ? RANGE_MAX : (uint64_t)wanted;
	/*
	 * To ask takes a round trip: what would come in less isn't worth it. Bounded, because what
	 * was measured may have been a burst, and the other connections would have nothing to do.
	 */
	double least = fetch->bytes_per_us * fetch->round_trip_us;

	if (fetch->bytes_per_us <= 0)
		n = share / 2 > FIRST_BYTES ? share / 2 : FIRST_BYTES;
	if (n > share)
		n = share;
	if (least > LEAST_MAX)
		least = LEAST_MAX;
	if ((double)n < least)
		n = (uint64_t)least;
	if (n < RANGE_MIN)
		n = RANGE_MIN;
	if (n > RANGE_MAX)
		n = RANGE_MAX;
	return n < left ? n : left;
}

/*
 * When it will be sure that a server that hasn't answered yet isn't next door. For what it would save
 * there, asking over all connections at once costs a fifth more of CPU time.
 */
static uint64_t far_at_us(const struct nest_fetch *fetch)
{
	uint64_t reached_us = nest_fetch_part_reached_us(&fetch->parts[0]);

	if (fetch->far || fetch->settled || fetch->frontier >= fetch->size || reached_us == 0)
		return UINT64_MAX;
	return reached_us + NEAR_US;
}

/*
 * What to ask for before there was any answer: of a file whose length the reference says an equal
 * share for each connection, and of others one range, whose answer will say it.
 */
static bool give_blind_range(struct nest_fetch *fetch, struct nest_fetch_part *part)
{
	uint64_t connections = fetch->fetcher->config.connections;
	uint64_t worth = (fetch->size + RANGE_MIN - 1) / RANGE_MIN;
	uint64_t n;

	if (fetch->frontier == NEST_FETCH_UNKNOWN) {
		if (part != fetch->parts || part->retry_at_us > 0)
			return false;
		part->retry_at_us = 1; /* it was begun */
		part->at = 0;
		part->end = connections > 1 ? FIRST_BYTES : NEST_FETCH_UNKNOWN;
		return true;
	}
	if (fetch->frontier >= fetch->size || (fetch->frontier > 0 && !fetch->far))
		return false;
	n = fetch->size / (worth < connections ? worth : connections) + BLIND_STEP - 1;
	n -= n % BLIND_STEP;
	if (n > BLIND_MAX)
		n = BLIND_MAX;
	part->at = fetch->frontier;
	part->end = n < fetch->size - part->at ? part->at + n : fetch->size;
	fetch->frontier = part->end;
	return true;
}

/* Gives @part what it is to ask for next: false when there is nothing. */
static bool give_range(struct nest_fetch *fetch, struct nest_fetch_part *part, uint64_t now_us)
{
	if (part->state == NEST_FETCH_PART_WAITING)
		return now_us >= part->retry_at_us;
	if (part->state != NEST_FETCH_PART_IDLE)
		return false;
	part->attempts = 0;
	if (!fetch->settled)
		return give_blind_range(fetch, part);
	if (!fetch->ranges || fetch->frontier >= fetch->first.total ||
		count_running(fetch) >= worth_connections(fetch))
		return false;
	part->at = fetch->frontier;
	part->end = part->at + range_length(fetch);
	fetch->frontier = part->end;
	return true;
}

bool nest_fetch_start_one(struct nest_fetch *fetch, uint64_t now_us)
{
	const struct nest_fetcher_config *config = &fetch->fetcher->config;

	if (now_us >= far_at_us(fetch))
		fetch->far = true;
	if (is_over(fetch) ||
		nest_fetcher_busy(fetch->fetcher, &fetch->server) >= config->connections)
		return false;
	for (uint32_t i = 0; i < config->connections; i++) {
		struct nest_fetch_part *part = &fetch->parts[i];
		unsigned running;

		if (!give_range(fetch, part, now_us))
			continue;
		if (nest_fetch_part_start(part) < 0) {
			nest_fetch_fail(fetch, &part->err);
			return false;
		}
		running = count_running(fetch);
		if (running > fetch->totals.connections)
			fetch->totals.connections = running;
		return true;
	}
	return false;
}

uint64_t nest_fetch_due_us(const struct nest_fetch *fetch)
{
	uint64_t due = fetch->deadline_us;
	uint64_t far_at = far_at_us(fetch);

	if (is_over(fetch))
		return fetch->told_done ? UINT64_MAX : 0;
	if (far_at < due)
		due = far_at;
	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++) {
		const struct nest_fetch_part *part = &fetch->parts[i];

		if (part->state == NEST_FETCH_PART_WAITING && part->retry_at_us < due)
			due = part->retry_at_us;
	}
	return due;
}

/* ---- the end of a transfer ---- */

/* What one connection brings, for the length of the next ranges. */
static void measure(struct nest_fetch *fetch, const struct nest_fetch_part *part)
{
	curl_off_t sent = 0;
	curl_off_t first = 0;
	curl_off_t total = 0;
	uint64_t n = part->at - part->began_at;

	curl_easy_getinfo(part->easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
	curl_easy_getinfo(part->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
	curl_easy_getinfo(part->easy, CURLINFO_TOTAL_TIME_T, &total);
	if (total <= first || n < RANGE_MIN / 2)
		return;
	fetch->round_trip_us = (double)(first - sent);
	fetch->bytes_per_us = (double)n / (double)(total - first);
}

/* Between half of it and all, so that many hosts don't come back at one time. */
static uint64_t jitter(uint64_t ms)
{
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)nest_clock_mono_us();
	return ms / 2 + random % (ms / 2 + 1);
}

static void retry(struct nest_fetch_part *part, uint64_t wait_ms)
{
	struct nest_fetch *fetch = part->fetch;
	const struct nest_fetcher_config *config = &fetch->fetcher->config;
	uint64_t backoff = config->backoff_ms;
	struct nest_err err = part->err;

	if (part->at - part->began_at >= PROGRESS_BYTES)
		part->attempts = 0;
	if (part->attempts >= config->retries) {
		nest_err_wrap(&err, "gave up after %u attempts", (unsigned)part->attempts + 1);
		nest_fetch_fail(fetch, &err);
		return;
	}
	for (uint32_t i = 0; i < part->attempts && backoff < BACKOFF_MAX_MS; i++)
		backoff *= 2;
	backoff = jitter(backoff < BACKOFF_MAX_MS ? backoff : BACKOFF_MAX_MS);
	if (wait_ms > backoff)
		backoff = wait_ms;
	nest_fetch_part_stop(part);
	part->attempts++;
	fetch->totals.retries++;
	part->state = NEST_FETCH_PART_WAITING;
	part->retry_at_us = nest_clock_mono_us() + backoff * 1000;
	if (part->retry_at_us < fetch->deadline_us)
		return;
	nest_err_wrap(&err, "the next attempt would come after the %u ms that it may take",
		(unsigned)config->timeout_ms);
	nest_fetch_fail(fetch, &err);
}

/* Follows a redirect: from http to https, never back, and to nothing else. */
static int redirect(struct nest_fetch *fetch, const char *url, struct nest_err *err)
{
	struct nest_reference_parts server;
	char *copy;
	int rc = nest_reference_parse(url, &server, err);

	if (rc == 0 && server.kind == NEST_REFERENCE_PATH)
		rc = nest_err_say(err, -EPROTO, "only http and https are followed");
	if (rc == 0 && server.kind == NEST_REFERENCE_HTTP &&
		fetch->server.kind == NEST_REFERENCE_HTTPS)
		rc = nest_err_say(err, -EPROTO, "that would leave https for http");
	if (rc == 0 && ++fetch->redirects > REDIRECTS_MAX)
		rc = nest_err_say(err, -EPROTO, "that is the %uth redirect", fetch->redirects);
	if (rc < 0)
		return nest_err_wrap(
			err, "the server redirects to '%.*s'", (int)nest_reference_shown(url), url);
	copy = strdup(url);
	if (!copy)
		return nest_err_set(err, -ENOMEM, "follow a redirect");
	free(fetch->url);
	fetch->url = copy;
	fetch->server = server;
	return 0;
}

/* Asks where the first of the parts that were sent elsewhere was sent to, whoever that was. */
static void redirect_part(struct nest_fetch_part *part, const char *url)
{
	struct nest_err err = NEST_ERR_INIT;

	if (part->hop == part->fetch->redirects && redirect(part->fetch, url, &err) < 0) {
		nest_fetch_fail(part->fetch, &err);
		return;
	}
	nest_fetch_part_stop(part);
	part->state = NEST_FETCH_PART_WAITING;
	part->retry_at_us = 1;
}

void nest_fetch_flush(struct nest_fetch *fetch)
{
	for (uint32_t i = 0; i < fetch->fetcher->config.connections; i++) {
		struct nest_fetch_part *part = &fetch->parts[i];

		if (part->dropped)
			nest_fetch_part_stop(part);
		else if (nest_fetch_part_flush(part) < 0)
			nest_fetch_fail(fetch, &part->err);
	}
}

void nest_fetch_finish_part(struct nest_fetch_part *part, CURLcode code)
{
	struct nest_fetch *fetch = part->fetch;
	const char *url = NULL;
	uint64_t wait_ms = 0;
	int rc;

	if (part->dropped) {
		nest_fetch_part_stop(part);
		return;
	}
	rc = nest_fetch_part_judge(part, code, &wait_ms, &url);
	if (rc == 1) {
		retry(part, wait_ms);
	} else if (rc == 2) {
		redirect_part(part, url);
	} else if (rc < 0) {
		nest_fetch_fail(fetch, &part->err);
	} else {
		measure(fetch, part);
		nest_fetch_part_stop(part);
		nest_fetch_publish(fetch);
		if (is_complete(fetch))
			end(fetch, NULL);
	}
}

bool nest_fetch_deliver(struct nest_fetch *fetch)
{
	const struct nest_err *err = fetch->shared.err.code < 0 ? &fetch->shared.err : NULL;

	/* Only this thread writes these. */
	if (!fetch->told_begun && !err && (is_over(fetch) || fetch->shared.watermark > 0)) {
		fetch->told_begun = true;
		fetch->events.begun(fetch->arg);
		return true;
	}
	if (fetch->told_done || !is_over(fetch))
		return false;
	fetch->told_done = true;
	fetch->events.done(fetch->arg, err);
	return true;
}

/* ---- opening and closing ---- */

static void free_fetch(struct nest_fetch *fetch)
{
	pthread_cond_destroy(&fetch->shared.moved);
	pthread_mutex_destroy(&fetch->shared.lock);
	free(fetch->url);
	free(fetch);
}

int nest_fetch_open(struct nest_fetcher *fetcher, const char *url, uint64_t size, int fd,
	const struct nest_fetch_events *events, void *arg, struct nest_fetch **ret,
	struct nest_err *err)
{
	struct nest_fetch *fetch = calloc(1, sizeof(*fetch));
	int rc;

	if (!fetch)
		return nest_err_set(err, -ENOMEM, "start a download");
	pthread_mutex_init(&fetch->shared.lock, NULL);
	pthread_cond_init(&fetch->shared.moved, NULL);
	fetch->shared.total = NEST_FETCH_UNKNOWN;
	fetch->size = size;
	fetch->frontier = size > 0 && fetcher->config.connections > 1 ? 0 : NEST_FETCH_UNKNOWN;
	fetch->first.total = NEST_FETCH_UNKNOWN;
	fetch->fetcher = fetcher;
	fetch->events = *events;
	fetch->arg = arg;
	fetch->fd = fd;
	fetch->url = strdup(url);
	rc = fetch->url ? nest_reference_parse(url, &fetch->server, err)
			: nest_err_set(err, -ENOMEM, "start a download");
	if (rc == 0 && fetch->server.kind == NEST_REFERENCE_PATH)
		rc = nest_err_say(err, -EINVAL, "only http and https are downloaded");
	if (rc == 0 && size > fetcher->config.max_bytes)
		rc = nest_err_say(err, -EFBIG,
			"its reference says that it is %" PRIu64 " bytes long, and %" PRIu64
			" are allowed",
			size, fetcher->config.max_bytes);
	if (rc < 0) {
		free_fetch(fetch);
		return rc;
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(fetch->parts); i++)
		fetch->parts[i].fetch = fetch;
	fetch->opened_us = nest_clock_mono_us();
	fetch->deadline_us = fetch->opened_us + fetcher->config.timeout_ms * UINT64_C(1000);
	DL_APPEND(fetcher->fetches, fetch);
	nest_fetcher_wake(fetcher);
	*ret = fetch;
	return 0;
}

void nest_fetch_abort(struct nest_fetch *fetch, int code, const char *why)
{
	struct nest_err err = NEST_ERR_INIT;

	fetch->told_begun = true;
	fetch->told_done = true;
	nest_err_say(&err, code, "%s", why);
	nest_fetch_fail(fetch, &err);
}

void nest_fetch_close(struct nest_fetch *fetch)
{
	struct nest_fetcher *fetcher;

	if (!fetch)
		return;
	fetcher = fetch->fetcher;
	nest_fetch_abort(fetch, -ECANCELED, "the download was abandoned");
	DL_DELETE(fetcher->fetches, fetch);
	/* Its connections are free for others. */
	nest_fetcher_wake(fetcher);
	free_fetch(fetch);
}

void nest_fetch_totals(const struct nest_fetch *fetch, struct nest_fetch_totals *ret)
{
	*ret = fetch->totals;
	ret->us = (fetch->ended_us ? fetch->ended_us : nest_clock_mono_us()) - fetch->opened_us;
}
