/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/working_set.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/touch.h"

/* The kernel's Documentation/admin-guide/mm/pagemap.rst */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_OF_FILE (1ull << 61)

#define ENTRIES 4096		 /* read of pagemap at a time */
#define SCANNED_MAX (1ull << 19) /* pages looked at: the spawner has others to serve */
#define RUNS_MAX 4096		 /* kept */
#define WRITTEN_MAX 1024	 /* pages: of more, a start saves less than it takes to hold them */
#define ADDRESS_MAX (1ull << 47) /* of a process, here and on aarch64 */
#define DRAFT NEST_WORKING_SET_FILE ".tmp"

static const char magic[8] = "NESTWRK1";

/* A file: a head, then these. One that is read has a page, and stands for its block. */
struct run {
	uint64_t at;
	uint32_t pages;
	uint32_t written; /* 1, 0 */
};

struct head {
	char magic[8];
	uint64_t nruns;
};

#define FILE_MAX (sizeof(struct head) + RUNS_MAX * sizeof(struct run))

struct lesson {
	size_t page;
	size_t nruns;
	size_t written;
	uint64_t scanned;
	struct run runs[RUNS_MAX];
};

struct area {
	unsigned long begin;
	unsigned long end;
	bool writable;
};

/* ---- learnt ---- */

/* A private area of a file, in a line of /proc/<pid>/maps: of a program, or of a snapshot's memory. */
static bool parse(const char *line, struct area *ret)
{
	char flags[5];
	int at = 0;

	if (sscanf(line, "%lx-%lx %4s %*x %*s %*s %n", &ret->begin, &ret->end, flags, &at) != 3 ||
		at == 0 || line[at] != '/' || flags[3] != 'p' || flags[0] != 'r')
		return false;
	ret->writable = flags[1] == 'w';
	return true;
}

static void add(struct lesson *lesson, uint64_t at, bool written)
{
	struct run *last = lesson->nruns > 0 ? &lesson->runs[lesson->nruns - 1] : NULL;
	bool same = last && last->written == written;

	if (written && lesson->written == WRITTEN_MAX)
		return;
	lesson->written += written;
	if (same && written && last->at + last->pages * lesson->page == at) {
		last->pages++;
		return;
	}
	if (same && !written && last->at / NEST_TOUCH_BLOCK_BYTES == at / NEST_TOUCH_BLOCK_BYTES)
		return;
	if (lesson->nruns < RUNS_MAX)
		lesson->runs[lesson->nruns++] =
			(struct run){ .at = at, .pages = 1, .written = written };
}

static int scan(struct lesson *lesson, int pagemap, const struct area *area)
{
	uint64_t entries[ENTRIES];
	uint64_t left = (area->end - area->begin) / lesson->page, at = area->begin;

	while (left > 0 && lesson->scanned < SCANNED_MAX) {
		size_t n = left < ENTRIES ? left : ENTRIES;
		ssize_t got = pread(pagemap, entries, n * sizeof(*entries),
			(off_t)(at / lesson->page * sizeof(*entries)));

		if (got <= 0)
			return got < 0 ? -errno : 0; /* the process is gone */
		n = (size_t)got / sizeof(*entries);
		for (size_t i = 0; i < n; i++) {
			bool mine = !(entries[i] & PAGE_OF_FILE);

			if ((entries[i] & PAGE_PRESENT) && (!mine || area->writable))
				add(lesson, at + i * lesson->page, mine);
		}
		at += n * lesson->page;
		left -= n;
		lesson->scanned += n;
	}
	return 0;
}

static int scan_all(struct lesson *lesson, int proc, pid_t pid, struct nest_err *err)
{
	nest_autoclose int pagemap = -1;
	nest_autofclose FILE *maps = NULL;
	nest_autofree char *line = NULL;
	struct area area;
	size_t room = 0;
	char path[32];
	int r = 0, fd;

	snprintf(path, sizeof(path), "%d/pagemap", pid);
	pagemap = openat(proc, path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%d/maps", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	maps = fd < 0 ? NULL : fdopen(fd, "r");
	if (!maps && fd >= 0)
		close(fd);
	if (pagemap < 0 || !maps)
		return nest_err_set(err, -errno, "open '/proc/%d'", pid);
	while (r == 0 && getline(&line, &room, maps) > 0)
		r = parse(line, &area) ? scan(lesson, pagemap, &area) : 0;
	return r < 0 ? nest_err_set(err, r, "read '/proc/%d/pagemap'", pid) : 0;
}

/* Not synced: what a crash leaves of it is known for what it is, and it is learnt anew. */
static int write_file(const struct lesson *lesson, int dir, struct nest_err *err)
{
	struct head head = { .nruns = lesson->nruns };
	nest_autoclose int fd =
		openat(dir, DRAFT, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return nest_err_set(err, -errno, "make '" DRAFT "'");
	memcpy(head.magic, magic, sizeof(magic));
	r = nest_fd_write_all(fd, &head, sizeof(head), err);
	if (r == 0)
		r = nest_fd_write_all(fd, lesson->runs, lesson->nruns * sizeof(*lesson->runs), err);
	if (r == 0 && renameat(dir, DRAFT, dir, NEST_WORKING_SET_FILE) < 0)
		r = nest_err_set(err, -errno, "rename '" DRAFT "'");
	if (r < 0)
		unlinkat(dir, DRAFT, 0);
	return r;
}

int nest_working_set_learn(int proc, pid_t pid, int dir, struct nest_err *err)
{
	nest_autofree struct lesson *lesson = calloc(1, sizeof(*lesson));
	int r;

	if (!lesson)
		return nest_err_set(err, -ENOMEM, "learn a working set");
	lesson->page = (size_t)sysconf(_SC_PAGESIZE);
	r = scan_all(lesson, proc, pid, err);
	if (r == 0)
		r = write_file(lesson, dir, err);
	return r < 0 ? nest_err_wrap(err, "learn a working set") : 0;
}

/* ---- fetched ---- */

static bool is_run(const struct run *run, size_t page)
{
	return run->written <= 1 && run->pages > 0 && run->pages <= WRITTEN_MAX &&
	       run->at % page == 0 && run->at < ADDRESS_MAX;
}

/*
 * A write that has nothing to write: by the time that the kernel finds its source unreadable it has
 * made the pages behind its target the process's own, as for any write, and changes none of their bytes.
 */
static void copy_pages(pid_t pid, const struct run *run, size_t page, void *unreadable)
{
	struct iovec remote = { .iov_base = (void *)run->at, .iov_len = run->pages * page };
	struct iovec local = { .iov_base = unreadable, .iov_len = remote.iov_len };

	if (process_vm_writev(pid, &local, 1, &remote, 1, 0) < 0)
		errno = 0; /* always; what could not be had is left to the fault */
}

static void copy_written(pid_t pid, const struct run *runs, size_t n, size_t page)
{
	size_t bytes = WRITTEN_MAX * page;
	void *unreadable =
		mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (unreadable == MAP_FAILED)
		return;
	for (size_t i = 0; i < n; i++) {
		if (runs[i].written && is_run(&runs[i], page))
			copy_pages(pid, &runs[i], page, unreadable);
	}
	munmap(unreadable, bytes);
}

static void map_read(pid_t pid, const struct run *runs, size_t n, size_t page)
{
	struct nest_touch touch = { .pid = pid };

	for (size_t i = 0; i < n; i++) {
		if (!runs[i].written && is_run(&runs[i], page))
			nest_touch_byte(&touch, runs[i].at);
	}
	nest_touch_end(&touch);
}

bool nest_working_set_fetch(int dir, pid_t pid, bool written)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = 0, n;
	nest_autofree char *bytes = NULL;
	const struct run *runs;
	struct head head;

	if (nest_file_read(dir, NEST_WORKING_SET_FILE, FILE_MAX, &bytes, &len, NULL) < 0 ||
		len < sizeof(head))
		return false;
	memcpy(&head, bytes, sizeof(head));
	n = (len - sizeof(head)) / sizeof(*runs);
	if (memcmp(head.magic, magic, sizeof(magic)) != 0 || head.nruns != n || n == 0 ||
		(len - sizeof(head)) % sizeof(*runs) != 0)
		return false;
	runs = (const struct run *)(bytes + sizeof(head));
	/* first: the neighbours of what is copied need not be mapped for it */
	if (written)
		copy_written(pid, runs, n, page);
	map_read(pid, runs, n, page);
	return true;
}
