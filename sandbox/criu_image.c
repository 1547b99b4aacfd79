/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/criu_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"

#define IMAGE_MAX (256u << 20)
#define COMMON_MAGIC 0x54564319u

int nest_criu_image_malformed(const char *name, struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG, "image '%s' is not as CRIU 4 writes it", name);
}

int nest_criu_image_open(int dir, const char *name, uint32_t magic, struct nest_criu_image *ret,
	struct nest_err *err)
{
	uint32_t magics[2];
	int r = nest_file_read(dir, name, IMAGE_MAX, &ret->bytes, &ret->len, err);

	if (r < 0)
		return r;
	if (ret->len < sizeof(magics))
		return nest_criu_image_malformed(name, err);
	memcpy(magics, ret->bytes, sizeof(magics));
	if (magics[0] != COMMON_MAGIC || magics[1] != magic)
		return nest_criu_image_malformed(name, err);
	ret->left = (struct nest_wire){ .at = (const uint8_t *)ret->bytes + sizeof(magics),
		.left = ret->len - sizeof(magics) };
	return 0;
}

void nest_criu_image_close(struct nest_criu_image *image)
{
	free(image->bytes);
}

int nest_criu_image_next(struct nest_criu_image *image, struct nest_wire *ret)
{
	uint32_t size;

	if (image->left.left == 0)
		return 0;
	if (image->left.left < sizeof(size))
		return -EBADMSG;
	memcpy(&size, image->left.at, sizeof(size));
	if (size > image->left.left - sizeof(size))
		return -EBADMSG;
	*ret = (struct nest_wire){ .at = image->left.at + sizeof(size), .left = size };
	image->left.at += sizeof(size) + size;
	image->left.left -= sizeof(size) + size;
	return 1;
}

int nest_criu_image_begin(struct nest_buf *out, uint32_t magic)
{
	uint32_t magics[2] = { COMMON_MAGIC, magic };

	return nest_buf_append(out, magics, sizeof(magics));
}

int nest_criu_image_put(struct nest_buf *out, const void *bytes, size_t n)
{
	uint32_t size = (uint32_t)n;
	int r = nest_buf_append(out, &size, sizeof(size));

	return r < 0 || n == 0 ? r : nest_buf_append(out, bytes, n);
}

int nest_criu_image_put_buf(struct nest_buf *out, const struct nest_buf *entry)
{
	return nest_criu_image_put(out, nest_buf_bytes(entry), entry->len);
}

int nest_criu_image_replace(
	int dir, const char *name, const struct nest_buf *bytes, struct nest_err *err)
{
	nest_autoclose int fd = openat(dir, name, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0)
		return nest_err_set(err, -errno, "open image '%s'", name);
	return nest_fd_write_all(fd, nest_buf_bytes(bytes), bytes->len, err);
}

int nest_criu_image_copy(struct nest_criu_image *image, uint32_t magic, nest_wire_put_cb *put,
	const void *arg, struct nest_buf *out)
{
	struct nest_wire entry;
	int more;
	int r = nest_criu_image_begin(out, magic);

	while (r == 0 && (more = nest_criu_image_next(image, &entry)) != 0) {
		struct nest_buf whole = NEST_BUF_INIT;

		r = more < 0 ? more : nest_wire_put_with(&whole, entry, put, arg);
		if (r == 0)
			r = nest_criu_image_put_buf(out, &whole);
		nest_buf_done(&whole);
	}
	return r;
}
