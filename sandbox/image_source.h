/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_SOURCE_H
#define NEST_SANDBOX_IMAGE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "sandbox/wire.h"

/*
 * The files that areas of an image map, by their ids in it: what was not written to of a private mapping
 * is as it is in the file.
 */

struct nest_image_source;
struct nest_image_sources {
	struct nest_image_source *list;
	size_t n, room;
};
/* Notes that @fd is open on file @id. Borrows @fd. -ENOMEM. */
int nest_image_sources_add_open(struct nest_image_sources *sources, uint64_t id, int fd);

/* Notes that file @id is called @path, in this process's mount namespace. -ENOMEM. */
int nest_image_sources_add(struct nest_image_sources *sources, uint64_t id, struct nest_wire path);

/*
 * The descriptor to read file @id by, or -1: it can't be had. Of those called by a path only regular
 * files of root's are opened, which no function changes. Blocks on the disk.
 */
int nest_image_sources_fd(struct nest_image_sources *sources, uint64_t id);

/* Closes and frees what @sources holds. */
void nest_image_sources_done(struct nest_image_sources *sources);

#endif
