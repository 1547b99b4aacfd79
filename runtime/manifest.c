/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/jsonc.h"
#include "base/schema.h"
#include "runtime/function.h"

#define FILE_MAX ((size_t)256 * 1024)
#define SHIM "/runtime/preload/zeros.so"

/* One manifest and what it owns. */
struct loaded {
	struct nest_manifest manifest; /* first: both have one address */
	const char *const *interface_names;
	unsigned dir; /* how many directories were read before its own */
	cJSON *json;
	char *file;
	char *program;	     /* argv[0] where it was found */
	char *probe_program; /* probe[0] likewise */
	char *unavailable;
};

struct nest_manifests {
	struct loaded **list; /* by name */
	size_t n;
	const char **names;
	char *runtimes_dir;
};

/* ---- the table ---- */

static const char *const interface_words[] = {
	[NEST_FUNCTION_EVENT] = "event",
	[NEST_FUNCTION_HTTP] = "http",
	[NEST_FUNCTION_WSGI] = "wsgi",
	[NEST_FUNCTION_ASGI] = "asgi",
};

static int interface_index(const char *word)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(interface_words); i++) {
		if (strcmp(interface_words[i], word) == 0)
			return (int)i;
	}
	return -1;
}

static bool is_interface(const char *text)
{
	return interface_index(text) >= 0;
}

static bool is_env_name(const char *text)
{
	return *text && !strchr(text, '=');
}

static bool is_filled(const char *text)
{
	return *text != '\0';
}

#define AT(member) offsetof(struct loaded, manifest.member)

static const struct nest_schema_key keys[] = {
	{ .path = "name",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(name),
		.max = 32,
		.unit = "",
		.valid = nest_function_is_runtime,
		.form = "name of 1 to 32 characters A-Z a-z 0-9 . _ - that begins with no dot",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "description",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(description),
		.fallback = "\"\"",
		.max = 1024,
		.unit = "" },
	{ .path = "argv",
		.type = NEST_SCHEMA_STRINGS,
		.offset = AT(argv),
		.min = 1,
		.max = 256,
		.unit = "",
		.valid = is_filled,
		.form = "string that is not empty",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "env",
		.type = NEST_SCHEMA_MAP,
		.offset = AT(env),
		.fallback = "{}",
		.unit = "",
		.valid = is_env_name,
		.form = "a string without '='" },
	{ .path = "interfaces",
		.type = NEST_SCHEMA_STRINGS,
		.offset = offsetof(struct loaded, interface_names),
		.min = 1,
		.max = 4,
		.unit = "",
		.valid = is_interface,
		.form = "one of \"event\", \"http\", \"wsgi\", \"asgi\"",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "defaultHandler",
		.type = NEST_SCHEMA_STRING,
		.offset = AT(default_handler),
		.fallback = "\"\"",
		.max = 256,
		.unit = "" },
	{ .path = "concurrency.default",
		.type = NEST_SCHEMA_U32,
		.offset = AT(concurrency_default),
		.fallback = "1",
		.min = 1,
		.max = 10000,
		.unit = "requests" },
	{ .path = "concurrency.max",
		.type = NEST_SCHEMA_U32,
		.offset = AT(concurrency_max),
		.fallback = "10000",
		.min = 1,
		.max = 10000,
		.unit = "requests" },
	{ .path = "memoryMb.default",
		.type = NEST_SCHEMA_MIB,
		.offset = AT(memory_default_bytes),
		.fallback = "256",
		.min = 1,
		.max = 1 << 20,
		.unit = "MiB" },
	{ .path = "memoryMb.min",
		.type = NEST_SCHEMA_MIB,
		.offset = AT(memory_min_bytes),
		.fallback = "16",
		.min = 1,
		.max = 1 << 20,
		.unit = "MiB" },
	{ .path = "memory",
		.type = NEST_SCHEMA_ENUM,
		.offset = AT(memory),
		.fallback = "\"copied\"",
		.unit = "",
		.choices = "copied|mapped" },
	{ .path = "memoryShim",
		.type = NEST_SCHEMA_BOOL,
		.offset = AT(memory_shim),
		.fallback = "true",
		.unit = "" },
	{ .path = "snapshots",
		.type = NEST_SCHEMA_BOOL,
		.offset = AT(snapshots),
		.fallback = "false",
		.unit = "" },
	{ .path = "runtimeSnapshots",
		.type = NEST_SCHEMA_BOOL,
		.offset = AT(runtime_snapshots),
		.fallback = "false",
		.unit = "" },
	{ .path = "startEnv",
		.type = NEST_SCHEMA_STRINGS,
		.offset = AT(start_env),
		.fallback = "[]",
		.max = 64,
		.unit = "",
		.valid = is_env_name,
		.form = "a string without '=' that is not empty" },
	{ .path = "probe",
		.type = NEST_SCHEMA_STRINGS,
		.offset = AT(probe),
		.fallback = "[]",
		.max = 64,
		.unit = "",
		.valid = is_filled,
		.form = "string that is not empty" },
};

static const struct nest_schema schema = { keys, NEST_ARRAY_SIZE(keys), 0 };

const struct nest_schema *nest_manifest_schema(void)
{
	return &schema;
}

/* ---- placeholders ---- */

enum placeholder {
	PLACEHOLDER_FUNCTION,
	PLACEHOLDER_VERSION,
	PLACEHOLDER_HANDLER,
	PLACEHOLDER_CONCURRENCY,
	PLACEHOLDER_MEMORY,
	PLACEHOLDERS
};

static const char *const placeholders[PLACEHOLDERS] = {
	[PLACEHOLDER_FUNCTION] = "${function}",
	[PLACEHOLDER_VERSION] = "${version}",
	[PLACEHOLDER_HANDLER] = "${handler}",
	[PLACEHOLDER_CONCURRENCY] = "${concurrency}",
	[PLACEHOLDER_MEMORY] = "${memoryMb}",
};

/* Which placeholder @text begins with, or -1. */
static int placeholder_at(const char *text)
{
	for (int i = 0; i < PLACEHOLDERS; i++) {
		if (strncmp(text, placeholders[i], strlen(placeholders[i])) == 0)
			return i;
	}
	return -1;
}

/* The first "${" of @text that begins none that is known, or NULL. */
static const char *unknown_placeholder(const char *text)
{
	for (; (text = strstr(text, "${")); text++) {
		if (placeholder_at(text) < 0)
			return text;
	}
	return NULL;
}

static int check_placeholders(
	const char *path, const char *text, struct nest_schema_place *place, struct nest_err *err)
{
	const char *bad = unknown_placeholder(text);

	if (!bad)
		return 0;
	nest_schema_locate(place, "%s", path);
	return nest_err_say(err, -EINVAL,
		"'%s' has an unknown placeholder '%.*s': known are ${function}, ${version}, "
		"${handler}, ${concurrency} and ${memoryMb}",
		path, (int)strcspn(bad, "}") + 1, bad);
}

static int check_texts(
	const struct nest_manifest *manifest, struct nest_schema_place *place, struct nest_err *err)
{
	char path[NEST_SCHEMA_PLACE_MAX];
	int rc = 0;

	for (size_t i = 0; manifest->argv[i] && rc == 0; i++) {
		snprintf(path, sizeof(path), "argv[%zu]", i);
		rc = check_placeholders(path, manifest->argv[i], place, err);
	}
	for (size_t i = 0; manifest->env[i] && rc == 0; i++) {
		const char *pair = manifest->env[i];

		snprintf(path, sizeof(path), "env.%.*s", (int)strcspn(pair, "="), pair);
		rc = check_placeholders(path, pair, place, err);
	}
	return rc;
}

static int check_bounds(
	const struct nest_manifest *manifest, struct nest_schema_place *place, struct nest_err *err)
{
	if (manifest->concurrency_default > manifest->concurrency_max) {
		nest_schema_locate(place, "concurrency");
		return nest_err_say(err, -EINVAL,
			"'concurrency.default' is %" PRIu32
			", more than 'concurrency.max', %" PRIu32,
			manifest->concurrency_default, manifest->concurrency_max);
	}
	if (manifest->memory_default_bytes < manifest->memory_min_bytes) {
		nest_schema_locate(place, "memoryMb");
		return nest_err_say(err, -EINVAL,
			"'memoryMb.default' is %" PRIu64 ", less than 'memoryMb.min', %" PRIu64,
			manifest->memory_default_bytes >> 20, manifest->memory_min_bytes >> 20);
	}
	return 0;
}

/* ---- the program ---- */

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111);
}

static int find_bare(const char *name, char **ret_path)
{
	static const char *const dirs[] = { "/usr/local/bin", "/usr/bin", "/bin" };

	for (size_t i = 0; i < NEST_ARRAY_SIZE(dirs); i++) {
		nest_autofree char *path = NULL;

		if (asprintf(&path, "%s/%s", dirs[i], name) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		if (is_program(path)) {
			*ret_path = nest_take_ptr(path);
			return 0;
		}
	}
	return 1;
}

/* Where the host sees a program that a cell sees at @path; 1: it has it at hand itself. */
static int host_path(const char *runtimes_dir, const char *path, char **ret)
{
	if (strncmp(path, "/function/", 10) == 0)
		return 1;
	if (runtimes_dir && strncmp(path, "/runtime/", 9) == 0)
		return asprintf(ret, "%s/%s", runtimes_dir, path + 9) < 0 ? -ENOMEM : 0;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

static int mark_unavailable(struct loaded *loaded, const char *where)
{
	if (asprintf(&loaded->unavailable,
		    "runtime '%s' can't run here: no program '%s'%s; install it or correct argv in "
		    "'%s'",
		    loaded->manifest.name, loaded->manifest.argv[0], where, loaded->file) < 0) {
		loaded->unavailable = NULL;
		return -ENOMEM;
	}
	loaded->manifest.unavailable = loaded->unavailable;
	return 0;
}

/* Makes a bare name at the head of @command absolute; 1: it is nowhere. Any path is kept. */
static int resolve_bare(const char *const *command, char **ret_program)
{
	int rc;

	if (!command[0] || command[0][0] == '/')
		return 0;
	rc = find_bare(command[0], ret_program);
	if (rc == 0)
		*(const char **)command = *ret_program;
	return rc;
}

/* Makes argv[0] absolute, or notes why this runtime can't run. */
static int find_program(struct loaded *loaded, const char *runtimes_dir)
{
	const struct nest_manifest *manifest = &loaded->manifest;
	nest_autofree char *path = NULL;
	int rc;

	rc = resolve_bare(manifest->argv, &loaded->program);
	if (rc > 0)
		return mark_unavailable(loaded, " in /usr/local/bin, /usr/bin or /bin");
	if (rc == 0 && resolve_bare(manifest->probe, &loaded->probe_program) < 0)
		return -ENOMEM;
	if (rc == 0)
		rc = host_path(runtimes_dir, manifest->argv[0], &path);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	return is_program(path) ? 0 : mark_unavailable(loaded, "");
}

/*
 * What mapped memory needs lies beside the language sides; where it is not, as in a directory of
 * somebody's own, memory is copied, which is right for every program.
 */
static int find_shim(struct loaded *loaded, const char *runtimes_dir)
{
	struct nest_manifest *manifest = &loaded->manifest;
	nest_autofree char *path = NULL;
	int rc;

	if (!manifest->memory || !manifest->memory_shim)
		return 0;
	rc = host_path(runtimes_dir, SHIM, &path);
	if (rc < 0)
		return rc;
	if (access(path, R_OK) == 0)
		manifest->preload = SHIM;
	else
		manifest->memory = 0;
	return 0;
}

static int check_program(
	const struct nest_manifest *manifest, struct nest_schema_place *place, struct nest_err *err)
{
	const char *name = manifest->argv[0];

	if (!strstr(name, "${") && (name[0] == '/' || !strchr(name, '/')))
		return 0;
	nest_schema_locate(place, "argv[0]");
	return nest_err_say(err, -EINVAL,
		"'argv[0]' must be an absolute path or a bare name without placeholders, not "
		"\"%.80s\"",
		name);
}

/* ---- one file ---- */

static void free_loaded(struct loaded *loaded)
{
	if (!loaded)
		return;
	nest_schema_release(&schema, loaded, loaded->json);
	free(loaded->file);
	free(loaded->program);
	free(loaded->probe_program);
	free(loaded->unavailable);
	free(loaded);
}

static void cleanup_loaded(struct loaded **loaded)
{
	free_loaded(*loaded);
}
#define autoloaded __attribute__((cleanup(cleanup_loaded)))

static int fill(struct loaded *loaded, const cJSON *object, const char *runtimes_dir,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_manifest *manifest = &loaded->manifest;
	int rc;

	rc = nest_schema_read(&schema, object, NULL, loaded, &loaded->json, place, err);
	if (rc == 0)
		rc = check_program(manifest, place, err);
	if (rc == 0)
		rc = check_texts(manifest, place, err);
	if (rc == 0)
		rc = check_bounds(manifest, place, err);
	if (rc < 0)
		return rc;
	for (const char *const *word = loaded->interface_names; *word; word++)
		manifest->interfaces |= 1u << interface_index(*word);
	if (find_program(loaded, runtimes_dir) < 0 || find_shim(loaded, runtimes_dir) < 0)
		return nest_err_set(err, -ENOMEM, "look for '%s'", manifest->argv[0]);
	return 0;
}

static int load_file(
	const char *path, const char *runtimes_dir, struct loaded **ret, struct nest_err *err)
{
	autoloaded struct loaded *loaded = calloc(1, sizeof(*loaded));
	struct nest_schema_place place = { .path = "" };
	nest_autojson cJSON *object = NULL;
	nest_autofree char *text = NULL;
	size_t n;
	int rc;

	if (loaded)
		loaded->file = strdup(path);
	if (!loaded || !loaded->file)
		return nest_err_set(err, -ENOMEM, "read '%s'", path);
	loaded->manifest.file = loaded->file;
	rc = nest_file_read(AT_FDCWD, path, FILE_MAX, &text, &n, err);
	if (rc < 0)
		return rc;
	rc = nest_jsonc_parse(text, n, &object, err);
	if (rc < 0) {
		nest_err_wrap(err, "%s", path);
		return rc;
	}
	rc = fill(loaded, object, runtimes_dir, &place, err);
	if (rc < 0) {
		nest_schema_blame(err, path, text, n, &place);
		return rc;
	}
	*ret = nest_take_ptr(loaded);
	return 0;
}

/* ---- the set ---- */

static int insert_at(struct nest_manifests *set, size_t at, struct loaded *loaded)
{
	struct loaded **list = realloc(set->list, (set->n + 1) * sizeof(*list));

	if (!list)
		return -ENOMEM;
	memmove(list + at + 1, list + at, (set->n - at) * sizeof(*list));
	list[at] = loaded;
	set->list = list;
	set->n++;
	return 0;
}

/* Adds @loaded in its place, or in that of an earlier directory's. Takes it where it succeeds. */
static int add(struct nest_manifests *set, struct loaded *loaded, struct nest_err *err)
{
	struct loaded *old;
	size_t at = 0;

	while (at < set->n && strcmp(set->list[at]->manifest.name, loaded->manifest.name) < 0)
		at++;
	old = at < set->n ? set->list[at] : NULL;
	if (!old || strcmp(old->manifest.name, loaded->manifest.name) != 0) {
		if (insert_at(set, at, loaded) < 0)
			return nest_err_set(err, -ENOMEM, "add '%s'", loaded->file);
		return 0;
	}
	if (old->dir == loaded->dir)
		return nest_err_say(err, -EINVAL,
			"runtime '%s' is described twice: in '%s' and '%s'", loaded->manifest.name,
			old->file, loaded->file);
	set->list[at] = loaded;
	free_loaded(old);
	return 0;
}

static int is_manifest(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

static int load_entry(struct nest_manifests *set, const char *dir, const char *name, unsigned index,
	struct nest_err *err)
{
	autoloaded struct loaded *loaded = NULL;
	nest_autofree char *path = NULL;
	int rc;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		path = NULL;
		return nest_err_set(err, -ENOMEM, "read '%s'", name);
	}
	rc = load_file(path, set->runtimes_dir, &loaded, err);
	if (rc < 0)
		return rc;
	loaded->dir = index;
	rc = add(set, loaded, err);
	if (rc < 0)
		return rc;
	loaded = NULL;
	return 0;
}

static int load_dir(
	struct nest_manifests *set, const char *dir, unsigned index, struct nest_err *err)
{
	struct dirent **entries = NULL;
	int n = scandir(dir, &entries, is_manifest, alphasort);
	int rc = 0;

	if (n < 0)
		return nest_err_set(err, -errno, "read runtime manifests in '%s'", dir);
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = load_entry(set, dir, entries[i]->d_name, index, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

static int load_shipped(struct nest_manifests *set, const char *runtimes_dir, struct nest_err *err)
{
	nest_autofree char *dir = NULL;

	set->runtimes_dir = strdup(runtimes_dir);
	if (!set->runtimes_dir || asprintf(&dir, "%s/manifests", runtimes_dir) < 0) {
		dir = NULL;
		return nest_err_set(err, -ENOMEM, "read runtime manifests");
	}
	return load_dir(set, dir, 0, err);
}

static int list_names(struct nest_manifests *set, struct nest_err *err)
{
	set->names = calloc(set->n + 1, sizeof(*set->names));
	if (!set->names)
		return nest_err_set(err, -ENOMEM, "list runtimes");
	for (size_t i = 0; i < set->n; i++)
		set->names[i] = set->list[i]->manifest.name;
	return 0;
}

int nest_manifests_load(const char *runtimes_dir, const char *const *dirs,
	struct nest_manifests **ret, struct nest_err *err)
{
	struct nest_manifests *set = calloc(1, sizeof(*set));
	int rc = 0;

	if (!set)
		return nest_err_set(err, -ENOMEM, "read runtime manifests");
	if (runtimes_dir)
		rc = load_shipped(set, runtimes_dir, err);
	for (unsigned i = 0; rc == 0 && dirs && dirs[i]; i++)
		rc = load_dir(set, dirs[i], i + 1, err);
	if (rc == 0)
		rc = list_names(set, err);
	if (rc < 0) {
		nest_manifests_free(set);
		return rc;
	}
	*ret = set;
	return 0;
}

void nest_manifests_free(struct nest_manifests *manifests)
{
	if (!manifests)
		return;
	for (size_t i = 0; i < manifests->n; i++)
		free_loaded(manifests->list[i]);
	free(manifests->list);
	free(manifests->names);
	free(manifests->runtimes_dir);
	free(manifests);
}

const struct nest_manifest *nest_manifests_find(
	const struct nest_manifests *manifests, const char *name)
{
	for (size_t i = 0; i < manifests->n; i++) {
		if (strcmp(manifests->list[i]->manifest.name, name) == 0)
			return &manifests->list[i]->manifest;
	}
	return NULL;
}

const char *const *nest_manifests_names(const struct nest_manifests *manifests)
{
	return manifests->names;
}

/* ---- settling a spec ---- */

static int refuse_unknown_runtime(
	const struct nest_manifests *set, const char *name, struct nest_err *err)
{
	char known[256];
	size_t used = 0;

	known[0] = '\0';
	for (size_t i = 0; i < set->n && used < sizeof(known); i++)
		used += (size_t)snprintf(
			known + used, sizeof(known) - used, "%s'%s'", i ? ", " : "", set->names[i]);
	return nest_err_say(err, -ENOENT, "no runtime '%s'; there %s %s", name,
		set->n == 1 ? "is" : "are", set->n ? known : "none: see runtimes.manifestDirs");
}

static int check_interface(const struct nest_manifest *manifest,
	const struct nest_function_spec *spec, struct nest_err *err)
{
	if (manifest->interfaces & (1u << spec->interface))
		return 0;
	return nest_err_say(err, -EINVAL, "runtime '%s' has no interface '%s'", manifest->name,
		interface_words[spec->interface]);
}

static int check_values(const struct nest_manifest *manifest,
	const struct nest_manifest_values *values, struct nest_err *err)
{
	if (!*values->handler)
		return nest_err_say(err, -EINVAL,
			"'handler' is missing: runtime '%s' has no default one", manifest->name);
	if (values->concurrency > manifest->concurrency_max)
		return nest_err_say(err, -EINVAL,
			"'concurrency' is %" PRIu32 ", runtime '%s' takes %" PRIu32 " at most",
			values->concurrency, manifest->name, manifest->concurrency_max);
	if (values->memory_bytes < manifest->memory_min_bytes)
		return nest_err_say(err, -EINVAL,
			"'memoryMb' is %" PRIu64 ", runtime '%s' needs at least %" PRIu64,
			values->memory_bytes >> 20, manifest->name,
			manifest->memory_min_bytes >> 20);
	return 0;
}

int nest_manifests_settle(const struct nest_manifests *manifests,
	const struct nest_function_spec *spec, const struct nest_manifest **ret_manifest,
	struct nest_manifest_values *ret, struct nest_err *err)
{
	const struct nest_manifest *manifest = nest_manifests_find(manifests, spec->runtime);
	struct nest_manifest_values values;
	int rc;

	if (!manifest)
		return refuse_unknown_runtime(manifests, spec->runtime, err);
	if (manifest->unavailable)
		return nest_err_say(err, -ENOEXEC, "%s", manifest->unavailable);
	values = (struct nest_manifest_values){
		.function = spec->name,
		.version = spec->version,
		.handler = *spec->handler ? spec->handler : manifest->default_handler,
		.concurrency = spec->reuse_never   ? 1
			       : spec->concurrency ? spec->concurrency
						   : manifest->concurrency_default,
		.memory_bytes =
			spec->memory_bytes ? spec->memory_bytes : manifest->memory_default_bytes,
	};
	rc = check_interface(manifest, spec, err);
	if (rc == 0)
		rc = check_values(manifest, &values, err);
	if (rc < 0)
		return rc;
	if (ret_manifest)
		*ret_manifest = manifest;
	*ret = values;
	return 0;
}
