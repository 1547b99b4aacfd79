/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/nestctl/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/terminal.h"
#include "base/err.h"

static const struct nest_command_option deploy_options[] = {
	[NEST_DEPLOY_NAME] = { "name", 'n', "NAME",
		"the function's name (default: the directory's)" },
	[NEST_DEPLOY_RUNTIME] = { "runtime", 'r', "RUNTIME",
		"nodejs, python, ... (default: by the files)" },
	[NEST_DEPLOY_HANDLER] = { "handler", 'H', "FILE.EXPORT",
		"what to call (default: the runtime's)" },
	[NEST_DEPLOY_INTERFACE] = { "interface", 'i', "KIND",
		"event, http, wsgi or asgi (default: event)" },
	[NEST_DEPLOY_VERSION] = { "version", 'V', "VERSION",
		"a name for this version (default: the next number)" },
	[NEST_DEPLOY_MEMORY] = { "memory", 'm', "MB", "memory limit of a worker" },
	[NEST_DEPLOY_TIMEOUT] = { "timeout", 't', "MS", "time limit of a request" },
	[NEST_DEPLOY_CONCURRENCY] = { "concurrency", 'c', "N", "requests at once in one worker" },
	[NEST_DEPLOY_ROUTE] = { "route", 'R', "PATH",
		"serve HTTP requests on this path (\"/a/*\": all below)" },
	[NEST_DEPLOY_ENV] = { "env", 'e', "KEY=VALUE", "an environment variable; may be repeated" },
	[NEST_DEPLOY_CANARY] = { "canary", 'C', "PERCENT",
		"give it only this part of the requests (0: none), beside the live version" },
	{ 0 },
};

static const struct nest_command_option invoke_options[] = {
	[NEST_INVOKE_DATA] = { "data", 'd', "JSON|@FILE|-",
		"the event (default: {}); - reads stdin" },
	[NEST_INVOKE_LOG] = { "log", 'l', NULL, "print what the request logged, to stderr" },
	[NEST_INVOKE_ASYNC] = { "async", 'a', NULL, "do not wait for the result" },
	[NEST_INVOKE_QUALIFIER] = { "qualifier", 'q', "VERSION",
		"invoke this version or alias (default: live)" },
	{ 0 },
};

static const struct nest_command_option logs_options[] = {
	[NEST_LOGS_FOLLOW] = { "follow", 'f', NULL, "go on with new lines as they come" },
	[NEST_LOGS_TAIL] = { "tail", 't', "N", "begin with the last N lines (default: 100)" },
	{ 0 },
};

static const struct nest_command_option rm_options[] = {
	[NEST_RM_VERSION] = { "version", 'V', "VERSION", "remove only this version" },
	{ 0 },
};

static const struct nest_command_option drain_options[] = {
	[NEST_DRAIN_WAIT] = { "wait", 'w', NULL, "return when the host has gone" },
	{ 0 },
};

static const struct nest_command_option top_options[] = {
	[NEST_TOP_ONCE] = { "once", '1', NULL, "print once (the default into a pipe)" },
	[NEST_TOP_INTERVAL] = { "interval", 'i', "S", "seconds between updates (default: 2)" },
	{ 0 },
};

static const struct nest_command_option pack_options[] = {
	[NEST_PACK_OUTPUT] = { "output", 'o', "FILE",
		"where to (default: the directory's name in the working directory)" },
	[NEST_PACK_FORMAT] = { "format", 'f', "tar.zst|erofs",
		"an archive, or an image to be mounted (default: tar.zst)" },
	{ 0 },
};

static const struct nest_command_option snapshot_options[] = {
	{ "version", 'V', "V", "this version instead of the live one" },
	{ 0 },
};

static const struct nest_command_option alias_options[] = {
	[NEST_ALIAS_STICKY] = { "sticky", 'k', "HEADER",
		"set: requests with the same value of this header go together" },
	{ 0 },
};

static const struct nest_command_option no_options[] = { { 0 } };

const struct nest_command nest_commands[] = {
	{ "deploy", "DIR|spec.json", "Package a directory, or what a spec names, and deploy it.",
		"nestctl deploy ./hello --runtime nodejs", 1, 1, deploy_options,
		nest_command_deploy },
	{ "list", "", "List the deployed functions.", "nestctl list", 0, 0, no_options,
		nest_command_list },
	{ "describe", "NAME", "Show one function: spec, versions, workers, last failure.",
		"nestctl describe hello", 1, 1, no_options, nest_command_describe },
	{ "invoke", "NAME", "Invoke a function and print its result.",
		"nestctl invoke hello -d '{\"name\":\"Ada\"}' --log", 1, 1, invoke_options,
		nest_command_invoke },
	{ "logs", "NAME", "Print a function's log.", "nestctl logs -f hello", 1, 1, logs_options,
		nest_command_logs },
	{ "rm", "NAME", "Remove a function, or one version of it.", "nestctl rm hello", 1, 1,
		rm_options, nest_command_rm },
	{ "alias", "list|set|rm", "Show or set which versions a name, such as live, stands for.",
		"nestctl alias set hello live 3=95 4=5", 2, 19, alias_options, nest_command_alias },
	{ "rollback", "NAME", "Make the version live that was so before, or end a canary.",
		"nestctl rollback hello", 1, 1, no_options, nest_command_rollback },
	{ "pack", "DIR", "Pack a directory into one file for a server or a deploy.",
		"nestctl pack ./layer -o layer.erofs --format erofs", 1, 1, pack_options,
		nest_command_pack },
	{ "cache", "list|rm|verify|prefetch", "Show, clear, verify or fill the code cache.",
		"nestctl cache prefetch https://example.com/layer.tar.zst sha256:...", 1, 4,
		no_options, nest_command_cache },
	{ "snapshot", "list|runtimes|build-runtimes|VERB NAME",
		"Show functions' or runtimes' snapshots; inspect, build or rm a function's.",
		"nestctl snapshot build hello", 1, 2, snapshot_options, nest_command_snapshot },
	{ "reload", "", "Let the host read its config file again.", "nestctl reload", 0, 0,
		no_options, nest_command_reload },
	{ "drain", "", "Let the host finish what it has, then exit.", "nestctl drain --wait", 0, 0,
		drain_options, nest_command_drain },
	{ "check", "", "Show what this machine lets the host do, and what it doesn't.",
		"nestctl check", 0, 0, no_options, nest_command_check },
	{ "top", "", "Show workers with their load, memory and CPU, live.", "nestctl top", 0, 0,
		top_options, nest_command_top },
	{ "completion", "bash", "Print the shell completion script.",
		"source <(nestctl completion bash)", 1, 1, no_options, nest_command_completion },
	{ 0 },
};

int nest_command_fail(const char *what, const struct nest_err *err)
{
	nest_terminal_print(stderr, NEST_TERMINAL_RED, "nestctl: ");
	fprintf(stderr, "%s: %s\n", what, nest_err_text(err));
	switch (err->code) {
	case -ENOENT:
	case -ECONNREFUSED:
	case -EACCES:
		return NEST_COMMAND_UNREACHABLE;
	case -EINVAL:
		return NEST_COMMAND_USAGE;
	default:
		return NEST_COMMAND_REFUSED;
	}
}

void nest_command_print_json(const cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);

	if (text)
		puts(text);
	free(text);
}

double nest_command_number(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

const char *nest_command_string(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}
