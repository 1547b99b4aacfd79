/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_STACK_H
#define NEST_SANDBOX_IMAGE_STACK_H

#include <stdint.h>

struct nest_err;
struct nest_image_area;

/*
 * Where the stack in @area of process @pid, as its images in @dir are named, begins to be in use: what lies
 * below is what functions have left that have returned, and whatever comes next writes over it. *@ret is a
 * page's address, or @area's own start: all of it may be in use. Blocks on the disk. -EBADMSG.
 */
int nest_image_stack_top(int dir, const char *pid, const struct nest_image_area *area,
	uint64_t *ret, struct nest_err *err);

#endif
