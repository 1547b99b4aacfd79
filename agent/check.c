/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "agent/check.h"
#include "agent/daemon.h"
#include "agent/terminal.h"
#include "base/err.h"
#include "runtime/host.h"

static void print_table(const struct nest_feature_row *rows, size_t n)
{
	static const char *const headings[] = { "FEATURE", "", "DETAIL", "REMEDY", NULL };
	struct nest_table *table = nest_terminal_table_new(headings);

	for (size_t i = 0; i < n; i++) {
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", rows[i].name);
		nest_terminal_table_add(table,
			rows[i].yes	   ? NEST_TERMINAL_GREEN
			: rows[i].required ? NEST_TERMINAL_RED
					   : NEST_TERMINAL_YELLOW,
			"%s", rows[i].yes ? "yes" : "no");
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", rows[i].detail);
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", rows[i].remedy);
	}
	nest_terminal_table_print(table, stdout);
}

static void print_json(const struct nest_feature_row *rows, size_t n)
{
	cJSON *array = cJSON_CreateArray();
	char *text;

	for (size_t i = 0; i < n; i++) {
		cJSON *row = cJSON_CreateObject();

		cJSON_AddStringToObject(row, "name", rows[i].name);
		cJSON_AddBoolToObject(row, "yes", rows[i].yes);
		cJSON_AddBoolToObject(row, "required", rows[i].required);
		cJSON_AddStringToObject(row, "detail", rows[i].detail);
		cJSON_AddStringToObject(row, "remedy", rows[i].remedy);
		cJSON_AddItemToArray(array, row);
	}
	text = cJSON_PrintUnformatted(array);
	if (text)
		puts(text);
	free(text);
	cJSON_Delete(array);
}

int nest_check_run(bool json)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_feature_row *rows;
	bool weak = false;
	size_t n;

	if (nest_host_probe(&rows, &n, &err) < 0) {
		fprintf(stderr, "nestletd: %s\n", nest_err_text(&err));
		return NEST_DAEMON_FAILED;
	}
	for (size_t i = 0; i < n; i++)
		weak |= rows[i].required && !rows[i].yes;
	if (json)
		print_json(rows, n);
	else
		print_table(rows, n);
	free(rows);
	return weak ? NEST_DAEMON_FAILED : NEST_DAEMON_OK;
}
