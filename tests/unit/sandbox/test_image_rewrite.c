/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "tests/unit/suite.h"

#define PAGE 4096u
#define PATH "/where/clones/see/it"

/* The numbers of CRIU's messages, once more: a slip in the tested file's shall be seen. */
#define MM_BRK 4
#define MM_VMA 14
#define VMA_FIELDS 10
#define STATUS_REGULAR 0x1u
#define STATUS_STACK 0x2u
#define STATUS_HEAP 0x20u
#define STATUS_FILE_PRIVATE 0x40u
#define STATUS_ANON_SHARED 0x100u
#define STATUS_ANON_PRIVATE 0x200u
#define PRESENT 0x4u
#define LAZY 0x2u

/* Its place in memory, in pages; all else as CRIU writes it for private anonymous memory. */
#define PLAIN(first_, pages_)                                                               \
	{                                                                                   \
		.first = (first_), .pages = (pages_), .flags = MAP_PRIVATE | MAP_ANONYMOUS, \
		.status = STATUS_REGULAR | STATUS_ANON_PRIVATE                              \
	}

struct area {
	uint64_t first, pages;
	uint64_t flags, status, madv;
	uint64_t pgoff, shmid;
	uint64_t fdflags; /* of what is read back */
	bool unknown;	  /* it has the field that no CRIU knows */
};

#define RUN(first_, pages_, flags_)                                     \
	{                                                               \
		.first = (first_), .pages = (pages_), .flags = (flags_) \
	}
#define APART(flags_, status_)                                                     \
	{                                                                          \
		.first = 0x200, .pages = 2, .flags = (flags_), .status = (status_) \
	}

struct run {
	uint64_t first, pages, flags;
	bool in_parent, compat;
};

static char dir[64];
static int images = -1;

static void enter(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test-image-rewrite-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	images = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(images, 0);
}

static void leave(void)
{
	close(images);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* ---- what CRIU has written ---- */

static void write_file(const char *name, const struct nest_buf *bytes)
{
	int fd = openat(images, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, nest_buf_bytes(bytes), bytes->len), (ssize_t)bytes->len);
	close(fd);
}

static void put(struct nest_buf *out, uint32_t number, uint64_t value)
{
	ck_assert_int_eq(nest_wire_put_varint(out, number, value), 0);
}

static void put_entry(struct nest_buf *out, struct nest_buf *entry)
{
	ck_assert_int_eq(nest_criu_image_put_buf(out, entry), 0);
	nest_buf_done(entry);
}

static void put_area(struct nest_buf *mm, const struct area *area)
{
	struct nest_buf vma = NEST_BUF_INIT;

	put(&vma, 1, area->first * PAGE);
	put(&vma, 2, (area->first + area->pages) * PAGE);
	put(&vma, 3, area->pgoff);
	put(&vma, 4, area->shmid);
	put(&vma, 5, PROT_READ | PROT_WRITE);
	put(&vma, 6, area->flags);
	put(&vma, 7, area->status);
	put(&vma, 8, 1); /* -1 */
	if (area->madv)
		put(&vma, 9, area->madv);
	put(&vma, 99, 7);
	ck_assert_int_eq(nest_wire_put_bytes(mm, MM_VMA, nest_buf_bytes(&vma), vma.len), 0);
	nest_buf_done(&vma);
}

static void write_mm(int pid, const struct area *areas, size_t n)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf mm = NEST_BUF_INIT;
	char name[32];

	put(&mm, MM_BRK, 0x1234);
	for (size_t i = 0; i < n; i++)
		put_area(&mm, &areas[i]);
	put(&mm, 98, 5); /* what comes after the areas stays there */
	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_MM), 0);
	put_entry(&out, &mm);
	snprintf(name, sizeof(name), "mm-%d.img", pid);
	write_file(name, &out);
	nest_buf_done(&out);
}

static void put_run(struct nest_buf *out, const struct run *run)
{
	struct nest_buf entry = NEST_BUF_INIT;

	put(&entry, 1, run->first * PAGE);
	put(&entry, 2, run->compat ? run->pages : 0);
	if (run->in_parent)
		put(&entry, 3, 1);
	put(&entry, 4, run->flags);
	if (!run->compat)
		put(&entry, 5, run->pages);
	put_entry(out, &entry);
}

/* The first word of a page says which it is, so that it is known wherever it goes. */
static void fill_page(uint64_t *page, uint64_t number)
{
	for (size_t i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = number * 1000000 + i;
}

static void write_pages(int pid, int id, const struct run *runs, size_t n)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf head = NEST_BUF_INIT;
	struct nest_buf pages = NEST_BUF_INIT;
	char name[32];

	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_PAGEMAP), 0);
	put(&head, 1, (uint64_t)id);
	put_entry(&out, &head);
	for (size_t i = 0; i < n; i++) {
		put_run(&out, &runs[i]);
		for (uint64_t page = 0; (runs[i].flags & PRESENT) && page < runs[i].pages; page++) {
			uint64_t words[PAGE / sizeof(uint64_t)];

			fill_page(words, runs[i].first + page);
			ck_assert_int_eq(nest_buf_append(&pages, words, PAGE), 0);
		}
	}
	snprintf(name, sizeof(name), "pagemap-%d.img", pid);
	write_file(name, &out);
	snprintf(name, sizeof(name), "pages-%d.img", id);
	write_file(name, &pages);
	nest_buf_done(&out);
	nest_buf_done(&pages);
}

static void write_files(uint64_t top)
{
	struct nest_buf out = NEST_BUF_INIT;

	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_FILES), 0);
	for (uint64_t i = 0; i < 2; i++) {
		struct nest_buf entry = NEST_BUF_INIT;

		put(&entry, 1, 1);
		put(&entry, 2, i ? 3 : top);
		put_entry(&out, &entry);
	}
	write_file("files.img", &out);
	nest_buf_done(&out);
}

static void write_process(const struct area *areas, size_t n, const struct run *runs, size_t nruns)
{
	write_mm(1001, areas, n);
	write_pages(1001, 1, runs, nruns);
	write_files(17);
}

/* ---- what became of it ---- */

static void rewrite(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(
		nest_image_rewrite_map(images, PATH, -1, &err) == 0, "%s", nest_err_text(&err));
}

static void refuse(int code, const char *text)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_image_rewrite_map(images, PATH, -1, &err), code);
	ck_assert_msg(strstr(nest_err_text(&err), text), "%s", nest_err_text(&err));
}

static struct area read_area(struct nest_wire in)
{
	struct area area = { .first = 0 };
	uint64_t *const fields[VMA_FIELDS + 1] = { [3] = &area.pgoff,
		[4] = &area.shmid,
		[6] = &area.flags,
		[7] = &area.status,
		[9] = &area.madv,
		[10] = &area.fdflags };
	struct nest_wire_field field;

	while (nest_wire_next(&in, &field) > 0) {
		if (field.number == 1)
			area.first = field.value / PAGE;
		else if (field.number == 2)
			area.pages = field.value / PAGE - area.first;
		else if (field.number == 5)
			ck_assert_uint_eq(field.value, PROT_READ | PROT_WRITE);
		else if (field.number == 8)
			ck_assert_uint_eq(field.value, 1);
		else if (field.number <= VMA_FIELDS)
			*fields[field.number] = field.value;
		else
			area.unknown = field.number == 99 && field.value == 7;
	}
	return area;
}

/* Reads the areas of process @pid back; what else its entry has must be there still. */
static size_t read_mm(int pid, struct area *ret, size_t cap)
{
	nest_autocriuimage struct nest_criu_image mm = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field;
	struct nest_wire entry;
	bool first = false, last = false;
	size_t n = 0;
	char name[32];

	snprintf(name, sizeof(name), "mm-%d.img", pid);
	ck_assert_int_eq(nest_criu_image_open(images, name, NEST_CRIU_IMAGE_MM, &mm, NULL), 0);
	ck_assert_int_eq(nest_criu_image_next(&mm, &entry), 1);
	while (nest_wire_next(&entry, &field) > 0) {
		first |= field.number == MM_BRK && field.value == 0x1234;
		last |= field.number == 98 && field.value == 5;
		if (field.number != MM_VMA)
			continue;
		ck_assert(n < cap && first && !last);
		ret[n++] = read_area(field.in);
	}
	ck_assert(first && last);
	ck_assert_int_eq(nest_criu_image_next(&mm, &entry), 0);
	return n;
}

static size_t read_runs(int pid, struct run *ret, size_t cap)
{
	nest_autocriuimage struct nest_criu_image map = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field;
	struct nest_wire entry;
	size_t n = 0;
	char name[32];

	snprintf(name, sizeof(name), "pagemap-%d.img", pid);
	ck_assert_int_eq(
		nest_criu_image_open(images, name, NEST_CRIU_IMAGE_PAGEMAP, &map, NULL), 0);
	ck_assert_int_eq(nest_criu_image_next(&map, &entry), 1);
	while (nest_criu_image_next(&map, &entry) > 0) {
		ck_assert_uint_lt(n, cap);
		ret[n] = (struct run){ .first = 0 };
		while (nest_wire_next(&entry, &field) > 0) {
			if (field.number == 1)
				ret[n].first = field.value / PAGE;
			else if (field.number == 4)
				ret[n].flags = field.value;
			else if (field.number == 5)
				ret[n].pages = field.value;
		}
		n++;
	}
	return n;
}

/* The page at offset @at of file @name must be page @number of the process. */
static void check_page(const char *name, uint64_t at, uint64_t number)
{
	uint64_t want[PAGE / sizeof(uint64_t)], have[PAGE / sizeof(uint64_t)];
	int fd = openat(images, name, O_RDONLY | O_CLOEXEC);

	fill_page(want, number);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, have, PAGE, (off_t)at), PAGE);
	close(fd);
	ck_assert_msg(memcmp(want, have, PAGE) == 0, "%s at %#llx: not page %#llx but %#llx", name,
		(unsigned long long)at, (unsigned long long)number,
		(unsigned long long)have[0] / 1000000);
}

static uint64_t size_of(const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(images, name, &st, 0), 0);
	return (uint64_t)st.st_size;
}

/* What files.img says of the memory file: its id, and that it is where clones see it. */
static uint64_t read_memory_file(uint64_t *ret_size)
{
	nest_autocriuimage struct nest_criu_image files = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field, reg;
	struct nest_wire entry;
	uint64_t id = 0, found = 0;

	ck_assert_int_eq(
		nest_criu_image_open(images, "files.img", NEST_CRIU_IMAGE_FILES, &files, NULL), 0);
	while (nest_criu_image_next(&files, &entry) > 0) {
		while (nest_wire_next(&entry, &field) > 0) {
			if (field.number == 2)
				id = field.value;
			if (field.number != 3)
				continue;
			while (nest_wire_next(&field.in, &reg) > 0) {
				if (reg.number == 1)
					ck_assert_uint_eq(reg.value, id);
				if (reg.number == 6 && reg.in.left == strlen(PATH) &&
					memcmp(reg.in.at, PATH, strlen(PATH)) == 0)
					found = id;
				if (reg.number == 8)
					*ret_size = reg.value;
			}
		}
	}
	return found;
}

static void check_taken(const struct area *was, const struct area *is, uint64_t offset, uint64_t id)
{
	ck_assert_uint_eq(is->first, was->first);
	ck_assert_uint_eq(is->pages, was->pages);
	ck_assert_uint_eq(is->flags, was->flags & ~(uint64_t)MAP_ANONYMOUS);
	ck_assert_uint_eq(
		is->status, (was->status & ~(uint64_t)STATUS_ANON_PRIVATE) | STATUS_FILE_PRIVATE);
	ck_assert_uint_eq(is->madv, was->madv);
	ck_assert_uint_eq(is->pgoff, offset);
	ck_assert_uint_eq(is->shmid, id);
	ck_assert_uint_eq(is->fdflags, O_RDONLY);
	ck_assert(is->unknown);
}

static void check_left(const struct area *was, const struct area *is)
{
	ck_assert_uint_eq(is->first, was->first);
	ck_assert_uint_eq(is->pages, was->pages);
	ck_assert_uint_eq(is->flags, was->flags);
	ck_assert_uint_eq(is->status, was->status);
	ck_assert_uint_eq(is->madv, was->madv);
	ck_assert_uint_eq(is->pgoff, was->pgoff);
	ck_assert_uint_eq(is->shmid, was->shmid);
	ck_assert_uint_eq(is->fdflags, 0);
	ck_assert(is->unknown);
}

static void check_run(const struct run *run, uint64_t first, uint64_t pages, uint64_t flags)
{
	ck_assert_uint_eq(run->first, first);
	ck_assert_uint_eq(run->pages, pages);
	ck_assert_uint_eq(run->flags, flags);
}

/* ---- tests ---- */

START_TEST(private_memory_becomes_mappings_of_one_file)
{
	const struct area areas[] = { PLAIN(0x100, 4), PLAIN(0x200, 2),
		{ .first = 0x300,
			.pages = 3,
			.flags = MAP_PRIVATE | MAP_ANONYMOUS,
			.status = STATUS_REGULAR | STATUS_ANON_PRIVATE | STATUS_HEAP,
			.madv = 1u << MADV_DONTFORK } };
	const struct run runs[] = { RUN(0x101, 2, PRESENT),
		{ .first = 0x200, .pages = 1, .flags = PRESENT, .compat = true },
		RUN(0x302, 1, PRESENT | LAZY) };
	struct area after[4];
	struct run left[4];
	uint64_t id, size = 0;

	write_process(areas, 3, runs, 3);
	rewrite();
	id = read_memory_file(&size);
	ck_assert_uint_eq(id, 18);
	ck_assert_uint_eq(size_of("memory"), 9 * PAGE);
	/* as large as it is going to be */
	ck_assert_uint_eq(size, 9 * PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(read_mm(1001, after, 4), 3);
	check_taken(&areas[0], &after[0], 0, id);
	check_taken(&areas[1], &after[1], 4 * PAGE, id);
	check_taken(&areas[2], &after[2], 6 * PAGE, id);
	ck_assert_uint_eq(read_runs(1001, left, 4), 0);
	ck_assert_uint_eq(size_of("pages-1.img"), 0);
	check_page("memory", 1 * PAGE, 0x101);
	check_page("memory", 2 * PAGE, 0x102);
	check_page("memory", 4 * PAGE, 0x200);
	check_page("memory", 8 * PAGE, 0x302);
}
END_TEST

/* Each is what the kernel treats apart, or what a file can't stand for. */
static const struct area apart[] = {
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, STATUS_REGULAR | STATUS_ANON_PRIVATE),
	APART(MAP_PRIVATE | MAP_ANONYMOUS, STATUS_REGULAR | STATUS_ANON_PRIVATE | STATUS_STACK),
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, STATUS_REGULAR | STATUS_ANON_PRIVATE),
	APART(MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, STATUS_REGULAR | STATUS_ANON_PRIVATE),
	{ .first = 0x200,
		.pages = 2,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS,
		.status = STATUS_REGULAR | STATUS_ANON_PRIVATE,
		.madv = 1u << MADV_WIPEONFORK },
	APART(MAP_SHARED | MAP_ANONYMOUS, STATUS_REGULAR | STATUS_ANON_SHARED),
	/* a file's, of which a page was not written */
	{ .first = 0x200,
		.pages = 3,
		.flags = MAP_PRIVATE,
		.status = STATUS_REGULAR | STATUS_FILE_PRIVATE },
	APART(MAP_PRIVATE | MAP_ANONYMOUS, STATUS_ANON_PRIVATE), /* the vdso */
};

START_TEST(memory_that_the_kernel_treats_apart_is_left)
{
	const struct area areas[] = { PLAIN(0x100, 1), apart[_i], PLAIN(0x300, 1) };
	const struct run runs[] = { RUN(0x100, 1, PRESENT), RUN(0x200, 2, PRESENT | LAZY),
		RUN(0x300, 1, PRESENT) };
	struct area after[4];
	struct run left[4];
	uint64_t size, id;

	write_process(areas, 3, runs, 3);
	rewrite();
	id = read_memory_file(&size);
	ck_assert_uint_eq(read_mm(1001, after, 4), 3);
	check_taken(&areas[0], &after[0], 0, id);
	check_left(&areas[1], &after[1]);
	check_taken(&areas[2], &after[2], PAGE, id);
	ck_assert_uint_eq(read_runs(1001, left, 4), 1);
	check_run(&left[0], 0x200, 2, PRESENT | LAZY);
	ck_assert_uint_eq(size_of("pages-1.img"), 2 * PAGE);
	check_page("pages-1.img", 0, 0x200);
	check_page("pages-1.img", PAGE, 0x201);
	check_page("memory", PAGE, 0x300);
}
END_TEST

START_TEST(a_file_mapping_that_was_written_all_over_is_taken)
{
	const struct area area = { .first = 0x200,
		.pages = 2,
		.flags = MAP_PRIVATE,
		.status = STATUS_REGULAR | STATUS_FILE_PRIVATE,
		.pgoff = 7 * PAGE,
		.shmid = 3 };
	const struct run run = RUN(0x200, 2, PRESENT);
	struct area after[2];
	struct run left[1];
	uint64_t id, size;

	write_process(&area, 1, &run, 1);
	rewrite();
	id = read_memory_file(&size);
	ck_assert_uint_eq(read_mm(1001, after, 2), 1);
	check_taken(&area, &after[0], 0, id);
	ck_assert_uint_eq(read_runs(1001, left, 1), 0);
	check_page("memory", PAGE, 0x201);
}
END_TEST

/* ---- upon a parent ---- */

#define PARENT_ID 5
#define PARENT_PAGES 128
#define PARENT_NUMBER 0x7000 /* of its first page */
#define PARENT_PATH "/parent-snapshot/memory"

/* Adds to files.img a file of that path. */
static void name_parent(const char *path)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf entry = NEST_BUF_INIT;
	struct nest_buf reg = NEST_BUF_INIT;
	int fd = openat(images, "files.img", O_WRONLY | O_APPEND | O_CLOEXEC);

	put(&reg, 1, PARENT_ID);
	ck_assert_int_eq(nest_wire_put_bytes(&reg, 6, path, strlen(path)), 0);
	put(&entry, 1, 1);
	put(&entry, 2, PARENT_ID);
	ck_assert_int_eq(nest_wire_put_bytes(&entry, 3, nest_buf_bytes(&reg), reg.len), 0);
	put_entry(&out, &entry);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, nest_buf_bytes(&out), out.len), (ssize_t)out.len);
	close(fd);
	nest_buf_done(&out);
	nest_buf_done(&reg);
}

static int open_parent(void)
{
	int fd = openat(images, "../parent", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	unlinkat(images, "../parent", 0);
	for (uint64_t i = 0; i < PARENT_PAGES; i++) {
		uint64_t words[PAGE / sizeof(uint64_t)];

		fill_page(words, PARENT_NUMBER + i);
		ck_assert_int_eq(write(fd, words, PAGE), PAGE);
	}
	return fd;
}

static const struct area upon = { .first = 0x100,
	.pages = 100,
	.flags = MAP_PRIVATE,
	.status = STATUS_REGULAR | STATUS_FILE_PRIVATE,
	.pgoff = 10 * PAGE,
	.shmid = PARENT_ID };

static void check_part(const struct area *is, uint64_t first, uint64_t pages, uint64_t pgoff)
{
	struct area want = upon;

	want.first = first;
	want.pages = pages;
	want.pgoff = pgoff * PAGE;
	check_left(&want, is);
}

START_TEST(of_the_parents_memory_what_was_written_is_divided_off)
{
	/* two near each other, two pages that don't pay, and the last ones */
	const struct run runs[] = { RUN(0x110, 8, PRESENT), RUN(0x11a, 2, PRESENT),
		RUN(0x140, 2, PRESENT), RUN(0x160, 4, PRESENT) };
	struct nest_err err = NEST_ERR_INIT;
	struct area part = upon;
	struct area after[6];
	struct run left[2];
	int parent = open_parent();
	uint64_t id, size;

	write_process(&upon, 1, runs, 4);
	name_parent(PARENT_PATH);
	ck_assert_msg(
		nest_image_rewrite_map(images, PATH, parent, &err) == 0, "%s", nest_err_text(&err));
	id = read_memory_file(&size);
	ck_assert_uint_eq(size, 16 * PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(read_mm(1001, after, 6), 4);
	check_part(&after[0], 0x100, 0x10, 10);
	part.first = 0x110;
	part.pages = 12;
	check_taken(&part, &after[1], 0, id);
	check_part(&after[2], 0x11c, 0x44, 10 + 0x1c);
	part.first = 0x160;
	part.pages = 4;
	check_taken(&part, &after[3], 12 * PAGE, id);
	ck_assert_uint_eq(read_runs(1001, left, 2), 1);
	check_run(&left[0], 0x140, 2, PRESENT);
	check_page("memory", 0, 0x110);
	check_page("memory", 7 * PAGE, 0x117);
	/* what lies between is the parent's */
	check_page("memory", 8 * PAGE, PARENT_NUMBER + 10 + 0x18);
	check_page("memory", 9 * PAGE, PARENT_NUMBER + 10 + 0x19);
	check_page("memory", 10 * PAGE, 0x11a);
	check_page("memory", 15 * PAGE, 0x163);
	close(parent);
}
END_TEST

START_TEST(the_parents_memory_is_known_by_its_path)
{
	const struct run run = RUN(0x110, 8, PRESENT);
	struct nest_err err = NEST_ERR_INIT;
	struct area after[2];
	struct run left[2];
	int parent = open_parent();

	write_process(&upon, 1, &run, 1);
	name_parent(PARENT_PATH "-not");
	ck_assert_int_eq(nest_image_rewrite_map(images, PATH, parent, &err), 0);
	ck_assert_uint_eq(read_mm(1001, after, 2), 1);
	check_left(&upon, &after[0]);
	ck_assert_uint_eq(read_runs(1001, left, 2), 1);
	check_run(&left[0], 0x110, 8, PRESENT);
	close(parent);
}
END_TEST

/* As memory has them that has grown beyond it. */
START_TEST(behind_the_parents_pages_are_zeros)
{
	const struct run runs[] = { RUN(0x110, 8, PRESENT), RUN(0x11a, 2, PRESENT) };
	static const char zeros[2 * PAGE];
	struct nest_err err = NEST_ERR_INIT;
	char gap[2 * PAGE];
	int parent = open_parent();
	int fd;

	write_process(&upon, 1, runs, 2);
	name_parent(PARENT_PATH);
	ck_assert_int_eq(ftruncate(parent, (10 + 0x18) * PAGE), 0);
	ck_assert_int_eq(nest_image_rewrite_map(images, PATH, parent, &err), 0);
	check_page("memory", 7 * PAGE, 0x117);
	check_page("memory", 10 * PAGE, 0x11a);
	fd = openat(images, "memory", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, gap, sizeof(gap), 8 * PAGE), sizeof(gap));
	ck_assert_mem_eq(gap, zeros, sizeof(gap));
	close(fd);
	close(parent);
}
END_TEST

START_TEST(a_run_over_several_areas_is_divided)
{
	const struct area areas[] = { PLAIN(0x100, 2),
		{ .first = 0x102,
			.pages = 2,
			.flags = MAP_SHARED | MAP_ANONYMOUS,
			.status = STATUS_REGULAR | STATUS_ANON_SHARED },
		PLAIN(0x104, 80),
		{ .first = 0x154,
			.pages = 2,
			.flags = MAP_PRIVATE,
			.status = STATUS_REGULAR | STATUS_FILE_PRIVATE } };
	const struct run runs[] = { RUN(0x101, 84, PRESENT) };
	struct area after[4];
	struct run left[4];

	write_process(areas, 4, runs, 1);
	rewrite();
	ck_assert_uint_eq(read_mm(1001, after, 4), 4);
	ck_assert_uint_eq(after[2].pgoff, 2 * PAGE);
	ck_assert_uint_eq(read_runs(1001, left, 4), 2);
	check_run(&left[0], 0x102, 2, PRESENT);
	check_run(&left[1], 0x154, 1, PRESENT);
	ck_assert_uint_eq(size_of("pages-1.img"), 3 * PAGE);
	check_page("memory", PAGE, 0x101);
	for (uint64_t i = 0; i < 80; i++)
		check_page("memory", (2 + i) * PAGE, 0x104 + i);
	check_page("pages-1.img", 0, 0x102);
	check_page("pages-1.img", 2 * PAGE, 0x154);
}
END_TEST

START_TEST(what_was_never_touched_stays_anonymous)
{
	const struct area areas[] = { PLAIN(0x100, 4), PLAIN(0x200, 4) };
	const struct run runs[] = { RUN(0x100, 4, 0), RUN(0x200, 1, PRESENT) };
	struct area after[2];
	struct run left[2];
	uint64_t size;

	write_process(areas, 2, runs, 2);
	rewrite();
	ck_assert_uint_eq(read_mm(1001, after, 2), 2);
	check_left(&areas[0], &after[0]);
	check_taken(&areas[1], &after[1], 0, read_memory_file(&size));
	ck_assert_uint_eq(read_runs(1001, left, 2), 1);
	check_run(&left[0], 0x100, 4, 0);
}
END_TEST

START_TEST(without_memory_to_take_no_file_is_named)
{
	const struct area areas[] = { apart[5] };
	const struct run runs[] = { RUN(0x200, 2, PRESENT) };
	struct area after[1];
	uint64_t size, files;

	write_process(areas, 1, runs, 1);
	files = size_of("files.img");
	rewrite();
	ck_assert_uint_eq(size_of("files.img"), files);
	ck_assert_uint_eq(read_memory_file(&size), 0);
	ck_assert_uint_eq(read_mm(1001, after, 1), 1);
	check_left(&areas[0], &after[0]);
	check_page("pages-1.img", PAGE, 0x201);
}
END_TEST

START_TEST(all_processes_share_the_file)
{
	const struct area areas[] = { PLAIN(0x100, 2) };
	const struct run runs[] = { RUN(0x100, 2, PRESENT) };
	struct area first, second;
	uint64_t size, id;

	write_process(areas, 1, runs, 1);
	write_mm(1002, areas, 1);
	write_pages(1002, 2, runs, 1);
	rewrite();
	id = read_memory_file(&size);
	ck_assert_uint_eq(size, 4 * PAGE + NEST_IMAGE_REWRITE_ROOM);
	ck_assert_uint_eq(read_mm(1001, &first, 1) + read_mm(1002, &second, 1), 2);
	ck_assert_uint_eq(first.shmid, id);
	ck_assert_uint_eq(second.shmid, id);
	ck_assert_uint_eq(first.pgoff + second.pgoff, 2 * PAGE);
	check_page("memory", first.pgoff, 0x100);
	check_page("memory", second.pgoff + PAGE, 0x101);
}
END_TEST

/* 4 GiB is the most of one area, and from 64 GiB on nothing more is taken. */
START_TEST(reservations_are_left_and_the_file_is_bounded)
{
	const uint64_t most = 1u << 20;
	struct area areas[20], after[20];
	struct run runs[20], left[20];
	struct stat st;

	for (uint64_t i = 0; i < 20; i++) {
		areas[i] = (struct area)PLAIN((i + 1) * 2 * most, most + (i == 0));
		runs[i] = (struct run)RUN(areas[i].first, 1, PRESENT);
	}
	write_process(areas, 20, runs, 20);
	rewrite();
	ck_assert_uint_eq(read_mm(1001, after, 20), 20);
	check_left(&areas[0], &after[0]);
	for (uint64_t i = 1; i < 17; i++)
		ck_assert_uint_eq(after[i].pgoff, (i - 1) * most * PAGE);
	check_page("memory", 15 * most * PAGE, areas[16].first);
	check_left(&areas[19], &after[19]);
	ck_assert_uint_ge(read_runs(1001, left, 20), 3);
	check_run(&left[0], areas[0].first, 1, PRESENT);
	/* and it is holes but for what was written */
	ck_assert_int_eq(fstatat(images, "memory", &st, 0), 0);
	ck_assert_uint_le((uint64_t)st.st_blocks * 512, 1u << 20);
}
END_TEST

START_TEST(a_second_time_there_is_nothing_left_to_take)
{
	const struct area areas[] = { PLAIN(0x100, 2), apart[5] };
	const struct run runs[] = { RUN(0x100, 2, PRESENT), RUN(0x200, 1, PRESENT) };
	struct area before[2], after[2];

	write_process(areas, 2, runs, 2);
	rewrite();
	read_mm(1001, before, 2);
	/* the memory file is never replaced: clones map it */
	refuse(-EEXIST, "make the memory file");
	ck_assert_int_eq(unlinkat(images, "memory", 0), 0);
	rewrite();
	read_mm(1001, after, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(after[i].status, before[i].status);
		ck_assert_uint_eq(after[i].flags, before[i].flags);
		ck_assert_uint_eq(after[i].pgoff, before[i].pgoff);
		ck_assert_uint_eq(after[i].shmid, before[i].shmid);
	}
}
END_TEST

/* ---- images that are not as they should be ---- */

static const struct area fine[] = { PLAIN(0x100, 4) };
static const struct run fine_runs[] = { RUN(0x100, 4, PRESENT) };

static const struct {
	struct area areas[2];
} bad_areas[] = {
	{ { PLAIN(0x100, 0), PLAIN(0x200, 1) } },
	{ { PLAIN(0x100, 4), PLAIN(0x103, 4) } },
	{ { PLAIN(0x200, 4), PLAIN(0x100, 4) } },
	{ { PLAIN(0x100, (uint64_t)-4), PLAIN(0x200, 1) } },
};

START_TEST(areas_that_can_not_be_are_refused)
{
	write_process(bad_areas[_i].areas, 2, fine_runs, 1);
	refuse(-EBADMSG, "image 'mm-1001.img' is not as CRIU 4 writes it");
}
END_TEST

static const struct run bad_runs[] = {
	RUN(0x0ff, 2, PRESENT), /* begins where nothing is */
	RUN(0x103, 2, PRESENT), /* ends there */
	{ .first = 0x100,
		.pages = 1,
		.flags = PRESENT,
		.in_parent = true }, /* is in an image that CRIU would look for */
	RUN(0x100, UINT64_C(1) << 32, PRESENT),
	RUN(UINT64_MAX / PAGE, 2, PRESENT),
};

START_TEST(runs_that_can_not_be_are_refused)
{
	write_mm(1001, fine, 1);
	write_files(17);
	/* the pages of the huge ones would not fit anywhere: none are there */
	if (bad_runs[_i].pages > 4) {
		struct run none = bad_runs[_i];

		none.flags = 0;
		write_pages(1001, 1, &none, 1);
	} else {
		write_pages(1001, 1, &bad_runs[_i], 1);
	}
	refuse(-EBADMSG, "divide the pages of 'pagemap-1001.img'");
}
END_TEST

START_TEST(pages_that_are_missing_are_noticed)
{
	write_process(fine, 1, fine_runs, 1);
	ck_assert_int_eq(truncate(strcat(dir, "/pages-1.img"), 2 * PAGE), 0);
	*strrchr(dir, '/') = '\0';
	refuse(-EBADMSG, "divide the pages of 'pagemap-1001.img'");
}
END_TEST

static const char *const needed[] = { "files.img", "pagemap-1001.img", "pages-1.img" };

START_TEST(an_image_that_is_missing_is_named)
{
	write_process(fine, 1, fine_runs, 1);
	ck_assert_int_eq(unlinkat(images, needed[_i], 0), 0);
	refuse(-ENOENT, needed[_i]);
}
END_TEST

static const char *const parsed[] = { "files.img", "mm-1001.img", "pagemap-1001.img" };

START_TEST(an_image_cut_anywhere_is_refused_or_whole)
{
	for (off_t cut = 1;; cut++) {
		struct nest_err err = NEST_ERR_INIT;
		off_t size;
		int fd, r;

		write_process(fine, 1, fine_runs, 1);
		unlinkat(images, "memory", 0);
		unlinkat(images, "pages-1.img.new", 0);
		size = (off_t)size_of(parsed[_i]);
		if (cut > size)
			return;
		fd = openat(images, parsed[_i], O_WRONLY | O_CLOEXEC);
		ck_assert_int_eq(ftruncate(fd, size - cut), 0);
		close(fd);
		r = nest_image_rewrite_map(images, PATH, -1, &err);
		/* the end of an entry may be the end of the file: then there are fewer of them */
		ck_assert_msg(r == 0 || (r == -EBADMSG && err.text[0]), "%d: %s", r, err.text);
		ck_assert(r < 0 || _i != 1);
	}
}
END_TEST

START_TEST(another_kind_of_image_is_refused)
{
	write_process(fine, 1, fine_runs, 1);
	ck_assert_int_eq(renameat(images, "files.img", images, "mm-1001.img"), 0);
	write_files(17);
	refuse(-EBADMSG, "image 'mm-1001.img' is not as CRIU 4 writes it");
}
END_TEST

START_TEST(without_a_free_number_there_is_no_file)
{
	write_process(fine, 1, fine_runs, 1);
	write_files(UINT32_MAX);
	refuse(-EBADMSG, "image 'files.img' is not as CRIU 4 writes it");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sandbox/image_rewrite");
	TCase *tcase = tcase_create("sandbox/image_rewrite");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, NEST_SUITE_TIMEOUT_S);
	tcase_add_checked_fixture(tcase, enter, leave);
	tcase_add_test(tcase, private_memory_becomes_mappings_of_one_file);
	tcase_add_loop_test(tcase, memory_that_the_kernel_treats_apart_is_left, 0,
		sizeof(apart) / sizeof(*apart));
	tcase_add_test(tcase, a_file_mapping_that_was_written_all_over_is_taken);
	tcase_add_test(tcase, of_the_parents_memory_what_was_written_is_divided_off);
	tcase_add_test(tcase, the_parents_memory_is_known_by_its_path);
	tcase_add_test(tcase, behind_the_parents_pages_are_zeros);
	tcase_add_test(tcase, a_run_over_several_areas_is_divided);
	tcase_add_test(tcase, what_was_never_touched_stays_anonymous);
	tcase_add_test(tcase, without_memory_to_take_no_file_is_named);
	tcase_add_test(tcase, all_processes_share_the_file);
	tcase_add_test(tcase, reservations_are_left_and_the_file_is_bounded);
	tcase_add_test(tcase, a_second_time_there_is_nothing_left_to_take);
	tcase_add_loop_test(tcase, areas_that_can_not_be_are_refused, 0,
		sizeof(bad_areas) / sizeof(*bad_areas));
	tcase_add_loop_test(
		tcase, runs_that_can_not_be_are_refused, 0, sizeof(bad_runs) / sizeof(*bad_runs));
	tcase_add_test(tcase, pages_that_are_missing_are_noticed);
	tcase_add_loop_test(
		tcase, an_image_that_is_missing_is_named, 0, sizeof(needed) / sizeof(*needed));
	tcase_add_loop_test(tcase, an_image_cut_anywhere_is_refused_or_whole, 0,
		sizeof(parsed) / sizeof(*parsed));
	tcase_add_test(tcase, another_kind_of_image_is_refused);
	tcase_add_test(tcase, without_a_free_number_there_is_no_file);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
