/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/agent/gateway_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <check.h>

#include "base/err.h"

void bench_start(struct bench *bench)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_gateway_config config = { .socket_path = bench->path,
		.socket_mode = 0600,
		.limits = { .connections = 100,
			.header_bytes = 32768,
			.header_count = 100,
			.body_bytes = 1u << 20,
			.header_timeout_ms = 10000,
			.body_idle_ms = 10000,
			.keepalive_ms = 10000,
			.write_idle_ms = 10000 } };

	memset(bench, 0, sizeof(*bench));
	memset(&fake, 0, sizeof(fake));
	strcpy(bench->dir, "/tmp/nest-gateway-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(bench->dir));
	snprintf(bench->path, sizeof(bench->path), "%s/s", bench->dir);
	ck_assert_int_eq(uv_loop_init(&bench->loop), 0);
	ck_assert_int_eq(
		nest_gateway_open(&bench->loop, fake_host(), &config, &bench->gateway, &err), 0);
	peer_connect(&bench->peer, &bench->loop, bench->path, 0);
}

static void on_closed(void *arg)
{
	((struct bench *)arg)->closed = true;
}

void bench_done(struct bench *bench)
{
	nest_gateway_close(bench->gateway, on_closed, bench);
	peer_finish_loop(&bench->loop);
	ck_assert(bench->closed);
	ck_assert_ptr_null(fake.call);
	peer_close(&bench->peer);
	ck_assert_int_eq(rmdir(bench->dir), 0);
}

void bench_call(struct bench *bench, const char *request)
{
	unsigned started = fake.started;

	peer_drop(&bench->peer);
	peer_puts(&bench->peer, request);
	for (int i = 0; i < 100 && fake.started == started; i++)
		peer_turn(&bench->peer);
	ck_assert_msg(fake.started == started + 1, "not called: '%s'", bench->peer.in);
}

unsigned bench_ask(struct bench *bench, const char *request, const char **ret_body)
{
	peer_drop(&bench->peer);
	peer_puts(&bench->peer, request);
	return peer_await_answer(&bench->peer, ret_body, NULL);
}

unsigned bench_answered(struct bench *bench, const char **ret_body)
{
	return peer_await_answer(&bench->peer, ret_body, NULL);
}

void bench_expect_header(const struct bench *bench, const char *line)
{
	char text[256];

	snprintf(text, sizeof(text), "\r\n%s\r\n", line);
	ck_assert_msg(
		strstr(bench->peer.in, text) != NULL, "no '%s' in '%s'", line, bench->peer.in);
}

void bench_expect_no_header(const struct bench *bench, const char *name)
{
	char text[256];

	snprintf(text, sizeof(text), "\r\n%s:", name);
	ck_assert_msg(!strcasestr(bench->peer.in, text), "'%s' in '%s'", name, bench->peer.in);
}

void bench_expect_member(const char *body, const char *key, const char *want)
{
	cJSON *json = cJSON_Parse(body);
	const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, key);

	ck_assert_msg(member != NULL, "no %s in '%s'", key, body);
	if (want)
		ck_assert_pstr_eq(cJSON_GetStringValue(member), want);
	else
		ck_assert(cJSON_IsNull(member));
	cJSON_Delete(json);
}
