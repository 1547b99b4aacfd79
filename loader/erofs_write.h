/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_EROFS_WRITE_H
#define NEST_LOADER_EROFS_WRITE_H

#include <stdint.h>

struct nest_err;
struct nest_erofs_entries;
struct nest_erofs_frames;

#define NEST_EROFS_WRITE_FIRST 1u /* block for data: before it the superblock lies */

/*
 * Makes an image of what was gathered: writes the inodes and directories of @entries behind the
 * frames in @fd, whose files are pieces of the stream in @frames, and the superblock before them.
 * -ERANGE: a file ends outside of the stream. Blocks on the disk. Any thread.
 */
int nest_erofs_write(int fd, struct nest_erofs_entries *entries,
	const struct nest_erofs_frames *frames, struct nest_err *err);

#endif
