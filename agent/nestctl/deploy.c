/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "agent/nestctl/pack.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/jsonc.h"

/*
 * deploy: a spec is read (nestlet.json of the directory, or the named file) or made up from what lies in the
 * directory, options are laid over it, the code is packed and uploaded as an artifact, and the
 * spec is sent with the artifact's digest.
 */

struct deployment {
	cJSON *spec;
	char dir[PATH_MAX];   /* the code; "" when the host has it, or can fetch it */
	char where[PATH_MAX]; /* the spec's file, or the directory, for messages */
};

enum {
	SPEC_MAX = 1 << 20
};

static int read_spec(const char *path, cJSON **ret, struct nest_err *err)
{
	nest_autofree char *text = NULL;
	size_t n;
	int r = nest_file_read(AT_FDCWD, path, SPEC_MAX, &text, &n, err);

	if (r == 0)
		r = nest_jsonc_parse(text, n, ret, err);
	if (r == 0 && !cJSON_IsObject(*ret)) {
		cJSON_Delete(nest_take_ptr(*ret));
		r = nest_err_say(err, -EINVAL, "a spec is a JSON object");
	}
	return r < 0 ? nest_err_wrap(err, "read spec '%s'", path) : 0;
}

/* What a file in the directory tells; the first row whose file is there counts. */
static const struct hint {
	const char *file;
	const char *runtime;
	const char *handler; /* NULL: the runtime's default */
} hints[] = {
	{ "index.js", "nodejs", NULL },
	{ "index.mjs", "nodejs", NULL },
	{ "index.cjs", "nodejs", NULL },
	{ "package.json", "nodejs", NULL },
	{ "handler.py", "python", "handler.handler" },
	{ "app.py", "python", "app.handler" },
	{ "main.py", "python", "main.handler" },
	{ "lambda_function.py", "python", "lambda_function.lambda_handler" },
	{ "requirements.txt", "python", NULL },
};

/* The first hint that lies in @dir and is of @runtime, if one is given; or NULL. */
static const struct hint *find_hint(const char *dir, const char *runtime)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < NEST_ARRAY_SIZE(hints); i++) {
		if (*runtime && strcmp(runtime, hints[i].runtime) != 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, hints[i].file) < (int)sizeof(path) &&
			access(path, F_OK) == 0)
			return &hints[i];
	}
	return NULL;
}

/* A function's name from the last part of a path: what is not allowed in one becomes '-'. */
static void guess_name(const char *dir, char *ret, size_t n)
{
	const char *base = strrchr(dir, '/');
	size_t i = 0;

	for (base = base ? base + 1 : dir; *base && i + 1 < n && i < 64; base++)
		ret[i++] = isalnum((unsigned char)*base) || *base == '_' ? *base : '-';
	ret[i] = '\0';
}

/* Lays one option over the spec. */
static void set_string(cJSON *spec, const char *key, const char *value)
{
	if (!value)
		return;
	cJSON_DeleteItemFromObjectCaseSensitive(spec, key);
	cJSON_AddStringToObject(spec, key, value);
}

static int set_number(
	cJSON *spec, const char *key, const char *option, const char *value, struct nest_err *err)
{
	char *end;
	double number;

	if (!value)
		return 0;
	number = strtod(value, &end);
	if (end == value || *end)
		return nest_err_say(err, -EINVAL, "--%s takes a number, not '%s'", option, value);
	cJSON_DeleteItemFromObjectCaseSensitive(spec, key);
	cJSON_AddNumberToObject(spec, key, number);
	return 0;
}

static int set_env(cJSON *spec, char **pairs, struct nest_err *err)
{
	cJSON *env = cJSON_GetObjectItemCaseSensitive(spec, "env");

	if (!*pairs)
		return 0;
	if (!env)
		env = cJSON_AddObjectToObject(spec, "env");
	for (; *pairs; pairs++) {
		char *equals = strchr(*pairs, '=');

		if (!equals || equals == *pairs)
			return nest_err_say(
				err, -EINVAL, "--env takes KEY=VALUE, not '%s'", *pairs);
		*equals = '\0';
		set_string(env, *pairs, equals + 1);
	}
	return 0;
}

static int lay_options(cJSON *spec, const struct nest_command_args *args, struct nest_err *err)
{
	const char *const *o = args->option;
	int r;

	set_string(spec, "name", o[NEST_DEPLOY_NAME]);
	set_string(spec, "runtime", o[NEST_DEPLOY_RUNTIME]);
	set_string(spec, "handler", o[NEST_DEPLOY_HANDLER]);
	set_string(spec, "interface", o[NEST_DEPLOY_INTERFACE]);
	set_string(spec, "version", o[NEST_DEPLOY_VERSION]);
	if (o[NEST_DEPLOY_ROUTE]) {
		cJSON *routes = cJSON_CreateArray(), *route = cJSON_CreateObject();

		cJSON_AddStringToObject(route, "path", o[NEST_DEPLOY_ROUTE]);
		cJSON_AddItemToArray(routes, route);
		cJSON_DeleteItemFromObjectCaseSensitive(spec, "routes");
		cJSON_AddItemToObject(spec, "routes", routes);
	}
	r = set_number(spec, "memoryMb", "memory", o[NEST_DEPLOY_MEMORY], err);
	if (r == 0)
		r = set_number(spec, "timeoutMs", "timeout", o[NEST_DEPLOY_TIMEOUT], err);
	if (r == 0)
		r = set_number(spec, "concurrency", "concurrency", o[NEST_DEPLOY_CONCURRENCY], err);
	return r == 0 ? set_env(spec, args->repeated, err) : r;
}

static int open_dir(const char *operand, struct deployment *d, struct nest_err *err)
{
	char path[PATH_MAX];

	if (!realpath(operand, d->dir))
		return nest_err_set(err, -errno, "open '%s'", operand);
	snprintf(d->where, sizeof(d->where), "%s", operand);
	snprintf(path, sizeof(path), "%.*s/nestlet.json", PATH_MAX - 16, d->dir);
	if (access(path, F_OK) == 0)
		return read_spec(path, &d->spec, err);
	d->spec = cJSON_CreateObject();
	return d->spec ? 0 : nest_err_set(err, -ENOMEM, "read '%s'", operand);
}

/* A spec's code.path is relative to the spec. */
static int open_spec(const char *operand, struct deployment *d, struct nest_err *err)
{
	const cJSON *code, *path;
	char joined[PATH_MAX];
	const char *slash = strrchr(operand, '/');
	int r = read_spec(operand, &d->spec, err);

	if (r < 0)
		return r;
	snprintf(d->where, sizeof(d->where), "%s", operand);
	code = cJSON_GetObjectItemCaseSensitive(d->spec, "code");
	if (cJSON_GetObjectItemCaseSensitive(code, "digest") ||
		cJSON_GetObjectItemCaseSensitive(code, "url"))
		return 0;
	path = cJSON_GetObjectItemCaseSensitive(code, "path");
	if (code && !cJSON_IsString(path))
		return nest_err_say(err, -EINVAL,
			"spec '%s': 'code' must name a 'path', a 'url' or a 'digest'", operand);
	snprintf(joined, sizeof(joined), "%.*s%s",
		path && path->valuestring[0] == '/' ? 0
		: slash				    ? (int)(slash + 1 - operand)
						    : 0,
		operand, path ? path->valuestring : ".");
	if (!realpath(*joined ? joined : ".", d->dir))
		return nest_err_set(err, -errno, "spec '%s': open code.path '%s'", operand, joined);
	return 0;
}

/* Fills in what neither spec nor options say. */
static int guess(struct deployment *d, struct nest_err *err)
{
	const char *runtime = nest_command_string(d->spec, "runtime");
	const struct hint *hint = *d->dir ? find_hint(d->dir, runtime) : NULL;
	char name[80];

	if (*nest_command_string(d->spec, "name") == '\0') {
		guess_name(*d->dir ? d->dir : d->where, name, sizeof(name));
		set_string(d->spec, "name", name);
	}
	if (hint && hint->handler && *nest_command_string(d->spec, "handler") == '\0')
		set_string(d->spec, "handler", hint->handler);
	if (*runtime == '\0' && hint)
		set_string(d->spec, "runtime", hint->runtime);
	else if (*runtime == '\0' && *d->dir)
		return nest_err_say(err, -EINVAL,
			"'%s' has neither index.js nor package.json nor handler.py: name the "
			"runtime with --runtime",
			d->dir);
	return 0;
}

static void show_progress(void *arg, double done, double total)
{
	char a[NEST_TERMINAL_SHORT], b[NEST_TERMINAL_SHORT];

	(void)arg;
	if (total > 0)
		fprintf(stderr, "\r\033[Kuploading %s of %s", nest_terminal_bytes(done, a),
			nest_terminal_bytes(total, b));
}

/* Passes on the result of something local; its lack of a file is not to be taken for the host's. */
static int local(int r, struct nest_err *err)
{
	if (r < 0 && err->code != -EINVAL)
		r = err->code = -EIO;
	return r;
}

static int upload(struct nest_command_context *context, struct deployment *d, struct nest_err *err)
{
	static const char *const headers[] = { "Content-Type: application/octet-stream", NULL };
	bool terminal = isatty(STDERR_FILENO);
	struct nest_client_response response;
	struct nest_client_request request = { .method = "POST",
		.path = "/v1/artifacts",
		.headers = headers,
		.progress = terminal ? show_progress : NULL };
	nest_autojson cJSON *json = NULL;
	/* fast, since it is sent over a socket of this machine and unpacked once */
	const struct nest_pack_options options = { .format = NEST_PACK_TAR_ZST, .level = 3 };
	struct nest_pack_result pack;
	cJSON *code;
	int r;

	if (terminal)
		fprintf(stderr, "packing %s", d->dir);
	r = local(nest_pack_dir(d->dir, &options, &pack, err), err);
	if (r == 0) {
		request.body_file = pack.path;
		r = nest_client_do(context->client, &request, &response, err);
		unlink(pack.path);
	}
	if (terminal)
		fputs("\r\033[K", stderr);
	if (r < 0)
		return r;
	if (response.status != 201)
		r = nest_client_refused(&response, err);
	else
		r = nest_json_parse(nest_buf_bytes(&response.body), response.body.len, &json, err);
	nest_client_response_done(&response);
	if (r < 0)
		return r;
	cJSON_DeleteItemFromObjectCaseSensitive(d->spec, "code");
	code = cJSON_AddObjectToObject(d->spec, "code");
	cJSON_AddStringToObject(code, "digest", nest_command_string(json, "digest"));
	return 0;
}

static int prepare(const struct nest_command_args *args, struct deployment *d, struct nest_err *err)
{
	struct stat st;
	int r;

	if (stat(args->operands[0], &st) != 0)
		return nest_err_set(err, -errno, "open '%s'", args->operands[0]);
	r = S_ISDIR(st.st_mode) ? open_dir(args->operands[0], d, err)
				: open_spec(args->operands[0], d, err);
	if (r == 0)
		r = lay_options(d->spec, args, err);
	return r == 0 ? guess(d, err) : r;
}

static void print_deployed(const cJSON *answer, const char *canary)
{
	const char *name = nest_command_string(answer, "name");
	bool created = cJSON_IsTrue(cJSON_GetObjectItem(answer, "created"));

	nest_terminal_print(stdout, NEST_TERMINAL_GREEN, "%s", created ? "deployed" : "unchanged");
	printf(" %s version %s\n", name, nest_command_string(answer, "version"));
	if (canary)
		printf("with %s%% of the requests; all of them: nestctl alias set %s live %s\n",
			canary, name, nest_command_string(answer, "version"));
	else
		printf("call it: nestctl invoke %s -d '{}'\n", name);
}

int nest_command_deploy(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *canary = args->option[NEST_DEPLOY_CANARY];
	struct deployment d = { .spec = NULL };
	struct nest_err err = NEST_ERR_INIT;
	nest_autojson cJSON *answer = NULL;
	char path[200];
	int r = local(prepare(args, &d, &err), &err);

	if (r == 0 && *d.dir)
		r = upload(context, &d, &err);
	if (r == 0) {
		snprintf(path, sizeof(path), "/v1/functions/%.100s%s%.20s",
			nest_command_string(d.spec, "name"), canary ? "?share=" : "",
			canary ? canary : "");
		r = nest_client_call(context->client, "PUT", path, d.spec, &answer, &err);
	}
	cJSON_Delete(d.spec);
	if (r < 0)
		return nest_command_fail("deploy", &err);
	if (context->json)
		nest_command_print_json(answer);
	else
		print_deployed(answer, canary);
	return NEST_COMMAND_OK;
}
