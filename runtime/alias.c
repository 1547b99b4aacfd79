/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/alias.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/schema.h"
#include "runtime/function.h"

/* What the struct that others see has no place for. */
struct parsed {
	struct nest_alias alias; /* first: both have one address */
	char name[NEST_ALIAS_NAME_MAX + 1];
	struct nest_alias_part *parts;
	cJSON **parts_json; /* of each: its strings */
	const cJSON *versions;
};

/* A header's name as the gateway has them: a token in lower case. */
static bool is_header(const char *text)
{
	size_t n = 0;

	for (; text[n]; n++) {
		if (!islower((unsigned char)text[n]) && !isdigit((unsigned char)text[n]) &&
			!strchr("!#$%&'*+-.^_`|~", text[n]))
			return false;
	}
	return n > 0 && n <= 128;
}

#define HEADER_FORM "lower-case header name"

static const struct nest_schema_key keys[] = {
	{ .path = "versions",
		.type = NEST_SCHEMA_OBJECTS,
		.offset = offsetof(struct parsed, versions),
		.unit = "",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "sticky",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct parsed, alias.sticky),
		.max = 128,
		.unit = "",
		.valid = is_header,
		.form = HEADER_FORM },
};
static const struct nest_schema schema = { keys, NEST_ARRAY_SIZE(keys), 0 };

static const struct nest_schema_key part_keys[] = {
	{ .path = "version",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_alias_part, version),
		.max = NEST_FUNCTION_VERSION_MAX,
		.unit = "",
		.valid = nest_function_is_version,
		.form = "version",
		.flags = NEST_SCHEMA_REQUIRED },
	{ .path = "weight",
		.type = NEST_SCHEMA_U32,
		.offset = offsetof(struct nest_alias_part, weight),
		.fallback = "1",
		.max = NEST_ALIAS_WEIGHT_MAX,
		.unit = "" },
	{ .path = "header.name",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_alias_part, header),
		.max = 128,
		.unit = "",
		.valid = is_header,
		.form = HEADER_FORM },
	{ .path = "header.value",
		.type = NEST_SCHEMA_STRING,
		.offset = offsetof(struct nest_alias_part, value),
		.max = 1024,
		.unit = "" },
};
static const struct nest_schema part_schema = { part_keys, NEST_ARRAY_SIZE(part_keys), 0 };

bool nest_alias_is_name(const char *text)
{
	return isalpha((unsigned char)text[0]) && strlen(text) <= NEST_ALIAS_NAME_MAX &&
	       !strchr(text, '.') && nest_function_is_version(text);
}

static int read_part(struct parsed *parsed, const cJSON *item, struct nest_schema_place *place,
	struct nest_err *err)
{
	struct nest_alias *alias = &parsed->alias;
	struct nest_alias_part *part = &parsed->parts[alias->nparts];
	struct nest_schema_place inner = { .path = "" };
	int rc = nest_schema_read(
		&part_schema, item, NULL, part, &parsed->parts_json[alias->nparts], &inner, err);

	if (rc == 0 && nest_alias_find(alias, part->version) >= 0)
		rc = nest_err_say(err, -EINVAL, "version '%s' is named twice", part->version);
	else if (rc == 0 && part->value && !part->header)
		rc = nest_err_say(err, -EINVAL, "'header.value' without 'header.name'");
	if (parsed->parts_json[alias->nparts]) { /* it was read, and is freed with the rest */
		alias->total += part->weight;
		alias->nparts++;
	}
	if (rc < 0)
		nest_schema_locate(place, "versions[%td]%s%.100s", part - parsed->parts,
			inner.path[0] ? "." : "", inner.path);
	return rc;
}

/* What was left out is shown and kept with its default, as a spec's is. */
static int complete_json(struct parsed *parsed, struct nest_err *err)
{
	cJSON *versions = cJSON_GetObjectItemCaseSensitive(parsed->alias.json, "versions");

	for (uint32_t i = 0; i < parsed->alias.nparts; i++) {
		cJSON *part = cJSON_Duplicate(parsed->parts_json[i], true);

		if (!part || !cJSON_ReplaceItemInArray(versions, (int)i, part)) {
			cJSON_Delete(part);
			return nest_err_set(err, -ENOMEM, "read an alias");
		}
	}
	return 0;
}

static int read_parts(struct parsed *parsed, struct nest_schema_place *place, struct nest_err *err)
{
	int n = cJSON_GetArraySize(parsed->versions);
	const cJSON *item;

	nest_schema_locate(place, "versions");
	if (n < 1 || n > NEST_ALIAS_PARTS_MAX)
		return nest_err_say(err, -EINVAL, "'versions' has %d elements, must have 1 to %d",
			n, NEST_ALIAS_PARTS_MAX);
	parsed->parts = calloc((size_t)n, sizeof(*parsed->parts));
	parsed->parts_json = calloc((size_t)n, sizeof(cJSON *));
	parsed->alias.parts = parsed->parts;
	if (!parsed->parts || !parsed->parts_json)
		return nest_err_set(err, -ENOMEM, "read an alias");
	cJSON_ArrayForEach(item, parsed->versions) {
		int rc = read_part(parsed, item, place, err);

		if (rc < 0)
			return rc;
	}
	if (parsed->parts[0].weight > 0)
		return complete_json(parsed, err);
	return nest_err_say(err, -EINVAL,
		"the first of 'versions', '%s', is the main one and must have a weight",
		parsed->parts[0].version);
}

int nest_alias_parse(const char *name, const cJSON *object, struct nest_alias **ret,
	struct nest_schema_place *ret_place, struct nest_err *err)
{
	struct nest_schema_place place = { .path = "" };
	struct parsed *parsed;
	int rc;

	if (!nest_alias_is_name(name))
		return nest_err_say(err, -EINVAL,
			"'%s' can't be an alias's name: a letter, then at most %d letters, digits, "
			"'_' and '-'",
			name, NEST_ALIAS_NAME_MAX - 1);
	parsed = calloc(1, sizeof(*parsed));
	if (!parsed)
		return nest_err_set(err, -ENOMEM, "read alias '%s'", name);
	strcpy(parsed->name, name);
	parsed->alias.name = parsed->name;
	rc = nest_schema_read(&schema, object, NULL, parsed, &parsed->alias.json, &place, err);
	if (rc == 0)
		rc = read_parts(parsed, &place, err);
	if (rc < 0) {
		nest_err_wrap(err, "alias '%s'%s%s", name, place.path[0] ? ": " : "", place.path);
		nest_schema_locate(ret_place, "%s", place.path);
		nest_alias_free(&parsed->alias);
		return rc;
	}
	*ret = &parsed->alias;
	return 0;
}

static bool add_part(cJSON *versions, const char *version, uint32_t weight)
{
	cJSON *part = cJSON_CreateObject();

	return cJSON_AddItemToArray(versions, part) &&
	       cJSON_AddStringToObject(part, "version", version) &&
	       cJSON_AddNumberToObject(part, "weight", weight);
}

int nest_alias_make(const char *name, const char *main, const char *version, uint32_t weight,
	struct nest_alias **ret, struct nest_err *err)
{
	nest_autojson cJSON *object = cJSON_CreateObject();
	cJSON *versions = cJSON_AddArrayToObject(object, "versions");
	bool whole = weight >= 100;

	if (!versions || (!whole && !add_part(versions, main, 100 - weight)) ||
		!add_part(versions, version, whole ? 1 : weight))
		return nest_err_set(err, -ENOMEM, "make alias '%s'", name);
	return nest_alias_parse(name, object, ret, NULL, err);
}

void nest_alias_free(struct nest_alias *alias)
{
	struct parsed *parsed = (struct parsed *)alias;

	if (!alias)
		return;
	for (uint32_t i = 0; i < alias->nparts; i++)
		nest_schema_release(&part_schema, &parsed->parts[i], parsed->parts_json[i]);
	free(parsed->parts);
	free(parsed->parts_json);
	nest_schema_release(&schema, parsed, alias->json);
	free(parsed);
}

bool nest_alias_is_plain(const struct nest_alias *alias)
{
	return alias->nparts == 1 && !alias->sticky && !alias->parts[0].header;
}

int nest_alias_find(const struct nest_alias *alias, const char *version)
{
	for (uint32_t i = 0; i < alias->nparts; i++) {
		if (strcmp(alias->parts[i].version, version) == 0)
			return (int)i;
	}
	return -1;
}

/* FNV-1a, and a mix of its bits behind it (splitmix64's), as the high ones decide. */
static uint64_t hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3u;
	h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
	h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
	return h ^ (h >> 31);
}

static int choose_by_header(const struct nest_alias *alias, const struct nest_alias_asker *asker)
{
	for (uint32_t i = 0; asker && i < alias->nparts; i++) {
		const struct nest_alias_part *part = &alias->parts[i];
		const char *value = part->header ? asker->header(asker->arg, part->header) : NULL;

		if (value && (!part->value || strcmp(value, part->value) == 0))
			return (int)i;
	}
	return -1;
}

uint32_t nest_alias_choose(
	const struct nest_alias *alias, uint64_t turn, const struct nest_alias_asker *asker)
{
	int chosen = choose_by_header(alias, asker);
	const char *key = NULL;
	uint64_t at;
	uint32_t i = 0;

	if (chosen >= 0)
		return (uint32_t)chosen;
	if (alias->sticky && asker)
		key = asker->header(asker->arg, alias->sticky);
	/* multiples of the golden ratio fall evenly, whatever the number of them (Weyl) */
	at = key ? hash(key) : turn * 0x9e3779b97f4a7c15u;
	at = (at >> 32) * alias->total >> 32;
	while (at >= alias->parts[i].weight)
		at -= alias->parts[i++].weight;
	return i;
}
