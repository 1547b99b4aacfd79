/* SPDX-License-Identifier: Apache-2.0 */
/* core-<tid>.img, one for each thread, names its user and group; nothing else of a worker does. */
#include "sandbox/image_owner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static int put_creds(struct nest_buf *out, struct nest_wire in, uid_t uid)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		if (field.number >= CREDS_UID && field.number <= CREDS_FSGID)
			r = nest_wire_put_varint(out, field.number, uid);
		else
			r = nest_wire_put_raw(out, &field.raw);
		if (r < 0)
			return r;
	}
	return r;
}

/* Copies message @in with its field @number, a message, replaced by what @put makes of that. */
static int put_with(struct nest_buf *out, struct nest_wire in, uint32_t number,
	int (*put)(struct nest_buf *out, struct nest_wire in, uid_t uid), uid_t uid)
{
	struct nest_wire_field field;
	int r;

	while ((r = nest_wire_next(&in, &field)) > 0) {
		struct nest_buf inner = NEST_BUF_INIT;

		if (field.number == number && field.type == NEST_WIRE_BYTES) {
			r = put(&inner, field.in, uid);
			if (r == 0)
				r = nest_wire_put_bytes(
					out, number, nest_buf_bytes(&inner), inner.len);
		} else {
			r = nest_wire_put_raw(out, &field.raw);
		}
		nest_buf_done(&inner);
		if (r < 0)
			return r;
	}
	return r;
}

static int put_thread(struct nest_buf *out, struct nest_wire in, uid_t uid)
{
	return put_with(out, in, THREAD_CREDS, put_creds, uid);
}

static int rewrite(struct nest_criu_image *core, uid_t uid, struct nest_buf *out)
{
	struct nest_wire entry;
	int more;
	int r = nest_criu_image_begin(out, NEST_CRIU_IMAGE_CORE);

	while (r == 0 && (more = nest_criu_image_next(core, &entry)) != 0) {
		struct nest_buf whole = NEST_BUF_INIT;

		r = more < 0 ? more : put_with(&whole, entry, CORE_THREAD, put_thread, uid);
		if (r == 0)
			r = nest_criu_image_put_buf(out, &whole);
		nest_buf_done(&whole);
	}
	return r;
}

static int write_core(int images, const char *name, uid_t uid, int to, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image core = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT;
	nest_autoclose int fd = -1;
	int r = nest_criu_image_open(images, name, NEST_CRIU_IMAGE_CORE, &core, err);

	if (r < 0)
		return r;
	r = rewrite(&core, uid, &out);
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

static int link_image(const char *path, const char *name, int to, struct nest_err *err)
{
	char target[PATH_MAX];

	snprintf(target, sizeof(target), "%s/%s", path, name);
	return symlinkat(target, to, name) < 0 ? nest_err_set(err, -errno, "link '%s'", name) : 0;
}

int nest_image_owner_set(int images, const char *path, uid_t uid, int to, struct nest_err *err)
{
	int copy = openat(images, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nest_autoclosedir DIR *list = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	int r = 0;

	if (!list) {
		if (copy >= 0)
			close(copy);
		return nest_err_set(err, -errno, "list the images");
	}
	while (r == 0 && (entry = readdir(list))) {
		if (entry->d_name[0] == '.')
			continue;
		r = strncmp(entry->d_name, "core-", 5) == 0
			    ? write_core(images, entry->d_name, uid, to, err)
			    : link_image(path, entry->d_name, to, err);
	}
	return r < 0 ? nest_err_wrap(err, "change the owner of the images") : 0;
}
