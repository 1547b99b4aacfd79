/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_find.h"
#include "sandbox/feature.h"
#include "sandbox/feature_criu.h"
#include "sandbox/landlock.h"
#include "sandbox/seccomp.h"

static struct nest_feature *rows;
static size_t n_rows;
static const struct nest_feature_wish wish = { .snapshots = true };

static void probe(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(
		nest_feature_probe(&wish, &rows, &n_rows, &err) == 0, "%s", nest_err_text(&err));
}

static const struct nest_feature *row(const char *name)
{
	for (size_t i = 0; i < n_rows; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	ck_abort_msg("no row '%s'", name);
	return NULL;
}

static void assert_yes(const char *name)
{
	const struct nest_feature *feature = row(name);

	ck_assert_msg(feature->yes, "%s: %s", name, feature->detail);
}

/* Every row says something; a missing thing says what to do; no name comes twice. */
static void assert_well_formed(void)
{
	for (size_t i = 0; i < n_rows; i++) {
		ck_assert_msg(rows[i].detail[0] != '\0', "%s says nothing", rows[i].name);
		ck_assert_msg(rows[i].yes == (rows[i].remedy[0] == '\0'), "%s: yes %d, remedy '%s'",
			rows[i].name, rows[i].yes, rows[i].remedy);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(rows[i].name, rows[j].name);
	}
}

/* Runs @body in a child that has done what @enter does; checks of both count. */
static void in_child(void (*enter)(void), void (*body)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		enter();
		body();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "the child ended with status 0x%x", status);
}

#define CHILD_ASSERT(condition, ...)                  \
	do {                                          \
		if (!(condition)) {                   \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr);          \
			_exit(1);                     \
		}                                     \
	} while (0)

START_TEST(root_sees_what_cells_need)
{
	static const char *const needed[] = { "user", "CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID",
		"CAP_SETPCAP", "CAP_KILL", "CAP_NET_ADMIN", "pid namespace", "mount namespace",
		"ipc namespace", "uts namespace", "net namespace", "time namespace", "seccomp",
		"no_new_privs", "new mount API", "clone3", "pidfd", "close_range", "CRIU",
		NEST_FEATURE_SNAPSHOTS };

	probe();
	assert_well_formed();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(needed); i++)
		assert_yes(needed[i]);
	free(rows);
}
END_TEST

START_TEST(each_cgroup_controller_is_somewhere)
{
	static const char *const names[] = { "memory", "pids", "cpu" };

	probe();
	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++) {
		const struct nest_feature *v1, *v2;
		char name[32];

		snprintf(name, sizeof(name), "cgroup v1 %s", names[i]);
		v1 = row(name);
		snprintf(name, sizeof(name), "cgroup v2 %s", names[i]);
		v2 = row(name);
		ck_assert_msg(
			v1->yes || v2->yes, "%s: v1: %s; v2: %s", names[i], v1->detail, v2->detail);
		ck_assert(!v1->required && !v2->required);
		ck_assert_str_eq(v1->yes ? v1->remedy : v2->remedy, "");
	}
	free(rows);
}
END_TEST

START_TEST(the_order_is_the_same_each_time_and_nothing_is_left)
{
	struct nest_feature *before;
	size_t n_before;
	int fd_before = open("/dev/null", O_RDONLY | O_CLOEXEC), fd_after;

	close(fd_before);
	probe();
	before = rows;
	n_before = n_rows;
	probe();
	ck_assert_uint_eq(n_rows, n_before);
	for (size_t i = 0; i < n_rows; i++)
		ck_assert_str_eq(rows[i].name, before[i].name);
	fd_after = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(fd_after);
	ck_assert_int_eq(fd_after, fd_before);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
	free(before);
	free(rows);
}
END_TEST

START_TEST(what_a_killed_probe_left_is_swept_and_what_another_is_at_is_not)
{
	const struct timespec long_ago[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	nest_autofree char *mounts = NULL, *own = NULL;
	struct nest_cgroup_find_place places[8];
	nest_autoclose int dir = -1;
	char path[2 * PATH_MAX];
	size_t i = 0, n;

	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &mounts, NULL, NULL), 0);
	ck_assert_int_eq(
		nest_file_read(AT_FDCWD, "/proc/self/cgroup", 1 << 20, &own, NULL, NULL), 0);
	n = nest_cgroup_find_places(mounts, own, places, NEST_ARRAY_SIZE(places));
	while (i < n && !(places[i].controllers & (1u << NEST_CGROUP_MEMORY)) &&
		places[i].version == 1)
		i++;
	ck_assert_uint_lt(i, n);
	snprintf(path, sizeof(path), "%s%s", places[i].mount, places[i].own);
	dir = open(path, O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dir, 0);
	ck_assert_int_eq(mkdirat(dir, "nestlet-probe-old", 0755), 0);
	ck_assert_int_eq(mkdirat(dir, "nestlet-probe-new", 0755), 0);
	ck_assert_int_eq(utimensat(dir, "nestlet-probe-old", long_ago, 0), 0);
	probe();
	free(rows);
	ck_assert_int_eq(unlinkat(dir, "nestlet-probe-new", AT_REMOVEDIR), 0);
	ck_assert_int_eq(unlinkat(dir, "nestlet-probe-old", AT_REMOVEDIR), -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(probing_is_quick)
{
	uint64_t start = nest_clock_mono_us(), all, criu;
	struct nest_feature feature;

	probe();
	all = nest_clock_mono_us() - start;
	start = nest_clock_mono_us();
	nest_feature_criu_probe(NULL, &feature);
	criu = nest_clock_mono_us() - start;
	printf("probe: %llu ms, CRIU's part %llu ms\n", (unsigned long long)all / 1000,
		(unsigned long long)criu / 1000);
	ck_assert_uint_lt(all, criu + 1000 * 1000);
	free(rows);
}
END_TEST

static void become_nobody(void)
{
	CHILD_ASSERT(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
			     setresuid(65534, 65534, 65534) == 0,
		"become nobody: %s", strerror(errno));
}

static void expect_little(void)
{
	struct nest_err err = NEST_ERR_INIT;
	bool remedied = false;

	CHILD_ASSERT(
		nest_feature_probe(&wish, &rows, &n_rows, &err) == 0, "%s", nest_err_text(&err));
	for (size_t i = 0; i < n_rows; i++) {
		const struct nest_feature *f = &rows[i];

		CHILD_ASSERT(f->detail[0] && f->yes == !f->remedy[0], "%s: %s, %s", f->name,
			f->detail, f->remedy);
		if (strcmp(f->name, "user") == 0 || strcmp(f->name, "CAP_SYS_ADMIN") == 0 ||
			strcmp(f->name, "mount namespace") == 0 ||
			strncmp(f->name, "cgroup v", strlen("cgroup v")) == 0)
			CHILD_ASSERT(!f->yes, "%s is there for nobody", f->name);
		if (strcmp(f->name, "no_new_privs") == 0)
			CHILD_ASSERT(f->yes, "%s: %s", f->name, f->detail);
		if (strcmp(f->name, "mount namespace") == 0)
			remedied = strstr(f->remedy, "SYS_ADMIN") != NULL;
	}
	CHILD_ASSERT(remedied, "the remedy does not name SYS_ADMIN");
	free(rows);
}

START_TEST(an_unprivileged_user_gets_reasons_and_remedies)
{
	in_child(become_nobody, expect_little);
}
END_TEST

static void enter_filter(void)
{
	struct nest_seccomp *seccomp;

	CHILD_ASSERT(
		nest_seccomp_new(&seccomp, NULL) == 0 && nest_seccomp_install(seccomp, NULL) == 0,
		"no filter");
	nest_seccomp_free(seccomp);
}

static void expect_no_namespaces(void)
{
	struct nest_err err = NEST_ERR_INIT;

	CHILD_ASSERT(
		nest_feature_probe(&wish, &rows, &n_rows, &err) == 0, "%s", nest_err_text(&err));
	for (size_t i = 0; i < n_rows; i++) {
		const struct nest_feature *f = &rows[i];

		if (strstr(f->name, " namespace") || strcmp(f->name, "seccomp") == 0 ||
			strcmp(f->name, "clone3") == 0)
			CHILD_ASSERT(
				!f->yes && f->remedy[0], "%s is there behind a filter", f->name);
	}
	free(rows);
}

START_TEST(an_outer_filter_is_told_by_its_refusals)
{
	in_child(enter_filter, expect_no_namespaces);
}
END_TEST

START_TEST(landlock_tells_its_abi)
{
	probe();
	ck_assert_int_eq(row("Landlock")->yes, nest_landlock_abi() >= NEST_LANDLOCK_ABI_SCOPES);
	free(rows);
}
END_TEST

/* A program that stands for CRIU. */
static char fake_dir[] = "/tmp/nest-test-feature-XXXXXX";
static char fake[64];

static void setup_fake(void)
{
	ck_assert_ptr_nonnull(mkdtemp(fake_dir));
	snprintf(fake, sizeof(fake), "%s/criu", fake_dir);
}

static void teardown_fake(void)
{
	nest_file_remove_tree(AT_FDCWD, fake_dir, NULL);
}

static struct nest_feature judge_fake(const char *script, int timeout_ms)
{
	struct nest_feature feature;
	FILE *f = fopen(fake, "we");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "#!/bin/sh\n%s\n", script);
	fclose(f);
	ck_assert_int_eq(chmod(fake, 0755), 0);
	nest_feature_criu_judge(fake, timeout_ms, &feature);
	ck_assert_int_eq(feature.yes, feature.remedy[0] == '\0');
	return feature;
}

static void assert_refused(const char *script, const char *reason)
{
	struct nest_feature feature = judge_fake(script, 20000);

	ck_assert(!feature.yes);
	ck_assert_msg(
		strstr(feature.detail, reason) != NULL, "'%s' lacks '%s'", feature.detail, reason);
}

START_TEST(criu_is_judged_by_version_and_check)
{
	struct nest_feature feature = judge_fake("[ $1 = check ] || echo Version: 4.1.1", 20000);

	ck_assert_msg(feature.yes, "%s", feature.detail);
	ck_assert_int_eq(strncmp(feature.detail, "4.1.1, /tmp/", strlen("4.1.1, /tmp/")), 0);
	ck_assert(judge_fake("[ $1 = check ] || echo Version: 5.0", 20000).yes);
	assert_refused("echo Version: 3.17.1", "3.17");
	assert_refused("echo Version: 4.0", "4.0");
	assert_refused("echo no such thing", "no such thing");
	assert_refused("exit 3", "tells no version");
	assert_refused("[ $1 != check ] && echo Version: 4.1 && exit 0; "
		       "echo 'Error (criu/cr-check.c:12): TUN is missing'; exit 1",
		"says: TUN is missing");
	assert_refused("[ $1 != check ] && echo Version: 4.1 && exit 0; exit 1",
		"does not say what is missing");
}
END_TEST

/* What the fake started leaves a line in /proc that has its directory's name in it. */
static bool runs_somewhere(const char *argument)
{
	nest_autoclosedir DIR *dir = opendir("/proc");
	const struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir))) {
		nest_autofree char *line = NULL;
		char path[300];
		size_t n;

		snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
		if (atoi(entry->d_name) <= 0 || atoi(entry->d_name) == getpid() ||
			nest_file_read(AT_FDCWD, path, 4096, &line, &n, NULL) < 0)
			continue;
		if (n > 0 && memmem(line, n, argument, strlen(argument)))
			return true;
	}
	return false;
}

START_TEST(criu_that_floods_or_hangs_is_stopped)
{
	char script[256];
	struct nest_feature feature;

	ck_assert(judge_fake("echo Version: 4.1; head -c 1000000 /dev/zero", 20000).yes);
	snprintf(script, sizeof(script), "mkfifo %s/fifo; read x <%s/fifo", fake_dir, fake_dir);
	feature = judge_fake(script, 300);
	ck_assert(!feature.yes);
	ck_assert_msg(strstr(feature.detail, "did not end") != NULL, "%s", feature.detail);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

/* CRIU's own helpers leave its process group and would wait for minutes. */
START_TEST(criu_that_leaves_processes_behind_is_cleaned_up_after)
{
	char script[256];
	struct nest_feature feature;

	snprintf(script, sizeof(script),
		"mkfifo %s/fifo; setsid sh -c 'read x <%s/fifo' & setsid setsid sh -c 'cat "
		"%s/fifo' &"
		" echo Version: 4.1; [ $1 = check ] || wait",
		fake_dir, fake_dir, fake_dir);
	feature = judge_fake(script, 500);
	ck_assert_msg(strstr(feature.detail, "did not end") != NULL, "%s", feature.detail);
	ck_assert(!runs_somewhere(fake_dir));
	snprintf(script, sizeof(script),
		"mkfifo %s/fifo2; setsid sh -c 'read x <%s/fifo2' & echo Version: 4.1", fake_dir,
		fake_dir);
	ck_assert(judge_fake(script, 20000).yes);
	ck_assert(!runs_somewhere(fake_dir));
}
END_TEST

/* The pid that a fake has written to file @name by now; 0: none yet. */
static pid_t noted_pid(const char *name)
{
	nest_autofclose FILE *file = NULL;
	char path[128];
	int pid = 0;

	snprintf(path, sizeof(path), "%s/%s", fake_dir, name);
	file = fopen(path, "re");
	return file && fscanf(file, "%d.", &pid) == 1 ? pid : 0;
}

/* Has a fake asked that waits, after it has begun @helper. */
static pid_t begin_asking(const char *helper)
{
	char script[256];
	pid_t pid;

	/* so that all is ours to reap */
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	snprintf(script, sizeof(script),
		"cd %s; mkfifo fifo; %s echo $PPID. >keeper; echo $$. >criu; read x <fifo",
		fake_dir, helper);
	pid = fork();
	if (pid == 0)
		_exit(judge_fake(script, 600000).yes);
	while (!noted_pid("criu"))
		usleep(1000);
	return pid;
}

/* As the host is that ends while it still tries the machine. */
START_TEST(criu_and_its_helpers_end_with_who_asks_it)
{
	/* in a session of its own, as CRIU's are */
	pid_t asking = begin_asking("setsid sh -c 'read x <fifo' helper-of-fake &");

	while (!runs_somewhere("helper-of-fake"))
		usleep(1000);
	ck_assert_int_eq(kill(asking, SIGKILL), 0);
	while (waitpid(-1, NULL, 0) > 0 || errno != ECHILD)
		continue;
	ck_assert(!runs_somewhere(fake_dir) && !runs_somewhere("helper-of-fake"));
}
END_TEST

START_TEST(criu_ends_with_its_keeper)
{
	pid_t asking = begin_asking("");
	pid_t keeper = noted_pid("keeper"), criu = noted_pid("criu");
	int status;

	ck_assert_int_gt(keeper, 0);
	ck_assert_int_eq(kill(keeper, SIGKILL), 0);
	/* it is the keeper's until that one is gone */
	while (waitpid(criu, &status, 0) != criu)
		usleep(1000);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_int_eq(waitpid(asking, &status, 0), asking);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(criu_is_found_in_its_prefix_or_on_an_absolute_path)
{
	char path[128], found[256];

	judge_fake("exit 0", 20000);
	ck_assert(nest_feature_criu_find(fake, NULL, found, sizeof(found)));
	ck_assert_str_eq(found, fake);
	snprintf(path, sizeof(path), "/nonexistent::.:%s:/usr/bin", fake_dir);
	ck_assert(nest_feature_criu_find("/nonexistent/criu", path, found, sizeof(found)));
	ck_assert_str_eq(found, fake);
	ck_assert_int_eq(chdir(fake_dir), 0);
	ck_assert(!nest_feature_criu_find("/nonexistent/criu", ".::", found, sizeof(found)));
	ck_assert(!nest_feature_criu_find("/nonexistent/criu", NULL, found, sizeof(found)));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("feature");
	TCase *tcase = tcase_create("machine"), *criu = tcase_create("criu");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, root_sees_what_cells_need);
	tcase_add_test(tcase, each_cgroup_controller_is_somewhere);
	tcase_add_test(tcase, the_order_is_the_same_each_time_and_nothing_is_left);
	tcase_add_test(tcase, what_a_killed_probe_left_is_swept_and_what_another_is_at_is_not);
	tcase_add_test(tcase, probing_is_quick);
	tcase_add_test(tcase, an_unprivileged_user_gets_reasons_and_remedies);
	tcase_add_test(tcase, an_outer_filter_is_told_by_its_refusals);
	tcase_add_test(tcase, landlock_tells_its_abi);
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(criu, 60);
	tcase_add_checked_fixture(criu, setup_fake, teardown_fake);
	tcase_add_test(criu, criu_is_judged_by_version_and_check);
	tcase_add_test(criu, criu_that_floods_or_hangs_is_stopped);
	tcase_add_test(criu, criu_that_leaves_processes_behind_is_cleaned_up_after);
	tcase_add_test(criu, criu_and_its_helpers_end_with_who_asks_it);
	tcase_add_test(criu, criu_ends_with_its_keeper);
	tcase_add_test(criu, criu_is_found_in_its_prefix_or_on_an_absolute_path);
	suite_add_tcase(suite, criu);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
