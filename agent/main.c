/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/check.h"
#include "agent/config.h"
#include "agent/daemon.h"

static void usage(FILE *stream)
{
	fputs("Usage: nestletd [OPTIONS]\n\n"
	      "Runs the Nestlet function host of this pod.\n\n"
	      "  -c, --config FILE   the config file (default: " NEST_SYSCONFDIR
	      "/nestlet/nestlet.conf\n"
	      "                      if it exists; every key has a default)\n"
	      "      --check         show what this machine lets the host do, and exit\n"
	      "      --json          with --check: as JSON\n"
	      "      --print-config  print a config file with all keys and defaults, and exit\n"
	      "      --ready-fd N    write READY=1 to descriptor N when functions can be called\n"
	      "      --version       print the version, and exit\n"
	      "  -h, --help          this text\n\n"
	      "Signals: TERM or INT drain and end it, HUP reloads the config.\n"
	      "nestletd(8) is the manual; nestctl(1) talks to the running host.\n",
		stream);
}

/* A descriptor's number; -1 when it is none. */
static int parse_fd(const char *text)
{
	char *end;
	long fd = strtol(text, &end, 10);

	return *text && !*end && fd >= 0 && fd < 1 << 20 ? (int)fd : -1;
}

int main(int argc, char **argv)
{
	enum {
		OPTION_CHECK = 256,
		OPTION_JSON,
		OPTION_PRINT_CONFIG,
		OPTION_READY_FD,
		OPTION_VERSION
	};
	static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
		{ "check", no_argument, NULL, OPTION_CHECK },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "print-config", no_argument, NULL, OPTION_PRINT_CONFIG },
		{ "ready-fd", required_argument, NULL, OPTION_READY_FD },
		{ "version", no_argument, NULL, OPTION_VERSION },
		{ "help", no_argument, NULL, 'h' }, { .name = NULL } };
	struct nest_daemon_options options = { .ready_fd = -1 };
	bool check = false, json = false;
	int got;

	while ((got = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
		switch (got) {
		case 'c':
			options.config_file = optarg;
			break;
		case OPTION_CHECK:
			check = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		case OPTION_PRINT_CONFIG:
			return nest_config_print_example(stdout) == 0 ? 0 : NEST_DAEMON_FAILED;
		case OPTION_READY_FD:
			options.ready_fd = parse_fd(optarg);
			if (options.ready_fd < 0) {
				fprintf(stderr,
					"nestletd: --ready-fd takes a descriptor's number, not "
					"'%s'\n",
					optarg);
				return NEST_DAEMON_USAGE;
			}
			break;
		case OPTION_VERSION:
			printf("nestletd %s\n", PACKAGE_VERSION);
			return NEST_DAEMON_OK;
		case 'h':
			usage(stdout);
			return NEST_DAEMON_OK;
		default:
			fputs("nestletd: nestletd --help shows the options\n", stderr);
			return NEST_DAEMON_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "nestletd: '%s' is not an option; nestletd --help shows them\n",
			argv[optind]);
		return NEST_DAEMON_USAGE;
	}
	return check ? nest_check_run(&options, json) : nest_daemon_run(&options);
}
