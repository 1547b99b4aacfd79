/* SPDX-License-Identifier: Apache-2.0 */
/* Downloads, whole loads of them, from servers that behave and from one that doesn't. */
#include "loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "loader/reference.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/loader/web.h"
#include "tests/unit/suite.h"

#define LOADS(test, mode)                 \
	START_TEST(test)                  \
	{                                 \
		web_serve();              \
		web_loads(web_url(mode)); \
		web_close_loader();       \
	}                                 \
	END_TEST

#define FAILS(test, mode, code, words)                 \
	START_TEST(test)                               \
	{                                              \
		web_serve();                           \
		web_fails(web_url(mode), code, words); \
	}                                              \
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

START_TEST(parts_come_over_several_connections_and_are_counted)
{
	web_serve();
	web_loads(web_url("slow"));
	ck_assert_uint_ge(web_stats().fetched_bytes_total, WEB_FILE_BYTES);
	ck_assert_uint_gt(web_stats().fetch_us_total, 0);
	ck_assert_uint_eq(web_stats().made_bytes_total, WEB_FILE_BYTES);
	ck_assert_uint_ge(web_ask("most", "slow"), 2);
	ck_assert_uint_le(web_ask("most", "slow"), web.config.fetch.connections);
	web_close_loader();
}
END_TEST

static void set_proxy(const char *name)
{
	char value[64];

	snprintf(value, sizeof(value), "http://127.0.0.1:%u", web.port);
	ck_assert_int_eq(setenv(name, value, 1), 0);
}

START_TEST(a_proxy_is_asked_for_what_lies_behind_it)
{
	web_serve();
	set_proxy("http_proxy");
	web_loads("http://elsewhere.invalid/proxied/a.tar");
	web_close_loader();
	unsetenv("http_proxy");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	set_proxy("all_proxy");
	web_loads("http://elsewhere.invalid/proxied/a.tar");
	web_close_loader();
}
END_TEST

START_TEST(a_proxy_that_refuses_is_named)
{
	web_serve();
	set_proxy("https_proxy");
	web.config.fetch.retries = 0;
	web_fails("https://elsewhere.invalid/good/a.tar", -ECONNRESET, "403");
}
END_TEST

START_TEST(what_needs_no_proxy_goes_past_it)
{
	web_serve();
	ck_assert_int_eq(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
	web.config.fetch.retries = 0;
	web_fails(web_url("good"), -ECONNREFUSED, "127.0.0.1");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	ck_assert_int_eq(setenv("no_proxy", "127.0.0.1", 1), 0);
	web_loads(web_url("good"));
	web_close_loader();
}
END_TEST

START_TEST(a_retry_waits_for_a_free_connection)
{
	struct nest_reference busy = { .digest = web.digest };
	struct nest_reference slow = { .url = NULL };
	struct web_result results[2];

	web_serve();
	web.config.allow_unverified = true;
	web.config.fetch.connections = 1;
	web_open_loader();
	busy.url = web_url("busy");
	slow.url = web_url("slow");
	web_start(&busy, 1, &results[0]);
	web_start(&slow, 1, &results[1]);
	for (size_t i = 0; i < 2; i++) {
		web_finish(&results[i]);
		ck_assert_msg(results[i].tree != NULL, "%s", nest_err_text(&results[i].err));
		nest_tree_unref(results[i].tree);
	}
	ck_assert_uint_eq(web_stats().fetch_retries_total, 2);
	web_close_loader();
}
END_TEST

START_TEST(retry_after_is_honoured)
{
	uint64_t since = nest_clock_mono_us();

	web_serve();
	web_loads(web_url("limits"));
	ck_assert_uint_ge(nest_clock_mono_us() - since, 1000000);
	ck_assert_uint_eq(web_stats().fetch_retries_total, 1);
	web_close_loader();
}
END_TEST

START_TEST(one_artifact_is_fetched_once_however_many_ask)
{
	struct nest_reference reference = { .url = NULL, .digest = web.digest };
	struct web_result results[20];

	web_serve();
	web.config.fetch.connections = 1;
	web_open_loader();
	reference.url = web_url("slow");
	for (size_t i = 0; i < 20; i++)
		web_start(&reference, 1, &results[i]);
	for (size_t i = 0; i < 20; i++) {
		web_finish(&results[i]);
		ck_assert_msg(results[i].tree != NULL, "%s", nest_err_text(&results[i].err));
		ck_assert_ptr_eq(results[i].tree, results[0].tree);
	}
	ck_assert_uint_eq(web_stats().misses_total, 1);
	ck_assert_uint_eq(web_stats().hits_total, 19);
	for (size_t i = 0; i < 20; i++)
		nest_tree_unref(results[i].tree);
	/* And once more, from the cache: the server isn't asked. */
	web_start(&reference, 1, &results[0]);
	web_finish(&results[0]);
	ck_assert_ptr_nonnull(results[0].tree);
	nest_tree_unref(results[0].tree);
	ck_assert_uint_lt(web_stats().fetched_bytes_total, WEB_FILE_BYTES + 10000);
	web_close_loader();
}
END_TEST

START_TEST(remote_code_without_a_digest_needs_the_switch)
{
	struct nest_reference reference;
	struct web_result result;
	struct web_result second;

	web_serve();
	web_open_loader();
	reference = (struct nest_reference){ .url = web_url("good") };
	web_start(&reference, 1, &result);
	ck_assert_int_eq(result.code, -EINVAL);
	ck_assert_ptr_nonnull(strstr(result.err.text, "needs its sha256"));
	web_close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	web.config.allow_unverified = true;
	web_open_loader();
	web_start(&reference, 1, &result);
	web_start(&reference, 1, &second);
	web_finish(&result);
	web_finish(&second);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_ptr_eq(result.tree, second.tree);
	ck_assert_str_eq(nest_tree_digest(result.tree), web.digest);
	nest_tree_unref(result.tree);
	nest_tree_unref(second.tree);
	web_close_loader();
}
END_TEST

START_TEST(credentials_are_sent)
{
	char text[256];
	int n;

	web_serve();
	n = snprintf(text, sizeof(text),
		"# ours\nmachine other token nope\nmachine 127.0.0.1:%u token t0ken\n", web.port);
	kit_write(kit_path("netrc"), text, (size_t)n, 0600);
	web.config.fetch.credentials_file = kit_path("netrc");
	web_loads(web_url("secret"));
	web_close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	n = snprintf(text, sizeof(text), "machine 127.0.0.1 login reader\n password pass");
	kit_write(kit_path("netrc"), text, (size_t)n, 0600);
	web_loads(web_url("secret"));
	web_close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	chmod(kit_path("netrc"), 0644);
	web_fails(web_url("secret"), -EPERM, "others than its owner may use it");
}
END_TEST

START_TEST(a_format_that_does_not_hold_is_named)
{
	struct nest_reference reference;
	struct web_result result;

	web_serve();
	web_open_loader();
	reference = (struct nest_reference){
		.url = web_url("good"), .digest = web.digest, .format = NEST_REFERENCE_TAR_ZST
	};
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -EBADMSG);
	ck_assert_ptr_nonnull(strstr(result.err.text, "its content is tar, not tar.zst"));
	web_close_loader();
}
END_TEST

START_TEST(closing_abandons_downloads)
{
	struct nest_reference references[3];
	struct web_result results[3];

	web_serve();
	web.config.allow_unverified = true;
	web.config.fetch.stall_ms = 10000;
	web_open_loader();
	references[0] = (struct nest_reference){ .url = web_url("pauses"), .digest = web.digest };
	references[1] = (struct nest_reference){ .url = web_url("pauses") };
	references[2] = (struct nest_reference){ .url = web_url("fails") };
	for (size_t i = 0; i < 3; i++)
		web_start(&references[i], 1, &results[i]);
	while (web_stats().fetched_bytes_total == 0 && results[2].calls == 0)
		uv_run(&web.loop, UV_RUN_ONCE);
	web_close_loader();
	ck_assert_int_eq(results[0].code, -ECANCELED);
	ck_assert_int_eq(results[1].code, -ECANCELED);
}
END_TEST

START_TEST(a_full_disk_is_a_clear_error)
{
	struct nest_reference reference;
	struct web_result result;

	web_serve();
	web_open_loader();
	web_close_loader();
	kit_mount(kit_path("cache"), "mode=0700,size=2m");
	ck_assert_int_eq(uv_loop_init(&web.loop), 0);
	kit_ok(nest_loader_open(&web.loop, &web.config, &web.loader, &result.err), &result.err);
	reference = (struct nest_reference){ .url = web_url("good"), .digest = web.digest };
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(result.err.text, "disk is full"));
	web_close_loader();
	umount2(kit_path("cache"), MNT_DETACH);
}
END_TEST

/* ---- local files and layers ---- */

START_TEST(local_files_and_directories_are_loaded)
{
	struct nest_reference reference = { .url = kit_path("files/a.tar"), .digest = web.digest };
	struct nest_reference as_url = { .url = NULL };
	struct web_result result;
	char text[256];

	web_open_loader();
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	web_check_tree(result.tree);
	nest_tree_unref(result.tree);
	snprintf(text, sizeof(text), "file://%s", kit_path("files/a.tar"));
	as_url.url = text;
	web_start(&as_url, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	ck_assert_str_eq(nest_tree_digest(result.tree), web.digest);
	nest_tree_unref(result.tree);
	reference.url = kit_path("files/none.tar");
	reference.digest = NULL;
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -ENOENT);
	reference.url = kit_path("files");
	web_start(&reference, 1, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	nest_tree_unref(result.tree);
	web_close_loader();
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
	struct web_result result;
	struct web_result again;
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
	web_open_loader();
	web_start(references, 3, &result);
	web_finish(&result);
	ck_assert_msg(result.tree != NULL, "%s", nest_err_text(&result.err));
	kit_ok(nest_tree_open(result.tree, &fd, &err), &err);
	expect_text(fd, "both/a", "one");
	expect_text(fd, "both/b", "two");
	expect_text(fd, "hidden", "a file now");
	expect_text(fd, "top/d", "three");
	ck_assert_int_lt(fstatat(fd, "hidden/c", &st, 0), 0);
	close(fd);
	ck_assert_uint_eq(web_stats().trees, 4);
	/* The same layers are the same tree; in another order they aren't. */
	web_start(references, 3, &again);
	web_finish(&again);
	ck_assert_ptr_eq(again.tree, result.tree);
	nest_tree_unref(again.tree);
	nest_tree_unref(result.tree);
	references[0].url = kit_path("three");
	references[2].url = kit_path("one");
	web_start(references, 3, &again);
	web_finish(&again);
	ck_assert_ptr_nonnull(again.tree);
	ck_assert_uint_eq(web_stats().trees, 5);
	nest_tree_unref(again.tree);
	web_close_loader();
}
END_TEST

START_TEST(a_layer_that_fails_is_named)
{
	struct nest_reference references[2] = { { .url = kit_path("files") },
		{ .url = kit_path("none") } };
	struct web_result result;

	web_open_loader();
	web_start(references, 2, &result);
	web_finish(&result);
	ck_assert_int_eq(result.err.code, -ENOENT);
	ck_assert_ptr_nonnull(strstr(result.err.text, "layer 2: load '"));
	web_close_loader();
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
	web.port = 20000 + (unsigned)getpid() % 20000;
	n = snprintf(text, sizeof(text),
		"daemon off; master_process off; error_log stderr crit; pid nginx.pid;\n"
		"events { worker_connections 64; }\n"
		"http { access_log off; client_body_temp_path b; proxy_temp_path p; "
		"fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
		"server { listen 127.0.0.1:%u; root .; }\n"
		"server { listen 127.0.0.1:%u ssl; ssl_certificate s.pem; ssl_certificate_key "
		"s.key; root .; location /down/ { return 302 http://127.0.0.1:%u/a.tar; } } }\n",
		web.port, web.port + 1, web.port);
	kit_write(kit_path("files/nginx.conf"), text, (size_t)n, 0644);
	web.server = fork();
	if (web.server == 0) {
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
	snprintf(text, sizeof(text), "http://127.0.0.1:%u/a.tar", web.port);
	web_loads(text);
	ck_assert_uint_eq(web_stats().fetch_retries_total, 0);
	web_close_loader();
}
END_TEST

START_TEST(tls_needs_the_right_ca)
{
	char text[128];

	start_nginx();
	snprintf(text, sizeof(text), "https://localhost:%u/a.tar", web.port + 1);
	web_fails(text, -ECONNABORTED, "certificate");
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	web.config.fetch.ca_file = kit_path("files/ca.pem");
	web_loads(text);
	web_close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	web.size = web.bytes;
	web_loads(text);
	web_close_loader();
	nest_file_remove_tree(AT_FDCWD, kit_path("cache"), NULL);
	snprintf(text, sizeof(text), "https://localhost:%u/down/a.tar", web.port + 1);
	web_fails(text, -EPROTO, "would leave https for http");
}
END_TEST

NEST_SUITE_WITH("loader/fetch", web_enter, web_leave, a_server_with_ranges_is_loaded_in_parts,
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
	what_needs_no_proxy_goes_past_it, a_retry_waits_for_a_free_connection,
	retry_after_is_honoured, one_artifact_is_fetched_once_however_many_ask,
	remote_code_without_a_digest_needs_the_switch, credentials_are_sent,
	a_format_that_does_not_hold_is_named, closing_abandons_downloads,
	a_full_disk_is_a_clear_error, local_files_and_directories_are_loaded, later_layers_win,
	a_layer_that_fails_is_named, nginx_sends_ranges, tls_needs_the_right_ca)
