/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_CONFIG_H
#define NEST_AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <cjson/cJSON.h>

#include "agent/http.h"
#include "runtime/host.h"

struct nest_buf;
struct nest_err;
struct nest_function_spec;
struct nest_schema;

enum nest_config_log_format {
	NEST_CONFIG_LOG_AUTO,
	NEST_CONFIG_LOG_TEXT,
	NEST_CONFIG_LOG_JSON,
};

enum nest_config_isolation {
	NEST_CONFIG_ISOLATION_BEST_EFFORT,
	NEST_CONFIG_ISOLATION_REQUIRED,
};

/* One function of the config and where it stands. */
struct nest_config_function {
	struct nest_function_spec *spec;
	char *file;
	unsigned line;
};

/*
 * What nestlet.conf(5) says: immutable once loaded, complete, paths and user resolved. Each member
 * is named after its key in config.def.
 */
struct nest_config {
	const char *file; /* that it was read from; NULL: all defaults */
	const char *instance;
	const char *user; /* as given */
	uid_t uid;	  /* of user, resolved */
	gid_t gid;
	const char *state_dir;
	const char *run_dir;

	unsigned log_level;  /* enum nest_log_level */
	unsigned log_format; /* enum nest_config_log_format */

	const char *gateway_socket;
	uint32_t gateway_socket_mode;
	const char *gateway_listen; /* "": none */
	bool gateway_access_log;
	uint32_t gateway_max_connections;
	uint32_t gateway_header_bytes;
	uint32_t gateway_header_count;
	uint64_t gateway_body_bytes;
	uint32_t gateway_header_timeout_ms;
	uint32_t gateway_body_idle_ms;
	uint32_t gateway_keep_alive_ms;
	uint32_t gateway_write_idle_ms;

	const char *admin_socket;
	uint32_t admin_socket_mode;

	const char *runtimes_dir;
	const char *const *manifest_dirs; /* NULL-terminated; /etc/nestlet/runtimes.d if it exists,
					     then those given */
	bool runtimes_huge_pages;
	unsigned cells_isolation; /* enum nest_config_isolation */
	const char *const *cells_root_paths;
	uint32_t cells_uid_base;
	uint32_t cells_uid_count;
	uint32_t cells_prepared;
	uint32_t cells_prepared_no_network;
	uint32_t cells_max;

	bool snapshots_enabled;
	bool snapshots_layers;
	const char *snapshots_criu;
	uint64_t snapshots_bytes;
	const char *snapshots_store;
	const char *snapshots_store_key_file;
	uint32_t snapshots_restore_timeout_ms;
	uint32_t snapshots_hook_timeout_ms;
	uint64_t standby_memory;
	uint32_t standby_per_function;
	uint32_t standby_prefetched;

	uint64_t cache_bytes;
	const char *const *cache_image_sources; /* NULL-terminated */
	const cJSON *preload_json;		/* as given; its parsed form is this: */
	const struct nest_function_code *preload;
	uint32_t npreload;
	bool loader_allow_unverified;
	const char *loader_ca_file;
	const char *loader_credentials_file;
	uint32_t loader_connections;
	uint32_t loader_timeout_ms;
	uint32_t loader_connect_timeout_ms;
	uint32_t loader_stall_ms;
	uint32_t loader_retries;
	uint32_t loader_backoff_ms;

	uint64_t limit_code_bytes;
	uint64_t limit_code_entries;
	uint64_t limit_upload_bytes;
	uint64_t limit_response_bytes;
	uint32_t log_line_bytes;
	uint32_t registry_versions;

	const char *scaler_url; /* "": none */
	const char *scaler_token_file;
	const char *scaler_ca_file;
	uint32_t scaler_interval_ms;
	uint32_t scaler_timeout_ms;
	uint32_t scaler_backoff_max_ms;
	uint32_t scaler_compress_bytes;
	uint32_t scaler_reply_bytes;
	const char *stats_listen;   /* "": none */
	const char *knative_listen; /* "": none */
	uint32_t ready_max_requests;

	uint32_t worker_cancel_grace_ms;
	uint32_t worker_ping_interval_ms;
	uint32_t worker_ping_timeout_ms;
	uint64_t workers_bytes;
	uint32_t autoscaler_interval_ms;
	uint32_t drain_grace_ms;

	const char *functions_dir;		      /* "": none */
	const cJSON *function_defaults;		      /* checked; nest_function_parse() takes it */
	const cJSON *functions_json;		      /* as given; their parsed form is this: */
	const struct nest_config_function *functions; /* of "functions", then of functionsDir */
	size_t nfunctions;

	cJSON *json; /* the complete config, as given and with defaults */
};

/*
 * Reads a config file, and the functions that it refers to; @file NULL: an empty one. An error
 * names file, line and key, and then nothing was loaded. The caller owns *@ret. Blocks on the disk
 * and on the user database. Any thread.
 */
int nest_config_load(const char *file, struct nest_config **ret, struct nest_err *err);

/* The same for @n bytes of text, whose relative paths are seen from the directory @dir. */
int nest_config_parse(const char *text, size_t n, const char *file, const char *dir,
	struct nest_config **ret, struct nest_err *err);

void nest_config_free(struct nest_config *config); /* NULL is fine */

/*
 * Appends the keys, separated by ", ", that differ between @a and @b and need a new start. Their
 * number, or -ENOMEM. Any thread.
 */
int nest_config_diff(
	const struct nest_config *a, const struct nest_config *b, struct nest_buf *ret_keys);

/*
 * What the host must know; the strings stay @config's. The agent's uid and gid are @config's, which
 * a caller that isn't root replaces by its own. Any thread.
 */
void nest_config_host(const struct nest_config *config, struct nest_host_config *ret);

/* The limits of the gateway's HTTP server. Any thread. */
void nest_config_http_limits(const struct nest_config *config, struct nest_http_limits *ret);

/*
 * Writes a config that says all defaults, each key with its description: what nestletd
 * --print-config shows and deploy/nestlet.conf.example holds. 0, -EIO or -ENOMEM. Blocks on @out.
 */
int nest_config_print_example(FILE *out);

/* The table of all keys. Any thread. */
const struct nest_schema *nest_config_schema(void);

/* Whether the key @path is taken over on SIGHUP, without a new start. Any thread. */
bool nest_config_is_reloadable(const char *path);

#endif
