/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"

/* atomic, for a reload changes them while threads may log */
static atomic_uint least = NEST_LOG_INFO;
static atomic_bool as_json;

static const char *const names[] = {
	[NEST_LOG_ERROR] = "error",
	[NEST_LOG_WARN] = "warn",
	[NEST_LOG_INFO] = "info",
	[NEST_LOG_DEBUG] = "debug",
};

void nest_log_setup(enum nest_log_level level, bool json)
{
	least = level;
	as_json = json;
}

int nest_log_parse_level(const char *name, enum nest_log_level *ret_level)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++) {
		if (strcmp(name, names[i]) == 0) {
			*ret_level = (enum nest_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool nest_log_enabled(enum nest_log_level level)
{
	return level <= least;
}

/*
 * Appends the message with control bytes as \xNN: it may quote what a tenant chose, which must not
 * begin a line of its own or drive a terminal.
 */
static int append_text(struct nest_buf *line, const char *message, size_t n)
{
	size_t plain = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)message[i];

		if (c >= 0x20 && c != 0x7f)
			continue;
		if (nest_buf_append(line, message + plain, i - plain) < 0 ||
			nest_buf_printf(line, "\\x%02x", c) < 0)
			return -ENOMEM;
		plain = i + 1;
	}
	return nest_buf_append(line, message + plain, n - plain);
}

static int format_text(struct nest_buf *line, const char *when, enum nest_log_level level,
	const char *component, const char *message, size_t n)
{
	int rc;

	rc = nest_buf_printf(line, "%s %-5s %s: ", when, names[level], component);
	if (rc < 0)
		return rc;
	rc = append_text(line, message, n);
	if (rc < 0)
		return rc;
	return nest_buf_puts(line, "\n");
}

static int format_json(struct nest_buf *line, const char *when, enum nest_log_level level,
	const char *component, const char *message, size_t n)
{
	int rc;

	rc = nest_buf_printf(
		line, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":", when, names[level]);
	if (rc < 0)
		return rc;
	rc = nest_buf_json_string(line, component, strlen(component));
	if (rc < 0)
		return rc;
	rc = nest_buf_puts(line, ",\"message\":");
	if (rc < 0)
		return rc;
	rc = nest_buf_json_string(line, message, n);
	if (rc < 0)
		return rc;
	return nest_buf_puts(line, "}\n");
}

/*
 * A pipe that polls writable has PIPE_BUF bytes of room: a line within that is written whole, not
 * mixed with another's, and the write does not wait, though the pipe may be in blocking mode (its
 * flags are shared with whoever started us, and not ours to change).
 */
static void write_line(const struct nest_buf *line)
{
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;

	if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT))
		return;
	n = write(STDERR_FILENO, nest_buf_bytes(line), line->len);
	(void)n;
}

void nest_log(enum nest_log_level level, const char *component, const char *fmt, ...)
{
	char message[PIPE_BUF - 256];
	char when[NEST_CLOCK_RFC3339_LEN];
	struct nest_buf line = NEST_BUF_INIT;
	int saved = errno;
	va_list ap;
	size_t n;
	int rc;

	if (!nest_log_enabled(level))
		return;
	message[0] = '\0'; /* what an output error of printf leaves */
	va_start(ap, fmt);
	rc = vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	n = strlen(message);
	if (rc >= (int)sizeof(message))
		n = nest_utf8_cut(message, n);
	nest_clock_rfc3339(nest_clock_wall_ms(), when);
	for (;;) {
		rc = (as_json ? format_json : format_text)(
			&line, when, level, component, message, n);
		if (rc < 0 || line.len <= PIPE_BUF || n == 0)
			break;
		/* escapes can take six times the room: what matters stands at the front */
		n = nest_utf8_cut(message, n / 2);
		nest_buf_clear(&line, line.cap);
	}
	if (rc == 0 && line.len <= PIPE_BUF)
		write_line(&line);
	nest_buf_done(&line);
	errno = saved;
}
