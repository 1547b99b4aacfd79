/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_UNPACK_FRAMES_H
#define NEST_LOADER_UNPACK_FRAMES_H

struct nest_draft;
struct nest_err;

/*
 * Unpacks the archive that the image in @fd (borrowed) was made of (nest_draft_make_image()) into
 * @draft, where it can't be mounted or is to be merged with others: its frames are still there, and
 * nothing else of the image is read but its superblock. Blocks on the disk. Any thread.
 */
int nest_unpack_frames(int fd, struct nest_draft *draft, struct nest_err *err);

#endif
