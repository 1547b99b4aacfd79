/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/schema.h"
#include "runtime/function.h"
#include "tests/unit/suite.h"

#define LEAST "'name':'a','runtime':'nodejs','code':{'path':'/a'}"
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* JSON written with ' for ", so that it can be read. */
static cJSON *json(const char *text)
{
	nest_autofree char *copy = strdup(text);
	cJSON *object = NULL;

	ck_assert_ptr_nonnull(copy);
	for (char *c = copy; *c; c++) {
		if (*c == '\'')
			*c = '"';
	}
	ck_assert_int_eq(nest_json_parse(copy, strlen(copy), &object, NULL), 0);
	return object;
}

static struct nest_function_spec *parse_with(const char *text, const char *defaults)
{
	nest_autojson cJSON *object = json(text);
	nest_autojson cJSON *more = defaults ? json(defaults) : NULL;
	struct nest_function_spec *spec = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_function_parse(object, more, &spec, &err) == 0, "%s: %s", text,
		nest_err_text(&err));
	return spec;
}

static struct nest_function_spec *parse(const char *text)
{
	return parse_with(text, NULL);
}

static void refuses(const char *text, const char *place, const char *message)
{
	nest_autojson cJSON *object = json(text);
	struct nest_function_spec *spec = NULL;
	struct nest_schema_place at = { .path = "unset" };
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_function_parse_at(object, NULL, &spec, &at, &err) == -EINVAL,
		"accepted: %s", text);
	ck_assert_ptr_null(spec);
	ck_assert_str_eq(nest_err_text(&err), message);
	ck_assert_str_eq(at.path, place);
}

START_TEST(the_least_spec_gets_every_default)
{
	struct nest_function_spec *spec = parse("{" LEAST "}");

	ck_assert_str_eq(spec->name, "a");
	ck_assert_str_eq(spec->version, "");
	ck_assert_str_eq(spec->description, "");
	ck_assert_str_eq(spec->runtime, "nodejs");
	ck_assert_str_eq(spec->handler, "");
	ck_assert_int_eq(spec->interface, NEST_FUNCTION_EVENT);
	ck_assert_str_eq(spec->code.path, "/a");
	ck_assert_ptr_null(spec->code.digest);
	ck_assert_ptr_null(spec->env[0]);
	ck_assert_uint_eq(spec->memory_bytes, 0);
	ck_assert_uint_eq(spec->tmp_bytes, 64 << 20);
	ck_assert_uint_eq(spec->cpu_milli, 0);
	ck_assert_uint_eq(spec->pids, 128);
	ck_assert_uint_eq(spec->nofile, 1024);
	ck_assert(!spec->network_none);
	ck_assert_uint_eq(spec->timeout_ms, 30000);
	ck_assert_uint_eq(spec->init_timeout_ms, 10000);
	ck_assert_uint_eq(spec->concurrency, 0);
	ck_assert_uint_eq(spec->workers_min, 0);
	ck_assert_uint_eq(spec->workers_max, 16);
	ck_assert_uint_eq(spec->idle_ms, 60000);
	ck_assert_uint_eq(spec->queue_length, 256);
	ck_assert_uint_eq(spec->queue_wait_ms, 10000);
	ck_assert_uint_eq(spec->log_bytes, 1 << 20);
	ck_assert_uint_eq(spec->nroutes, 0);
	nest_function_free(spec);
}
END_TEST

START_TEST(every_key_reaches_its_member)
{
	struct nest_function_spec *spec = parse(
		"{'name':'A_b-1','version':'v1.2','description':'d','runtime':'python',"
		"'handler':'m.f','interface':'wsgi','code':{'digest':'" DIGEST "'},"
		"'env':{'A':'1','B_2':'x=y'},'memoryMb':512,'tmpMb':8,'cpu':0.25,'pids':9,"
		"'nofile':77,'network':'none','timeoutMs':1,'initTimeoutMs':2,'concurrency':3,"
		"'workers':{'min':4,'max':5,'idleMs':6},'queue':{'length':7,'waitMs':8},"
		"'logs':{'bytes':65536},'routes':[{'path':'/x'},"
		"{'host':'*.example.org','path':'/a/*','method':'POST'}]}");

	ck_assert_str_eq(spec->name, "A_b-1");
	ck_assert_str_eq(spec->version, "v1.2");
	ck_assert_str_eq(spec->handler, "m.f");
	ck_assert_int_eq(spec->interface, NEST_FUNCTION_WSGI);
	ck_assert_ptr_null(spec->code.path);
	ck_assert_str_eq(spec->code.digest, DIGEST);
	ck_assert_str_eq(spec->env[0], "A=1");
	ck_assert_str_eq(spec->env[1], "B_2=x=y");
	ck_assert_ptr_null(spec->env[2]);
	ck_assert_uint_eq(spec->memory_bytes, 512ull << 20);
	ck_assert_uint_eq(spec->tmp_bytes, 8 << 20);
	ck_assert_uint_eq(spec->cpu_milli, 250);
	ck_assert_uint_eq(spec->pids, 9);
	ck_assert_uint_eq(spec->nofile, 77);
	ck_assert(spec->network_none);
	ck_assert_uint_eq(spec->timeout_ms, 1);
	ck_assert_uint_eq(spec->init_timeout_ms, 2);
	ck_assert_uint_eq(spec->concurrency, 3);
	ck_assert_uint_eq(spec->workers_min, 4);
	ck_assert_uint_eq(spec->workers_max, 5);
	ck_assert_uint_eq(spec->idle_ms, 6);
	ck_assert_uint_eq(spec->queue_length, 7);
	ck_assert_uint_eq(spec->queue_wait_ms, 8);
	ck_assert_uint_eq(spec->log_bytes, 65536);
	ck_assert_uint_eq(spec->nroutes, 2);
	ck_assert_ptr_null(spec->routes[0].host);
	ck_assert_ptr_null(spec->routes[0].method);
	ck_assert_str_eq(spec->routes[1].host, "*.example.org");
	ck_assert_str_eq(spec->routes[1].path, "/a/*");
	ck_assert_str_eq(spec->routes[1].method, "POST");
	nest_function_free(spec);
}
END_TEST

START_TEST(a_wrong_value_is_named_with_its_key)
{
	refuses("{'runtime':'nodejs','code':{'path':'/a'}}", "", "'name' is missing");
	refuses("{" LEAST ",'timeoutMs':'30'}", "timeoutMs",
		"'timeoutMs' must be an integer from 1 to 86400000, not \"30\"");
	refuses("{" LEAST ",'timeoutMs':0}", "timeoutMs",
		"'timeoutMs' must be an integer from 1 to 86400000, not 0");
	refuses("{" LEAST ",'timeoutMs':1.5}", "timeoutMs",
		"'timeoutMs' must be an integer from 1 to 86400000, not 1.5");
	refuses("{" LEAST ",'cpu':-1}", "cpu", "'cpu' must be a number from 0 to 1024, not -1");
	refuses("{" LEAST ",'interface':'grpc'}", "interface",
		"'interface' must be one of \"event\", \"http\", \"wsgi\", \"asgi\", not \"grpc\"");
	refuses("{" LEAST ",'workers':3}", "workers", "'workers' must be an object, not 3");
	refuses("{" LEAST ",'workers':{'mim':3}}", "workers.mim",
		"in 'workers': unknown key 'mim', did you mean 'min'?");
	refuses("{" LEAST ",'memory':3}", "memory",
		"unknown key 'memory', did you mean 'memoryMb'?");
	refuses("{" LEAST ",'pids':1,'pids':2}", "pids", "'pids' is given twice");
	refuses("[]", "", "must be an object, not an array");
}
END_TEST

START_TEST(a_name_has_its_form)
{
	refuses("{'name':'a b','runtime':'nodejs','code':{'path':'/a'}}", "name",
		"'name' must be a name of 1 to 64 characters A-Z a-z 0-9 _ -, not \"a b\"");
	ck_assert(!nest_function_is_name(""));
	ck_assert(!nest_function_is_name("a/b"));
	ck_assert(!nest_function_is_name("\xc3\xa4"));
	ck_assert(nest_function_is_name(
		"0123456789012345678901234567890123456789012345678901234567890123"));
	ck_assert(!nest_function_is_name(
		"01234567890123456789012345678901234567890123456789012345678901234"));
	ck_assert(nest_function_is_version("1.0-rc_1"));
	ck_assert(!nest_function_is_version(".."));
	ck_assert(!nest_function_is_version("$LATEST"));
	ck_assert(!nest_function_is_version(""));
	ck_assert(nest_function_is_digest(DIGEST));
	ck_assert(!nest_function_is_digest(DIGEST "0"));
	ck_assert(!nest_function_is_digest("sha256:0123"));
	ck_assert(!nest_function_is_digest(
		"sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"));
}
END_TEST

START_TEST(code_is_one_of_path_and_digest)
{
	refuses("{'name':'a','runtime':'nodejs'}", "",
		"'code' is missing: give 'code.path', 'code.url' or 'code.digest'");
	refuses("{'name':'a','runtime':'nodejs','code':{}}", "",
		"'code' is missing: give 'code.path', 'code.url' or 'code.digest'");
	refuses("{'name':'a','runtime':'nodejs','code':{'path':'/a','digest':'" DIGEST "'}}",
		"code", "'code' has more than one of 'path', 'url' and 'digest', must have one");
	refuses("{'name':'a','runtime':'nodejs','code':{'path':'a'}}", "code.path",
		"'code.path' must be an absolute path, not \"a\"");
}
END_TEST

#define URL "'url':'https://a/b'"
#define SIZE_RANGE "must be an integer from 1 to 1.12589990684262e+15, not "

START_TEST(code_and_layers_have_a_size)
{
	struct nest_function_spec *spec =
		parse("{'name':'a','runtime':'nodejs','code':{" URL ",'size':5000000000},"
		      "'layers':[{" URL "},{'path':'/a','size':1}]}");

	ck_assert_uint_eq(spec->code.size, 5000000000);
	ck_assert_uint_eq(spec->layers[0].size, 0);
	ck_assert_uint_eq(spec->layers[1].size, 1);
	nest_function_free(spec);
	refuses("{'name':'a','runtime':'nodejs','code':{" URL ",'size':0}}", "code.size",
		"'code.size' " SIZE_RANGE "0");
	refuses("{'name':'a','runtime':'nodejs','code':{" URL ",'size':'7'}}", "code.size",
		"'code.size' " SIZE_RANGE "\"7\"");
	refuses("{" LEAST ",'layers':[{" URL ",'size':1.5}]}", "layers[0].size",
		"'layers[0]': 'size' " SIZE_RANGE "1.5");
	refuses("{'name':'a','runtime':'nodejs','code':{'digest':'" DIGEST "','size':7}}", "code",
		"'code' has both 'digest' and 'size': of what is in the cache the digest says all");
}
END_TEST

START_TEST(a_reserved_variable_is_refused_with_its_reason)
{
	refuses("{" LEAST ",'env':{'LD_PRELOAD':'/x.so'}}", "env.LD_PRELOAD",
		"'env.LD_PRELOAD' is reserved: it would change how the runtime itself is linked");
	refuses("{" LEAST ",'env':{'NESTLET_X':''}}", "env.NESTLET_X",
		"'env.NESTLET_X' is reserved: the host sets the variables of this prefix");
	refuses("{" LEAST ",'env':{'A B':''}}", "env.A B",
		"'env.A B' must be named as letters, digits and '_', not beginning with a digit");
	refuses("{" LEAST ",'env':{'A':1}}", "env.A", "'env.A' must be a string, not 1");
	refuses("{" LEAST ",'env':{'A':'1','A':'2'}}", "env.A", "'env.A' is given twice");
}
END_TEST

START_TEST(the_environment_is_bounded)
{
	static char text[40000], value[33000];

	memset(value, 'x', sizeof(value) - 1);
	snprintf(text, sizeof(text), "{" LEAST ",'env':{'A':'%.*s'}}", 32 * 1024 - 3, value);
	nest_function_free(parse(text));
	snprintf(text, sizeof(text), "{" LEAST ",'env':{'A':'%.*s'}}", 32 * 1024 - 2, value);
	refuses(text, "env",
		"'env' has 32769 bytes, more than 32768: put large values into the code or /tmp");
}
END_TEST

START_TEST(scaling_has_defaults_and_schedules)
{
	struct nest_function_spec *spec = parse("{" LEAST "}");

	ck_assert_uint_eq(spec->workers_reserved, 0);
	ck_assert_uint_eq(spec->scaling.concurrency_milli, 0);
	ck_assert_uint_eq(spec->scaling.utilization_milli, 700);
	ck_assert_uint_eq(spec->scaling.window_ms, 60000);
	ck_assert_uint_eq(spec->scaling.panic_window_ms, 6000);
	ck_assert_uint_eq(spec->scaling.panic_threshold_milli, 2000);
	ck_assert_uint_eq(spec->scaling.in_delay_ms, 60000);
	ck_assert_uint_eq(spec->scaling.nschedules, 0);
	nest_function_free(spec);
	spec = parse("{" LEAST ",'workers':{'max':8,'reserved':2},'scaling':{'concurrency':2.5,"
		     "'cpu':0.5,'memoryMb':64,'requestsPerSecond':100,'schedules':["
		     "{'start':'0 8 * * mon-fri','end':'0 18 * * mon-fri','min':4,"
		     "'timeZone':'Europe/Berlin'},"
		     "{'start':'0 12 * * *','end':'0 13 * * *','min':6}]}}");
	ck_assert_uint_eq(spec->workers_reserved, 2);
	ck_assert_uint_eq(spec->scaling.concurrency_milli, 2500);
	ck_assert_uint_eq(spec->scaling.rps_milli, 100000);
	ck_assert_uint_eq(spec->scaling.cpu_milli, 500);
	ck_assert_uint_eq(spec->scaling.memory_bytes, 64 << 20);
	ck_assert_uint_eq(spec->scaling.nschedules, 2);
	/* Monday 2026-01-05: in Berlin it is an hour later than in UTC */
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767596399), 0);
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767596400), 4);
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767614400), 6);
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767618000), 4);
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767632400), 0);
	ck_assert_int_eq(nest_scaling_next_change(&spec->scaling, 1767596399), 1767596400);
	ck_assert_int_eq(nest_scaling_next_change(&spec->scaling, 1767596400), 1767614400);
	nest_function_free(spec);
}
END_TEST

START_TEST(a_wrong_schedule_is_named)
{
#define SCHEDULE(text) "{" LEAST ",'workers':{'max':8},'scaling':{'schedules':[{" text "}]}}"
	refuses(SCHEDULE("'start':'0 8 * *','end':'0 9 * * *','min':1"),
		"scaling.schedules[0].start",
		"'scaling.schedules[0]': 'start': '0 8 * *' has no weekday from 0 to 7 in its "
		"field 5 of 5 (minute hour day month weekday)");
	refuses(SCHEDULE("'start':'0 8 * * *','min':1"), "scaling.schedules[0]",
		"'scaling.schedules[0]': 'end' is missing");
	refuses(SCHEDULE("'start':'0 8 * * *','end':'0 9 * * *'"), "scaling.schedules[0]",
		"'scaling.schedules[0]': 'min' is missing");
	refuses(SCHEDULE("'start':'0 8 * * *','end':'0 9 * * *','min':9"),
		"scaling.schedules[0].min",
		"'scaling.schedules[0]': 'min' is 9, more than 'workers.max', 8");
	refuses(SCHEDULE("'start':'0 8 * * *','end':'0 9 * * *','min':1,'timeZone':'../x'"),
		"scaling.schedules[0].timeZone",
		"'scaling.schedules[0]': 'timeZone' must be a name of a time zone such as "
		"\"Europe/Berlin\", not \"../x\"");
	refuses("{" LEAST ",'workers':{'max':2,'reserved':3}}", "workers",
		"'workers.reserved' is 3, more than 'workers.max', 2");
}
END_TEST

START_TEST(a_time_zone_that_is_gone_costs_a_kept_function_its_schedule_only)
{
	nest_autojson cJSON *object =
		cJSON_Parse("{\"name\":\"a\",\"runtime\":\"x\",\"code\":{\"path\":\"/"
			    "a\"},\"scaling\":{\"schedules\":["
			    "{\"start\":\"0 8 * * *\",\"end\":\"0 9 * * "
			    "*\",\"min\":3,\"timeZone\":\"Europe/Atlantis\"},"
			    "{\"start\":\"0 8 * * *\",\"end\":\"0 9 * * *\",\"min\":2}]}}");
	struct nest_function_spec *spec = NULL, *copy = NULL;

	ck_assert_int_eq(nest_function_parse(object, NULL, &spec, NULL), -ENOENT);
	ck_assert_int_eq(nest_function_parse_kept(object, NULL, &spec, NULL, NULL), 0);
	ck_assert_msg(
		strstr(spec->lost, "there is no time zone 'Europe/Atlantis'"), "%s", spec->lost);
	/* 5 January 2026, 8:30 */
	ck_assert_uint_eq(nest_scaling_scheduled(&spec->scaling, 1767601800), 2);
	ck_assert_int_eq(nest_scaling_next_change(&spec->scaling, 1767601800), 1767603600);
	ck_assert_int_eq(nest_function_with_version(spec, "2", &copy, NULL), 0);
	nest_function_free(copy);
	nest_function_free(spec);
}
END_TEST

START_TEST(routes_have_their_form)
{
	static const char *const good[] = { "'path':'/'", "'path':'/*'", "'path':'/a/*'",
		"'path':'/a%20b','host':'x-1.example.org'", "'path':'/a','method':'M-SEARCH'" };
	static const char *const bad[] = { "'path':'a'", "'path':'/a*'", "'path':'/*/a'",
		"'path':'/a?b'", "'path':'/a b'", "'path':''", "'path':'/','host':'A.b'",
		"'path':'/','host':'*'", "'path':'/','host':'a..b'", "'path':'/','host':'a.'",
		"'path':'/','host':'a:80'", "'path':'/','method':'get'", "'path':'/','method':''",
		"'path':null", "'path':'/','x':1" };
	char text[256];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), "{" LEAST ",'routes':[{%s}]}", good[i]);
		nest_function_free(parse(text));
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(bad); i++) {
		nest_autojson cJSON *object = NULL;
		struct nest_function_spec *spec = NULL;

		snprintf(text, sizeof(text), "{" LEAST ",'routes':[{%s}]}", bad[i]);
		object = json(text);
		ck_assert_msg(nest_function_parse(object, NULL, &spec, NULL) == -EINVAL,
			"accepted: %s", text);
	}
	refuses("{" LEAST ",'routes':[{'path':'/'},{'path':'x'}]}", "routes[1].path",
		"'routes[1]': 'path' must be a path from \"/\" on, with \"*\" only as its last "
		"segment, not \"x\"");
	refuses("{" LEAST ",'routes':[{'path':'/'},{'path':'/'}]}", "routes[1]",
		"'routes[1]' repeats 'routes[0]'");
	refuses("{" LEAST ",'routes':[{'path':'/'},1]}", "routes[1]",
		"'routes[1]' must be an object, not 1");
}
END_TEST

START_TEST(defaults_stand_in_for_what_is_left_out)
{
	struct nest_function_spec *spec = parse_with(
		"{'name':'a','code':{'path':'/a'},'env':{'A':'own'},'workers':{'min':2}}",
		"{'runtime':'python','env':{'A':'x','B':'y'},'workers':{'max':3,'min':1},'pids':"
		"7}");

	ck_assert_str_eq(spec->runtime, "python");
	ck_assert_str_eq(spec->env[0], "A=own");
	ck_assert_str_eq(spec->env[1], "B=y");
	ck_assert_ptr_null(spec->env[2]);
	ck_assert_uint_eq(spec->workers_min, 2);
	ck_assert_uint_eq(spec->workers_max, 3);
	ck_assert_uint_eq(spec->pids, 7);
	nest_function_free(spec);
}
END_TEST

START_TEST(defaults_hold_no_identity)
{
	static const struct {
		const char *text;
		const char *place;
	} bad[] = { { "{'name':'a'}", "name" }, { "{'code':{'path':'/a'}}", "code.path" },
		{ "{'routes':[]}", "routes" }, { "{'version':'1'}", "version" },
		{ "{'env':{'LD_X':''}}", "env.LD_X" }, { "{'pids':0}", "pids" },
		{ "{'x':0}", "x" } };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(bad); i++) {
		nest_autojson cJSON *object = json(bad[i].text);
		struct nest_schema_place place;

		ck_assert_int_eq(nest_function_check_defaults(object, &place, NULL), -EINVAL);
		ck_assert_str_eq(place.path, bad[i].place);
	}
}
END_TEST

START_TEST(minimum_and_maximum_agree)
{
	refuses("{" LEAST ",'workers':{'min':17}}", "workers",
		"'workers.min' is 17, more than 'workers.max', 16");
}
END_TEST

START_TEST(specs_are_equal_but_for_their_version)
{
	struct nest_function_spec *a = parse("{" LEAST ",'env':{'A':'1','B':'2'}}");
	struct nest_function_spec *b =
		parse("{'env':{'B':'2','A':'1'},'version':'7','pids':128," LEAST "}");
	struct nest_function_spec *c = parse("{" LEAST ",'env':{'A':'1','B':'3'}}");
	struct nest_function_spec *d = NULL;

	ck_assert(nest_function_equal(a, b));
	ck_assert(!nest_function_equal(a, c));
	ck_assert_int_eq(nest_function_with_version(c, "12", &d, NULL), 0);
	ck_assert_str_eq(d->version, "12");
	ck_assert(nest_function_equal(c, d));
	ck_assert_ptr_ne(c->json, d->json);
	ck_assert_int_eq(nest_function_with_version(d, "a/b", &b, NULL), -EINVAL);
	nest_function_free(a);
	nest_function_free(b);
	nest_function_free(c);
	nest_function_free(d);
	nest_function_free(NULL);
}
END_TEST

START_TEST(what_is_described_parses_to_the_same)
{
	struct nest_function_spec *a = parse("{" LEAST ",'cpu':0.5,'routes':[{'path':'/'}]}");
	nest_autofree char *text = cJSON_Print(a->json);
	struct nest_function_spec *b = parse(text);

	ck_assert(nest_function_equal(a, b));
	ck_assert_ptr_null(strstr(text, "null"));
	nest_function_free(a);
	nest_function_free(b);
}
END_TEST

NEST_SUITE("runtime/function", the_least_spec_gets_every_default, every_key_reaches_its_member,
	a_wrong_value_is_named_with_its_key, a_name_has_its_form, code_is_one_of_path_and_digest,
	code_and_layers_have_a_size, a_reserved_variable_is_refused_with_its_reason,
	the_environment_is_bounded, scaling_has_defaults_and_schedules, a_wrong_schedule_is_named,
	a_time_zone_that_is_gone_costs_a_kept_function_its_schedule_only, routes_have_their_form,
	defaults_stand_in_for_what_is_left_out, defaults_hold_no_identity,
	minimum_and_maximum_agree, specs_are_equal_but_for_their_version,
	what_is_described_parses_to_the_same)
