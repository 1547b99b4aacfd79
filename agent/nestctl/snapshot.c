/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/nestctl/client.h"
#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/err.h"
#include "base/json.h"

/*
 * nestctl snapshot: what functions and runtimes have in the way of snapshots, and how to make or drop
 * one.
 */

#define POLL_US 50000

static void say_time(double seconds, char *ret, size_t n)
{
	time_t when = (time_t)seconds;
	struct tm tm;

	if (seconds <= 0 || !gmtime_r(&when, &tm) || strftime(ret, n, "%FT%TZ", &tm) == 0)
		snprintf(ret, n, "-");
}

static const cJSON *snapshot_of(const cJSON *row)
{
	return cJSON_GetObjectItemCaseSensitive(row, "snapshot");
}

static void add_state(struct nest_table *table, const cJSON *row)
{
	const cJSON *s = snapshot_of(row);
	char size[NEST_TERMINAL_SHORT], made[32];

	say_time(nest_command_number(s, "madeAt"), made, sizeof(made));
	nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(s, "state"));
	nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
		nest_terminal_bytes(nest_command_number(s, "bytes"), size));
	nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", made);
	nest_terminal_table_add(
		table, NEST_TERMINAL_PLAIN, "%.0f", nest_command_number(s, "restoresTotal"));
	nest_terminal_table_add(
		table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(s, "lastFailure"));
}

static void add_runtime(struct nest_table *table, const cJSON *r)
{
	nest_terminal_table_add(
		table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(r, "runtime"));
	nest_terminal_table_add(
		table, NEST_TERMINAL_PLAIN, "%.0f MiB", nest_command_number(r, "memoryMb"));
}

static void add_function(struct nest_table *table, const cJSON *f)
{
	nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "name"));
	nest_terminal_table_add(
		table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "version"));
}

#define STATE_HEADINGS "SNAPSHOT", ">SIZE", "MADE", ">RESTORES", "LAST FAILURE", NULL

/* Whose snapshots a table shows. */
struct owners {
	const char *headings[8];
	void (*add)(struct nest_table *table, const cJSON *row);
};

static const struct owners runtimes = { { "RUNTIME", ">MEMORY", STATE_HEADINGS }, add_runtime };
static const struct owners functions = { { "NAME", "VERSION", STATE_HEADINGS }, add_function };

static void print(const struct owners *owners, const cJSON *rows)
{
	struct nest_table *table = nest_terminal_table_new(owners->headings);
	const cJSON *row;

	cJSON_ArrayForEach(row, rows) {
		owners->add(table, row);
		add_state(table, row);
	}
	nest_terminal_table_print(table, stdout);
}

static int show(struct nest_command_context *context, const char *path, const char *member,
	const struct owners *owners)
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
		print(owners, rows);
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

static bool is_pending(const char *state)
{
	return strcmp(state, "queued") == 0 || strcmp(state, "fetching") == 0 ||
	       strcmp(state, "making") == 0;
}

/* Waits until each stands or could not be made: 1, or 0: one could not. */
static int await_runtimes(struct nest_command_context *context, struct nest_err *err)
{
	for (;;) {
		nest_autojson cJSON *json = NULL;
		const cJSON *r;
		bool over = true, good = true;
		int rc = nest_client_call(context->client, "GET", "/v1/runtimes", NULL, &json, err);

		if (rc < 0)
			return rc;
		cJSON_ArrayForEach(r, cJSON_GetObjectItemCaseSensitive(json, "runtimes")) {
			const char *state = nest_command_string(snapshot_of(r), "state");

			over = over && !is_pending(state);
			good = good && strcmp(state, "stands") == 0;
		}
		if (over)
			return good;
		usleep(POLL_US);
	}
}

static int build_runtimes(struct nest_command_context *context)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *skipped;
	int r = nest_client_call(
		context->client, "POST", "/v1/runtimes/snapshots", NULL, &json, &err);

	if (r == 0)
		r = await_runtimes(context, &err);
	if (r < 0)
		return nest_command_fail("snapshot", &err);
	cJSON_ArrayForEach(skipped, cJSON_GetObjectItemCaseSensitive(json, "skipped"))
		fprintf(stderr, "no snapshot of runtime '%s': %s\n",
			nest_command_string(skipped, "runtime"),
			nest_command_string(skipped, "reason"));
	if (show(context, "/v1/runtimes", "runtimes", &runtimes) != NEST_COMMAND_OK)
		return NEST_COMMAND_REFUSED;
	return r == 1 ? NEST_COMMAND_OK : NEST_COMMAND_REFUSED;
}

int nest_command_snapshot(
	struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *verb = args->operands[0];
	struct nest_err err = NEST_ERR_INIT;
	char path[256];

	if (strcmp(verb, "list") == 0 && args->noperands == 1)
		return show(context, "/v1/functions", "functions", &functions);
	if (strcmp(verb, "runtimes") == 0 && args->noperands == 1)
		return show(context, "/v1/runtimes", "runtimes", &runtimes);
	if (strcmp(verb, "build-runtimes") == 0 && args->noperands == 1)
		return build_runtimes(context);
	if (args->noperands == 2 && strcmp(verb, "inspect") == 0) {
		snprintf(path, sizeof(path), "/v1/functions/%s", args->operands[1]);
		return show(context, path, "versions", &functions);
	}
	if (args->noperands == 2 && strcmp(verb, "build") == 0)
		return change(context, args, "POST", "a snapshot is being made of");
	if (args->noperands == 2 && strcmp(verb, "rm") == 0)
		return change(context, args, "DELETE", "removed the snapshot of");
	nest_err_say(&err, -EINVAL,
		"give list, runtimes or build-runtimes, or one of inspect, build and rm and a "
		"function");
	return nest_command_fail("snapshot", &err);
}
