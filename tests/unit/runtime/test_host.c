/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/alias.h"
#include "runtime/function.h"
#include "tests/unit/runtime/kit.h"
#include "tests/unit/suite.h"

static void enter(void)
{
	kit_prepare();
	kit_open();
}

static void leave(void)
{
	kit_close();
}

static void expect_body(struct nest_target *target, const char *body, const char *expected)
{
	struct kit_call c = { .over = false };

	kit_call(&c, target, body);
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s", c.message);
	ck_assert_str_eq(kit_body(&c), expected);
	kit_free(&c);
}

static bool is_busy(void *arg)
{
	return kit_stats(arg).in_flight > 0;
}

static bool no_workers(void *arg)
{
	struct nest_host_stats stats;

	(void)arg;
	nest_host_stats(kit_host, &stats);
	return stats.workers == 0;
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(what_cannot_be_deployed_says_why)
{
	ck_assert_ptr_nonnull(
		strstr(kit_deploy_error("{\"name\":\"f\",\"runtime\":\"cobol\"}"), "fake"));
	ck_assert_ptr_nonnull(
		strstr(kit_deploy_error("{\"name\":\"f\",\"interface\":\"wsgi\"}"), "interface"));
	ck_assert_ptr_nonnull(
		strstr(kit_deploy_error("{\"name\":\"f\",\"code\":{\"path\":\"/nonexistent\"}}"),
			"deploy function 'f': "));
	ck_assert_ptr_nonnull(
		strstr(kit_deploy_error("{\"name\":\"f\",\"code\":{\"digest\":\"sha256:"
					"00000000000000000000000000000000"
					"00000000000000000000000000000000\"}}"),
			"upload it first"));
	ck_assert_ptr_null(nest_host_find(kit_host, "f", NULL));
}
END_TEST

START_TEST(a_version_stands_unchanged)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"version\":\"1\"}");

	ck_assert_ptr_eq(kit_deploy("{\"name\":\"f\",\"version\":\"1\"}"), f);
	ck_assert_ptr_nonnull(
		strstr(kit_deploy_error("{\"name\":\"f\",\"version\":\"1\",\"timeoutMs\":1}"),
			"another version"));
}
END_TEST

struct outcome {
	bool over;
	bool well;
	char why[256];
};

static void on_deployed(void *arg, struct nest_target *target, const struct nest_err *err)
{
	struct outcome *outcome = arg;

	outcome->over = true;
	outcome->well = target != NULL;
	snprintf(outcome->why, sizeof(outcome->why), "%s", err ? nest_err_text(err) : "");
}

START_TEST(a_version_that_goes_while_it_is_deployed_again_is_not_there)
{
	struct nest_target *one = kit_deploy("{\"name\":\"f\",\"version\":\"1\"}");
	struct nest_err err = NEST_ERR_INIT;
	struct outcome outcome = { .over = false };

	ck_assert_int_eq(
		nest_host_deploy(kit_host, nest_target_spec(one), on_deployed, &outcome, &err), 0);
	ck_assert_int_eq(nest_host_remove(kit_host, "f", "1"), 0);
	kit_run_until(&outcome.over, 5000);
	ck_assert(!outcome.well);
	ck_assert_ptr_nonnull(strstr(outcome.why, "was removed meanwhile"));
}
END_TEST

START_TEST(the_first_version_is_live_until_another_is_made_so)
{
	struct nest_target *one = kit_deploy("{\"name\":\"f\",\"version\":\"1\"}");
	struct nest_target *two = kit_deploy("{\"name\":\"f\",\"version\":\"2\"}");

	ck_assert_ptr_eq(nest_host_find(kit_host, "f", NULL), one);
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "2"), 0);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", NULL), two);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", "$LATEST"), two);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", "live"), two);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", "1"), one);
	ck_assert_ptr_null(nest_host_find(kit_host, "f", "3"));
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "1"), 0);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", ""), one);
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "3"), 1);
	ck_assert_int_eq(nest_host_remove(kit_host, "f", "1"), 0);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", NULL), two);
	ck_assert_ptr_null(nest_host_find(kit_host, "f", "1"));
	ck_assert_int_eq(nest_host_remove(kit_host, "f", NULL), 0);
	ck_assert_ptr_null(nest_host_find(kit_host, "f", NULL));
	ck_assert_int_eq(nest_host_remove(kit_host, "f", NULL), 1);
}
END_TEST

static struct nest_target *route(const char *path)
{
	return nest_host_route(kit_host, "h", 1, path, strlen(path), "GET", NULL);
}

START_TEST(routes_follow_the_live_version)
{
	struct nest_target *one =
		kit_deploy("{\"name\":\"f\",\"version\":\"1\",\"routes\":[{\"path\":\"/one\"}]}");
	struct nest_target *two;

	ck_assert_ptr_eq(route("/one"), one);
	two = kit_deploy("{\"name\":\"f\",\"version\":\"2\",\"routes\":[{\"path\":\"/two\"}]}");
	ck_assert_ptr_eq(route("/one"), one);
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "2"), 0);
	ck_assert_ptr_null(route("/one"));
	ck_assert_ptr_eq(route("/two"), two);
	nest_host_remove(kit_host, "f", "2");
	ck_assert_ptr_eq(route("/one"), one);
}
END_TEST

/* Sets alias @name of "f" to the JSON @text. */
static int set_alias(const char *name, const char *text)
{
	nest_autojson cJSON *json = cJSON_Parse(text);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *alias = NULL;
	int r;

	ck_assert_msg(
		nest_alias_parse(name, json, &alias, NULL, &err) == 0, "%s", nest_err_text(&err));
	r = nest_host_set_alias(kit_host, "f", alias);
	nest_alias_free(alias);
	return r;
}

static const char *no_header(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

/* How many of 100 requests to @qualifier, or by route if it is NULL, go to @target. */
static int share_of(const char *qualifier, const struct nest_target *target)
{
	const struct nest_alias_asker asker = { .header = no_header };
	int n = 0;

	for (int i = 0; i < 100; i++) {
		const struct nest_target *got =
			qualifier ? nest_host_choose(kit_host, "f", qualifier, &asker)
				  : nest_host_route(kit_host, "h", 1, "/one", 4, "GET", &asker);

		n += got == target;
	}
	return n;
}

START_TEST(aliases_share_requests_out_and_the_live_one_moves_routes)
{
	struct nest_target *one =
		kit_deploy("{\"name\":\"f\",\"version\":\"1\",\"routes\":[{\"path\":\"/one\"}]}");
	struct nest_target *two = kit_deploy("{\"name\":\"f\",\"version\":\"2\"}");

	ck_assert_int_eq(set_alias("beta", "{\"versions\":[{\"version\":\"2\"}]}"), 0);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", "beta"), two);
	ck_assert_int_eq(set_alias("beta", "{\"versions\":[{\"version\":\"9\"}]}"), 1);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", "beta"), two);
	ck_assert_int_eq(set_alias("live", "{\"versions\":[{\"version\":\"1\",\"weight\":3},"
					   "{\"version\":\"2\",\"weight\":1}]}"),
		0);
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", NULL), one);
	ck_assert_int_eq(share_of("live", two) + share_of("", two), 50);
	ck_assert_int_eq(share_of(NULL, two), 25);
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "1"), 0);
	ck_assert_int_eq(share_of("live", one), 100);
	ck_assert_int_eq(nest_host_remove_alias(kit_host, "f", "beta"), 0);
	ck_assert_int_eq(nest_host_remove_alias(kit_host, "f", "beta"), 1);
	ck_assert_ptr_null(nest_host_find(kit_host, "f", "beta"));
	ck_assert_int_eq(set_alias("old", "{\"versions\":[{\"version\":\"1\"}]}"), 0);
	nest_host_remove(kit_host, "f", "1");
	ck_assert_ptr_null(nest_host_find(kit_host, "f", "old"));
	ck_assert_ptr_eq(nest_host_find(kit_host, "f", NULL), two);
}
END_TEST

struct load {
	struct kit_call calls[8];
	unsigned done;
	unsigned cold;
};

/* Keeps 8 requests going to whatever is live; every one must succeed. */
static void drive(struct load *load)
{
	for (int i = 0; i < 8; i++) {
		struct kit_call *c = &load->calls[i];

		if (c->over) {
			ck_assert_msg(c->failure == NEST_FAILURE_NONE, "%s", c->message);
			load->done++;
			kit_free(c);
		}
		if (!c->call)
			kit_start(c, nest_host_find(kit_host, "f", NULL), "echo\nx");
	}
}

static bool drive_to(void *arg)
{
	struct load *load = arg;

	drive(load);
	return load->done >= 200;
}

START_TEST(a_new_version_under_load_fails_no_request)
{
	static struct load load;
	struct nest_target *old = NULL;

	for (int version = 1; version <= 4; version++) {
		struct nest_target *now;
		char spec[128];

		snprintf(spec, sizeof(spec),
			"{\"name\":\"f\",\"version\":\"%d\",\"workers\":{\"min\":1}}", version);
		now = kit_deploy(spec);
		ck_assert_int_eq(
			nest_host_set_live(kit_host, "f", nest_target_spec(now)->version), 0);
		load.done = 0;
		kit_run_while_not(drive_to, &load, 10000);
		ck_assert_uint_gt(kit_stats(now).requests_total[NEST_FAILURE_NONE], 0);
		if (old)
			ck_assert_uint_eq(kit_stats(old).in_flight, 0);
		old = now;
	}
	for (int i = 0; i < 8; i++) {
		kit_finish(&load.calls[i]);
		kit_free(&load.calls[i]);
	}
}
END_TEST

static bool has_no_workers(void *arg)
{
	struct nest_target_stats stats = kit_stats(arg);
	uint32_t n = 0;

	for (int i = 0; i < NEST_WORKER_STATES; i++)
		n += stats.workers[i];
	return n == 0;
}

START_TEST(workers_of_an_old_version_go_when_they_are_idle)
{
	struct nest_target *one = kit_deploy("{\"name\":\"f\",\"version\":\"1\"}");
	struct kit_call held = { .over = false };

	kit_start(&held, one, "hold");
	kit_run_while_not(is_busy, one, 5000);
	kit_deploy("{\"name\":\"f\",\"version\":\"2\"}");
	ck_assert_int_eq(nest_host_set_live(kit_host, "f", "2"), 0);
	kit_run_for(50);
	ck_assert_uint_eq(kit_stats(one).workers[NEST_WORKER_BUSY], 1);
	expect_body(one, "release", "released"); /* still found by its version */
	kit_finish(&held);
	ck_assert_str_eq(kit_body(&held), "held");
	kit_run_while_not(has_no_workers, one, 5000);
	kit_free(&held);
}
END_TEST

START_TEST(a_removed_function_finishes_what_it_has)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":2,\"workers\":{\"max\":1}}");
	struct kit_call held = { .over = false }, release = { .over = false };
	struct kit_call waiting = { .over = false };

	kit_start(&held, f, "hold");
	kit_run_while_not(is_busy, f, 5000);
	kit_start(&release, f, "release");
	kit_start(&waiting, f, "echo\nwaited");
	ck_assert_int_eq(nest_host_remove(kit_host, "f", NULL), 0);
	kit_finish(&held);
	kit_finish(&release);
	kit_finish(&waiting);
	ck_assert_str_eq(kit_body(&held), "held");
	ck_assert_str_eq(kit_body(&waiting), "waited");
	kit_run_while_not(no_workers, NULL, 5000);
	kit_free(&held);
	kit_free(&release);
	kit_free(&waiting);
	/* The name is free again. */
	f = kit_deploy("{\"name\":\"f\"}");
	expect_body(f, "echo\nnew", "new");
}
END_TEST

START_TEST(draining_waits_for_what_is_in_flight)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"timeoutMs\":500}");
	struct kit_call held = { .over = false }, late = { .over = false };
	bool drained = false;

	kit_start(&held, f, "hold");
	kit_run_while_not(is_busy, f, 5000);
	nest_host_drain(kit_host, set_flag, &drained);
	kit_call(&late, f, "echo\nx");
	ck_assert_int_eq(late.failure, NEST_FAILURE_DRAINING);
	ck_assert(!drained);
	kit_finish(&held);
	ck_assert(drained);
	kit_free(&held);
	kit_free(&late);
}
END_TEST

START_TEST(an_idle_host_is_drained_at_once)
{
	bool drained = false;

	nest_host_drain(kit_host, set_flag, &drained);
	ck_assert(!drained);
	kit_run_until(&drained, 1000);
}
END_TEST

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(closing_fails_what_waits_and_what_runs)
{
	struct nest_target *f =
		kit_deploy("{\"name\":\"f\",\"concurrency\":1,\"workers\":{\"max\":1}}");
	struct kit_call held = { .over = false }, waiting = { .over = false };
	bool closed = false;

	kit_start(&held, f, "never");
	kit_run_while_not(is_busy, f, 5000);
	kit_start(&waiting, f, "echo\nx");
	nest_host_close(kit_host, on_closed, &closed);
	kit_run_until(&closed, 10000);
	/* its worker had begun: it can't be told that it is safe to send elsewhere */
	ck_assert_int_eq(held.failure, NEST_FAILURE_CRASHED);
	ck_assert_int_eq(waiting.failure, NEST_FAILURE_DRAINING);
	kit_free(&held);
	kit_free(&waiting);
	kit_forget();
	kit_prepare();
	kit_open();
}
END_TEST

static bool count_worker(void *arg, const struct nest_worker_stats *stats)
{
	unsigned *n = arg;

	/* a worker's answer may come before the spawner's word that it has started */
	if (stats->pid == 0)
		return true;
	ck_assert_str_eq(stats->function, "f");
	ck_assert_uint_eq(stats->requests_total, 1);
	ck_assert_uint_gt(stats->memory_bytes, 0);
	ck_assert_str_eq(nest_worker_state_name(stats->state), "idle");
	++*n;
	return true;
}

START_TEST(workers_are_measured_when_asked)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\"}");
	unsigned n = 0;

	expect_body(f, "echo\nx", "x");
	while (n == 0) { /* within the test's time limit */
		bool fresh = false;

		ck_assert_int_eq(nest_host_refresh(kit_host, set_flag, &fresh), 0);
		ck_assert(!fresh);
		kit_run_until(&fresh, 5000);
		nest_host_each_worker(kit_host, count_worker, &n);
	}
	ck_assert_uint_eq(n, 1);
}
END_TEST

struct lines {
	struct nest_buf text;
	bool done;
};

static void on_line(void *arg, const char *json, size_t n)
{
	struct lines *lines = arg;

	nest_buf_append(&lines->text, json, n);
	nest_buf_append(&lines->text, "\n", 1);
}

static void on_lines_done(void *arg)
{
	struct lines *lines = arg;

	lines->done = true;
}

START_TEST(what_a_function_logs_can_be_read)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"concurrency\":1}");
	const struct nest_log_query query = { .function = "f", .tail_lines = 100, .follow = true };
	const struct nest_log_query nobody = { .function = "nobody" };
	struct lines lines = { .done = false };
	struct nest_log_reader *reader;
	const char *text;

	ck_assert_int_eq(nest_host_logs_open(
				 kit_host, &nobody, on_line, on_lines_done, &lines, &reader, NULL),
		1);
	ck_assert_int_eq(nest_host_logs_open(
				 kit_host, &query, on_line, on_lines_done, &lines, &reader, NULL),
		0);
	expect_body(f, "log a-line", "logged");
	nest_host_remove(kit_host, "f", NULL);
	kit_run_until(&lines.done, 5000);
	nest_buf_append(&lines.text, "", 1);
	text = nest_buf_bytes(&lines.text);
	ck_assert_ptr_nonnull(strstr(text, "a-line"));
	ck_assert_ptr_nonnull(strstr(text, "test-request"));
	nest_buf_done(&lines.text);
}
END_TEST

START_TEST(a_worker_that_is_killed_from_outside_is_replaced)
{
	struct nest_target *f = kit_deploy("{\"name\":\"f\",\"workers\":{\"min\":1}}");
	struct kit_call c = { .over = false };

	kit_call(&c, f, "raise 9");
	ck_assert_int_eq(c.failure, NEST_FAILURE_CRASHED);
	kit_free(&c);
	expect_body(f, "echo\nback", "back");
}
END_TEST

START_TEST(node_answers)
{
	struct nest_target *f;
	struct kit_call c = { .over = false };
	char dir[128], path[160], spec[256];
	static char runtimes[PATH_MAX];
	static const char code[] = "exports.handler = async (event, context) => "
				   "({ got: event, id: context.awsRequestId });\n";

	kit_close();
	kit_prepare();
	snprintf(dir, sizeof(dir), "%s/node-function", kit_config.state_dir);
	snprintf(path, sizeof(path), "%s/index.js", dir);
	ck_assert_int_eq(nest_file_mkdirs(dir, 0755, NULL), 0);
	ck_assert_int_eq(
		nest_file_write_atomic(AT_FDCWD, path, code, sizeof(code) - 1, 0644, NULL), 0);
	ck_assert_ptr_nonnull(realpath(KIT_RUNTIMES, runtimes));
	kit_config.runtimes_dir = runtimes;
	kit_open();
	snprintf(spec, sizeof(spec),
		"{\"name\":\"n\",\"runtime\":\"nodejs\",\"code\":{\"path\":\"%s\"}}", dir);
	f = kit_deploy(spec);
	kit_call(&c, f, "{\"x\":1}");
	ck_assert_msg(c.failure == NEST_FAILURE_NONE, "%s %s", c.message, c.error_json);
	ck_assert_str_eq(kit_body(&c), "{\"got\":{\"x\":1},\"id\":\"test-request\"}");
	kit_free(&c);
}
END_TEST

NEST_SUITE_WITH("runtime/host", enter, leave, what_cannot_be_deployed_says_why,
	a_version_stands_unchanged, a_version_that_goes_while_it_is_deployed_again_is_not_there,
	the_first_version_is_live_until_another_is_made_so, routes_follow_the_live_version,
	aliases_share_requests_out_and_the_live_one_moves_routes,
	a_new_version_under_load_fails_no_request, workers_of_an_old_version_go_when_they_are_idle,
	a_removed_function_finishes_what_it_has, draining_waits_for_what_is_in_flight,
	an_idle_host_is_drained_at_once, closing_fails_what_waits_and_what_runs,
	workers_are_measured_when_asked, what_a_function_logs_can_be_read,
	a_worker_that_is_killed_from_outside_is_replaced, node_answers)
