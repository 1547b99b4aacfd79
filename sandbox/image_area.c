/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_area.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_source.h"

#define PAGE NEST_IMAGE_PAGE
/*
 * What was written of a file's mapping becomes areas of their own, and what lies between stays
 * mapped from that file. An area costs a restore some microseconds, as many again where the file is another
 * than the last one's, a page that is copied two and its memory: so parts no further apart than so many
 * pages are one, an area's small rest goes with its neighbour, and a part with fewer written pages is left
 * to be copied. Where the file can't be read, parts have no gaps, and are more often too short.
 */
#define GAP_MAX 16u
#define REST_MAX 8u
#define WRITTEN_MIN 4u
#define WITHOUT_GAPS_MIN 8u

/* Status bits of an area. */
#define AREA_REGULAR (1u << 0)
#define AREA_FILE_PRIVATE (1u << 6)
#define AREA_ANON_PRIVATE (1u << 9)
#define AREA_HEAP (1u << 5)

/* Field numbers of CRIU's images/mm.proto, vma.proto and pagemap.proto. */
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
	RUN_VADDR = 1,
	RUN_COMPAT_NR,
	RUN_IN_PARENT,
	RUN_FLAGS,
	RUN_NR
};
static int read_area(struct nest_wire in, struct nest_image_area *ret)
{
	struct nest_wire_field field;
	int r;

	*ret = (struct nest_image_area){ .start = 0 };
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

/*
 * Plain private memory, and nothing that the kernel treats apart: no stack, which grows;
 * no huge or locked pages; nothing that is wiped at a fork, which files aren't. Of a file's mapping
 * only where no page need be looked for in the file, or where the file can be read.
 */
bool nest_image_area_may_take(const struct nest_image_area *area)
{
	uint64_t status = area->status & ~(uint64_t)AREA_HEAP;

	if (area->end <= area->start || area->end - area->start > NEST_IMAGE_AREA_MAX)
		return false;
	if ((area->flags & (MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED)) ||
		(area->madv & (1u << MADV_WIPEONFORK)))
		return false;
	if (status == (AREA_REGULAR | AREA_FILE_PRIVATE))
		return area->present * PAGE == area->end - area->start || area->written;
	return status == (AREA_REGULAR | AREA_ANON_PRIVATE);
}

static int add(struct nest_image_areas *areas, const struct nest_image_area *area)
{
	if (areas->n == areas->room) {
		size_t room = areas->room ? 2 * areas->room : 256;
		struct nest_image_area *more = reallocarray(areas->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		areas->list = more;
		areas->room = room;
	}
	areas->list[areas->n++] = *area;
	return 0;
}

int nest_image_areas_read(struct nest_image_areas *areas, struct nest_wire mm)
{
	struct nest_wire_field field;
	struct nest_image_area area;
	uint64_t last = 0;
	int r;

	areas->n = 0;
	while ((r = nest_wire_next(&mm, &field)) > 0) {
		if (field.number != MM_VMAS || field.type != NEST_WIRE_BYTES)
			continue;
		r = read_area(field.in, &area);
		if (r < 0)
			return r;
		/* CRIU lists them by address, and the search below relies on it */
		if (area.start < last)
			return -EBADMSG;
		last = area.end;
		area.vma = areas->n;
		r = add(areas, &area);
		if (r < 0)
			return r;
	}
	return r;
}

struct nest_image_area *nest_image_areas_find(const struct nest_image_areas *areas, uint64_t at)
{
	size_t low = 0, high = areas->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (areas->list[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == areas->n || areas->list[low].start > at)
		return NULL;
	return &areas->list[low];
}

/* What @field of the message of @area is to be: 1, or 0: as it was. */
static int change_field(
	const struct nest_image_area *area, uint32_t field, uint32_t id, uint64_t *ret)
{
	switch (field) {
	case VMA_START:
		*ret = area->start;
		return 1;
	case VMA_END:
		*ret = area->end;
		return 1;
	case VMA_PGOFF:
		*ret = area->taken ? area->offset : area->pgoff;
		return 1;
	case VMA_SHMID:
		*ret = id;
		return area->taken;
	case VMA_MADV:
		/* V8 asks for it for each of its pages, so that forks are quick: a call for each area */
		*ret = area->madv & ~(UINT64_C(1) << MADV_DONTFORK);
		return area->taken;
	case VMA_FLAGS:
		*ret = area->flags & ~(uint64_t)MAP_ANONYMOUS;
		return area->taken;
	case VMA_STATUS:
		*ret = (area->status & ~(uint64_t)AREA_ANON_PRIVATE) | AREA_FILE_PRIVATE;
		return area->taken;
	default:
		return 0;
	}
}

/* Copies the message of an area, for @area, which is all or a part of it, and may have been taken. */
static int put_area(
	struct nest_buf *out, const struct nest_image_area *area, struct nest_wire in, uint32_t id)
{
	struct nest_buf vma = NEST_BUF_INIT;
	struct nest_wire_field field;
	uint64_t value;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		if (change_field(area, field.number, id, &value))
			r = nest_wire_put_varint(&vma, field.number, value);
		else if (field.number != VMA_FDFLAGS || !area->taken)
			r = nest_wire_put_raw(&vma, &field.raw);
		if (r < 0)
			break;
	}
	if (r == 0 && area->taken)
		r = nest_wire_put_varint(&vma, VMA_FDFLAGS, O_RDONLY);
	if (r == 0)
		r = nest_wire_put_bytes(out, MM_VMAS, nest_buf_bytes(&vma), vma.len);
	nest_buf_done(&vma);
	return r;
}

int nest_image_areas_put(const struct nest_image_areas *areas, struct nest_wire mm,
	uint32_t file_id, struct nest_buf *out)
{
	struct nest_wire_field field;
	size_t vma = 0, n = 0;
	int r;

	while ((r = nest_wire_next(&mm, &field)) > 0) {
		if (field.number != MM_VMAS || field.type != NEST_WIRE_BYTES) {
			r = nest_wire_put_raw(out, &field.raw);
		} else {
			for (r = 0; r == 0 && n < areas->n && areas->list[n].vma == vma; n++)
				r = put_area(out, &areas->list[n], field.in, file_id);
			vma++;
		}
		if (r < 0)
			break;
	}
	return r;
}

/* ---- pages ---- */

int nest_image_run_read(struct nest_wire in, struct nest_image_run *ret)
{
	struct nest_wire_field field;
	uint64_t compat = 0;
	int r;

	*ret = (struct nest_image_run){ .vaddr = 0 };
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

/* A part of @rest, from its first written page to the last, with small gaps if @filled. */
static int add_part(struct nest_image_areas *areas, struct nest_image_area *rest, uint64_t from,
	uint64_t to, bool filled)
{
	struct nest_image_area before = *rest, part = *rest;
	int r = 0;

	before.end = from;
	if (before.end > before.start)
		r = add(areas, &before);
	part.start = from;
	part.end = to;
	part.pgoff += from - rest->start;
	part.written = filled;
	if (r == 0)
		r = add(areas, &part);
	rest->pgoff += to - rest->start;
	rest->start = to;
	return r;
}

/* Divides @whole by what of it was written, which @runs, its own and others', say. */
static int split_area(struct nest_image_areas *areas, const struct nest_image_area *whole,
	const struct nest_image_run *runs, size_t nruns, bool filled)
{
	const uint64_t gap_max = filled ? GAP_MAX * PAGE : 0,
		       rest_max = filled ? REST_MAX * PAGE : 0,
		       min = filled ? WRITTEN_MIN : WITHOUT_GAPS_MIN;
	struct nest_image_area rest = *whole;
	uint64_t from = 0, to = 0, written = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < nruns; i++) {
		uint64_t start = runs[i].vaddr, end = start + runs[i].pages * PAGE;

		if (end <= whole->start || start >= whole->end)
			continue;
		start = start > whole->start ? start : whole->start;
		end = end < whole->end ? end : whole->end;
		if (written > 0 && start > to && start - to > gap_max) {
			if (written >= min)
				r = add_part(areas, &rest, from, to, filled);
			written = 0;
		}
		if (written == 0)
			from = start - rest.start <= rest_max ? rest.start : start;
		to = whole->end - end <= rest_max ? whole->end : end;
		written += (end - start) / PAGE;
	}
	if (r == 0 && written >= min)
		r = add_part(areas, &rest, from, to, filled);
	return r == 0 && rest.end > rest.start ? add(areas, &rest) : r;
}

/* The runs of pages that are present, in a list that the caller frees. */
static int read_runs(struct nest_criu_image pagemap, struct nest_image_run **ret, size_t *ret_n)
{
	nest_autofree struct nest_image_run *runs = NULL;
	struct nest_wire entry;
	size_t n = 0, room = 0;
	int r;

	while ((r = nest_criu_image_next(&pagemap, &entry)) > 0) {
		if (n == room) {
			struct nest_image_run *more =
				reallocarray(runs, room = 2 * room + 64, sizeof(*more));

			if (!more)
				return -ENOMEM;
			runs = more;
		}
		r = nest_image_run_read(entry, &runs[n]);
		if (r < 0)
			return r;
		if (!(runs[n].flags & NEST_IMAGE_RUN_PRESENT))
			continue;
		/* by address, as the areas are */
		if (n > 0 && runs[n - 1].vaddr + runs[n - 1].pages * PAGE > runs[n].vaddr)
			return -EBADMSG;
		n++;
	}
	if (r < 0)
		return r;
	*ret = nest_take_ptr(runs);
	*ret_n = n;
	return 0;
}

static bool is_private_file(const struct nest_image_area *area)
{
	return (area->status & ~(uint64_t)AREA_HEAP) == (AREA_REGULAR | AREA_FILE_PRIVATE);
}

static bool is_touched(
	const struct nest_image_area *area, const struct nest_image_run *runs, size_t nruns)
{
	for (size_t i = 0; i < nruns; i++)
		if (runs[i].vaddr < area->end && runs[i].vaddr + runs[i].pages * PAGE > area->start)
			return true;
	return false;
}

static int split_areas(struct nest_image_areas *areas, const struct nest_image_run *runs,
	size_t nruns, struct nest_image_sources *sources)
{
	nest_autofree struct nest_image_area *old = nest_take_ptr(areas->list);
	size_t n = areas->n;
	int r = 0;

	areas->n = 0;
	areas->room = 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = is_private_file(&old[i]) && is_touched(&old[i], runs, nruns)
			    ? split_area(areas, &old[i], runs, nruns,
				      nest_image_sources_fd(sources, old[i].shmid) >= 0)
			    : add(areas, &old[i]);
	return r;
}

int nest_image_areas_survey(struct nest_image_areas *areas, struct nest_criu_image pagemap,
	struct nest_image_sources *sources)
{
	nest_autofree struct nest_image_run *runs = NULL;
	size_t nruns = 0;
	int r = read_runs(pagemap, &runs, &nruns);

	if (r == 0)
		r = split_areas(areas, runs, nruns, sources);
	for (size_t i = 0; r == 0 && i < nruns; i++) {
		uint64_t end = runs[i].vaddr + runs[i].pages * PAGE;

		for (uint64_t at = runs[i].vaddr; at < end;) {
			struct nest_image_area *area = nest_image_areas_find(areas, at);
			uint64_t stop = area && area->end < end ? area->end : end;

			if (!area)
				return -EBADMSG;
			area->present += (stop - at) / PAGE;
			at = stop;
		}
	}
	return r;
}

/* Whether @next, as it will be mapped, is what @area would be with a larger end. */
static bool goes_on(const struct nest_image_area *area, const struct nest_image_area *next)
{
	const uint64_t flags = ~(uint64_t)MAP_ANONYMOUS,
		       status = ~(uint64_t)(AREA_ANON_PRIVATE | AREA_FILE_PRIVATE);

	return area->taken && next->taken && next->start == area->end &&
	       next->offset == area->offset + (area->end - area->start) &&
	       next->prot == area->prot && next->madv == area->madv &&
	       (next->flags & flags) == (area->flags & flags) &&
	       (next->status & status) == (area->status & status);
}

void nest_image_areas_join(struct nest_image_areas *areas)
{
	size_t n = 0;

	for (size_t i = 0; i < areas->n; i++) {
		if (n > 0 && goes_on(&areas->list[n - 1], &areas->list[i]))
			areas->list[n - 1].end = areas->list[i].end;
		else
			areas->list[n++] = areas->list[i];
	}
	areas->n = n;
}

void nest_image_areas_done(struct nest_image_areas *areas)
{
	free(areas->list);
}
