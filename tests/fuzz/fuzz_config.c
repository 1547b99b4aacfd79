/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as nestlet.conf: what is accepted must say the same once it is printed and read again. */
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/buf.h"
#include "base/err.h"
#include "runtime/function.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

static void require(bool ok)
{
	if (!ok)
		abort();
}

/* No input may make the parser look at this machine's files. */
static bool reads_files(const char *text, size_t n)
{
	return memmem(text, n, "functionsDir", strlen("functionsDir")) || memchr(text, '\\', n);
}

static void check_functions(const struct nest_config *config)
{
	for (size_t i = 0; i < config->nfunctions; i++) {
		const struct nest_config_function *function = &config->functions[i];
		struct nest_function_spec *again = NULL;

		require(function->line > 0);
		require(nest_function_is_name(function->spec->name));
		require(nest_function_parse(function->spec->json, NULL, &again, NULL) == 0);
		require(nest_function_equal(function->spec, again));
		nest_function_free(again);
	}
}

static void check_again(const struct nest_config *config)
{
	char *printed = cJSON_Print(config->json);
	struct nest_buf keys = NEST_BUF_INIT;
	struct nest_config *again = NULL;

	require(printed);
	require(nest_config_parse(printed, strlen(printed), "again", "/d", &again, NULL) == 0);
	require(nest_config_diff(config, again, &keys) == 0);
	require(config->nfunctions == again->nfunctions);
	for (size_t i = 0; i < config->nfunctions; i++)
		require(nest_function_equal(config->functions[i].spec, again->functions[i].spec));
	nest_config_free(again);
	nest_buf_done(&keys);
	cJSON_free(printed);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n)
{
	const char *text = (const char *)bytes;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_config *config = NULL;

	if (reads_files(text, n))
		return 0;
	if (nest_config_parse(text, n, "f", "/d", &config, &err) < 0) {
		require(err.code < 0 && strncmp(err.text, "f: ", 3) == 0 && !config);
		return 0;
	}
	check_functions(config);
	check_again(config);
	nest_config_free(config);
	return 0;
}
