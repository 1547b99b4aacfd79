/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_FEATURE_TABLE_H
#define NEST_AGENT_FEATURE_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "runtime/host.h"

/*
 * The machine's features as a JSON array of {"name","yes","required","detail","remedy"}: what the
 * admin API answers and nestletd --check --json prints. The caller deletes it; NULL: no memory.
 */
cJSON *nest_feature_table_json(const struct nest_feature_row *rows, size_t n);

/* Prints such an array as a table to standard output; whether something required is missing. */
bool nest_feature_table_print(const cJSON *features);

#endif
