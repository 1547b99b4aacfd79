/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "sandbox/sandbox.h"
#include "tests/unit/suite.h"

static const char *const roots[] = { "/usr", "/etc", NULL };
static const struct nest_sandbox_config full = {
	.instance = "one",
	.state_dir = "/var/lib/one",
	.runtimes_dir = "/usr/libexec/runtimes",
	.root_paths = roots,
	.uid_base = 70000,
	.uid_count = 500,
	.agent_uid = 4711,
	.pool_size = 3,
	.max_cells = 99,
	.mount_images = true,
	.snapshots = true,
	.criu = "",
	.snapshots_secret = "/etc/secret",
	.snapshots_bytes = UINT64_C(1) << 40,
};

static int write_full(void)
{
	struct nest_err err = NEST_ERR_INIT;
	int fd = -1;

	ck_assert_msg(nest_spawner_config_write(&full, &fd, &err) == 0, "%s", nest_err_text(&err));
	return fd;
}

START_TEST(a_config_arrives_as_it_was)
{
	struct nest_sandbox_config config;
	struct nest_err err = NEST_ERR_INIT;
	int fd = write_full();

	ck_assert_msg(nest_spawner_config_read(fd, &config, &err) == 0, "%s", nest_err_text(&err));
	close(fd);
	ck_assert_str_eq(config.instance, full.instance);
	ck_assert_str_eq(config.state_dir, full.state_dir);
	ck_assert_str_eq(config.runtimes_dir, full.runtimes_dir);
	ck_assert_str_eq(config.root_paths[0], "/usr");
	ck_assert_str_eq(config.root_paths[1], "/etc");
	ck_assert_ptr_null(config.root_paths[2]);
	ck_assert_str_eq(config.criu, "");
	ck_assert_str_eq(config.snapshots_secret, full.snapshots_secret);
	ck_assert_uint_eq(config.uid_base, full.uid_base);
	ck_assert_uint_eq(config.uid_count, full.uid_count);
	ck_assert_uint_eq(config.agent_uid, full.agent_uid);
	ck_assert_uint_eq(config.pool_size, full.pool_size);
	ck_assert_uint_eq(config.max_cells, full.max_cells);
	ck_assert(config.mount_images && config.snapshots && !config.require_isolation);
	ck_assert_uint_eq(config.snapshots_bytes, full.snapshots_bytes);
	free((void *)config.root_paths);
}
END_TEST

START_TEST(what_is_not_there_stays_away)
{
	struct nest_sandbox_config config = full;
	struct nest_err err = NEST_ERR_INIT;
	int fd;

	config.criu = config.snapshots_secret = NULL;
	ck_assert_int_eq(nest_spawner_config_write(&config, &fd, &err), 0);
	memset(&config, 0xff, sizeof(config));
	ck_assert_int_eq(nest_spawner_config_read(fd, &config, &err), 0);
	ck_assert_ptr_null(config.criu);
	ck_assert_ptr_null(config.snapshots_secret);
	ck_assert_str_eq(config.root_paths[1], "/etc");
	free((void *)config.root_paths);
	close(fd);
}
END_TEST

static void expect_refused(int fd)
{
	struct nest_sandbox_config config;
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_spawner_config_read(fd, &config, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "not of one build") != NULL, "%s", err.text);
}

START_TEST(what_another_build_wrote_is_refused)
{
	struct stat st;
	int fd = write_full();

	/* cut off at every length, */
	ck_assert_int_eq(fstat(fd, &st), 0);
	for (off_t n = st.st_size - 1; n >= 0; n--) {
		ck_assert_int_eq(ftruncate(fd, n), 0);
		expect_refused(fd);
	}
	close(fd);
	/* and of another version */
	fd = write_full();
	ck_assert_int_eq(pwrite(fd, "9", 1, 0), 1);
	expect_refused(fd);
	close(fd);
}
END_TEST

NEST_SUITE("sandbox/spawner_config", a_config_arrives_as_it_was, what_is_not_there_stays_away,
	what_another_build_wrote_is_refused)
