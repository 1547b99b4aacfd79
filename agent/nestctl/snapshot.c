/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/nestctl/client.h"
#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/err.h"
#include "base/json.h"

/* nestctl snapshot: what functions have in the way of snapshots, and how to make or drop one. */

static void say_time(double seconds, char *ret, size_t n)
{
	time_t when = (time_t)seconds;
	struct tm tm;

	if (seconds <= 0 || !gmtime_r(&when, &tm) || strftime(ret, n, "%FT%TZ", &tm) == 0)
		snprintf(ret, n, "-");
}

static void print_snapshots(const cJSON *functions)
{
	static const char *const headings[] = { "NAME", "VERSION", "SNAPSHOT", ">SIZE", "MADE",
		">RESTORES", "LAST FAILURE", NULL };
	struct nest_table *table = nest_terminal_table_new(headings);
	char size[NEST_TERMINAL_SHORT], made[32];
	const cJSON *f;

	cJSON_ArrayForEach(f, functions) {
		const cJSON *s = cJSON_GetObjectItemCaseSensitive(f, "snapshot");

		say_time(nest_command_number(s, "madeAt"), made, sizeof(made));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "name"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "version"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(s, "state"));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_bytes(nest_command_number(s, "bytes"), size));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", made);
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%.0f",
			nest_command_number(s, "restoresTotal"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(s, "lastFailure"));
	}
	nest_terminal_table_print(table, stdout);
}

static int show(struct nest_command_context *context, const char *path, const char *member)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *rows;

	if (nest_client_call(context->client, "GET", path, NULL, &json, &err) < 0)
		return nest_command_fail("snapshot", &err);
	rows = cJSON_GetObjectItemCaseSensitive(json, member);
	if (context->json)
		nest_command_print_json(rows);
	else
		print_snapshots(rows);
	return NEST_COMMAND_OK;
}

static int change(struct nest_command_context *context, const struct nest_command_args *args,
	const char *method, const char *done)
{
	const char *version = args->option[NEST_SNAPSHOT_VERSION];
	struct nest_err err = NEST_ERR_INIT;
	char path[256];

	snprintf(path, sizeof(path), "/v1/functions/%s/snapshot%s%s", args->operands[1],
		version ? "?version=" : "", version ? version : "");
	if (nest_client_call(context->client, method, path, NULL, NULL, &err) < 0)
		return nest_command_fail("snapshot", &err);
	if (!context->json)
		printf("%s %s\n", done, args->operands[1]);
	return NEST_COMMAND_OK;
}

int nest_command_snapshot(
	struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *verb = args->operands[0];
	struct nest_err err = NEST_ERR_INIT;
	char path[256];

	if (strcmp(verb, "list") == 0 && args->noperands == 1)
		return show(context, "/v1/functions", "functions");
	if (args->noperands == 2 && strcmp(verb, "inspect") == 0) {
		snprintf(path, sizeof(path), "/v1/functions/%s", args->operands[1]);
		return show(context, path, "versions");
	}
	if (args->noperands == 2 && strcmp(verb, "build") == 0)
		return change(context, args, "POST", "a snapshot is being made of");
	if (args->noperands == 2 && strcmp(verb, "rm") == 0)
		return change(context, args, "DELETE", "removed the snapshot of");
	nest_err_say(&err, -EINVAL, "give list, or one of inspect, build and rm and a function");
	return nest_command_fail("snapshot", &err);
}
