/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_REWRITE_H
#define NEST_SANDBOX_IMAGE_REWRITE_H

#include <stddef.h>
#include <stdint.h>

struct nest_err;

/* Where a cell sees the directory of the snapshot that it is restored from; root's alone. */
#define NEST_IMAGE_REWRITE_DIR "/snapshot"
#define NEST_IMAGE_REWRITE_FILE "memory"
#define NEST_IMAGE_REWRITE_PATH NEST_IMAGE_REWRITE_DIR "/" NEST_IMAGE_REWRITE_FILE
/* The same of a snapshot that others are made upon, whose clones see both. */
#define NEST_IMAGE_REWRITE_PARENT_DIR "/parent-snapshot"
#define NEST_IMAGE_REWRITE_PARENT_PATH NEST_IMAGE_REWRITE_PARENT_DIR "/" NEST_IMAGE_REWRITE_FILE

/*
 * The file has room behind its pages, which costs nothing: a clone's memory that mremap() has
 * enlarged goes on with what follows in the file, and ends the process where nothing does. It is more
 * than any file's pages, so that a size tells whether it is there; who publishes the file adds it.
 */
#define NEST_IMAGE_REWRITE_ROOM (UINT64_C(128) << 30)

/*
 * Rewrites the CRIU images in directory @images so that private anonymous memory, and what was
 * written of other files' private mappings, becomes private mappings of one file,
 * NEST_IMAGE_REWRITE_FILE beside them, which a restoring CRIU finds as @path: it then reads no
 * pages, and clones share those that they don't write. Stacks and what the kernel provides stay as
 * they are, but for what lies below a stack pointer. @parent is the memory file of what this is made
 * upon, mapped by it as NEST_IMAGE_REWRITE_PARENT_PATH, or -1. Of that, and of files of root's that the
 * images name and that this process finds where they say, what lies between written parts is copied,
 * so that they are few. An area given back with MADV_DONTNEED reads as the file's bytes afterwards, not as
 * zeros. Blocks on the disk; any thread. -EBADMSG: an image isn't as CRIU 4 writes it; the images
 * are useless after any failure.
 */
int nest_image_rewrite_map(int images, const char *path, int parent, struct nest_err *err);

/*
 * Adds the room behind the pages of the memory file in @images, and has it on disk; where there is no
 * such file, does nothing. Neither digests nor packs know of the room, for it holds nothing. Blocks on
 * the disk.
 */
int nest_image_rewrite_add_room(int images, struct nest_err *err);

#endif
