/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_SANDBOX_IMAGES_H
#define NEST_TESTS_UNIT_SANDBOX_IMAGES_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

struct nest_buf;

/*
 * CRIU's images of a process, written and read back by tests of how they are rewritten: in a directory
 * of each test's own. What is not as expected fails the test.
 */

#define IMAGES_PAGE 4096u
#define IMAGES_PATH "/where/clones/see/it"

/* The numbers of CRIU's messages, once more: a slip in the tested file's shall be seen. */
#define IMAGES_STATUS_REGULAR 0x1u
#define IMAGES_STATUS_STACK 0x2u
#define IMAGES_STATUS_HEAP 0x20u
#define IMAGES_STATUS_FILE_PRIVATE 0x40u
#define IMAGES_STATUS_ANON_SHARED 0x100u
#define IMAGES_STATUS_ANON_PRIVATE 0x200u
#define IMAGES_PRESENT 0x4u
#define IMAGES_LAZY 0x2u

/* Its place in memory, in pages; all else as CRIU writes it for private anonymous memory. */
#define IMAGES_PLAIN(first_, pages_)                                                        \
	{                                                                                   \
		.first = (first_), .pages = (pages_), .flags = MAP_PRIVATE | MAP_ANONYMOUS, \
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE                \
	}

struct images_area {
	uint64_t first, pages;
	uint64_t flags, status, madv;
	uint64_t pgoff, shmid;
	uint64_t fdflags; /* of what is read back */
	bool unknown;	  /* it has the field that no CRIU knows */
};

#define IMAGES_RUN(first_, pages_, flags_)                              \
	{                                                               \
		.first = (first_), .pages = (pages_), .flags = (flags_) \
	}

struct images_run {
	uint64_t first, pages, flags;
	bool in_parent, compat;
};

/* The directory, while a test runs. */
extern int images_fd;

/* Makes the directory, images_fd; a fixture of a test case. */
void images_enter(void);

/* Removes it. */
void images_leave(void);

/* Appends a number to a message. */
void images_put(struct nest_buf *out, uint32_t number, uint64_t value);

/* Appends @entry, which it frees, as an entry of the image @out. */
void images_put_entry(struct nest_buf *out, struct nest_buf *entry);

/* Writes all images of one process, whose pid is 1001 and whose files go up to number 17. */
void images_write_process(
	const struct images_area *areas, size_t n, const struct images_run *runs, size_t nruns);

/* Writes mm-@pid.img. */
void images_write_mm(int pid, const struct images_area *areas, size_t n);

/* Writes pagemap-@pid.img and pages-@id.img: all pages that the runs say are present. */
void images_write_pages(int pid, int id, const struct images_run *runs, size_t n);

/* Writes files.img, of two files, whose largest number is @top. */
void images_write_files(uint64_t top);

/* What page @number holds. */
void images_fill_page(uint64_t *page, uint64_t number);

/* Rewrites them for IMAGES_PATH, without a parent. */
void images_rewrite(void);

/* That fails with @code, and the message has @text in it. */
void images_refuse(int code, const char *text);

/* The areas of process @pid, at most @cap; what else the entry has must be there still. */
size_t images_read_mm(int pid, struct images_area *ret, size_t cap);

/* The runs of pages of process @pid, at most @cap. */
size_t images_read_runs(int pid, struct images_run *ret, size_t cap);

/* The page at offset @at of file @name must be page @number of the process. */
void images_check_page(const char *name, uint64_t at, uint64_t number);

/* Bytes of file @name. */
uint64_t images_size_of(const char *name);

/* What files.img says of the memory file: its last id, and that it is where clones see it. */
uint64_t images_read_memory_file(uint64_t *ret_size);

/* @is must be what @was has become in the memory file, number @id, at @offset. */
void images_check_taken(
	const struct images_area *was, const struct images_area *is, uint64_t offset, uint64_t id);

/* @is must be what @was is. */
void images_check_left(const struct images_area *was, const struct images_area *is);

/* @run must be that. */
void images_check_run(const struct images_run *run, uint64_t first, uint64_t pages, uint64_t flags);

#endif
