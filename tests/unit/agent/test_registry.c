/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/registry.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "runtime/function.h"
#include "tests/unit/suite.h"

static char dir[64], path[100];

static void set_up(void)
{
	snprintf(dir, sizeof(dir), "/tmp/nest-registry-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/registry.json", dir);
}

static void tear_down(void)
{
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

static struct nest_registry *open_registry(uint32_t keep)
{
	struct nest_registry *registry = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(
		nest_registry_open(path, keep, &registry, &err) == 0, "%s", nest_err_text(&err));
	return registry;
}

/* A spec that differs from others by @pids. */
static struct nest_function_spec *spec_of(const char *name, const char *version, unsigned pids)
{
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *object = NULL;
	char text[256];

	snprintf(text, sizeof(text),
		"{\"name\":\"%s\",\"version\":\"%s\",\"runtime\":\"x\",\"pids\":%u,"
		"\"code\":{\"path\":\"/a\"}}",
		name, version, pids);
	ck_assert_int_eq(nest_json_parse(text, strlen(text), &object, NULL), 0);
	ck_assert_int_eq(nest_function_parse(object, NULL, &spec, NULL), 0);
	return spec;
}

static int plan(struct nest_registry *registry, const char *name, const char *version,
	unsigned pids, struct nest_registry_plan **ret_plan, struct nest_registry_entry *ret_entry,
	struct nest_err *err)
{
	struct nest_function_spec *spec = spec_of(name, version, pids);
	int rc = nest_registry_plan(registry, spec, ret_plan, ret_entry, err);

	nest_function_free(spec);
	return rc;
}

static void note_dropped(void *arg, const char *name, const char *version)
{
	ck_assert_int_eq(nest_buf_printf(arg, "%s:%s ", name, version), 0);
}

/* Plans and commits; @dropped (may be NULL) hears what fell out. */
static void put(struct nest_registry *registry, const char *name, const char *version,
	unsigned pids, struct nest_buf *dropped)
{
	struct nest_registry_plan *pending = NULL;
	struct nest_registry_entry entry;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(plan(registry, name, version, pids, &pending, &entry, &err) == 0, "%s",
		nest_err_text(&err));
	ck_assert_msg(
		nest_registry_commit(pending, dropped ? note_dropped : NULL, dropped, &err) == 0,
		"%s", nest_err_text(&err));
}

static bool note_entry(void *arg, const struct nest_registry_entry *entry)
{
	ck_assert_int_eq(
		nest_buf_printf(arg, "%s:%s=%u%s%s ", entry->spec->name, entry->spec->version,
			entry->spec->pids, entry->live ? "*" : "", entry->file ? "@" : ""),
		0);
	return true;
}

/* The registry holds "name:version=pids" with '*' where live and '@' where the config's. */
static void holds(struct nest_registry *registry, const char *wanted)
{
	struct nest_buf buf = NEST_BUF_INIT;
	nest_autofree char *text = NULL;

	nest_registry_each(registry, note_entry, &buf);
	text = nest_buf_take_string(&buf);
	ck_assert_str_eq(text, wanted);
}

/* The same, before and after the registry is opened anew. */
static void keeps(struct nest_registry **registry, const char *wanted)
{
	holds(*registry, wanted);
	nest_registry_free(*registry);
	*registry = open_registry(10);
	holds(*registry, wanted);
}

START_TEST(versions_are_numbered_and_kept)
{
	struct nest_registry *registry;
	struct nest_registry_entry entry;

	set_up();
	registry = open_registry(10);
	holds(registry, "");
	put(registry, "b", "", 1, NULL);
	put(registry, "a", "", 1, NULL);
	put(registry, "b", "", 2, NULL);
	put(registry, "b", "rc.1", 3, NULL);
	put(registry, "b", "", 4, NULL);
	put(registry, "b", "7", 5, NULL);
	put(registry, "b", "", 6, NULL);
	keeps(&registry, "a:1=1* b:1=1 b:2=2 b:rc.1=3 b:3=4 b:7=5 b:8=6* ");
	ck_assert_int_eq(nest_registry_find(registry, "b", NULL, &entry), 0);
	ck_assert_str_eq(entry.spec->version, "8");
	ck_assert(entry.live);
	ck_assert_int_eq(nest_registry_find(registry, "b", "rc.1", &entry), 0);
	ck_assert_uint_eq(entry.spec->pids, 3);
	ck_assert_int_eq(nest_registry_find(registry, "b", "9", &entry), 1);
	ck_assert_int_eq(nest_registry_find(registry, "c", NULL, &entry), 1);
	nest_registry_free(registry);
	nest_registry_free(NULL);
	tear_down();
}
END_TEST

START_TEST(the_same_spec_again_is_nothing_new)
{
	struct nest_registry_plan *pending = NULL;
	struct nest_registry_entry entry;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	put(registry, "a", "", 1, NULL);
	put(registry, "a", "", 2, NULL);
	ck_assert_int_eq(plan(registry, "a", "", 2, &pending, &entry, NULL), 1);
	ck_assert_str_eq(entry.spec->version, "2");
	ck_assert_int_eq(plan(registry, "a", "1", 1, &pending, &entry, NULL), 1);
	ck_assert_str_eq(entry.spec->version, "1");
	ck_assert(!entry.live);
	ck_assert_ptr_null(pending);
	put(registry, "a", "", 1, NULL); /* equal to an older one is a new version */
	holds(registry, "a:1=1 a:2=2 a:3=1* ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(a_version_never_changes)
{
	struct nest_registry_plan *pending = NULL;
	struct nest_registry_entry entry;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	put(registry, "a", "x", 1, NULL);
	ck_assert_int_eq(plan(registry, "a", "x", 2, &pending, &entry, &err), -EEXIST);
	ck_assert_str_eq(nest_err_text(&err),
		"version 'x' of function 'a' stands with another spec, and versions don't change: "
		"deploy under a new version, or leave the version out");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(one_deployment_of_a_name_is_under_way_at_once)
{
	struct nest_registry_plan *first = NULL, *second = NULL;
	struct nest_registry_entry entry;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	put(registry, "a", "", 1, NULL);
	ck_assert_int_eq(plan(registry, "a", "", 2, &first, &entry, NULL), 0);
	ck_assert_str_eq(nest_registry_plan_spec(first)->version, "2");
	ck_assert_int_eq(plan(registry, "a", "", 3, &second, &entry, NULL), -EBUSY);
	ck_assert_int_eq(nest_registry_remove(registry, "a", NULL, NULL), -EBUSY);
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "1", NULL), -EBUSY);
	put(registry, "b", "", 1, NULL);
	holds(registry, "a:1=1* b:1=1* ");
	nest_registry_abandon(first);
	nest_registry_abandon(NULL);
	keeps(&registry, "a:1=1* b:1=1* ");
	put(registry, "a", "", 3, NULL);
	holds(registry, "a:1=1 a:2=3* b:1=1* ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(old_versions_are_dropped_but_never_the_live_one)
{
	struct nest_buf dropped = NEST_BUF_INIT;
	nest_autofree char *text = NULL;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(3);
	for (unsigned i = 1; i <= 5; i++)
		put(registry, "a", "", i, &dropped);
	keeps(&registry, "a:3=3 a:4=4 a:5=5* ");
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "3", NULL), 0);
	keeps(&registry, "a:3=3* a:4=4 a:5=5 ");
	nest_registry_set_keep(registry, 1);
	put(registry, "a", "", 6, &dropped);
	keeps(&registry, "a:6=6* ");
	text = nest_buf_take_string(&dropped);
	ck_assert_str_eq(text, "a:1 a:2 a:3 a:4 a:5 ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(versions_and_functions_are_removed)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	for (unsigned i = 1; i <= 4; i++)
		put(registry, "a", "", i, NULL);
	put(registry, "b", "", 1, NULL);
	ck_assert_int_eq(nest_registry_remove(registry, "a", "9", &err), 1);
	ck_assert_int_eq(nest_registry_remove(registry, "c", NULL, &err), 1);
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "9", &err), 1);
	ck_assert_int_eq(nest_registry_set_live(registry, "c", "1", &err), 1);
	ck_assert_int_eq(nest_registry_remove(registry, "a", "4", &err), -EBUSY);
	ck_assert_str_eq(nest_err_text(&err),
		"version '4' of function 'a' is live: deploy another one first, or remove the "
		"whole function");
	ck_assert_int_eq(nest_registry_remove(registry, "a", "2", &err), 0);
	keeps(&registry, "a:1=1 a:3=3 a:4=4* b:1=1* ");
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "1", &err), 0);
	ck_assert_int_eq(nest_registry_remove(registry, "a", "4", &err), 0);
	put(registry, "a", "", 5, NULL); /* a number is not used twice */
	keeps(&registry, "a:1=1 a:3=3 a:5=5* b:1=1* ");
	ck_assert_int_eq(nest_registry_remove(registry, "b", "1", &err), 0);
	ck_assert_int_eq(nest_registry_remove(registry, "a", NULL, &err), 0);
	keeps(&registry, "");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

/* A path that can't be renamed to any more: a directory stands there. */
static void block_the_file(void)
{
	char inside[120];

	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(inside, sizeof(inside), "%s/x", path);
	ck_assert_int_eq(mkdir(inside, 0700), 0);
}

START_TEST(what_does_not_reach_the_disk_has_not_happened)
{
	struct nest_registry_plan *pending = NULL;
	struct nest_buf dropped = NEST_BUF_INIT;
	struct nest_registry_entry entry;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(2);
	for (unsigned i = 1; i <= 2; i++)
		put(registry, "a", "", i, NULL);
	block_the_file();
	ck_assert_int_eq(plan(registry, "a", "", 3, &pending, &entry, NULL), 0);
	ck_assert_int_lt(nest_registry_commit(pending, note_dropped, &dropped, &err), 0);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "write the registry: "));
	ck_assert_int_eq(plan(registry, "b", "", 1, &pending, &entry, NULL), 0);
	ck_assert_int_lt(nest_registry_commit(pending, note_dropped, &dropped, &err), 0);
	ck_assert_int_lt(nest_registry_set_live(registry, "a", "1", &err), 0);
	ck_assert_int_lt(nest_registry_remove(registry, "a", "1", &err), 0);
	ck_assert_int_lt(nest_registry_remove(registry, "a", NULL, &err), 0);
	holds(registry, "a:1=1 a:2=2* ");
	ck_assert_uint_eq(dropped.len, 0);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, path, NULL), 0);
	put(registry, "a", "", 3, NULL);
	holds(registry, "a:2=2 a:3=3* ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

/* ---- the config's part ---- */

struct given {
	const char *name;
	const char *version;
	unsigned pids;
};

static void note_change(
	void *arg, enum nest_registry_change change, const struct nest_function_spec *spec)
{
	static const char signs[] = { [NEST_REGISTRY_DEPLOY] = '+',
		[NEST_REGISTRY_REMOVE] = '-',
		[NEST_REGISTRY_SET_LIVE] = '*' };

	ck_assert_int_eq(
		nest_buf_printf(arg, "%c%s:%s ", signs[change], spec->name, spec->version), 0);
}

static int reload(struct nest_registry *registry, const struct given *given, size_t n,
	struct nest_registry_reload **ret, struct nest_err *err)
{
	struct nest_config_function functions[4] = { { .spec = NULL } };
	static char file[] = "conf";
	int rc;

	for (size_t i = 0; i < n; i++)
		functions[i] = (struct nest_config_function){
			.spec = spec_of(given[i].name, given[i].version, given[i].pids),
			.file = file,
			.line = (unsigned)i + 1,
		};
	rc = nest_registry_reload(registry, functions, n, ret, err);
	for (size_t i = 0; i < n; i++)
		nest_function_free(functions[i].spec);
	return rc;
}

/* Reloads, and @changes are what it says that must be done. */
static void reloads(
	struct nest_registry *registry, const struct given *given, size_t n, const char *changes)
{
	struct nest_registry_reload *pending = NULL;
	struct nest_buf buf = NEST_BUF_INIT;
	nest_autofree char *text = NULL;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(reload(registry, given, n, &pending, &err) == 0, "%s", nest_err_text(&err));
	nest_registry_reload_each(pending, note_change, &buf);
	text = nest_buf_take_string(&buf);
	ck_assert_str_eq(text, changes);
	nest_registry_reload_commit(pending);
}

START_TEST(a_reload_says_what_changes)
{
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	reloads(registry, (struct given[]){ { "a", "", 1 }, { "b", "x", 1 } }, 2,
		"+a:1 +b:x *a:1 *b:x ");
	holds(registry, "a:1=1*@ b:x=1*@ ");
	reloads(registry, (struct given[]){ { "a", "", 1 }, { "b", "x", 1 } }, 2, "");
	reloads(registry, (struct given[]){ { "a", "", 2 }, { "b", "x", 1 } }, 2,
		"-a:1 +a:2 *a:2 ");
	reloads(registry, (struct given[]){ { "b", "x", 1 }, { "b", "y", 2 } }, 2,
		"-a:2 +b:y *b:y ");
	reloads(registry, (struct given[]){ { "b", "y", 2 }, { "b", "x", 1 } }, 2, "*b:x ");
	reloads(registry, NULL, 0, "-b:y -b:x ");
	holds(registry, "");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(a_reload_is_all_or_nothing)
{
	struct nest_registry_reload *pending = NULL;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	reloads(registry, (struct given[]){ { "a", "x", 1 } }, 1, "+a:x *a:x ");
	ck_assert_int_eq(reload(registry, (struct given[]){ { "b", "", 1 }, { "a", "x", 2 } }, 2,
				 &pending, &err),
		-EEXIST);
	ck_assert_str_eq(nest_err_text(&err),
		"conf: line 2: version 'x' of function 'a' stands with another spec, and versions "
		"don't change: give it another version, or leave the version out");
	ck_assert_int_eq(reload(registry, (struct given[]){ { "b", "", 1 }, { "b", "1", 2 } }, 2,
				 &pending, &err),
		-EEXIST);
	ck_assert_ptr_null(pending);
	ck_assert_int_eq(
		reload(registry, (struct given[]){ { "c", "", 1 } }, 1, &pending, &err), 0);
	nest_registry_reload_abandon(pending);
	nest_registry_reload_abandon(NULL);
	holds(registry, "a:x=1*@ ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(what_the_config_owns_is_changed_there)
{
	struct nest_registry_plan *pending = NULL;
	struct nest_registry_entry entry;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	reloads(registry, (struct given[]){ { "a", "", 1 } }, 1, "+a:1 *a:1 ");
	ck_assert_int_eq(plan(registry, "a", "", 2, &pending, &entry, &err), -EPERM);
	ck_assert_str_eq(nest_err_text(&err),
		"function 'a' is set in 'conf' line 1: change it there and reload");
	ck_assert_int_eq(nest_registry_remove(registry, "a", NULL, NULL), -EPERM);
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "1", NULL), -EPERM);
	ck_assert_int_eq(plan(registry, "b", "", 2, &pending, &entry, &err), 0);
	reloads(registry, (struct given[]){ { "a", "", 1 }, { "b", "", 1 } }, 2, "+b:1 *b:1 ");
	ck_assert_int_eq(nest_registry_commit(pending, NULL, NULL, &err), -EPERM);
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(a_shadowed_function_comes_back)
{
	struct nest_buf names = NEST_BUF_INIT;
	nest_autofree char *text = NULL;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	put(registry, "a", "", 1, NULL);
	put(registry, "a", "", 2, NULL);
	put(registry, "c", "", 1, NULL);
	ck_assert_int_eq(nest_registry_set_live(registry, "a", "1", NULL), 0);
	reloads(registry, (struct given[]){ { "a", "", 3 }, { "b", "", 1 } }, 2,
		"-a:1 -a:2 +a:3 +b:1 *a:3 *b:1 ");
	holds(registry, "a:3=3*@ b:1=1*@ c:1=1* ");
	ck_assert_int_eq(nest_registry_shadowed(registry, &names), 1);
	text = nest_buf_take_string(&names);
	ck_assert_str_eq(text, "a");
	put(registry, "c", "", 2, NULL); /* written with the shadowed one in it */
	reloads(registry, NULL, 0, "-a:3 -b:1 +a:1 +a:2 *a:1 ");
	keeps(&registry, "a:1=1* a:2=2 c:1=1 c:2=2* ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

/* ---- damage ---- */

static void refuses(const char *text, const char *message)
{
	struct nest_registry *registry = NULL;
	struct nest_err err = NEST_ERR_INIT;
	nest_autofree char *after = NULL;
	char wanted[512];

	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, NULL), 0);
	ck_assert_int_eq(nest_registry_open(path, 10, &registry, &err), -EINVAL);
	ck_assert_ptr_null(registry);
	snprintf(wanted, sizeof(wanted),
		"read the registry: %s: %s; restore the file from a backup, or move it away to "
		"start without the functions that were deployed through the admin API",
		path, message);
	ck_assert_str_eq(nest_err_text(&err), wanted);
	ck_assert_int_eq(nest_file_read(AT_FDCWD, path, 1 << 20, &after, NULL, NULL), 0);
	ck_assert_str_eq(after, text);
}

#define RECORD(versions)                                                                           \
	"{\"format\":1,\"functions\":[\n{\"name\":\"a\",\"live\":\"1\",\"next\":2,\n\"versions\":" \
	"[" versions "]}]}"
#define SPEC(name) \
	"{\"name\":\"" name "\",\"version\":\"1\",\"runtime\":\"x\",\"code\":{\"path\":\"/a\"}}"

START_TEST(a_damaged_file_is_named_and_left_alone)
{
	set_up();
	refuses("", "line 1, column 1: no JSON value, only white space");
	refuses("{\"format\":1,\n\"functions\":[",
		"line 2, column 13: the JSON value ends too early");
	refuses("{\"functions\":[]}", "line 1: 'format' is missing");
	refuses("{\n\"format\":3,\"functions\":[]}",
		"line 2: format 3 is of a newer Nestlet, this one knows formats up to 2");
	refuses("{\"format\":1,\n\"functions\":{}}",
		"line 2: 'functions' must be an array of objects, not an object");
	refuses(RECORD(""), "line 2: 'live' names no version of 'a': '1'");
	refuses(RECORD(SPEC("b")), "line 3: the spec of 'b' among the versions of 'a'");
	refuses(RECORD(SPEC("a") ",\n" SPEC("a")),
		"line 4: version '1' of 'a' is empty or repeated");
	refuses(RECORD("{\"name\":\"a\",\n\"memory\":1}"),
		"line 4: unknown key 'memory', did you mean 'memoryMb'?");
	tear_down();
}
END_TEST

START_TEST(what_a_crash_left_half_written_is_swept)
{
	struct nest_registry *registry;
	char left[128], other[128];

	set_up();
	registry = open_registry(10);
	put(registry, "a", "", 1, NULL);
	nest_registry_free(registry);
	snprintf(left, sizeof(left), "%s/.nest-0123456789abcdef.tmp", dir);
	snprintf(other, sizeof(other), "%s/.nest-other", dir);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, left, "{\"for", 5, 0600, NULL), 0);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, other, "x", 1, 0600, NULL), 0);
	registry = open_registry(10);
	holds(registry, "a:1=1* ");
	ck_assert_int_lt(access(left, F_OK), 0);
	ck_assert_int_eq(access(other, F_OK), 0);
	nest_registry_free(registry);
	tear_down();
}
END_TEST

/* Commits versions for ever, and writes the number of each that stands. */
static void commit_for_ever(int out)
{
	struct nest_registry *registry = open_registry(3);
	struct nest_registry_entry entry;
	unsigned n = nest_registry_find(registry, "a", NULL, &entry) == 0 ? entry.spec->pids : 0;

	for (;;) {
		n++;
		put(registry, "a", "", n, NULL);
		if (write(out, &n, sizeof(n)) != sizeof(n))
			_exit(0);
	}
}

/* Kills a writer after @commits commits at some moment; the last number it told. */
static unsigned kill_a_writer(unsigned commits, useconds_t later_us)
{
	unsigned told = 0, n;
	int fds[2];
	pid_t pid;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(fds[0]);
		commit_for_ever(fds[1]);
	}
	close(fds[1]);
	for (unsigned i = 0; i < commits; i++)
		ck_assert_int_eq(read(fds[0], &told, sizeof(told)), sizeof(told));
	usleep(later_us); /* not to wait for anything: to hit another moment each time */
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		told = n;
	close(fds[0]);
	return told;
}

START_TEST(a_killed_writer_leaves_the_last_state_or_the_next)
{
	set_up();
	for (unsigned round = 0; round < 20; round++) {
		unsigned told = kill_a_writer(1 + round % 3, round * 137 % 1000);
		struct nest_registry *registry = open_registry(3);
		struct nest_registry_entry entry;

		ck_assert_int_eq(nest_registry_find(registry, "a", NULL, &entry), 0);
		ck_assert_uint_ge(entry.spec->pids, told);
		ck_assert_uint_le(entry.spec->pids, told + 1);
		ck_assert_uint_eq(strtoul(entry.spec->version, NULL, 10), entry.spec->pids);
		nest_registry_free(registry);
	}
	tear_down();
}
END_TEST

/* ---- the scaler's part ---- */

static void note_refused(void *arg, size_t i, const struct nest_err *why)
{
	ck_assert_int_eq(nest_buf_printf(arg, "%zu: %.30s; ", i, nest_err_text(why)), 0);
}

/* Places @given, where pids 0 is a spec that could not be read; @refused as told, @changes as needed. */
static struct nest_registry_reload *place(struct nest_registry *registry, const struct given *given,
	size_t n, const char *refused, const char *changes)
{
	struct nest_registry_placement placements[8] = { { .spec = NULL } };
	struct nest_registry_reload *pending = NULL;
	struct nest_buf told = NEST_BUF_INIT, changed = NEST_BUF_INIT;
	nest_autofree char *text = NULL;
	nest_autofree char *more = NULL;

	for (size_t i = 0; i < n; i++)
		placements[i] = (struct nest_registry_placement){ .name = given[i].name,
			.spec = given[i].pids
					? spec_of(given[i].name, given[i].version, given[i].pids)
					: NULL };
	ck_assert_int_eq(
		nest_registry_place(registry, placements, n, note_refused, &told, &pending, NULL),
		0);
	for (size_t i = 0; i < n; i++)
		nest_function_free((struct nest_function_spec *)placements[i].spec);
	nest_registry_reload_each(pending, note_change, &changed);
	text = nest_buf_take_string(&told);
	more = nest_buf_take_string(&changed);
	ck_assert_str_eq(text, refused);
	ck_assert_str_eq(more, changes);
	return pending;
}

START_TEST(what_the_scaler_places_counts_last)
{
	static const struct given given[] = { { "a", "1", 5 }, { "b", "s", 6 } };
	struct nest_registry_plan *pending = NULL;
	struct nest_registry_entry entry;
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	put(registry, "a", "", 1, NULL);
	nest_registry_reload_commit(place(registry, given, 2, "", "+b:s *b:s "));
	holds(registry, "a:1=1* b:s=6* ");
	ck_assert_int_eq(nest_registry_find(registry, "b", NULL, &entry), 0);
	ck_assert_str_eq(nest_registry_owner_name(entry.owner), "scaler");
	ck_assert_int_eq(plan(registry, "b", "", 1, &pending, &entry, NULL), -EREMOTE);
	ck_assert_int_eq(nest_registry_remove(registry, "b", NULL, NULL), -EREMOTE);
	/* the admin API may go on with its own, and let it go */
	put(registry, "a", "", 2, NULL);
	ck_assert_int_eq(nest_registry_remove(registry, "a", NULL, NULL), 0);
	holds(registry, "a:1=5* b:s=6* ");
	nest_registry_reload_commit(place(registry, given, 0, "", "-a:1 -b:s "));
	keeps(&registry, "");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(a_placement_that_is_wrong_leaves_what_stands)
{
	static const struct given first[] = { { "a", "1", 1 }, { "a", "2", 2 }, { "b", "1", 3 },
		{ "c", "1", 4 } };
	/* a:1 comes with another spec, b can't be read, c stays as it is, one has no name */
	static const struct given second[] = { { "a", "1", 9 }, { "a", "3", 2 }, { "b", "1", 0 },
		{ "c", "1", 4 }, { "", "", 0 } };
	static const struct given third[] = { { "a", "", 1 } };
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	nest_registry_reload_commit(
		place(registry, first, 4, "", "+a:1 +a:2 +b:1 +c:1 *a:2 *b:1 *c:1 "));
	holds(registry, "a:1=1 a:2=2* b:1=3* c:1=4* ");
	nest_registry_reload_commit(
		place(registry, second, 5, "0: version '1' of function 'a' st; ", "+a:3 *a:3 "));
	holds(registry, "a:3=2* a:1=1 a:2=2 b:1=3* c:1=4* ");
	nest_registry_reload_abandon(
		place(registry, third, 1, "0: function 'a' has no version: a; ", "-b:1 -c:1 "));
	nest_registry_free(registry);
	tear_down();
}
END_TEST

START_TEST(the_scaler_keeps_no_host_from_its_config)
{
	static const struct given given[] = { { "a", "1", 1 } }, other[] = { { "a", "1", 2 } };
	struct nest_registry *registry;

	set_up();
	registry = open_registry(10);
	nest_registry_reload_commit(place(registry, given, 1, "", "+a:1 *a:1 "));
	reloads(registry, other, 1, "+a:1 *a:1 ");
	holds(registry, "a:1=2*@ ");
	reloads(registry, other, 0, "+a:1 *a:1 ");
	holds(registry, "a:1=1* ");
	nest_registry_free(registry);
	tear_down();
}
END_TEST

NEST_SUITE("agent/registry", versions_are_numbered_and_kept, the_same_spec_again_is_nothing_new,
	a_version_never_changes, one_deployment_of_a_name_is_under_way_at_once,
	old_versions_are_dropped_but_never_the_live_one, versions_and_functions_are_removed,
	what_does_not_reach_the_disk_has_not_happened, a_reload_says_what_changes,
	a_reload_is_all_or_nothing, what_the_config_owns_is_changed_there,
	a_shadowed_function_comes_back, a_damaged_file_is_named_and_left_alone,
	what_a_crash_left_half_written_is_swept, what_the_scaler_places_counts_last,
	a_placement_that_is_wrong_leaves_what_stands, the_scaler_keeps_no_host_from_its_config,
	a_killed_writer_leaves_the_last_state_or_the_next)
