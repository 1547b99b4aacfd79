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
enum {
	UNIX_INO = 2
};
enum {
	PIPE_PIPE_ID = 2
};

static int put_ino(struct nest_buf *out, const struct nest_wire_field *field, const void *arg)
{
	const uint64_t *inos = arg;

	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++)
		if (field->value == inos[i])
			return nest_wire_put_varint(out, field->number, NEST_CRIU_RPC_WIRE_INO(i));
	return nest_wire_put_raw(out, &field->raw);
}

static int put_unix(struct nest_buf *out, const struct nest_wire_field *field, const void *inos)
{
	return nest_wire_put_inside(out, field, UNIX_INO, put_ino, inos);
}

static int put_pipe(struct nest_buf *out, const struct nest_wire_field *field, const void *inos)
{
	return nest_wire_put_inside(out, field, PIPE_PIPE_ID, put_ino, inos);
}

static int put_file(struct nest_buf *out, struct nest_wire file, const void *inos)
{
	struct nest_buf between = NEST_BUF_INIT;
	int r = nest_wire_put_with(&between, file, FILE_UNIX, put_unix, inos);

	if (r == 0) {
		struct nest_wire rest = { .at = (const uint8_t *)nest_buf_bytes(&between),
			.left = between.len };

		r = nest_wire_put_with(out, rest, FILE_PIPE, put_pipe, inos);
	}
	nest_buf_done(&between);
	return r;
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
