/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "tests/unit/suite.h"

static int reader = -1;
static char line[4 * PIPE_BUF];

/* The log goes into a pipe that stands for stderr. */
static void enter(void)
{
	int fds[2];

	ck_assert_int_eq(nest_fd_pipe(0, fds, NULL), 0);
	ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	ck_assert_int_eq(nest_fd_set_nonblock(fds[0], 1, NULL), 0);
	reader = fds[0];
}

static ssize_t read_line(void)
{
	ssize_t n = read(reader, line, sizeof(line) - 1);

	line[n > 0 ? n : 0] = '\0';
	return n;
}

START_TEST(text_has_time_level_component_message)
{
	nest_log_setup(NEST_LOG_INFO, false);
	nest_log(NEST_LOG_INFO, "gateway", "listening on %s", "/run/x");
	ck_assert_int_gt(read_line(), 0);
	ck_assert_int_eq(line[10], 'T');
	ck_assert_str_eq(line + 23, "Z info  gateway: listening on /run/x\n");
	nest_log(NEST_LOG_ERROR, "agent", "gone");
	ck_assert_int_gt(read_line(), 0);
	ck_assert_str_eq(line + 23, "Z error agent: gone\n");
}
END_TEST

START_TEST(json_is_one_object_a_line)
{
	nest_autojson cJSON *event = NULL;
	const char *s;

	nest_log_setup(NEST_LOG_INFO, true);
	nest_log(NEST_LOG_WARN, "gate\"way", "a \"quote\"\nand \xff");
	ck_assert_int_gt(read_line(), 0);
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
	ck_assert_int_eq(nest_json_parse(line, strlen(line), &event, NULL), 0);
	ck_assert_int_eq(cJSON_GetArraySize(event), 4);
	ck_assert_int_eq(nest_json_get_string(event, "time", &s, NULL), 0);
	ck_assert_uint_eq(strlen(s), 24);
	ck_assert_int_eq(nest_json_get_string(event, "level", &s, NULL), 0);
	ck_assert_str_eq(s, "warn");
	ck_assert_int_eq(nest_json_get_string(event, "component", &s, NULL), 0);
	ck_assert_str_eq(s, "gate\"way");
	ck_assert_int_eq(nest_json_get_string(event, "message", &s, NULL), 0);
	ck_assert_str_eq(s, "a \"quote\"\nand \xef\xbf\xbd");
}
END_TEST

START_TEST(levels_below_the_least_are_silent)
{
	nest_log_setup(NEST_LOG_WARN, false);
	ck_assert(nest_log_enabled(NEST_LOG_ERROR));
	ck_assert(nest_log_enabled(NEST_LOG_WARN));
	ck_assert(!nest_log_enabled(NEST_LOG_INFO));
	nest_log(NEST_LOG_INFO, "a", "b");
	nest_log(NEST_LOG_DEBUG, "a", "b");
	ck_assert_int_eq(read_line(), -1);
	ck_assert_int_eq(errno, EAGAIN);
}
END_TEST

START_TEST(levels_have_names)
{
	enum nest_log_level level = NEST_LOG_ERROR;

	ck_assert_int_eq(nest_log_parse_level("debug", &level), 0);
	ck_assert_int_eq(level, NEST_LOG_DEBUG);
	ck_assert_int_eq(nest_log_parse_level("warn", &level), 0);
	ck_assert_int_eq(level, NEST_LOG_WARN);
	ck_assert_int_eq(nest_log_parse_level("WARN", &level), -EINVAL);
	ck_assert_int_eq(nest_log_parse_level("", &level), -EINVAL);
	ck_assert_int_eq(level, NEST_LOG_WARN);
}
END_TEST

START_TEST(a_message_can_not_begin_a_line_or_drive_a_terminal)
{
	nest_log_setup(NEST_LOG_INFO, false);
	nest_log(NEST_LOG_INFO, "a", "%s", "x\n2026 error fake\x1b[31m");
	ck_assert_int_gt(read_line(), 0);
	ck_assert_str_eq(line + 23, "Z info  a: x\\x0a2026 error fake\\x1b[31m\n");
}
END_TEST

START_TEST(a_long_message_stays_one_atomic_line)
{
	static char message[3 * PIPE_BUF];
	nest_autojson cJSON *event = NULL;
	ssize_t n;

	for (size_t i = 0; i + 2 < sizeof(message); i += 2)
		memcpy(message + i, "\xc3\xa9", 2);
	nest_log_setup(NEST_LOG_INFO, false);
	nest_log(NEST_LOG_INFO, "a", "%s", message);
	n = read_line();
	ck_assert_int_gt(n, PIPE_BUF / 2);
	ck_assert_int_le(n, PIPE_BUF);
	ck_assert_int_eq(line[n - 1], '\n');

	memset(message, '\x01', sizeof(message) - 1);
	nest_log_setup(NEST_LOG_INFO, true);
	nest_log(NEST_LOG_INFO, "a", "%s", message);
	n = read_line();
	ck_assert_int_gt(n, 1000);
	ck_assert_int_le(n, PIPE_BUF);
	ck_assert_int_eq(nest_json_parse(line, (size_t)n, &event, NULL), 0);
}
END_TEST

START_TEST(a_full_pipe_is_not_waited_for)
{
	nest_log_setup(NEST_LOG_INFO, false);
	/* the pipe blocks, and nobody reads: waiting would run into the test's time limit */
	for (int i = 0; i < 5000; i++)
		nest_log(NEST_LOG_INFO, "a", "%0100d", i);
	ck_assert_int_gt(read_line(), 0);
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

START_TEST(errno_is_kept)
{
	close(STDERR_FILENO);
	errno = ERANGE;
	nest_log_setup(NEST_LOG_INFO, false);
	nest_log(NEST_LOG_ERROR, "a", "b");
	ck_assert_int_eq(errno, ERANGE);
}
END_TEST

NEST_SUITE_WITH("base/log", enter, NULL, text_has_time_level_component_message,
	json_is_one_object_a_line, levels_below_the_least_are_silent, levels_have_names,
	a_message_can_not_begin_a_line_or_drive_a_terminal, a_long_message_stays_one_atomic_line,
	a_full_pipe_is_not_waited_for, errno_is_kept)
