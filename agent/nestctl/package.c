/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/nestctl/command.h"
#include "agent/nestctl/pack.h"
#include "agent/terminal.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

/* pack: a directory becomes the one file that is deployed, or put on a server. */

#define LEVEL 12 /* packed once, unpacked often */
#define BAR 30

static const struct format {
	const char *name;
	enum nest_pack_format format;
} formats[] = {
	{ "tar.zst", NEST_PACK_TAR_ZST },
	{ "erofs", NEST_PACK_EROFS },
};

static const struct format *find_format(const char *name)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(formats); i++)
		if (strcmp(formats[i].name, name) == 0)
			return &formats[i];
	return NULL;
}

static void show_bar(void *arg, double done, double total)
{
	int *shown = arg;
	int percent = total > 0 ? (int)(done * 100 / total) : 100;
	char bar[BAR + 1];
	int filled = percent * BAR / 100;

	if (percent == *shown)
		return;
	*shown = percent;
	memset(bar, ' ', BAR);
	memset(bar, '#', (size_t)(filled > BAR ? BAR : filled));
	bar[BAR] = '\0';
	fprintf(stderr, "\r[%s] %3d%%", bar, percent);
}

/* "DIR.tar.zst" in the working directory, by the last name of @dir's real path. */
static int default_output(const char *dir, const char *format, char ret[PATH_MAX])
{
	nest_autofree char *real = realpath(dir, NULL);
	const char *base = real ? strrchr(real, '/') + 1 : "code";
	int n = snprintf(ret, PATH_MAX, "%s.%s", *base ? base : "code", format);

	return n < PATH_MAX ? 0 : -1;
}

static void print_result(
	const struct nest_command_context *context, const struct nest_pack_result *result)
{
	double ratio = result->bytes ? (double)result->content / (double)result->bytes : 0;
	char packed[NEST_TERMINAL_SHORT], content[NEST_TERMINAL_SHORT];
	nest_autojson cJSON *json = NULL;
	char digest[80];

	snprintf(digest, sizeof(digest), "sha256:%s", result->sha256);
	if (!context->json) {
		printf("%s: %s from %s in %llu files (%.2f:1)\n%s\n", result->path,
			nest_terminal_bytes((double)result->bytes, packed),
			nest_terminal_bytes((double)result->content, content),
			(unsigned long long)result->files, ratio, digest);
		printf("for a spec, with its url: \"sha256\": \"%s\", \"size\": %llu\n",
			result->sha256, (unsigned long long)result->bytes);
		return;
	}
	json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "path", result->path);
	cJSON_AddNumberToObject(json, "bytes", (double)result->bytes);
	cJSON_AddNumberToObject(json, "contentBytes", (double)result->content);
	cJSON_AddNumberToObject(json, "files", (double)result->files);
	cJSON_AddNumberToObject(json, "ratio", ratio);
	cJSON_AddStringToObject(json, "digest", digest);
	nest_command_print_json(json);
}

int nest_command_pack(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *name =
		args->option[NEST_PACK_FORMAT] ? args->option[NEST_PACK_FORMAT] : "tar.zst";
	const struct format *format = find_format(name);
	bool terminal = isatty(STDERR_FILENO);
	int shown = -1;
	struct nest_pack_options options = {
		.output = args->option[NEST_PACK_OUTPUT],
		.level = LEVEL,
		.progress = terminal ? show_bar : NULL,
		.arg = &shown,
	};
	struct nest_pack_result result;
	struct nest_err err = NEST_ERR_INIT;
	char output[PATH_MAX];
	int r;

	if (!format) {
		fprintf(stderr, "nestctl: pack: --format takes tar.zst or erofs, not '%s'\n", name);
		return NEST_COMMAND_USAGE;
	}
	options.format = format->format;
	if (!options.output) {
		if (default_output(args->operands[0], name, output) < 0) {
			fputs("nestctl: pack: name a file with --output\n", stderr);
			return NEST_COMMAND_USAGE;
		}
		options.output = output;
	}
	r = nest_pack_dir(args->operands[0], &options, &result, &err);
	if (terminal)
		fputs("\r\033[K", stderr);
	if (r < 0) {
		nest_command_fail("pack", &err);
		return NEST_COMMAND_REFUSED;
	}
	print_result(context, &result);
	return NEST_COMMAND_OK;
}
