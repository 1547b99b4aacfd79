/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_LOG_H
#define NEST_BASE_LOG_H

#include <stdbool.h>

enum nest_log_level {
	NEST_LOG_ERROR,
	NEST_LOG_WARN,
	NEST_LOG_INFO,
	NEST_LOG_DEBUG,
};

/*
 * The host's own log, to stderr: one line an event, as text
 * ("2026-01-02T03:04:05.678Z info  gateway: listening on ...") or as JSON
 * ({"time","level","component","message"}). Below agent/ only debug is logged: errors are
 * returned. Each call is one write(2); a log that can't be written is lost, never waited for.
 */

/* Chooses form and least level, for what is logged from then on. Any thread. */
void nest_log_setup(enum nest_log_level level, bool json);

/* "error", "warn", "info", "debug" -> level: 0, or -EINVAL. Any thread. */
int nest_log_parse_level(const char *name, enum nest_log_level *ret_level);

/* Logs one event of @component (a module's word: "gateway", "spawner"). Any thread. */
void nest_log(enum nest_log_level level, const char *component, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Whether an event of @level would be written: to spare the work of a costly argument. Any thread. */
bool nest_log_enabled(enum nest_log_level level);

#endif
