/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_OWNER_H
#define NEST_SANDBOX_IMAGE_OWNER_H

#include <sys/types.h>

struct nest_err;

/*
 * Makes in directory @to, which is empty, what a restoring CRIU takes for the images of @images,
 * but whose tasks belong to user and group @uid: images that name their owner are written anew, for
 * the others there is a link to the same name below @path. Blocks on the disk; any thread. -EBADMSG:
 * an image isn't as CRIU 4 writes it.
 */
int nest_image_owner_set(int images, const char *path, uid_t uid, int to, struct nest_err *err);

#endif
