/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a config file; what parses must have lines, and must parse again once printed. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/jsonc.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

static void require(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n)
{
	static const char *const known[] = { "functions", "name", NULL };
	const char *text = (const char *)bytes;
	struct nest_err err = NEST_ERR_INIT;
	cJSON *root = NULL, *again = NULL;
	char *printed;

	nest_jsonc_line_of(text, n, "functions[1].env.A.B");
	if (nest_jsonc_parse(text, n, &root, &err) < 0) {
		require(err.code < 0 && err.text[0] != '\0' && !root);
		return 0;
	}
	require(nest_jsonc_line_of(text, n, "") > 0);
	nest_json_refuse_unknown(root, known, NULL);
	printed = cJSON_PrintUnformatted(root);
	require(printed && nest_json_parse(printed, strlen(printed), &again, NULL) == 0);
	cJSON_free(printed);
	cJSON_Delete(again);
	cJSON_Delete(root);
	return 0;
}
