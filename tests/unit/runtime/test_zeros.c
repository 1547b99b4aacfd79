/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library that is preloaded into workers whose memory is mapped, in a process whose /snapshot/memory is
 * what it is in a clone: a file that private memory is mapped from. That a clone's really is, and that
 * the library is there, tests/e2e/test_snapshot_memory.py shows.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/suite.h"

#define PAGE 4096
#define PAGES 8
#define OLD 0xaa /* what the snapshot has everywhere */
#define NEW 0x55

static int (*zeros_madvise)(void *, size_t, int);
static void *(*zeros_mremap)(void *, size_t, size_t, int, ...);

/* ---- a clone's surroundings ---- */

static void make_file(const char *name)
{
	unsigned char bytes[PAGES * PAGE];
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	memset(bytes, OLD, sizeof(bytes));
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	close(fd);
}

static void enter(void)
{
	void *library = dlopen(ZEROS_LIBRARY, RTLD_NOW | RTLD_LOCAL);

	ck_assert_msg(library != NULL, "%s", dlerror());
	*(void **)&zeros_madvise = dlsym(library, "madvise");
	*(void **)&zeros_mremap = dlsym(library, "mremap");
	ck_assert(zeros_madvise && zeros_mremap);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	/* the root of this process and of nobody else */
	ck_assert_int_eq(mount("none", "/tmp", "tmpfs", 0, NULL), 0);
	ck_assert_int_eq(chdir("/tmp"), 0);
	ck_assert_int_eq(mkdir("proc", 0755), 0);
	ck_assert_int_eq(mkdir("snapshot", 0700), 0);
	ck_assert_int_eq(mkdir("parent-snapshot", 0700), 0);
	ck_assert_int_eq(mount("/proc", "proc", NULL, MS_BIND | MS_REC, NULL), 0);
	make_file("snapshot/memory");
	make_file("snapshot/memory2");
	make_file("parent-snapshot/memory");
	make_file("own");
	ck_assert_int_eq(chroot("."), 0);
}

static unsigned char *map_at(void *at, const char *file, int flags)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	void *memory;

	ck_assert_int_ge(fd, 0);
	memory = mmap(at, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	close(fd);
	return memory;
}

/* Memory as a clone has it; all of it is what the snapshot had. */
static unsigned char *map(const char *file)
{
	return map_at(NULL, file, MAP_PRIVATE);
}

/* Memory that no snapshot knows. */
static unsigned char *map_fresh(void)
{
	void *memory = mmap(
		NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(memory, MAP_FAILED);
	return memset(memory, NEW, PAGES * PAGE);
}

static void check(const unsigned char *memory, int first, int pages, int byte)
{
	for (int i = first * PAGE; i < (first + pages) * PAGE; i++)
		ck_assert_msg(memory[i] == byte, "byte %d of page %d is %#x, not %#x", i % PAGE,
			i / PAGE, memory[i], byte);
}

/* The line of /proc/self/maps that has @memory. */
static void find_line(const void *memory, char ret[256])
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;

	ck_assert_ptr_nonnull(maps);
	while (fgets(ret, 256, maps))
		if (sscanf(ret, "%lx-%lx", &start, &end) == 2 && start <= (unsigned long)memory &&
			end > (unsigned long)memory)
			break;
	fclose(maps);
}

/* ---- tests ---- */

START_TEST(without_it_memory_given_back_has_the_snapshots_bytes)
{
	unsigned char *memory = map("/snapshot/memory");

	memset(memory, NEW, PAGES * PAGE);
	ck_assert_int_eq(syscall(SYS_madvise, memory, PAGES * PAGE, MADV_DONTNEED), 0);
	check(memory, 0, PAGES, OLD);
	ck_assert_int_eq(syscall(SYS_madvise, memory, PAGES * PAGE, MADV_FREE), -1);
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

static const int advices[] = { MADV_DONTNEED, MADV_FREE };

START_TEST(memory_given_back_reads_as_zeros)
{
	unsigned char *memory = map("/snapshot/memory");
	char line[256];

	memset(memory + 4 * PAGE, NEW, PAGE);
	errno = 7;
	/* a length is rounded up to whole pages */
	ck_assert_int_eq(zeros_madvise(memory + 2 * PAGE, 2 * PAGE + 1, advices[_i]), 0);
	ck_assert_int_eq(errno, 7);
	check(memory, 0, 2, OLD);
	check(memory, 2, 3, 0);
	check(memory, 5, 3, OLD);
	find_line(memory + 2 * PAGE, line);
	ck_assert_msg(strstr(line, "rw-p") && !strchr(line, '/'), "%s", line);
	/* it is memory like any other from now on */
	memset(memory + 2 * PAGE, NEW, 3 * PAGE);
	ck_assert_int_eq(zeros_madvise(memory + 3 * PAGE, PAGE, MADV_DONTNEED), 0);
	check(memory, 2, 1, NEW);
	check(memory, 3, 1, 0);
	check(memory, 4, 1, NEW);
}
END_TEST

static const char *const names[] = { "/snapshot/memory", "/parent-snapshot/memory" };

START_TEST(the_memory_of_both_snapshots_is_known_and_still_when_they_are_gone)
{
	unsigned char *memory = map(names[_i]);

	ck_assert_int_eq(unlink(names[_i]), 0);
	ck_assert_int_eq(zeros_madvise(memory, PAGE, MADV_DONTNEED), 0);
	check(memory, 0, 1, 0);
	check(memory, 1, PAGES - 1, OLD);
}
END_TEST

START_TEST(access_rights_stay)
{
	static const struct {
		int protection;
		const char *text;
	} kinds[] = { { PROT_NONE, "---p" }, { PROT_READ, "r--p" },
		{ PROT_READ | PROT_EXEC, "r-xp" }, { PROT_READ | PROT_WRITE | PROT_EXEC, "rwxp" } };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		unsigned char *memory = map("/snapshot/memory");
		char line[256];

		ck_assert_int_eq(mprotect(memory, PAGES * PAGE, kinds[i].protection), 0);
		ck_assert_int_eq(zeros_madvise(memory, PAGES * PAGE, MADV_DONTNEED), 0);
		find_line(memory, line);
		ck_assert_msg(strstr(line, kinds[i].text) && !strchr(line, '/'), "%s", line);
		ck_assert_int_eq(mprotect(memory, PAGES * PAGE, PROT_READ), 0);
		check(memory, 0, PAGES, 0);
	}
}
END_TEST

START_TEST(what_a_program_has_mapped_itself_is_a_file_still)
{
	static const char *const own[] = { "/own", "/snapshot/memory2" };

	for (int i = 0; i < 2; i++) {
		unsigned char *memory = map(own[i]);
		unsigned char *shared = map_at(NULL, own[i], MAP_SHARED);

		memset(memory, NEW, PAGES * PAGE);
		ck_assert_int_eq(zeros_madvise(memory, PAGES * PAGE, MADV_DONTNEED), 0);
		check(memory, 0, PAGES, OLD);
		memset(shared, NEW, PAGE);
		ck_assert_int_eq(zeros_madvise(shared, PAGES * PAGE, MADV_DONTNEED), 0);
		check(shared, 0, 1, NEW);
		check(shared, 1, PAGES - 1, OLD);
		ck_assert_int_eq(zeros_madvise(shared, PAGE, MADV_FREE), -1);
		ck_assert_int_eq(errno, EINVAL);
	}
}
END_TEST

START_TEST(fresh_memory_is_given_back_as_ever)
{
	unsigned char *memory = map_fresh();

	errno = 7;
	ck_assert_int_eq(zeros_madvise(memory, PAGE, MADV_DONTNEED), 0);
	ck_assert_int_eq(zeros_madvise(memory, PAGES * PAGE, MADV_FREE), 0);
	ck_assert_int_eq(zeros_madvise(memory, PAGES * PAGE, MADV_NORMAL), 0);
	ck_assert_int_eq(errno, 7);
	check(memory, 0, 1, 0);
}
END_TEST

START_TEST(a_range_over_all_kinds_of_memory_is_cleared_where_it_is_memory)
{
	unsigned char *start =
		mmap(NULL, 5 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(start, MAP_FAILED);
	map_at(start, "/snapshot/memory", MAP_PRIVATE | MAP_FIXED);
	map_at(start + PAGES * PAGE, "/own", MAP_PRIVATE | MAP_FIXED);
	map_at(start + 2 * PAGES * PAGE, "/parent-snapshot/memory", MAP_PRIVATE | MAP_FIXED);
	/* a hole follows, then fresh memory */
	ck_assert_int_eq(munmap(start + 3 * PAGES * PAGE, PAGES * PAGE), 0);
	ck_assert_int_eq(
		mprotect(start + 4 * PAGES * PAGE, PAGES * PAGE, PROT_READ | PROT_WRITE), 0);
	memset(start + 4 * PAGES * PAGE, NEW, PAGES * PAGE);
	errno = 0;
	ck_assert_int_eq(
		zeros_madvise(start + PAGE, 5 * PAGES * PAGE - 2 * PAGE, MADV_DONTNEED), -1);
	ck_assert_int_eq(errno, ENOMEM);
	check(start, 0, 1, OLD);
	check(start, 1, PAGES - 1, 0);
	check(start, PAGES, PAGES, OLD);
	check(start, 2 * PAGES, PAGES, 0);
	check(start, 4 * PAGES, PAGES - 1, 0);
	check(start, 5 * PAGES - 1, 1, NEW);
}
END_TEST

START_TEST(what_the_kernel_refuses_is_refused)
{
	unsigned char *memory = map("/snapshot/memory");

	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(zeros_madvise(memory + 1, PAGE, advices[i]), -1);
		ck_assert_int_eq(errno, EINVAL);
		ck_assert_int_eq(zeros_madvise(memory, (size_t)-PAGE, advices[i]), -1);
		ck_assert_int_eq(zeros_madvise(memory, 0, advices[i]), 0);
	}
	ck_assert_int_eq(zeros_madvise(memory, PAGE, 12345), -1);
	ck_assert_int_eq(errno, EINVAL);
	check(memory, 0, PAGES, OLD);
}
END_TEST

/* Without a descriptor it can't know: then it fails rather than leave old bytes. */
START_TEST(what_can_not_be_looked_at_fails)
{
	struct rlimit usual, none;
	unsigned char *memory = map("/snapshot/memory");
	unsigned char *fresh = map_fresh();

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = usual.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(zeros_madvise(memory, PAGE, MADV_DONTNEED), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_ptr_eq(
		zeros_mremap(memory, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE), MAP_FAILED);
	ck_assert_int_eq(errno, EAGAIN);
	/* it is where and what it was */
	check(memory, 1, PAGES - 1, OLD);
	ck_assert_int_eq(zeros_madvise(fresh, PAGE, MADV_DONTNEED), 0);
	check(fresh, 0, 1, 0);
	/* a sanitizer looks around at the end */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
}
END_TEST

START_TEST(memory_that_grows_has_zeros_at_its_end)
{
	unsigned char *memory = map("/snapshot/memory");
	unsigned char *fresh = map_fresh();

	/* to what the file has for others, and past its end */
	ck_assert_int_eq(munmap(memory + 2 * PAGE, (PAGES - 2) * PAGE), 0);
	memory[0] = NEW;
	errno = 7;
	memory = zeros_mremap(memory, 2 * PAGE, 4 * PAGES * PAGE, MREMAP_MAYMOVE);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(errno, 7);
	ck_assert_int_eq(memory[0], NEW);
	check(memory, 1, 1, OLD);
	check(memory, 2, 4 * PAGES - 2, 0);
	memory = zeros_mremap(memory, 4 * PAGES * PAGE, PAGE, 0);
	ck_assert_int_eq(memory[0], NEW);
	fresh = zeros_mremap(fresh, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE);
	check(fresh, 0, PAGES, NEW);
	check(fresh, PAGES, PAGES, 0);
}
END_TEST

START_TEST(memory_can_be_moved_to_a_place)
{
	unsigned char *memory = map("/snapshot/memory");
	unsigned char *place =
		mmap(NULL, 4 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(place, MAP_FAILED);
	ck_assert_ptr_eq(zeros_mremap(memory, PAGES * PAGE, 2 * PAGES * PAGE,
				 MREMAP_MAYMOVE | MREMAP_FIXED, place),
		place);
	check(place, 0, PAGES, OLD);
	check(place, PAGES, PAGES, 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("runtime/zeros");

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, enter, NULL);
	tcase_add_test(tcase, without_it_memory_given_back_has_the_snapshots_bytes);
	tcase_add_loop_test(tcase, memory_given_back_reads_as_zeros, 0, 2);
	tcase_add_loop_test(
		tcase, the_memory_of_both_snapshots_is_known_and_still_when_they_are_gone, 0, 2);
	tcase_add_test(tcase, access_rights_stay);
	tcase_add_test(tcase, what_a_program_has_mapped_itself_is_a_file_still);
	tcase_add_test(tcase, fresh_memory_is_given_back_as_ever);
	tcase_add_test(tcase, a_range_over_all_kinds_of_memory_is_cleared_where_it_is_memory);
	tcase_add_test(tcase, what_the_kernel_refuses_is_refused);
	tcase_add_test(tcase, what_can_not_be_looked_at_fails);
	tcase_add_test(tcase, memory_that_grows_has_zeros_at_its_end);
	tcase_add_test(tcase, memory_can_be_moved_to_a_place);
	return nest_suite_run_case("runtime/zeros", tcase);
}
