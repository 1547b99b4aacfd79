/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/alias.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "tests/unit/suite.h"

static struct nest_alias *parse(const char *text)
{
	nest_autojson cJSON *json = cJSON_Parse(text);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *alias = NULL;

	ck_assert_ptr_nonnull(json);
	ck_assert_msg(nest_alias_parse("canary", json, &alias, NULL, &err) == 0, "%s",
		nest_err_text(&err));
	return alias;
}

/* What is wrong with an alias called @name of JSON @text. */
static void assert_refused(const char *name, const char *text, const char *says)
{
	nest_autojson cJSON *json = cJSON_Parse(text);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *alias = NULL;

	ck_assert_ptr_nonnull(json);
	ck_assert_int_eq(nest_alias_parse(name, json, &alias, NULL, &err), -22);
	ck_assert_msg(strstr(nest_err_text(&err), says) != NULL, "%s", nest_err_text(&err));
	ck_assert_ptr_null(alias);
}

/* One request's header. */
struct header {
	const char *name;
	const char *value;
};

static const char *look_up(void *arg, const char *name)
{
	const struct header *header = arg;

	return header->name && strcmp(header->name, name) == 0 ? header->value : NULL;
}

static uint32_t choose(
	const struct nest_alias *alias, uint64_t turn, const char *name, const char *value)
{
	struct header header = { name, value };
	const struct nest_alias_asker asker = { .header = look_up, .arg = &header };

	return nest_alias_choose(alias, turn, &asker);
}

START_TEST(it_says_what_it_was_given)
{
	char *text;
	struct nest_alias *alias =
		parse("{\"versions\":[{\"version\":\"3\",\"weight\":95},{\"version\":\"4\","
		      "\"weight\":5,\"header\":{\"name\":\"x-canary\"}}],\"sticky\":\"x-user\"}");

	ck_assert_str_eq(alias->name, "canary");
	ck_assert_str_eq(alias->sticky, "x-user");
	ck_assert_uint_eq(alias->nparts, 2);
	ck_assert_uint_eq(alias->total, 100);
	ck_assert_str_eq(alias->parts[1].version, "4");
	ck_assert_str_eq(alias->parts[1].header, "x-canary");
	ck_assert_ptr_null(alias->parts[1].value);
	ck_assert_int_eq(nest_alias_find(alias, "4"), 1);
	ck_assert_int_eq(nest_alias_find(alias, "5"), -1);
	ck_assert(!nest_alias_is_plain(alias));
	nest_alias_free(alias);
	alias = parse("{\"versions\":[{\"version\":\"3\"}]}");
	ck_assert(nest_alias_is_plain(alias));
	text = cJSON_PrintUnformatted(alias->json);
	ck_assert_str_eq(text, "{\"versions\":[{\"version\":\"3\",\"weight\":1}]}");
	cJSON_free(text);
	nest_alias_free(alias);
	nest_alias_free(NULL);
}
END_TEST

START_TEST(what_can_not_be_one_is_refused_with_its_reason)
{
	static const char one[] = "{\"versions\":[{\"version\":\"1\"}]}";

	assert_refused("1", one, "can't be an alias's name");
	assert_refused("", one, "can't be an alias's name");
	assert_refused("a.b", one, "can't be an alias's name");
	assert_refused("a123456789012345678901234567890123", one, "can't be an alias's name");
	assert_refused("a", "{}", "versions");
	assert_refused("a", "{\"versions\":[]}", "1 to 16");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\"}],\"x\":1}", "'x'");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\",\"weight\":0}]}", "main one");
	assert_refused(
		"a", "{\"versions\":[{\"version\":\"1\",\"weight\":-1}]}", "versions[0].weight");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\",\"weight\":1.5}]}", "weight");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\"},{\"version\":\"1\"}]}", "twice");
	assert_refused("a", "{\"versions\":[{\"version\":\"/\"}]}", "version");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\",\"header\":{\"value\":\"x\"}}]}",
		"without 'header.name'");
	assert_refused("a", "{\"versions\":[{\"version\":\"1\",\"header\":{\"name\":\"X-Big\"}}]}",
		"lower-case");
	assert_refused(
		"a", "{\"versions\":[{\"version\":\"1\"}],\"sticky\":\"a b\"}", "lower-case");
}
END_TEST

/* Any run of requests is shared out as the weights say, and not only many of them. */
START_TEST(turns_are_shared_out_evenly_by_weight)
{
	struct nest_alias *alias = parse(
		"{\"versions\":[{\"version\":\"1\",\"weight\":90},{\"version\":\"2\",\"weight\":9},"
		"{\"version\":\"3\",\"weight\":1},{\"version\":\"4\",\"weight\":0}]}");

	for (uint64_t start = 0; start < 100000; start += 7777) {
		unsigned got[4] = { 0 };

		for (uint64_t turn = start; turn < start + 1000; turn++)
			got[choose(alias, turn, NULL, NULL)]++;
		ck_assert_uint_ge(got[0], 895);
		ck_assert_uint_le(got[0], 905);
		ck_assert_uint_ge(got[1], 86);
		ck_assert_uint_le(got[1], 94);
		ck_assert_uint_ge(got[2], 8);
		ck_assert_uint_le(got[2], 12);
		ck_assert_uint_eq(got[3], 0);
	}
	nest_alias_free(alias);
}
END_TEST

START_TEST(a_header_goes_before_the_weights)
{
	struct nest_alias *alias =
		parse("{\"versions\":[{\"version\":\"1\"},{\"version\":\"2\",\"weight\":0,"
		      "\"header\":{\"name\":\"x-canary\",\"value\":\"yes\"}}]}");

	for (uint64_t turn = 0; turn < 50; turn++) {
		ck_assert_uint_eq(choose(alias, turn, "x-canary", "yes"), 1);
		ck_assert_uint_eq(choose(alias, turn, "x-canary", "no"), 0);
		ck_assert_uint_eq(choose(alias, turn, "x-other", "yes"), 0);
		ck_assert_uint_eq(nest_alias_choose(alias, turn, NULL), 0);
	}
	nest_alias_free(alias);
}
END_TEST

/* Who was with the canary stays there as its share grows: its part begins further to the front. */
START_TEST(sticky_requests_stay_where_they_are_as_the_canary_grows)
{
	static const char form[] = "{\"versions\":[{\"version\":\"1\",\"weight\":%d},{\"version\":"
				   "\"2\",\"weight\":%d}],"
				   "\"sticky\":\"x-user\"}";
	bool was[1000] = { false };

	for (int weight = 10; weight <= 90; weight += 20) {
		struct nest_alias *alias;
		char text[160], user[16];
		int n = 0;

		snprintf(text, sizeof(text), form, 100 - weight, weight);
		alias = parse(text);
		for (int i = 0; i < 1000; i++) {
			bool now;

			snprintf(user, sizeof(user), "user-%d", i);
			now = choose(alias, 1, "x-user", user) == 1;
			ck_assert_uint_eq(choose(alias, 2, "x-user", user) == 1, now);
			ck_assert_msg(now || !was[i], "%s left the canary", user);
			was[i] = now;
			n += now;
		}
		ck_assert_int_ge(n, 10 * weight - 60);
		ck_assert_int_le(n, 10 * weight + 60);
		nest_alias_free(alias);
	}
}
END_TEST

START_TEST(a_canary_is_made_of_two_versions_and_a_weight)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_alias *alias;

	ck_assert_int_eq(nest_alias_make("live", "1", "2", 5, &alias, &err), 0);
	ck_assert_uint_eq(alias->nparts, 2);
	ck_assert_str_eq(alias->parts[0].version, "1");
	ck_assert_uint_eq(alias->parts[0].weight, 95);
	ck_assert_uint_eq(alias->parts[1].weight, 5);
	nest_alias_free(alias);
	ck_assert_int_eq(nest_alias_make("live", "1", "2", 100, &alias, &err), 0);
	ck_assert(nest_alias_is_plain(alias));
	ck_assert_str_eq(alias->parts[0].version, "2");
	nest_alias_free(alias);
}
END_TEST

NEST_SUITE("runtime/alias", it_says_what_it_was_given,
	what_can_not_be_one_is_refused_with_its_reason, turns_are_shared_out_evenly_by_weight,
	a_header_goes_before_the_weights, sticky_requests_stay_where_they_are_as_the_canary_grows,
	a_canary_is_made_of_two_versions_and_a_weight)
