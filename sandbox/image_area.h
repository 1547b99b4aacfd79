/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_AREA_H
#define NEST_SANDBOX_IMAGE_AREA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/criu_image.h"
#include "sandbox/wire.h"

struct nest_buf;
struct nest_image_sources;

/* The areas of memory (vma) of one process as its images have them, and which pages there are of each. */

#define NEST_IMAGE_PAGE 4096u

/*
 * A larger area is a reservation, of which little is in use: it would make a memory file that the file
 * system may refuse. Its pages are copied.
 */
#define NEST_IMAGE_AREA_MAX (4ull << 30)

struct nest_image_area {
	uint64_t start, end;
	uint64_t pgoff, shmid, prot, flags, status, madv;
	uint64_t present; /* pages that the image has of it */
	size_t vma;	  /* the number of its message: a part of that area, or all of it */
	bool written;	  /* a part of a file's mapping that was written to, but for gaps */
	bool taken;	  /* it is to be mapped from the new memory file */
	uint64_t offset;  /* in that */
	uint64_t top;	  /* pages below are of no use to anybody; 0: all may be */
};

struct nest_image_areas {
	struct nest_image_area *list; /* by address */
	size_t n, room;
};
#define NEST_IMAGE_AREAS_INIT \
	{                     \
		.list = NULL  \
	}

/* Reads those of @mm, the entry of an mm image, into @areas, which may hold another's. -EBADMSG, -ENOMEM. */
int nest_image_areas_read(struct nest_image_areas *areas, struct nest_wire mm);

/* Frees what @areas holds. */
void nest_image_areas_done(struct nest_image_areas *areas);

/* The one that holds address @at, or NULL. */
struct nest_image_area *nest_image_areas_find(const struct nest_image_areas *areas, uint64_t at);

/*
 * Notes of each area how many pages @pagemap, taken up behind its head, has of it. Private mappings
 * of files are divided into what was written to and what was not, where that pays. What was written has
 * gaps only where @sources have the file. Blocks on the disk. -EBADMSG, -ENOMEM.
 */
int nest_image_areas_survey(struct nest_image_areas *areas, struct nest_criu_image pagemap,
	struct nest_image_sources *sources);

/*
 * Makes one of neighbours that go on in the memory file and are alike: each is a mapping to make for
 * each clone. The areas are good for nest_image_areas_put() only then.
 */
void nest_image_areas_join(struct nest_image_areas *areas);

/* Whether a mapping of the memory file can take the place of @area. */
bool nest_image_area_may_take(const struct nest_image_area *area);

/* Appends to @out the entry @mm as @areas have become, those taken as mappings of file @file_id. */
int nest_image_areas_put(const struct nest_image_areas *areas, struct nest_wire mm,
	uint32_t file_id, struct nest_buf *out);

/* One entry of a page map: a run of pages. */
#define NEST_IMAGE_RUN_PRESENT (1u << 2)
struct nest_image_run {
	uint64_t vaddr, pages, flags;
	bool in_parent;
};

/* Reads one. -EBADMSG: it is none, or is in an image of CRIU's own parents, which none of ours has. */
int nest_image_run_read(struct nest_wire in, struct nest_image_run *ret);

#endif
