/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pages.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

struct nest_pages {
	struct nest_http_server *server;
	const struct nest_page *pages;
	void *arg;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* The exchange's owner, until there is an answer. */
struct nest_pages_reader {
	struct nest_http_exchange *exchange; /* NULL: it has left */
	const char *type;
};

static void respond(struct nest_http_exchange *exchange, unsigned status, const char *type,
	const char *bytes, size_t n)
{
	const struct nest_http_header header = { .name = "content-type",
		.name_len = sizeof("content-type") - 1,
		.value = type,
		.value_len = (uint32_t)strlen(type) };

	if (nest_http_respond(exchange, status, &header, 1, bytes, n) < 0)
		nest_http_abort(exchange);
}

static void respond_no_memory(struct nest_http_exchange *exchange)
{
	respond(exchange, 500, "text/plain", "out of memory\n", 14);
}

void nest_pages_answer(struct nest_pages_reader *reader, const char *text, size_t n)
{
	if (reader->exchange)
		nest_http_set_owner(reader->exchange, NULL);
	if (reader->exchange && text)
		respond(reader->exchange, 200, reader->type, text, n);
	else if (reader->exchange)
		respond_no_memory(reader->exchange);
	free(reader);
}

static void begin(const struct nest_pages *pages, const struct nest_page *page,
	struct nest_http_exchange *exchange)
{
	struct nest_pages_reader *reader = calloc(1, sizeof(*reader));

	if (reader) {
		reader->exchange = exchange;
		reader->type = page->type;
		nest_http_set_owner(exchange, reader);
		if (page->begin(pages->arg, reader) == 0)
			return;
		nest_http_set_owner(exchange, NULL);
	}
	free(reader);
	respond_no_memory(exchange);
}

static void on_request(void *server_arg, struct nest_http_exchange *exchange,
	const struct nest_http_request *request, const char *body, size_t n, bool complete)
{
	const struct nest_pages *pages = server_arg;
	const struct nest_page *page = pages->pages;
	struct nest_buf text = NEST_BUF_INIT;
	unsigned status;

	(void)body;
	(void)n;
	(void)complete;
	while (page->path && strcmp(page->path, request->path) != 0)
		page++;
	if (!page->path) {
		respond(exchange, 404, "text/plain", "there is no such page\n", 22);
		return;
	}
	if (strcmp(request->method, "GET") != 0) {
		respond(exchange, 405, "text/plain", "pages are only read\n", 20);
		return;
	}
	if (page->begin) {
		begin(pages, page, exchange);
		return;
	}
	status = page->write(pages->arg, &text);
	if (status == 0)
		respond_no_memory(exchange);
	else
		respond(exchange, status, page->type, nest_buf_bytes(&text), text.len);
	nest_buf_done(&text);
}

static void on_body(void *owner, const char *bytes, size_t n, bool complete)
{
	(void)owner;
	(void)bytes;
	(void)n;
	(void)complete;
}

static void on_writable(void *owner)
{
	(void)owner;
}

static void on_gone(void *owner)
{
	struct nest_pages_reader *reader = owner;

	if (reader)
		reader->exchange = NULL;
}

int nest_pages_open(uv_loop_t *loop, const char *address, const struct nest_page *pages, void *arg,
	struct nest_pages **ret, struct nest_err *err)
{
	static const struct nest_http_events events = {
		.request = on_request, .body = on_body, .writable = on_writable, .gone = on_gone
	};
	const struct nest_http_limits limits = { .connections = 64,
		.header_bytes = 16 << 10,
		.header_count = 64,
		.body_bytes = 0,
		.header_timeout_ms = 10000,
		.body_idle_ms = 10000,
		.keepalive_ms = 60000,
		.write_idle_ms = 10000 };
	struct nest_pages *self = calloc(1, sizeof(*self));
	int r;

	if (!self)
		return nest_err_set(err, -ENOMEM, "serve pages on '%s'", address);
	self->pages = pages;
	self->arg = arg;
	r = nest_http_server_open(loop, &limits, &events, self, &self->server, err);
	if (r < 0) {
		free(self);
		return r;
	}
	r = nest_http_listen_anywhere(self->server, address, err);
	if (r < 0) {
		nest_pages_close(self, NULL, NULL);
		return r;
	}
	*ret = self;
	return 0;
}

static void on_server_closed(void *arg)
{
	struct nest_pages *pages = arg;
	void (*cb)(void *cb_arg) = pages->close_cb;
	void *cb_arg = pages->close_arg;

	free(pages);
	if (cb)
		cb(cb_arg);
}

void nest_pages_close(struct nest_pages *pages, void (*cb)(void *arg), void *arg)
{
	pages->close_cb = cb;
	pages->close_arg = arg;
	nest_http_server_close(pages->server, on_server_closed, pages);
}
