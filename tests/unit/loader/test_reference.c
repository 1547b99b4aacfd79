/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/reference.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/credentials.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

START_TEST(references_are_taken_apart)
{
	static const struct {
		const char *url;
		enum nest_reference_kind kind;
		const char *host;
		unsigned port;
		const char *path;
		bool loopback;
	} good[] = {
		{ "https://Files.Example.org/a", NEST_REFERENCE_HTTPS, "files.example.org", 443, "",
			false },
		{ "http://127.0.0.1:8080", NEST_REFERENCE_HTTP, "127.0.0.1", 8080, "", true },
		{ "http://127.evil.example/x", NEST_REFERENCE_HTTP, "127.evil.example", 80, "",
			false },
		{ "HTTPS://[::1]:99/a?b=c", NEST_REFERENCE_HTTPS, "::1", 99, "", true },
		{ "file:///srv/a%20b%2f..tar", NEST_REFERENCE_PATH, "", 0, "/srv/a b/..tar",
			false },
		{ "file://localhost/x", NEST_REFERENCE_PATH, "", 0, "/x", false },
		{ "/srv/a b?c", NEST_REFERENCE_PATH, "", 0, "/srv/a b?c", false },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(good); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_reference_parts parts;

		kit_ok(nest_reference_parse(good[i].url, &parts, &err), &err);
		ck_assert_int_eq(parts.kind, good[i].kind);
		ck_assert_str_eq(parts.host, good[i].host);
		ck_assert_uint_eq(parts.port, good[i].port);
		ck_assert_str_eq(parts.path, good[i].path);
		ck_assert(nest_reference_is_loopback(&parts) == good[i].loopback);
	}
}
END_TEST

START_TEST(other_references_are_refused)
{
	static const struct {
		const char *url;
		const char *words;
	} bad[] = {
		{ "", "begins with https://" },
		{ "ftp://a/b", "begins with https://" },
		{ "srv/a.tar", "begins with https://" },
		{ "https:///a", "names no host" },
		{ "https://user:pw@host/a", "loader.credentialsFile" },
		{ "https://host/a#b", "fragment" },
		{ "https://host/a b", "space" },
		{ "https://host/a\r\nX: y", "control character" },
		{ "https://host:0/", "port" },
		{ "https://host:70000/", "port" },
		{ "https://host:8a/", "port" },
		{ "https://[::1/", "never closed" },
		{ "https://[::1]x/", "port" },
		{ "https://ho%73t/", "character that no host has" },
		{ "file://other/a", "file of this machine" },
		{ "file:///a%00b", "begins no byte" },
		{ "file:///a%2", "begins no byte" },
		{ "file:///a?b", "query" },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(bad); i++) {
		struct nest_err err = NEST_ERR_INIT;
		struct nest_reference_parts parts;

		ck_assert_int_eq(nest_reference_parse(bad[i].url, &parts, &err), -EINVAL);
		ck_assert_msg(
			strstr(err.text, bad[i].words) != NULL, "%s: %s", bad[i].url, err.text);
	}
}
END_TEST

START_TEST(what_may_be_secret_is_not_shown)
{
	ck_assert_uint_eq(nest_reference_shown("https://a/b?sig=1"), strlen("https://a/b"));
	ck_assert_uint_eq(nest_reference_shown("/a?b"), 4);
}
END_TEST

static void find(const char *text, const char *host, unsigned port, int wanted,
	struct nest_credentials *ret, struct nest_err *err)
{
	kit_write(kit_path("netrc"), text, strlen(text), 0600);
	ck_assert_int_eq(
		nest_credentials_find(kit_path("netrc"), host, (uint16_t)port, ret, err), wanted);
}

START_TEST(the_first_machine_that_matches_counts)
{
	static const char text[] = "# tokens\nmachine a.example:8443 token one\n"
				   "machine a.example login l password p # no comment\n"
				   "machine A.example token late\nmachine [::1]:80 token six\n";
	struct nest_credentials found = { .token = NULL };
	struct nest_err err = NEST_ERR_INIT;

	find(text, "a.example", 8443, 0, &found, &err);
	ck_assert_str_eq(found.token, "one");
	nest_credentials_done(&found);
	find(text, "a.example", 443, 0, &found, &err);
	ck_assert_ptr_null(found.token);
	ck_assert_str_eq(found.login, "l");
	ck_assert_str_eq(found.password, "p");
	nest_credentials_done(&found);
	find(text, "::1", 80, 0, &found, &err);
	ck_assert_str_eq(found.token, "six");
	nest_credentials_done(&found);
	find(text, "b.example", 443, 1, &found, &err);
	ck_assert_ptr_null(found.token);
}
END_TEST

START_TEST(a_bad_credentials_file_is_named_with_its_line_but_not_its_secrets)
{
	static const struct {
		const char *text;
		const char *words;
	} bad[] = {
		{ "machine a\n\nsecret", "line 3" },
		{ "token secret", "line 1" },
		{ "machine a token", "line 1: 'token' without a value" },
		{ "machine", "without a name" },
		{ "machine a login secret", "neither a token nor a login with a password" },
	};

	for (size_t i = 0; i < NEST_ARRAY_SIZE(bad); i++) {
		struct nest_credentials found = { .token = NULL };
		struct nest_err err = NEST_ERR_INIT;

		find(bad[i].text, "a", 443, -EINVAL, &found, &err);
		ck_assert_msg(strstr(err.text, bad[i].words) != NULL, "%s", err.text);
		ck_assert_ptr_nonnull(strstr(err.text, "netrc"));
		ck_assert_ptr_null(strstr(err.text, "secret"));
	}
}
END_TEST

NEST_SUITE_WITH("loader/reference", kit_enter, kit_leave, references_are_taken_apart,
	other_references_are_refused, what_may_be_secret_is_not_shown,
	the_first_machine_that_matches_counts,
	a_bad_credentials_file_is_named_with_its_line_but_not_its_secrets)
