/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/feature_table.h"
#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/err.h"
#include "base/json.h"

/* The commands that only look: list, describe, check, top. */

static enum nest_terminal_colour state_colour(const char *state)
{
	if (strcmp(state, "failed") == 0 || strcmp(state, "quarantined") == 0)
		return NEST_TERMINAL_RED;
	if (strcmp(state, "draining") == 0 || strcmp(state, "starting") == 0)
		return NEST_TERMINAL_YELLOW;
	return NEST_TERMINAL_GREEN;
}

static double workers_of(const cJSON *function)
{
	const cJSON *workers = cJSON_GetObjectItem(function, "workers"), *n;
	double sum = 0;

	cJSON_ArrayForEach(n, workers) {
		if (strcmp(n->string, "standby") != 0)
			sum += n->valuedouble;
	}
	return sum;
}

static void print_functions(const cJSON *functions)
{
	static const char *const headings[] = { "NAME", "VERSION", "RUNTIME", "STATE", ">WORKERS",
		">IN FLIGHT", ">QUEUED", ">REQUESTS", ">FAILED", ">COLD STARTS", NULL };
	struct nest_table *table = nest_terminal_table_new(headings);
	const cJSON *f;

	cJSON_ArrayForEach(f, functions) {
		const char *state = nest_command_string(f, "state");
		static const char *const numbers[] = { "inFlight", "queued", "requestsTotal",
			"failedTotal", "coldStartsTotal" };

		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "name"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "version"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(f, "runtime"));
		nest_terminal_table_add(table, state_colour(state), "%s", state);
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%.0f", workers_of(f));
		for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
			nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%.0f",
				nest_command_number(f, numbers[i]));
	}
	nest_terminal_table_print(table, stdout);
}

int nest_command_list(struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *functions;

	(void)args;
	if (nest_client_call(context->client, "GET", "/v1/functions", NULL, &json, &err) < 0)
		return nest_command_fail("list", &err);
	functions = cJSON_GetObjectItem(json, "functions");
	if (context->json)
		nest_command_print_json(functions);
	else if (cJSON_GetArraySize(functions) == 0)
		puts("No functions are deployed. Deploy one: nestctl deploy DIR");
	else
		print_functions(functions);
	return NEST_COMMAND_OK;
}

static void print_workers(const cJSON *workers)
{
	static const char *const headings[] = { ">WORKER", ">PID", "FUNCTION", "VERSION", "STATE",
		">IN FLIGHT", ">REQUESTS", ">MEMORY", ">PEAK", ">CPU", ">AGE", NULL };
	struct nest_table *table = nest_terminal_table_new(headings);
	char text[NEST_TERMINAL_SHORT];
	const cJSON *w;

	cJSON_ArrayForEach(w, workers) {
		const char *state = nest_command_string(w, "state");

		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%.0f", nest_command_number(w, "id"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%.0f", nest_command_number(w, "pid"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(w, "function"));
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%s", nest_command_string(w, "version"));
		nest_terminal_table_add(table, state_colour(state), "%s", state);
		nest_terminal_table_add(
			table, NEST_TERMINAL_PLAIN, "%.0f", nest_command_number(w, "inFlight"));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%.0f",
			nest_command_number(w, "requestsTotal"));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_bytes(nest_command_number(w, "memoryBytes"), text));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_bytes(nest_command_number(w, "memoryPeakBytes"), text));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_age(nest_command_number(w, "cpuUs") / 1e3, text));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s",
			nest_terminal_age(nest_command_number(w, "ageMs"), text));
	}
	nest_terminal_table_print(table, stdout);
}

int nest_command_describe(
	struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *versions, *v;
	char path[160];
	char *spec;

	snprintf(path, sizeof(path), "/v1/functions/%s", args->operands[0]);
	if (nest_client_call(context->client, "GET", path, NULL, &json, &err) < 0)
		return nest_command_fail("describe", &err);
	if (context->json) {
		nest_command_print_json(json);
		return NEST_COMMAND_OK;
	}
	versions = cJSON_GetObjectItem(json, "versions");
	print_functions(versions);
	cJSON_ArrayForEach(v, versions) {
		if (*nest_command_string(v, "lastFailure"))
			nest_terminal_print(stdout, NEST_TERMINAL_RED, "\nversion %s: %s\n",
				nest_command_string(v, "version"),
				nest_command_string(v, "lastFailure"));
	}
	fputc('\n', stdout);
	nest_command_print_aliases(cJSON_GetObjectItem(json, "aliases"));
	if (cJSON_GetArraySize(cJSON_GetObjectItem(json, "workers")) > 0) {
		fputc('\n', stdout);
		print_workers(cJSON_GetObjectItem(json, "workers"));
	}
	spec = cJSON_Print(cJSON_GetObjectItem(json, "spec"));
	if (spec)
		printf("\n%s\n", spec);
	free(spec);
	return NEST_COMMAND_OK;
}

int nest_command_check(struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *json = NULL;
	struct nest_err err = NEST_ERR_INIT;
	const cJSON *features;

	(void)args;
	if (nest_client_call(context->client, "GET", "/v1/features", NULL, &json, &err) < 0)
		return nest_command_fail("check", &err);
	features = cJSON_GetObjectItem(json, "features");
	if (context->json) {
		nest_command_print_json(features);
		return NEST_COMMAND_OK;
	}
	if (cJSON_GetArraySize(features) == 0) {
		puts("The host is still trying this machine's features: ask again in a second.");
		return NEST_COMMAND_OK;
	}
	return nest_feature_table_print(features) ? NEST_COMMAND_REFUSED : NEST_COMMAND_OK;
}

/* ---- top ---- */

static int by_memory(const void *a, const void *b)
{
	double x = nest_command_number(*(const cJSON *const *)a, "memoryBytes");
	double y = nest_command_number(*(const cJSON *const *)b, "memoryBytes");

	return (x < y) - (x > y);
}

/* The workers with the largest first, in an array of its own that the caller deletes. */
static cJSON *sorted_workers(cJSON *workers)
{
	int n = cJSON_GetArraySize(workers);
	cJSON **list = calloc((size_t)n + 1, sizeof(*list));
	cJSON *sorted = cJSON_CreateArray();

	for (int i = 0; list && i < n; i++)
		list[i] = cJSON_DetachItemFromArray(workers, 0);
	if (list)
		qsort(list, (size_t)n, sizeof(*list), by_memory);
	for (int i = 0; list && i < n; i++)
		cJSON_AddItemToArray(sorted, list[i]);
	free(list);
	return sorted;
}

/* Worth a line only where they were to be had, and are not. */
static void print_snapshots(const cJSON *snapshots)
{
	if (strcmp(nest_command_string(snapshots, "state"), "unavailable") == 0)
		nest_terminal_print(stdout, NEST_TERMINAL_YELLOW, "no snapshots: %s\n\n",
			nest_command_string(snapshots, "detail"));
}

static int top_once(struct nest_command_context *context, bool clear)
{
	nest_autojson cJSON *host = NULL, *json = NULL, *sorted = NULL;
	struct nest_err err = NEST_ERR_INIT;
	char memory[NEST_TERMINAL_SHORT];

	if (nest_client_call(context->client, "GET", "/v1/host", NULL, &host, &err) < 0 ||
		nest_client_call(context->client, "GET", "/v1/workers", NULL, &json, &err) < 0)
		return nest_command_fail("top", &err);
	sorted = sorted_workers(cJSON_GetObjectItem(json, "workers"));
	if (context->json) {
		nest_command_print_json(sorted);
		return NEST_COMMAND_OK;
	}
	if (clear)
		fputs("\033[H\033[2J", stdout);
	printf("nestlet %s, %s; %.0f workers, %.0f cells prepared, code cache %s\n\n",
		nest_command_string(host, "version"), nest_command_string(host, "state"),
		nest_command_number(host, "workers"), nest_command_number(host, "cellsPrepared"),
		nest_terminal_bytes(nest_command_number(host, "cacheBytes"), memory));
	print_snapshots(cJSON_GetObjectItem(host, "snapshots"));
	print_workers(sorted);
	fflush(stdout);
	return NEST_COMMAND_OK;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

int nest_command_top(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *interval = args->option[NEST_TOP_INTERVAL];
	double seconds = interval ? strtod(interval, NULL) : 2;
	bool once = args->option[NEST_TOP_ONCE] || context->json || !isatty(STDOUT_FILENO);
	struct sigaction act = { .sa_handler = on_interrupt };
	struct timespec pause;
	int exit_code;

	if (!(seconds >= 0.1 && seconds <= 3600)) {
		fprintf(stderr, "nestctl: top: --interval takes 0.1 to 3600 seconds, not '%s'\n",
			interval);
		return NEST_COMMAND_USAGE;
	}
	pause.tv_sec = (time_t)seconds;
	pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
	if (!once)
		sigaction(SIGINT, &act, NULL);
	do {
		exit_code = top_once(context, !once);
		if (!once && exit_code == NEST_COMMAND_OK)
			nanosleep(&pause, NULL);
	} while (!once && !interrupted && exit_code == NEST_COMMAND_OK);
	return exit_code;
}
