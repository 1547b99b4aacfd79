/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library that is preloaded into Node, in a process where Node's code is that of fake_node.so. What it
 * does to Node itself tests/e2e/test_node_memory.py shows.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/suite.h"

#define PAGE 4096
#define RESERVE (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
/* as V8 asks for a page of its heap, and for its code */
#define HEAP_BYTES (127 * PAGE)
#define CODE_BYTES ((size_t)128 << 20)

typedef void *mapper(void *, size_t, int, int, int, off_t);
typedef void *routine(void *);

/* of fake_node.so */
void *fake_node_map(mapper *map, void *hint, size_t length, int protection, int flags, int fd);
void *fake_node_stay(void *arg);

static mapper *mappers[2];
static int (*create)(pthread_t *, const pthread_attr_t *, routine *, void *);

static void find_library(void)
{
	void *library = dlopen(NODE_LIBRARY, RTLD_NOW | RTLD_NOLOAD);

	ck_assert_msg(library != NULL, "%s", dlerror());
	*(void **)&mappers[0] = dlsym(library, "mmap");
	*(void **)&mappers[1] = dlsym(library, "mmap64");
	*(void **)&create = dlsym(library, "pthread_create");
	ck_assert(mappers[0] && mappers[1] && create);
}

/* ---- areas ---- */

/* An address where nothing is, far from all else. */
static void *hint(void)
{
	static uintptr_t next = (uintptr_t)0x123400000000;

	return (void *)(next += (uintptr_t)1 << 30);
}

START_TEST(what_node_reserves_for_its_heap_lies_side_by_side)
{
	void *before = hint(), *first, *second;

	first = fake_node_map(mappers[_i], before, HEAP_BYTES, PROT_NONE, RESERVE, -1);
	ck_assert_ptr_ne(first, MAP_FAILED);
	ck_assert_ptr_ne(first, before);
	second = fake_node_map(mappers[_i], hint(), HEAP_BYTES, PROT_NONE, RESERVE, -1);
	ck_assert_ptr_ne(second, MAP_FAILED);
	ck_assert_uint_lt((uintptr_t)first - (uintptr_t)second, CODE_BYTES);
	ck_assert_int_eq(mprotect(first, PAGE, PROT_READ | PROT_WRITE), 0);
	ck_assert_int_eq(*(char *)first, 0);
}
END_TEST

/* Each kind of call that means its hint. */
static const struct {
	size_t length;
	int protection, flags;
} kinds[] = {
	{ CODE_BYTES, PROT_NONE, RESERVE },
	{ HEAP_BYTES, PROT_READ | PROT_WRITE, RESERVE },
	{ HEAP_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS },
	{ HEAP_BYTES, PROT_NONE, RESERVE | MAP_FIXED },
	{ HEAP_BYTES, PROT_NONE, RESERVE | MAP_FIXED_NOREPLACE },
	{ HEAP_BYTES, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE },
};
#define KINDS ((int)(sizeof(kinds) / sizeof(*kinds)))

START_TEST(what_node_maps_in_other_ways_goes_where_it_says)
{
	for (int i = 0; i < 2; i++) {
		void *wanted = hint();

		ck_assert_ptr_eq(fake_node_map(mappers[i], wanted, kinds[_i].length,
					 kinds[_i].protection, kinds[_i].flags, -1),
			wanted);
	}
}
END_TEST

START_TEST(files_go_where_node_says)
{
	void *wanted = hint();
	int fd = open(NODE_LIBRARY, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_ptr_eq(
		fake_node_map(mappers[0], wanted, PAGE, PROT_READ, MAP_PRIVATE, fd), wanted);
	ck_assert_int_eq(((char *)wanted)[1], 'E');
	close(fd);
}
END_TEST

START_TEST(what_others_reserve_goes_where_they_say)
{
	for (int i = 0; i < 2; i++) {
		void *wanted = hint();

		ck_assert_ptr_eq(mappers[i](wanted, HEAP_BYTES, PROT_NONE, RESERVE, -1, 0), wanted);
	}
}
END_TEST

START_TEST(an_error_is_the_kernels)
{
	errno = 0;
	ck_assert_ptr_eq(fake_node_map(mappers[_i], hint(), 0, PROT_NONE, RESERVE, -1), MAP_FAILED);
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

/* ---- threads ---- */

static int count_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int n = 0;

	ck_assert_ptr_nonnull(tasks);
	for (const struct dirent *entry; (entry = readdir(tasks));)
		n += entry->d_name[0] != '.';
	closedir(tasks);
	return n;
}

/* How many threads there are more once @run was started so. */
static int start(int detached, bool blocked, routine *run, void *arg)
{
	int before = count_threads();
	pthread_attr_t attributes;
	sigset_t signals, usual;
	pthread_t thread;

	ck_assert_int_eq(pthread_attr_init(&attributes), 0);
	ck_assert_int_eq(pthread_attr_setdetachstate(&attributes, detached), 0);
	sigemptyset(&signals);
	if (blocked)
		sigfillset(&signals);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &signals, &usual), 0);
	ck_assert_int_eq(create(&thread, &attributes, run, arg), 0);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &usual, NULL), 0);
	pthread_attr_destroy(&attributes);
	return count_threads() - before;
}

/* Stays for good, and is none of Node's. */
static void *stay(void *arg)
{
	return fake_node_stay(arg);
}

START_TEST(the_thread_that_waits_for_the_signal_is_not_started)
{
	ck_assert_int_eq(start(PTHREAD_CREATE_DETACHED, true, fake_node_stay, NULL), 0);
}
END_TEST

START_TEST(each_other_thread_is_started)
{
	int arg = 0;

	ck_assert_int_eq(start(PTHREAD_CREATE_JOINABLE, true, fake_node_stay, NULL), 1);
	ck_assert_int_eq(start(PTHREAD_CREATE_DETACHED, false, fake_node_stay, NULL), 1);
	ck_assert_int_eq(start(PTHREAD_CREATE_DETACHED, true, fake_node_stay, &arg), 1);
	ck_assert_int_eq(start(PTHREAD_CREATE_DETACHED, true, stay, NULL), 1);
}
END_TEST

static void *answer(void *arg)
{
	return arg;
}

START_TEST(a_thread_without_attributes_runs_and_is_joined)
{
	void *result = NULL;
	pthread_t thread;

	ck_assert_int_eq(create(&thread, NULL, answer, &result), 0);
	ck_assert_int_eq(pthread_join(thread, &result), 0);
	ck_assert_ptr_eq(result, &result);
}
END_TEST

/* ---- other programs ---- */

START_TEST(a_program_that_is_not_node_runs_with_it)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"exec /bin/cat </dev/null", NULL };
	char *envp[] = { (char *)"LD_PRELOAD=" NODE_LIBRARY, (char *)"LD_BIND_NOW=1", NULL };
	int status = -1;
	pid_t pid;

	ck_assert_int_eq(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, envp), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("runtime/node");
	TCase *tcase = tcase_create("runtime/node");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, find_library, NULL);
	tcase_add_loop_test(tcase, what_node_reserves_for_its_heap_lies_side_by_side, 0, 2);
	tcase_add_loop_test(tcase, what_node_maps_in_other_ways_goes_where_it_says, 0, KINDS);
	tcase_add_test(tcase, files_go_where_node_says);
	tcase_add_test(tcase, what_others_reserve_goes_where_they_say);
	tcase_add_loop_test(tcase, an_error_is_the_kernels, 0, 2);
	tcase_add_test(tcase, the_thread_that_waits_for_the_signal_is_not_started);
	tcase_add_test(tcase, each_other_thread_is_started);
	tcase_add_test(tcase, a_thread_without_attributes_runs_and_is_joined);
	tcase_add_test(tcase, a_program_that_is_not_node_runs_with_it);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
