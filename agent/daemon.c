/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "agent/admin.h"
#include "agent/config.h"
#include "agent/deployer.h"
#include "agent/gateway.h"
#include "agent/identity.h"
#include "agent/ready.h"
#include "agent/registry.h"
#include "agent/reporting.h"
#include "agent/tuner.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "runtime/host.h"

/*
 * The life of the agent:
 *
 *	privileged: config -> directories -> lock -> spawner forked -> privileges dropped
 *	STARTING:   host, admin API; the registry's functions are deployed
 *	READY:      the gateway's sockets are open; READY=1 is told
 *	DRAINING:   SIGTERM or the admin API: no new requests, those in flight end
 *	            (at most drain.graceMs; a second signal ends the wait)
 *	CLOSING:    autoscaler, gateway, admin, deployer, host, registry are closed in this order
 *
 * Losing the spawner goes straight to CLOSING with exit code 1: an unprivileged agent can't make a
 * new one, and whoever started the host starts it again.
 */

enum daemon_state {
	STARTING,
	READY,
	DRAINING,
	CLOSING
};

enum {
	BREAK_OFF_MS = 1000 /* for the last answers to reach their clients */
};

struct daemon {
	uv_loop_t loop;
	const char *config_file;
	struct nest_config *config;
	struct nest_registry *registry;
	struct nest_host *host;
	struct nest_deployer *deployer;
	struct nest_tuner *tuner;
	struct nest_gateway *gateway;
	struct nest_admin *admin;
	struct nest_reporting *reporting;
	struct nest_ready *ready;
	uv_signal_t signals[3];
	uv_timer_t drain_timer;
	unsigned parts_open; /* of those that close on a later turn */
	enum daemon_state state;
	int exit_code;
	bool broken_off; /* the drain took too long */
	uint64_t start_time_ms;
	uint64_t reloads_total;
	uint64_t reload_failures_total;
};

static const char default_config[] = NEST_SYSCONFDIR "/nestlet/nestlet.conf";

static void daemon_close(struct daemon *daemon, int exit_code);

/* ---- privileged beginnings ---- */

int nest_daemon_load_config(const struct nest_daemon_options *options, const char **ret_file,
	struct nest_config **ret, struct nest_err *err)
{
	const char *file = options->config_file;

	if (!file && access(default_config, F_OK) == 0)
		file = default_config;
	if (ret_file)
		*ret_file = file;
	return nest_config_load(file, ret, err);
}

static void setup_log(const struct nest_config *config)
{
	bool json = config->log_format == NEST_CONFIG_LOG_JSON ||
		    (config->log_format == NEST_CONFIG_LOG_AUTO && !isatty(STDERR_FILENO));

	nest_log_setup((enum nest_log_level)config->log_level, json);
}

/* An open descriptor for every connection and several for every cell: as many as we may have. */
static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* One host a state directory: the lock is held by an open descriptor until the process ends. */
static int lock_state_dir(const char *dir, uid_t uid, struct nest_err *err)
{
	char path[1100];
	nest_autoclose int fd = -1;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	if (geteuid() == 0 && fchown(fd, uid, (gid_t)-1) != 0)
		return nest_err_set(err, -errno, "give '%s' to user %u", path, (unsigned)uid);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == EWOULDBLOCK)
			return nest_err_say(err, -EBUSY,
				"another host uses state directory '%s': stop it, or give this one "
				"another stateDir",
				dir);
		return nest_err_set(err, -errno, "lock '%s'", path);
	}
	(void)nest_take_fd(fd); /* kept, and the lock with it, for the life of the process */
	return 0;
}

static int prepare_dirs(
	const struct nest_config *config, const struct nest_host_config *host, struct nest_err *err)
{
	int r = nest_identity_own_dir(
		config->state_dir, 0700, host->agent_uid, host->agent_gid, err);

	if (r == 0)
		r = nest_identity_own_dir(
			config->run_dir, 0755, host->agent_uid, host->agent_gid, err);
	return r;
}

static void host_config(const struct nest_config *config, struct nest_host_config *ret)
{
	nest_config_host(config, ret);
	if (geteuid() != 0) {
		ret->agent_uid = geteuid();
		ret->agent_gid = getegid();
	}
}

/* All that needs privilege, in order; afterwards the process has none. */
static int begin(struct daemon *daemon, const struct nest_daemon_options *options,
	const struct nest_host_config *host, struct nest_host_prefork **ret, struct nest_err *err)
{
	const struct nest_config *config = daemon->config;
	int r = nest_ready_new(options->ready_fd, &daemon->ready, err);

	if (r == 0)
		r = prepare_dirs(config, host, err);
	if (r == 0)
		r = lock_state_dir(config->state_dir, host->agent_uid, err);
	if (r == 0)
		r = nest_host_prefork(host, ret, err);
	if (r == 0)
		r = nest_identity_drop(host->agent_uid, host->agent_gid, err);
	return r;
}

/* ---- closing: each part in turn, then the loop runs out ---- */

static void part_closed(void *arg)
{
	((struct daemon *)arg)->parts_open--;
}

static void host_closed(void *arg)
{
	struct daemon *daemon = arg;

	nest_deployer_free(nest_take_ptr(daemon->deployer));
	part_closed(daemon);
}

static void close_host(void *arg)
{
	struct daemon *daemon = arg;

	nest_host_close(nest_take_ptr(daemon->host), host_closed, daemon);
}

static void daemon_close(struct daemon *daemon, int exit_code)
{
	if (daemon->state == CLOSING)
		return;
	daemon->state = CLOSING;
	daemon->exit_code = exit_code;
	nest_ready_tell(daemon->ready, "STOPPING=1");
	for (size_t i = 0; i < NEST_ARRAY_SIZE(daemon->signals); i++)
		uv_close((uv_handle_t *)&daemon->signals[i], NULL);
	uv_close((uv_handle_t *)&daemon->drain_timer, NULL);
	daemon->parts_open = 1;
	if (daemon->tuner) {
		daemon->parts_open++;
		nest_tuner_close(nest_take_ptr(daemon->tuner), part_closed, daemon);
	}
	if (daemon->gateway) {
		daemon->parts_open++;
		nest_gateway_close(nest_take_ptr(daemon->gateway), part_closed, daemon);
	}
	if (daemon->admin) {
		daemon->parts_open++;
		nest_admin_close(nest_take_ptr(daemon->admin), part_closed, daemon);
	}
	/* a thread of its may be looking at the host */
	if (daemon->reporting)
		nest_reporting_close(nest_take_ptr(daemon->reporting), close_host, daemon);
	else
		close_host(daemon);
}

/* ---- drain ---- */

static void on_sent(void *arg)
{
	struct daemon *daemon = arg;

	nest_log(NEST_LOG_INFO, "daemon", "drained");
	daemon_close(daemon, NEST_DAEMON_OK);
}

/* No request is left. A client that reads slowly may not have its answer yet. */
static void on_drained(void *arg)
{
	struct daemon *daemon = arg;

	if (daemon->state == CLOSING)
		return;
	if (daemon->gateway)
		nest_gateway_when_sent(daemon->gateway, on_sent, daemon);
	else
		on_sent(daemon);
}

/* The requests in flight end with an error; what then still is not sent is cut. */
static void break_off(struct daemon *daemon)
{
	if (daemon->broken_off) {
		daemon_close(daemon, NEST_DAEMON_OK);
		return;
	}
	daemon->broken_off = true;
	uv_timer_again(&daemon->drain_timer);
	nest_host_break_off(daemon->host);
}

static void on_drain_timeout(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;

	if (!daemon->broken_off)
		nest_log(NEST_LOG_WARN, "daemon",
			"requests were still in flight after drain.graceMs (%u ms): they are "
			"broken off",
			daemon->config->drain_grace_ms);
	break_off(daemon);
}

static void daemon_drain(void *arg)
{
	struct daemon *daemon = arg;

	if (daemon->state >= DRAINING)
		return;
	daemon->state = DRAINING;
	nest_log(NEST_LOG_INFO, "daemon", "draining: no new requests");
	if (daemon->gateway)
		nest_gateway_drain(daemon->gateway);
	if (daemon->reporting)
		nest_reporting_drain(daemon->reporting);
	uv_timer_start(&daemon->drain_timer, on_drain_timeout, daemon->config->drain_grace_ms,
		BREAK_OFF_MS);
	nest_host_drain(daemon->host, on_drained, daemon);
}

/* ---- reload: all or nothing ---- */

static void gateway_config(const struct nest_config *config, struct nest_gateway_config *ret)
{
	*ret = (struct nest_gateway_config){ .socket_path = config->gateway_socket,
		.socket_mode = config->gateway_socket_mode,
		.tcp_address = *config->gateway_listen ? config->gateway_listen : NULL,
		.access_log = config->gateway_access_log };
	nest_config_http_limits(config, &ret->limits);
}

static void tuner_config(const struct nest_config *config, struct nest_tuner_config *ret)
{
	*ret = (struct nest_tuner_config){
		.interval_ms = config->autoscaler_interval_ms,
		.workers_bytes = config->workers_bytes,
	};
}

static int refuse_restart_keys(
	const struct daemon *daemon, const struct nest_config *fresh, struct nest_err *err)
{
	struct nest_buf keys = NEST_BUF_INIT;
	int n = nest_config_diff(daemon->config, fresh, &keys);

	if (n > 0)
		n = nest_err_say(err, -EINVAL,
			"'%s' changes what only a new start can take over: %.*s; nothing was "
			"changed",
			daemon->config_file ? daemon->config_file : "the config", (int)keys.len,
			nest_buf_bytes(&keys));
	nest_buf_done(&keys);
	return n;
}

static int apply_reload(struct daemon *daemon, struct nest_config *fresh, struct nest_err *err)
{
	struct nest_gateway_config gateway;
	struct nest_tuner_config tuner;
	int r = refuse_restart_keys(daemon, fresh, err);

	if (r == 0)
		r = nest_deployer_reload(daemon->deployer, fresh, err);
	if (r < 0)
		return r;
	setup_log(fresh);
	gateway_config(fresh, &gateway);
	if (daemon->gateway)
		nest_gateway_configure(daemon->gateway, &gateway);
	tuner_config(fresh, &tuner);
	nest_tuner_configure(daemon->tuner, &tuner);
	nest_config_free(daemon->config);
	daemon->config = fresh;
	return 0;
}

static int daemon_reload(void *arg, struct nest_err *err)
{
	struct daemon *daemon = arg;
	struct nest_config *fresh = NULL;
	int r;

	if (daemon->state != READY)
		r = nest_err_say(err, -EBUSY, "the host is not ready: it can't reload now");
	else
		r = nest_config_load(daemon->config_file, &fresh, err);
	if (r == 0)
		r = apply_reload(daemon, fresh, err);
	if (r == 0) {
		daemon->reloads_total++;
		nest_log(NEST_LOG_INFO, "daemon", "config reloaded");
		return 0;
	}
	nest_config_free(fresh);
	daemon->reload_failures_total++;
	nest_log(NEST_LOG_ERROR, "daemon", "reload refused: %s", nest_err_text(err));
	return r;
}

/* ---- events of the loop ---- */

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	struct nest_err err = NEST_ERR_INIT;

	if (number == SIGHUP) {
		daemon_reload(daemon, &err);
		return;
	}
	if (daemon->state < DRAINING) {
		daemon_drain(daemon);
		return;
	}
	nest_log(NEST_LOG_WARN, "daemon", "second signal: requests in flight are broken off");
	break_off(daemon);
}

static void on_host_lost(void *arg, const struct nest_err *why)
{
	struct daemon *daemon = arg;

	if (daemon->state == CLOSING)
		return;
	nest_log(NEST_LOG_ERROR, "daemon", "the spawner is lost, so this host ends: %s",
		nest_err_text(why));
	daemon_close(daemon, NEST_DAEMON_FAILED);
}

static const struct nest_config *daemon_config(void *arg)
{
	return ((struct daemon *)arg)->config;
}

static void daemon_metrics(void *arg, struct nest_metrics_daemon *ret)
{
	struct daemon *daemon = arg;

	*ret = (struct nest_metrics_daemon){ .loop = &daemon->loop,
		.start_time_ms = daemon->start_time_ms,
		.ready = daemon->state == READY,
		.draining = daemon->state >= DRAINING,
		.reloads_total = daemon->reloads_total,
		.reload_failures_total = daemon->reload_failures_total,
		.gateway = daemon->gateway,
		.reporting = daemon->reporting };
}

/* The registry's functions have settled: from now on requests can come. */
static void on_deployed(void *arg)
{
	struct daemon *daemon = arg;
	struct nest_gateway_config config;
	struct nest_tuner_config tuner;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	if (daemon->state != STARTING)
		return;
	gateway_config(daemon->config, &config);
	tuner_config(daemon->config, &tuner);
	r = nest_gateway_open(&daemon->loop, daemon->host, &config, &daemon->gateway, &err);
	if (r == 0)
		r = nest_tuner_open(&daemon->loop, daemon->host, &tuner, &daemon->tuner, &err);
	if (r < 0) {
		nest_log(NEST_LOG_ERROR, "daemon", "%s", nest_err_text(&err));
		daemon_close(daemon, NEST_DAEMON_FAILED);
		return;
	}
	daemon->state = READY;
	nest_log(NEST_LOG_INFO, "daemon", "ready: functions are called on '%s'",
		daemon->config->gateway_socket);
	nest_ready_tell(daemon->ready, "READY=1");
}

static int open_parts(struct daemon *daemon, struct nest_err *err)
{
	const struct nest_admin_env env = { .host = daemon->host,
		.deployer = daemon->deployer,
		.reporting = daemon->reporting,
		.config = daemon_config,
		.metrics = daemon_metrics,
		.reload = daemon_reload,
		.drain = daemon_drain,
		.daemon = daemon };
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
	int r;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(numbers); i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], on_signal, numbers[i]);
	}
	uv_timer_init(&daemon->loop, &daemon->drain_timer);
	daemon->drain_timer.data = daemon;
	r = nest_admin_open(&daemon->loop, &env, daemon->config->admin_socket,
		daemon->config->admin_socket_mode, &daemon->admin, err);
	if (r == 0)
		r = nest_reporting_start(daemon->reporting, daemon->deployer, err);
	if (r == 0)
		r = nest_deployer_start(daemon->deployer, daemon->config, on_deployed, daemon, err);
	if (r == 1)
		on_deployed(daemon);
	if (r < 0)
		daemon_close(daemon, NEST_DAEMON_FAILED);
	return r < 0 ? r : 0;
}

static int open_registry(struct daemon *daemon, struct nest_err *err)
{
	char path[1100];

	snprintf(path, sizeof(path), "%s/registry.json", daemon->config->state_dir);
	return nest_registry_open(path, daemon->config->registry_versions, &daemon->registry, err);
}

static int open_reporting(struct daemon *daemon, struct nest_err *err)
{
	const struct nest_reporting_env env = { .host = daemon->host,
		.registry = daemon->registry,
		.config = daemon_config,
		.metrics = daemon_metrics,
		.drain = daemon_drain,
		.daemon = daemon };

	return nest_reporting_open(&daemon->loop, &env, &daemon->reporting, err);
}

static void log_event(void *arg, enum nest_log_level level, const char *message)
{
	(void)arg;
	nest_log(level, "host", "%s", message);
}

static int serve(struct daemon *daemon, struct nest_host_config *config,
	struct nest_host_prefork *prefork, struct nest_err *err)
{
	int r = uv_loop_init(&daemon->loop);

	if (r < 0)
		return nest_err_set(err, r, "make the event loop");
	config->on_event = log_event;
	r = open_registry(daemon, err);
	if (r == 0)
		r = nest_host_open(
			&daemon->loop, config, prefork, on_host_lost, daemon, &daemon->host, err);
	if (r < 0)
		return r;
	r = nest_deployer_new(
		&daemon->loop, daemon->host, daemon->registry, &daemon->deployer, err);
	if (r == 0)
		r = open_reporting(daemon, err);
	if (r == 0)
		r = open_parts(daemon, err);
	else
		daemon_close(daemon, NEST_DAEMON_FAILED);
	uv_run(&daemon->loop, UV_RUN_DEFAULT);
	/* whoever forgets to let go of something is found out here, by an exit code that tests see */
	if ((uv_loop_close(&daemon->loop) < 0 || daemon->parts_open > 0) && r == 0)
		r = nest_err_say(err, -EBUSY, "something was left open at the end");
	return r;
}

static void daemon_done(struct daemon *daemon)
{
	nest_registry_free(daemon->registry);
	nest_ready_free(daemon->ready);
	nest_config_free(daemon->config);
}

int nest_daemon_run(const struct nest_daemon_options *options)
{
	struct daemon daemon = { .exit_code = NEST_DAEMON_FAILED,
		.start_time_ms = nest_clock_wall_ms() };
	struct nest_host_prefork *prefork = NULL;
	struct nest_host_config host;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	/* the agent is one loop and a few helpers: more arenas would only hold memory */
	mallopt(M_ARENA_MAX, 2);
	signal(SIGPIPE, SIG_IGN);
	umask(0077);
	raise_nofile();
	r = nest_daemon_load_config(options, &daemon.config_file, &daemon.config, &err);
	if (r < 0) {
		nest_log(NEST_LOG_ERROR, "config", "%s", nest_err_text(&err));
		return NEST_DAEMON_USAGE;
	}
	setup_log(daemon.config);
	host_config(daemon.config, &host);
	r = begin(&daemon, options, &host, &prefork, &err);
	if (r == 0)
		r = serve(&daemon, &host, prefork, &err);
	if (r < 0)
		nest_log(NEST_LOG_ERROR, "daemon", "%s", nest_err_text(&err));
	daemon_done(&daemon);
	return r < 0 ? NEST_DAEMON_FAILED : daemon.exit_code;
}
