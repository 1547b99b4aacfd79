/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/suite.h"

static const struct nest_draft_limits generous = { .max_bytes = 1u << 30, .max_entries = 200000 };

/* Copies directory @from of the test's own to @to there. */
static int copy(const char *from, const char *to, const struct nest_draft_limits *limits,
	char hex[65], struct nest_err *err)
{
	nest_autoclose int top = open(kit_path("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nest_autodraft struct nest_draft *draft = NULL;

	kit_ok(nest_draft_new(top, to, limits, &draft, err), err);
	return nest_copy_dir(kit_path("%s", from), limits, draft, hex, err);
}

static void make_sample(const char *at)
{
	static char big[700001];

	memset(big, 'b', sizeof(big));
	kit_mkdir(kit_path("%s", at));
	kit_mkdir(kit_path("%s/d", at));
	kit_mkdir(kit_path("%s/d/empty", at));
	kit_write(kit_path("%s/index.js", at), "code", 4, 0600);
	kit_write(kit_path("%s/d/run", at), big, sizeof(big), 04711);
	kit_write(kit_path("%s/d/none\n\xff", at), "", 0, 0444);
	ck_assert_int_eq(symlink("../index.js", kit_path("%s/d/link", at)), 0);
	ck_assert_int_eq(symlink("nowhere", kit_path("%s/dangling", at)), 0);
}

static void copy_sample(void)
{
	struct nest_err err = NEST_ERR_INIT;
	char source[65];
	char made[65];
	char again[65];

	umask(0077);
	make_sample("a");
	kit_digest_dir(kit_path("a"), source);
	kit_ok(copy("a", "b", &generous, made, &err), &err);
	kit_check_tree(kit_path("b"));
	kit_digest_dir(kit_path("b"), again);
	ck_assert_str_eq(source, made);
	ck_assert_str_eq(source, again);
}

START_TEST(a_copy_has_the_digest_of_its_source)
{
	copy_sample();
}
END_TEST

START_TEST(a_copy_works_without_openat2)
{
	kit_without_openat2(copy_sample);
}
END_TEST

START_TEST(the_digest_covers_what_a_function_can_see)
{
	char hexes[8][65];
	size_t n = 0;

	make_sample("a");
	kit_digest_dir(kit_path("a"), hexes[n++]);
	kit_write(kit_path("a/index.js"), "Code", 4, 0600);
	kit_digest_dir(kit_path("a"), hexes[n++]);
	ck_assert_int_eq(chmod(kit_path("a/index.js"), 0700), 0);
	kit_digest_dir(kit_path("a"), hexes[n++]);
	ck_assert_int_eq(rename(kit_path("a/index.js"), kit_path("a/main.js")), 0);
	kit_digest_dir(kit_path("a"), hexes[n++]);
	ck_assert_int_eq(rmdir(kit_path("a/d/empty")), 0);
	kit_digest_dir(kit_path("a"), hexes[n++]);
	ck_assert_int_eq(unlink(kit_path("a/dangling")), 0);
	ck_assert_int_eq(symlink("elsewhere", kit_path("a/dangling")), 0);
	kit_digest_dir(kit_path("a"), hexes[n++]);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(hexes[i], hexes[j]);
}
END_TEST

START_TEST(the_digest_is_what_it_always_was)
{
	char hex[65];

	kit_mkdir(kit_path("a"));
	kit_write(kit_path("a/f"), "x\n", 2, 0644);
	kit_digest_dir(kit_path("a"), hex);
	/* printf 'nestlet tree 1\nf\1\0\0\0f\2\0\0\0\0\0\0\0x\n' | sha256sum */
	ck_assert_str_eq(hex, "f5c1ad91f01feaace0f58ac71a334fea90e5d94b58056b09c72982340f408d72");
}
END_TEST

static void expect_refused(int code, const char *words)
{
	struct nest_err err = NEST_ERR_INIT;
	char hex[65];
	int rc = nest_copy_dir(kit_path("a"), &generous, NULL, hex, &err);

	ck_assert_msg(rc == code, "%d: %s", rc, nest_err_text(&err));
	ck_assert_msg(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
}

START_TEST(what_is_no_code_is_refused_and_named)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	nest_autoclose int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	kit_mkdir(kit_path("a"));
	ck_assert_int_eq(mkfifo(kit_path("a/pipe"), 0600), 0);
	expect_refused(-EINVAL, "'pipe' is a fifo");
	ck_assert_int_eq(unlink(kit_path("a/pipe")), 0);
	strncpy(address.sun_path, kit_path("a/sock"), sizeof(address.sun_path) - 1);
	ck_assert_int_eq(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	expect_refused(-EINVAL, "'sock' is a socket");
	ck_assert_int_eq(unlink(kit_path("a/sock")), 0);
	ck_assert_int_eq(symlink("/etc/passwd", kit_path("a/l")), 0);
	expect_refused(-EINVAL, "'l' -> '/etc/passwd' points to an absolute path");
	ck_assert_int_eq(unlink(kit_path("a/l")), 0);
	ck_assert_int_eq(symlink("../x", kit_path("a/l")), 0);
	expect_refused(-EINVAL, "points outside the tree");
}
END_TEST

START_TEST(a_missing_directory_or_a_file_is_an_error)
{
	expect_refused(-ENOENT, "No such file");
	kit_write(kit_path("a"), "x", 1, 0600);
	expect_refused(-ENOTDIR, "Not a directory");
}
END_TEST

START_TEST(limits_hold_with_and_without_a_draft)
{
	static const struct nest_draft_limits few = { .max_bytes = 1u << 20, .max_entries = 3 };
	static const struct nest_draft_limits small = { .max_bytes = 1000, .max_entries = 100 };
	struct nest_err err = NEST_ERR_INIT;
	char hex[65];

	make_sample("a");
	ck_assert_int_eq(nest_copy_dir(kit_path("a"), &few, NULL, hex, &err), -EFBIG);
	ck_assert_str_eq(err.text, "code tree has more than 3 entries");
	ck_assert_int_eq(nest_copy_dir(kit_path("a"), &small, NULL, hex, &err), -EFBIG);
	ck_assert_str_eq(err.text, "code tree larger than 1000 bytes");
	ck_assert_int_eq(copy("a", "b", &small, hex, &err), -EFBIG);
}
END_TEST

START_TEST(a_file_that_can_not_be_read_is_named)
{
	struct nest_err err = NEST_ERR_INIT;
	char hex[65];

	make_sample("a");
	/* As root everything can be read, so the test becomes somebody else. */
	ck_assert_int_eq(chmod(kit_path("."), 0755), 0);
	ck_assert_int_eq(chmod(kit_path("a"), 0755), 0);
	ck_assert_int_eq(chmod(kit_path("a/d"), 0755), 0);
	ck_assert_int_eq(chmod(kit_path("a/d/empty"), 0755), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(nest_copy_dir(kit_path("a"), &generous, NULL, hex, &err), -EACCES);
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_msg(strstr(err.text, "open 'd/run': Permission denied"), "%s", err.text);
}
END_TEST

static atomic_bool stop;

static void *grow(void *path)
{
	nest_autoclose int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	while (!atomic_load(&stop) && lseek(fd, 0, SEEK_END) < (64 << 20))
		if (write(fd, "more", 4) != 4)
			break;
	return NULL;
}

START_TEST(a_file_that_grows_is_noticed)
{
	struct nest_err err = NEST_ERR_INIT;
	pthread_t thread;
	char hex[65];
	int rc = 0;

	make_sample("a");
	ck_assert_int_eq(pthread_create(&thread, NULL, grow, (void *)kit_path("a/d/run")), 0);
	for (int i = 0; rc == 0 && i < 1000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "t%d", i);
		rc = copy("a", name, &generous, hex, &err);
		ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, kit_path("%s", name), NULL), 0);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	ck_assert_int_eq(rc, -EBUSY);
	ck_assert_msg(strstr(err.text, "'d/run' changed while it was read"), "%s", err.text);
}
END_TEST

START_TEST(an_abandoned_copy_ends)
{
	atomic_bool cancel = true;
	struct nest_draft_limits limits = generous;
	struct nest_err err = NEST_ERR_INIT;
	char hex[65];

	limits.cancel = &cancel;
	make_sample("a");
	ck_assert_int_eq(nest_copy_dir(kit_path("a"), &limits, NULL, hex, &err), -ECANCELED);
}
END_TEST

NEST_SUITE_WITH("loader/copy", kit_enter, kit_leave, a_copy_has_the_digest_of_its_source,
	a_copy_works_without_openat2, the_digest_covers_what_a_function_can_see,
	the_digest_is_what_it_always_was, what_is_no_code_is_refused_and_named,
	a_missing_directory_or_a_file_is_an_error, limits_hold_with_and_without_a_draft,
	a_file_that_can_not_be_read_is_named, a_file_that_grows_is_noticed, an_abandoned_copy_ends)
