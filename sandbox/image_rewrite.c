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
 * after the other; their pages go there, and out of the page map.
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
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/criu_image.h"
#include "sandbox/wire.h"

/*
 * A larger area is a reservation, of which little is in use: it would make a memory file that the file
 * system may refuse. Its pages are copied.
 */
#define AREA_MAX (4ull << 30)
#define MEMORY_MAX (64ull << 30) /* of all areas: copied from there on */
#define PAGE 4096u
/* Of an area of its parent's memory one page in so many must be written for it to get a copy of its own. */
#define DENSE 16u

/* Status bits of an area. */
#define AREA_REGULAR (1u << 0)
#define AREA_FILE_PRIVATE (1u << 6)
#define AREA_ANON_PRIVATE (1u << 9)
#define AREA_HEAP (1u << 5)

#define RUN_PRESENT (1u << 2)

enum {
	MM_VMAS = 14
};
enum {
	VMA_START = 1,
	VMA_END,
	VMA_PGOFF,
	VMA_SHMID,
	VMA_PROT,
	VMA_FLAGS,
	VMA_STATUS,
	VMA_FD,
	VMA_MADV,
	VMA_FDFLAGS,
};
enum {
	HEAD_PAGES_ID = 1
};
enum {
	RUN_VADDR = 1,
	RUN_COMPAT_NR,
	RUN_IN_PARENT,
	RUN_FLAGS,
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

struct area {
	uint64_t start, end;
	uint64_t pgoff, shmid, prot, flags, status, madv;
	uint64_t present; /* pages that the image has of it */
	bool taken;
	uint64_t offset; /* in the memory file */
};

struct rewrite {
	int dir;
	const char *path;
	int memory;
	uint64_t size; /* of the memory file */
	uint32_t file_id;
	uint32_t parent_id; /* of the parent's memory file, 0: no parent */
	int parent;
	bool used;
	/* of the process at hand */
	struct area *areas;
	size_t nareas, room;
};

static int replace_image(
	int dir, const char *name, const struct nest_buf *bytes, struct nest_err *err)
{
	nest_autoclose int fd = openat(dir, name, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(err, -errno, "open image '%s'", name);
	return nest_fd_write_all(fd, nest_buf_bytes(bytes), bytes->len, err);
}

/* ---- areas ---- */

static int read_area(struct nest_wire in, struct area *ret)
{
	struct nest_wire_field field;
	int r;

	*ret = (struct area){ .start = 0 };
	while ((r = nest_wire_next(&in, &field)) > 0) {
		if (field.type != NEST_WIRE_VARINT)
			continue;
		switch (field.number) {
		case VMA_START:
			ret->start = field.value;
			break;
		case VMA_END:
			ret->end = field.value;
			break;
		case VMA_PGOFF:
			ret->pgoff = field.value;
			break;
		case VMA_SHMID:
			ret->shmid = field.value;
			break;
		case VMA_PROT:
			ret->prot = field.value;
			break;
		case VMA_FLAGS:
			ret->flags = field.value;
			break;
		case VMA_STATUS:
			ret->status = field.value;
			break;
		case VMA_MADV:
			ret->madv = field.value;
			break;
		default:
			break;
		}
	}
	if (r == 0 && (ret->start >= ret->end || ret->start % PAGE || ret->end % PAGE))
		return -EBADMSG;
	return r;
}

/* Of its parent's memory: so few pages as are written otherwise are cheaper copied than a file's size. */
static bool is_parents(const struct rewrite *rewrite, const struct area *area)
{
	return rewrite->parent >= 0 && area->shmid == rewrite->parent_id &&
	       area->present * PAGE >= (area->end - area->start) / DENSE;
}

/*
 * Plain private memory, and nothing that the kernel treats apart: no stack, which grows;
 * no huge or locked pages; nothing that is wiped at a fork, which files aren't. Of a file's mapping
 * only where no page need be looked for in the file, or the file is the parent's memory.
 */
static bool may_take(const struct rewrite *rewrite, const struct area *area)
{
	uint64_t status = area->status & ~(uint64_t)AREA_HEAP;

	if (area->end <= area->start || area->end - area->start > AREA_MAX)
		return false;
	if ((area->flags & (MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED)) ||
		(area->madv & (1u << MADV_WIPEONFORK)))
		return false;
	if (status == (AREA_REGULAR | AREA_FILE_PRIVATE))
		return area->present * PAGE == area->end - area->start || is_parents(rewrite, area);
	return status == (AREA_REGULAR | AREA_ANON_PRIVATE);
}

static int read_areas(struct rewrite *rewrite, struct nest_wire mm)
{
	struct nest_wire_field field;
	int r;

	rewrite->nareas = 0;
	while ((r = nest_wire_next(&mm, &field)) > 0) {
		struct area *area;

		if (field.number != MM_VMAS || field.type != NEST_WIRE_BYTES)
			continue;
		if (rewrite->nareas == rewrite->room) {
			size_t room = rewrite->room ? 2 * rewrite->room : 256;
			struct area *more = reallocarray(rewrite->areas, room, sizeof(*more));

			if (!more)
				return -ENOMEM;
			rewrite->areas = more;
			rewrite->room = room;
		}
		area = &rewrite->areas[rewrite->nareas];
		r = read_area(field.in, area);
		if (r < 0)
			return r;
		/* CRIU lists them by address, and the search below relies on it */
		if (rewrite->nareas > 0 && area[-1].end > area->start)
			return -EBADMSG;
		rewrite->nareas++;
	}
	return r;
}

static struct area *find_area(struct rewrite *rewrite, uint64_t at)
{
	size_t low = 0, high = rewrite->nareas;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (rewrite->areas[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == rewrite->nareas || rewrite->areas[low].start > at)
		return NULL;
	return &rewrite->areas[low];
}

/* Copies the areas' message with those that were taken over changed. */
static int put_area(struct nest_buf *out, const struct area *area, struct nest_wire in, uint32_t id)
{
	struct nest_buf vma = NEST_BUF_INIT;
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		switch (field.number) {
		case VMA_PGOFF:
			r = nest_wire_put_varint(&vma, VMA_PGOFF, area->offset);
			break;
		case VMA_SHMID:
			r = nest_wire_put_varint(&vma, VMA_SHMID, id);
			break;
		case VMA_FLAGS:
			r = nest_wire_put_varint(
				&vma, VMA_FLAGS, area->flags & ~(uint64_t)MAP_ANONYMOUS);
			break;
		case VMA_STATUS:
			r = nest_wire_put_varint(&vma, VMA_STATUS,
				(area->status & ~(uint64_t)AREA_ANON_PRIVATE) | AREA_FILE_PRIVATE);
			break;
		case VMA_FDFLAGS:
			continue;
		default:
			r = nest_wire_put_raw(&vma, &field.raw);
		}
		if (r < 0)
			break;
	}
	if (r == 0)
		r = nest_wire_put_varint(&vma, VMA_FDFLAGS, O_RDONLY);
	if (r == 0)
		r = nest_wire_put_bytes(out, MM_VMAS, nest_buf_bytes(&vma), vma.len);
	nest_buf_done(&vma);
	return r;
}

static int put_mm(struct rewrite *rewrite, struct nest_buf *out, struct nest_wire mm)
{
	struct nest_buf entry = NEST_BUF_INIT;
	struct nest_wire_field field;
	size_t n = 0;
	int r;

	while ((r = nest_wire_next(&mm, &field)) > 0) {
		if (field.number == MM_VMAS && field.type == NEST_WIRE_BYTES &&
			rewrite->areas[n++].taken)
			r = put_area(&entry, &rewrite->areas[n - 1], field.in, rewrite->file_id);
		else
			r = nest_wire_put_raw(&entry, &field.raw);
		if (r < 0)
			break;
	}
	if (r == 0)
		r = nest_criu_image_put_buf(out, &entry);
	nest_buf_done(&entry);
	return r;
}

/* ---- pages ---- */

struct run {
	uint64_t vaddr, pages, flags;
	bool in_parent;
};

static int read_run(struct nest_wire in, struct run *ret)
{
	struct nest_wire_field field;
	uint64_t compat = 0;
	int r;

	*ret = (struct run){ .vaddr = 0 };
	while ((r = nest_wire_next(&in, &field)) > 0) {
		if (field.number == RUN_VADDR)
			ret->vaddr = field.value;
		else if (field.number == RUN_COMPAT_NR)
			compat = field.value;
		else if (field.number == RUN_NR)
			ret->pages = field.value;
		else if (field.number == RUN_FLAGS)
			ret->flags = field.value;
		else if (field.number == RUN_IN_PARENT)
			ret->in_parent = field.value;
	}
	if (ret->pages == 0)
		ret->pages = compat;
	if (r == 0 && (ret->vaddr % PAGE || ret->pages > UINT32_MAX || ret->in_parent ||
			      ret->vaddr > UINT64_MAX - ret->pages * PAGE))
		return -EBADMSG;
	return r;
}

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

static int copy_pages(int from, int to, off_t to_at, uint64_t pages)
{
	static char chunk[64 * PAGE];

	for (uint64_t left = pages * PAGE; left > 0;) {
		size_t want = left < sizeof(chunk) ? left : sizeof(chunk);
		ssize_t n = read(from, chunk, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		for (ssize_t done = 0; done < n;) {
			ssize_t w = to_at < 0 ? write(to, chunk + done, (size_t)(n - done))
					      : pwrite(to, chunk + done, (size_t)(n - done),
							to_at + done);

			if (w < 0 && errno != EINTR)
				return -errno;
			done += w > 0 ? w : 0;
		}
		if (to_at >= 0)
			to_at += n;
		left -= (uint64_t)n;
	}
	return 0;
}

/* The area's pages as the parent has them: those that were written come over them. */
static int copy_parents(const struct rewrite *rewrite, const struct area *area)
{
	off_t from = (off_t)area->pgoff, to = (off_t)area->offset;
	size_t left = area->end - area->start;

	while (left > 0) {
		ssize_t n = copy_file_range(rewrite->parent, &from, rewrite->memory, &to, left, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0; /* behind the parent's end are zeros */
		left -= (size_t)n;
	}
	return 0;
}

/* Gives @area its room in the memory file when its first page is met. 1: it has some; 0: its pages stay. */
static int take(struct rewrite *rewrite, struct area *area)
{
	if (area->taken)
		return 1;
	if (!may_take(rewrite, area) || rewrite->size > MEMORY_MAX)
		return 0;
	area->taken = true;
	area->offset = rewrite->size;
	rewrite->size += area->end - area->start;
	rewrite->used = true;
	if (is_parents(rewrite, area)) {
		int r = copy_parents(rewrite, area);

		return r < 0 ? r : 1;
	}
	return 1;
}

/* Divides the pages of one run between the memory file and what stays. */
static int divide_run(
	struct rewrite *rewrite, const struct run *run, int pages, int kept, struct nest_buf *out)
{
	uint64_t at = run->vaddr;
	uint64_t end = at + run->pages * PAGE;

	while (at < end) {
		struct area *area = find_area(rewrite, at);
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
			r = put_run(out, at, n, run->flags);
			if (r == 0)
				r = copy_pages(pages, kept, -1, n);
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
	struct run run;
	int r;

	while ((r = nest_criu_image_next(pagemap, &entry)) > 0) {
		r = read_run(entry, &run);
		if (r == 0)
			r = run.flags & RUN_PRESENT
				    ? divide_run(rewrite, &run, pages, kept, out)
				    : nest_criu_image_put(out, entry.at, entry.left);
		if (r < 0)
			return r;
	}
	return r;
}

/* Notes of each area how many of its pages the image has. */
static int count_present(struct rewrite *rewrite, struct nest_criu_image pagemap)
{
	struct nest_wire entry;
	struct run run;
	int r;

	while ((r = nest_criu_image_next(&pagemap, &entry)) > 0) {
		uint64_t at, end;

		r = read_run(entry, &run);
		if (r < 0)
			return r;
		if (!(run.flags & RUN_PRESENT))
			continue;
		end = run.vaddr + run.pages * PAGE;
		for (at = run.vaddr; at < end;) {
			struct area *area = find_area(rewrite, at);
			uint64_t stop = area && area->end < end ? area->end : end;

			if (!area)
				return -EBADMSG;
			area->present += (stop - at) / PAGE;
			at = stop;
		}
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
		r = count_present(rewrite, pagemap);
	if (r == 0)
		r = divide_runs(rewrite, &pagemap, pages, kept, &out);
	if (r == 0)
		r = replace_image(rewrite->dir, name, &out, err);
	else
		nest_err_set(err, r, "divide the pages of '%s'", name);
	nest_buf_done(&out);
	if (r == 0 && renameat(rewrite->dir, new, rewrite->dir, old) < 0)
		r = nest_err_set(err, -errno, "replace '%s'", old);
	return r;
}

/* ---- files and the whole ---- */

static int rewrite_process(struct rewrite *rewrite, const char *name, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image mm = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT;
	struct nest_wire entry;
	int r = nest_criu_image_open(rewrite->dir, name, NEST_CRIU_IMAGE_MM, &mm, err);

	if (r < 0)
		return r;
	if (nest_criu_image_next(&mm, &entry) <= 0 || read_areas(rewrite, entry) < 0)
		return nest_criu_image_malformed(name, err);
	r = divide_pages(rewrite, name + strlen("mm-"), err);
	if (r < 0)
		return r;
	r = nest_criu_image_begin(&out, NEST_CRIU_IMAGE_MM);
	if (r == 0)
		r = put_mm(rewrite, &out, entry);
	r = r < 0 ? nest_err_set(err, r, "rewrite image '%s'", name)
		  : replace_image(rewrite->dir, name, &out, err);
	nest_buf_done(&out);
	return r;
}

/* Whether @reg, a regular file, is the memory file of a parent. */
static int names_parent(struct nest_wire reg, bool *ret)
{
	struct nest_wire_field field;
	int r;

	*ret = false;
	while ((r = nest_wire_next(&reg, &field)) > 0)
		if (field.number == REG_NAME && field.type == NEST_WIRE_BYTES)
			*ret = field.in.left == strlen(NEST_IMAGE_REWRITE_PARENT_PATH) &&
			       memcmp(field.in.at, NEST_IMAGE_REWRITE_PARENT_PATH, field.in.left) ==
				       0;
	return r;
}

/* Notes the id of one file, and whether it is the parent's memory. */
static int look_at_file(struct rewrite *rewrite, struct nest_wire entry, uint64_t *top)
{
	struct nest_wire_field field;
	uint64_t id = 0;
	bool parents = false;
	int r;

	while ((r = nest_wire_next(&entry, &field)) > 0) {
		if (field.number == FILE_ID)
			id = field.value;
		else if (field.number == FILE_REG && field.type == NEST_WIRE_BYTES)
			r = names_parent(field.in, &parents);
		if (r < 0)
			return r;
	}
	*top = id > *top ? id : *top;
	if (parents && id <= UINT32_MAX)
		rewrite->parent_id = (uint32_t)id;
	return r;
}

/* An id that no file has yet, and that of the parent's memory. */
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
	if (fields < 0 || more < 0 || top >= UINT32_MAX)
		return nest_criu_image_malformed("files.img", err);
	rewrite->file_id = (uint32_t)top + 1;
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

static int put_memory_file(const struct rewrite *rewrite, struct nest_buf *out)
{
	struct nest_buf reg = NEST_BUF_INIT;
	struct nest_buf file = NEST_BUF_INIT;
	int r = nest_wire_put_varint(&reg, REG_ID, rewrite->file_id);

	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_FLAGS, O_RDONLY);
	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_POS, 0);
	if (r == 0)
		r = put_owner(&reg);
	if (r == 0)
		r = nest_wire_put_string(&reg, REG_NAME, rewrite->path);
	if (r == 0)
		r = nest_wire_put_varint(&reg, REG_SIZE, rewrite->size);
	if (r == 0)
		r = nest_wire_put_varint(&file, FILE_TYPE, TYPE_REG);
	if (r == 0)
		r = nest_wire_put_varint(&file, FILE_ID, rewrite->file_id);
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
	int r;

	if (fd < 0)
		return nest_err_set(err, -errno, "open 'files.img'");
	if (ftruncate(rewrite->memory, (off_t)rewrite->size) < 0)
		return nest_err_set(err, -errno, "size the memory file");
	r = put_memory_file(rewrite, &out);
	r = r < 0 ? nest_err_set(err, r, "name the memory file")
		  : nest_fd_write_all(fd, nest_buf_bytes(&out), out.len, err);
	nest_buf_done(&out);
	return r;
}

static int rewrite_processes(struct rewrite *rewrite, struct nest_err *err)
{
	int copy = openat(rewrite->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nest_autoclosedir DIR *list = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	int r = 0;

	if (!list) {
		if (copy >= 0)
			close(copy);
		return nest_err_set(err, -errno, "list the images");
	}
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

int nest_image_rewrite_map(int images, const char *path, int parent, struct nest_err *err)
{
	nest_autoclose int memory = openat(
		images, NEST_IMAGE_REWRITE_FILE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct rewrite rewrite = {
		.dir = images, .path = path, .memory = memory, .parent = parent
	};
	int r;

	if (memory < 0)
		return nest_err_set(err, -errno, "make the memory file");
	r = look_at_files(&rewrite, err);
	if (r == 0)
		r = rewrite_processes(&rewrite, err);
	if (r == 0 && rewrite.used)
		r = add_memory_file(&rewrite, err);
	free(rewrite.areas);
	return r < 0 ? nest_err_wrap(err, "map the snapshot's memory") : 0;
}
