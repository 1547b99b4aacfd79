/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/loader/web.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <check.h>
#include <curl/curl.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "loader/digest.h"
#include "tests/unit/loader/kit.h"

struct web web = { .server_in = -1 };

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct web_result *result = arg;

	result->calls++;
	result->tree = tree;
	if (err)
		result->err = *err;
	result->code = err ? err->code : 0;
}

static void on_closed(void *arg)
{
	(void)arg;
}

/* ---- the server ---- */

/* Starts a program whose first line of output is a number, which is returned. */
static unsigned start_server(char *const argv[])
{
	int in[2];
	int out[2];
	char line[32] = "";
	ssize_t n;

	ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	web.server = fork();
	if (web.server == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execv(argv[0], argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	web.server_in = in[1];
	n = read(out[0], line, sizeof(line) - 1);
	close(out[0]);
	ck_assert_int_gt(n, 0);
	return (unsigned)atoi(line);
}

void web_serve_after(const char *latency)
{
	char *argv[] = { (char *)"/usr/bin/python3", (char *)KIT_SERVER, (char *)kit_path("files"),
		(char *)latency, NULL };

	web.port = start_server(argv);
}

void web_serve(void)
{
	web_serve_after(NULL);
}

const char *web_url_of(const char *mode, const char *name)
{
	static char text[8][128];
	static unsigned at;

	at = (at + 1) % 8;
	snprintf(text[at], sizeof(text[at]), "http://127.0.0.1:%u/%s/%s", web.port, mode, name);
	return text[at];
}

const char *web_url(const char *mode)
{
	return web_url_of(mode, "a.tar");
}

unsigned web_ask(const char *what, const char *mode)
{
	char command[256];
	char line[32] = "";
	FILE *curl;

	snprintf(command, sizeof(command),
		"curl -fsS --noproxy '*' http://127.0.0.1:%u/%s/%s/a.tar", web.port, what, mode);
	curl = popen(command, "r");
	ck_assert_ptr_nonnull(curl);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), curl));
	ck_assert_int_eq(pclose(curl), 0);
	return (unsigned)atoi(line);
}

/* ---- before and after ---- */

void web_make_archive(const char *name, uint64_t n)
{
	struct nest_buf buf = NEST_BUF_INIT;
	nest_autodigest struct nest_digest *sum = NULL;

	kit_tar_entry(&buf, "first", '0', n / 2, NULL, true);
	kit_tar_entry(&buf, "dir/second", '0', n / 2, NULL, true);
	kit_tar_end(&buf);
	kit_write(kit_path("files/%s", name), nest_buf_bytes(&buf), buf.len, 0644);
	strcpy(web.digest, NEST_DIGEST_PREFIX);
	nest_digest_new(&sum, NULL);
	nest_digest_update(sum, nest_buf_bytes(&buf), buf.len, NULL);
	nest_digest_final(sum, web.digest + strlen(web.digest), NULL);
	web.bytes = buf.len;
	nest_buf_done(&buf);
}

static void nothing(uv_work_t *work)
{
	(void)work;
}

/* The pool's threads, and libcurl's, must see the test's mount; their descriptors are no leak. */
static void warm_up(void)
{
	uv_work_t work;

	ck_assert_int_eq(curl_global_init(CURL_GLOBAL_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_init(&web.loop), 0);
	uv_queue_work(&web.loop, &work, nothing, NULL);
	uv_run(&web.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&web.loop), 0);
	kit_settle();
}

void web_open_loader(void)
{
	struct nest_err err = NEST_ERR_INIT;

	kit_mkdir(kit_path("cache"));
	web.config.dir = kit_path("cache");
	ck_assert_int_eq(uv_loop_init(&web.loop), 0);
	kit_ok(nest_loader_open(&web.loop, &web.config, &web.loader, &err), &err);
}

void web_close_loader(void)
{
	nest_loader_close(web.loader, on_closed, NULL);
	uv_run(&web.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&web.loop), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
}

static const char *const proxies[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
	"ALL_PROXY", "no_proxy", "NO_PROXY" };

void web_enter(void)
{
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(proxies); i++)
		unsetenv(proxies[i]);
	kit_enter();
	web.config = (struct nest_loader_config){
		.max_bytes = 256u << 20,
		.max_tree_bytes = 64u << 20,
		.max_tree_entries = 20000,
		.fetch = {
			.connections = 4,
			.timeout_ms = 15000,
			.connect_timeout_ms = 3000,
			.stall_ms = 1000,
			.retries = 4,
			.backoff_ms = 5,
			.max_bytes = 64u << 20,
		},
	};
	kit_mkdir(kit_path("files"));
	web_make_archive("a.tar", WEB_FILE_BYTES);
	warm_up();
}

void web_stop(void)
{
	int status;

	if (web.server <= 0)
		return;
	close(web.server_in);
	kill(web.server, SIGTERM);
	waitpid(web.server, &status, 0);
	web.server = 0;
}

void web_leave(void)
{
	web_stop();
	kit_leave();
}

/* ---- loads ---- */

void web_start(const struct nest_reference *references, size_t n, struct web_result *result)
{
	memset(result, 0, sizeof(*result));
	result->code = nest_loader_load(web.loader, references, n, on_load, result, &result->err);
	ck_assert_uint_eq(result->calls, 0);
}

void web_finish(const struct web_result *result)
{
	while (result->calls == 0 && result->code == 0)
		uv_run(&web.loop, UV_RUN_ONCE);
}

void web_check_tree(const struct nest_tree *tree)
{
	nest_autoclose int fd = -1;
	struct nest_err err = NEST_ERR_INIT;
	struct stat st;

	kit_ok(nest_tree_open(tree, &fd, &err), &err);
	ck_assert_int_eq(fstatat(fd, "dir/second", &st, 0), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, nest_tree_bytes(tree) / 2);
}

void web_loads(const char *from)
{
	struct nest_reference reference = { .url = from, .digest = web.digest, .size = web.size };
	struct web_result result;

	web_open_loader();
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_str_eq(nest_tree_digest(result.tree), web.digest);
	web_check_tree(result.tree);
	nest_tree_unref(result.tree);
}

void web_fails_open(const char *from, int code, const char *words)
{
	struct nest_reference reference = { .url = from, .digest = web.digest, .size = web.size };
	struct web_result result;
	uint64_t since = nest_clock_mono_us();

	web_open_loader();
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree == NULL && result.err.code == code &&
			      strstr(result.err.text, words) != NULL,
		"%d: %s", result.err.code, nest_err_text(&result.err));
	ck_assert_uint_lt(nest_clock_mono_us() - since, 16000000);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
}

void web_fails(const char *from, int code, const char *words)
{
	web_fails_open(from, code, words);
	web_close_loader();
}

struct nest_loader_stats web_stats(void)
{
	struct nest_loader_stats now;

	nest_loader_stats(web.loader, &now);
	return now;
}
