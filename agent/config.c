/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/jsonc.h"
#include "base/schema.h"
#include "runtime/function.h"

#define FILE_MAX ((size_t)16 * 1024 * 1024)
#define PASSWD_MAX 65536 /* one entry of the user database */
#define DAY_MS 86400000
#define SOCKET_PATH_MAX 99 /* sun_path, less the ".<pid>" of the name a socket is made under */
#define SYSTEM_MANIFESTS "/etc/nestlet/runtimes.d"

/* A config and what the struct that others see has no place for. */
struct loaded {
	struct nest_config config; /* first: both have one address */
	struct nest_config_function *functions;
	struct nest_function_code *preload;
	char *file;
	char *instance;
	char *gateway_socket;
	char *admin_socket;
};

/* A text under way to a config. */
struct source {
	const char *text;
	size_t n;
	const char *file; /* for messages */
	const char *dir;  /* what relative paths are seen from */
};

/* ---- forms of strings ---- */

static bool is_absolute(const char *text)
{
	return text[0] == '/';
}

static bool is_absolute_or_empty(const char *text)
{
	return text[0] == '\0' || text[0] == '/';
}

static bool is_url_or_empty(const char *text)
{
	return text[0] == '\0' || strncmp(text, "http://", 7) == 0 ||
	       strncmp(text, "https://", 8) == 0;
}

/* A prefix that ended in a host's name would fit longer names too. */
static bool is_image_source(const char *text)
{
	const char *host = strstr(text, "://");

	if (strcmp(text, "admin") == 0 || strcmp(text, "*") == 0 || text[0] == '/')
		return true;
	return host && strchr(host + 3, '/');
}

static bool is_instance(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

static bool is_port(const char *text)
{
	size_t len = strspn(text, "0123456789");
	unsigned long port = strtoul(text, NULL, 10);

	return len > 0 && len <= 5 && text[len] == '\0' && port > 0 && port <= 65535;
}

static bool is_loopback_or_empty(const char *text)
{
	struct in_addr v4;
	char address[16];
	size_t len = strcspn(text, ":");

	if (*text == '\0')
		return true;
	if (strncmp(text, "[::1]:", 6) == 0)
		return is_port(text + 6);
	if (len >= sizeof(address) || text[len] != ':')
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	return inet_pton(AF_INET, address, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127 &&
	       is_port(text + len + 1);
}

static bool is_address_or_empty(const char *text)
{
	const char *colon = strrchr(text, ':');
	struct in6_addr address;
	char host[64];
	size_t len;

	if (*text == '\0')
		return true;
	if (!colon || !is_port(colon + 1) || (size_t)(colon - text) >= sizeof(host))
		return false;
	len = (size_t)(colon - text);
	memcpy(host, text, len);
	host[len] = '\0';
	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		return inet_pton(AF_INET6, host + 1, &address) == 1;
	}
	return len == 0 || inet_pton(AF_INET, host, &address) == 1;
}

static bool is_http_url_or_empty(const char *text)
{
	for (const char *c = text; *c; c++) {
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || *c == '@')
			return false;
	}
	return *text == '\0' || strncmp(text, "https://", 8) == 0 ||
	       strncmp(text, "http://", 7) == 0;
}

/* Whether the host of an http:// URL is this machine, by a name that no server of names is asked for. */
static bool is_local_url(const char *url)
{
	static const char *const hosts[] = { "127.0.0.1", "[::1]", "localhost" };
	const char *host = url + strlen("http://");

	for (size_t i = 0; i < NEST_ARRAY_SIZE(hosts); i++) {
		size_t len = strlen(hosts[i]);

		if (strncmp(host, hosts[i], len) == 0 && strchr(":/?#", host[len]))
			return true;
	}
	return false;
}

/* ---- the table ---- */

#define RESTART 0
#define RELOAD NEST_SCHEMA_FLAG(0)

/* The last field but one of a KEY: what its value must be besides its type. */
#define ANY .valid = NULL
#define FORM(function, words) .valid = (function), .form = (words)
#define WORDS(list) .choices = (list)
#define KEY(member, key, kind, value, least, most, measure, flag, more, text) \
	{ .path = (key),                                                      \
		.type = NEST_SCHEMA_##kind,                                   \
		.offset = offsetof(struct nest_config, member),               \
		.fallback = (value),                                          \
		.min = (least),                                               \
		.max = (most),                                                \
		.unit = (measure),                                            \
		.flags = (flag),                                              \
		more,                                                         \
		.doc = (text) },

static const struct nest_schema_key keys[] = {
#include "agent/config.def"
};

static const struct nest_schema schema = { keys, NEST_ARRAY_SIZE(keys), 0 };

const struct nest_schema *nest_config_schema(void)
{
	return &schema;
}

bool nest_config_is_reloadable(const char *path)
{
	const struct nest_schema_key *key = nest_schema_find(&schema, path);

	return key && key->flags & RELOAD;
}

/* ---- what is derived from the values ---- */

static int refuse_at(struct nest_schema_place *place, const char *path, struct nest_err *err,
	const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static int refuse_at(struct nest_schema_place *place, const char *path, struct nest_err *err,
	const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	nest_schema_locate(place, "%s", path);
	return nest_err_say(err, -EINVAL, "'%s' %s", path, text);
}

static int join(char **ret, const char *dir, const char *name, struct nest_err *err)
{
	if (asprintf(ret, "%s/%s", dir, name) >= 0)
		return 0;
	*ret = NULL;
	return nest_err_set(err, -ENOMEM, "make the path of '%s'", name);
}

/* Completes a socket's path that was left empty with @name in the run directory. */
static int settle_socket(struct loaded *loaded, const char **path, char **own, const char *name,
	struct nest_schema_place *place, struct nest_err *err)
{
	int rc;

	if (**path)
		return 0;
	rc = join(own, loaded->config.run_dir, name, err);
	if (rc < 0)
		return rc;
	*path = *own;
	if (strlen(*own) <= SOCKET_PATH_MAX)
		return 0;
	return refuse_at(place, "runDir", err, "makes socket paths of more than %d bytes: '%s'",
		SOCKET_PATH_MAX, *own);
}

static int settle_sockets(
	struct loaded *loaded, struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_config *config = &loaded->config;
	int rc;

	rc = settle_socket(loaded, &config->gateway_socket, &loaded->gateway_socket, "gateway.sock",
		place, err);
	if (rc == 0)
		rc = settle_socket(loaded, &config->admin_socket, &loaded->admin_socket,
			"admin.sock", place, err);
	if (rc == 0 && strcmp(config->gateway_socket, config->admin_socket) == 0)
		rc = refuse_at(place, "admin.socket", err, "is the gateway's socket too: '%s'",
			config->admin_socket);
	return rc;
}

/* FNV-1a: hosts with other state directories have other names, the same one keeps its own. */
static int settle_instance(struct loaded *loaded, struct nest_err *err)
{
	uint32_t hash = 2166136261u;

	if (*loaded->config.instance)
		return 0;
	for (const char *c = loaded->config.state_dir; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	if (asprintf(&loaded->instance, "nestlet-%08" PRIx32, hash) < 0) {
		loaded->instance = NULL;
		return nest_err_set(err, -ENOMEM, "name this instance");
	}
	loaded->config.instance = loaded->instance;
	return 0;
}

static int settle_manifest_dirs(struct nest_config *config, struct nest_err *err)
{
	const char *const *given = config->manifest_dirs;
	size_t n = 0, at = 0;
	const char **dirs;

	if (access(SYSTEM_MANIFESTS, F_OK) != 0)
		return 0;
	while (given[n])
		n++;
	dirs = calloc(n + 2, sizeof(*dirs));
	if (!dirs)
		return nest_err_set(err, -ENOMEM, "list the manifest directories");
	dirs[at++] = SYSTEM_MANIFESTS;
	for (size_t i = 0; i < n; i++)
		dirs[at++] = given[i];
	free((void *)given);
	config->manifest_dirs = dirs;
	return 0;
}

static bool parse_uid(const char *text, uid_t *ret)
{
	char *end;
	unsigned long long number;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *end || number >= UINT32_MAX)
		return false;
	*ret = (uid_t)number;
	return true;
}

/* 0, 1: no such user, -errno. */
static int look_up_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	nest_autofree char *room = malloc(PASSWD_MAX);
	struct passwd entry, *found = NULL;
	int rc;

	if (!room)
		return -ENOMEM;
	do
		rc = getpwnam_r(name, &entry, room, PASSWD_MAX, &found);
	while (rc == EINTR);
	if (found) {
		*ret_uid = found->pw_uid;
		*ret_gid = found->pw_gid;
		return 0;
	}
	/* the C library has many ways to say that there is none */
	return rc == 0 || rc == ENOENT || rc == ESRCH || rc == EPERM || rc == EBADF ? 1 : -rc;
}

static int settle_user(
	struct nest_config *config, struct nest_schema_place *place, struct nest_err *err)
{
	const char *name = *config->user ? config->user : "nestlet";
	int rc = 0;

	if (parse_uid(name, &config->uid))
		config->gid = (gid_t)config->uid;
	else
		rc = look_up_user(name, &config->uid, &config->gid);
	if (rc < 0)
		return nest_err_set(err, rc, "look up user '%s'", name);
	if (rc > 0 && *config->user)
		return refuse_at(place, "user", err, "names no user of this machine: '%s'", name);
	if (rc > 0) {
		config->uid = config->cells_uid_base - 1;
		config->gid = config->uid;
	}
	if (config->uid == 0)
		return refuse_at(
			place, "user", err, "is root: the agent must run as a user of its own");
	if (config->uid - config->cells_uid_base < config->cells_uid_count)
		return refuse_at(place, "cells.uidBase", err,
			"and cells.uidCount give functions the numbers %" PRIu32 " to %" PRIu32
			", the agent's user %" PRIu32 " is one of them",
			config->cells_uid_base,
			config->cells_uid_base + config->cells_uid_count - 1,
			(uint32_t)config->uid);
	return 0;
}

static int check_scaler(
	const struct nest_config *config, struct nest_schema_place *place, struct nest_err *err)
{
	if (strncmp(config->scaler_url, "http://", 7) == 0 && *config->scaler_token_file &&
		!is_local_url(config->scaler_url))
		return refuse_at(place, "scaler.tokenFile", err,
			"would be sent in the clear to '%s': use https, or no token",
			config->scaler_url);
	return 0;
}

static int settle(struct loaded *loaded, struct nest_schema_place *place, struct nest_err *err)
{
	struct nest_config *config = &loaded->config;
	int rc;

	if (!*config->runtimes_dir)
		config->runtimes_dir = NEST_PKGLIBEXECDIR "/runtimes";
	if (config->cells_prepared + config->cells_prepared_no_network > config->cells_max)
		return refuse_at(place, "cells.max", err,
			"is %" PRIu32 ", less than the prepared cells, %" PRIu32, config->cells_max,
			config->cells_prepared + config->cells_prepared_no_network);
	if (*config->snapshots_store && !*config->snapshots_store_key_file)
		return refuse_at(place, "snapshots.store", err,
			"needs snapshots.storeKeyFile: who could put a snapshot there could run as "
			"any user here");
	rc = settle_sockets(loaded, place, err);
	if (rc == 0)
		rc = check_scaler(config, place, err);
	if (rc == 0)
		rc = settle_instance(loaded, err);
	if (rc == 0)
		rc = settle_manifest_dirs(config, err);
	if (rc == 0)
		rc = settle_user(config, place, err);
	if (rc == 0)
		rc = nest_function_parse_codes(config->preload_json, "preload", &loaded->preload,
			&config->npreload, place, err);
	config->preload = loaded->preload;
	return rc;
}

/* ---- functions ---- */

/* A copy of spec @object whose relative code.path is made absolute below @dir. */
static int anchor_code(const cJSON *object, const char *dir, cJSON **ret)
{
	nest_autojson cJSON *copy = cJSON_Duplicate(object, true);
	cJSON *code = cJSON_GetObjectItemCaseSensitive(copy, "code");
	cJSON *path = cJSON_GetObjectItemCaseSensitive(code, "path");
	nest_autofree char *joined = NULL;
	const char *text;

	if (!copy)
		return -ENOMEM;
	if (!cJSON_IsString(path) || path->valuestring[0] == '/' || !path->valuestring[0]) {
		*ret = nest_take_ptr(copy);
		return 0;
	}
	text = path->valuestring;
	while (strncmp(text, "./", 2) == 0)
		text += 2;
	if (join(&joined, strcmp(dir, "/") == 0 ? "" : dir, text, NULL) < 0)
		return -ENOMEM;
	/* not replaced: cJSON leaves the new item without its name when memory is short */
	cJSON_DeleteItemFromObjectCaseSensitive(code, "path");
	if (!cJSON_AddStringToObject(code, "path", joined))
		return -ENOMEM;
	*ret = nest_take_ptr(copy);
	return 0;
}

static struct nest_config_function *find_twin(
	const struct loaded *loaded, const struct nest_function_spec *spec)
{
	for (size_t i = 0; i < loaded->config.nfunctions; i++) {
		const struct nest_function_spec *other = loaded->functions[i].spec;

		if (strcmp(other->name, spec->name) == 0 &&
			strcmp(other->version, spec->version) == 0)
			return &loaded->functions[i];
	}
	return NULL;
}

/* Adds a parsed spec, which is taken where that succeeds. */
static int add_function(struct loaded *loaded, const struct source *source, unsigned line,
	struct nest_function_spec *spec, struct nest_err *err)
{
	size_t n = loaded->config.nfunctions;
	struct nest_config_function *list, *twin = find_twin(loaded, spec);
	char *file;

	if (twin)
		return nest_err_say(err, -EINVAL,
			"function '%s'%s%s is given twice, first in %s line %u", spec->name,
			*spec->version ? " version " : "", spec->version, twin->file, twin->line);
	list = realloc(loaded->functions, (n + 1) * sizeof(*list));
	if (list) {
		loaded->functions = list;
		loaded->config.functions = list;
	}
	file = list ? strdup(source->file) : NULL;
	if (!file)
		return nest_err_set(err, -ENOMEM, "add function '%s'", spec->name);
	list[n] = (struct nest_config_function){ .spec = spec, .file = file, .line = line };
	loaded->config.nfunctions = n + 1;
	return 0;
}

/* Parses the spec that stands at @at ("" for the whole text) on @line of @source. */
static int read_function(struct loaded *loaded, const struct source *source, const cJSON *object,
	const char *at, unsigned line, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" }, place;
	struct nest_function_spec *spec = NULL;
	nest_autojson cJSON *anchored = NULL;
	int rc;

	if (anchor_code(object, source->dir, &anchored) < 0)
		return nest_err_set(err, -ENOMEM, "read a function");
	rc = nest_function_parse_at(anchored, loaded->config.function_defaults, &spec, &inner, err);
	if (rc < 0 && *at)
		nest_err_wrap(err, "'%s'", at);
	if (rc == 0)
		rc = add_function(loaded, source, line, spec, err);
	if (rc == 0)
		return 0;
	nest_function_free(spec);
	nest_schema_locate(&place, "%s%s%s", at, *at && inner.path[0] ? "." : "", inner.path);
	nest_schema_blame(err, source->file, source->text, source->n, &place);
	return rc;
}

static int read_functions(struct loaded *loaded, const struct source *source, struct nest_err *err)
{
	size_t n = (size_t)cJSON_GetArraySize(loaded->config.functions_json), i = 0;
	nest_autofree unsigned *lines = calloc(n + 1, sizeof(*lines));
	const cJSON *item;
	char at[40];

	if (!lines)
		return nest_err_set(err, -ENOMEM, "read %zu functions", n);
	nest_jsonc_lines_in(source->text, source->n, "functions", lines, n);
	cJSON_ArrayForEach(item, loaded->config.functions_json) {
		int rc;

		snprintf(at, sizeof(at), "functions[%zu]", i);
		rc = read_function(loaded, source, item, at, lines[i++], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int read_function_file(struct loaded *loaded, const char *name, struct nest_err *err)
{
	const char *dir = loaded->config.functions_dir;
	nest_autojson cJSON *object = NULL;
	nest_autofree char *path = NULL;
	nest_autofree char *text = NULL;
	struct source source = { .dir = dir };
	int rc;

	rc = join(&path, dir, name, err);
	if (rc == 0)
		rc = nest_file_read(AT_FDCWD, path, FILE_MAX, &text, &source.n, err);
	if (rc < 0)
		return rc;
	source.text = text;
	source.file = path;
	rc = nest_jsonc_parse(text, source.n, &object, err);
	if (rc < 0) {
		nest_err_wrap(err, "%s", path);
		return rc;
	}
	return read_function(
		loaded, &source, object, "", nest_jsonc_line_of(text, source.n, ""), err);
}

static int is_function_file(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

static int read_functions_dir(struct loaded *loaded, struct nest_err *err)
{
	struct dirent **entries = NULL;
	int n, rc = 0;

	if (!*loaded->config.functions_dir)
		return 0;
	n = scandir(loaded->config.functions_dir, &entries, is_function_file, alphasort);
	if (n < 0)
		return nest_err_set(
			err, -errno, "read functionsDir '%s'", loaded->config.functions_dir);
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = read_function_file(loaded, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

static int check_defaults(struct loaded *loaded, const struct source *source, struct nest_err *err)
{
	struct nest_schema_place inner = { .path = "" }, place;
	int rc = nest_function_check_defaults(loaded->config.function_defaults, &inner, err);

	if (rc == 0)
		return 0;
	nest_err_wrap(err, "'functionDefaults'");
	nest_schema_locate(&place, "functionDefaults%s%s", inner.path[0] ? "." : "", inner.path);
	nest_schema_blame(err, source->file, source->text, source->n, &place);
	return rc;
}

/* ---- loading ---- */

static void release(struct loaded *loaded)
{
	for (size_t i = 0; i < loaded->config.nfunctions; i++) {
		nest_function_free(loaded->functions[i].spec);
		free(loaded->functions[i].file);
	}
	nest_schema_release(&schema, loaded, loaded->config.json);
	free(loaded->functions);
	free(loaded->preload);
	free(loaded->file);
	free(loaded->instance);
	free(loaded->gateway_socket);
	free(loaded->admin_socket);
	free(loaded);
}

static int read_values(struct loaded *loaded, const struct source *source, struct nest_err *err)
{
	struct nest_schema_place place = { .path = "" };
	nest_autojson cJSON *object = NULL;
	int rc;

	rc = nest_jsonc_parse(source->text, source->n, &object, err);
	if (rc < 0) {
		nest_err_wrap(err, "%s", source->file);
		return rc;
	}
	rc = nest_schema_read(
		&schema, object, NULL, &loaded->config, &loaded->config.json, &place, err);
	if (rc == 0)
		rc = settle(loaded, &place, err);
	if (rc < 0) {
		nest_schema_blame(err, source->file, source->text, source->n, &place);
		return rc;
	}
	return 0;
}

int nest_config_parse(const char *text, size_t n, const char *file, const char *dir,
	struct nest_config **ret, struct nest_err *err)
{
	struct loaded *loaded = calloc(1, sizeof(*loaded));
	struct source source = {
		.text = text, .n = n, .file = file ? file : "default config", .dir = dir
	};
	int rc = 0;

	if (loaded && file)
		loaded->file = strdup(file);
	if (!loaded || (file && !loaded->file))
		rc = nest_err_set(err, -ENOMEM, "read '%s'", source.file);
	if (!loaded)
		return rc;
	loaded->config.file = loaded->file;
	if (rc == 0)
		rc = read_values(loaded, &source, err);
	if (rc == 0)
		rc = check_defaults(loaded, &source, err);
	if (rc == 0)
		rc = read_functions(loaded, &source, err);
	if (rc == 0)
		rc = read_functions_dir(loaded, err);
	if (rc < 0) {
		release(loaded);
		return rc;
	}
	*ret = &loaded->config;
	return 0;
}

int nest_config_load(const char *file, struct nest_config **ret, struct nest_err *err)
{
	nest_autofree char *text = NULL;
	nest_autofree char *real = NULL;
	char *slash;
	size_t n;
	int rc;

	if (!file)
		return nest_config_parse("{}", 2, NULL, "/", ret, err);
	rc = nest_file_read(AT_FDCWD, file, FILE_MAX, &text, &n, err);
	if (rc < 0)
		return rc;
	real = realpath(file, NULL);
	if (!real)
		return nest_err_set(err, -errno, "find the directory of '%s'", file);
	slash = strrchr(real, '/');
	slash[slash == real] = '\0';
	return nest_config_parse(text, n, file, real, ret, err);
}

void nest_config_free(struct nest_config *config)
{
	if (config)
		release((struct loaded *)config);
}

/* ---- use ---- */

static const cJSON *value_of(const cJSON *json, const char *path)
{
	const char *dot = strchr(path, '.');
	nest_autofree char *group = dot ? strndup(path, (size_t)(dot - path)) : NULL;

	if (!dot)
		return cJSON_GetObjectItemCaseSensitive(json, path);
	if (!group)
		return NULL;
	return cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(json, group), dot + 1);
}

int nest_config_diff(
	const struct nest_config *a, const struct nest_config *b, struct nest_buf *ret_keys)
{
	int n = 0;

	for (size_t i = 0; i < schema.n; i++) {
		const char *path = keys[i].path;

		if (keys[i].flags & RELOAD ||
			cJSON_Compare(value_of(a->json, path), value_of(b->json, path), true))
			continue;
		if (nest_buf_printf(ret_keys, "%s%s", n ? ", " : "", path) < 0)
			return -ENOMEM;
		n++;
	}
	return n;
}

void nest_config_host(const struct nest_config *config, struct nest_host_config *ret)
{
	*ret = (struct nest_host_config){
		.instance = config->instance,
		.state_dir = config->state_dir,
		.runtimes_dir = config->runtimes_dir,
		.manifest_dirs = config->manifest_dirs,
		.huge_text = config->runtimes_huge_pages,
		.root_paths = config->cells_root_paths,
		.uid_base = config->cells_uid_base,
		.uid_count = config->cells_uid_count,
		.agent_uid = config->uid,
		.agent_gid = config->gid,
		.pool_size = config->cells_prepared,
		.pool_size_none = config->cells_prepared_no_network,
		.max_cells = config->cells_max,
		.workers_bytes = config->workers_bytes,
		.snapshots = config->snapshots_enabled,
		.snapshot_layers = config->snapshots_layers,
		.criu = config->snapshots_criu,
		.snapshots_bytes = config->snapshots_bytes,
		.snapshots_store = config->snapshots_store,
		.snapshots_key_file = config->snapshots_store_key_file,
		.restore_timeout_ms = config->snapshots_restore_timeout_ms,
		.hook_timeout_ms = config->snapshots_hook_timeout_ms,
		.standby_bytes = config->standby_memory,
		.standby_per_function = config->standby_per_function,
		.standby_prefetched = config->standby_prefetched,
		.require_isolation = config->cells_isolation == NEST_CONFIG_ISOLATION_REQUIRED,
		.cache_bytes = config->cache_bytes,
		.image_sources = config->cache_image_sources,
		.allow_unverified = config->loader_allow_unverified,
		.ca_file = config->loader_ca_file,
		.credentials_file = config->loader_credentials_file,
		.fetch_connections = config->loader_connections,
		.fetch_timeout_ms = config->loader_timeout_ms,
		.fetch_connect_timeout_ms = config->loader_connect_timeout_ms,
		.fetch_stall_ms = config->loader_stall_ms,
		.fetch_retries = config->loader_retries,
		.fetch_backoff_ms = config->loader_backoff_ms,
		.preload = config->preload,
		.npreload = config->npreload,
		.code_bytes = config->limit_code_bytes,
		.code_entries = config->limit_code_entries,
		.upload_bytes = config->limit_upload_bytes,
		.response_bytes = config->limit_response_bytes,
		.cancel_grace_ms = config->worker_cancel_grace_ms,
		.ping_interval_ms = config->worker_ping_interval_ms,
		.ping_timeout_ms = config->worker_ping_timeout_ms,
		.drain_grace_ms = config->drain_grace_ms,
		.log_line_bytes = config->log_line_bytes,
	};
}

void nest_config_http_limits(const struct nest_config *config, struct nest_http_limits *ret)
{
	*ret = (struct nest_http_limits){
		.connections = config->gateway_max_connections,
		.header_bytes = config->gateway_header_bytes,
		.header_count = config->gateway_header_count,
		.body_bytes = config->gateway_body_bytes,
		.header_timeout_ms = config->gateway_header_timeout_ms,
		.body_idle_ms = config->gateway_body_idle_ms,
		.keepalive_ms = config->gateway_keep_alive_ms,
		.write_idle_ms = config->gateway_write_idle_ms,
	};
}
