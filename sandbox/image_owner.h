/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_OWNER_H
#define NEST_SANDBOX_IMAGE_OWNER_H

#include <stdbool.h>
#include <sys/types.h>

struct nest_err;

/* Whether the image called @name says whose a task is. */
bool nest_image_owner_is_in(const char *name);

/*
 * Writes such an image, @name of directory @images, anew to directory @to, where the task belongs to
 * user and group @uid. Blocks on the disk; any thread. -EBADMSG: it isn't as CRIU 4 writes it.
 */
int nest_image_owner_write(int images, const char *name, uid_t uid, int to, struct nest_err *err);

#endif
