/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

/* The commands that change what the host does, but for deploy and invoke: logs, rm, reload, drain. */

/* ---- logs: JSON lines as they come, printed as they are or for people ---- */

struct log_printer {
	struct nest_buf carry; /* an unfinished line */
	bool json;
};

static void print_log_line(const char *bytes, size_t n, bool raw)
{
	nest_autojson cJSON *line = raw ? NULL : cJSON_ParseWithLength(bytes, n);
	const char *stream = nest_command_string(line, "stream");
	const char *id = nest_command_string(line, "requestId");
	const char *level = nest_command_string(line, "level");
	enum nest_terminal_colour colour = NEST_TERMINAL_PLAIN;

	if (!line) {
		printf("%.*s\n", (int)n, bytes);
		return;
	}
	if (strcmp(level, "error") == 0)
		colour = NEST_TERMINAL_RED;
	else if (strcmp(level, "warn") == 0 || strcmp(stream, "host") == 0)
		colour = NEST_TERMINAL_YELLOW;
	nest_terminal_print(stdout, NEST_TERMINAL_DIM, "%s", nest_command_string(line, "time"));
	nest_terminal_print(stdout, NEST_TERMINAL_DIM, " v%s/%.0f%s%s ",
		nest_command_string(line, "version"), nest_command_number(line, "worker"),
		*id ? " " : "", id);
	nest_terminal_print(stdout, colour, "%s\n", nest_command_string(line, "message"));
}

static int on_log(void *arg, const char *bytes, size_t n)
{
	struct log_printer *printer = arg;
	const char *start, *end;

	if (nest_buf_append(&printer->carry, bytes, n) != 0)
		return -1;
	for (;;) {
		start = nest_buf_bytes(&printer->carry);
		end = printer->carry.len ? memchr(start, '\n', printer->carry.len) : NULL;
		if (!end)
			break;
		print_log_line(start, (size_t)(end - start), printer->json);
		nest_buf_consume(&printer->carry, (size_t)(end - start) + 1);
	}
	return fflush(stdout) == 0 ? 0 : -1;
}

int nest_command_logs(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *tail = args->option[NEST_LOGS_TAIL] ? args->option[NEST_LOGS_TAIL] : "100";
	struct log_printer printer = { .json = context->json };
	struct nest_client_response response;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_client_request request = { .method = "GET", .sink = on_log, .arg = &printer };
	char path[200];
	int r;

	if (strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 7) {
		fprintf(stderr, "nestctl: logs: --tail takes a number of lines, not '%s'\n", tail);
		return NEST_COMMAND_USAGE;
	}
	snprintf(path, sizeof(path), "/v1/functions/%s/logs?tail=%s&follow=%d", args->operands[0],
		tail, args->option[NEST_LOGS_FOLLOW] != NULL);
	request.path = path;
	r = nest_client_do(context->client, &request, &response, &err);
	if (r == 0 && response.status != 200)
		r = nest_client_refused(&response, &err);
	if (r == 0 || err.code == -EREMOTEIO)
		nest_client_response_done(&response);
	nest_buf_done(&printer.carry);
	return r < 0 ? nest_command_fail("logs", &err) : NEST_COMMAND_OK;
}

int nest_command_rm(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *version = args->option[NEST_RM_VERSION];
	struct nest_err err = NEST_ERR_INIT;
	char path[256];

	snprintf(path, sizeof(path), "/v1/functions/%s%s%s", args->operands[0],
		version ? "?version=" : "", version ? version : "");
	if (nest_client_call(context->client, "DELETE", path, NULL, NULL, &err) < 0)
		return nest_command_fail("rm", &err);
	if (!context->json)
		printf("removed %s%s%s\n", args->operands[0], version ? " version " : "",
			version ? version : "");
	return NEST_COMMAND_OK;
}

int nest_command_reload(struct nest_command_context *context, const struct nest_command_args *args)
{
	struct nest_err err = NEST_ERR_INIT;

	(void)args;
	if (nest_client_call(context->client, "POST", "/v1/reload", NULL, NULL, &err) < 0)
		return nest_command_fail("reload", &err);
	if (!context->json)
		puts("reloaded");
	return NEST_COMMAND_OK;
}

/* Waits for the process to end; 0, or -errno. */
static int wait_for_exit(pid_t pid)
{
	nest_autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return errno == ESRCH ? 0 : -errno;
	while (poll(&poll_fd, 1, -1) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int nest_command_drain(struct nest_command_context *context, const struct nest_command_args *args)
{
	nest_autojson cJSON *host = NULL;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	if (nest_client_call(context->client, "GET", "/v1/host", NULL, &host, &err) < 0 ||
		nest_client_call(context->client, "POST", "/v1/drain", NULL, NULL, &err) < 0)
		return nest_command_fail("drain", &err);
	if (args->option[NEST_DRAIN_WAIT]) {
		r = wait_for_exit((pid_t)nest_command_number(host, "pid"));
		if (r < 0) {
			nest_err_set(&err, r, "wait for the host to end");
			return nest_command_fail("drain", &err);
		}
	}
	if (!context->json)
		puts(args->option[NEST_DRAIN_WAIT] ? "drained: the host has ended"
						   : "draining: the host ends when it is done");
	return NEST_COMMAND_OK;
}

/* ---- completion: made from the same tables as --help ---- */

int nest_command_completion(
	struct nest_command_context *context, const struct nest_command_args *args)
{
	(void)context;
	if (strcmp(args->operands[0], "bash") != 0) {
		fprintf(stderr, "nestctl: completion: only bash is known, not '%s'\n",
			args->operands[0]);
		return NEST_COMMAND_USAGE;
	}
	puts("# bash completion of nestctl\n_nestctl() {\n"
	     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} words names\n"
	     "\tif [ \"$COMP_CWORD\" -eq 1 ]; then");
	fputs("\t\twords='", stdout);
	for (const struct nest_command *c = nest_commands; c->name; c++)
		printf("%s ", c->name);
	puts("--help --version'\n\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	     "\t\treturn\n\tfi\n\tcase ${COMP_WORDS[1]} in");
	for (const struct nest_command *c = nest_commands; c->name; c++) {
		printf("\t%s) words='--socket --gateway --json --no-color --help", c->name);
		for (const struct nest_command_option *o = c->options; o->name; o++)
			printf(" --%s", o->name);
		puts("' ;;");
	}
	puts("\t*) words= ;;\n\tesac\n\tif [[ $cur == -* ]]; then\n"
	     "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n\t\treturn\n\tfi\n"
	     "\tcase ${COMP_WORDS[1]} in\n\tdescribe | invoke | logs | rm)\n"
	     "\t\tnames=$(nestctl list --json 2>/dev/null |\n"
	     "\t\t\tgrep -o '\"name\":\"[^\"]*\"' | cut -d'\"' -f4)\n"
	     "\t\tmapfile -t COMPREPLY < <(compgen -W \"$names\" -- \"$cur\") ;;\n"
	     "\tcompletion) mapfile -t COMPREPLY < <(compgen -W bash -- \"$cur\") ;;\n"
	     "\tdeploy) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n\tesac\n}\n"
	     "complete -F _nestctl nestctl");
	return NEST_COMMAND_OK;
}
