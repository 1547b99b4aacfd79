/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRIU's images of one process that matter here:
 *
 *	mm-<pid>.img       one entry, the areas (vma) among its fields
 *	pagemap-<pid>.img  a head that names pages-<id>.img, then runs of pages
 *	pages-<id>.img     the pages of those runs that are present, one after the other
 *	files.img          every open or mapped file, by id
 *
 * The areas that are taken over get room in the memory file, as long as they are, one
 * after the other; their pages go there, and out of the page map. Each process has an entry of its
 * own for that file among the files: where a child maps the same file at the same place as its
 * parent, CRIU takes it for an area that it has inherited, whatever part of the file it is.
 */
#include "sandbox/image_rewrite.h"

#include <dirent.h>
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
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_area.h"
#include "sandbox/image_source.h"
#include "sandbox/image_stack.h"
#include "sandbox/wire.h"

#define MEMORY_MAX (64ull << 30) /* of all areas: copied from there on */
_Static_assert(
	MEMORY_MAX + NEST_IMAGE_AREA_MAX < NEST_IMAGE_REWRITE_ROOM, "a size would tell nothing");
#define PAGE NEST_IMAGE_PAGE
/* What the kernel maps around a page that is read. */
#define BLOCK 65536
#define DRAFT NEST_IMAGE_REWRITE_FILE ".draft"

enum {
	HEAD_PAGES_ID = 1
};
/* CRIU reads the number of pages in either of two fields. */
enum {
	RUN_VADDR = 1,
	RUN_COMPAT_NR,
	RUN_FLAGS = 4,
	RUN_NR
};
enum {
	FILE_TYPE = 1,
	FILE_ID,
	FILE_REG
};
enum {
	REG_ID = 1,
	REG_FLAGS,
	REG_POS,
	REG_FOWN = 5,
	REG_NAME,
	REG_SIZE = 8,
	REG_MODE = 10
};
enum {
	FOWN_UID = 1,
	FOWN_EUID,
	FOWN_SIGNUM,
	FOWN_PID_TYPE,
	FOWN_PID
};
enum {
	TYPE_REG = 1
};

struct rewrite {
	int dir;
	const char *path;
	int memory;	   /* a draft of it */
	uint64_t size;	   /* of the memory file */
	uint32_t first_id; /* of its entries among the files; those before @file_id are in use */
	int parent;	   /* its memory file, -1: no parent */
	struct nest_image_sources sources;
	/* of the process at hand */
	uint32_t file_id;
	bool used;
	struct nest_image_areas areas;
};

/* ---- pages ---- */

static int put_run(struct nest_buf *out, uint64_t vaddr, uint64_t pages, uint64_t flags)
{
	struct nest_buf entry = NEST_BUF_INIT;
	int r = nest_wire_put_varint(&entry, RUN_VADDR, vaddr);

	if (r == 0)
		r = nest_wire_put_varint(&entry, RUN_COMPAT_NR, pages);
	if (r == 0)
		r = nest_wire_put_varint(&entry, RUN_FLAGS, flags);
	if (r == 0)
		r = nest_wire_put_varint(&entry, RUN_NR, pages);
	if (r == 0)
		r = nest_criu_image_put_buf(out, &entry);
	nest_buf_done(&entry);
	return r;
}

/* @at < 0: where the file's own offset is. */
static int write_at(int fd, const char *bytes, size_t n, off_t at)
{
	return at < 0 ? nest_fd_write_all(fd, bytes, n, NULL)
		      : nest_fd_pwrite_all(fd, bytes, n, (uint64_t)at, NULL);
}

static int copy_pages(int from, int to, off_t to_at, uint64_t pages)
{
	static char chunk[64 * PAGE];

	for (uint64_t left = pages * PAGE; left > 0;) {
		size_t want = left < sizeof(chunk) ? left : sizeof(chunk);
		ssize_t n = read(from, chunk, want);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		r = write_at(to, chunk, (size_t)n, to_at);
		if (r < 0)
			return r;
		if (to_at >= 0)
			to_at += n;
		left -= (uint64_t)n;
	}
	return 0;
}

/* The area's pages as they are in its file: those that were written come over them. */
static int fill(struct rewrite *rewrite, const struct nest_image_area *area)
{
	int from = nest_image_sources_fd(&rewrite->sources, area->shmid);
	static char chunk[64 * PAGE];

	for (uint64_t done = 0, bytes = area->end - area->start; done < bytes;) {
		size_t want = bytes - done < sizeof(chunk) ? bytes - done : sizeof(chunk);
		ssize_t n = pread(from, chunk, want, (off_t)(area->pgoff + done));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0; /* behind the file's end are zeros */
		r = write_at(rewrite->memory, chunk, (size_t)n, (off_t)(area->offset + done));
		if (r < 0)
			return r;
		done += (uint64_t)n;
	}
	return 0;
}

/* Gives @area its room in the memory file when its first page is met. 1: it has some; 0: its pages stay. */
static int take(struct rewrite *rewrite, struct nest_image_area *area)
{
	if (area->taken)
		return 1;
	if (!nest_image_area_may_take(area) || rewrite->size > MEMORY_MAX)
		return 0;
	area->taken = true;
	area->offset = rewrite->size;
	rewrite->size += area->end - area->start;
	rewrite->used = true;
	if (area->written) {
		int r = fill(rewrite, area);

		return r < 0 ? r : 1;
	}
	return 1;
}

/* What stays of @n pages of @area from address @at, the next ones of @pages. */
static int keep_pages(const struct nest_image_area *area, uint64_t at, uint64_t n, uint64_t flags,
	int pages, int kept, struct nest_buf *out)
{
	uint64_t useless = at < area->top ? (area->top - at) / PAGE : 0;
	int r = 0;

	useless = useless < n ? useless : n;
	if (useless > 0 && lseek(pages, (off_t)(useless * PAGE), SEEK_CUR) < 0)
		return -errno;
	if (useless < n)
		r = put_run(out, at + useless * PAGE, n - useless, flags);
	return r < 0 ? r : copy_pages(pages, kept, -1, n - useless);
}

/* Divides the pages of one run between the memory file and what stays. */
static int divide_run(struct rewrite *rewrite, const struct nest_image_run *run, int pages,
	int kept, struct nest_buf *out)
{
	uint64_t at = run->vaddr;
	uint64_t end = at + run->pages * PAGE;

	while (at < end) {
		struct nest_image_area *area = nest_image_areas_find(&rewrite->areas, at);
		uint64_t stop = area && area->end < end ? area->end : end;
		uint64_t n;
		int r;

		if (!area)
			return -EBADMSG;
		n = (stop - at) / PAGE;
		r = take(rewrite, area);
		if (r > 0) {
			r = copy_pages(pages, rewrite->memory,
				(off_t)(area->offset + (at - area->start)), n);
		} else if (r == 0) {
			r = keep_pages(area, at, n, run->flags, pages, kept, out);
		}
		if (r < 0)
			return r;
		at = stop;
	}
	return 0;
}

static int divide_runs(struct rewrite *rewrite, struct nest_criu_image *pagemap, int pages,
	int kept, struct nest_buf *out)
{
	struct nest_wire entry;
	struct nest_image_run run;
	int r;

	while ((r = nest_criu_image_next(pagemap, &entry)) > 0) {
		r = nest_image_run_read(entry, &run);
		if (r == 0)
			r = run.flags & NEST_IMAGE_RUN_PRESENT
				    ? divide_run(rewrite, &run, pages, kept, out)
				    : nest_criu_image_put(out, entry.at, entry.left);
		if (r < 0)
			return r;
	}
	return r;
}

static int read_pages_id(struct nest_wire in, uint64_t *ret)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0)
		if (field.number == HEAD_PAGES_ID && field.type == NEST_WIRE_VARINT)
			*ret = field.value;
	return r;
}

/* The page map of process @pid, and its pages. */
static int divide_pages(struct rewrite *rewrite, const char *pid, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image pagemap = NEST_CRIU_IMAGE_INIT;
	nest_autoclose int pages = -1;
	nest_autoclose int kept = -1;
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_wire head;
	uint64_t id = 0;
	char name[96], old[64], new[80];
	int r;

	snprintf(name, sizeof(name), "pagemap-%s", pid);
	r = nest_criu_image_open(rewrite->dir, name, NEST_CRIU_IMAGE_PAGEMAP, &pagemap, err);
	if (r < 0)
		return r;
	if (nest_criu_image_next(&pagemap, &head) <= 0 || read_pages_id(head, &id) < 0)
		return nest_criu_image_malformed(name, err);
	snprintf(old, sizeof(old), "pages-%llu.img", (unsigned long long)id);
	snprintf(new, sizeof(new), "%s.new", old);
	pages = openat(rewrite->dir, old, O_RDONLY | O_CLOEXEC);
	kept = openat(rewrite->dir, new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (pages < 0 || kept < 0)
		return nest_err_set(err, -errno, "open '%s'", old);
	r = nest_criu_image_begin(&out, NEST_CRIU_IMAGE_PAGEMAP);
	if (r == 0)
		r = nest_criu_image_put(&out, head.at, head.left);
	if (r == 0)
		r = nest_image_areas_survey(&rewrite->areas, pagemap, &rewrite->sources);
	if (r == 0)
		r = divide_runs(rewrite, &pagemap, pages, kept, &out);
	if (r == 0)
		r = nest_criu_image_replace(rewrite->dir, name, &out, err);
	else
		nest_err_set(err, r, "divide the pages of '%s'", name);
	nest_buf_done(&out);
	if (r == 0 && renameat(rewrite->dir, new, rewrite->dir, old) < 0)
		r = nest_err_set(err, -errno, "replace '%s'", old);
	return r;
}

/* ---- files and the whole ---- */

static int put_mm(const struct rewrite *rewrite, struct nest_wire mm, struct nest_buf *out)
{
	struct nest_buf entry = NEST_BUF_INIT;
	int r = nest_image_areas_put(&rewrite->areas, mm, rewrite->file_id, &entry);

	if (r == 0)
		r = nest_criu_image_put_buf(out, &entry);
	nest_buf_done(&entry);
	return r;
}

/* Of main stacks, which stay, only what is in use. */
static int find_tops(struct rewrite *rewrite, const char *pid, struct nest_err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < rewrite->areas.n; i++)
		if (rewrite->areas.list[i].flags & MAP_GROWSDOWN)
			r = nest_image_stack_top(rewrite->dir, pid, &rewrite->areas.list[i],
				&rewrite->areas.list[i].top, err);
	return r;
}

static int rewrite_process(struct rewrite *rewrite, const char *name, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image mm = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_wire entry;
	int r = nest_criu_image_open(rewrite->dir, name, NEST_CRIU_IMAGE_MM, &mm, err);

	if (r < 0)
		return r;
	if (nest_criu_image_next(&mm, &entry) <= 0 ||
		nest_image_areas_read(&rewrite->areas, entry) < 0)
		return nest_criu_image_malformed(name, err);
	rewrite->used = false;
	r = find_tops(rewrite, name + strlen("mm-"), err);
	if (r == 0)
		r = divide_pages(rewrite, name + strlen("mm-"), err);
	if (r < 0)
		return r;
	nest_image_areas_join(&rewrite->areas);
	r = nest_criu_image_begin(&out, NEST_CRIU_IMAGE_MM);
	if (r == 0)
		r = put_mm(rewrite, entry, &out);
	r = r < 0 ? nest_err_set(err, r, "rewrite image '%s'", name)
		  : nest_criu_image_replace(rewrite->dir, name, &out, err);
	nest_buf_done(&out);
	rewrite->file_id += rewrite->used;
	return r;
}

/* Whether @path is that of a parent's memory file. */
static bool is_parents(const struct rewrite *rewrite, struct nest_wire path)
{
	return rewrite->parent >= 0 && path.left == strlen(NEST_IMAGE_REWRITE_PARENT_PATH) &&
	       memcmp(path.at, NEST_IMAGE_REWRITE_PARENT_PATH, path.left) == 0;
}

/* Notes where regular file @id can be read. */
static int look_at_reg(struct rewrite *rewrite, uint64_t id, struct nest_wire reg)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&reg, &field)) > 0) {
		if (field.number != REG_NAME || field.type != NEST_WIRE_BYTES)
			continue;
		r = is_parents(rewrite, field.in)
			    ? nest_image_sources_add_open(&rewrite->sources, id, rewrite->parent)
			    : nest_image_sources_add(&rewrite->sources, id, field.in);
		if (r < 0)
			break;
	}
	return r;
}

/* Notes the id of one file, and where it can be read. */
static int look_at_file(struct rewrite *rewrite, struct nest_wire entry, uint64_t *top)
{
	struct nest_wire_field field;
	struct nest_wire reg = { .left = 0 };
	uint64_t id = 0;
	int r;

	while ((r = nest_wire_next(&entry, &field)) > 0) {
		if (field.number == FILE_ID)
			id = field.value;
		else if (field.number == FILE_REG && field.type == NEST_WIRE_BYTES)
			reg = field.in;
	}
	*top = id > *top ? id : *top;
	return r < 0 ? r : look_at_reg(rewrite, id, reg);
}

/* An id that no file has yet, nor those after it, and where to read those that there are. */
static int look_at_files(struct rewrite *rewrite, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image files = NEST_CRIU_IMAGE_INIT;
	struct nest_wire entry;
	uint64_t top = 0;
	int more, fields = 0;
	int r = nest_criu_image_open(rewrite->dir, "files.img", NEST_CRIU_IMAGE_FILES, &files, err);

	if (r < 0)
		return r;
	while (fields == 0 && (more = nest_criu_image_next(&files, &entry)) > 0)
		fields = look_at_file(rewrite, entry, &top);
	if (fields == -ENOMEM)
		return nest_err_set(err, fields, "read 'files.img'");
	if (fields < 0 || more < 0 || top > UINT32_MAX / 2)
		return nest_criu_image_malformed("files.img", err);
	rewrite->first_id = (uint32_t)top + 1;
	rewrite->file_id = rewrite->first_id;
	return 0;
}

static int put_owner(struct nest_buf *reg)
{
	struct nest_buf owner = NEST_BUF_INIT;
	int r = 0;

	for (uint32_t field = FOWN_UID; r == 0 && field <= FOWN_PID; field++)
		r = nest_wire_put_varint(&owner, field, 0);
	if (r == 0)
		r = nest_wire_put_bytes(reg, REG_FOWN, nest_buf_bytes(&owner), owner.len);
	nest_buf_done(&owner);
	return r;
}

static int put_memory_file(const struct rewrite *rewrite, uint32_t id, struct nest_buf *out)
{
	struct nest_buf reg = NEST_BUF_INIT;
	struct nest_buf file = NEST_BUF_INIT;
	int r = nest_wire_put_varint(&reg, REG_ID, id);

	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_FLAGS, O_RDONLY);
	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_POS, 0);
	if (r == 0)
		r = put_owner(&reg);
	if (r == 0)
		r = nest_wire_put_string(&reg, REG_NAME, rewrite->path);
	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_SIZE, rewrite->size + NEST_IMAGE_REWRITE_ROOM);
	if (r == 0)
		r = nest_wire_put_varint(&file, FILE_TYPE, TYPE_REG);
	if (r == 0)
		r = nest_wire_put_varint(&file, FILE_ID, id);
	if (r == 0)
		r = nest_wire_put_bytes(&file, FILE_REG, nest_buf_bytes(&reg), reg.len);
	if (r == 0)
		r = nest_criu_image_put_buf(out, &file);
	nest_buf_done(&reg);
	nest_buf_done(&file);
	return r;
}

static int add_memory_file(struct rewrite *rewrite, struct nest_err *err)
{
	nest_autoclose int fd = openat(rewrite->dir, "files.img", O_WRONLY | O_APPEND | O_CLOEXEC);
	struct nest_buf out = NEST_BUF_INIT;
	int r = 0;

	if (fd < 0)
		return nest_err_set(err, -errno, "open 'files.img'");
	if (ftruncate(rewrite->memory, (off_t)rewrite->size) < 0)
		return nest_err_set(err, -errno, "size the memory file");
	for (uint32_t id = rewrite->first_id; r == 0 && id < rewrite->file_id; id++)
		r = put_memory_file(rewrite, id, &out);
	r = r < 0 ? nest_err_set(err, r, "name the memory file")
		  : nest_fd_write_all(fd, nest_buf_bytes(&out), out.len, err);
	nest_buf_done(&out);
	return r;
}

static int rewrite_processes(struct rewrite *rewrite, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(rewrite->dir, ".");
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list the images");
	while (r == 0 && (entry = readdir(list))) {
		char name[64];

		/* "mm-<pid>.img" */
		if (strncmp(entry->d_name, "mm-", 3) != 0 || strlen(entry->d_name) > 32)
			continue;
		snprintf(name, sizeof(name), "%.32s", entry->d_name);
		r = rewrite_process(rewrite, name, err);
	}
	return r;
}

/* ---- the memory file ---- */

static int copy_block(int from, int to, off_t at, size_t bytes)
{
	static char block[BLOCK];

	for (size_t n = 0; n < bytes;) {
		ssize_t r = pread(from, block + n, bytes - n, at + (off_t)n);

		if (r == 0 || (r < 0 && errno != EINTR))
			return r < 0 ? -errno : -EIO;
		n += r > 0 ? (size_t)r : 0;
	}
	return write_at(to, block, bytes, at);
}

/*
 * Copies the memory file to @to block by block, each in one write: file systems that can keep what is written
 * so in one piece of the page cache, which a clone's fault maps in half the time of as many pages, and
 * what a block lacks of its pages is not looked for in the file later.
 */
static int copy_blocks(const struct rewrite *rewrite, int to)
{
	off_t size = (off_t)rewrite->size;

	for (off_t at = 0; at < size;) {
		off_t data = lseek(rewrite->memory, at, SEEK_DATA);
		size_t bytes;
		int r;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		at = data - data % BLOCK;
		bytes = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
		r = copy_block(rewrite->memory, to, at, bytes);
		if (r < 0)
			return r;
		at += BLOCK;
	}
	return 0;
}

/* A file to put pages in as they come, without a name. */
static int open_draft(int dir, int *ret, struct nest_err *err)
{
	*ret = openat(dir, DRAFT, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*ret < 0 || unlinkat(dir, DRAFT, 0) < 0)
		return nest_err_set(err, -errno, "make a draft of the memory file");
	return 0;
}

static int settle(const struct rewrite *rewrite, int memory, struct nest_err *err)
{
	int r = ftruncate(memory, (off_t)rewrite->size) < 0 ? -errno : copy_blocks(rewrite, memory);

	return r < 0 ? nest_err_set(err, r, "write the memory file") : 0;
}

int nest_image_rewrite_map(int images, const char *path, int parent, struct nest_err *err)
{
	nest_autoclose int memory = openat(
		images, NEST_IMAGE_REWRITE_FILE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	nest_autoclose int draft = -1;
	struct rewrite rewrite = { .dir = images, .path = path, .parent = parent };
	int r;

	if (memory < 0)
		return nest_err_set(err, -errno, "make the memory file");
	r = open_draft(images, &draft, err);
	if (r < 0)
		return r;
	rewrite.memory = draft;
	r = look_at_files(&rewrite, err);
	if (r == 0)
		r = rewrite_processes(&rewrite, err);
	if (r == 0 && rewrite.size > 0)
		r = add_memory_file(&rewrite, err);
	if (r == 0)
		r = settle(&rewrite, memory, err);
	nest_image_areas_done(&rewrite.areas);
	nest_image_sources_done(&rewrite.sources);
	return r < 0 ? nest_err_wrap(err, "map the snapshot's memory") : 0;
}

int nest_image_rewrite_add_room(int images, struct nest_err *err)
{
	nest_autoclose int fd =
		openat(images, NEST_IMAGE_REWRITE_FILE, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0; /* its memory is copied */
	if (fd < 0 || fstat(fd, &st) < 0 ||
		ftruncate(fd, st.st_size + (off_t)NEST_IMAGE_REWRITE_ROOM) < 0 || fsync(fd) < 0)
		return nest_err_set(err, -errno, "make room in the memory file");
	return 0;
}
