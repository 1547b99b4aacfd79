/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"

#define FILES "files.img"
#define LIST_MAX (1u << 20)

/* Field numbers of CRIU's images/fdinfo.proto and regfile.proto. */
enum {
	FILE_REG = 3
};
enum {
	REG_NAME = 6,
	REG_BUILD_ID = 11
};

/* One of the list, before its name with a NUL. */
struct record {
	uint64_t bytes;
	int64_t changed_s;
	uint32_t changed_ns;
	uint32_t name_bytes;
};

/* A link is what it names to whoever maps it, and would be another's to change. */
static bool look_at(const char *path, struct record *ret)
{
	struct stat st;

	if (path[0] != '/' || fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		!S_ISREG(st.st_mode) || st.st_uid != 0)
		return false;
	*ret = (struct record){ .bytes = (uint64_t)st.st_size,
		.changed_s = st.st_mtim.tv_sec,
		.changed_ns = (uint32_t)st.st_mtim.tv_nsec,
		.name_bytes = (uint32_t)strlen(path) + 1 };
	return true;
}

/* ---- at the freeze ---- */

static int put_without_build_id(
	struct nest_buf *out, const struct nest_wire_field *field, const void *arg)
{
	(void)arg;
	return field->number == REG_BUILD_ID ? 0 : nest_wire_put_raw(out, &field->raw);
}

/* Its name, which the caller frees, if it has a build id; else NULL. */
static int read_program(struct nest_wire reg, char **ret)
{
	nest_autofree char *name = NULL;
	struct nest_wire_field field;
	bool known = false;
	int r;

	*ret = NULL;
	while ((r = nest_wire_next(&reg, &field)) > 0) {
		known |= field.number == REG_BUILD_ID;
		if (field.number != REG_NAME || field.type != NEST_WIRE_BYTES)
			continue;
		free(name);
		name = strndup((const char *)field.in.at, field.in.left);
		if (!name)
			return -ENOMEM;
	}
	if (r == 0 && known)
		*ret = nest_take_ptr(name);
	return r;
}

/* @arg points to the list. */
static int put_file(struct nest_buf *out, const struct nest_wire_field *field, const void *arg)
{
	struct nest_buf *const *list = arg;
	nest_autofree char *name = NULL;
	struct record record;
	int r = 0;

	if (field->number == FILE_REG && field->type == NEST_WIRE_BYTES)
		r = read_program(field->in, &name);
	if (r < 0)
		return r;
	if (!name || !look_at(name, &record))
		return nest_wire_put_raw(out, &field->raw);
	r = nest_buf_append(*list, &record, sizeof(record));
	if (r == 0)
		r = nest_buf_append(*list, name, record.name_bytes);
	return r < 0 ? r : nest_wire_put_inside(out, field, put_without_build_id, NULL);
}

int nest_image_program_note(int images, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image files = NEST_CRIU_IMAGE_INIT;
	struct nest_buf out = NEST_BUF_INIT, list = NEST_BUF_INIT, *at = &list;
	int r = nest_criu_image_open(images, FILES, NEST_CRIU_IMAGE_FILES, &files, err);

	if (r < 0)
		return r;
	r = nest_criu_image_copy(&files, NEST_CRIU_IMAGE_FILES, put_file, &at, &out);
	if (r == -EBADMSG)
		nest_criu_image_malformed(FILES, err);
	else if (r < 0 || list.len > LIST_MAX)
		r = nest_err_set(err, r < 0 ? r : -E2BIG, "rewrite '%s'", FILES);
	else
		r = nest_file_write_atomic(images, NEST_IMAGE_PROGRAM_FILE, nest_buf_bytes(&list),
			list.len, 0600, err);
	if (r == 0)
		r = nest_criu_image_replace(images, FILES, &out, err);
	nest_buf_done(&out);
	nest_buf_done(&list);
	return r < 0 ? nest_err_wrap(err, "note what the worker has mapped") : 0;
}

/* ---- at a start ---- */

static int check(const struct record *was, const char *name, struct nest_err *err)
{
	struct record is;

	if (look_at(name, &is) && is.bytes == was->bytes && is.changed_s == was->changed_s &&
		is.changed_ns == was->changed_ns)
		return 0;
	return nest_err_say(err, -EBADMSG, "it was made with another '%s'", name);
}

static int malformed(struct nest_err *err)
{
	return nest_err_say(err, -EBADMSG, "'" NEST_IMAGE_PROGRAM_FILE "' is malformed");
}

int nest_image_program_check(int images, struct nest_err *err)
{
	nest_autofree char *list = NULL;
	size_t len = 0;
	int r = nest_file_read(images, NEST_IMAGE_PROGRAM_FILE, LIST_MAX, &list, &len, NULL);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return nest_err_set(err, r, "read '" NEST_IMAGE_PROGRAM_FILE "'");
	for (size_t at = 0; at < len;) {
		struct record record;
		const char *name = list + at + sizeof(record);

		if (len - at < sizeof(record))
			return malformed(err);
		memcpy(&record, list + at, sizeof(record));
		at += sizeof(record);
		if (record.name_bytes == 0 || record.name_bytes > len - at ||
			strnlen(name, record.name_bytes) != record.name_bytes - 1)
			return malformed(err);
		at += record.name_bytes;
		r = check(&record, name, err);
		if (r < 0)
			return r;
	}
	return 0;
}
