/* SPDX-License-Identifier: Apache-2.0 */
#include "base/curl.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/err.h"

struct nest_curl {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t timer; /* libcurl's own */
	unsigned handles; /* of the loop, that are open */
	struct nest_curl_events events;
	void *arg;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* One socket of libcurl's that is watched. */
struct watch {
	uv_poll_t poll;
	struct nest_curl *curl;
	curl_socket_t socket;
};

static void drop_handle(struct nest_curl *curl)
{
	void (*cb)(void *) = curl->close_cb;
	void *arg = curl->close_arg;

	if (--curl->handles > 0)
		return;
	free(curl);
	if (cb)
		cb(arg);
}

static void drive(struct nest_curl *curl, curl_socket_t socket, int events)
{
	CURLMsg *message;
	int count;

	curl_multi_socket_action(curl->multi, socket, events, &count);
	if (curl->events.worked)
		curl->events.worked(curl->arg);
	while ((message = curl_multi_info_read(curl->multi, &count))) {
		if (message->msg == CURLMSG_DONE)
			curl->events.done(curl->arg, message->easy_handle, message->data.result);
	}
	if (curl->events.turn)
		curl->events.turn(curl->arg);
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
	drive(watch->curl, watch->socket, flags);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;

	drop_handle(watch->curl);
	free(watch);
}

static struct watch *open_watch(struct nest_curl *curl, curl_socket_t socket)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	watch->curl = curl;
	watch->socket = socket;
	watch->poll.data = watch;
	if (uv_poll_init_socket(curl->loop, &watch->poll, socket) < 0) {
		free(watch);
		return NULL;
	}
	curl->handles++;
	curl_multi_assign(curl->multi, socket, watch);
	return watch;
}

/* -1 makes libcurl fail its transfers, which is all that lack of memory leaves. */
static int on_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *socket_arg)
{
	struct nest_curl *curl = arg;
	struct watch *watch = socket_arg;
	int events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (watch) {
			curl_multi_assign(curl->multi, socket, NULL);
			uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
		}
		return 0;
	}
	if (!watch)
		watch = open_watch(curl, socket);
	if (!watch)
		return -1;
	if (what != CURL_POLL_OUT)
		events |= UV_READABLE;
	if (what != CURL_POLL_IN)
		events |= UV_WRITABLE;
	return uv_poll_start(&watch->poll, events, on_poll) < 0 ? -1 : 0;
}

static void on_timer(uv_timer_t *timer)
{
	drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout(CURLM *multi, long timeout_ms, void *arg)
{
	struct nest_curl *curl = arg;

	(void)multi;
	if (timeout_ms < 0)
		uv_timer_stop(&curl->timer);
	else
		uv_timer_start(&curl->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static CURLcode global_result;

static void init_global(void)
{
	global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int nest_curl_open(uv_loop_t *loop, const struct nest_curl_events *events, void *arg,
	struct nest_curl **ret, struct nest_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct nest_curl *curl;

	pthread_once(&once, init_global);
	if (global_result != CURLE_OK)
		return nest_err_say(
			err, -EIO, "start libcurl: %s", curl_easy_strerror(global_result));
	curl = calloc(1, sizeof(*curl));
	if (curl)
		curl->multi = curl_multi_init();
	if (!curl || !curl->multi) {
		free(curl);
		return nest_err_set(err, -ENOMEM, "start libcurl");
	}
	curl->loop = loop;
	curl->events = *events;
	curl->arg = arg;
	curl_multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl);
	curl_multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl);
	uv_timer_init(loop, &curl->timer); /* never fails */
	curl->timer.data = curl;
	curl->handles = 1;
	*ret = curl;
	return 0;
}

CURLM *nest_curl_multi(const struct nest_curl *curl)
{
	return curl->multi;
}

int nest_curl_add(struct nest_curl *curl, CURL *easy)
{
	return curl_multi_add_handle(curl->multi, easy) == CURLM_OK ? 0 : -ENOMEM;
}

void nest_curl_remove(struct nest_curl *curl, CURL *easy)
{
	curl_multi_remove_handle(curl->multi, easy);
}

static void on_timer_closed(uv_handle_t *handle)
{
	drop_handle(handle->data);
}

void nest_curl_close(struct nest_curl *curl, void (*cb)(void *arg), void *arg)
{
	curl->close_cb = cb;
	curl->close_arg = arg;
	/* Its idle connections are closed here, and the watches of their sockets. */
	curl_multi_cleanup(curl->multi);
	uv_close((uv_handle_t *)&curl->timer, on_timer_closed);
}
