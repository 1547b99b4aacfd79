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

/* cache: what code the host has, and an operator's hand on it. */

static int list(struct nest_command_context *context, char **operands)
{
	static const char *const headings[] = { "DIGEST", "KIND", ">SIZE", "IN USE", NULL };
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char text[NEST_TERMINAL_SHORT];
	struct nest_table *table;
	const cJSON *trees, *tree;

	(void)operands;
	if (nest_client_call(context->client, "GET", "/v1/cache", NULL, &json, &err) < 0)
		return nest_command_fail("cache list", &err);
	trees = cJSON_GetObjectItem(json, "trees");
	if (context->json) {
		nest_command_print_json(json);
		return NEST_COMMAND_OK;
	}
	table = nest_terminal_table_new(headings);
	cJSON_ArrayForEach(tree, trees) {
		bool used = cJSON_IsTrue(cJSON_GetObjectItem(tree, "inUse"));

		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(tree, "digest"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(tree, "kind"));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_bytes(nest_command_number(tree, "bytes"), text));
		nest_terminal_table_add(table, used ? NEST_TERMINAL_GREEN : NEST_TERMINAL_DIM, "%s",
			used ? "yes" : "no");
	}
	nest_terminal_table_print(table, stdout);
	return NEST_COMMAND_OK;
}

static int rm(struct nest_command_context *context, char **operands)
{
	struct nest_err err = NEST_ERR_INIT;
	char path[128];

	snprintf(path, sizeof(path), "/v1/cache/%.100s", operands[0]);
	if (nest_client_call(context->client, "DELETE", path, NULL, NULL, &err) < 0)
		return nest_command_fail("cache rm", &err);
	if (!context->json)
		printf("removed %s\n", operands[0]);
	return NEST_COMMAND_OK;
}

static int verify(struct nest_command_context *context, char **operands)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *damaged, *digest;

	(void)operands;
	if (nest_client_call(context->client, "POST", "/v1/cache/verify", NULL, &json, &err) < 0)
		return nest_command_fail("cache verify", &err);
	damaged = cJSON_GetObjectItem(json, "damaged");
	if (context->json) {
		nest_command_print_json(json);
	} else {
		cJSON_ArrayForEach(digest, damaged)
			printf("damaged: %s\n", digest->valuestring);
		printf("%.0f verified, %.0f of them for the first time; %.0f damaged and removed, "
		       "%.0f damaged and in use\n",
			nest_command_number(json, "trees"), nest_command_number(json, "recorded"),
			nest_command_number(json, "removed"), nest_command_number(json, "inUse"));
	}
	return cJSON_GetArraySize(damaged) > 0 ? NEST_COMMAND_REFUSED : NEST_COMMAND_OK;
}

/* Digits; -1 for anything else. */
static int add_size(cJSON *request, const char *text)
{
	char *end;
	double bytes = strtod(text, &end);

	if (*end || text[strspn(text, "0123456789")])
		return -1;
	cJSON_AddNumberToObject(request, "size", bytes);
	return 0;
}

static int prefetch(struct nest_command_context *context, char **operands)
{
	nest_autojson cJSON *request = cJSON_CreateObject();
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char text[NEST_TERMINAL_SHORT];

	cJSON_AddStringToObject(request, "url", operands[0]);
	if (operands[1])
		cJSON_AddStringToObject(request, "digest", operands[1]);
	if (operands[2] && add_size(request, operands[2]) < 0) {
		fprintf(stderr, "nestctl: cache prefetch: SIZE is a number of bytes, not '%s'\n",
			operands[2]);
		return NEST_COMMAND_USAGE;
	}
	if (nest_client_call(context->client, "POST", "/v1/cache/prefetch", request, &json, &err) <
		0)
		return nest_command_fail("cache prefetch", &err);
	if (context->json)
		nest_command_print_json(json);
	else
		printf("%s (%s)\n", nest_command_string(json, "digest"),
			nest_terminal_bytes(nest_command_number(json, "bytes"), text));
	return NEST_COMMAND_OK;
}

static const struct verb {
	const char *name;
	const char *synopsis;
	int min;
	int max;
	int (*run)(struct nest_command_context *context, char **operands);
} verbs[] = {
	{ "list", "", 0, 0, list },
	{ "rm", " DIGEST", 1, 1, rm },
	{ "verify", "", 0, 0, verify },
	{ "prefetch", " URL [DIGEST [SIZE]]", 1, 3, prefetch },
};

int nest_command_cache(struct nest_command_context *context, const struct nest_command_args *args)
{
	char *operands[4] = { NULL };
	int n = args->noperands - 1;

	for (int i = 0; i < n && i < 3; i++)
		operands[i] = args->operands[i + 1];
	for (size_t i = 0; i < NEST_ARRAY_SIZE(verbs); i++) {
		if (strcmp(verbs[i].name, args->operands[0]) != 0)
			continue;
		if (n >= verbs[i].min && n <= verbs[i].max)
			return verbs[i].run(context, operands);
		fprintf(stderr, "nestctl: cache: usage: nestctl cache %s%s\n", verbs[i].name,
			verbs[i].synopsis);
		return NEST_COMMAND_USAGE;
	}
	fprintf(stderr, "nestctl: cache: list, rm, verify or prefetch, not '%s'\n",
		args->operands[0]);
	return NEST_COMMAND_USAGE;
}
