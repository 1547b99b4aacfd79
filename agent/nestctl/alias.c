/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

/* alias and rollback: which version a function's requests go to. */

static void print_header(char *ret, size_t n, const cJSON *part)
{
	const cJSON *header = cJSON_GetObjectItem(part, "header");
	const char *value = nest_command_string(header, "value");

	snprintf(ret, n, "%s%s%s", nest_command_string(header, "name"), *value ? ": " : "", value);
}

void nest_command_print_aliases(const cJSON *aliases)
{
	static const char *const headings[] = { "ALIAS", "VERSION", ">WEIGHT", "HEADER", "STICKY",
		NULL };
	struct nest_table *table = nest_terminal_table_new(headings);
	const cJSON *alias, *part;
	char header[512];

	cJSON_ArrayForEach(alias, aliases) {
		cJSON_ArrayForEach(part, cJSON_GetObjectItem(alias, "versions")) {
			print_header(header, sizeof(header), part);
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
				nest_command_string(alias, "name"));
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
				nest_command_string(part, "version"));
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%.0f",
				nest_command_number(part, "weight"));
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", header);
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
				nest_command_string(alias, "sticky"));
		}
	}
	nest_terminal_table_print(table, stdout);
}

static int list(struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char path[160];

	snprintf(path, sizeof(path), "/v1/functions/%.100s/aliases", args->operands[1]);
	if (nest_client_call(context->client, "GET", path, NULL, &json, &err) < 0)
		return nest_command_fail("alias list", &err);
	if (context->json)
		nest_command_print_json(json);
	else
		nest_command_print_aliases(cJSON_GetObjectItem(json, "aliases"));
	return NEST_COMMAND_OK;
}

/* Cuts @text at the first @mark; what is behind it, or NULL. */
static char *cut(char *text, char mark)
{
	char *at = strchr(text, mark);

	if (!at)
		return NULL;
	*at = '\0';
	return at + 1;
}

/* VERSION[=WEIGHT][@HEADER[:VALUE]] */
static int add_part(cJSON *versions, char *text, struct nest_err *err)
{
	cJSON *part = cJSON_CreateObject();
	char *header = cut(text, '@');
	char *weight = cut(text, '=');
	char *value = header ? cut(header, ':') : NULL;
	char *end = NULL;

	if (!cJSON_AddItemToArray(versions, part))
		return nest_err_set(err, -ENOMEM, "read '%s'", text);
	cJSON_AddStringToObject(part, "version", text);
	if (weight) {
		cJSON_AddNumberToObject(part, "weight", strtod(weight, &end));
		if (end == weight || *end)
			return nest_err_say(
				err, -EINVAL, "a version's weight is a number, not '%s'", weight);
	} else if (header) {
		cJSON_AddNumberToObject(part, "weight", 0);
	}
	if (header) {
		cJSON *object = cJSON_AddObjectToObject(part, "header");

		cJSON_AddStringToObject(object, "name", header);
		if (value)
			cJSON_AddStringToObject(object, "value", value);
	}
	return 0;
}

static int set(struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *request = cJSON_CreateObject();
	cJSON *versions = cJSON_AddArrayToObject(request, "versions");
	struct nest_err err = NEST_ERR_INIT;
	char path[200];
	int r = versions ? 0 : nest_err_set(&err, -ENOMEM, "set an alias");

	for (int i = 3; i < args->noperands && r == 0; i++)
		r = add_part(versions, args->operands[i], &err);
	if (args->option[NEST_ALIAS_STICKY])
		cJSON_AddStringToObject(request, "sticky", args->option[NEST_ALIAS_STICKY]);
	snprintf(path, sizeof(path), "/v1/functions/%.100s/aliases/%.60s", args->operands[1],
		args->operands[2]);
	if (r == 0)
		r = nest_client_call(context->client, "PUT", path, request, NULL, &err);
	if (r < 0)
		return nest_command_fail("alias set", &err);
	if (!context->json)
		printf("alias %s of %s is set\n", args->operands[2], args->operands[1]);
	return NEST_COMMAND_OK;
}

static int rm(struct nest_command_context *context, const struct nest_command_args *args)
{
	struct nest_err err = NEST_ERR_INIT;
	char path[200];

	snprintf(path, sizeof(path), "/v1/functions/%.100s/aliases/%.60s", args->operands[1],
		args->operands[2]);
	if (nest_client_call(context->client, "DELETE", path, NULL, NULL, &err) < 0)
		return nest_command_fail("alias rm", &err);
	if (!context->json)
		printf("removed alias %s of %s\n", args->operands[2], args->operands[1]);
	return NEST_COMMAND_OK;
}

static const struct verb {
	const char *name;
	const char *synopsis;
	int min;
	int max;
	int (*run)(struct nest_command_context *context, const struct nest_command_args *args);
} verbs[] = {
	{ "list", "NAME", 2, 2, list },
	{ "set", "NAME ALIAS VERSION[=WEIGHT][@HEADER[:VALUE]]...", 4, 19, set },
	{ "rm", "NAME ALIAS", 3, 3, rm },
};

int nest_command_alias(struct nest_command_context *context, const struct nest_command_args *args)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(verbs); i++) {
		if (strcmp(verbs[i].name, args->operands[0]) != 0)
			continue;
		if (args->noperands >= verbs[i].min && args->noperands <= verbs[i].max)
			return verbs[i].run(context, args);
		fprintf(stderr, "nestctl: alias: usage: nestctl alias %s %s\n", verbs[i].name,
			verbs[i].synopsis);
		return NEST_COMMAND_USAGE;
	}
	fprintf(stderr, "nestctl: alias: list, set or rm, not '%s'\n", args->operands[0]);
	return NEST_COMMAND_USAGE;
}

int nest_command_rollback(
	struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char path[160];

	snprintf(path, sizeof(path), "/v1/functions/%.100s/rollback", args->operands[0]);
	if (nest_client_call(context->client, "POST", path, NULL, &json, &err) < 0)
		return nest_command_fail("rollback", &err);
	if (context->json)
		nest_command_print_json(json);
	else
		printf("version %s of %s is live\n", nest_command_string(json, "version"),
			args->operands[0]);
	return NEST_COMMAND_OK;
}
