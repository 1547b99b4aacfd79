/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_LOADER_MADE_H
#define NEST_TESTS_UNIT_LOADER_MADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/*
 * Archives cut into zstd frames to order, and a reader of the images that the loader makes of them,
 * which shares no code with what writes them. For unit tests and a fuzz target.
 */

/* How a stream is cut: frames of these sizes, over and over; a size of 0 is an empty frame. */
struct made_cut {
	const char *name;
	const size_t *sizes;
	size_t n;
	bool unsized;	/* frames don't tell the size of their content */
	bool skippable; /* a skippable frame behind each third one, and at the end */
	unsigned
		window_bits; /* not compressed at all, with this window; 0: no more than the content */
};

/* Appends @n bytes, compressed so. Aborts when there is no memory. */
void made_frames(const void *bytes, size_t n, const struct made_cut *cut, struct nest_buf *ret);

/* What is wrong with an image, by EROFS's rules and the loader's own; NULL: nothing. */
const char *made_fault(const void *image, size_t n);

#endif
