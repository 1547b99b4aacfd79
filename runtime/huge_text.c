/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/huge_text.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"

#define HUGE_PAGE (2u << 20)
#define SEGMENTS_MAX 64

/* Whole huge pages of a file's code, mapped where the kernel can map them as such. */
struct text {
	off_t offset;
	size_t bytes;
	char *room; /* that was reserved for it, */
	size_t room_bytes;
	char *at; /* and where in that it lies */
};

/* The huge pages that hold some of @segment: what lies beside it in the file is of use as well. */
static void cover(const ElfW(Phdr) * segment, uint64_t file_size, struct text *ret)
{
	uint64_t from = segment->p_offset / HUGE_PAGE * HUGE_PAGE;
	uint64_t end = file_size;

	if (from >= file_size)
		return;
	if (segment->p_filesz < file_size - from)
		end = segment->p_offset + segment->p_filesz + HUGE_PAGE - 1;
	if (end > file_size)
		end = file_size;
	end = end / HUGE_PAGE * HUGE_PAGE;
	if (end <= from || end - from <= ret->bytes)
		return;
	ret->offset = (off_t)from;
	ret->bytes = end - from;
}

/* The largest piece of code. 0 bytes: none is large enough. */
static int find_text(int fd, struct text *ret)
{
	ElfW(Ehdr) head;
	ElfW(Phdr) segments[SEGMENTS_MAX];
	struct stat st;
	ssize_t n = pread(fd, &head, sizeof(head), 0);

	if (n < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (n < (ssize_t)sizeof(head) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
		head.e_type != ET_EXEC || head.e_phentsize != sizeof(segments[0]) ||
		head.e_phnum > SEGMENTS_MAX)
		return 0;
	n = pread(fd, segments, head.e_phnum * sizeof(segments[0]), (off_t)head.e_phoff);
	if (n < 0)
		return -errno;
	if (n < (ssize_t)(head.e_phnum * sizeof(segments[0])))
		return 0;
	for (size_t i = 0; i < head.e_phnum; i++) {
		if (segments[i].p_type == PT_LOAD && (segments[i].p_flags & PF_X) &&
			segments[i].p_filesz >= HUGE_PAGE)
			cover(&segments[i], (uint64_t)st.st_size, ret);
	}
	return 0;
}

static int map_text(int fd, struct text *text)
{
	char *room;

	text->room_bytes = text->bytes + HUGE_PAGE;
	room = mmap(NULL, text->room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (room == MAP_FAILED)
		return -errno;
	text->room = room;
	text->at = room + (-(uintptr_t)room & (HUGE_PAGE - 1));
	if (mmap(text->at, text->bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, text->offset) ==
		MAP_FAILED)
		return -errno;
	/* what isn't in the page cache is read as huge pages; where the kernel can't, nothing is lost */
	(void)madvise(text->at, text->bytes, MADV_HUGEPAGE);
	return 0;
}

static void unmap_text(struct text *text)
{
	if (text->room)
		munmap(text->room, text->room_bytes);
	text->room = NULL;
}

/* How much of it the kernel has mapped as huge pages, of what was touched. */
static uint64_t count_huge(const struct text *text)
{
	nest_autofclose FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long long start, end, kib;
	uint64_t huge = 0;
	bool within = false;
	char line[4096 + 128];

	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			within = start >= (uintptr_t)text->at &&
				 end <= (uintptr_t)text->at + text->bytes;
		else if (within && sscanf(line, "FilePmdMapped: %llu kB", &kib) == 1)
			huge += kib << 10;
	}
	return huge;
}

/*
 * A page of each huge page: what the page cache has already is mapped as it is. The kernel is asked to
 * (since Linux 5.14), as the disk's errors would be signals else.
 */
static uint64_t touch(const struct text *text)
{
	for (size_t i = 0; i < text->bytes; i += HUGE_PAGE)
		(void)madvise(text->at + i, 1, MADV_POPULATE_READ);
	return count_huge(text);
}

int nest_huge_text_load(
	const char *program, uint64_t *ret_bytes, uint64_t *ret_huge, struct nest_err *err)
{
	nest_autoclose int fd = open(program, O_RDONLY | O_CLOEXEC);
	struct text text = { .offset = 0 };
	int r;

	*ret_bytes = 0;
	*ret_huge = 0;
	if (fd < 0 && errno == ENOENT)
		return 0;
	r = fd < 0 ? -errno : find_text(fd, &text);
	if (r == 0 && text.bytes > 0)
		r = map_text(fd, &text);
	if (r == 0 && text.bytes > 0) {
		*ret_bytes = text.bytes;
		*ret_huge = touch(&text);
	}
	if (r == 0 && *ret_huge < text.bytes) {
		unmap_text(&text);
		(void)posix_fadvise(fd, text.offset, (off_t)text.bytes, POSIX_FADV_DONTNEED);
		r = map_text(fd, &text);
		if (r == 0)
			*ret_huge = touch(&text);
	}
	unmap_text(&text);
	return r < 0 ? nest_err_set(err, r, "read the code of '%s'", program) : 0;
}
