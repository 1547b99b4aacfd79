/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/function.h"
#include "runtime/manifest.h"
#include "tests/unit/suite.h"

#define SHELL "'argv':['sh','-c','x'],'interfaces':['event']"

static char dir[64];

/* A directory for one test, removed by it. */
static void set_up(void)
{
	snprintf(dir, sizeof(dir), "/tmp/nest-manifest-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void tear_down(void)
{
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

static void unquote(char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			*text = '"';
	}
}

/* Writes a file below the test's directory; ' stands for ". */
static void put(const char *path, const char *text, mode_t mode)
{
	char full[160], parent[160];
	nest_autofree char *copy = strdup(text);

	ck_assert_ptr_nonnull(copy);
	unquote(copy);
	snprintf(full, sizeof(full), "%s/%s", dir, path);
	snprintf(parent, sizeof(parent), "%s", full);
	*strrchr(parent, '/') = '\0';
	ck_assert_int_eq(nest_file_mkdirs(parent, 0755, NULL), 0);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, full, copy, strlen(copy), mode, NULL), 0);
}

static struct nest_manifests *load(const char *const *dirs)
{
	struct nest_manifests *set = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_manifests_load(dir, dirs, &set, &err) == 0, "%s", nest_err_text(&err));
	return set;
}

/* Loading the test's directory fails so; "%" in @message stands for the directory. */
static void refuses(const char *text, const char *message)
{
	struct nest_manifests *set = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char wanted[600];

	put("manifests/a.json", text, 0644);
	ck_assert_msg(nest_manifests_load(dir, NULL, &set, &err) == -EINVAL, "%s", text);
	ck_assert_ptr_null(set);
	snprintf(wanted, sizeof(wanted), "%s/manifests/a.json: %s", dir, message);
	ck_assert_str_eq(nest_err_text(&err), wanted);
}

static struct nest_function_spec *spec_of(const char *more)
{
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *object = NULL;
	char text[512];

	snprintf(text, sizeof(text), "{'name':'fn','version':'3','code':{'path':'/a'}%s}", more);
	unquote(text);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &object, NULL), 0);
	ck_assert_int_eq(nest_function_parse(object, NULL, &spec, NULL), 0);
	return spec;
}

START_TEST(a_manifest_is_read_whole)
{
	const struct nest_manifest *manifest;
	struct nest_manifests *set;

	set_up();
	put("manifests/a.json",
		"{ // a comment\n'name':'a','description':'d','argv':['sh','-c','${handler}'],"
		"'env':{'N':'${memoryMb}'},'interfaces':['http','asgi'],'defaultHandler':'h',"
		"'concurrency':{'default':2,'max':4},'memoryMb':{'default':100,'min':50},"
		"'probe':['sh','-c','echo 1']}",
		0644);
	put("manifests/b.txt", "not a manifest", 0644);
	set = load(NULL);
	manifest = nest_manifests_find(set, "a");
	ck_assert_ptr_nonnull(manifest);
	ck_assert_str_eq(manifest->name, "a");
	ck_assert_str_eq(manifest->description, "d");
	ck_assert_int_eq(manifest->argv[0][0], '/');
	ck_assert_str_eq(strrchr(manifest->argv[0], '/'), "/sh");
	ck_assert_str_eq(manifest->argv[2], "${handler}");
	ck_assert_ptr_null(manifest->argv[3]);
	ck_assert_str_eq(manifest->env[0], "N=${memoryMb}");
	ck_assert_uint_eq(
		manifest->interfaces, 1u << NEST_FUNCTION_HTTP | 1u << NEST_FUNCTION_ASGI);
	ck_assert_str_eq(manifest->default_handler, "h");
	ck_assert_uint_eq(manifest->concurrency_default, 2);
	ck_assert_uint_eq(manifest->concurrency_max, 4);
	ck_assert_uint_eq(manifest->memory_default_bytes, 100 << 20);
	ck_assert_uint_eq(manifest->memory_min_bytes, 50 << 20);
	ck_assert_int_eq(manifest->probe[0][0], '/');
	ck_assert_ptr_null(manifest->unavailable);
	ck_assert_ptr_null(nest_manifests_find(set, "b"));
	ck_assert_str_eq(nest_manifests_names(set)[0], "a");
	ck_assert_ptr_null(nest_manifests_names(set)[1]);
	nest_manifests_free(set);
	nest_manifests_free(NULL);
	tear_down();
}
END_TEST

START_TEST(a_later_directory_wins)
{
	char more[100];
	const char *const dirs[] = { more, NULL };
	struct nest_manifests *set;

	set_up();
	snprintf(more, sizeof(more), "%s/more", dir);
	put("manifests/b.json", "{'name':'b'," SHELL "}", 0644);
	put("manifests/a.json", "{'name':'a'," SHELL ",'description':'shipped'}", 0644);
	put("more/x.json", "{'name':'a'," SHELL ",'description':'mine'}", 0644);
	set = load(dirs);
	ck_assert_str_eq(nest_manifests_find(set, "a")->description, "mine");
	ck_assert_str_eq(nest_manifests_names(set)[0], "a");
	ck_assert_str_eq(nest_manifests_names(set)[1], "b");
	ck_assert_ptr_null(nest_manifests_names(set)[2]);
	nest_manifests_free(set);
	tear_down();
}
END_TEST

START_TEST(one_directory_has_a_name_once)
{
	struct nest_manifests *set = NULL;
	struct nest_err err = NEST_ERR_INIT;

	set_up();
	put("manifests/a.json", "{'name':'a'," SHELL "}", 0644);
	put("manifests/b.json", "{'name':'a'," SHELL "}", 0644);
	ck_assert_int_eq(nest_manifests_load(dir, NULL, &set, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "runtime 'a' is described twice"));
	tear_down();
}
END_TEST

START_TEST(a_missing_directory_is_an_error)
{
	static const char *const dirs[] = { "/nonexistent/nestlet", NULL };
	struct nest_manifests *set = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_manifests_load(NULL, dirs, &set, &err), -ENOENT);
	ck_assert_str_eq(nest_err_text(&err),
		"read runtime manifests in '/nonexistent/nestlet': No such file or directory");
}
END_TEST

START_TEST(an_error_names_file_line_and_key)
{
	set_up();
	refuses("{\n'name':'a',\n'argv':'sh',\n'interfaces':['event']}",
		"line 3: 'argv' must be an array of strings, not \"sh\"");
	refuses("{'name':'a',\n" SHELL ",\n'envv':{}}",
		"line 3: unknown key 'envv', did you mean 'env'?");
	refuses("{'name':'a',\n" SHELL ",\n'concurrency':{'default':2,\n'max':1}}",
		"line 3: 'concurrency.default' is 2, more than 'concurrency.max', 1");
	refuses("{'name':'a'," SHELL ",'memoryMb':{'default':2}}",
		"line 1: 'memoryMb.default' is 2, less than 'memoryMb.min', 16");
	refuses("{'name':'a','argv':['sh'],\n'interfaces':['grpc']}",
		"line 2: 'interfaces[0]' must be one of \"event\", \"http\", \"wsgi\", \"asgi\", "
		"not "
		"\"grpc\"");
	refuses("{'name':'a','argv':[],'interfaces':['event']}",
		"line 1: 'argv' must have 1 to 256 elements, not 0");
	refuses("{'name':'a',\n'argv':['bin/sh'],'interfaces':['event']}",
		"line 2: 'argv[0]' must be an absolute path or a bare name without placeholders, "
		"not \"bin/sh\"");
	refuses("{'name':'a',\n'argv':['sh',\n'${memory}'],'interfaces':['event']}",
		"line 3: 'argv[1]' has an unknown placeholder '${memory}': known are ${function}, "
		"${version}, ${handler}, ${concurrency} and ${memoryMb}");
	refuses("{'name':'a'," SHELL ",\n'env':{\n'X':'a${'}}",
		"line 3: 'env.X' has an unknown placeholder '${': known are ${function}, "
		"${version}, ${handler}, ${concurrency} and ${memoryMb}");
	refuses("{'name':'a'", "line 1, column 11: the JSON value ends too early");
	tear_down();
}
END_TEST

START_TEST(a_runtime_without_its_program_is_unavailable)
{
	struct nest_function_spec *spec = spec_of(",'runtime':'gone'");
	struct nest_err err = NEST_ERR_INIT;
	struct nest_manifest_values values;
	struct nest_manifests *set;

	set_up();
	put("manifests/a.json", "{'name':'gone','argv':['no-such-program'],'interfaces':['event']}",
		0644);
	put("manifests/b.json",
		"{'name':'inside','argv':['/runtime/x/run'],'interfaces':['event']}", 0644);
	put("manifests/c.json", "{'name':'missing','argv':['/runtime/y'],'interfaces':['event']}",
		0644);
	put("manifests/d.json",
		"{'name':'own','argv':['/function/bootstrap'],'interfaces':['event']}", 0644);
	put("x/run", "#!/bin/sh\n", 0755);
	set = load(NULL);
	ck_assert_ptr_nonnull(strstr(nest_manifests_find(set, "gone")->unavailable,
		"runtime 'gone' can't run here: no program 'no-such-program' in /usr/local/bin"));
	ck_assert_ptr_null(nest_manifests_find(set, "inside")->unavailable);
	ck_assert_ptr_nonnull(nest_manifests_find(set, "missing")->unavailable);
	ck_assert_ptr_null(nest_manifests_find(set, "own")->unavailable);
	ck_assert_int_eq(nest_manifests_settle(set, spec, NULL, &values, &err), -ENOEXEC);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "can't run here"));
	nest_function_free(spec);
	nest_manifests_free(set);
	tear_down();
}
END_TEST

static void settles(struct nest_manifests *set, const char *more, int wanted, const char *message)
{
	struct nest_function_spec *spec = spec_of(more);
	struct nest_err err = NEST_ERR_INIT;
	struct nest_manifest_values values;

	ck_assert_int_eq(nest_manifests_settle(set, spec, NULL, &values, &err), wanted);
	if (wanted < 0)
		ck_assert_str_eq(nest_err_text(&err), message);
	nest_function_free(spec);
}

START_TEST(a_spec_is_settled_with_its_runtime)
{
	struct nest_function_spec *spec = spec_of(",'runtime':'a'");
	const struct nest_manifest *manifest = NULL;
	struct nest_manifest_values values;
	struct nest_manifests *set;

	set_up();
	put("manifests/a.json",
		"{'name':'a'," SHELL ",'defaultHandler':'h','concurrency':{'default':2,'max':4},"
		"'memoryMb':{'default':100,'min':50}}",
		0644);
	put("manifests/b.json", "{'name':'b'," SHELL "}", 0644);
	set = load(NULL);
	ck_assert_int_eq(nest_manifests_settle(set, spec, &manifest, &values, NULL), 0);
	ck_assert_str_eq(manifest->name, "a");
	ck_assert_str_eq(values.function, "fn");
	ck_assert_str_eq(values.version, "3");
	ck_assert_str_eq(values.handler, "h");
	ck_assert_uint_eq(values.concurrency, 2);
	ck_assert_uint_eq(values.memory_bytes, 100 << 20);
	settles(set, ",'runtime':'a','concurrency':4,'memoryMb':50,'handler':'x'", 0, "");
	settles(set, ",'runtime':'a','concurrency':5", -EINVAL,
		"'concurrency' is 5, runtime 'a' takes 4 at most");
	settles(set, ",'runtime':'a','memoryMb':49", -EINVAL,
		"'memoryMb' is 49, runtime 'a' needs at least 50");
	settles(set, ",'runtime':'a','interface':'http'", -EINVAL,
		"runtime 'a' has no interface 'http'");
	settles(set, ",'runtime':'b'", -EINVAL,
		"'handler' is missing: runtime 'b' has no default one");
	settles(set, ",'runtime':'c'", -ENOENT, "no runtime 'c'; there are 'a', 'b'");
	nest_function_free(spec);
	nest_manifests_free(set);
	tear_down();
}
END_TEST

START_TEST(a_command_is_expanded)
{
	static const char *const function_env[] = { "A=function", "B=${function}", NULL };
	static const char *const host_env[] = { "B=host", "C=host", NULL };
	static const char *const envp[] = { "M=fn:3", "A=function", "B=host", "C=host" };
	const struct nest_manifest_values values = { .function = "fn",
		.version = "3",
		.handler = "${version}",
		.concurrency = 7,
		.memory_bytes = 300 << 20 };
	struct nest_manifest_command *command = NULL;
	struct nest_manifests *set;

	set_up();
	put("manifests/a.json",
		"{'name':'a','argv':['sh','--max=${memoryMb}','${handler}','$${concurrency}$'],"
		"'env':{'A':'manifest','M':'${function}:${version}','C':'x'},'interfaces':['event']"
		"}",
		0644);
	set = load(NULL);
	ck_assert_int_eq(nest_manifest_expand(nest_manifests_find(set, "a"), &values, function_env,
				 host_env, &command, NULL),
		0);
	nest_manifests_free(set); /* the command stands alone */
	ck_assert_str_eq(strrchr(command->argv[0], '/'), "/sh");
	ck_assert_str_eq(command->argv[1], "--max=300");
	ck_assert_str_eq(command->argv[2], "${version}");
	ck_assert_str_eq(command->argv[3], "$7$");
	ck_assert_ptr_null(command->argv[4]);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(envp); i++)
		ck_assert_str_eq(command->envp[i], envp[i]);
	ck_assert_ptr_null(command->envp[NEST_ARRAY_SIZE(envp)]);
	free(command);
	tear_down();
}
END_TEST

/* What a worker of runtime a with these keys gets as LD_PRELOAD, or "". */
static void check_preload(const char *keys, bool mapped, const char *preload)
{
	const struct nest_manifest_values values = {
		.function = "fn", .version = "3", .handler = "h"
	};
	struct nest_manifest_command *command = NULL;
	const struct nest_manifest *manifest;
	struct nest_manifests *set;
	const char *found = "";
	char text[512];

	snprintf(text, sizeof(text), "{'name':'a'," SHELL "%s}", keys);
	put("manifests/a.json", text, 0644);
	set = load(NULL);
	manifest = nest_manifests_find(set, "a");
	ck_assert_uint_eq(manifest->memory, mapped);
	ck_assert_int_eq(nest_manifest_expand(manifest, &values, NULL, NULL, &command, NULL), 0);
	for (const char *const *pair = command->envp; *pair; pair++) {
		if (strncmp(*pair, "LD_PRELOAD=", 11) != 0)
			continue;
		ck_assert_str_eq(found, "");
		found = *pair + 11;
	}
	ck_assert_str_eq(found, preload);
	free(command);
	nest_manifests_free(set);
}

START_TEST(mapped_memory_comes_with_a_library)
{
	static const char zeros[] = "/runtime/preload/zeros.so";

	set_up();
	/* without it memory is copied, which needs none */
	check_preload(",'memory':'mapped'", false, "");
	check_preload(",'memory':'mapped','memoryShim':false", true, "");
	put("preload/zeros.so", "a library", 0644);
	check_preload("", false, "");
	check_preload(",'memory':'copied','memoryShim':true", false, "");
	check_preload(",'memory':'mapped'", true, zeros);
	check_preload(",'memory':'mapped','memoryShim':false", true, "");
	check_preload(",'memory':'mapped','memoryShim':false,'env':{'LD_PRELOAD':'/a.so'}", true,
		"/a.so");
	check_preload(",'memory':'mapped','env':{'A':'b','LD_PRELOAD':'/${function}.so','C':'d'}",
		true, "/runtime/preload/zeros.so:/fn.so");
	tear_down();
}
END_TEST

static int probe(const char *script, uint32_t timeout_ms, char **ret_line, struct nest_err *err)
{
	const char *command[] = { "/bin/sh", "-c", script, NULL };
	const struct nest_manifest manifest = { .name = "a", .probe = command };

	return nest_manifest_probe(&manifest, timeout_ms, ret_line, err);
}

START_TEST(a_probe_tells_its_first_line)
{
	const char *nothing[] = { NULL };
	const struct nest_manifest silent = { .name = "a", .probe = nothing };
	char *line = NULL;

	ck_assert_int_eq(nest_manifest_probe(&silent, 1, &line, NULL), 1);
	ck_assert_int_eq(probe("echo v1; echo v2", 10000, &line, NULL), 0);
	ck_assert_str_eq(line, "v1");
	free(line);
	ck_assert_int_eq(probe("echo from stderr >&2", 10000, &line, NULL), 0);
	ck_assert_str_eq(line, "from stderr");
	free(line);
	ck_assert_int_eq(
		probe("echo =$HOME$FOO=; head -c 100000 /dev/zero", 10000, &line, NULL), 0);
	ck_assert_str_eq(line, "==");
	free(line);
}
END_TEST

START_TEST(a_probe_that_goes_wrong_is_ended_and_named)
{
	struct nest_err err = NEST_ERR_INIT;
	char *line = NULL;

	ck_assert_int_eq(probe("exit 3", 10000, &line, &err), -EIO);
	ck_assert_str_eq(nest_err_text(&err), "probe of runtime 'a': '/bin/sh' exited with 3");
	ck_assert_int_eq(probe("kill -9 $$", 10000, &line, &err), -EIO);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "killed by signal 9"));
	ck_assert_int_eq(probe("sleep 1000 & sleep 1000", 50, &line, &err), -ETIMEDOUT);
	ck_assert_int_eq(probe("exec >&- 2>&-; sleep 1000", 50, &line, &err), -ETIMEDOUT);
	ck_assert_ptr_null(line);
}
END_TEST

NEST_SUITE("runtime/manifest", a_manifest_is_read_whole, a_later_directory_wins,
	one_directory_has_a_name_once, a_missing_directory_is_an_error,
	an_error_names_file_line_and_key, a_runtime_without_its_program_is_unavailable,
	a_spec_is_settled_with_its_runtime, a_command_is_expanded,
	mapped_memory_comes_with_a_library, a_probe_tells_its_first_line,
	a_probe_that_goes_wrong_is_ended_and_named)
