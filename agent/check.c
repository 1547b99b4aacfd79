/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "agent/daemon.h"
#include "agent/feature_table.h"
#include "base/err.h"
#include "base/json.h"

int nest_check_run(bool json)
{
	nest_autojson cJSON *features = NULL;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_feature_row *rows;
	bool weak = false;
	char *text;
	size_t n;

	if (nest_host_probe(&rows, &n, &err) < 0) {
		fprintf(stderr, "nestletd: %s\n", nest_err_text(&err));
		return NEST_DAEMON_FAILED;
	}
	for (size_t i = 0; i < n; i++)
		weak |= rows[i].required && !rows[i].yes;
	features = nest_feature_table_json(rows, n);
	free(rows);
	if (!json) {
		nest_feature_table_print(features);
	} else {
		text = cJSON_PrintUnformatted(features);
		if (text)
			puts(text);
		free(text);
	}
	return weak ? NEST_DAEMON_FAILED : NEST_DAEMON_OK;
}
