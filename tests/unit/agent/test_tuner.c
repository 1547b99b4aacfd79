/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "agent/tuner.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"
#include "runtime/host.h"
#include "tests/unit/suite.h"

/* A host of one function that only has a load, and hears what is said of its workers. */
struct nest_target {
	struct nest_function_spec *spec;
};

static struct nest_target function;
static struct nest_target_load load;
static struct nest_target_scale scale;
static unsigned looks, said, measured;
static void (*stir)(void *arg);
static void *stir_arg;
static uv_loop_t loop;

const struct nest_function_spec *nest_target_spec(const struct nest_target *target)
{
	return target->spec;
}

void nest_target_set_scale(struct nest_target *target, const struct nest_target_scale *wanted)
{
	ck_assert_ptr_eq(target, &function);
	scale = *wanted;
	said++;
}

void nest_host_each_load(struct nest_host *host,
	void (*cb)(void *arg, const struct nest_target_load *load), void *arg)
{
	(void)host;
	looks++;
	load.target = &function;
	load.now_us = nest_clock_mono_us();
	if (function.spec)
		cb(arg, &load);
}

void nest_host_on_stir(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	(void)host;
	stir = cb;
	stir_arg = arg;
}

int nest_host_refresh(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	(void)host;
	(void)cb;
	(void)arg;
	measured++;
	return 0;
}

/* ---- the tests ---- */

static struct nest_tuner *tuner;

static void deploy(const char *keys)
{
	struct nest_err err = NEST_ERR_INIT;
	nest_autojson cJSON *json = NULL;
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"name\":\"f\",\"runtime\":\"x\",\"code\":{\"path\":\"/\"}%s}", keys);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &json, &err), 0);
	ck_assert_msg(nest_function_parse(json, NULL, &function.spec, &err) == 0, "%s",
		nest_err_text(&err));
	load = (struct nest_target_load){ .id = 1,
		.least = function.spec->workers_min,
		.most = function.spec->workers_max,
		.slots = 1,
		.quiet_us = UINT64_MAX / 2 };
}

static void begin(uint64_t workers_bytes)
{
	const struct nest_tuner_config config = { .interval_ms = 10,
		.workers_bytes = workers_bytes };
	struct nest_err err = NEST_ERR_INIT;

	uv_loop_init(&loop);
	ck_assert_int_eq(nest_tuner_open(&loop, NULL, &config, &tuner, &err), 0);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void end(void)
{
	bool closed = false;

	nest_tuner_close(tuner, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(closed);
	ck_assert_ptr_null(stir);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	nest_function_free(function.spec);
}

static void do_stir(void)
{
	void (*cb)(void *arg) = stir;

	ck_assert_ptr_nonnull(cb);
	stir = NULL;
	cb(stir_arg);
}

START_TEST(nothing_to_do_is_no_timer)
{
	deploy("");
	begin(0);
	ck_assert_uint_eq(looks, 1);
	/* would not come back otherwise */
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_ptr_nonnull(stir);
	ck_assert_uint_eq(said, 0);
	end();
}
END_TEST

START_TEST(a_stir_is_followed_by_looks_until_all_is_quiet)
{
	unsigned before;

	deploy("");
	begin(0);
	do_stir();
	load.quiet_us = 0;
	load.requests = 1;
	for (int i = 0; i < 5; i++) {
		load.load_us += 1000000;
		load.ready = 1;
		ck_assert_int_eq(uv_run(&loop, UV_RUN_ONCE), 1);
		ck_assert_ptr_null(stir);
	}
	ck_assert_uint_ge(looks, 6);
	ck_assert_uint_ge(scale.desired, 1);
	load.quiet_us = 3600ull * 1000000;
	before = looks;
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_uint_eq(looks, before + 1);
	ck_assert_uint_eq(scale.desired, 0);
	ck_assert_uint_eq(scale.ceiling, 0);
	ck_assert_ptr_nonnull(stir);
	ck_assert_uint_eq(measured, 0);
	end();
}
END_TEST

/* Each of many short calls of a function without idle time may not cost a look at all functions. */
START_TEST(stirring_again_and_again_is_one_look_an_interval)
{
	uint64_t before_us = nest_clock_mono_us();

	deploy(",\"workers\":{\"idleMs\":0}");
	begin(0);
	for (unsigned i = 0; i < 10; i++) {
		do_stir();
		while (!stir)
			uv_run(&loop, UV_RUN_ONCE);
	}
	ck_assert_uint_ge(nest_clock_mono_us() - before_us, 90000);
	end();
}
END_TEST

START_TEST(a_schedule_is_a_minimum_and_a_timer)
{
	deploy(",\"scaling\":{\"schedules\":[{\"start\":\"0 0 1 1 *\",\"end\":\"59 23 31 12 "
	       "*\",\"min\":3}]}");
	begin(0);
	ck_assert_uint_eq(scale.least, 3);
	ck_assert_uint_eq(scale.desired, 3);
	ck_assert_ptr_nonnull(stir);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_NOWAIT), 1);
	/* a clock that is set is noticed within an hour */
	ck_assert_int_le(uv_backend_timeout(&loop), 3600 * 1000);
	ck_assert_uint_eq(looks, 1);
	end();
}
END_TEST

START_TEST(who_scales_by_cpu_is_measured)
{
	deploy(",\"scaling\":{\"cpu\":0.5}");
	begin(0);
	do_stir();
	load.quiet_us = 0;
	uv_run(&loop, UV_RUN_ONCE);
	uv_run(&loop, UV_RUN_ONCE);
	/* not at every look */
	ck_assert_uint_eq(measured, 1);
	end();
}
END_TEST

START_TEST(a_version_that_went_is_forgotten)
{
	struct nest_function_spec *spec;
	unsigned before;

	deploy("");
	begin(1);
	do_stir();
	load.quiet_us = 0;
	uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_ge(said, 1);
	ck_assert_uint_eq(measured, 1);
	before = said;
	spec = function.spec;
	function.spec = NULL;
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_uint_eq(said, before);
	function.spec = spec;
	end();
}
END_TEST

NEST_SUITE("agent/tuner", nothing_to_do_is_no_timer, a_stir_is_followed_by_looks_until_all_is_quiet,
	stirring_again_and_again_is_one_look_an_interval, a_schedule_is_a_minimum_and_a_timer,
	who_scales_by_cpu_is_measured, a_version_that_went_is_forgotten)
