/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/config.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/schema.h"
#include "runtime/function.h"
#include "runtime/manifest.h"
#include "runtime/scaling.h"
#include "tests/unit/suite.h"

#define HELLO "{'name':'hello','runtime':'nodejs','code':{'path':'/a'}}"

static char dir[64];

static void set_up(void)
{
	snprintf(dir, sizeof(dir), "/tmp/nest-config-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void tear_down(void)
{
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

static char *unquoted(const char *text)
{
	char *copy = strdup(text);

	ck_assert_ptr_nonnull(copy);
	for (char *c = copy; *c; c++) {
		if (*c == '\'')
			*c = '"';
	}
	return copy;
}

/* Writes a file below the test's directory; ' stands for ". */
static void put(const char *path, const char *text)
{
	nest_autofree char *copy = unquoted(text);
	char full[160], parent[160];

	snprintf(full, sizeof(full), "%s/%s", dir, path);
	snprintf(parent, sizeof(parent), "%s", full);
	*strrchr(parent, '/') = '\0';
	ck_assert_int_eq(nest_file_mkdirs(parent, 0755, NULL), 0);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, full, copy, strlen(copy), 0644, NULL), 0);
}

static struct nest_config *parse(const char *text)
{
	nest_autofree char *copy = unquoted(text);
	struct nest_config *config = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_config_parse(copy, strlen(copy), "f", "/d", &config, &err) == 0,
		"%s: %s", text, nest_err_text(&err));
	return config;
}

static void refuses(const char *text, const char *message)
{
	nest_autofree char *copy = unquoted(text);
	struct nest_config *config = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_config_parse(copy, strlen(copy), "f", "/d", &config, &err) == -EINVAL,
		"accepted: %s", text);
	ck_assert_ptr_null(config);
	ck_assert_str_eq(nest_err_text(&err), message);
}

START_TEST(an_empty_object_is_a_valid_config)
{
	struct nest_config *config = parse("{}");

	ck_assert_str_eq(config->file, "f");
	ck_assert_str_eq(config->state_dir, "/var/lib/nestlet");
	ck_assert_str_eq(config->gateway_socket, "/run/nestlet/gateway.sock");
	ck_assert_uint_eq(config->gateway_socket_mode, 0660);
	ck_assert_str_eq(config->gateway_listen, "");
	ck_assert_uint_eq(config->gateway_body_bytes, 6 * 1024 * 1024);
	ck_assert(!config->gateway_access_log);
	ck_assert_str_eq(config->admin_socket, "/run/nestlet/admin.sock");
	ck_assert_uint_eq(config->admin_socket_mode, 0600);
	ck_assert_str_eq(config->runtimes_dir, NEST_PKGLIBEXECDIR "/runtimes");
	ck_assert_uint_eq(config->log_level, NEST_LOG_INFO);
	ck_assert_uint_eq(config->log_format, NEST_CONFIG_LOG_AUTO);
	ck_assert_uint_eq(config->cells_isolation, NEST_CONFIG_ISOLATION_BEST_EFFORT);
	ck_assert_str_eq(config->cells_root_paths[0], "/usr");
	ck_assert_uint_ne(config->uid, 0);
	ck_assert_uint_eq(config->nfunctions, 0);
	ck_assert_uint_eq(strlen(config->instance), strlen("nestlet-01234567"));
	nest_config_free(config);
	nest_config_free(NULL);
	ck_assert_int_eq(nest_config_load(NULL, &config, NULL), 0);
	ck_assert_ptr_null(config->file);
	nest_config_free(config);
}
END_TEST

START_TEST(values_reach_the_host_and_the_gateway)
{
	struct nest_config *config =
		parse("{'instance':'x','user':'1234','stateDir':'/s','runtimes':{'dir':'/r',"
		      "'manifestDirs':['/m']},'cells':{'isolation':'required','rootPaths':['/usr'],"
		      "'uidBase':5000,'uidCount':6,'prepared':1,'preparedNoNetwork':3,'max':4},"
		      "'cache':{'bytes':1048577},'limits':{'codeBytes':5001,'codeEntries':5002,"
		      "'uploadBytes':5003,'responseBytes':5004},'logs':{'lineBytes':5005},"
		      "'workers':{'cancelGraceMs':5006,'pingIntervalMs':5007,'pingTimeoutMs':5008},"
		      "'drain':{'graceMs':5009},'gateway':{'maxConnections':1,'headerBytes':2000,"
		      "'headerCount':30,'bodyBytes':4,'headerTimeoutMs':5,'bodyIdleMs':6,"
		      "'keepAliveMs':7,'writeIdleMs':8}}");
	struct nest_http_limits limits;
	struct nest_host_config host;
	const char *const *last;

	nest_config_host(config, &host);
	ck_assert_str_eq(host.instance, "x");
	ck_assert_str_eq(host.state_dir, "/s");
	ck_assert_str_eq(host.runtimes_dir, "/r");
	for (last = host.manifest_dirs; last[1];)
		last++;
	ck_assert_str_eq(*last, "/m");
	ck_assert_str_eq(host.root_paths[0], "/usr");
	ck_assert_ptr_null(host.root_paths[1]);
	ck_assert_uint_eq(host.uid_base, 5000);
	ck_assert_uint_eq(host.uid_count, 6);
	ck_assert_uint_eq(host.agent_uid, 1234);
	ck_assert_uint_eq(host.agent_gid, 1234);
	ck_assert_uint_eq(host.pool_size, 1);
	ck_assert_uint_eq(host.pool_size_none, 3);
	ck_assert_uint_eq(host.max_cells, 4);
	ck_assert(host.require_isolation);
	ck_assert_uint_eq(host.cache_bytes, 1048577);
	ck_assert_uint_eq(host.code_bytes, 5001);
	ck_assert_uint_eq(host.code_entries, 5002);
	ck_assert_uint_eq(host.upload_bytes, 5003);
	ck_assert_uint_eq(host.response_bytes, 5004);
	ck_assert_uint_eq(host.log_line_bytes, 5005);
	ck_assert_uint_eq(host.cancel_grace_ms, 5006);
	ck_assert_uint_eq(host.ping_interval_ms, 5007);
	ck_assert_uint_eq(host.ping_timeout_ms, 5008);
	ck_assert_uint_eq(host.drain_grace_ms, 5009);
	nest_config_http_limits(config, &limits);
	ck_assert_uint_eq(limits.connections, 1);
	ck_assert_uint_eq(limits.header_bytes, 2000);
	ck_assert_uint_eq(limits.header_count, 30);
	ck_assert_uint_eq(limits.body_bytes, 4);
	ck_assert_uint_eq(limits.header_timeout_ms, 5);
	ck_assert_uint_eq(limits.body_idle_ms, 6);
	ck_assert_uint_eq(limits.keepalive_ms, 7);
	ck_assert_uint_eq(limits.write_idle_ms, 8);
	nest_config_free(config);
}
END_TEST

START_TEST(an_error_names_file_line_and_key)
{
	refuses("{\n'gateway': {\n\t// a comment\n\t'bodyByte': 1 } }",
		"f: line 4: in 'gateway': unknown key 'bodyByte', did you mean 'bodyBytes'?");
	refuses("{\n'gatewai': {} }", "f: line 2: unknown key 'gatewai', did you mean 'gateway'?");
	refuses("{\n'log': {\n'level': 'loud' } }",
		"f: line 3: 'log.level' must be one of \"error\", \"warn\", \"info\", \"debug\", "
		"not \"loud\"");
	refuses("{ 'log':\n 3 }", "f: line 2: 'log' must be an object, not 3");
	refuses("{ 'gateway': {'accessLog': 'yes'} }",
		"f: line 1: 'gateway.accessLog' must be a boolean, not \"yes\"");
	refuses("{ 'gateway': {'socketMode': '0999'} }",
		"f: line 1: 'gateway.socketMode' must be an octal mode such as \"0660\", not "
		"\"0999\"");
	refuses("{ 'gateway': {'headerBytes': 99999999999} }",
		"f: line 1: 'gateway.headerBytes' must be an integer from 1024 to 1048576, not "
		"99999999999");
	refuses("{ 'cells': {'rootPaths':\n['/usr',\n'lib']} }",
		"f: line 3: 'cells.rootPaths[1]' must be an absolute path, not \"lib\"");
	refuses("[]", "f: line 1: must be an object, not an array");
	refuses("{\n'log': x }", "f: line 2, column 8: not valid JSON");
	refuses("{\n/*", "f: line 2: a comment that does not end");
	refuses("", "f: line 1, column 1: no JSON value, only white space");
}
END_TEST

START_TEST(only_loopback_is_listened_on)
{
	static const char *const good[] = { "127.0.0.1:80", "127.1.2.3:65535", "[::1]:1", "" };
	static const char *const bad[] = { "0.0.0.0:80", "10.0.0.1:80", "[::]:80", "127.0.0.1",
		"127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:80x", "localhost:80", ":80", "[::1]" };
	char text[128];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), "{'gateway':{'listen':'%s'}}", good[i]);
		nest_config_free(parse(text));
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(bad); i++) {
		char message[256];

		snprintf(text, sizeof(text), "{'gateway':{'listen':'%s'}}", bad[i]);
		snprintf(message, sizeof(message),
			"f: line 1: 'gateway.listen' must be a loopback address with port such as "
			"\"127.0.0.1:8080\" or \"[::1]:8080\", or \"\", not \"%s\"",
			bad[i]);
		refuses(text, message);
	}
}
END_TEST

START_TEST(what_cannot_be_together_is_refused)
{
	char text[400];

	refuses("{'cells':{\n'max':2,'prepared':2,'preparedNoNetwork':1}}",
		"f: line 2: 'cells.max' is 2, less than the prepared cells, 3");
	refuses("{'gateway':{'socket':'/a'},'admin':{'socket':'/a'}}",
		"f: line 1: 'admin.socket' is the gateway's socket too: '/a'");
	refuses("{'user':'0'}",
		"f: line 1: 'user' is root: the agent must run as a user of its own");
	refuses("{'user':'no such user'}",
		"f: line 1: 'user' names no user of this machine: 'no such user'");
	refuses("{'user':'20005'}",
		"f: 'cells.uidBase' and cells.uidCount give functions the numbers 20001 to 30000, "
		"the agent's user 20005 is one of them");
	snprintf(text, sizeof(text), "{'runDir':'/%0100d'}", 0);
	refuses(text,
		"f: line 1: 'runDir' makes socket paths of more than 99 bytes: "
		"'/00000000000000000000000000000000000000000000000000000000000000000000000000000000"
		"00000000000000000000/gateway.sock'");
}
END_TEST

START_TEST(hosts_with_other_state_have_other_instances)
{
	struct nest_config *a = parse("{'stateDir':'/a'}");
	struct nest_config *b = parse("{'stateDir':'/b'}");
	struct nest_config *c = parse("{'stateDir':'/a'}");

	ck_assert_str_ne(a->instance, b->instance);
	ck_assert_str_eq(a->instance, c->instance);
	nest_config_free(a);
	nest_config_free(b);
	nest_config_free(c);
}
END_TEST

START_TEST(functions_are_parsed_with_the_defaults)
{
	struct nest_config *config =
		parse("{'functionDefaults':{'pids':7,'runtime':'python'},'functions':[\n"
		      "{'name':'a','code':{'path':'./fn/a'}},\n"
		      "{'name':'a','version':'2','pids':8,'code':{'path':'/abs'}}]}");

	ck_assert_uint_eq(config->nfunctions, 2);
	ck_assert_str_eq(config->functions[0].spec->code.path, "/d/fn/a");
	ck_assert_str_eq(config->functions[0].spec->runtime, "python");
	ck_assert_uint_eq(config->functions[0].spec->pids, 7);
	ck_assert_str_eq(config->functions[0].file, "f");
	ck_assert_uint_eq(config->functions[0].line, 2);
	ck_assert_str_eq(config->functions[1].spec->code.path, "/abs");
	ck_assert_uint_eq(config->functions[1].spec->pids, 8);
	ck_assert_uint_eq(config->functions[1].line, 3);
	nest_config_free(config);
}
END_TEST

START_TEST(a_wrong_function_is_named_with_its_line)
{
	refuses("{'functions':[\n" HELLO ",\n{'name':'b','runtime':'x',\n'code':{'path':''}}]}",
		"f: line 4: 'functions[1]': 'code.path' must be an absolute path, not \"\"");
	refuses("{'functions':[\n" HELLO ",\n{'name':'b','runtime':'x'}]}",
		"f: line 3: 'functions[1]': 'code' is missing: give 'code.path', 'code.url' or "
		"'code.digest'");
	refuses("{'functions':[\n" HELLO ",\n" HELLO "]}",
		"f: line 3: function 'hello' is given twice, first in f line 2");
	refuses("{'functions':[\n3]}", "f: line 2: 'functions[0]' must be an object, not 3");
	refuses("{'functionDefaults':{\n'pids':0}}",
		"f: line 2: 'functionDefaults': 'pids' must be an integer from 1 to 32768, not 0");
	refuses("{'functionDefaults':{\n'name':'a'}}",
		"f: line 2: 'functionDefaults': 'name' can't be given here");
}
END_TEST

START_TEST(a_file_and_its_functions_directory_are_read)
{
	struct nest_config *config = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char path[160], text[256], wanted[256];

	set_up();
	snprintf(path, sizeof(path), "%s/etc/nestlet.conf", dir);
	snprintf(text, sizeof(text),
		"{'functionsDir':'%s/fn','functions':[{'name':'a','runtime':'x',"
		"'code':{'path':'code/a'}}]}",
		dir);
	put("etc/nestlet.conf", text);
	put("fn/b.json", "// one\n{'name':'b','runtime':'x','code':{'path':'b'}}");
	put("fn/c.txt", "no function");
	ck_assert_msg(nest_config_load(path, &config, &err) == 0, "%s", nest_err_text(&err));
	ck_assert_uint_eq(config->nfunctions, 2);
	snprintf(wanted, sizeof(wanted), "%s/etc/code/a", dir);
	ck_assert_str_eq(config->functions[0].spec->code.path, wanted);
	snprintf(wanted, sizeof(wanted), "%s/fn/b", dir);
	ck_assert_str_eq(config->functions[1].spec->code.path, wanted);
	snprintf(wanted, sizeof(wanted), "%s/fn/b.json", dir);
	ck_assert_str_eq(config->functions[1].file, wanted);
	ck_assert_uint_eq(config->functions[1].line, 2);
	nest_config_free(config);
	put("fn/b.json", "{'name':'b',\n'runtimes':'x'}");
	ck_assert_int_eq(nest_config_load(path, &config, &err), -EINVAL);
	snprintf(wanted, sizeof(wanted),
		"%s/fn/b.json: line 2: unknown key 'runtimes', did you mean 'runtime'?", dir);
	ck_assert_str_eq(nest_err_text(&err), wanted);
	tear_down();
	ck_assert_int_eq(nest_config_load(path, &config, &err), -ENOENT);
}
END_TEST

START_TEST(a_change_that_needs_a_new_start_is_listed)
{
	struct nest_config *a = parse("{}");
	struct nest_config *b = parse("{'stateDir':'/s','cells':{'max':7},'log':{'level':'warn'},"
				      "'functions':[" HELLO "]}");
	struct nest_config *c = parse("{'gateway':{'bodyBytes':1},'runDir':'/run/nestlet'}");
	struct nest_buf keys = NEST_BUF_INIT;
	nest_autofree char *text = NULL;

	ck_assert_int_eq(nest_config_diff(a, c, &keys), 0);
	ck_assert_uint_eq(keys.len, 0);
	ck_assert_int_eq(nest_config_diff(a, b, &keys), 2);
	text = nest_buf_take_string(&keys);
	ck_assert_str_eq(text, "stateDir, cells.max");
	ck_assert(nest_config_is_reloadable("functions"));
	ck_assert(!nest_config_is_reloadable("user"));
	nest_config_free(a);
	nest_config_free(b);
	nest_config_free(c);
}
END_TEST

static char *example(void)
{
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(nest_config_print_example(out), 0);
	ck_assert_int_eq(fclose(out), 0);
	return text;
}

START_TEST(the_example_says_the_defaults)
{
	nest_autofree char *text = example();
	struct nest_config *shown = NULL, *empty = parse("{}");
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_config_parse(text, strlen(text), "example", "/", &shown, &err) == 0,
		"%s", nest_err_text(&err));
	ck_assert(cJSON_Compare(shown->json, empty->json, true));
	nest_config_free(shown);
	nest_config_free(empty);
}
END_TEST

START_TEST(the_example_that_ships_is_this_one)
{
	nest_autofree char *text = example();
	nest_autofree char *shipped = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_file_read(AT_FDCWD, NEST_TOP_SRCDIR "/deploy/nestlet.conf.example",
			      1 << 20, &shipped, NULL, &err) == 0,
		"%s", nest_err_text(&err));
	ck_assert_msg(strcmp(shipped, text) == 0,
		"deploy/nestlet.conf.example is old: write nestletd --print-config to it");
}
END_TEST

/* The text of section @name of a manual page, to be freed. */
static char *section(const char *page, const char *name)
{
	nest_autofree char *text = NULL;
	char head[64], path[256], *from, *to;

	snprintf(path, sizeof(path), "%s/docs/man/%s", NEST_TOP_SRCDIR, page);
	snprintf(head, sizeof(head), "\n.Sh %s\n", name);
	ck_assert_int_eq(nest_file_read(AT_FDCWD, path, 1 << 20, &text, NULL, NULL), 0);
	from = strstr(text, head);
	ck_assert_msg(from != NULL, "%s has no section %s", page, name);
	from += strlen(head);
	to = strstr(from, "\n.Sh ");
	return to ? strndup(from, (size_t)(to - from)) : strdup(from);
}

static size_t count_items(const char *text)
{
	size_t n = 0;

	for (; (text = strstr(text, "\n.It Ic ")); text++)
		n++;
	return n;
}

/* Every key of @schema has its item in the section, with type and default; and no other has. */
static void agrees(
	const char *page, const char *name, const struct nest_schema *schema, bool config)
{
	nest_autofree char *text = section(page, name);

	ck_assert_uint_eq(count_items(text), schema->n);
	for (size_t i = 0; i < schema->n; i++) {
		const struct nest_schema_key *key = &schema->keys[i];
		struct nest_buf wanted = NEST_BUF_INIT;
		nest_autofree char *item = NULL;

		ck_assert_int_eq(nest_buf_printf(&wanted, "\n.It Ic %s\n(", key->path), 0);
		ck_assert_int_eq(nest_schema_describe(key, &wanted), 0);
		ck_assert_int_eq(
			nest_buf_printf(&wanted, "%s)\n",
				config && nest_config_is_reloadable(key->path) ? "; reload" : ""),
			0);
		item = nest_buf_take_string(&wanted);
		ck_assert_msg(strstr(text, item) != NULL, "%s lacks this:%s", page, item);
	}
}

START_TEST(the_manual_and_the_parser_agree)
{
	agrees("nestlet.conf.5", "KEYS", nest_config_schema(), true);
	agrees("nestlet-function.5", "KEYS", nest_function_schema(), false);
	agrees("nestlet-function.5", "SCALING", nest_scaling_schedule_schema(), false);
	agrees("nestlet-function.5", "ROUTES", nest_function_route_schema(), false);
	agrees("nestlet-function.5", "RUNTIME MANIFESTS", nest_manifest_schema(), false);
}
END_TEST

/* The literal blocks of a page's EXAMPLES, one after the other. */
static char *next_example(char **at)
{
	char *from = strstr(*at, ".Bd -literal"), *to;

	if (!from)
		return NULL;
	from = strchr(from, '\n') + 1;
	to = strstr(from, ".Ed");
	ck_assert_ptr_nonnull(to);
	*to = '\0';
	*at = to + 1;
	return from;
}

START_TEST(the_examples_of_the_manual_are_valid)
{
	nest_autofree char *conf = section("nestlet.conf.5", "EXAMPLES");
	nest_autofree char *function = section("nestlet-function.5", "EXAMPLES");
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *object = NULL;
	nest_autojson cJSON *manifest = NULL;
	char *at = conf, *text;

	nest_config_free(parse(next_example(&at)));
	at = function;
	text = next_example(&at);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &object, NULL), 0);
	ck_assert_int_eq(nest_function_parse(object, NULL, &spec, NULL), 0);
	nest_function_free(spec);
	text = next_example(&at);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &manifest, NULL), 0);
	ck_assert_int_eq(nest_schema_check(nest_manifest_schema(), manifest, 0, NULL, NULL), 0);
}
END_TEST

NEST_SUITE("agent/config", an_empty_object_is_a_valid_config, values_reach_the_host_and_the_gateway,
	an_error_names_file_line_and_key, only_loopback_is_listened_on,
	what_cannot_be_together_is_refused, hosts_with_other_state_have_other_instances,
	functions_are_parsed_with_the_defaults, a_wrong_function_is_named_with_its_line,
	a_file_and_its_functions_directory_are_read, a_change_that_needs_a_new_start_is_listed,
	the_example_says_the_defaults, the_example_that_ships_is_this_one,
	the_manual_and_the_parser_agree, the_examples_of_the_manual_are_valid)
