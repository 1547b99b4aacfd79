/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_NESTCTL_COMMAND_H
#define NEST_AGENT_NESTCTL_COMMAND_H

#include <getopt.h>
#include <stdbool.h>

#include "agent/nestctl/client.h"

struct nest_err;

/* Exit codes of nestctl, as nestctl(1) lists them. */
enum nest_command_exit {
	NEST_COMMAND_OK = 0,
	NEST_COMMAND_REFUSED = 1,     /* the host said no, or something local went wrong */
	NEST_COMMAND_USAGE = 2,	      /* the command line is wrong */
	NEST_COMMAND_UNREACHABLE = 3, /* no host answers on the socket */
	NEST_COMMAND_FUNCTION = 4,    /* invoke: the function failed */
};

/* What every command gets. */
struct nest_command_context {
	const char *admin_socket;
	const char *gateway_socket; /* NULL: the host is asked */
	bool json;
	struct nest_client *client; /* of the admin API */
};

/* One option of a command; the table makes parser, --help and completion. */
struct nest_command_option {
	const char *name; /* long form, without dashes */
	char letter;	  /* short form, or 0 */
	const char *arg;  /* name of its argument in help, or NULL for a flag */
	const char *help;
};

#define NEST_COMMAND_OPTIONS 16

/* The options as given: values by their place in the command's table; a flag's value is "". */
struct nest_command_args {
	const char *option[NEST_COMMAND_OPTIONS];
	char **repeated; /* every value of the option named "env", NULL-terminated */
	char **operands;
	int noperands;
};

struct nest_command {
	const char *name;
	const char *synopsis; /* of operands: "NAME", "DIR|spec.json" */
	const char *help;     /* one sentence */
	const char *example;
	int min_operands;
	int max_operands;
	const struct nest_command_option *options; /* ends with a NULL name */
	int (*run)(struct nest_command_context *context, const struct nest_command_args *args);
};

/* Ends with a NULL name. */
extern const struct nest_command nest_commands[];

/* Prints "nestctl: <what>: <text>" to stderr and returns the exit code that fits @err. */
int nest_command_fail(const char *what, const struct nest_err *err);

/* Prints an answer as it came, for --json. */
void nest_command_print_json(const cJSON *json);

/* Prints aliases as the admin API tells them, as a table. */
void nest_command_print_aliases(const cJSON *aliases);

/* The member @key as a number or string; 0 or "" when absent. */
double nest_command_number(const cJSON *object, const char *key);
const char *nest_command_string(const cJSON *object, const char *key);

/* The commands: each prints its outcome, and returns an exit code. */
int nest_command_deploy(struct nest_command_context *, const struct nest_command_args *);
int nest_command_list(struct nest_command_context *, const struct nest_command_args *);
int nest_command_describe(struct nest_command_context *, const struct nest_command_args *);
int nest_command_invoke(struct nest_command_context *, const struct nest_command_args *);
int nest_command_logs(struct nest_command_context *, const struct nest_command_args *);
int nest_command_rm(struct nest_command_context *, const struct nest_command_args *);
int nest_command_snapshot(struct nest_command_context *, const struct nest_command_args *);
int nest_command_reload(struct nest_command_context *, const struct nest_command_args *);
int nest_command_drain(struct nest_command_context *, const struct nest_command_args *);
int nest_command_check(struct nest_command_context *, const struct nest_command_args *);
int nest_command_top(struct nest_command_context *, const struct nest_command_args *);
int nest_command_pack(struct nest_command_context *, const struct nest_command_args *);
int nest_command_cache(struct nest_command_context *, const struct nest_command_args *);
int nest_command_alias(struct nest_command_context *, const struct nest_command_args *);
int nest_command_rollback(struct nest_command_context *, const struct nest_command_args *);
int nest_command_completion(struct nest_command_context *, const struct nest_command_args *);

/* Places of options in the tables that have them. */
enum {
	NEST_DEPLOY_NAME,
	NEST_DEPLOY_RUNTIME,
	NEST_DEPLOY_HANDLER,
	NEST_DEPLOY_INTERFACE,
	NEST_DEPLOY_VERSION,
	NEST_DEPLOY_MEMORY,
	NEST_DEPLOY_TIMEOUT,
	NEST_DEPLOY_CONCURRENCY,
	NEST_DEPLOY_ROUTE,
	NEST_DEPLOY_ENV,
	NEST_DEPLOY_CANARY
};
enum {
	NEST_ALIAS_STICKY
};
enum {
	NEST_INVOKE_DATA,
	NEST_INVOKE_LOG,
	NEST_INVOKE_ASYNC,
	NEST_INVOKE_QUALIFIER
};
enum {
	NEST_LOGS_FOLLOW,
	NEST_LOGS_TAIL
};
enum {
	NEST_PACK_OUTPUT,
	NEST_PACK_FORMAT
};
enum {
	NEST_RM_VERSION
};
enum {
	NEST_SNAPSHOT_VERSION
};
enum {
	NEST_DRAIN_WAIT
};
enum {
	NEST_TOP_ONCE,
	NEST_TOP_INTERVAL
};

#endif
