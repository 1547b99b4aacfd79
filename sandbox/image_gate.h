/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_GATE_H
#define NEST_SANDBOX_IMAGE_GATE_H

#include <sys/types.h>

struct nest_err;

/*
 * A CRIU that is asked to restore tries the kernel out for a millisecond before it reads its first
 * image, the inventory. So a restorer is asked as soon as there is one, for a directory that has
 * an inventory, which is a pipe that nothing has been written to yet: there it waits. When
 * it is known what to restore, the directory gets links to the images, and the pipe the inventory. Links
 * to images that nearly every worker has are made with it: they lead nowhere until then.
 *
 * Blocks on the disk; one thread.
 */
struct nest_image_gate {
	const char *path; /* what the links that it has from the start lead to */
	int dir;      /* to be given to CRIU; -1: none. Stays, since it would be waited for to go */
	int from, to; /* ends of the inventory's pipe; -1: closed */
};
#define NEST_IMAGE_GATE_INIT                    \
	{                                       \
		.dir = -1, .from = -1, .to = -1 \
	}

/*
 * Makes one, for a CRIU in the caller's pid namespace: a file system that nobody but CRIU sees. The images
 * will most often be found in directory @path, which is borrowed.
 */
int nest_image_gate_make(struct nest_image_gate *gate, const char *path, struct nest_err *err);

/*
 * Notes beside the images in @images, of which there come no more, those that no gate has links to: then none need
 * be looked for where they are as expected. Blocks on the disk.
 */
int nest_image_gate_note(int images, struct nest_err *err);

/* The images keep the owner that they name. */
#define NEST_IMAGE_GATE_OWNER_STAYS ((uid_t)-1)

/*
 * Has the CRIU at the gate restore what is in @images, where CRIU finds it as directory @path; the
 * tasks will belong to user and group @owner. -EBADMSG: an image isn't as CRIU 4 writes it. After
 * a failure CRIU still waits.
 */
int nest_image_gate_pass(struct nest_image_gate *gate, int images, const char *path, uid_t owner,
	struct nest_err *err);

/* Closes the pipe, which CRIU reads no more, or is to be ended for. */
void nest_image_gate_leave(struct nest_image_gate *gate);

#endif
