/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "agent/nestctl/command.h"
#include "agent/terminal.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

static int read_stream(FILE *stream, const char *name, struct nest_buf *ret, struct nest_err *err)
{
	size_t n;
	char *room;

	do {
		if (nest_buf_reserve(ret, 65536, &room) != 0)
			return nest_err_set(err, -ENOMEM, "read '%s'", name);
		n = fread(room, 1, 65536, stream);
		nest_buf_commit(ret, n);
	} while (n > 0);
	return ferror(stream) ? nest_err_set(err, -EIO, "read '%s'", name) : 0;
}

/* The event: JSON as given, a file's bytes, or stdin's. */
static int read_event(const char *option, struct nest_buf *ret, struct nest_err *err)
{
	nest_autofclose FILE *file = NULL;

	if (!option)
		option = "{}";
	if (strcmp(option, "-") == 0)
		return read_stream(stdin, "standard input", ret, err);
	if (option[0] != '@')
		return nest_buf_puts(ret, option);
	file = fopen(option + 1, "re");
	if (!file) {
		nest_err_set(err, -errno, "open '%s'", option + 1);
		return err->code = -EIO;
	}
	return read_stream(file, option + 1, ret, err);
}

/* The gateway's socket: as told, or as the host says. */
static int gateway_path(
	struct nest_command_context *context, char *ret, size_t n, struct nest_err *err)
{
	nest_autojson cJSON *host = NULL;
	int r;

	if (context->gateway_socket) {
		snprintf(ret, n, "%s", context->gateway_socket);
		return 0;
	}
	r = nest_client_call(context->client, "GET", "/v1/host", NULL, &host, err);
	if (r == 0)
		snprintf(ret, n, "%s", nest_command_string(host, "gatewaySocket"));
	return r;
}

static void print_log(const char *base64)
{
	size_t n = strlen(base64);
	nest_autofree unsigned char *text = malloc(n + 1);
	int len = text ? EVP_DecodeBlock(text, (const unsigned char *)base64, (int)n) : -1;

	for (; len > 0 && n > 0 && base64[n - 1] == '='; n--)
		len--;
	if (len <= 0)
		return;
	nest_terminal_print(stderr, NEST_TERMINAL_DIM, "%.*s", len, (const char *)text);
	if (text[len - 1] != '\n')
		fputc('\n', stderr);
}

static int print_result(const struct nest_command_context *context, const char *name,
	const struct nest_client_response *response, bool log)
{
	size_t n = response->body.len;
	const char *body = nest_buf_bytes(&response->body);
	struct nest_err err = NEST_ERR_INIT;

	if (log && response->log_result)
		print_log(response->log_result);
	if (*response->function_error) {
		nest_terminal_print(stderr, NEST_TERMINAL_RED, "nestctl: ");
		fprintf(stderr, "invoke: the function failed (%s, request %s)\n",
			response->function_error, response->request_id);
	} else if (response->status >= 400) {
		nest_client_refused(response, &err);
		nest_terminal_print(stderr, NEST_TERMINAL_RED, "nestctl: ");
		fprintf(stderr, "invoke: %s\n", nest_err_text(&err));
		if (response->status == 502)
			fprintf(stderr, "its log says more: nestctl logs %s\n", name);
	}
	if (n > 0 && (response->status < 400 || context->json)) {
		fwrite(body, 1, n, stdout);
		if (isatty(STDOUT_FILENO) && body[n - 1] != '\n')
			fputc('\n', stdout);
	}
	if (*response->function_error || response->status == 502 || response->status == 504)
		return NEST_COMMAND_FUNCTION;
	return response->status < 400 ? NEST_COMMAND_OK : NEST_COMMAND_REFUSED;
}

int nest_command_invoke(struct nest_command_context *context, const struct nest_command_args *args)
{
	const char *qualifier = args->option[NEST_INVOKE_QUALIFIER];
	bool log = args->option[NEST_INVOKE_LOG] != NULL;
	const char *headers[3] = { NULL };
	size_t nheaders = 0;
	struct nest_client *gateway = NULL;
	struct nest_client_response response;
	struct nest_err err = NEST_ERR_INIT;
	struct nest_buf event = NEST_BUF_INIT;
	struct nest_client_request request = { .method = "POST", .headers = headers };
	char socket_path[256], path[256];
	int r, exit_code;

	if (log)
		headers[nheaders++] = "X-Amz-Log-Type: Tail";
	if (args->option[NEST_INVOKE_ASYNC])
		headers[nheaders++] = "X-Amz-Invocation-Type: Event";
	snprintf(path, sizeof(path), "/2015-03-31/functions/%s%s%s/invocations", args->operands[0],
		qualifier ? ":" : "", qualifier ? qualifier : "");
	request.path = path;
	r = read_event(args->option[NEST_INVOKE_DATA], &event, &err);
	if (r == 0)
		r = gateway_path(context, socket_path, sizeof(socket_path), &err);
	if (r == 0)
		r = nest_client_open(socket_path, &gateway, &err);
	if (r == 0) {
		request.body = nest_buf_bytes(&event);
		request.body_len = event.len;
		r = nest_client_do(gateway, &request, &response, &err);
	}
	if (r < 0) {
		exit_code = nest_command_fail("invoke", &err);
	} else {
		exit_code = print_result(context, args->operands[0], &response, log);
		nest_client_response_done(&response);
	}
	nest_client_close(gateway);
	nest_buf_done(&event);
	return exit_code;
}
