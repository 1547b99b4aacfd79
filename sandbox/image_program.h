/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_PROGRAM_H
#define NEST_SANDBOX_IMAGE_PROGRAM_H

struct nest_err;

/*
 * The programs and libraries that the processes of a snapshot have mapped: memory that was frozen with one of them is
 * good with no other. For each CRIU keeps the build id, and looks it up in the file at every restore, which takes some
 * 12 microseconds. What root owns is known as well by its size and its time of change, at a tenth of that.
 */

/* Beside the images. */
#define NEST_IMAGE_PROGRAM_FILE "programs"

/*
 * Notes those files that are root's beside the images in @images, and takes their build ids out of these. They are looked
 * at by their names in this process's mount namespace. Blocks on the disk. -EBADMSG: an image isn't as CRIU 4 writes it.
 */
int nest_image_program_note(int images, struct nest_err *err);

/*
 * Whether the files noted in @images are what they were. -EBADMSG: one isn't, or the list is malformed. Without a list
 * CRIU knows them all by their build ids. Blocks on the disk.
 */
int nest_image_program_check(int images, struct nest_err *err);

#endif
