/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "runtime/function.h"
#include "runtime/route.h"
#include "tests/unit/suite.h"

static struct nest_routes *routes;

static void enter(void)
{
	ck_assert_int_eq(nest_route_new(&routes), 0);
}

static void leave(void)
{
	nest_route_free(routes);
}

/* Targets are only compared: each is the address of its word. */
static void add(const char *host, const char *path, const char *method, const char *word)
{
	const struct nest_function_route route = { .host = host, .path = path, .method = method };

	ck_assert_int_eq(nest_route_add(routes, &route, (struct nest_target *)(uintptr_t)word), 0);
}

static const char *find(const char *host, const char *path, const char *method)
{
	const char *word = (const char *)nest_route_find(
		routes, host, host ? strlen(host) : 0, path, strlen(path), method);

	return word ? word : "none";
}

START_TEST(the_longest_path_wins)
{
	add(NULL, "/*", NULL, "all");
	add(NULL, "/a/*", NULL, "a");
	add(NULL, "/a/b", NULL, "exact");
	add(NULL, "/a/b/c/*", NULL, "deep");
	ck_assert_str_eq(find(NULL, "/a/b", "GET"), "exact");
	ck_assert_str_eq(find(NULL, "/a/b/", "GET"), "a");
	ck_assert_str_eq(find(NULL, "/a/b/c/d/e", "GET"), "deep");
	ck_assert_str_eq(find(NULL, "/a/b/c/", "GET"), "deep");
	ck_assert_str_eq(find(NULL, "/a/b/c", "GET"), "a");
	ck_assert_str_eq(find(NULL, "/a", "GET"), "all");
	ck_assert_str_eq(find(NULL, "/", "GET"), "all");
}
END_TEST

START_TEST(the_host_comes_before_the_path)
{
	add(NULL, "/a/b", NULL, "any");
	add("x.org", "/*", NULL, "exact");
	add("*.x.org", "/*", NULL, "wild");
	add("*.b.x.org", "/*", NULL, "wilder");
	ck_assert_str_eq(find("x.org", "/a/b", "GET"), "exact");
	ck_assert_str_eq(find("X.Org:8080", "/a/b", "GET"), "exact");
	ck_assert_str_eq(find("x.org.", "/a/b", "GET"), "exact");
	ck_assert_str_eq(find("a.x.org", "/a/b", "GET"), "wild");
	ck_assert_str_eq(find("a.b.x.org", "/q", "GET"), "wilder");
	ck_assert_str_eq(find("b.x.org", "/q", "GET"), "wild");
	ck_assert_str_eq(find("y.org", "/a/b", "GET"), "any");
	ck_assert_str_eq(find("y.org", "/a", "GET"), "none");
	ck_assert_str_eq(find("", "/a/b", "GET"), "any");
}
END_TEST

START_TEST(a_host_that_lacks_the_path_gives_way)
{
	add("x.org", "/only", NULL, "exact");
	add("*.org", "/wild/*", NULL, "wild");
	add(NULL, "/*", NULL, "any");
	ck_assert_str_eq(find("x.org", "/only", "GET"), "exact");
	ck_assert_str_eq(find("x.org", "/wild/1", "GET"), "wild");
	ck_assert_str_eq(find("x.org", "/else", "GET"), "any");
}
END_TEST

START_TEST(a_named_method_wins_over_any)
{
	add(NULL, "/a", NULL, "any");
	add(NULL, "/a", "POST", "post");
	add(NULL, "/b", "POST", "post");
	add(NULL, "/*", NULL, "all");
	ck_assert_str_eq(find(NULL, "/a", "POST"), "post");
	ck_assert_str_eq(find(NULL, "/a", "GET"), "any");
	ck_assert_str_eq(find(NULL, "/b", "GET"), "all");
}
END_TEST

START_TEST(of_two_equal_ones_the_first_is_found)
{
	add(NULL, "/a", NULL, "first");
	add(NULL, "/a", NULL, "second");
	ck_assert_str_eq(find(NULL, "/a", "GET"), "first");
}
END_TEST

START_TEST(long_names_find_nothing_and_break_nothing)
{
	static char host[5000], path[5000];

	memset(host, 'h', sizeof(host) - 1);
	memset(path, '/', sizeof(path) - 1);
	add("x.org", "/*", NULL, "x");
	ck_assert_str_eq(find(host, path, "GET"), "none");
	add(NULL, "/*", NULL, "all");
	ck_assert_str_eq(find(host, path, "GET"), "all");
}
END_TEST

NEST_SUITE_WITH("runtime/route", enter, leave, the_longest_path_wins,
	the_host_comes_before_the_path, a_host_that_lacks_the_path_gives_way,
	a_named_method_wins_over_any, of_two_equal_ones_the_first_is_found,
	long_names_find_nothing_and_break_nothing)
