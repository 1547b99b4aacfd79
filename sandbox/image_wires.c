/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.img has the channel, a unix socket, and the outputs, which are pipes. What is in these is no
 * part of a snapshot: it is the host's to read.
 */
#include "sandbox/image_wires.h"

#include <errno.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/criu_image.h"

#define FILES "files.img"

/* Field numbers of CRIU's images/fdinfo.proto, sk-unix.proto and pipe.proto. */
enum {
	FILE_UNIX = 16,
	FILE_PIPE = 18
};
/* Of a socket its "ino", of a pipe its "pipe_id". */
#define INO 2

static int put_ino(struct nest_buf *out, const struct nest_wire_field *field, const void *arg)
{
	const uint64_t *inos = arg;

	for (int i = 0; field->number == INO && i < NEST_CRIU_RPC_WIRES; i++)
		if (field->value == inos[i])
			return nest_wire_put_varint(out, INO, NEST_CRIU_RPC_WIRE_INO(i));
	return nest_wire_put_raw(out, &field->raw);
}

static int put_file(struct nest_buf *out, const struct nest_wire_field *field, const void *inos)
{
	return field->number == FILE_UNIX || field->number == FILE_PIPE
		       ? nest_wire_put_inside(out, field, put_ino, inos)
		       : nest_wire_put_raw(out, &field->raw);
}

int nest_image_wires_renumber(
	int images, const uint64_t inos[NEST_CRIU_RPC_WIRES], struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image files = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT;
	int r = nest_criu_image_open(images, FILES, NEST_CRIU_IMAGE_FILES, &files, err);

	if (r < 0)
		return r;
	r = nest_criu_image_copy(&files, NEST_CRIU_IMAGE_FILES, put_file, inos, &out);
	if (r == -EBADMSG)
		nest_criu_image_malformed(FILES, err);
	else if (r < 0)
		nest_err_set(err, r, "rewrite '%s'", FILES);
	else
		r = nest_criu_image_replace(images, FILES, &out, err);
	nest_buf_done(&out);
	return r < 0 ? nest_err_wrap(err, "renumber the worker's wires") : 0;
}
