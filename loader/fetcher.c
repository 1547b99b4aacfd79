/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl's multi interface on a libuv loop: libcurl says which sockets to watch and when it wants
 * to be called, and gets called. Nothing of ours that adds or removes transfers, and no event of a
 * download, runs inside a callback of libcurl's, which forbids it: what is to be done waits for
 * the turn of pump().
 */
#include "loader/fetcher.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "loader/fetch_impl.h"

/* Sockets that libcurl keeps open for later requests. */
#define IDLE_CONNECTIONS 32
#define LINGER_US 1000000u

/* One socket of libcurl's that is watched. */
struct watch {
	uv_poll_t poll;
	struct nest_fetcher *fetcher;
	curl_socket_t socket;
};

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

static void collect(struct nest_fetcher *fetcher)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(fetcher->multi, &left))) {
		struct nest_fetch_part *part = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &part);
		nest_fetch_finish_part(part, message->data.result);
	}
}

static void drive(struct nest_fetcher *fetcher, curl_socket_t socket, int events)
{
	struct nest_fetch *fetch;
	int running;

	curl_multi_socket_action(fetcher->multi, socket, events, &running);
	DL_FOREACH(fetcher->fetches, fetch)
		nest_fetch_flush(fetch);
	collect(fetcher);
	pump(fetcher);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	int flags = 0;

	if (status < 0)
		flags |= CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	drive(watch->fetcher, watch->socket, flags);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;

	drop_handle(watch->fetcher);
	free(watch);
}

static struct watch *open_watch(struct nest_fetcher *fetcher, curl_socket_t socket)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	watch->fetcher = fetcher;
	watch->socket = socket;
	watch->poll.data = watch;
	if (uv_poll_init_socket(fetcher->loop, &watch->poll, socket) < 0) {
		free(watch);
		return NULL;
	}
	fetcher->handles++;
	curl_multi_assign(fetcher->multi, socket, watch);
	return watch;
}

/* -1 makes libcurl fail its transfers, which is all that lack of memory leaves. */
static int on_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *socket_arg)
{
	struct nest_fetcher *fetcher = arg;
	struct watch *watch = socket_arg;
	int events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (watch) {
			curl_multi_assign(fetcher->multi, socket, NULL);
			uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
		}
		return 0;
	}
	if (!watch)
		watch = open_watch(fetcher, socket);
	if (!watch)
		return -1;
	if (what != CURL_POLL_OUT)
		events |= UV_READABLE;
	if (what != CURL_POLL_IN)
		events |= UV_WRITABLE;
	return uv_poll_start(&watch->poll, events, on_poll) < 0 ? -1 : 0;
}

static void on_curl_timer(uv_timer_t *timer)
{
	drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout(CURLM *multi, long timeout_ms, void *arg)
{
	struct nest_fetcher *fetcher = arg;

	(void)multi;
	if (timeout_ms < 0)
		uv_timer_stop(&fetcher->curl_timer);
	else
		uv_timer_start(&fetcher->curl_timer, on_curl_timer, (uint64_t)timeout_ms, 0);
	return 0;
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
	start_all(fetcher, now);
	while (deliver_one(fetcher))
		;
	DL_FOREACH(fetcher->fetches, fetch) {
		uint64_t wanted = nest_fetch_due_us(fetch);

		due = wanted < due ? wanted : due;
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

static CURLcode global_result;

static void init_global(void)
{
	global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int open_multi(struct nest_fetcher *fetcher, struct nest_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_global);
	if (global_result != CURLE_OK)
		return nest_err_say(
			err, -EIO, "start libcurl: %s", curl_easy_strerror(global_result));
	fetcher->multi = curl_multi_init();
	if (!fetcher->multi)
		return nest_err_set(err, -ENOMEM, "start libcurl");
	curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
	curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
	curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS);
	/* Each range is to have a connection, not a stream, of its own. */
	curl_multi_setopt(fetcher->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
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
		     ? open_multi(fetcher, err)
		     : nest_err_set(err, -ENOMEM, "start to download");
	if (rc < 0) {
		free((char *)fetcher->config.ca_file);
		free((char *)fetcher->config.credentials_file);
		free(fetcher);
		return rc;
	}
	uv_timer_init(loop, &fetcher->curl_timer); /* never fails */
	uv_timer_init(loop, &fetcher->wake);
	fetcher->curl_timer.data = fetcher;
	fetcher->wake.data = fetcher;
	fetcher->handles = 2;
	fetcher->on_idle = on_idle;
	fetcher->idle_arg = arg;
	*ret = fetcher;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	drop_handle(handle->data);
}

void nest_fetcher_close(struct nest_fetcher *fetcher, void (*cb)(void *arg), void *arg)
{
	assert(!fetcher->fetches);
	fetcher->close_cb = cb;
	fetcher->close_arg = arg;
	/* Its idle connections are closed here, and the watches of their sockets. */
	curl_multi_cleanup(fetcher->multi);
	uv_close((uv_handle_t *)&fetcher->curl_timer, on_timer_closed);
	uv_close((uv_handle_t *)&fetcher->wake, on_timer_closed);
}
