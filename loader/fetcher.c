/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing that adds or removes transfers, and no event of a download, runs inside a callback of
 * libcurl's, which forbids it: what is to be done waits for the turn of pump().
 */
#include "loader/fetcher.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/curl.h"
#include "loader/fetch_impl.h"

/* Sockets that libcurl keeps open for later requests. */
#define IDLE_CONNECTIONS 32
#define LINGER_US 1000000u

static void pump(struct nest_fetcher *fetcher);

static void drop_handle(struct nest_fetcher *fetcher)
{
	void (*cb)(void *) = fetcher->close_cb;
	void *arg = fetcher->close_arg;

	if (--fetcher->handles > 0)
		return;
	free((char *)fetcher->config.ca_file);
	free((char *)fetcher->config.credentials_file);
	free(fetcher);
	if (cb)
		cb(arg);
}

static void on_transfer_done(void *arg, CURL *easy, CURLcode code)
{
	struct nest_fetch_part *part = NULL;

	(void)arg;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &part);
	nest_fetch_finish_part(part, code);
}

static void on_worked(void *arg)
{
	struct nest_fetcher *fetcher = arg;
	struct nest_fetch *fetch;

	DL_FOREACH(fetcher->fetches, fetch)
		nest_fetch_flush(fetch);
}

static void on_turn(void *arg)
{
	pump(arg);
}

static bool is_idle(const struct nest_fetcher *fetcher)
{
	return fetcher->idle_since_us != 0 &&
	       nest_clock_mono_us() - fetcher->idle_since_us >= LINGER_US;
}

static void on_wake(uv_timer_t *timer)
{
	struct nest_fetcher *fetcher = timer->data;

	pump(fetcher);
	if (is_idle(fetcher))
		fetcher->on_idle(fetcher->idle_arg);
}

void nest_fetcher_wake(struct nest_fetcher *fetcher)
{
	uv_timer_start(&fetcher->wake, on_wake, 0, 0);
}

unsigned nest_fetcher_busy(
	const struct nest_fetcher *fetcher, const struct nest_reference_parts *server)
{
	const struct nest_fetch *fetch;
	unsigned n = 0;

	DL_FOREACH(fetcher->fetches, fetch) {
		if (fetch->server.port != server->port ||
			strcmp(fetch->server.host, server->host) != 0)
			continue;
		for (uint32_t i = 0; i < fetcher->config.connections; i++)
			n += fetch->parts[i].state == NEST_FETCH_PART_RUNNING;
	}
	return n;
}

static bool deliver_one(struct nest_fetcher *fetcher)
{
	struct nest_fetch *fetch, *next;

	DL_FOREACH_SAFE(fetcher->fetches, fetch, next) {
		/* It may be gone, and others with it: the list is looked at anew. */
		if (nest_fetch_deliver(fetch))
			return true;
	}
	return false;
}

/* One transfer of each download in turn, so that a large one doesn't take all connections. */
static void start_all(struct nest_fetcher *fetcher, uint64_t now)
{
	struct nest_fetch *fetch;
	bool any;

	do {
		any = false;
		DL_FOREACH(fetcher->fetches, fetch)
			any |= nest_fetch_start_one(fetch, now);
	} while (any);
}

static void pump(struct nest_fetcher *fetcher)
{
	uint64_t now = nest_clock_mono_us();
	uint64_t due = UINT64_MAX;
	struct nest_fetch *fetch;

	DL_FOREACH(fetcher->fetches, fetch)
		nest_fetch_expire(fetch, now);
	/* An event may have ended a download, whose connections are free then. */
	do
		start_all(fetcher, now);
	while (deliver_one(fetcher));
	DL_FOREACH(fetcher->fetches, fetch) {
		uint64_t wanted = nest_fetch_due_us(fetch);

		/* What is due and wasn't done waits for a connection, and so for the turn after that. */
		if (wanted > now && wanted < due)
			due = wanted;
	}
	if (!fetcher->fetches) {
		if (fetcher->idle_since_us == 0)
			fetcher->idle_since_us = now;
		due = fetcher->idle_since_us + LINGER_US;
	} else {
		fetcher->idle_since_us = 0;
	}
	if (due == UINT64_MAX)
		uv_timer_stop(&fetcher->wake);
	else
		uv_timer_start(&fetcher->wake, on_wake, due > now ? (due - now) / 1000 + 1 : 0, 0);
}

static int open_curl(struct nest_fetcher *fetcher, struct nest_err *err)
{
	static const struct nest_curl_events events = {
		.worked = on_worked, .done = on_transfer_done, .turn = on_turn
	};
	CURLM *multi;
	int rc = nest_curl_open(fetcher->loop, &events, fetcher, &fetcher->curl, err);

	if (rc < 0)
		return rc;
	multi = nest_curl_multi(fetcher->curl);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS);
	/* Each range is to have a connection, not a stream, of its own. */
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	return 0;
}

int nest_fetcher_open(uv_loop_t *loop, const struct nest_fetcher_config *config,
	void (*on_idle)(void *arg), void *arg, struct nest_fetcher **ret, struct nest_err *err)
{
	struct nest_fetcher *fetcher = calloc(1, sizeof(*fetcher));
	int rc;

	assert(config->connections > 0 && config->connections <= NEST_FETCHER_CONNECTIONS_MAX);
	if (!fetcher)
		return nest_err_set(err, -ENOMEM, "start to download");
	fetcher->loop = loop;
	fetcher->config = *config;
	fetcher->config.ca_file = strdup(config->ca_file ? config->ca_file : "");
	fetcher->config.credentials_file =
		strdup(config->credentials_file ? config->credentials_file : "");
	rc = fetcher->config.ca_file && fetcher->config.credentials_file
		     ? open_curl(fetcher, err)
		     : nest_err_set(err, -ENOMEM, "start to download");
	if (rc < 0) {
		free((char *)fetcher->config.ca_file);
		free((char *)fetcher->config.credentials_file);
		free(fetcher);
		return rc;
	}
	uv_timer_init(loop, &fetcher->wake); /* never fails */
	fetcher->wake.data = fetcher;
	fetcher->handles = 2;
	fetcher->on_idle = on_idle;
	fetcher->idle_arg = arg;
	*ret = fetcher;
	return 0;
}

static void on_wake_closed(uv_handle_t *handle)
{
	drop_handle(handle->data);
}

static void on_curl_closed(void *arg)
{
	drop_handle(arg);
}

void nest_fetcher_close(struct nest_fetcher *fetcher, void (*cb)(void *arg), void *arg)
{
	assert(!fetcher->fetches);
	fetcher->close_cb = cb;
	fetcher->close_arg = arg;
	nest_curl_close(fetcher->curl, on_curl_closed, fetcher);
	uv_close((uv_handle_t *)&fetcher->wake, on_wake_closed);
}
