/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/registry.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/alias.h"
#include "runtime/function.h"
#include "tests/unit/suite.h"

static char dir[64], path[100];
static struct nest_registry *registry;

static void open_it(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_registry_open(path, 3, &registry, &err) == 0, "%s", nest_err_text(&err));
}

static void enter(void)
{
	snprintf(dir, sizeof(dir), "/tmp/nest-registry-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/registry.json", dir);
	open_it();
}

static void leave(void)
{
	nest_registry_free(registry);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* What a restart finds. */
static void open_again(void)
{
	nest_registry_free(registry);
	open_it();
}

static struct nest_function_spec *spec_of(const char *version, unsigned pids)
{
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *object = NULL;
	char text[256];

	snprintf(text, sizeof(text),
		"{\"name\":\"a\",\"version\":\"%s\",\"runtime\":\"x\",\"pids\":%u,"
		"\"code\":{\"path\":\"/a\"}}",
		version, pids);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &object, NULL), 0);
	ck_assert_int_eq(nest_function_parse(object, NULL, &spec, NULL), 0);
	return spec;
}

/* Plans and commits version @pids with @share; the commit's result. */
static int put(unsigned pids, uint32_t share)
{
	struct nest_function_spec *spec = spec_of("", pids);
	struct nest_registry_plan *plan = NULL;
	struct nest_registry_entry entry;

	ck_assert_int_eq(nest_registry_plan(registry, spec, &plan, &entry, NULL), 0);
	nest_function_free(spec);
	nest_registry_plan_share(plan, share);
	return nest_registry_commit(plan, NULL, NULL, NULL);
}

static int set(const char *name, const char *versions, struct nest_err *err)
{
	nest_autojson cJSON *json = cJSON_Parse(versions);
	struct nest_alias *alias = NULL;
	int r;

	ck_assert_int_eq(nest_alias_parse(name, json, &alias, NULL, err), 0);
	r = nest_registry_set_alias(registry, "a", alias, err);
	nest_alias_free(alias);
	return r;
}

#define ONE(version) "{\"versions\":[{\"version\":\"" version "\"}]}"

static bool note_alias(void *arg, const char *name, const struct nest_alias *alias)
{
	ck_assert_str_eq(name, "a");
	nest_buf_printf(arg, "%s:", alias->name);
	for (uint32_t i = 0; i < alias->nparts; i++)
		nest_buf_printf(arg, "%s%s=%u", i ? "," : "", alias->parts[i].version,
			alias->parts[i].weight);
	nest_buf_puts(arg, " ");
	return true;
}

static bool note_version(void *arg, const struct nest_registry_entry *entry)
{
	nest_buf_printf(arg, "%s%s%s ", entry->spec->version, entry->live ? "*" : "",
		entry->shared ? "/" : "");
	return true;
}

/* The versions, '*' behind the live one, '/' where it is shared; the aliases; where a rollback goes. */
static void holds(const char *wanted)
{
	struct nest_buf buf = NEST_BUF_INIT;
	struct nest_registry_entry before;
	nest_autofree char *text = NULL;

	nest_registry_each(registry, note_version, &buf);
	nest_registry_each_alias(registry, NULL, note_alias, &buf);
	if (nest_registry_find_before(registry, "a", &before) == 0)
		nest_buf_printf(&buf, "<%s", before.spec->version);
	text = nest_buf_take_string(&buf);
	ck_assert_str_eq(text, wanted);
}

/* Now and after a restart. */
static void keeps(const char *wanted)
{
	holds(wanted);
	open_again();
	holds(wanted);
}

START_TEST(a_version_gets_the_share_it_was_planned_with)
{
	ck_assert_int_eq(put(1, 5), 0); /* the first one is live all the same */
	keeps("1* ");
	ck_assert_int_eq(put(2, 100), 0);
	keeps("1 2* <1");
	ck_assert_int_eq(put(3, 5), 0);
	keeps("1 2*/ 3 live:2=95,3=5 <2");
	ck_assert_int_eq(put(4, 0), 0);
	keeps("2*/ 3 4 live:2=95,3=5 <2");
	ck_assert_int_eq(put(5, 100), 0);
	keeps("3 4 5* ");
}
END_TEST

START_TEST(aliases_are_kept_and_pin_their_versions)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(put(1, 100), 0);
	ck_assert_int_eq(set("old", ONE("1"), &err), 0);
	for (unsigned i = 2; i <= 5; i++)
		ck_assert_int_eq(put(i, 100), 0);
	keeps("1 4 5* old:1=1 <4");
	ck_assert_int_eq(nest_registry_remove(registry, "a", "1", &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "alias 'old'"));
	ck_assert_int_eq(set("old", ONE("4"), &err), 0);
	ck_assert_int_eq(nest_registry_remove(registry, "a", "1", &err), 0);
	keeps("4 5* old:4=1 <4");
	ck_assert_int_eq(nest_registry_remove_alias(registry, "a", "old", &err), 0);
	ck_assert_int_eq(nest_registry_remove_alias(registry, "a", "old", &err), -ENOENT);
	ck_assert_int_eq(nest_registry_remove_alias(registry, "a", "live", &err), -EBUSY);
	keeps("4 5* <4");
}
END_TEST

START_TEST(a_rollback_goes_back_and_forth_and_ends_a_canary)
{
	struct nest_registry_entry before;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(put(1, 100), 0);
	ck_assert_int_eq(nest_registry_find_before(registry, "a", &before), 1);
	ck_assert_int_eq(nest_registry_find_before(registry, "b", &before), 1);
	ck_assert_int_eq(put(2, 100), 0);
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "1", &err), 0);
	keeps("1* 2 <2");
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "2", &err), 0);
	ck_assert_int_eq(put(3, 10), 0);
	keeps("1 2*/ 3 live:2=90,3=10 <2");
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "2", &err), 0);
	keeps("1 2* 3 <1");
	ck_assert_int_eq(nest_registry_remove(registry, "a", "1", &err), 0);
	keeps("2* 3 ");
}
END_TEST

START_TEST(names_of_versions_and_aliases_are_apart)
{
	struct nest_function_spec *spec = spec_of("beta", 7);
	struct nest_registry_plan *plan = NULL;
	struct nest_registry_entry entry;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(put(1, 100), 0);
	ck_assert_int_eq(set("beta", ONE("1"), &err), 0);
	ck_assert_int_eq(nest_registry_plan(registry, spec, &plan, &entry, &err), -EEXIST);
	ck_assert_int_eq(nest_registry_remove_alias(registry, "a", "beta", &err), 0);
	ck_assert_int_eq(nest_registry_plan(registry, spec, &plan, &entry, &err), 0);
	ck_assert_int_eq(set("gamma", ONE("1"), &err), -EBUSY);
	ck_assert_int_eq(nest_registry_commit(plan, NULL, NULL, &err), 0);
	ck_assert_int_eq(set("beta", ONE("1"), &err), -EEXIST);
	ck_assert_int_eq(set("gamma", ONE("9"), &err), -ENOENT);
	nest_function_free(spec);
	keeps("1 beta* <1");
}
END_TEST

/* Makes renaming a file to @path fail, also for root. */
static void block_the_file(void)
{
	char inside[128];

	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(inside, sizeof(inside), "%s/x", path);
	ck_assert_int_eq(mkdir(inside, 0700), 0);
}

START_TEST(what_does_not_reach_the_disk_has_not_happened)
{
	static const char was[] = "1 2*/ 3 beta:1=1 live:2=95,3=5 <2";
	struct nest_err err = NEST_ERR_INIT;

	for (unsigned i = 1; i <= 3; i++)
		ck_assert_int_eq(put(i, i == 3 ? 5 : 100), 0);
	ck_assert_int_eq(set("beta", ONE("1"), &err), 0);
	holds(was);
	block_the_file();
	ck_assert_int_lt(set("beta", ONE("2"), &err), 0);
	ck_assert_int_lt(set("live", ONE("1"), &err), 0);
	ck_assert_int_lt(set("new", ONE("1"), &err), 0);
	ck_assert_int_lt(nest_registry_remove_alias(registry, "a", "beta", &err), 0);
	ck_assert_int_lt(nest_registry_set_live(registry, "a", "3", &err), 0);
	ck_assert_int_lt(put(4, 100), 0);
	ck_assert_int_lt(put(5, 50), 0);
	holds(was);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, path, NULL), 0);
	ck_assert_int_eq(put(4, 100), 0);
	keeps("1 3 4* beta:1=1 ");
}
END_TEST

/* The text is a registry's of versions 1 and 2 of "a", the first of them live, with @names. */
static void refuses(const char *names, const char *says)
{
	struct nest_registry *other = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"format\":2,\"functions\":[{\"name\":\"a\",\"live\":\"1\",\"next\":3,%s,"
		"\"versions\":[{\"name\":\"a\",\"version\":\"1\",\"runtime\":\"x\","
		"\"code\":{\"path\":\"/a\"}},{\"name\":\"a\",\"version\":\"2\",\"runtime\":\"x\","
		"\"code\":{\"path\":\"/b\"}}]}]}",
		names);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, NULL), 0);
	ck_assert_int_eq(nest_registry_open(path, 3, &other, &err), -EINVAL);
	ck_assert_msg(strstr(nest_err_text(&err), says) != NULL, "%s", nest_err_text(&err));
}

START_TEST(damaged_names_are_refused)
{
	refuses("\"before\":\"9\"", "'before' names no version of 'a': '9'");
	refuses("\"aliases\":{\"1\":" ONE("1") "}", "can't be an alias's name");
	refuses("\"aliases\":{\"b\":" ONE("9") "}", "has no version '9'");
	refuses("\"aliases\":{\"b\":{}}", "versions");
	refuses("\"aliases\":{\"live\":{\"versions\":[{\"version\":\"2\"},{\"version\":\"1\"}]}}",
		"not of the live version first");
}
END_TEST

START_TEST(the_first_format_is_still_read)
{
	static const char text[] =
		"{\"format\":1,\"functions\":[{\"name\":\"a\",\"live\":\"1\",\"next\":2,"
		"\"versions\":[{\"name\":\"a\",\"version\":\"1\",\"runtime\":\"x\","
		"\"code\":{\"path\":\"/a\"}}]}]}";

	ck_assert_int_eq(
		nest_file_write_atomic(AT_FDCWD, path, text, sizeof(text) - 1, 0600, NULL), 0);
	open_again();
	holds("1* ");
	ck_assert_int_eq(put(9, 100), 0);
	keeps("1 2* <1");
}
END_TEST

START_TEST(aliases_of_a_shadowed_function_wait)
{
	char file[] = "f";
	struct nest_config_function config = { .file = file, .line = 1, .spec = spec_of("", 9) };
	struct nest_registry_reload *reload = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(put(1, 100), 0);
	ck_assert_int_eq(put(2, 50), 0);
	ck_assert_int_eq(nest_registry_reload(registry, &config, 1, &reload, &err), 0);
	nest_registry_reload_commit(reload);
	holds("3* ");
	ck_assert_int_eq(set("beta", ONE("1"), &err), -EPERM);
	ck_assert_int_eq(nest_registry_reload(registry, NULL, 0, &reload, &err), 0);
	nest_registry_reload_commit(reload);
	holds("1*/ 2 live:1=50,2=50 <1");
	nest_function_free(config.spec);
}
END_TEST

NEST_SUITE_WITH("agent/registry_alias", enter, leave, a_version_gets_the_share_it_was_planned_with,
	aliases_are_kept_and_pin_their_versions, a_rollback_goes_back_and_forth_and_ends_a_canary,
	names_of_versions_and_aliases_are_apart, what_does_not_reach_the_disk_has_not_happened,
	damaged_names_are_refused, the_first_format_is_still_read,
	aliases_of_a_shadowed_function_wait)
