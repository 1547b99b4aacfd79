/* SPDX-License-Identifier: Apache-2.0 */
/* Downloads, whole loads of them, from servers that behave and from one that doesn't. */
#include "loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curl/curl.h>
#include <uv.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "loader/digest.h"
#include "loader/reference.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

#define FILE_BYTES 6000000u

static uv_loop_t loop;
static struct nest_loader *loader;
static struct nest_loader_config config;
static pid_t server;
static int server_in = -1;
static unsigned port;
static char digest[NEST_TREE_DIGEST_LEN];

struct result {
	unsigned calls;
	int code;
	struct nest_tree *tree;
	struct nest_err err;
};

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct result *result = arg;

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

/* ---- servers ---- */

/* Starts a program whose first line of output is a number, which is returned. */
static unsigned start_server(char *const argv[])
{
	int in[2];
	int out[2];
	char line[32] = "";
	ssize_t n;

	ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	server = fork();
	if (server == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execv(argv[0], argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	server_in = in[1];
	n = read(out[0], line, sizeof(line) - 1);
	close(out[0]);
	ck_assert_int_gt(n, 0);
	return (unsigned)atoi(line);
}

static void make_archive(const char *name)
{
	struct nest_buf buf = NEST_BUF_INIT;
	nest_autodigest struct nest_digest *sum = NULL;

	kit_tar_entry(&buf, "first", '0', FILE_BYTES / 2, NULL, true);
	kit_tar_entry(&buf, "dir/second", '0', FILE_BYTES / 2, NULL, true);
	kit_tar_end(&buf);
	kit_write(kit_path("files/%s", name), nest_buf_bytes(&buf), buf.len, 0644);
	strcpy(digest, NEST_DIGEST_PREFIX);
	nest_digest_new(&sum, NULL);
	nest_digest_update(sum, nest_buf_bytes(&buf), buf.len, NULL);
	nest_digest_final(sum, digest + strlen(digest), NULL);
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
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	uv_queue_work(&loop, &work, nothing, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	kit_settle();
}

static void open_loader(void)
{
	struct nest_err err = NEST_ERR_INIT;

	kit_mkdir(kit_path("cache"));
	config.dir = kit_path("cache");
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	kit_ok(nest_loader_open(&loop, &config, &loader, &err), &err);
}

static void close_loader(void)
{
	nest_loader_close(loader, on_closed, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_uint_eq(kit_count(kit_path("cache/staging")), 0);
}

static const char *const proxies[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
	"ALL_PROXY", "no_proxy", "NO_PROXY" };

static void enter(void)
{
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(proxies); i++)
		unsetenv(proxies[i]);
	kit_enter();
	config = (struct nest_loader_config){
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
	make_archive("a.tar");
	warm_up();
}

static void serve(void)
{
	char *argv[] = { (char *)"/usr/bin/python3", (char *)KIT_SERVER, (char *)kit_path("files"),
		NULL };

	port = start_server(argv);
}

static void leave(void)
{
	int status;

	if (server > 0) {
		close(server_in);
		kill(server, SIGTERM);
		waitpid(server, &status, 0);
	}
	kit_leave();
}

/* ---- loads ---- */

static const char *url(const char *mode)
{
	static char text[8][128];
	static unsigned at;

	at = (at + 1) % 8;
	snprintf(text[at], sizeof(text[at]), "http://127.0.0.1:%u/%s/a.tar", port, mode);
	return text[at];
}

static void start(const struct nest_reference *references, size_t n, struct result *result)
{
	memset(result, 0, sizeof(*result));
	result->code = nest_loader_load(loader, references, n, on_load, result, &result->err);
	ck_assert_uint_eq(result->calls, 0);
}

static void finish(const struct result *result)
{
	while (result->calls == 0 && result->code == 0)
		uv_run(&loop, UV_RUN_ONCE);
}

static void check_tree(const struct nest_tree *tree)
{
	nest_autoclose int fd = -1;
	struct nest_err err = NEST_ERR_INIT;
	struct stat st;

	kit_ok(nest_tree_open(tree, &fd, &err), &err);
	ck_assert_int_eq(fstatat(fd, "dir/second", &st, 0), 0);
	ck_assert_int_eq(st.st_size, FILE_BYTES / 2);
}

/* Loads from one url, the right digest given; the tree must come and be right. */
static void loads(const char *from)
{
	struct nest_reference reference = { .url = from, .digest = digest };
	struct result result;

	open_loader();
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_str_eq(nest_tree_digest(result.tree), digest);
	check_tree(result.tree);
	nest_tree_unref(result.tree);
}

/* It must fail with this code and these words, within the time limit, and leave nothing. */
static void fails(const char *from, int code, const char *words)
{
	struct nest_reference reference = { .url = from, .digest = digest };
	struct result result;
	uint64_t since = nest_clock_mono_us();

	open_loader();
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_msg(result.tree == NULL && result.err.code == code &&
			      strstr(result.err.text, words) != NULL,
		"%d: %s", result.err.code, nest_err_text(&result.err));
	ck_assert_uint_lt(nest_clock_mono_us() - since, 16000000);
	ck_assert_uint_eq(kit_count(kit_path("cache/trees")), 0);
	close_loader();
}

static struct nest_loader_stats stats(void)
{
	struct nest_loader_stats now;

	nest_loader_stats(loader, &now);
	return now;
}

#define LOADS(test, mode)         \
	START_TEST(test)          \
	{                         \
		serve();          \
		loads(url(mode)); \
		close_loader();   \
	}                         \
	END_TEST

#define FAILS(test, mode, code, words)         \
	START_TEST(test)                       \
	{                                      \
		serve();                       \
		fails(url(mode), code, words); \
	}                                      \
	END_TEST

LOADS(a_server_with_ranges_is_loaded_in_parts, "good")
LOADS(a_server_without_ranges_is_loaded_in_one_stream, "whole")
LOADS(a_chunked_answer_without_length_is_loaded, "bare")
LOADS(a_dropped_range_is_resumed, "drops")
LOADS(a_dropped_stream_without_ranges_begins_again, "drops-whole")
LOADS(a_strong_etag_is_what_a_resume_depends_on, "strong")
LOADS(a_weak_etag_gives_way_to_the_time_of_change, "weak")
LOADS(a_weak_etag_alone_is_no_condition, "weak-alone")
LOADS(a_time_of_change_is_what_a_resume_depends_on, "modified")
LOADS(a_busy_server_is_asked_again, "busy")
LOADS(a_redirect_is_followed, "moved")
FAILS(a_server_that_always_drops_is_given_up, "drops-always", -ECONNRESET,
	"gave up after 5 attempts")
FAILS(a_server_that_dies_is_given_up, "dies", -ECONNREFUSED, "gave up after 5 attempts")
FAILS(a_changed_etag_is_noticed, "changes", -ESTALE,
	"changed on the server while it was downloaded (ETag")
FAILS(a_changed_weak_etag_is_noticed, "weakly-changed", -ESTALE,
	"changed on the server while it was downloaded (ETag")
FAILS(a_changed_time_is_noticed, "touched", -ESTALE,
	"changed on the server while it was downloaded (Last-Modified")
FAILS(a_changed_length_is_noticed, "grows", -ESTALE,
	"changed on the server while it was downloaded")
FAILS(a_server_that_stops_to_send_ranges_is_noticed, "ignores", -EPROTO, "with the whole file")
FAILS(a_file_that_was_replaced_is_noticed, "replaced", -ESTALE, "changed on the server")
FAILS(a_range_that_was_not_asked_for_is_noticed, "elsewhere", -EPROTO, "when it was asked for")
FAILS(a_length_that_is_too_long_is_noticed, "lies-long", -ECONNRESET, "gave up after")
FAILS(a_length_that_is_too_short_is_noticed, "lies-short", -EKEYREJECTED, "its sha256 is")
FAILS(a_flipped_bit_is_noticed, "corrupt", -EKEYREJECTED, "its content is not what was asked for")
FAILS(a_truncated_file_is_noticed, "truncated", -EKEYREJECTED,
	"its content is not what was asked for")
FAILS(a_file_that_is_too_large_is_refused, "huge", -EFBIG, "are allowed")
FAILS(garbage_is_refused, "garbage", -EPROTO, "load 'http://127.0.0.1")
FAILS(a_server_that_pauses_is_given_up, "pauses", -ETIMEDOUT, "/pauses/a.tar")
FAILS(a_server_that_is_broken_is_given_up, "fails", -EREMOTEIO, "the server answered 500")
FAILS(a_wait_beyond_the_limit_is_not_waited, "limits-long", -EREMOTEIO,
	"the next attempt would come after")
FAILS(a_missing_file_is_named, "nothing", -ENOENT, "the server answered 404")
FAILS(missing_credentials_are_named, "secret", -EACCES, "loader.credentialsFile")
FAILS(a_redirect_that_loops_is_ended, "loops", -EPROTO, "6th redirect")
FAILS(a_redirect_to_a_file_is_refused, "to-file", -EPROTO, "only http and https are followed")

/* Asks the server how often, or how often at once, it was asked for a file. */
static unsigned ask(const char *what, const char *mode)
{
	char command[256];
	char line[32] = "";
	FILE *curl;

	snprintf(command, sizeof(command),
		"curl -fsS --noproxy '*' http://127.0.0.1:%u/%s/%s/a.tar", port, what, mode);
	curl = popen(command, "r");
	ck_assert_ptr_nonnull(curl);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), curl));
	ck_assert_int_eq(pclose(curl), 0);
	return (unsigned)atoi(line);
}

START_TEST(parts_come_over_several_connections_and_are_counted)
{
	serve();
	loads(url("slow"));
	ck_assert_uint_ge(stats().fetched_bytes_total, FILE_BYTES);
	ck_assert_uint_gt(stats().fetch_us_total, 0);
	ck_assert_uint_eq(stats().made_bytes_total, FILE_BYTES);
	ck_assert_uint_ge(ask("most", "slow"), 2);
	ck_assert_uint_le(ask("most", "slow"), config.fetch.connections);
	close_loader();
}
END_TEST

static void set_proxy(const char *name)
{
	char value[64];

	snprintf(value, sizeof(value), "http://127.0.0.1:%u", port);
	ck_assert_int_eq(setenv(name, value, 1), 0);
}

START_TEST(a_proxy_is_asked_for_what_lies_behind_it)
{
	serve();
	set_proxy("http_proxy");
	loads("http://elsewhere.invalid/proxied/a.tar");
	close_loader();
	unsetenv("http_proxy");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	set_proxy("all_proxy");
	loads("http://elsewhere.invalid/proxied/a.tar");
	close_loader();
}
END_TEST

START_TEST(a_proxy_that_refuses_is_named)
{
	serve();
	set_proxy("https_proxy");
	config.fetch.retries = 0;
	fails("https://elsewhere.invalid/good/a.tar", -ECONNRESET, "403");
}
END_TEST

START_TEST(what_needs_no_proxy_goes_past_it)
{
	serve();
	ck_assert_int_eq(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
	config.fetch.retries = 0;
	fails(url("good"), -ECONNREFUSED, "127.0.0.1");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	ck_assert_int_eq(setenv("no_proxy", "127.0.0.1", 1), 0);
	loads(url("good"));
	close_loader();
}
END_TEST

START_TEST(retry_after_is_honoured)
{
	uint64_t since = nest_clock_mono_us();

	serve();
	loads(url("limits"));
	ck_assert_uint_ge(nest_clock_mono_us() - since, 1000000);
	ck_assert_uint_eq(stats().fetch_retries_total, 1);
	close_loader();
}
END_TEST

START_TEST(one_artifact_is_fetched_once_however_many_ask)
{
	struct nest_reference reference = { .url = NULL, .digest = digest };
	struct result results[20];

	serve();
	config.fetch.connections = 1;
	open_loader();
	reference.url = url("slow");
	for (size_t i = 0; i < 20; i++)
		start(&reference, 1, &results[i]);
	for (size_t i = 0; i < 20; i++) {
		finish(&results[i]);
		ck_assert_msg(results[i].tree != NULL, "%s", nest_err_text(&results[i].err));
		ck_assert_ptr_eq(results[i].tree, results[0].tree);
	}
	ck_assert_uint_eq(stats().misses_total, 1);
	ck_assert_uint_eq(stats().hits_total, 19);
	for (size_t i = 0; i < 20; i++)
		nest_tree_unref(results[i].tree);
	/* And once more, from the cache: the server isn't asked. */
	start(&reference, 1, &results[0]);
	finish(&results[0]);
	ck_assert_ptr_nonnull(results[0].tree);
	nest_tree_unref(results[0].tree);
	ck_assert_uint_lt(stats().fetched_bytes_total, FILE_BYTES + 10000);
	close_loader();
}
END_TEST

START_TEST(remote_code_without_a_digest_needs_the_switch)
{
	struct nest_reference reference;
	struct result result;
	struct result second;

	serve();
	open_loader();
	reference = (struct nest_reference){ .url = url("good") };
	start(&reference, 1, &result);
	ck_assert_int_eq(result.code, -EINVAL);
	ck_assert_ptr_nonnull(strstr(result.err.text, "needs its sha256"));
	close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	config.allow_unverified = true;
	open_loader();
	start(&reference, 1, &result);
	start(&reference, 1, &second);
	finish(&result);
	finish(&second);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_ptr_eq(result.tree, second.tree);
	ck_assert_str_eq(nest_tree_digest(result.tree), digest);
	nest_tree_unref(result.tree);
	nest_tree_unref(second.tree);
	close_loader();
}
END_TEST

START_TEST(credentials_are_sent)
{
	char text[256];
	int n;

	serve();
	n = snprintf(text, sizeof(text),
		"# ours\nmachine other token nope\nmachine 127.0.0.1:%u token t0ken\n", port);
	kit_write(kit_path("netrc"), text, (size_t)n, 0600);
	config.fetch.credentials_file = kit_path("netrc");
	loads(url("secret"));
	close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	n = snprintf(text, sizeof(text), "machine 127.0.0.1 login reader\n password pass");
	kit_write(kit_path("netrc"), text, (size_t)n, 0600);
	loads(url("secret"));
	close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	chmod(kit_path("netrc"), 0644);
	fails(url("secret"), -EPERM, "others than its owner may use it");
}
END_TEST

START_TEST(a_format_that_does_not_hold_is_named)
{
	struct nest_reference reference;
	struct result result;

	serve();
	open_loader();
	reference = (struct nest_reference){
		.url = url("good"), .digest = digest, .format = NEST_REFERENCE_TAR_ZST
	};
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_int_eq(result.err.code, -EBADMSG);
	ck_assert_ptr_nonnull(strstr(result.err.text, "its content is tar, not tar.zst"));
	close_loader();
}
END_TEST

START_TEST(closing_abandons_downloads)
{
	struct nest_reference references[3];
	struct result results[3];

	serve();
	config.allow_unverified = true;
	config.fetch.stall_ms = 10000;
	open_loader();
	references[0] = (struct nest_reference){ .url = url("pauses"), .digest = digest };
	references[1] = (struct nest_reference){ .url = url("pauses") };
	references[2] = (struct nest_reference){ .url = url("fails") };
	for (size_t i = 0; i < 3; i++)
		start(&references[i], 1, &results[i]);
	while (stats().fetched_bytes_total == 0 && results[2].calls == 0)
		uv_run(&loop, UV_RUN_ONCE);
	close_loader();
	ck_assert_int_eq(results[0].code, -ECANCELED);
	ck_assert_int_eq(results[1].code, -ECANCELED);
}
END_TEST

START_TEST(a_full_disk_is_a_clear_error)
{
	struct nest_reference reference;
	struct result result;

	serve();
	open_loader();
	close_loader();
	kit_mount(kit_path("cache"), "mode=0700,size=2m");
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	kit_ok(nest_loader_open(&loop, &config, &loader, &result.err), &result.err);
	reference = (struct nest_reference){ .url = url("good"), .digest = digest };
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_int_eq(result.err.code, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(result.err.text, "disk is full"));
	close_loader();
	umount2(kit_path("cache"), MNT_DETACH);
}
END_TEST

/* ---- local files and layers ---- */

START_TEST(local_files_and_directories_are_loaded)
{
	struct nest_reference reference = { .url = kit_path("files/a.tar"), .digest = digest };
	struct nest_reference as_url = { .url = NULL };
	struct result result;
	char text[256];

	open_loader();
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	check_tree(result.tree);
	nest_tree_unref(result.tree);
	snprintf(text, sizeof(text), "file://%s", kit_path("files/a.tar"));
	as_url.url = text;
	start(&as_url, 1, &result);
	finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_str_eq(nest_tree_digest(result.tree), digest);
	nest_tree_unref(result.tree);
	reference.url = kit_path("files/none.tar");
	reference.digest = NULL;
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_int_eq(result.err.code, -ENOENT);
	reference.url = kit_path("files");
	start(&reference, 1, &result);
	finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	nest_tree_unref(result.tree);
	close_loader();
}
END_TEST

static void layer_file(const char *path, const char *text)
{
	kit_write(kit_path("%s", path), text, strlen(text), 0644);
}

static void expect_text(int fd, const char *name, const char *wanted)
{
	nest_autofree char *text = NULL;
	struct nest_err err = NEST_ERR_INIT;

	kit_ok(nest_file_read(fd, name, 100, &text, NULL, &err), &err);
	ck_assert_str_eq(text, wanted);
}

START_TEST(later_layers_win)
{
	struct nest_reference references[3] = { { .url = kit_path("one") },
		{ .url = kit_path("two") }, { .url = kit_path("three") } };
	struct nest_err err = NEST_ERR_INIT;
	struct result result;
	struct result again;
	struct stat st;
	int fd = -1;

	kit_mkdir(kit_path("one"));
	kit_mkdir(kit_path("one/both"));
	kit_mkdir(kit_path("one/hidden"));
	layer_file("one/both/a", "one");
	layer_file("one/both/b", "one");
	layer_file("one/hidden/c", "one");
	layer_file("one/top", "one");
	kit_mkdir(kit_path("two"));
	kit_mkdir(kit_path("two/both"));
	layer_file("two/both/b", "two");
	layer_file("two/hidden", "a file now");
	kit_mkdir(kit_path("three"));
	kit_mkdir(kit_path("three/top"));
	layer_file("three/top/d", "three");
	open_loader();
	start(references, 3, &result);
	finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	kit_ok(nest_tree_open(result.tree, &fd, &err), &err);
	expect_text(fd, "both/a", "one");
	expect_text(fd, "both/b", "two");
	expect_text(fd, "hidden", "a file now");
	expect_text(fd, "top/d", "three");
	ck_assert_int_lt(fstatat(fd, "hidden/c", &st, 0), 0);
	close(fd);
	ck_assert_uint_eq(stats().trees, 4);
	/* The same layers are the same tree; in another order they aren't. */
	start(references, 3, &again);
	finish(&again);
	ck_assert_ptr_eq(again.tree, result.tree);
	nest_tree_unref(again.tree);
	nest_tree_unref(result.tree);
	references[0].url = kit_path("three");
	references[2].url = kit_path("one");
	start(references, 3, &again);
	finish(&again);
	ck_assert_ptr_nonnull(again.tree);
	ck_assert_uint_eq(stats().trees, 5);
	nest_tree_unref(again.tree);
	close_loader();
}
END_TEST

START_TEST(a_layer_that_fails_is_named)
{
	struct nest_reference references[2] = { { .url = kit_path("files") },
		{ .url = kit_path("none") } };
	struct result result;

	open_loader();
	start(references, 2, &result);
	finish(&result);
	ck_assert_int_eq(result.err.code, -ENOENT);
	ck_assert_ptr_nonnull(strstr(result.err.text, "layer 2: load '"));
	close_loader();
}
END_TEST

/* ---- a real web server, with and without TLS ---- */

static void run_quietly(const char *command)
{
	ck_assert_msg(system(command) == 0, "%s", command);
}

static void start_nginx(void)
{
	char text[2048];
	int n;
	int probe;

	snprintf(text, sizeof(text),
		"cd %s && exec >tls.log 2>&1 && openssl req -x509 -newkey rsa:2048 -nodes -days 2 "
		"-subj /CN=ca -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem "
		"&& openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout s.key -out "
		"s.csr && printf 'subjectAltName=DNS:localhost' >ext && openssl x509 -req -in "
		"s.csr "
		"-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out s.pem",
		kit_path("files"));
	run_quietly(text);
	port = 20000 + (unsigned)getpid() % 20000;
	n = snprintf(text, sizeof(text),
		"daemon off; master_process off; error_log stderr crit; pid nginx.pid;\n"
		"events { worker_connections 64; }\n"
		"http { access_log off; client_body_temp_path b; proxy_temp_path p; "
		"fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
		"server { listen 127.0.0.1:%u; root .; }\n"
		"server { listen 127.0.0.1:%u ssl; ssl_certificate s.pem; ssl_certificate_key "
		"s.key; root .; location /down/ { return 302 http://127.0.0.1:%u/a.tar; } } }\n",
		port, port + 1, port);
	kit_write(kit_path("files/nginx.conf"), text, (size_t)n, 0644);
	server = fork();
	if (server == 0) {
		execlp("nginx", "nginx", "-p", kit_path("files"), "-c", "nginx.conf", NULL);
		_exit(127);
	}
	/* It listens once its pid file is there. */
	for (probe = 0; probe < 500 && access(kit_path("files/nginx.pid"), F_OK) < 0; probe++)
		usleep(10000);
	ck_assert_int_lt(probe, 500);
}

START_TEST(nginx_sends_ranges)
{
	char text[128];

	start_nginx();
	snprintf(text, sizeof(text), "http://127.0.0.1:%u/a.tar", port);
	loads(text);
	ck_assert_uint_eq(stats().fetch_retries_total, 0);
	close_loader();
}
END_TEST

START_TEST(tls_needs_the_right_ca)
{
	char text[128];

	start_nginx();
	snprintf(text, sizeof(text), "https://localhost:%u/a.tar", port + 1);
	fails(text, -ECONNABORTED, "certificate");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	config.fetch.ca_file = kit_path("files/ca.pem");
	loads(text);
	close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	snprintf(text, sizeof(text), "https://localhost:%u/down/a.tar", port + 1);
	fails(text, -EPROTO, "would leave https for http");
}
END_TEST

NEST_SUITE_WITH("loader/fetch", enter, leave, a_server_with_ranges_is_loaded_in_parts,
	a_server_without_ranges_is_loaded_in_one_stream, a_chunked_answer_without_length_is_loaded,
	a_dropped_range_is_resumed, a_dropped_stream_without_ranges_begins_again,
	a_busy_server_is_asked_again, a_redirect_is_followed,
	a_server_that_always_drops_is_given_up, a_server_that_dies_is_given_up,
	a_changed_etag_is_noticed, a_changed_length_is_noticed,
	a_server_that_stops_to_send_ranges_is_noticed, a_file_that_was_replaced_is_noticed,
	a_range_that_was_not_asked_for_is_noticed, a_length_that_is_too_long_is_noticed,
	a_length_that_is_too_short_is_noticed, a_flipped_bit_is_noticed,
	a_truncated_file_is_noticed, a_file_that_is_too_large_is_refused, garbage_is_refused,
	a_server_that_pauses_is_given_up, a_server_that_is_broken_is_given_up,
	a_wait_beyond_the_limit_is_not_waited, a_missing_file_is_named,
	missing_credentials_are_named, a_redirect_that_loops_is_ended,
	a_redirect_to_a_file_is_refused, parts_come_over_several_connections_and_are_counted,
	a_strong_etag_is_what_a_resume_depends_on, a_weak_etag_gives_way_to_the_time_of_change,
	a_weak_etag_alone_is_no_condition, a_time_of_change_is_what_a_resume_depends_on,
	a_changed_weak_etag_is_noticed, a_changed_time_is_noticed,
	a_proxy_is_asked_for_what_lies_behind_it, a_proxy_that_refuses_is_named,
	what_needs_no_proxy_goes_past_it, retry_after_is_honoured,
	one_artifact_is_fetched_once_however_many_ask,
	remote_code_without_a_digest_needs_the_switch, credentials_are_sent,
	a_format_that_does_not_hold_is_named, closing_abandons_downloads,
	a_full_disk_is_a_clear_error, local_files_and_directories_are_loaded, later_layers_win,
	a_layer_that_fails_is_named, nginx_sends_ranges, tls_needs_the_right_ca)
