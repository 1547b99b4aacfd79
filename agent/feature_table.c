/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/feature_table.h"

#include <stdio.h>

#include "agent/terminal.h"

cJSON *nest_feature_table_json(const struct nest_feature_row *rows, size_t n)
{
	cJSON *array = cJSON_CreateArray();

	for (size_t i = 0; array && i < n; i++) {
		cJSON *row = cJSON_CreateObject();

		cJSON_AddStringToObject(row, "name", rows[i].name);
		cJSON_AddBoolToObject(row, "yes", rows[i].yes);
		cJSON_AddBoolToObject(row, "required", rows[i].required);
		cJSON_AddStringToObject(row, "detail", rows[i].detail);
		cJSON_AddStringToObject(row, "remedy", rows[i].remedy);
		cJSON_AddItemToArray(array, row);
	}
	return array;
}

static const char *text_of(const cJSON *row, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}

bool nest_feature_table_print(const cJSON *features)
{
	static const char *const headings[] = { "FEATURE", "", "DETAIL", "REMEDY", NULL };
	struct nest_table *table = nest_terminal_table_new(headings);
	bool weak = false;
	const cJSON *row;

	cJSON_ArrayForEach(row, features) {
		bool yes = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "yes"));
		bool required = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "required"));

		weak |= required && !yes;
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", text_of(row, "name"));
		nest_terminal_table_add(table,
			yes	   ? NEST_TERMINAL_GREEN
			: required ? NEST_TERMINAL_RED
				   : NEST_TERMINAL_YELLOW,
			"%s", yes ? "yes" : "no");
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", text_of(row, "detail"));
		nest_terminal_table_add(table, NEST_TERMINAL_PLAIN, "%s", text_of(row, "remedy"));
	}
	nest_terminal_table_print(table, stdout);
	return weak;
}
