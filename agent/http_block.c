/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http_conn.h"

static uint32_t headers_wanted(const struct nest_http_server *server)
{
	return server->limits.header_count;
}

static struct nest_http_block *block_new(uint32_t headers, uint32_t bytes)
{
	size_t table = (size_t)headers * sizeof(struct nest_http_header);
	struct nest_http_block *block = malloc(sizeof(*block) + table + bytes);

	if (!block)
		return NULL;
	block->next = NULL;
	block->headers = (struct nest_http_header *)(block + 1);
	block->headers_cap = headers;
	block->bytes = (char *)(block + 1) + table;
	block->cap = bytes;
	return block;
}

struct nest_http_block *nest_http_block_take(struct nest_http_server *server)
{
	struct nest_http_block *block = server->spares;

	if (!block)
		return block_new(headers_wanted(server), NEST_HTTP_BLOCK_BYTES);
	server->spares = block->next;
	server->nspares--;
	return block;
}

void nest_http_block_give(struct nest_http_server *server, struct nest_http_block *block)
{
	if (!block)
		return;
	if (block->cap != NEST_HTTP_BLOCK_BYTES || block->headers_cap != headers_wanted(server) ||
		server->nspares >= NEST_HTTP_SPARE_BLOCKS || server->nconnections == 0) {
		free(block);
		return;
	}
	block->next = server->spares;
	server->spares = block;
	server->nspares++;
}

/* Where @p, which points into @from (or is elsewhere), lies after the move to @to. */
static const char *moved(
	const char *p, const struct nest_http_block *from, uint32_t start, char *to)
{
	if (!p || p < from->bytes + start || p >= from->bytes + from->cap)
		return p;
	return to + (p - (from->bytes + start));
}

/* Copies head table and input from @from to @to (which may be the same block) at offset 0. */
static void move_input(struct nest_http_exchange *conn, struct nest_http_block *to)
{
	struct nest_http_block *from = conn->block;
	uint32_t start = conn->phase == NEST_HTTP_HEAD ? conn->head_start : 0;

	for (uint32_t i = 0; i < conn->nheaders; i++) {
		struct nest_http_header header = from->headers[i];

		header.name = moved(header.name, from, start, to->bytes);
		header.value = moved(header.value, from, start, to->bytes);
		to->headers[i] = header;
	}
	conn->request.target = moved(conn->request.target, from, start, to->bytes);
	memmove(to->bytes, from->bytes + start, conn->len - start);
	conn->pos -= start;
	conn->len -= start;
	conn->head_start = 0;
}

int nest_http_block_reserve(struct nest_http_exchange *conn, uint32_t n)
{
	struct nest_http_block *block = conn->block;
	struct nest_http_block *larger;
	uint32_t cap;

	if (block->cap - conn->len >= n)
		return 0;
	/* a head that was delivered stays where it is: its owner holds slices of it */
	if (conn->phase != NEST_HTTP_HEAD)
		return -ENOMEM;
	if (conn->head_start > 0 && block->cap - (conn->len - conn->head_start) >= n) {
		move_input(conn, block);
		return 0;
	}
	cap = block->cap * 2;
	while (cap - (conn->len - conn->head_start) < n)
		cap *= 2;
	larger = block_new(block->headers_cap, cap);
	if (!larger)
		return -ENOMEM;
	move_input(conn, larger);
	conn->block = larger;
	nest_http_block_give(conn->server, block);
	return 0;
}

void nest_http_block_free_spares(struct nest_http_server *server)
{
	while (server->spares) {
		struct nest_http_block *block = server->spares;

		server->spares = block->next;
		free(block);
	}
	server->nspares = 0;
}
