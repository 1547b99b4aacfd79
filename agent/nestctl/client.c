/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/nestctl/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <curl/curl.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

struct nest_client {
	CURL *curl;
	char *socket_path;
};

/* One request under way, as libcurl's callbacks see it. */
struct transfer {
	struct nest_client *client;
	const struct nest_client_request *request;
	struct nest_client_response *response;
	bool out_of_memory;
	bool stopped;
};

int nest_client_open(const char *socket_path, struct nest_client **ret, struct nest_err *err)
{
	struct nest_client *client = calloc(1, sizeof(*client));

	if (client) {
		client->curl = curl_easy_init();
		client->socket_path = strdup(socket_path);
	}
	if (!client || !client->curl || !client->socket_path) {
		nest_client_close(client);
		return nest_err_set(err, -ENOMEM, "open client of '%s'", socket_path);
	}
	*ret = client;
	return 0;
}

void nest_client_close(struct nest_client *client)
{
	if (!client)
		return;
	if (client->curl)
		curl_easy_cleanup(client->curl);
	free(client->socket_path);
	free(client);
}

void nest_client_response_done(struct nest_client_response *response)
{
	nest_buf_done(&response->body);
	free(response->log_result);
	response->log_result = NULL;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct transfer *transfer = arg;
	long status = 0;

	curl_easy_getinfo(transfer->client->curl, CURLINFO_RESPONSE_CODE, &status);
	if (transfer->request->sink && status >= 200 && status < 300) {
		if (transfer->request->sink(transfer->request->arg, bytes, size * n) == 0)
			return size * n;
		transfer->stopped = true;
		return 0;
	}
	if (nest_buf_append(&transfer->response->body, bytes, size * n) != 0) {
		transfer->out_of_memory = true;
		return 0;
	}
	return size * n;
}

/* Copies the value of header @name from the line @bytes, if it is that one. */
static bool header_value(
	const char *bytes, size_t n, const char *name, const char **ret, size_t *ret_n)
{
	size_t len = strlen(name);

	if (n <= len || strncasecmp(bytes, name, len) != 0 || bytes[len] != ':')
		return false;
	bytes += len + 1;
	n -= len + 1;
	while (n > 0 && (*bytes == ' ' || *bytes == '\t')) {
		bytes++;
		n--;
	}
	while (n > 0 && (bytes[n - 1] == '\r' || bytes[n - 1] == '\n'))
		n--;
	*ret = bytes;
	*ret_n = n;
	return true;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
	struct transfer *transfer = arg;
	struct nest_client_response *response = transfer->response;
	const struct {
		const char *name;
		char *room;
		size_t cap;
	} wanted[] = {
		{ "x-amz-function-error", response->function_error,
			sizeof(response->function_error) },
		{ "x-request-id", response->request_id, sizeof(response->request_id) },
		{ "x-amz-executed-version", response->version, sizeof(response->version) },
	};
	const char *value;
	size_t len;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(wanted); i++) {
		if (header_value(bytes, size * n, wanted[i].name, &value, &len))
			snprintf(wanted[i].room, wanted[i].cap, "%.*s", (int)len, value);
	}
	if (!response->log_result &&
		header_value(bytes, size * n, "x-amz-log-result", &value, &len))
		response->log_result = strndup(value, len);
	return size * n;
}

static int on_progress(
	void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	struct transfer *transfer = arg;

	(void)dltotal;
	(void)dlnow;
	transfer->request->progress(transfer->request->arg, (double)ulnow, (double)ultotal);
	return 0;
}

/* Turns libcurl's failures into ours; the common ones say what to do. */
static int adapt_error(const struct transfer *transfer, CURLcode code, struct nest_err *err)
{
	const char *path = transfer->client->socket_path;
	long os_errno = 0;

	if (transfer->out_of_memory || code == CURLE_OUT_OF_MEMORY)
		return nest_err_set(err, -ENOMEM, "talk to '%s'", path);
	if (code != CURLE_COULDNT_CONNECT)
		return nest_err_say(
			err, -EIO, "talk to the host at '%s': %s", path, curl_easy_strerror(code));
	curl_easy_getinfo(transfer->client->curl, CURLINFO_OS_ERRNO, &os_errno);
	if (access(path, F_OK) != 0)
		return nest_err_say(err, -ENOENT,
			"no host at '%s': there is no such socket; start nestletd, or name its "
			"socket with --socket",
			path);
	if (os_errno == EACCES || access(path, W_OK) != 0)
		return nest_err_say(err, -EACCES,
			"no permission to talk to '%s': run as root or as the host's user", path);
	return nest_err_say(err, -ECONNREFUSED,
		"nobody listens at '%s': the host is not running; start nestletd", path);
}

static int set_body(CURL *curl, const struct nest_client_request *request, FILE **ret_file,
	struct nest_err *err)
{
	struct stat st;

	if (!request->body_file) {
		if (request->body || strcmp(request->method, "GET") != 0) {
			curl_easy_setopt(
				curl, CURLOPT_POSTFIELDS, request->body ? request->body : "");
			curl_easy_setopt(
				curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
		}
		return 0;
	}
	*ret_file = fopen(request->body_file, "re");
	if (!*ret_file || fstat(fileno(*ret_file), &st) != 0)
		return nest_err_set(err, -errno, "open '%s'", request->body_file);
	curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(curl, CURLOPT_READDATA, *ret_file);
	curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)st.st_size);
	return 0;
}

static struct curl_slist *set_headers(CURL *curl, const struct nest_client_request *request)
{
	/* without these libcurl adds a form's content type, and waits a second for a 100 */
	struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");

	list = curl_slist_append(list, "Expect:");
	for (const char *const *h = request->headers; h && *h; h++)
		list = curl_slist_append(list, *h);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
	return list;
}

int nest_client_do(struct nest_client *client, const struct nest_client_request *request,
	struct nest_client_response *ret, struct nest_err *err)
{
	struct transfer transfer = { .client = client, .request = request, .response = ret };
	nest_autofclose FILE *file = NULL;
	struct curl_slist *headers;
	CURL *curl = client->curl;
	char url[1024];
	CURLcode code;
	int r;

	memset(ret, 0, sizeof(*ret));
	snprintf(url, sizeof(url), "http://nestlet%s", request->path);
	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket_path);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
	r = set_body(curl, request, &file, err);
	if (r < 0)
		return r;
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->progress) {
		curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
		curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
	}
	headers = set_headers(curl, request);
	code = curl_easy_perform(curl);
	curl_slist_free_all(headers);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ret->status);
	if (code == CURLE_OK || transfer.stopped)
		return nest_buf_append(&ret->body, "", 1) == 0 ? (ret->body.len--, 0) : -ENOMEM;
	r = adapt_error(&transfer, code, err);
	nest_client_response_done(ret);
	return r;
}

int nest_client_refused(const struct nest_client_response *response, struct nest_err *err)
{
	nest_autojson cJSON *json =
		cJSON_ParseWithLength(nest_buf_bytes(&response->body), response->body.len);
	const cJSON *message = cJSON_GetObjectItem(json, "errorMessage");
	const cJSON *type = cJSON_GetObjectItem(json, "errorType");

	if (cJSON_IsString(message) && cJSON_IsString(type))
		return nest_err_say(
			err, -EREMOTEIO, "%s (%s)", message->valuestring, type->valuestring);
	return nest_err_say(err, -EREMOTEIO, "the host answered with status %ld", response->status);
}

int nest_client_call(struct nest_client *client, const char *method, const char *path,
	const cJSON *json, cJSON **ret, struct nest_err *err)
{
	nest_autofree char *body = json ? cJSON_PrintUnformatted(json) : NULL;
	const struct nest_client_request request = {
		.method = method, .path = path, .body = body, .body_len = body ? strlen(body) : 0
	};
	struct nest_client_response response;
	int r = nest_client_do(client, &request, &response, err);

	if (r < 0)
		return r;
	if (response.status < 200 || response.status >= 300)
		r = nest_client_refused(&response, err);
	else if (ret)
		r = nest_json_parse(nest_buf_bytes(&response.body), response.body.len, ret, err);
	nest_client_response_done(&response);
	return r;
}
