/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/snapshot.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/unit/sandbox/cell_fixture.h"

#define PATIENCE_MS 10000

static const char key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char other_key[] = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* Answers each line on its channel with what it is and a count that it keeps in its memory. */
static const char worker[] = "import socket\n"
			     "s=socket.socket(fileno=3)\n"
			     "n=0\n"
			     "big=bytearray(b'x'*8000000)\n"
			     "while True:\n"
			     " d=s.recv(100)\n"
			     " if not d: break\n"
			     " n+=1\n"
			     " if d==b'status\\n': a=open('/proc/self/status').read()\n"
			     " elif d==b'limits\\n': a=open('/proc/self/limits').read()\n"
			     " elif d==b'net\\n': a=' '.join(l.split(':')[0].strip() "
			     "for l in list(open('/proc/self/net/dev'))[2:])\n"
			     " elif d==b'more\\n': more=bytearray(b'y'*2000000); a='ok'\n"
			     " elif d==b'tmp\\n': open('/tmp/x','w').write('y'); a='ok'\n"
			     " elif d==b'read\\n': a=open('/tmp/x').read(); "
			     "open('/tmp/x','a').write('z')\n"
			     " else: a='%d %d'%(n,sum(big[::4096]))\n"
			     " s.sendall(a.encode()+b'\\0')\n"
			     " print('answered',n,flush=True)\n";

static const char *const argv[] = { "/usr/bin/python3", "-I", "-S", "-c", worker, NULL };

struct clone_run {
	struct nest_cell *cell;
	int channel, out, errors;
	bool wired, started, exited, dumped;
	pid_t pid;
	enum nest_cell_cause cause;
	struct nest_err err, dump_err;
	uint64_t bytes;
};

static struct cell_fixture fixture;
static enum nest_cell_network network;

static void on_started(struct nest_cell *cell, pid_t pid, void *arg)
{
	struct clone_run *run = arg;

	(void)cell;
	run->started = true;
	run->pid = pid;
}

static void on_exited(struct nest_cell *cell, const struct nest_cell_exit *how, void *arg)
{
	struct clone_run *run = arg;

	(void)cell;
	run->exited = true;
	run->cause = how->cause;
	if (how->err)
		run->err = *how->err;
}

static void on_wired(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg)
{
	struct clone_run *run = arg;

	(void)cell;
	ck_assert(!run->wired && !run->started);
	run->wired = true;
	run->channel = wires->channel_fd;
	run->out = wires->stdout_fd;
	run->errors = wires->stderr_fd;
}

static void on_dumped(struct nest_cell *cell, uint64_t bytes, const struct nest_err *err, void *arg)
{
	struct clone_run *run = arg;

	(void)cell;
	run->dumped = true;
	run->bytes = bytes;
	if (err)
		run->dump_err = *err;
}

static const struct nest_cell_events events = { on_started, on_exited };

static struct nest_cell_spec worker_spec(void)
{
	struct nest_cell_spec spec = cell_fixture_spec(argv);

	spec.code_fd = open(fixture.code_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(spec.code_fd, 0);
	spec.snapshot = true;
	spec.network = network;
	return spec;
}

static void start_plain_as(struct clone_run *run, uid_t uid)
{
	struct nest_cell_spec spec = worker_spec();
	int r;

	memset(run, 0, sizeof(*run));
	spec.uid = uid ? uid : spec.uid;
	r = nest_snapshot_start(
		fixture.sandbox, &spec, &events, on_wired, run, &run->cell, &run->err);
	ck_assert_msg(r == 0, "start: %s", nest_err_text(&run->err));
	close(spec.code_fd);
	cell_fixture_await(&fixture, &run->started);
}

static void start_plain(struct clone_run *run)
{
	start_plain_as(run, 0);
}

static void start_clone_as(struct clone_run *run, const char *which, uid_t uid, bool to_dump)
{
	struct nest_cell_spec spec = worker_spec();
	int r;

	memset(run, 0, sizeof(*run));
	spec.uid = uid ? uid : spec.uid;
	spec.snapshot = to_dump;
	r = nest_snapshot_restore(
		fixture.sandbox, &spec, which, &events, on_wired, run, &run->cell, &run->err);
	ck_assert_msg(r == 0, "restore: %s", nest_err_text(&run->err));
	close(spec.code_fd);
}

static void start_clone(struct clone_run *run, const char *which)
{
	start_clone_as(run, which, 0, false);
}

static void await_clone(struct clone_run *run)
{
	bool over = false;

	while (!over) {
		uv_run(&fixture.loop, UV_RUN_ONCE);
		over = run->started || run->exited;
	}
	ck_assert_msg(run->started, "restore: %s", nest_err_text(&run->err));
}

/* Asks the worker; its answer, which is valid until the next. */
static const char *ask(const struct clone_run *run, const char *question)
{
	static char answer[16384];
	size_t n = 0;

	ck_assert_int_eq(write(run->channel, question, strlen(question)), strlen(question));
	do {
		struct pollfd polled = { .fd = run->channel, .events = POLLIN };
		ssize_t got;

		ck_assert_msg(poll(&polled, 1, PATIENCE_MS) == 1, "no answer");
		got = read(run->channel, answer + n, sizeof(answer) - n);
		ck_assert_int_gt(got, 0);
		n += (size_t)got;
	} while (answer[n - 1] != '\0');
	return answer;
}

static void finish(struct clone_run *run)
{
	nest_cell_kill(run->cell);
	cell_fixture_await(&fixture, &run->exited);
	close(run->channel);
	close(run->out);
	close(run->errors);
}

static void dump_as(struct clone_run *run, const char *which, struct nest_snapshot_kind kind)
{
	ck_assert_int_eq(nest_snapshot_dump(run->cell, which, &kind, on_dumped, run), 0);
	ck_assert_int_eq(nest_snapshot_dump(run->cell, which, &kind, on_dumped, run), -EALREADY);
	cell_fixture_await(&fixture, &run->dumped);
}

static void dump(struct clone_run *run, const char *which, enum nest_snapshot_memory memory)
{
	dump_as(run, which, (struct nest_snapshot_kind){ .memory = memory });
}

/* A snapshot of a worker that has answered once. */
static void make_snapshot(enum nest_snapshot_memory memory)
{
	struct clone_run run;

	start_plain(&run);
	ck_assert_str_eq(ask(&run, "x\n"), "1 234480");
	dump(&run, key, memory);
	ck_assert_msg(run.dump_err.code == 0, "dump: %s", nest_err_text(&run.dump_err));
	ck_assert_uint_gt(run.bytes, 8000000);
	finish(&run);
	ck_assert_int_eq(run.cause, NEST_CELL_KILLED);
}

static void open_fixture(void)
{
	const char *why;

	cell_fixture_init(&fixture);
	fixture.config.snapshots = true;
	fixture.config.pool_size = 1;
	cell_fixture_open(&fixture);
	ck_assert_msg(nest_snapshot_available(fixture.sandbox, &why), "no snapshots: %s", why);
}

static void close_fixture(void)
{
	cell_fixture_close(&fixture);
}

static void await_pool(void)
{
	while (nest_sandbox_prepared(fixture.sandbox) == 0)
		uv_run(&fixture.loop, UV_RUN_ONCE);
}

START_TEST(test_clones_go_on_where_the_snapshot_was_taken)
{
	struct clone_run runs[2];

	make_snapshot(_i);
	for (int i = 0; i < 2; i++) {
		await_pool();
		start_clone(&runs[i], key);
		await_clone(&runs[i]);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(ask(&runs[i], "x\n"), "2 234480");
		ck_assert_str_eq(ask(&runs[i], "x\n"), "3 234480");
	}
	for (int i = 0; i < 2; i++) {
		char text[64] = "";
		ssize_t n = 0;

		/* it prints after it has answered: the second line may still be on its way */
		while (n < 22) {
			ssize_t got = read(runs[i].out, text + n, sizeof(text) - 1 - (size_t)n);

			ck_assert_int_gt(got, 0);
			n += got;
		}
		ck_assert_str_eq(text, "answered 2\nanswered 3\n");
		finish(&runs[i]);
		ck_assert_int_eq(runs[i].cause, NEST_CELL_KILLED);
	}
}
END_TEST

/* The lines of /proc/self/status that say what a process may do. */
static void confinement(const struct clone_run *run, char *ret, size_t cap)
{
	static const char *const fields[] = { "Umask:", "Uid:", "Gid:", "Groups:", "NSpid:", "Cap",
		"NoNewPrivs:", "Seccomp", "Sig", "Shd", "Threads:" };
	const char *at = ask(run, "status\n");
	size_t n = 0;

	for (; *at; at += strcspn(at, "\n"), at += *at == '\n')
		for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
			if (strncmp(at, fields[i], strlen(fields[i])) == 0)
				n += (size_t)snprintf(
					ret + n, cap - n, "%.*s\n", (int)strcspn(at, "\n"), at);
	snprintf(ret + n, cap - n, "%s", ask(run, "limits\n"));
}

START_TEST(test_a_clone_is_confined_like_a_plain_worker)
{
	static char plain[16384], clone[16384];
	struct clone_run run;

	start_plain(&run);
	confinement(&run, plain, sizeof(plain));
	finish(&run);
	make_snapshot(_i);
	start_clone(&run, key);
	await_clone(&run);
	confinement(&run, clone, sizeof(clone));
	finish(&run);
	ck_assert_str_eq(plain, clone);
}
END_TEST

START_TEST(test_a_missing_snapshot_is_named)
{
	struct clone_run run;

	start_clone(&run, other_key);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_int_eq(run.err.code, -ENOENT);
}
END_TEST

START_TEST(test_files_in_tmp_belong_to_the_snapshot)
{
	struct clone_run run;

	start_plain(&run);
	ck_assert_str_eq(ask(&run, "tmp\n"), "ok");
	dump(&run, key, NEST_SNAPSHOT_COPIED);
	ck_assert_int_eq(run.dump_err.code, 0);
	finish(&run);
	for (int i = 0; i < 2; i++) {
		start_clone(&run, key);
		await_clone(&run);
		/* what the one appends, the other does not see */
		ck_assert_str_eq(ask(&run, "read\n"), "y");
		ck_assert_str_eq(ask(&run, "read\n"), "yz");
		finish(&run);
	}
}
END_TEST

static void damage(const char *name, bool cut)
{
	char path[256];
	char byte;
	int fd;

	snprintf(path, sizeof(path), "%s/snapshots/%s/%s", fixture.state_dir, key, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (cut) {
		struct stat st;

		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_int_eq(ftruncate(fd, st.st_size - 1), 0);
	} else {
		ck_assert_int_eq(pread(fd, &byte, 1, 20), 1);
		byte ^= 1;
		ck_assert_int_eq(pwrite(fd, &byte, 1, 20), 1);
	}
	close(fd);
}

static void reopen(void)
{
	nest_sandbox_close(fixture.sandbox, (void (*)(void *))uv_stop, &fixture.loop);
	uv_run(&fixture.loop, UV_RUN_DEFAULT);
	uv_run(&fixture.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&fixture.loop), 0);
	cell_fixture_open(&fixture);
}

START_TEST(test_a_damaged_snapshot_is_refused_after_a_restart)
{
	static const char *const names[] = { "contents", "files.img", "inventory.img", "memory" };
	struct clone_run run;

	for (int cut = 0; cut < 2; cut++) {
		make_snapshot(NEST_SNAPSHOT_MAPPED);
		damage(names[_i], cut);
		reopen();
		start_clone(&run, key);
		cell_fixture_await(&fixture, &run.exited);
		ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
		ck_assert_msg(
			run.err.code == -EBADMSG || run.err.code == -ENOENT, "%s", run.err.text);
		if (run.wired) {
			close(run.channel);
			close(run.out);
			close(run.errors);
		}
		/* it is gone */
		start_clone(&run, key);
		cell_fixture_await(&fixture, &run.exited);
		ck_assert_int_eq(run.err.code, -ENOENT);
	}
}
END_TEST

struct listed {
	unsigned n;
	bool done;
	struct nest_snapshot_view last;
};

static void on_each(void *arg, const struct nest_snapshot_view *view)
{
	struct listed *listed = arg;

	listed->n++;
	listed->last = *view;
}

static void on_done(void *arg)
{
	struct listed *listed = arg;

	listed->done = true;
}

START_TEST(test_the_store_is_listed_and_survives_a_restart)
{
	struct listed listed = { .n = 0 };
	struct clone_run run;

	make_snapshot(NEST_SNAPSHOT_MAPPED);
	reopen();
	ck_assert_int_eq(nest_snapshot_list(fixture.sandbox, on_each, on_done, &listed), 0);
	cell_fixture_await(&fixture, &listed.done);
	ck_assert_uint_eq(listed.n, 1);
	ck_assert_str_eq(listed.last.key, key);
	ck_assert_int_eq(listed.last.memory, NEST_SNAPSHOT_MAPPED);
	start_clone(&run, key);
	await_clone(&run);
	ck_assert_str_eq(ask(&run, "x\n"), "2 234480");
	finish(&run);
	ck_assert_int_eq(nest_snapshot_forget(fixture.sandbox, key, NULL), 0);
	listed = (struct listed){ .n = 0 };
	ck_assert_int_eq(nest_snapshot_list(fixture.sandbox, on_each, on_done, &listed), 0);
	cell_fixture_await(&fixture, &listed.done);
	ck_assert_uint_eq(listed.n, 0);
}
END_TEST

/* ---- snapshots upon others ---- */

#define CHILD_UID 712055

static struct nest_snapshot_view views[4];
static unsigned nviews;

static void on_view(void *arg, const struct nest_snapshot_view *view)
{
	(void)arg;
	ck_assert_uint_lt(nviews, 4);
	views[nviews++] = *view;
}

static void list(void)
{
	struct listed listed = { .n = 0 };

	nviews = 0;
	ck_assert_int_eq(nest_snapshot_list(fixture.sandbox, on_view, on_done, &listed), 0);
	cell_fixture_await(&fixture, &listed.done);
}

static void make_parent(enum nest_snapshot_memory memory)
{
	struct clone_run run;

	start_plain(&run);
	ck_assert_str_eq(ask(&run, "x\n"), "1 234480");
	dump_as(&run, key, (struct nest_snapshot_kind){ .memory = memory, .is_parent = true });
	ck_assert_msg(run.dump_err.code == 0, "dump: %s", nest_err_text(&run.dump_err));
	finish(&run);
}

/* Upon a parent, of a worker that is another user's, and has more memory. */
static uint64_t make_child(enum nest_snapshot_memory memory)
{
	struct clone_run run;

	start_clone_as(&run, key, CHILD_UID, true);
	await_clone(&run);
	ck_assert_str_eq(ask(&run, "x\n"), "2 234480");
	ck_assert_str_eq(ask(&run, "more\n"), "ok");
	dump(&run, other_key, memory);
	ck_assert_msg(run.dump_err.code == 0, "dump: %s", nest_err_text(&run.dump_err));
	finish(&run);
	return run.bytes;
}

static void expect_child(void)
{
	struct clone_run runs[2];

	for (int i = 0; i < 2; i++) {
		await_pool();
		start_clone_as(&runs[i], other_key, CHILD_UID, false);
		await_clone(&runs[i]);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(ask(&runs[i], "x\n"), "4 234480");
		finish(&runs[i]);
		ck_assert_int_eq(runs[i].cause, NEST_CELL_KILLED);
	}
}

static void expect_missing(const char *which)
{
	struct clone_run run;

	start_clone_as(&run, which, CHILD_UID, false);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_int_eq(run.err.code, -ENOENT);
}

START_TEST(test_a_child_holds_what_was_written_since_its_parent)
{
	uint64_t bytes;

	make_parent(NEST_SNAPSHOT_MAPPED);
	bytes = make_child(NEST_SNAPSHOT_MAPPED);
	ck_assert_uint_gt(bytes, 2000000);
	ck_assert_uint_lt(bytes, 8000000);
	expect_child();
	reopen();
	expect_child();
	list();
	ck_assert_uint_eq(nviews, 2);
	for (unsigned i = 0; i < nviews; i++) {
		bool is_parent = strcmp(views[i].key, key) == 0;

		ck_assert_int_eq(views[i].is_parent, is_parent);
		ck_assert_str_eq(views[i].parent, is_parent ? "" : key);
	}
}
END_TEST

START_TEST(test_a_child_of_copied_memory_stands_alone)
{
	make_parent(NEST_SNAPSHOT_COPIED);
	ck_assert_uint_gt(make_child(NEST_SNAPSHOT_COPIED), 8000000);
	ck_assert_int_eq(nest_snapshot_forget(fixture.sandbox, key, NULL), 0);
	expect_child();
	list();
	ck_assert_uint_eq(nviews, 1);
	ck_assert_str_eq(views[0].parent, "");
}
END_TEST

START_TEST(test_a_parents_clone_is_confined_like_a_plain_worker)
{
	static char plain[16384], clone[16384];
	struct clone_run run;

	start_plain_as(&run, CHILD_UID);
	confinement(&run, plain, sizeof(plain));
	ck_assert_ptr_nonnull(strstr(plain, "Uid:\t712055\t712055\t712055\t712055\n"));
	finish(&run);
	make_parent(_i);
	start_clone_as(&run, key, CHILD_UID, false);
	await_clone(&run);
	confinement(&run, clone, sizeof(clone));
	finish(&run);
	ck_assert_str_eq(plain, clone);
}
END_TEST

START_TEST(test_a_parent_stays_while_a_child_lives)
{
	make_parent(NEST_SNAPSHOT_MAPPED);
	make_child(NEST_SNAPSHOT_MAPPED);
	ck_assert_int_eq(nest_snapshot_forget(fixture.sandbox, key, NULL), 0);
	expect_missing(key);
	expect_child();
	ck_assert_int_eq(nest_snapshot_forget(fixture.sandbox, other_key, NULL), 0);
	list();
	ck_assert_uint_eq(nviews, 0);
}
END_TEST

START_TEST(test_a_child_goes_when_its_parent_is_made_anew)
{
	make_parent(NEST_SNAPSHOT_MAPPED);
	make_child(NEST_SNAPSHOT_MAPPED);
	make_parent(NEST_SNAPSHOT_MAPPED);
	expect_missing(other_key);
	make_child(NEST_SNAPSHOT_MAPPED);
	expect_child();
}
END_TEST

START_TEST(test_a_damaged_parent_is_refused_with_its_child)
{
	static const char *const names[] = { "contents", "files.img", "memory" };
	struct clone_run run;

	make_parent(NEST_SNAPSHOT_MAPPED);
	make_child(NEST_SNAPSHOT_MAPPED);
	damage(names[_i], false);
	reopen();
	start_clone_as(&run, other_key, CHILD_UID, false);
	cell_fixture_await(&fixture, &run.exited);
	ck_assert_int_eq(run.cause, NEST_CELL_FAILED);
	ck_assert_msg(run.err.code == -ESTALE || run.err.code == -ENOENT, "%s", run.err.text);
	if (run.wired) {
		close(run.channel);
		close(run.out);
		close(run.errors);
	}
	expect_missing(other_key);
	expect_missing(key);
}
END_TEST

START_TEST(test_a_clone_of_a_functions_snapshot_is_not_frozen)
{
	struct clone_run run;

	make_snapshot(NEST_SNAPSHOT_MAPPED);
	start_clone_as(&run, key, 0, true);
	await_clone(&run);
	dump(&run, other_key, NEST_SNAPSHOT_MAPPED);
	ck_assert_int_eq(run.dump_err.code, -EINVAL);
	ck_assert_ptr_nonnull(strstr(run.dump_err.text, "is no runtime's"));
	finish(&run);
}
END_TEST

static void expect_own_network(void)
{
	char path[64], spawners[64] = "", ours[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/ns/net", fixture.spawner.pid);
	ck_assert_int_gt(readlink(path, spawners, sizeof(spawners) - 1), 0);
	ck_assert_int_gt(readlink("/proc/self/ns/net", ours, sizeof(ours) - 1), 0);
	ck_assert_str_eq(spawners, ours);
}

START_TEST(test_without_network_workers_and_clones_are_frozen)
{
	struct clone_run run;

	/* in a cell that is prepared, or in one that is made for it */
	network = NEST_CELL_NETWORK_NONE;
	fixture.config.pool_size_none = (uint32_t)_i;
	reopen();
	make_parent(NEST_SNAPSHOT_MAPPED);
	make_child(NEST_SNAPSHOT_MAPPED);
	expect_child();
	start_clone_as(&run, other_key, CHILD_UID, false);
	await_clone(&run);
	ck_assert_str_eq(ask(&run, "net\n"), "lo");
	finish(&run);
	start_plain(&run);
	ck_assert_str_eq(ask(&run, "net\n"), "lo");
	finish(&run);
	expect_own_network();
}
END_TEST

START_TEST(test_who_is_to_be_frozen_is_not_started_with_a_channel)
{
	struct nest_cell_spec spec = worker_spec();
	struct clone_run run = { .cell = NULL };

	ck_assert_int_eq(
		nest_cell_start(fixture.sandbox, &spec, &events, &run, &run.cell, &run.err),
		-EINVAL);
	spec.snapshot = false;
	ck_assert_int_eq(nest_snapshot_start(fixture.sandbox, &spec, &events, on_wired, &run,
				 &run.cell, &run.err),
		-EINVAL);
	close(spec.code_fd);
	ck_assert_ptr_null(run.cell);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot");
	TCase *tcase = tcase_create("snapshot");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, open_fixture, close_fixture);
	tcase_add_loop_test(tcase, test_clones_go_on_where_the_snapshot_was_taken, 0, 2);
	tcase_add_loop_test(tcase, test_a_clone_is_confined_like_a_plain_worker, 0, 2);
	tcase_add_test(tcase, test_a_missing_snapshot_is_named);
	tcase_add_test(tcase, test_files_in_tmp_belong_to_the_snapshot);
	tcase_add_loop_test(tcase, test_a_damaged_snapshot_is_refused_after_a_restart, 0, 4);
	tcase_add_test(tcase, test_the_store_is_listed_and_survives_a_restart);
	tcase_add_test(tcase, test_a_child_holds_what_was_written_since_its_parent);
	tcase_add_test(tcase, test_a_child_of_copied_memory_stands_alone);
	tcase_add_loop_test(tcase, test_a_parents_clone_is_confined_like_a_plain_worker, 0, 2);
	tcase_add_test(tcase, test_a_parent_stays_while_a_child_lives);
	tcase_add_test(tcase, test_a_child_goes_when_its_parent_is_made_anew);
	tcase_add_loop_test(tcase, test_a_damaged_parent_is_refused_with_its_child, 0, 3);
	tcase_add_test(tcase, test_a_clone_of_a_functions_snapshot_is_not_frozen);
	tcase_add_loop_test(tcase, test_without_network_workers_and_clones_are_frozen, 0, 2);
	tcase_add_test(tcase, test_who_is_to_be_frozen_is_not_started_with_a_channel);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
