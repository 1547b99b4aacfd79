/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "agent/desired_state.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"
#include "tests/unit/suite.h"

#define SPEC(name) \
	"{\"name\":\"" name "\",\"version\":\"1\",\"runtime\":\"x\",\"code\":{\"path\":\"/a\"}}"

static struct nest_desired_state *parse(const char *text, uint64_t held)
{
	struct nest_desired_state *state = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(
		nest_desired_state_parse(text, strlen(text), NULL, held, false, &state, &err) == 0,
		"%s", nest_err_text(&err));
	return state;
}

/* @text as a whole is refused with a message that holds @why. */
static void refuses(const char *text, const char *why)
{
	struct nest_desired_state *state = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_desired_state_parse(text, strlen(text), NULL, 0, false, &state, &err),
		-EINVAL);
	ck_assert_ptr_null(state);
	ck_assert_msg(
		strstr(nest_err_text(&err), why), "'%s' lacks '%s'", nest_err_text(&err), why);
}

START_TEST(a_new_generation_is_read)
{
	struct nest_desired_state *state = parse(
		"{\"protocol\":1,\"generation\":9007199254740992,\"later\":true,"
		"\"functions\":[" SPEC("a") "," SPEC("b") "],"
							  "\"workers\":{\"a\":{\"min\":0,\"max\":3}"
							  ",\"z\":{\"min\":2,\"max\":2}},"
							  "\"drain\":true}",
		7);

	ck_assert_uint_eq(state->generation, UINT64_C(9007199254740992));
	ck_assert(state->drain && !state->unchanged);
	ck_assert_uint_eq(state->nfunctions, 2);
	ck_assert_str_eq(state->functions[1].spec->name, "b");
	ck_assert_ptr_null(state->functions[1].why);
	ck_assert_uint_eq(state->nbounds, 2);
	ck_assert_str_eq(state->bounds[1].name, "z");
	ck_assert_uint_eq(state->bounds[1].min, 2);
	nest_desired_state_free(state);
	nest_desired_state_free(NULL);
}
END_TEST

START_TEST(what_was_in_force_stays_without_a_time_zone_that_is_gone)
{
	static const char text[] =
		"{\"protocol\":1,\"generation\":1,\"functions\":[{\"name\":\"a\",\"version\":\"1\","
		"\"runtime\":\"x\",\"code\":{\"path\":\"/a\"},\"scaling\":{\"schedules\":[{"
		"\"start\":\"0 8 * * *\",\"end\":\"0 9 * * *\",\"min\":1,"
		"\"timeZone\":\"Europe/Atlantis\"}]}}]}";
	struct nest_desired_state *state = parse(text, 0);

	ck_assert_ptr_nonnull(strstr(state->functions[0].why, "Europe/Atlantis"));
	nest_desired_state_free(state);
	ck_assert_int_eq(
		nest_desired_state_parse(text, strlen(text), NULL, 0, true, &state, NULL), 0);
	ck_assert_ptr_null(state->functions[0].why);
	ck_assert_ptr_nonnull(strstr(state->functions[0].spec->lost, "Europe/Atlantis"));
	nest_desired_state_free(state);
}
END_TEST

START_TEST(the_config_s_defaults_fill_gaps)
{
	static const char text[] =
		"{\"protocol\":1,\"generation\":1,\"functions\":[" SPEC("a") "]}";
	nest_autojson cJSON *defaults = cJSON_Parse("{\"pids\":77}");
	struct nest_desired_state *state = NULL;

	ck_assert_int_eq(
		nest_desired_state_parse(text, strlen(text), defaults, 0, false, &state, NULL), 0);
	ck_assert_uint_eq(state->functions[0].spec->pids, 77);
	nest_desired_state_free(state);
}
END_TEST

START_TEST(of_what_is_no_news_only_the_head_is_read)
{
	struct nest_desired_state *state = parse("{\"protocol\":1,\"unchanged\":true}", 0);

	ck_assert(state->unchanged);
	nest_desired_state_free(state);
	state = parse("{\"protocol\":1,\"generation\":5}", 5);
	ck_assert_uint_eq(state->generation, 5);
	nest_desired_state_free(state);
	state = parse("{\"protocol\":1,\"generation\":4,\"functions\":[7]}", 5);
	ck_assert_uint_eq(state->nfunctions, 0);
	nest_desired_state_free(state);
}
END_TEST

START_TEST(what_is_wrong_bears_its_reason_and_stops_no_other)
{
	struct nest_desired_state *state =
		parse("{\"protocol\":1,\"generation\":1,\"functions\":[7,{\"name\":\"b\","
		      "\"version\":\"3\",\"runtime\":5}," SPEC(
			      "c") "],"
				   "\"workers\":{\"a\":{\"min\":3,\"max\":2},\"b\":{\"min\":1},\"c "
				   "d\":{},"
				   "\"e\":7,\"f\":{\"min\":1,\"max\":1}}}",
			0);
	static const char *const whys[] = { "'min' is 3, more than 'max', 2",
		"'min' or 'max' is missing", "this is no function's name", "must be an object",
		NULL };

	ck_assert_str_eq(state->functions[0].name, "");
	ck_assert_ptr_nonnull(strstr(state->functions[0].why, "not a number"));
	ck_assert_str_eq(state->functions[1].name, "b");
	ck_assert_str_eq(state->functions[1].version, "3");
	ck_assert_ptr_null(state->functions[1].spec);
	ck_assert_ptr_nonnull(strstr(state->functions[1].why, "'runtime'"));
	ck_assert_ptr_nonnull(state->functions[2].spec);
	for (size_t i = 0; i < 5; i++) {
		ck_assert_int_eq(state->bounds[i].why != NULL, whys[i] != NULL);
		ck_assert_int_eq(state->bounds[i].max > 0, whys[i] == NULL);
		ck_assert(!whys[i] || strstr(state->bounds[i].why, whys[i]));
	}
	nest_desired_state_free(state);
}
END_TEST

START_TEST(a_reply_that_is_none_is_refused)
{
	refuses("", "");
	refuses("\xff\xfe garbage", "");
	refuses("[]", "a reply is a JSON object, not an array");
	refuses("{\"generation\":1,\"functions\":[]}", "'protocol' is missing");
	refuses("{\"protocol\":2,\"generation\":1,\"functions\":[]}", "'protocol' must be");
	refuses("{\"protocol\":1}", "'generation' is missing");
	refuses("{\"protocol\":1,\"generation\":0,\"functions\":[]}", "'generation' must be");
	refuses("{\"protocol\":1,\"generation\":-1}", "'generation' must be");
	refuses("{\"protocol\":1,\"generation\":1.5,\"functions\":[]}", "'generation' must be");
	refuses("{\"protocol\":1,\"generation\":1}", "'functions' is missing");
	refuses("{\"protocol\":1,\"generation\":1,\"functions\":{}}", "'functions' must be");
	refuses("{\"protocol\":1,\"generation\":1,\"functions\":[],\"workers\":[]}", "'workers'");
	refuses("{\"protocol\":1,\"generation\":1,\"functions\":[],\"drain\":1}", "'drain'");
}
END_TEST

NEST_SUITE("agent/desired_state", a_new_generation_is_read,
	what_was_in_force_stays_without_a_time_zone_that_is_gone, the_config_s_defaults_fill_gaps,
	of_what_is_no_news_only_the_head_is_read, what_is_wrong_bears_its_reason_and_stops_no_other,
	a_reply_that_is_none_is_refused)
