/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/working_set.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "tests/unit/suite.h"

#define PAGE 4096ul
#define PAGES 96u

/* What clones map, each for itself at the same address: a file whose bytes tell their pages. */
struct fixture {
	char name[64];
	int dir;
	int proc;
	unsigned char *memory;
};

/* A process with that mapping, which has done @work in it and waits. */
struct clone {
	pid_t pid;
	int go; /* a byte sent has it check its memory, and end */
};

static void make(struct fixture *f)
{
	unsigned char page[PAGE];
	int fd;

	snprintf(f->name, sizeof(f->name), "/var/tmp/nest-working-set-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(f->name));
	f->dir = open(f->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = openat(f->dir, "memory", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(page, (int)i + 1, sizeof(page));
		ck_assert_int_eq(write(fd, page, sizeof(page)), sizeof(page));
	}
	f->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ck_assert_ptr_ne(f->memory, MAP_FAILED);
	close(fd);
}

static void leave(struct fixture *f)
{
	munmap(f->memory, PAGES * PAGE);
	close(f->proc);
	close(f->dir);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, f->name, NULL), 0);
}

static void do_nothing(unsigned char *memory)
{
	(void)memory;
}

/* What a first request does. */
static void serve(unsigned char *memory)
{
	volatile unsigned char *at = memory;

	at[3 * PAGE] = 3 + 1;
	at[4 * PAGE + 7] = 4 + 1;
	at[90 * PAGE] = 90 + 1;
	(void)at[40 * PAGE];
}

static bool is_whole(const unsigned char *memory)
{
	for (unsigned i = 0; i < PAGES * PAGE; i++) {
		if (memory[i] != i / PAGE + 1)
			return false;
	}
	return true;
}

static struct clone start(struct fixture *f, void (*work)(unsigned char *memory))
{
	struct clone clone;
	int ready[2], go[2];
	char byte = 0;

	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(go), 0);
	clone.pid = fork();
	if (clone.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(f->memory);
		if (write(ready[1], "", 1) != 1 || read(go[0], &byte, 1) != 1)
			_exit(2);
		_exit(is_whole(f->memory) ? 0 : 1);
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	close(go[0]);
	clone.go = go[1];
	return clone;
}

static void end(struct clone *clone)
{
	int status;

	ck_assert_int_eq(write(clone->go, "", 1), 1);
	close(clone->go);
	ck_assert_int_eq(waitpid(clone->pid, &status, 0), clone->pid);
	ck_assert_int_eq(status, 0);
}

/* Of page @n in @pid: '-' not mapped, 'f' the file's, 'm' its own. */
static char kind(struct fixture *f, pid_t pid, unsigned n)
{
	uint64_t entry = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &entry, sizeof(entry),
				 (off_t)(((uintptr_t)f->memory / PAGE + n) * sizeof(entry))),
		sizeof(entry));
	close(fd);
	return !(entry >> 63 & 1) ? '-' : entry >> 61 & 1 ? 'f' : 'm';
}

static void learn(struct fixture *f)
{
	struct nest_err err = NEST_ERR_INIT;
	struct clone clone = start(f, serve);
	int r = nest_working_set_learn(f->proc, clone.pid, f->dir, &err);

	ck_assert_msg(r == 0, "%s", nest_err_text(&err));
	end(&clone);
}

START_TEST(what_one_clone_wrote_to_the_next_one_has_copied)
{
	static const unsigned written[] = { 3, 4, 90 };
	struct fixture f;
	struct clone clone;

	make(&f);
	learn(&f);
	clone = start(&f, do_nothing);
	ck_assert_int_eq(kind(&f, clone.pid, 3), '-');
	ck_assert(nest_working_set_fetch(f.dir, clone.pid, true));
	for (size_t i = 0; i < sizeof(written) / sizeof(*written); i++)
		ck_assert_int_eq(kind(&f, clone.pid, written[i]), 'm');
	/* and nothing else */
	ck_assert_int_eq(kind(&f, clone.pid, 40), 'f');
	for (unsigned i = 0; i < PAGES; i++)
		ck_assert(i == 3 || i == 4 || i == 90 || kind(&f, clone.pid, i) != 'm');
	end(&clone);
	leave(&f);
}
END_TEST

START_TEST(without_memory_of_its_own_only_what_is_read_is_mapped)
{
	struct fixture f;
	struct clone clone;

	make(&f);
	learn(&f);
	clone = start(&f, do_nothing);
	ck_assert(nest_working_set_fetch(f.dir, clone.pid, false));
	ck_assert_int_eq(kind(&f, clone.pid, 40), 'f');
	for (unsigned i = 0; i < PAGES; i++)
		ck_assert_int_ne(kind(&f, clone.pid, i), 'm');
	end(&clone);
	leave(&f);
}
END_TEST

/* What was written before it is learnt is the process's own, and stays as it was written. */
START_TEST(a_page_that_is_its_own_already_keeps_its_bytes)
{
	struct fixture f;
	struct clone clone;

	make(&f);
	learn(&f);
	clone = start(&f, serve);
	ck_assert(nest_working_set_fetch(f.dir, clone.pid, true));
	end(&clone);
	leave(&f);
}
END_TEST

START_TEST(where_nothing_was_learnt_nothing_is_fetched)
{
	struct fixture f;
	struct clone clone;

	make(&f);
	clone = start(&f, do_nothing);
	ck_assert(!nest_working_set_fetch(f.dir, clone.pid, true));
	end(&clone);
	leave(&f);
}
END_TEST

/* It is no part of what a snapshot's digests cover: whatever is in it, a clone's memory stays what it is. */
START_TEST(a_damaged_one_harms_no_clone)
{
	struct fixture f;
	struct clone clone;
	char *bytes;
	size_t len;

	make(&f);
	learn(&f);
	ck_assert_int_eq(
		nest_file_read(f.dir, NEST_WORKING_SET_FILE, 1u << 20, &bytes, &len, NULL), 0);
	clone = start(&f, do_nothing);
	for (size_t i = 0; i < len; i++) {
		char was = bytes[i];

		bytes[i] = (char)(was ^ (1 << i % 8));
		ck_assert_int_eq(nest_file_write_atomic(
					 f.dir, NEST_WORKING_SET_FILE, bytes, len, 0600, NULL),
			0);
		bytes[i] = was;
		nest_working_set_fetch(f.dir, clone.pid, true);
	}
	for (size_t n = 0; n < len; n += 5) {
		ck_assert_int_eq(
			nest_file_write_atomic(f.dir, NEST_WORKING_SET_FILE, bytes, n, 0600, NULL),
			0);
		/* a head counts its runs */
		ck_assert(!nest_working_set_fetch(f.dir, clone.pid, true));
	}
	free(bytes);
	end(&clone);
	leave(&f);
}
END_TEST

START_TEST(of_a_process_that_is_gone_nothing_is_learnt)
{
	struct nest_err err = NEST_ERR_INIT;
	struct fixture f;
	struct clone clone;

	make(&f);
	clone = start(&f, serve);
	end(&clone);
	ck_assert_int_lt(nest_working_set_learn(f.proc, clone.pid, f.dir, &err), 0);
	ck_assert_ptr_nonnull(strstr(nest_err_text(&err), "learn a working set"));
	ck_assert_int_eq(faccessat(f.dir, NEST_WORKING_SET_FILE, F_OK, 0), -1);
	ck_assert(!nest_working_set_fetch(f.dir, clone.pid, true));
	leave(&f);
}
END_TEST

/* Of a first request that writes to much more, so much is copied ahead. */
START_TEST(what_is_copied_is_bounded)
{
	const size_t pages = 3000;
	struct fixture f;
	size_t own = 0;
	pid_t pids[2];
	int fd, stop[2];
	char byte;

	make(&f);
	fd = openat(f.dir, "large", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, (off_t)(pages * PAGE)), 0);
	munmap(f.memory, PAGES * PAGE);
	f.memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ck_assert_ptr_ne(f.memory, MAP_FAILED);
	ck_assert_int_eq(pipe(stop), 0);
	for (int i = 0; i < 2; i++) {
		int done[2];

		ck_assert_int_eq(pipe(done), 0);
		pids[i] = fork();
		if (pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (size_t n = 0; i == 0 && n < pages; n++)
				f.memory[n * PAGE] = 1;
			if (write(done[1], "", 1) == 1 && read(stop[0], &byte, 1) == 0)
				_exit(0);
			_exit(1);
		}
		ck_assert_int_eq(read(done[0], &byte, 1), 1);
		close(done[0]);
		close(done[1]);
	}
	ck_assert_int_eq(nest_working_set_learn(f.proc, pids[0], f.dir, NULL), 0);
	ck_assert(nest_working_set_fetch(f.dir, pids[1], true));
	for (unsigned n = 0; n < pages; n++)
		own += kind(&f, pids[1], n) == 'm';
	/* beside the fork's own data */
	ck_assert_uint_gt(own, 512);
	ck_assert_uint_le(own, 1024);
	kill(pids[0], SIGKILL);
	kill(pids[1], SIGKILL);
	ck_assert_int_eq(waitpid(pids[0], NULL, 0), pids[0]);
	ck_assert_int_eq(waitpid(pids[1], NULL, 0), pids[1]);
	close(stop[0]);
	close(stop[1]);
	close(fd);
	munmap(f.memory, pages * PAGE);
	f.memory = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	leave(&f);
}
END_TEST

NEST_SUITE("sandbox/working_set", what_one_clone_wrote_to_the_next_one_has_copied,
	without_memory_of_its_own_only_what_is_read_is_mapped,
	a_page_that_is_its_own_already_keeps_its_bytes, where_nothing_was_learnt_nothing_is_fetched,
	a_damaged_one_harms_no_clone, of_a_process_that_is_gone_nothing_is_learnt,
	what_is_copied_is_bounded)
