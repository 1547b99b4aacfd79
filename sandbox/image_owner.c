/* SPDX-License-Identifier: Apache-2.0 */
/* core-<tid>.img, one for each thread, names its user and group; nothing else of a worker does. */
#include "sandbox/image_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/criu_image.h"

/* Field numbers of CRIU's images/core.proto and images/creds.proto. */
enum {
	CORE_THREAD = 5,
	THREAD_CREDS = 10,
	CREDS_UID = 1,
	CREDS_FSGID = 8
};

bool nest_image_owner_is_in(const char *name)
{
	return strncmp(name, "core-", strlen("core-")) == 0;
}

static int put_cred(struct nest_buf *out, const struct nest_wire_field *field, const void *uid)
{
	return field->number >= CREDS_UID && field->number <= CREDS_FSGID
		       ? nest_wire_put_varint(out, field->number, *(const uid_t *)uid)
		       : nest_wire_put_raw(out, &field->raw);
}

static int put_thread(struct nest_buf *out, const struct nest_wire_field *field, const void *uid)
{
	return field->number == THREAD_CREDS ? nest_wire_put_inside(out, field, put_cred, uid)
					     : nest_wire_put_raw(out, &field->raw);
}

static int put_core(struct nest_buf *out, const struct nest_wire_field *field, const void *uid)
{
	return field->number == CORE_THREAD ? nest_wire_put_inside(out, field, put_thread, uid)
					    : nest_wire_put_raw(out, &field->raw);
}

int nest_image_owner_write(int images, const char *name, uid_t uid, int to, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image core = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT;
	nest_autoclose int fd = -1;
	int r = nest_criu_image_open(images, name, NEST_CRIU_IMAGE_CORE, &core, err);

	if (r < 0)
		return r;
	r = nest_criu_image_copy(&core, NEST_CRIU_IMAGE_CORE, put_core, &uid, &out);
	if (r == -EBADMSG)
		r = nest_criu_image_malformed(name, err);
	else if (r < 0)
		r = nest_err_set(err, r, "rewrite '%s'", name);
	if (r == 0) {
		fd = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = fd < 0 ? nest_err_set(err, -errno, "make '%s'", name)
			   : nest_fd_write_all(fd, nest_buf_bytes(&out), out.len, err);
	}
	nest_buf_done(&out);
	return r;
}
