/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "agent/deployer.h"
#include "agent/desired.h"
#include "agent/registry.h"
#include "agent/report.h"
#include "agent/window.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/function.h"
#include "runtime/host.h"
#include "tests/unit/suite.h"

/* The host, the deployer and the scaler's state, played by the test. */
#define MANY 1000 /* functions, */
#define LIVE 200  /* and those of them that have a worker and some past */

static struct nest_target_stats targets[MANY];
static size_t ntargets;
static struct nest_host_stats host_stats;
static bool has_failures;

void nest_host_stats(const struct nest_host *host, struct nest_host_stats *ret)
{
	(void)host;
	*ret = host_stats;
}

void nest_host_capacity(const struct nest_host *host, struct nest_host_capacity *ret)
{
	(void)host;
	*ret = (struct nest_host_capacity){ .cpu_milli = 2000,
		.memory_bytes = 1 << 30,
		.cpu_used_us = 77,
		.memory_used_bytes = 1 << 20 };
}

void nest_host_each_target(struct nest_host *host,
	bool (*cb)(void *arg, struct nest_target *target, const struct nest_target_stats *stats),
	void *arg)
{
	(void)host;
	for (size_t i = 0; i < ntargets && cb(arg, NULL, &targets[i]); i++)
		;
}

const char *nest_worker_state_name(enum nest_worker_state state)
{
	static const char *const names[] = { "starting", "idle", "busy", "draining", "standby" };

	return names[state];
}

const char *nest_worker_rung_name(enum nest_rung rung)
{
	static const char *const names[] = { "standby", "snapshot", "runtime", "plain" };

	return names[rung];
}

bool nest_deployer_is_settled(const struct nest_deployer *deployer)
{
	(void)deployer;
	return !has_failures;
}

void nest_deployer_each_failure(struct nest_deployer *deployer,
	bool (*cb)(void *arg, const char *name, const char *version, const char *runtime,
		const char *why),
	void *arg)
{
	(void)deployer;
	for (int i = 0; has_failures && i < 150; i++)
		cb(arg, "f", "1", "x", "no \"code\" there\n");
}

uint64_t nest_desired_generation(const struct nest_desired *desired)
{
	(void)desired;
	return 12;
}

void nest_desired_each_refusal(const struct nest_desired *desired,
	bool (*cb)(void *arg, const char *name, const char *version, const char *why), void *arg)
{
	(void)desired;
	cb(arg, "bad", "", "it is wrong");
}

/* ---- the tests ---- */

static struct nest_function_spec specs[] = { { .name = "a", .version = "1" },
	{ .name = "a", .version = "2" }, { .name = "b-c_d", .version = "rc.1" } };
static struct nest_report_identity identity;
static struct nest_registry *registry;
static struct nest_window *window;
static char dir[64];

static void set_up(void)
{
	char path[100];

	setenv("POD_NAME", "pod-\"1\"", 1);
	setenv("POD_NAMESPACE", "space", 1);
	ck_assert_int_eq(nest_report_identify(&identity, NULL), 0);
	snprintf(dir, sizeof(dir), "/tmp/nest-report-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/registry.json", dir);
	ck_assert_int_eq(nest_registry_open(path, 3, &registry, NULL), 0);
	ck_assert_int_eq(nest_window_new(0, identity.start_us, &window), 0);
	for (size_t i = 0; i < 3; i++)
		targets[i] = (struct nest_target_stats){ .spec = &specs[i] };
	ntargets = 3;
	host_stats = (struct nest_host_stats){ .workers = 3, .max_cells = 4, .calls = 2 };
	has_failures = false;
}

static void tear_down(void)
{
	nest_window_free(window);
	nest_registry_free(registry);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

static struct nest_report_env env_of(bool with_scaler)
{
	return (struct nest_report_env){ .registry = registry,
		.identity = &identity,
		/* only its being there counts */
		.desired = with_scaler ? (const struct nest_desired *)&identity : NULL,
		.state = NEST_REPORT_READY };
}

typedef int writer(const struct nest_report_env *env, struct nest_buf *ret);

static int write_report(const struct nest_report_env *env, struct nest_buf *ret)
{
	return nest_report_write(env, window, 41, ret);
}

static int write_flat(const struct nest_report_env *env, struct nest_buf *ret)
{
	return nest_report_flat(env, window, ret);
}

/* What is written, parsed by another hand. */
static cJSON *written(writer *write, bool with_scaler)
{
	struct nest_report_env env = env_of(with_scaler);
	struct nest_buf text = NEST_BUF_INIT;
	cJSON *json = NULL;

	ck_assert_int_eq(write(&env, &text), 0);
	ck_assert_msg(nest_json_parse(nest_buf_bytes(&text), text.len, &json, NULL) == 0, "%.*s",
		(int)text.len, nest_buf_bytes(&text));
	nest_buf_done(&text);
	return json;
}

/* The item at a dotted path with indices: "functions.0.name". */
static const cJSON *at(const cJSON *json, const char *path)
{
	char part[64];

	while (json && *path) {
		size_t n = strcspn(path, ".");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		json = cJSON_IsArray(json) ? cJSON_GetArrayItem(json, atoi(part))
					   : cJSON_GetObjectItemCaseSensitive(json, part);
		path += n + (path[n] == '.');
	}
	return json;
}

static void number_is(const cJSON *json, const char *path, double value)
{
	ck_assert_msg(cJSON_IsNumber(at(json, path)), "%s is no number", path);
	ck_assert_double_eq_tol(at(json, path)->valuedouble, value, 1e-9);
}

static void text_is(const cJSON *json, const char *path, const char *value)
{
	ck_assert_msg(cJSON_IsString(at(json, path)), "%s is no string", path);
	ck_assert_str_eq(at(json, path)->valuestring, value);
}

START_TEST(an_idle_report_has_no_zeros)
{
	nest_autojson cJSON *json = NULL;
	const cJSON *a;

	set_up();
	json = written(write_report, false);
	number_is(json, "protocol", 1);
	number_is(json, "sequence", 41);
	text_is(json, "state", "ready");
	text_is(json, "host.name", "pod-\"1\"");
	text_is(json, "host.namespace", "space");
	ck_assert_ptr_null(at(json, "host.node"));
	ck_assert_uint_eq(strlen(at(json, "host.bootId")->valuestring), 32);
	number_is(json, "capacity.cpuMilli", 2000);
	number_is(json, "capacity.cells", 4);
	number_is(json, "use.cells", 3);
	ck_assert_ptr_null(at(json, "desired.generation"));
	ck_assert_int_eq(cJSON_GetArraySize(at(json, "functions")), 3);
	a = at(json, "functions.2");
	text_is(a, "name", "b-c_d");
	text_is(a, "version", "rc.1");
	ck_assert_int_eq(cJSON_GetArraySize(a), 2);
	tear_down();
}
END_TEST

static void fill_busy(struct nest_target_stats *t)
{
	t->live = true;
	t->workers[NEST_WORKER_BUSY] = 2;
	t->in_flight = 5;
	t->queued = 1;
	t->oldest_wait_us = 12340;
	t->requests_total[NEST_FAILURE_NONE] = 10;
	t->requests_total[NEST_FAILURE_OOM] = 1;
	t->duration.count[0] = 3;
	t->duration.count[2] = 8;
	t->duration.sum_s = 0.0125;
	t->cold_starts_total = 3;
	t->rungs_total[NEST_RUNG_PLAIN] = 2;
	t->rungs_total[NEST_RUNG_SNAPSHOT] = 1;
	t->cold_start.sum_s = 0.5;
	t->restarts_total[NEST_RESTART_OOM] = 1;
	snprintf(t->last_failure, sizeof(t->last_failure), "said \"no\"");
}

START_TEST(a_busy_function_is_told_in_full)
{
	nest_autojson cJSON *json = NULL;
	const cJSON *a;

	set_up();
	fill_busy(&targets[0]);
	json = written(write_report, true);
	a = at(json, "functions.0");
	ck_assert(cJSON_IsTrue(at(a, "live")));
	number_is(a, "workers.busy", 2);
	ck_assert_ptr_null(at(a, "workers.idle"));
	number_is(a, "inFlight", 5);
	number_is(a, "queued", 1);
	number_is(a, "oldestWaitMs", 12.34);
	number_is(a, "requests.success", 10);
	number_is(a, "requests.out_of_memory", 1);
	number_is(a, "durationUs", 12500);
	ck_assert_int_eq(cJSON_GetArraySize(at(a, "durations")), 3);
	number_is(a, "durations.1", 0);
	number_is(a, "durations.2", 8);
	ck_assert_double_gt(at(a, "rps")->valuedouble, 0);
	ck_assert_double_gt(at(a, "p99Ms")->valuedouble, 1);
	number_is(a, "coldStarts.plain", 2);
	number_is(a, "coldStarts.snapshot", 1);
	number_is(a, "coldStarts.us", 500000);
	number_is(a, "restarts.out_of_memory", 1);
	text_is(a, "lastFailure", "said \"no\"");
	tear_down();
}
END_TEST

static void fill_by_chance(struct nest_target_stats *t)
{
	fill_busy(t);
	t->oldest_wait_us = (uint64_t)rand();
	t->duration.sum_s = rand() / 1e6;
	t->cold_start.sum_s = rand() / 1e6;
	t->last_failure[0] = '\0';
	for (int b = 0; b <= NEST_LATENCY_BUCKETS; b++)
		t->duration.count[b] = (uint64_t)rand() % 100000;
	for (int k = 0; k < NEST_FAILURE_KINDS; k++)
		t->requests_total[k] = (uint64_t)rand() % 1000000;
}

START_TEST(a_report_of_many_functions_is_short_when_compressed)
{
	static char names[MANY][16], packed[1 << 20];
	static struct nest_function_spec many[MANY];
	struct nest_report_env env;
	struct nest_buf text = NEST_BUF_INIT;
	size_t n;

	set_up();
	env = env_of(true);
	srand(1);
	for (size_t i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "function-%04zu", i);
		many[i] = (struct nest_function_spec){ .name = names[i], .version = "1" };
		targets[i] = (struct nest_target_stats){ .spec = &many[i], .live = true };
		if (i % (MANY / LIVE) == 0)
			fill_by_chance(&targets[i]);
	}
	ntargets = MANY;
	ck_assert_int_eq(write_report(&env, &text), 0);
	n = ZSTD_compress(packed, sizeof(packed), nest_buf_bytes(&text), text.len, 1);
	ck_assert(!ZSTD_isError(n));
	ck_assert_msg(n < 64 << 10, "%zu bytes of %zu", n, text.len);
	nest_buf_done(&text);
	tear_down();
}
END_TEST

START_TEST(reasons_are_told_up_to_a_number)
{
	nest_autojson cJSON *json = NULL;

	set_up();
	json = written(write_report, true);
	number_is(json, "desired.generation", 12);
	ck_assert(cJSON_IsTrue(at(json, "desired.settled")));
	text_is(json, "desired.refused.0.function", "bad");
	ck_assert_ptr_null(at(json, "desired.refused.0.version"));
	number_is(json, "desired.refusedTotal", 1);
	cJSON_Delete(nest_take_ptr(json));
	has_failures = true;
	json = written(write_report, true);
	ck_assert_ptr_null(at(json, "desired.settled"));
	ck_assert_int_eq(cJSON_GetArraySize(at(json, "desired.failed")), 100);
	number_is(json, "desired.failedTotal", 150);
	text_is(json, "desired.failed.0.reason", "no \"code\" there\n");
	tear_down();
}
END_TEST

START_TEST(the_flat_form_leaves_nothing_out_and_adds_versions_up)
{
	nest_autojson cJSON *json = NULL;

	set_up();
	fill_busy(&targets[0]);
	fill_busy(&targets[1]);
	targets[0].live = false;
	json = written(write_flat, false);
	number_is(json, "functions.a.inFlight", 10);
	number_is(json, "functions.a.concurrency", 12);
	number_is(json, "functions.a.workers", 4);
	number_is(json, "functions.a.requestsTotal", 22);
	number_is(json, "functions.a.failedTotal", 2);
	number_is(json, "functions.a.oldestWaitMs", 12.34);
	number_is(json, "functions.b-c_d.queued", 0);
	number_is(json, "functions.b-c_d.p99Ms", 0);
	number_is(json, "host.inFlight", 10);
	number_is(json, "host.ready", 1);
	number_is(json, "host.full", 0);
	number_is(json, "host.openRequests", 2);
	tear_down();
}
END_TEST

static double double_of(const unsigned char *bytes)
{
	uint64_t bits = 0;
	double value;

	for (int i = 0; i < 8; i++)
		bits |= (uint64_t)bytes[i] << (8 * i);
	memcpy(&value, &bits, sizeof(value));
	return value;
}

START_TEST(knative_s_stat_is_protobuf)
{
	struct nest_report_env env;
	struct nest_buf bytes = NEST_BUF_INIT;
	const unsigned char *at_byte;

	set_up();
	env = env_of(false);
	host_stats.calls_total = 1000000;
	host_stats.load_us = 5000000;
	ck_assert_int_eq(nest_report_stat(&env, window, &bytes), 0);
	at_byte = (const unsigned char *)nest_buf_bytes(&bytes);
	/* field 1, 7 bytes; fields 2, 4 and 6, 8 bytes each */
	ck_assert_uint_eq(bytes.len, 2 + 7 + 3 * 9);
	ck_assert_mem_eq(at_byte, "\x0a\x07pod-\"1\"", 9);
	ck_assert_uint_eq(at_byte[9], 0x11);
	ck_assert_double_gt(double_of(at_byte + 10), 0);
	ck_assert_uint_eq(at_byte[18], 0x21);
	ck_assert_double_gt(double_of(at_byte + 19), 1000);
	ck_assert_uint_eq(at_byte[27], 0x31);
	ck_assert_double_gt(double_of(at_byte + 28), 0);
	nest_buf_done(&bytes);
	tear_down();
}
END_TEST

START_TEST(a_host_is_full_by_its_cells_or_by_a_limit)
{
	char why[200] = "";

	set_up();
	ck_assert_int_eq(nest_report_is_full(NULL, 0, why, sizeof(why)), 0);
	ck_assert_int_eq(nest_report_is_full(NULL, 3, why, sizeof(why)), 0);
	ck_assert_int_eq(nest_report_is_full(NULL, 2, why, sizeof(why)), 1);
	ck_assert_str_eq(why, "2 requests of at most 2 wait or run");
	host_stats.workers = 4;
	targets[0].workers[NEST_WORKER_BUSY] = 4;
	ck_assert_int_eq(nest_report_is_full(NULL, 0, why, sizeof(why)), 0);
	targets[1].queued = 1;
	ck_assert_int_eq(nest_report_is_full(NULL, 0, why, sizeof(why)), 1);
	ck_assert_str_eq(why, "all 4 cells are taken, none is idle, and 1 requests wait");
	targets[2].workers[NEST_WORKER_IDLE] = 1;
	ck_assert_int_eq(nest_report_is_full(NULL, 0, why, sizeof(why)), 0);
	tear_down();
}
END_TEST

NEST_SUITE("agent/report", an_idle_report_has_no_zeros, a_busy_function_is_told_in_full,
	a_report_of_many_functions_is_short_when_compressed, reasons_are_told_up_to_a_number,
	the_flat_form_leaves_nothing_out_and_adds_versions_up, knative_s_stat_is_protobuf,
	a_host_is_full_by_its_cells_or_by_a_limit)
