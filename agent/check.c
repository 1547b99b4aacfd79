/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "agent/config.h"
#include "agent/daemon.h"
#include "agent/feature_table.h"
#include "base/err.h"
#include "base/json.h"

int nest_check_run(const struct nest_daemon_options *options, bool json)
{
	struct nest_config *config = NULL;
	struct nest_host_config host;
	nest_autojson cJSON *features = NULL;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_feature_row *rows;
	bool weak = false;
	char *text;
	size_t n;
	int r;

	if (nest_daemon_load_config(options, NULL, &config, &err) < 0) {
		fprintf(stderr, "nestletd: %s\n", nest_err_text(&err));
		return NEST_DAEMON_USAGE;
	}
	nest_config_host(config, &host);
	r = nest_host_probe(&host, &rows, &n, &err);
	nest_config_free(config);
	if (r < 0) {
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
