/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/sandbox/images.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_rewrite.h"
#include "tests/unit/suite.h"

#define MM_BRK 4
#define MM_VMA 14
#define VMA_FIELDS 10

int images_fd = -1;
static char dir[64];

void images_enter(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test-image-rewrite-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	images_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(images_fd, 0);
}

void images_leave(void)
{
	close(images_fd);
	ck_assert_int_eq(nest_file_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* ---- what CRIU has written ---- */

static void write_file(const char *name, const struct nest_buf *bytes)
{
	int fd = openat(images_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, nest_buf_bytes(bytes), bytes->len), (ssize_t)bytes->len);
	close(fd);
}

void images_put(struct nest_buf *out, uint32_t number, uint64_t value)
{
	ck_assert_int_eq(nest_wire_put_varint(out, number, value), 0);
}

void images_put_entry(struct nest_buf *out, struct nest_buf *entry)
{
	ck_assert_int_eq(nest_criu_image_put_buf(out, entry), 0);
	nest_buf_done(entry);
}

static void put_area(struct nest_buf *mm, const struct images_area *area)
{
	struct nest_buf vma = NEST_BUF_INIT;

	images_put(&vma, 1, area->first * IMAGES_PAGE);
	images_put(&vma, 2, (area->first + area->pages) * IMAGES_PAGE);
	images_put(&vma, 3, area->pgoff);
	images_put(&vma, 4, area->shmid);
	images_put(&vma, 5, PROT_READ | PROT_WRITE);
	images_put(&vma, 6, area->flags);
	images_put(&vma, 7, area->status);
	images_put(&vma, 8, 1); /* -1 */
	if (area->madv)
		images_put(&vma, 9, area->madv);
	images_put(&vma, 99, 7);
	ck_assert_int_eq(nest_wire_put_bytes(mm, MM_VMA, nest_buf_bytes(&vma), vma.len), 0);
	nest_buf_done(&vma);
}

void images_write_mm(int pid, const struct images_area *areas, size_t n)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf mm = NEST_BUF_INIT;
	char name[32];

	images_put(&mm, MM_BRK, 0x1234);
	for (size_t i = 0; i < n; i++)
		put_area(&mm, &areas[i]);
	images_put(&mm, 98, 5); /* what comes after the areas stays there */
	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_MM), 0);
	images_put_entry(&out, &mm);
	snprintf(name, sizeof(name), "mm-%d.img", pid);
	write_file(name, &out);
	nest_buf_done(&out);
}

static void put_run(struct nest_buf *out, const struct images_run *run)
{
	struct nest_buf entry = NEST_BUF_INIT;

	images_put(&entry, 1, run->first * IMAGES_PAGE);
	images_put(&entry, 2, run->compat ? run->pages : 0);
	if (run->in_parent)
		images_put(&entry, 3, 1);
	images_put(&entry, 4, run->flags);
	if (!run->compat)
		images_put(&entry, 5, run->pages);
	images_put_entry(out, &entry);
}

/* The first word of a page says which it is, so that it is known wherever it goes. */
void images_fill_page(uint64_t *page, uint64_t number)
{
	for (size_t i = 0; i < IMAGES_PAGE / sizeof(*page); i++)
		page[i] = number * 1000000 + i;
}

void images_write_pages(int pid, int id, const struct images_run *runs, size_t n)
{
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_buf head = NEST_BUF_INIT;
	struct nest_buf pages = NEST_BUF_INIT;
	char name[32];

	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_PAGEMAP), 0);
	images_put(&head, 1, (uint64_t)id);
	images_put_entry(&out, &head);
	for (size_t i = 0; i < n; i++) {
		put_run(&out, &runs[i]);
		for (uint64_t page = 0; (runs[i].flags & IMAGES_PRESENT) && page < runs[i].pages;
			page++) {
			uint64_t words[IMAGES_PAGE / sizeof(uint64_t)];

			images_fill_page(words, runs[i].first + page);
			ck_assert_int_eq(nest_buf_append(&pages, words, IMAGES_PAGE), 0);
		}
	}
	snprintf(name, sizeof(name), "pagemap-%d.img", pid);
	write_file(name, &out);
	snprintf(name, sizeof(name), "pages-%d.img", id);
	write_file(name, &pages);
	nest_buf_done(&out);
	nest_buf_done(&pages);
}

void images_write_files(uint64_t top)
{
	struct nest_buf out = NEST_BUF_INIT;

	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_FILES), 0);
	for (uint64_t i = 0; i < 2; i++) {
		struct nest_buf entry = NEST_BUF_INIT;

		images_put(&entry, 1, 1);
		images_put(&entry, 2, i ? 3 : top);
		images_put_entry(&out, &entry);
	}
	write_file("files.img", &out);
	nest_buf_done(&out);
}

void images_write_process(
	const struct images_area *areas, size_t n, const struct images_run *runs, size_t nruns)
{
	images_write_mm(1001, areas, n);
	images_write_pages(1001, 1, runs, nruns);
	images_write_files(17);
}

/* ---- what became of it ---- */

void images_rewrite(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_image_rewrite_map(images_fd, IMAGES_PATH, -1, &err) == 0, "%s",
		nest_err_text(&err));
}

void images_refuse(int code, const char *text)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_int_eq(nest_image_rewrite_map(images_fd, IMAGES_PATH, -1, &err), code);
	ck_assert_msg(strstr(nest_err_text(&err), text), "%s", nest_err_text(&err));
}

static struct images_area read_area(struct nest_wire in)
{
	struct images_area area = { .first = 0 };
	uint64_t *const fields[VMA_FIELDS + 1] = { [3] = &area.pgoff,
		[4] = &area.shmid,
		[6] = &area.flags,
		[7] = &area.status,
		[9] = &area.madv,
		[10] = &area.fdflags };
	struct nest_wire_field field;

	while (nest_wire_next(&in, &field) > 0) {
		if (field.number == 1)
			area.first = field.value / IMAGES_PAGE;
		else if (field.number == 2)
			area.pages = field.value / IMAGES_PAGE - area.first;
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
size_t images_read_mm(int pid, struct images_area *ret, size_t cap)
{
	nest_autocriuimage struct nest_criu_image mm = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field;
	struct nest_wire entry;
	bool first = false, last = false;
	size_t n = 0;
	char name[32];

	snprintf(name, sizeof(name), "mm-%d.img", pid);
	ck_assert_int_eq(nest_criu_image_open(images_fd, name, NEST_CRIU_IMAGE_MM, &mm, NULL), 0);
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

size_t images_read_runs(int pid, struct images_run *ret, size_t cap)
{
	nest_autocriuimage struct nest_criu_image map = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field;
	struct nest_wire entry;
	size_t n = 0;
	char name[32];

	snprintf(name, sizeof(name), "pagemap-%d.img", pid);
	ck_assert_int_eq(
		nest_criu_image_open(images_fd, name, NEST_CRIU_IMAGE_PAGEMAP, &map, NULL), 0);
	ck_assert_int_eq(nest_criu_image_next(&map, &entry), 1);
	while (nest_criu_image_next(&map, &entry) > 0) {
		ck_assert_uint_lt(n, cap);
		ret[n] = (struct images_run){ .first = 0 };
		while (nest_wire_next(&entry, &field) > 0) {
			if (field.number == 1)
				ret[n].first = field.value / IMAGES_PAGE;
			else if (field.number == 4)
				ret[n].flags = field.value;
			else if (field.number == 5)
				ret[n].pages = field.value;
		}
		n++;
	}
	return n;
}

void images_check_page(const char *name, uint64_t at, uint64_t number)
{
	uint64_t want[IMAGES_PAGE / sizeof(uint64_t)], have[IMAGES_PAGE / sizeof(uint64_t)];
	int fd = openat(images_fd, name, O_RDONLY | O_CLOEXEC);

	images_fill_page(want, number);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, have, IMAGES_PAGE, (off_t)at), IMAGES_PAGE);
	close(fd);
	ck_assert_msg(memcmp(want, have, IMAGES_PAGE) == 0, "%s at %#llx: not page %#llx but %#llx",
		name, (unsigned long long)at, (unsigned long long)number,
		(unsigned long long)have[0] / 1000000);
}

uint64_t images_size_of(const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(images_fd, name, &st, 0), 0);
	return (uint64_t)st.st_size;
}

uint64_t images_read_memory_file(uint64_t *ret_size)
{
	nest_autocriuimage struct nest_criu_image files = NEST_CRIU_IMAGE_INIT;
	struct nest_wire_field field, reg;
	struct nest_wire entry;
	uint64_t id = 0, found = 0;

	ck_assert_int_eq(
		nest_criu_image_open(images_fd, "files.img", NEST_CRIU_IMAGE_FILES, &files, NULL),
		0);
	while (nest_criu_image_next(&files, &entry) > 0) {
		while (nest_wire_next(&entry, &field) > 0) {
			if (field.number == 2)
				id = field.value;
			if (field.number != 3)
				continue;
			while (nest_wire_next(&field.in, &reg) > 0) {
				if (reg.number == 1)
					ck_assert_uint_eq(reg.value, id);
				if (reg.number == 6 && reg.in.left == strlen(IMAGES_PATH) &&
					memcmp(reg.in.at, IMAGES_PATH, strlen(IMAGES_PATH)) == 0)
					found = id;
				if (reg.number == 8)
					*ret_size = reg.value;
			}
		}
	}
	return found;
}

void images_check_taken(
	const struct images_area *was, const struct images_area *is, uint64_t offset, uint64_t id)
{
	ck_assert_uint_eq(is->first, was->first);
	ck_assert_uint_eq(is->pages, was->pages);
	ck_assert_uint_eq(is->flags, was->flags & ~(uint64_t)MAP_ANONYMOUS);
	ck_assert_uint_eq(is->status,
		(was->status & ~(uint64_t)IMAGES_STATUS_ANON_PRIVATE) | IMAGES_STATUS_FILE_PRIVATE);
	ck_assert_uint_eq(is->madv, was->madv & ~(UINT64_C(1) << MADV_DONTFORK));
	ck_assert_uint_eq(is->pgoff, offset);
	ck_assert_uint_eq(is->shmid, id);
	ck_assert_uint_eq(is->fdflags, O_RDONLY);
	ck_assert(is->unknown);
}

void images_check_left(const struct images_area *was, const struct images_area *is)
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

void images_check_run(const struct images_run *run, uint64_t first, uint64_t pages, uint64_t flags)
{
	ck_assert_uint_eq(run->first, first);
	ck_assert_uint_eq(run->pages, pages);
	ck_assert_uint_eq(run->flags, flags);
}
