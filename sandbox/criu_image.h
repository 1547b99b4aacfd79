/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CRIU_IMAGE_H
#define NEST_SANDBOX_CRIU_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "sandbox/wire.h"

struct nest_buf;
struct nest_err;

/*
 * One of CRIU's image files: two magic numbers, then entries, each a 32-bit length and a protobuf
 * message. Blocks on the disk; any thread.
 */
struct nest_criu_image {
	char *bytes;
	size_t len;
	struct nest_wire left; /* the entries not taken yet */
};
#define NEST_CRIU_IMAGE_INIT  \
	{                     \
		.bytes = NULL \
	}

/* The second magic number, which says what the entries are. */
#define NEST_CRIU_IMAGE_CORE 0x55053847u
#define NEST_CRIU_IMAGE_FILES 0x56303138u
#define NEST_CRIU_IMAGE_MM 0x57492820u
#define NEST_CRIU_IMAGE_PAGEMAP 0x56084025u

/* What is wrong with an image that can't be understood: -EBADMSG. */
int nest_criu_image_malformed(const char *name, struct nest_err *err);

/* Reads image @name of directory @dir, of kind @magic. -EBADMSG: it is another's, or none. */
int nest_criu_image_open(int dir, const char *name, uint32_t magic, struct nest_criu_image *ret,
	struct nest_err *err);

/* Frees what an opened one, or one that is NEST_CRIU_IMAGE_INIT, holds. */
void nest_criu_image_close(struct nest_criu_image *image);
#define nest_autocriuimage __attribute__((cleanup(nest_criu_image_close)))

/* Takes the next entry, which lies in @image: 1, 0 at the end, or -EBADMSG. */
int nest_criu_image_next(struct nest_criu_image *image, struct nest_wire *ret);

/* Append the magic numbers, or an entry; 0 or -ENOMEM. */
int nest_criu_image_begin(struct nest_buf *out, uint32_t magic);
int nest_criu_image_put(struct nest_buf *out, const void *bytes, size_t n);
int nest_criu_image_put_buf(struct nest_buf *out, const struct nest_buf *entry);

/* Writes @bytes to image @name of directory @dir, in the place of what it holds. */
int nest_criu_image_replace(
	int dir, const char *name, const struct nest_buf *bytes, struct nest_err *err);

/*
 * Appends a copy of @image, of kind @magic, whose entries' fields are as @put makes them, given @arg:
 * see nest_wire_put_with().
 */
int nest_criu_image_copy(struct nest_criu_image *image, uint32_t magic, nest_wire_put_cb *put,
	const void *arg, struct nest_buf *out);

#endif
