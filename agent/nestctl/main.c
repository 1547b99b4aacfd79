/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/cleanup.h"
#include "base/err.h"

static const char default_socket[] = "/run/nestlet/admin.sock";

static const struct nest_command_option common_options[] = {
	{ "socket", 's', "PATH",
		"the host's admin socket (default: $NESTLET_ADMIN_SOCKET or "
		"/run/nestlet/admin.sock)" },
	{ "gateway", 'g', "PATH", "the gateway socket (default: the host is asked)" },
	{ "json", 'j', NULL, "print JSON instead of tables" },
	{ "no-color", 0, NULL, "no colours, also on a terminal" },
	{ "help", 'h', NULL, "this text" },
	{ 0 },
};
enum {
	COMMON_SOCKET,
	COMMON_GATEWAY,
	COMMON_JSON,
	COMMON_NO_COLOR,
	COMMON_HELP
};
enum {
	COMMON_BASE = 1000,
	OWN_BASE = 2000
}; /* getopt values of the two tables' rows */

static void print_options(FILE *stream, const struct nest_command_option *options)
{
	char form[64];

	for (; options->name; options++) {
		snprintf(form, sizeof(form), "%c%c%s--%s%s%s", options->letter ? '-' : ' ',
			options->letter ? options->letter : ' ', options->letter ? ", " : "  ",
			options->name, options->arg ? " " : "", options->arg ? options->arg : "");
		fprintf(stream, "  %-28s %s\n", form, options->help);
	}
}

static void print_usage(FILE *stream)
{
	fputs("Usage: nestctl COMMAND [OPTIONS]\n\nTalks to the Nestlet host of this pod.\n\n",
		stream);
	nest_terminal_print(stream, NEST_TERMINAL_BOLD, "Commands\n");
	for (const struct nest_command *c = nest_commands; c->name; c++)
		fprintf(stream, "  %-10s %-14s %s\n", c->name, c->synopsis, c->help);
	nest_terminal_print(stream, NEST_TERMINAL_BOLD, "\nOptions of every command\n");
	print_options(stream, common_options);
	fputs("\nnestctl COMMAND --help shows a command's own options; nestctl(1) is the manual.\n",
		stream);
}

static void print_help(const struct nest_command *command)
{
	printf("Usage: nestctl %s%s%s [OPTIONS]\n\n%s\n\n", command->name,
		*command->synopsis ? " " : "", command->synopsis, command->help);
	if (command->options->name) {
		nest_terminal_print(stdout, NEST_TERMINAL_BOLD, "Options\n");
		print_options(stdout, command->options);
		fputc('\n', stdout);
	}
	nest_terminal_print(stdout, NEST_TERMINAL_BOLD, "Options of every command\n");
	print_options(stdout, common_options);
	printf("\nExample: %s\n", command->example);
}

/* getopt's two forms of an option table; @longs and @shorts have room for both tables. */
static void add_options(const struct nest_command_option *options, int base, struct option *longs,
	size_t *nlongs, char *shorts)
{
	for (int i = 0; options[i].name; i++) {
		longs[(*nlongs)++] = (struct option){ .name = options[i].name,
			.has_arg = options[i].arg ? required_argument : no_argument,
			.val = base + i };
		if (options[i].letter) {
			size_t n = strlen(shorts);

			shorts[n] = options[i].letter;
			shorts[n + 1] = options[i].arg ? ':' : '\0';
			shorts[n + 2] = '\0';
		}
	}
}

static int option_of_letter(const struct nest_command_option *options, int base, int letter)
{
	for (int i = 0; options[i].name; i++) {
		if (options[i].letter == letter)
			return base + i;
	}
	return -1;
}

struct parsed {
	struct nest_command_args args;
	const char *common[NEST_COMMAND_OPTIONS];
};

/* Parses what follows the command's name. 0, or -1 with a message printed. */
static int parse_args(const struct nest_command *command, int argc, char **argv, struct parsed *ret)
{
	struct option longs[2 * NEST_COMMAND_OPTIONS + 1] = { 0 };
	char shorts[4 * NEST_COMMAND_OPTIONS + 2] = "";
	size_t nlongs = 0, nrepeated = 0;
	int got;

	add_options(common_options, COMMON_BASE, longs, &nlongs, shorts);
	add_options(command->options, OWN_BASE, longs, &nlongs, shorts);
	ret->args.repeated = calloc((size_t)argc + 1, sizeof(char *));
	if (!ret->args.repeated)
		return -1;
	while ((got = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const char *value = optarg ? optarg : "";

		if (got == '?')
			return -1;
		if (got < COMMON_BASE) {
			int own = option_of_letter(command->options, OWN_BASE, got);

			got = own >= 0 ? own : option_of_letter(common_options, COMMON_BASE, got);
		}
		if (got < OWN_BASE) {
			ret->common[got - COMMON_BASE] = value;
			continue;
		}
		ret->args.option[got - OWN_BASE] = value;
		if (strcmp(command->options[got - OWN_BASE].name, "env") == 0)
			ret->args.repeated[nrepeated++] = optarg;
	}
	ret->args.operands = argv + optind;
	ret->args.noperands = argc - optind;
	return 0;
}

static const struct nest_command *find_command(const char *name)
{
	for (const struct nest_command *c = nest_commands; c->name; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

static int run(const struct nest_command *command, const struct parsed *parsed)
{
	struct nest_command_context context = { .admin_socket = parsed->common[COMMON_SOCKET],
		.gateway_socket = parsed->common[COMMON_GATEWAY],
		.json = parsed->common[COMMON_JSON] != NULL };
	struct nest_err err = NEST_ERR_INIT;
	int exit_code;

	if (!context.admin_socket)
		context.admin_socket = getenv("NESTLET_ADMIN_SOCKET");
	if (!context.admin_socket || !*context.admin_socket)
		context.admin_socket = default_socket;
	if (nest_client_open(context.admin_socket, &context.client, &err) < 0)
		return nest_command_fail(command->name, &err);
	exit_code = command->run(&context, &parsed->args);
	nest_client_close(context.client);
	if (fflush(stdout) != 0 && exit_code == NEST_COMMAND_OK)
		exit_code = NEST_COMMAND_REFUSED;
	return exit_code;
}

int main(int argc, char **argv)
{
	const struct nest_command *command;
	struct parsed parsed = { .args = { .noperands = 0 } };
	int exit_code;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_usage(stderr);
		return NEST_COMMAND_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0) {
		print_usage(stdout);
		return NEST_COMMAND_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("nestctl %s\n", PACKAGE_VERSION);
		return NEST_COMMAND_OK;
	}
	if (argv[1][0] == '-') {
		fprintf(stderr, "nestctl: options come behind the command: nestctl COMMAND %s\n",
			argv[1]);
		return NEST_COMMAND_USAGE;
	}
	command = find_command(argv[1]);
	if (!command) {
		fprintf(stderr, "nestctl: there is no command '%s'; nestctl --help lists them\n",
			argv[1]);
		return NEST_COMMAND_USAGE;
	}
	argv[1] = argv[0];
	if (parse_args(command, argc - 1, argv + 1, &parsed) < 0) {
		fprintf(stderr, "nestctl: nestctl %s --help shows its options\n", command->name);
		free(parsed.args.repeated);
		return NEST_COMMAND_USAGE;
	}
	if (parsed.common[COMMON_NO_COLOR])
		nest_terminal_no_colours();
	if (parsed.common[COMMON_HELP]) {
		print_help(command);
		exit_code = NEST_COMMAND_OK;
	} else if (parsed.args.noperands < command->min_operands ||
		   parsed.args.noperands > command->max_operands) {
		fprintf(stderr, "Usage: nestctl %s%s%s [OPTIONS]; --help shows more\n",
			command->name, *command->synopsis ? " " : "", command->synopsis);
		exit_code = NEST_COMMAND_USAGE;
	} else {
		curl_global_init(CURL_GLOBAL_DEFAULT);
		exit_code = run(command, &parsed);
		curl_global_cleanup();
	}
	free(parsed.args.repeated);
	return exit_code;
}
