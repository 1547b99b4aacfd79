/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_TMP_IMAGE_H
#define NEST_SANDBOX_TMP_IMAGE_H

#include <sys/types.h>

struct nest_err;

/*
 * What a function had in /tmp and /dev/shm when it was frozen, as the file "tmp.img" among its
 * images: each clone gets files of its own. Directories, regular files and symbolic links with mode
 * and time; hard links become files apart.
 */
#define NEST_TMP_IMAGE "tmp.img"

/*
 * Writes it into directory @images, unless both are empty. For a process that sees the cell's mounts,
 * while all that could change them is stopped. -EOPNOTSUPP names what can't be kept: a socket, a
 * fifo, too many or too deep. Blocks on the disk.
 */
int nest_tmp_image_save(int images, struct nest_err *err);

/*
 * Makes the same in the empty /tmp and /dev/shm of the caller, for user @uid. No file: nothing to do.
 * -EBADMSG: it is malformed. Blocks on the disk.
 */
int nest_tmp_image_load(int images, uid_t uid, struct nest_err *err);

#endif
