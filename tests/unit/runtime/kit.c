/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/runtime/kit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <check.h>
#include <cjson/cJSON.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/function.h"

#define CLOSE_LIMIT_MS 10000

uv_loop_t *kit_loop;
struct nest_host *kit_host;
struct nest_host_config kit_config;

static uv_loop_t loop;
static char state_dir[64], runtimes_dir[96], code_dir[96], instance[32];
static struct nest_buf events;

static const char *const root_paths[] = { "/usr", "/bin", "/lib", "/lib64", "/etc", NULL };

static const char fake_manifest[] =
	"{\"name\":\"fake\",\"description\":\"the tests' "
	"worker\",\"argv\":[\"/runtime/fake_worker\"],"
	"\"env\":{},\"interfaces\":[\"event\",\"http\"],\"defaultHandler\":\"any\","
	"\"concurrency\":{\"default\":4,\"max\":1000},\"memoryMb\":{\"default\":64,\"min\":8}}";

static void on_event(void *arg, enum nest_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	nest_buf_puts(&events, message);
	nest_buf_puts(&events, "\n");
}

const char *kit_events(void)
{
	nest_buf_append(&events, "", 1);
	events.len--;
	return nest_buf_bytes(&events);
}

static void copy_program(const char *from, const char *to)
{
	nest_autofree char *bytes = NULL;
	nest_autoclose int fd = -1;
	size_t n;

	ck_assert_int_eq(nest_file_read(AT_FDCWD, from, 64 << 20, &bytes, &n, NULL), 0);
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
}

static void make_file(const char *dir, const char *name, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644, NULL), 0);
}

void kit_prepare(void)
{
	char path[160];

	snprintf(instance, sizeof(instance), "test-%d", (int)getpid());
	snprintf(state_dir, sizeof(state_dir), "/tmp/nestlet-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(state_dir));
	chmod(state_dir, 0755);
	snprintf(runtimes_dir, sizeof(runtimes_dir), "%s/runtimes", state_dir);
	snprintf(code_dir, sizeof(code_dir), "%s/empty", state_dir);
	snprintf(path, sizeof(path), "%s/manifests", runtimes_dir);
	ck_assert_int_eq(nest_file_mkdirs(path, 0755, NULL), 0);
	ck_assert_int_eq(nest_file_mkdirs(code_dir, 0755, NULL), 0);
	make_file(path, "fake.json", fake_manifest);
	make_file(code_dir, "README", "no code\n");
	snprintf(path, sizeof(path), "%s/fake_worker", runtimes_dir);
	copy_program(KIT_FAKE_WORKER, path);
	kit_config = (struct nest_host_config){
		.instance = instance,
		.state_dir = state_dir,
		.runtimes_dir = runtimes_dir,
		.root_paths = root_paths,
		.uid_base = 70000,
		.uid_count = 100,
		.agent_uid = getuid(),
		.agent_gid = getgid(),
		.max_cells = 32,
		.spawner = NEST_BUILT_SPAWNER,
		.cache_bytes = 64 << 20,
		.code_bytes = 16 << 20,
		.code_entries = 1000,
		.upload_bytes = 16 << 20,
		.cancel_grace_ms = 300,
		.ping_interval_ms = 10000,
		.ping_timeout_ms = 10000,
		.drain_grace_ms = 5000,
		.log_line_bytes = 16384,
		.on_event = on_event,
	};
}

static void on_lost(void *arg, const struct nest_err *why)
{
	(void)arg;
	ck_abort_msg("the spawner is lost: %s", nest_err_text(why));
}

void kit_open(void)
{
	struct nest_host_prefork *prefork;
	struct nest_err err = NEST_ERR_INIT;

	if (nest_host_prefork(&kit_config, &prefork, &err) < 0)
		ck_abort_msg("prefork: %s", nest_err_text(&err));
	kit_loop = &loop;
	ck_assert_int_eq(uv_loop_init(kit_loop), 0);
	if (nest_host_open(kit_loop, &kit_config, prefork, on_lost, NULL, &kit_host, &err) < 0)
		ck_abort_msg("open: %s", nest_err_text(&err));
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

void kit_close(void)
{
	bool closed = false;

	nest_host_close(kit_host, set_flag, &closed);
	kit_run_until(&closed, CLOSE_LIMIT_MS);
	kit_forget();
}

void kit_forget(void)
{
	struct nest_err err = NEST_ERR_INIT;

	uv_run(kit_loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(kit_loop), 0);
	nest_buf_done(&events);
	if (nest_file_remove_tree(AT_FDCWD, state_dir, &err) < 0)
		ck_abort_msg("%s", nest_err_text(&err));
}

static void on_tick(uv_timer_t *timer)
{
	(void)timer;
}

static void on_timer_closed(uv_handle_t *handle)
{
	*(bool *)handle->data = false;
}

/*
 * True: it was done in time. The timer ticks because what happens among the loop's own timers is
 * seen here only when the wait that follows them has ended.
 */
static bool run(bool (*done)(void *arg), void *arg, unsigned limit_ms)
{
	uint64_t limit_us = nest_clock_mono_us() + limit_ms * 1000ull;
	uv_timer_t timer;
	bool open = true, ok;

	uv_timer_init(kit_loop, &timer);
	uv_timer_start(&timer, on_tick, 1, 2);
	while (!(ok = done(arg)) && nest_clock_mono_us() < limit_us)
		uv_run(kit_loop, UV_RUN_ONCE);
	timer.data = &open;
	uv_close((uv_handle_t *)&timer, on_timer_closed);
	while (open)
		uv_run(kit_loop, UV_RUN_NOWAIT);
	return ok;
}

void kit_run_while_not(bool (*done)(void *arg), void *arg, unsigned limit_ms)
{
	if (!run(done, arg, limit_ms))
		ck_abort_msg("it did not happen within %u ms; events: %s", limit_ms, kit_events());
}

static bool is_set(void *arg)
{
	return *(bool *)arg;
}

void kit_run_until(const bool *flag, unsigned limit_ms)
{
	kit_run_while_not(is_set, (void *)(uintptr_t)flag, limit_ms);
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

void kit_run_for(unsigned ms)
{
	run(never, NULL, ms);
}

struct deployed {
	bool done;
	struct nest_target *target;
	struct nest_err err;
};

static void on_deployed(void *arg, struct nest_target *target, const struct nest_err *err)
{
	struct deployed *d = arg;

	d->done = true;
	d->target = target;
	if (err)
		d->err = *err;
}

static struct deployed deploy(const char *json)
{
	nest_autojson cJSON *object = NULL;
	struct nest_function_spec *spec;
	struct deployed d = { .err = NEST_ERR_INIT };

	if (nest_json_parse(json, strlen(json), &object, &d.err) < 0)
		ck_abort_msg("%s", nest_err_text(&d.err));
	if (!cJSON_GetObjectItemCaseSensitive(object, "code"))
		cJSON_AddStringToObject(cJSON_AddObjectToObject(object, "code"), "path", code_dir);
	if (!cJSON_GetObjectItemCaseSensitive(object, "runtime"))
		cJSON_AddStringToObject(object, "runtime", "fake");
	if (nest_function_parse(object, NULL, &spec, &d.err) < 0)
		ck_abort_msg("%s", nest_err_text(&d.err));
	if (nest_host_deploy(kit_host, spec, on_deployed, &d, &d.err) == 0)
		kit_run_until(&d.done, 5000);
	nest_function_free(spec);
	return d;
}

struct nest_target *kit_deploy(const char *json)
{
	struct deployed d = deploy(json);

	if (!d.target)
		ck_abort_msg("%s", nest_err_text(&d.err));
	return d.target;
}

const char *kit_deploy_error(const char *json)
{
	static struct nest_err err;
	struct deployed d = deploy(json);

	ck_assert_ptr_null(d.target);
	err = d.err;
	return nest_err_text(&err);
}

static void on_response(
	void *arg, unsigned status, const struct nest_call_header *headers, size_t nheaders)
{
	struct kit_call *c = arg;
	size_t at = 0;

	ck_assert(!c->responded && !c->over);
	c->responded = true;
	c->status = status;
	for (size_t i = 0; i < nheaders && at < sizeof(c->headers); i++)
		at += (size_t)snprintf(c->headers + at, sizeof(c->headers) - at, "%.*s: %.*s\n",
			(int)headers[i].name_len, headers[i].name, (int)headers[i].value_len,
			headers[i].value);
}

static void on_body(void *arg, const char *bytes, size_t n, bool last)
{
	struct kit_call *c = arg;

	(void)last;
	ck_assert(c->responded && !c->over);
	nest_buf_append(&c->body, bytes, n);
	if (c->hold_body)
		c->unconsumed += n;
	else
		nest_call_consumed(c->call, n);
}

static void take_stats(struct kit_call *c, const struct nest_call_stats *stats)
{
	ck_assert(!c->over);
	c->over = true;
	c->call = NULL;
	c->cold = stats->cold;
	c->queue_us = stats->queue_us;
	c->run_us = stats->run_us;
	if (stats->log_tail)
		nest_buf_append(&c->tail, stats->log_tail, stats->log_tail_len);
}

static void on_end(void *arg, const struct nest_call_stats *stats)
{
	struct kit_call *c = arg;

	ck_assert(c->responded);
	take_stats(c, stats);
}

static void on_fail(void *arg, const struct nest_failure *why, const struct nest_call_stats *stats)
{
	struct kit_call *c = arg;

	take_stats(c, stats);
	c->failure = why->kind;
	c->retry_after_s = why->retry_after_s;
	snprintf(c->message, sizeof(c->message), "%s", why->message);
	if (why->error_json)
		snprintf(c->error_json, sizeof(c->error_json), "%.*s", (int)why->error_json_len,
			why->error_json);
}

static void on_writable(void *arg)
{
	struct kit_call *c = arg;

	c->writable = true;
}

static const struct nest_call_events call_events = {
	.response = on_response,
	.body = on_body,
	.end = on_end,
	.fail = on_fail,
	.writable = on_writable,
};

void kit_start(struct kit_call *c, struct nest_target *target, const char *body)
{
	if (!c->request.id)
		c->request.id = "test-request";
	if (body) {
		c->request.body = body;
		c->request.body_len = strlen(body);
		c->request.body_done = true;
	}
	ck_assert_int_eq(nest_call_start(target, &c->request, &call_events, c, &c->call), 0);
	ck_assert(!c->over);
}

void kit_finish(struct kit_call *c)
{
	kit_run_until(&c->over, 15000);
}

void kit_call(struct kit_call *c, struct nest_target *target, const char *body)
{
	kit_start(c, target, body);
	kit_finish(c);
}

const char *kit_body(struct kit_call *c)
{
	nest_buf_append(&c->body, "", 1);
	c->body.len--;
	return nest_buf_bytes(&c->body);
}

void kit_free(struct kit_call *c)
{
	nest_buf_done(&c->body);
	nest_buf_done(&c->tail);
	memset(c, 0, sizeof(*c));
}

struct stats_of {
	struct nest_target *target;
	struct nest_target_stats stats;
};

static bool pick_stats(void *arg, struct nest_target *target, const struct nest_target_stats *stats)
{
	struct stats_of *of = arg;

	if (target == of->target)
		of->stats = *stats;
	return target != of->target;
}

struct nest_target_stats kit_stats(struct nest_target *target)
{
	struct stats_of of = { .target = target };

	nest_host_each_target(kit_host, pick_stats, &of);
	return of.stats;
}
