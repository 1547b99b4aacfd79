/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/registry_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/schema.h"
#include "runtime/alias.h"
#include "runtime/function.h"

/*
 * The file:
 *
 *	{ "format": 2, "functions": [
 *	  { "name": "a", "live": "2", "before": "1", "next": 3, "versions": [ <spec>, <spec> ],
 *	    "aliases": { "beta": <alias> } } ] }
 *
 * with complete specs, oldest first; "before" and "aliases" where there are any, which format 1
 * did not have. A format that this code does not know is refused.
 */
#define FORMAT 2
#define FILE_MAX ((size_t)64 * 1024 * 1024)
#define TEMPORARY ".nest-????????????????.tmp" /* of nest_file_write_atomic() */

struct root {
	uint32_t format;
	const cJSON *functions;
};

struct record {
	const char *name;
	const char *live;
	const char *before;
	uint64_t next;
	const cJSON *versions;
	const cJSON *aliases;
};

static const struct nest_schema_key root_keys[] = {
	{ .path = "format",
		.type = NEST_SCHEMA_U32,
		.offset = offsetof(struct root, format),
		.min = 1,
		.max = UINT32_MAX,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "functions",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct root, functions),
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
};
static const struct nest_schema root_schema = { root_keys, NEST_ARRAY_SIZE(root_keys), 0 };

static const struct nest_schema_key record_keys[] = {
	{ .path = "name",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct record, name),
		.max = NEST_FUNCTION_NAME_MAX,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "live",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct record, live),
		.max = NEST_FUNCTION_VERSION_MAX,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "before",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct record, before),
		.max = NEST_FUNCTION_VERSION_MAX,
		.unit = "" },
	{ .path = "next",
		.type = NEST_SCHEMA_U64,
		.offset = offsetof(struct record, next),
		.min = 1,
		.max = (int64_t)1 << 53,
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "versions",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct record, versions),
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "aliases",
		.type = NEST_SCHEMA_OBJECT,
		.offset = offsetof(struct record, aliases),
		.unit = "" },
};
static const struct nest_schema record_schema = { record_keys, NEST_ARRAY_SIZE(record_keys), 0 };

/* ---- reading ---- */

static int read_version(struct nest_registry_function *function, const cJSON *object,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_function_spec *spec = NULL;
	int rc = nest_function_parse_kept(object, NULL, &spec, place, err);

	if (rc < 0)
		return rc;
	if (spec->lost)
		nest_log(NEST_LOG_WARN, "registry",
			"function '%s' version '%s' runs without a schedule: %s", spec->name,
			spec->version, spec->lost);
	if (strcmp(spec->name, function->name) != 0)
		rc = nest_err_say(err, -EINVAL, "the spec of '%s' among the versions of '%s'",
			spec->name, function->name);
	else if (!*spec->version || nest_registry_function_find(function, spec->version))
		rc = nest_err_say(err, -EINVAL, "version '%s' of '%s' is empty or repeated",
			spec->version, spec->name);
	else if (!nest_registry_function_add(function, spec))
		rc = nest_err_set(err, -ENOMEM, "read version '%s'", spec->version);
	if (rc < 0)
		nest_function_free(spec);
	return rc;
}

static int read_aliases(struct nest_registry_function *function, const struct record *record,
	struct nest_schema_place *place, struct nest_err *err)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, record->aliases) {
		struct nest_alias *alias = NULL;
		int rc = nest_alias_parse(item->string, item, &alias, NULL, err);

		if (rc == 0)
			rc = nest_registry_alias_add(function, alias, err);
		if (rc < 0) {
			nest_schema_locate(place, "aliases.%.100s", item->string);
			return rc;
		}
	}
	return 0;
}

/* What names point to; all versions are there. */
static int read_names(struct nest_registry_function *function, const struct record *record,
	struct nest_schema_place *place, struct nest_err *err)
{
	function->live = nest_registry_function_find(function, record->live);
	if (record->before)
		function->before = nest_registry_function_find(function, record->before);
	if (function->live && (!record->before || function->before))
		return read_aliases(function, record, place, err);
	nest_schema_locate(place, function->live ? "before" : "live");
	return nest_err_say(err, -EINVAL, "'%s' names no version of '%s': '%s'",
		function->live ? "before" : "live", record->name,
		function->live ? record->before : record->live);
}

static int read_versions(struct nest_registry_function *function, const struct record *record,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" };
	const cJSON *item;
	int n = 0;

	cJSON_ArrayForEach(item, record->versions) {
		int rc = read_version(function, item, &inner, err);

		if (rc < 0) {
			nest_schema_locate(place, "versions[%d]%s%.100s", n,
				inner.path[0] ? "." : "", inner.path);
			return rc;
		}
		n++;
	}
	if (record->next > function->next)
		function->next = record->next;
	return read_names(function, record, place, err);
}

static int read_record(struct nest_registry_part *part, const cJSON *object,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_registry_function *function;
	struct record record;
	cJSON *json = NULL;
	int rc;

	rc = nest_schema_read(&record_schema, object, NULL, &record, &json, place, err);
	if (rc < 0)
		return rc;
	if (!nest_function_is_name(record.name) || nest_registry_part_find(part, record.name)) {
		nest_schema_locate(place, "name");
		rc = nest_err_say(err, -EINVAL, "'name' is no function's name or repeated: '%s'",
			record.name);
	} else {
		function = nest_registry_part_need(part, record.name);
		rc = function ? read_versions(function, &record, place, err)
			      : nest_err_set(err, -ENOMEM, "read function '%s'", record.name);
	}
	nest_schema_release(&record_schema, &record, json);
	return rc;
}

static int read_records(struct nest_registry_part *part, const struct root *root,
	struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" };
	const cJSON *item;
	int n = 0;

	if (root->format > FORMAT) {
		nest_schema_locate(place, "format");
		return nest_err_say(err, -EINVAL,
			"format %u is of a newer Nestlet, this one knows formats up to %d",
			root->format, FORMAT);
	}
	cJSON_ArrayForEach(item, root->functions) {
		int rc = read_record(part, item, &inner, err);

		if (rc < 0) {
			nest_schema_locate(place, "functions[%d]%s%.130s", n,
				inner.path[0] ? "." : "", inner.path);
			return rc;
		}
		n++;
	}
	return 0;
}

/* What every error of a damaged file ends with, because nobody should have to guess it. */
static int advise(struct nest_err *err)
{
	return nest_err_say(err, err->code,
		"%.300s; restore the file from a backup, or move it away to start without the "
		"functions that were deployed through the admin API",
		nest_err_text(err));
}

static int read_text(const char *path, const char *text, size_t n, struct nest_registry_part *part,
	struct nest_err *err)
{
	struct nest_schema_place place = { .path = "" };
	nest_autojson cJSON *object = NULL;
	cJSON *json = NULL;
	struct root root;
	int rc;

	rc = nest_json_parse(text, n, &object, err);
	if (rc < 0) {
		nest_err_wrap(err, "%s", path);
		return rc;
	}
	rc = nest_schema_read(&root_schema, object, NULL, &root, &json, &place, err);
	if (rc == 0) {
		rc = read_records(part, &root, &place, err);
		nest_schema_release(&root_schema, &root, json);
	}
	if (rc < 0)
		nest_schema_blame(err, path, text, n, &place);
	return rc;
}

int nest_registry_store_read(
	const char *path, struct nest_registry_part *part, struct nest_err *err)
{
	struct nest_err own = NEST_ERR_INIT;
	nest_autofree char *text = NULL;
	size_t n;
	int rc;

	rc = nest_file_read(AT_FDCWD, path, FILE_MAX, &text, &n, &own);
	if (rc == -ENOENT)
		return 0;
	if (rc == 0) {
		rc = read_text(path, text, n, part, &own);
		if (rc == -EINVAL)
			rc = advise(&own);
	}
	if (rc < 0)
		return nest_err_say(err, rc, "read the registry: %s", nest_err_text(&own));
	return 0;
}

/* ---- writing ---- */

static int describe_aliases(cJSON *record, const struct nest_registry_function *function)
{
	const struct nest_registry_alias *entry;
	cJSON *aliases;

	if (!function->aliases)
		return 0;
	aliases = cJSON_AddObjectToObject(record, "aliases");
	if (!aliases)
		return -ENOMEM;
	DL_FOREACH(function->aliases, entry) {
		if (!cJSON_AddItemReferenceToObject(
			    aliases, entry->alias->name, entry->alias->json))
			return -ENOMEM;
	}
	return 0;
}

/* The specs are lent to the document, not copied: a commit costs no more memory than its text. */
static int describe_function(cJSON *list, const struct nest_registry_function *function)
{
	struct nest_registry_version *version;
	cJSON *record = cJSON_CreateObject();
	cJSON *versions;

	if (!record || !cJSON_AddItemToArray(list, record)) {
		cJSON_Delete(record);
		return -ENOMEM;
	}
	if (!cJSON_AddStringToObject(record, "name", function->name) ||
		!cJSON_AddStringToObject(record, "live", function->live->spec->version) ||
		(function->before && !cJSON_AddStringToObject(
					     record, "before", function->before->spec->version)) ||
		!cJSON_AddNumberToObject(record, "next", (double)function->next))
		return -ENOMEM;
	versions = cJSON_AddArrayToObject(record, "versions");
	if (!versions)
		return -ENOMEM;
	DL_FOREACH(function->versions, version) {
		if (!cJSON_AddItemReferenceToArray(versions, version->spec->json))
			return -ENOMEM;
	}
	return describe_aliases(record, function);
}

static int describe(struct nest_registry_part *part, const struct nest_registry_function *without,
	char **ret_text)
{
	nest_autojson cJSON *root = cJSON_CreateObject();
	struct nest_registry_function *function, *next;
	cJSON *list;

	if (!root || !cJSON_AddNumberToObject(root, "format", FORMAT))
		return -ENOMEM;
	list = cJSON_AddArrayToObject(root, "functions");
	if (!list)
		return -ENOMEM;
	nest_registry_part_sort(part);
	HASH_ITER(hh, part->by_name, function, next) {
		if (function != without && describe_function(list, function) < 0)
			return -ENOMEM;
	}
	*ret_text = cJSON_Print(root);
	return *ret_text ? 0 : -ENOMEM;
}

int nest_registry_store_write(const char *path, struct nest_registry_part *part,
	const struct nest_registry_function *without, struct nest_err *err)
{
	nest_autofree char *text = NULL;
	int rc;

	if (describe(part, without, &text) < 0)
		return nest_err_set(err, -ENOMEM, "write the registry '%s'", path);
	rc = nest_file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, err);
	if (rc < 0)
		nest_err_wrap(err, "write the registry");
	return rc;
}

int nest_registry_store_sweep(const char *path, struct nest_err *err)
{
	const char *slash = strrchr(path, '/');
	nest_autofree char *name = NULL;
	nest_autoclosedir DIR *dir = NULL;
	struct dirent *entry;

	if (slash == path)
		name = strdup("/");
	else
		name = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	if (!name)
		return nest_err_set(err, -ENOMEM, "open registry '%s'", path);
	dir = opendir(name);
	if (!dir)
		return nest_err_set(err, -errno, "open the registry's directory '%s'", name);
	while ((entry = readdir(dir))) {
		if (fnmatch(TEMPORARY, entry->d_name, 0) == 0 &&
			unlinkat(dirfd(dir), entry->d_name, 0) < 0 && errno != ENOENT)
			return nest_err_set(err, -errno, "remove '%s/%s'", name, entry->d_name);
	}
	return 0;
}
