/* SPDX-License-Identifier: Apache-2.0 */
/* File-system images: mounted for cells only, unchangeable, and gone with the spawner. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/erofs.h"
#include "base/file.h"
#include "sandbox/spawner.h"
#include "sandbox/spawner_image.h"
#include "tests/unit/sandbox/cell_fixture.h"

#define PATIENCE_MS 10000

static struct cell_fixture fixture;
static struct cell_run run;
static char image_path[128];
static unsigned mounted_before;

/* How many EROFS file systems the kernel has now. */
static unsigned count_mounted(void)
{
	DIR *dir = opendir("/sys/fs/erofs");
	const struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.' && strcmp(entry->d_name, "features") != 0;
	if (dir)
		closedir(dir);
	return n;
}

/* The kernel lets go of a file system a moment after its last user. */
static void await_unmounted(unsigned wanted)
{
	for (int waited = 0; count_mounted() != wanted; waited += 10) {
		ck_assert_msg(waited < PATIENCE_MS, "%u images are mounted, not %u",
			count_mounted(), wanted);
		poll(NULL, 0, 10);
	}
}

static void make_image(void)
{
	char command[512];
	char path[128];

	snprintf(image_path, sizeof(image_path), "%s/image.erofs", fixture.state_dir);
	snprintf(path, sizeof(path), "%s/setuid", fixture.code_dir);
	ck_assert_int_eq(nest_file_write_atomic(AT_FDCWD, path, "x\n", 2, 0755, NULL), 0);
	ck_assert_int_eq(chmod(path, 04755), 0);
	snprintf(command, sizeof(command),
		"mkfs.erofs -zlz4hc -x-1 -T0 --all-root %s %s >/dev/null 2>&1", image_path,
		fixture.code_dir);
	ck_assert_msg(system(command) == 0, "%s (package erofs-utils)", command);
}

static void setup(void)
{
	ck_assert_msg(getuid() == 0, "these tests need root");
	mounted_before = count_mounted();
	cell_fixture_init(&fixture);
	fixture.config.mount_images = true;
	make_image();
	cell_fixture_open(&fixture);
}

static void teardown(void)
{
	cell_fixture_close(&fixture);
	await_unmounted(mounted_before);
}

struct outcome {
	bool called;
	struct nest_err err;
};

static void on_mounted(void *arg, const struct nest_err *err)
{
	struct outcome *outcome = arg;

	ck_assert(!outcome->called);
	outcome->called = true;
	if (err)
		outcome->err = *err;
}

static int open_image(int flags)
{
	int fd = open(image_path, flags | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* The mounted image, or NULL with why in @outcome. */
static struct nest_image *mount_image(int file, struct outcome *outcome)
{
	struct nest_image *image = NULL;
	struct nest_err err = NEST_ERR_INIT;
	int r = nest_image_mount(fixture.sandbox, file, on_mounted, outcome, &image, &err);

	ck_assert_msg(r == 0, "mount: %s", nest_err_text(&err));
	ck_assert(!outcome->called);
	cell_fixture_await(&fixture, &outcome->called);
	return outcome->err.code == 0 ? image : NULL;
}

static struct nest_image *mount_well(int file)
{
	struct outcome outcome = { .called = false };
	struct nest_image *image = mount_image(file, &outcome);

	ck_assert_msg(image != NULL, "mount: %s", nest_err_text(&outcome.err));
	return image;
}

static void run_script(int file, const char *script)
{
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.code_fd = file;
	cell_fixture_run(&fixture, &spec, &run);
}

static void assert_printed(const char *text)
{
	ck_assert_msg(run.cause == NEST_CELL_EXITED && strstr(run.text, text) != NULL,
		"no '%s' in: %s %s", text, run.text, nest_err_text(&run.err));
}

START_TEST(a_cell_sees_its_image_read_only)
{
	int file = open_image(O_RDONLY);
	struct nest_image *image = mount_well(file);

	run_script(file, "cat hello; touch new 2>&1; ls -l setuid; grep /function /proc/mounts; "
			 "grep -c erofs /proc/mounts; ls -A /tmp");
	assert_printed("world\n");
	assert_printed("Read-only file system");
	assert_printed("-rwsr-xr-x 1 root root");
	assert_printed(" /function erofs ro,nosuid,nodev,");
	ck_assert_msg(strcmp(run.text + strlen(run.text) - 2, "1\n") == 0,
		"another image, or something in /tmp: %s", run.text);
	nest_image_unmount(image);
	close(file);
}
END_TEST

START_TEST(writing_to_the_file_changes_nothing_that_is_mounted)
{
	int file = open_image(O_RDWR);
	struct nest_image *image = mount_well(file);
	char junk[4096];

	memset(junk, 0xff, sizeof(junk));
	for (off_t at = 0; at < 64 * 4096; at += (off_t)sizeof(junk))
		ck_assert_int_eq(pwrite(file, junk, sizeof(junk), at), sizeof(junk));
	ck_assert_int_eq(fsync(file), 0);
	run_script(file, "cat hello");
	assert_printed("world\n");
	nest_image_unmount(image);
	close(file);
}
END_TEST

START_TEST(one_mount_serves_all_cells_until_the_last_has_gone)
{
	int file = open_image(O_RDONLY);
	struct nest_image *image = mount_well(file);
	const char *argv[] = { "/bin/sleep", "1000", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);
	static struct cell_run sleeper;

	spec.code_fd = file;
	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &sleeper), 0);
	cell_fixture_await(&fixture, &sleeper.started);
	run_script(file, "cat hello");
	assert_printed("world\n");
	ck_assert_uint_eq(count_mounted(), mounted_before + 1);
	nest_image_unmount(image);
	/* an answer to what was sent after it */
	run_script(file, "cat hello");
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_ptr_nonnull(strstr(run.err.text, "nor a mounted image"));
	ck_assert_uint_eq(count_mounted(), mounted_before + 1);
	nest_cell_kill(sleeper.cell);
	cell_fixture_await(&fixture, &sleeper.exited);
	await_unmounted(mounted_before);
	close(file);
}
END_TEST

/* What is wrong, at which byte of the file, and what is said of it. */
static const struct hostile {
	off_t at;
	unsigned char byte;
	const char *text;
} hostiles[] = {
	{ NEST_EROFS_OFFSET, 0, "no EROFS image" },
	{ NEST_EROFS_OFFSET + 12, 9, "blocks of 4096 bytes" },
	{ NEST_EROFS_OFFSET + 39, 0x7f, "cut short" },
	{ NEST_EROFS_OFFSET + 80, 0x89, "features 0x88" },
	{ NEST_EROFS_OFFSET + 86, 1, "other devices" },
	{ NEST_EROFS_OFFSET + 4, 0x55, "read the image as EROFS" }, /* the kernel's own checksum */
};

START_TEST(a_bad_image_is_refused)
{
	const struct hostile *hostile = &hostiles[_i];
	struct outcome outcome = { .called = false };
	int file = open_image(O_RDWR);

	ck_assert_int_eq(pwrite(file, &hostile->byte, 1, hostile->at), 1);
	ck_assert_ptr_null(mount_image(file, &outcome));
	ck_assert_msg(strstr(outcome.err.text, hostile->text) != NULL, "%s", outcome.err.text);
	ck_assert_uint_eq(count_mounted(), mounted_before);
	close(file);
}
END_TEST

START_TEST(a_directory_is_no_image)
{
	struct outcome outcome = { .called = false };
	int dir = open(fixture.code_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_ptr_null(mount_image(dir, &outcome));
	ck_assert_int_eq(outcome.err.code, -EINVAL);
	close(dir);
}
END_TEST

START_TEST(one_given_up_before_it_was_mounted_is_unmounted)
{
	struct outcome outcome = { .called = false };
	struct nest_image *image = NULL;
	int file = open_image(O_RDONLY);

	ck_assert_int_eq(
		nest_image_mount(fixture.sandbox, file, on_mounted, &outcome, &image, NULL), 0);
	nest_image_unmount(image);
	nest_image_unmount(mount_well(file));
	ck_assert(!outcome.called);
	/* both are mounted at the same time, and the one given up may be the later: within the limit */
	do
		run_script(file, "true");
	while (run.cause != NEST_CELL_FAILED);
	await_unmounted(mounted_before);
	close(file);
}
END_TEST

START_TEST(closing_while_one_is_being_mounted_ends_it)
{
	struct outcome outcome = { .called = false };
	struct nest_image *image = NULL;
	int file = open_image(O_RDONLY);

	ck_assert_int_eq(
		nest_image_mount(fixture.sandbox, file, on_mounted, &outcome, &image, NULL), 0);
	cell_fixture_close(&fixture);
	ck_assert(outcome.called);
	if (outcome.err.code == 0)
		nest_image_unmount(image); /* it was mounted in time: an orphan now */
	await_unmounted(mounted_before);
	close(file);
}
END_TEST

START_TEST(a_host_without_sources_mounts_nothing)
{
	struct outcome outcome = { .called = false };
	int file;

	cell_fixture_init(&fixture);
	make_image();
	cell_fixture_open(&fixture);
	file = open_image(O_RDONLY);
	ck_assert_ptr_null(mount_image(file, &outcome));
	ck_assert_int_eq(outcome.err.code, -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(outcome.err.text, "cache.imageSources"));
	close(file);
	cell_fixture_close(&fixture);
}
END_TEST

/* Whether a loop device is backed by a file of the fixture's. */
static bool is_looped(void)
{
	for (int i = 0; i < 64; i++) {
		char path[64];
		char *text = NULL;
		bool ours;

		snprintf(path, sizeof(path), "/sys/block/loop%d/loop/backing_file", i);
		if (nest_file_read(AT_FDCWD, path, 4096, &text, NULL, NULL) < 0)
			continue;
		ours = strstr(text, fixture.state_dir) != NULL;
		free(text);
		if (ours)
			return true;
	}
	return false;
}

START_TEST(both_ways_of_mounting_show_the_same)
{
	bool by_loop = _i == 1;
	struct nest_err err = NEST_ERR_INIT;
	char text[16] = "";
	int file = open_image(O_RDONLY);
	int mount = -1;
	int hello;

	ck_assert_msg(nest_spawner_image_mount_file(file, by_loop, &mount, &err) == 0, "%s",
		nest_err_text(&err));
	ck_assert_int_eq(is_looped(), by_loop);
	hello = openat(mount, "hello", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(read(hello, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "world\n");
	ck_assert_int_eq(openat(mount, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
	ck_assert_int_eq(errno, EROFS);
	close(hello);
	close(mount);
	close(file);
	await_unmounted(mounted_before);
	for (int waited = 0; is_looped(); waited += 10) {
		ck_assert_int_lt(waited, PATIENCE_MS);
		poll(NULL, 0, 10);
	}
}
END_TEST

START_TEST(a_frozen_file_has_no_name_and_no_writer)
{
	int dir = open(fixture.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int file = open_image(O_RDWR);
	int frozen = -1;
	struct stat st;
	struct stat own;
	char link[128];
	char path[64];

	ck_assert_int_eq(nest_spawner_image_freeze(dir, 0, file, 0, &frozen, NULL), 0);
	ck_assert_int_eq(fstat(file, &own), 0);
	ck_assert_int_eq(fstat(frozen, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	ck_assert_int_eq(st.st_size, own.st_size);
	ck_assert_uint_ne(st.st_ino, own.st_ino);
	ck_assert_int_eq(fcntl(frozen, F_GETFL) & O_ACCMODE, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", frozen);
	snprintf(link, sizeof(link), "%s/named", fixture.state_dir);
	ck_assert_int_eq(linkat(AT_FDCWD, path, AT_FDCWD, link, AT_SYMLINK_FOLLOW), -1);
	close(frozen);
	close(file);
	close(dir);
}
END_TEST

/* The image, as an agent has it: its own, and open for reading. */
static int open_agents(uid_t agent, mode_t mode)
{
	int file = open_image(O_RDONLY);

	ck_assert_int_eq(fchmod(file, mode), 0);
	ck_assert_int_eq(fchown(file, agent, agent), 0);
	return file;
}

/* Whether @agent's image is mounted as the very file that it is. */
static bool is_taken_over(uid_t agent, int file)
{
	int dir = open(fixture.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct nest_err err = NEST_ERR_INIT;
	struct stat own;
	struct stat st;
	int frozen = -1;

	ck_assert_msg(nest_spawner_image_freeze(dir, agent, file, getpid(), &frozen, &err) == 0,
		"%s", nest_err_text(&err));
	ck_assert_int_eq(fcntl(frozen, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(fstat(file, &own), 0);
	ck_assert_int_eq(fstat(frozen, &st), 0);
	if (st.st_ino == own.st_ino) {
		ck_assert_uint_eq(st.st_uid, 0);
		ck_assert_uint_eq(st.st_mode & 07777 & 0222, 0);
	}
	close(frozen);
	close(dir);
	return st.st_ino == own.st_ino;
}

START_TEST(an_agents_file_becomes_roots_unless_somebody_could_write_to_it)
{
	enum {
		AGENT = 4711,
		OTHER = 4712
	};
	int file = open_agents(AGENT, 0600);
	int writer = open_image(O_RDWR);
	void *mapping = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);

	ck_assert_ptr_ne(mapping, MAP_FAILED);
	ck_assert(!is_taken_over(AGENT, file));
	close(writer);
	/* the mapping can still write */
	ck_assert(!is_taken_over(AGENT, file));
	munmap(mapping, 4096);
	ck_assert(is_taken_over(AGENT, file));
	/* of an earlier host */
	ck_assert(is_taken_over(AGENT, file));
	/* root could open it again */
	ck_assert(!is_taken_over(0, file));
	close(file);
	file = open_agents(0, 0644);
	ck_assert(!is_taken_over(AGENT, file));
	close(file);
	file = open_agents(OTHER, 0444);
	ck_assert(!is_taken_over(AGENT, file));
	close(file);
	file = open_agents(AGENT, 0400);
	ck_assert(is_taken_over(AGENT, file));
	close(file);
}
END_TEST

START_TEST(who_holds_an_image_is_told_before_it_can_be_written_to)
{
	int file = open_agents(4711, 0600);
	const struct timespec patience = { .tv_sec = 5 };
	sigset_t ending;

	sigemptyset(&ending);
	sigaddset(&ending, NEST_SPAWNER_ENDING);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &ending, NULL), 0);
	ck_assert(is_taken_over(4711, file));
	ck_assert_int_eq(open(image_path, O_RDWR | O_NONBLOCK | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EWOULDBLOCK);
	ck_assert_int_eq(sigtimedwait(&ending, NULL, &patience), NEST_SPAWNER_ENDING);
	close(file);
}
END_TEST

START_TEST(a_mounted_image_that_could_be_written_to_ends_the_host)
{
	const char *argv[] = { "/bin/sleep", "1000", NULL };
	struct nest_cell_spec spec = cell_fixture_spec(argv);
	struct nest_image *image;
	int file;

	cell_fixture_init(&fixture);
	fixture.config.mount_images = true;
	fixture.config.snapshots = true; /* CAP_CHOWN is kept for these alone */
	fixture.config.agent_uid = 4711;
	mounted_before = count_mounted();
	make_image();
	cell_fixture_open(&fixture);
	file = open_agents(4711, 0400);
	image = mount_well(file);
	spec.code_fd = file;
	ck_assert_int_eq(cell_fixture_start(&fixture, &spec, &run), 0);
	cell_fixture_await(&fixture, &run.started);
	ck_assert_int_eq(open(image_path, O_RDWR | O_NONBLOCK | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EWOULDBLOCK);
	cell_fixture_await(&fixture, &fixture.lost);
	cell_fixture_await_death(run.pid);
	await_unmounted(mounted_before);
	nest_sandbox_close(fixture.sandbox, (void (*)(void *))free, NULL);
	uv_run(&fixture.loop, UV_RUN_DEFAULT);
	uv_loop_close(&fixture.loop);
	nest_image_unmount(image); /* an orphan now */
	close(file);
}
END_TEST

START_TEST(a_file_on_another_file_system_is_copied)
{
	int dir = open(fixture.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int file = memfd_create("image", MFD_CLOEXEC);
	struct nest_err err = NEST_ERR_INIT;
	char wanted[100000];
	char found[sizeof(wanted)];
	int frozen = -1;

	for (size_t i = 0; i < sizeof(wanted); i++)
		wanted[i] = (char)(i % 251);
	ck_assert_int_eq(write(file, wanted, sizeof(wanted)), sizeof(wanted));
	ck_assert_msg(nest_spawner_image_freeze(dir, 0, file, 0, &frozen, &err) == 0, "%s",
		nest_err_text(&err));
	ck_assert_int_eq(read(frozen, found, sizeof(found)), sizeof(found));
	ck_assert_int_eq(memcmp(found, wanted, sizeof(wanted)), 0);
	ck_assert_int_eq(read(frozen, found, 1), 0);
	close(frozen);
	close(file);
	close(dir);
}
END_TEST

/* zstd came with Linux 6.10, and may have been left out of a kernel. */
START_TEST(what_the_kernel_decompresses_is_tried_for_each_algorithm)
{
	bool zstd = nest_sandbox_zstd_images(&fixture.spawner);
	const struct {
		unsigned algorithm;
		bool works;
	} rows[] = { { NEST_EROFS_LZ4, true }, { NEST_EROFS_ZSTD, zstd }, { 1u << 7, false } };
	int dir = open(fixture.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	unsigned major = 0;
	unsigned minor = 0;
	struct utsname kernel;

	ck_assert_int_eq(uname(&kernel), 0);
	ck_assert_int_eq(sscanf(kernel.release, "%u.%u", &major, &minor), 2);
	ck_assert(!zstd || major > 6 || (major == 6 && minor >= 10));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct nest_err err = NEST_ERR_INIT;
		int r = nest_spawner_image_try(dir, rows[i].algorithm, &err);

		ck_assert_msg((r == 0) == rows[i].works, "algorithm 0x%x: %d %s", rows[i].algorithm,
			r, nest_err_text(&err));
		ck_assert_int_eq(err.code, r);
		await_unmounted(mounted_before);
	}
	close(dir);
}
END_TEST

/* On a file system that no image is mounted from but by a loop device, of which there are none. */
START_TEST(a_machine_that_mounts_no_image_says_so)
{
	struct nest_err err = NEST_ERR_INIT;
	int dir = open(fixture.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char path[128];

	ck_assert_msg(
		nest_spawner_image_try(dir, NEST_EROFS_LZ4, &err) == 0, "%s", nest_err_text(&err));
	await_unmounted(mounted_before);
	close(dir);
	snprintf(path, sizeof(path), "%s/code", fixture.state_dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("tmpfs", path, "tmpfs", 0, NULL), 0);
	ck_assert_int_eq(mount("/dev/null", "/dev/loop-control", NULL, MS_BIND, NULL), 0);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_lt(nest_spawner_image_try(dir, NEST_EROFS_LZ4, &err), 0);
	ck_assert_str_ne(nest_err_text(&err), "");
	ck_assert_int_lt(nest_spawner_image_try(dir, NEST_EROFS_ZSTD, NULL), 0);
	close(dir);
	umount2(path, MNT_DETACH);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("image");
	TCase *cells = tcase_create("cells");
	TCase *bare = tcase_create("bare");
	TCase *closing = tcase_create("closing");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(cells, setup, teardown);
	tcase_set_timeout(cells, 30);
	tcase_set_timeout(bare, 30);
	tcase_add_test(cells, a_cell_sees_its_image_read_only);
	tcase_add_test(cells, writing_to_the_file_changes_nothing_that_is_mounted);
	tcase_add_test(cells, one_mount_serves_all_cells_until_the_last_has_gone);
	tcase_add_loop_test(
		cells, a_bad_image_is_refused, 0, sizeof(hostiles) / sizeof(hostiles[0]));
	tcase_add_test(cells, a_directory_is_no_image);
	tcase_add_test(cells, one_given_up_before_it_was_mounted_is_unmounted);
	tcase_add_loop_test(cells, both_ways_of_mounting_show_the_same, 0, 2);
	tcase_add_test(cells, a_frozen_file_has_no_name_and_no_writer);
	tcase_add_test(cells, an_agents_file_becomes_roots_unless_somebody_could_write_to_it);
	tcase_add_test(cells, who_holds_an_image_is_told_before_it_can_be_written_to);
	tcase_add_test(cells, a_file_on_another_file_system_is_copied);
	tcase_add_test(cells, what_the_kernel_decompresses_is_tried_for_each_algorithm);
	tcase_add_test(cells, a_machine_that_mounts_no_image_says_so);
	tcase_add_test(bare, a_host_without_sources_mounts_nothing);
	tcase_add_test(bare, a_mounted_image_that_could_be_written_to_ends_the_host);
	suite_add_tcase(suite, cells);
	suite_add_tcase(suite, bare);
	tcase_set_timeout(closing, 30);
	tcase_add_checked_fixture(closing, setup, NULL);
	tcase_add_test(closing, closing_while_one_is_being_mounted_ends_it);
	suite_add_tcase(suite, closing);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
