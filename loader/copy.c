/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A local directory into a draft. It is listed first and copied then, in order of the names, so
 * that one digest serves for both; every entry is opened beneath the directory without following
 * a link (loader/beneath.h), so that only two descriptors are open however deep it is.
 *
 * The digest is SHA-256 over, for each entry: type ('d', 'f' file, 'x' executable file, 'l'
 * link), length of the name (32 bit little-endian), name; then for files the size (64 bit) and
 * the bytes, for links the length of the target (32 bit) and the target. A first line says the
 * version of this form.
 *
 * Blocks are shared with the source where the file system can (FICLONE) and the digest is taken
 * of what was shared. Elsewhere the bytes are read once, for the digest and the copy alike;
 * copy_file_range would read them a second time.
 *
 * The directory belongs to somebody who may be writing to it. A file whose size or times change
 * while it is read is an error, as the copy would be of a state that never was.
 */
#include "loader/copy.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/beneath.h"
#include "loader/draft.h"
#include "loader/name.h"

#define CHUNK (256u * 1024)
static const char version_line[] = "nestlet tree 1\n";

struct list {
	char **names; /* clean, relative to the directory */
	size_t n;
	size_t cap;
};

struct copy {
	int root_fd;
	const struct nest_draft_limits *limits;
	uint64_t bytes;		  /* of the files taken so far */
	struct nest_draft *draft; /* NULL: only the digest */
	struct nest_digest *digest;
	char *chunk;
	struct list list;
	/* which entries are left out; NULL: none */
	int (*hidden)(void *arg, const char *name, mode_t mode, struct nest_err *err);
	void *hidden_arg;
};

static int fail(struct nest_err *err, int code, const char *verb, const char *name)
{
	char quoted[NEST_NAME_QUOTED_CAP];

	return nest_err_set(
		err, code, "%s %s", verb, nest_name_quote(name[0] ? name : ".", quoted));
}

static int changed(struct nest_err *err, const char *name)
{
	char quoted[NEST_NAME_QUOTED_CAP];

	return nest_err_say(err, -EBUSY,
		"%s changed while it was read: try again when nothing writes to the directory",
		nest_name_quote(name, quoted));
}

static void list_done(struct list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->names[i]);
	free(list->names);
}

static int list_grow(struct list *list)
{
	size_t cap = list->cap ? 2 * list->cap : 64;
	char **names = reallocarray(list->names, cap, sizeof(*names));

	if (!names)
		return -ENOMEM;
	list->names = names;
	list->cap = cap;
	return 0;
}

static int list_add(struct list *list, const char *dir, const char *name, struct nest_err *err)
{
	size_t cap = strlen(dir) + 1 + strlen(name) + 1;
	nest_autofree char *path = NULL;

	if (cap > NEST_NAME_CAP)
		return fail(err, -ENAMETOOLONG, "list", dir);
	if (list->n == list->cap && list_grow(list) < 0)
		return fail(err, -ENOMEM, "list", dir);
	path = malloc(cap);
	if (!path)
		return fail(err, -ENOMEM, "list", dir);
	snprintf(path, cap, "%s%s%s", dir, dir[0] ? "/" : "", name);
	list->names[list->n++] = nest_take_ptr(path);
	return 0;
}

static int list_dir(struct copy *copy, const char *dir, struct nest_err *err)
{
	nest_autoclose int fd = nest_beneath_open(copy->root_fd, dir, O_RDONLY | O_DIRECTORY);
	nest_autoclosedir DIR *stream = NULL;

	if (fd < 0)
		return fail(err, fd, "list", dir);
	stream = fdopendir(fd);
	if (!stream)
		return fail(err, -errno, "list", dir);
	fd = -1;
	for (;;) {
		const struct dirent *entry;
		int rc;

		if (copy->limits->cancel && atomic_load(copy->limits->cancel))
			return nest_err_say(err, -ECANCELED, "the load was abandoned");
		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return errno ? fail(err, -errno, "list", dir) : 0;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (copy->list.n >= copy->limits->max_entries)
			return nest_err_say(err, -EFBIG, "code tree has more than %llu entries",
				(unsigned long long)copy->limits->max_entries);
		rc = list_add(&copy->list, dir, entry->d_name, err);
		if (rc < 0)
			return rc;
	}
}

/* Opens an entry so that nothing happens by it, and says what it is. */
static int look(
	struct copy *copy, const char *name, int *ret_fd, struct stat *st, struct nest_err *err)
{
	nest_autoclose int fd = nest_beneath_open(copy->root_fd, name, O_PATH);

	if (fd == -ENOENT)
		return changed(err, name);
	if (fd < 0)
		return fail(err, fd, "open", name);
	if (fstat(fd, st) < 0)
		return fail(err, -errno, "look at", name);
	*ret_fd = nest_take_fd(fd);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The list is its own queue: what is appended while it is walked is walked too. */
static int list_all(struct copy *copy, struct nest_err *err)
{
	int rc = list_dir(copy, "", err);

	for (size_t i = 0; rc == 0 && i < copy->list.n; i++) {
		nest_autoclose int fd = -1;
		struct stat st;

		rc = look(copy, copy->list.names[i], &fd, &st, err);
		if (rc == 0 && S_ISDIR(st.st_mode))
			rc = list_dir(copy, copy->list.names[i], err);
	}
	if (rc == 0 && copy->list.n > 1)
		qsort(copy->list.names, copy->list.n, sizeof(*copy->list.names), compare);
	return rc;
}

static int put_number32(struct copy *copy, size_t value, struct nest_err *err)
{
	uint32_t le = htole32((uint32_t)value);

	return nest_digest_update(copy->digest, &le, sizeof(le), err);
}

static int put_string(struct copy *copy, const char *s, struct nest_err *err)
{
	int rc = put_number32(copy, strlen(s), err);

	return rc < 0 ? rc : nest_digest_update(copy->digest, s, strlen(s), err);
}

static int put_head(struct copy *copy, char type, const char *name, struct nest_err *err)
{
	int rc = nest_digest_update(copy->digest, &type, 1, err);

	return rc < 0 ? rc : put_string(copy, name, err);
}

static int take_dir(struct copy *copy, const char *name, struct nest_err *err)
{
	int rc = put_head(copy, 'd', name, err);

	if (rc == 0 && copy->draft)
		rc = nest_draft_add_dir(copy->draft, name, err);
	return rc;
}

static int take_link(struct copy *copy, const char *name, int fd, struct nest_err *err)
{
	char target[NEST_NAME_CAP];
	ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);
	int rc;

	if (n < 0)
		return fail(err, -errno, "read link", name);
	target[n] = '\0';
	rc = nest_name_check_target(name, target, err);
	if (rc == 0)
		rc = put_head(copy, 'l', name, err);
	if (rc == 0)
		rc = put_string(copy, target, err);
	if (rc == 0 && copy->draft)
		rc = nest_draft_add_symlink(copy->draft, name, target, err);
	return rc;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Reads one chunk of the source, or of its clone, of which the digest is then taken. */
static ssize_t read_chunk(struct copy *copy, int fd, bool cloned, uint64_t offset)
{
	ssize_t n;

	do
		n = cloned ? nest_draft_read(copy->draft, copy->chunk, CHUNK, offset)
			   : pread(fd, copy->chunk, CHUNK, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n;
}

static int take_bytes(
	struct copy *copy, const char *name, int fd, uint64_t size, struct nest_err *err)
{
	bool cloned = copy->draft && nest_draft_clone(copy->draft, fd) == 0;
	uint64_t offset = 0;

	while (offset < size) {
		ssize_t n = read_chunk(copy, fd, cloned, offset);
		int rc;

		if (n < 0)
			return fail(err, -errno, "read", name);
		if (n == 0 || (uint64_t)n > size - offset)
			return changed(err, name);
		if (copy->limits->cancel && atomic_load(copy->limits->cancel))
			return nest_err_say(err, -ECANCELED, "the load was abandoned");
		rc = nest_digest_update(copy->digest, copy->chunk, (size_t)n, err);
		if (rc == 0 && copy->draft && !cloned)
			rc = nest_draft_write(copy->draft, copy->chunk, (size_t)n, offset, err);
		if (rc < 0)
			return rc;
		offset += (uint64_t)n;
	}
	return 0;
}

static int take_file(
	struct copy *copy, const char *name, const struct stat *seen, struct nest_err *err)
{
	/* O_NONBLOCK: were a fifo put there since it was looked at, opening it must not wait. */
	nest_autoclose int fd =
		nest_beneath_open(copy->root_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	bool executable = (seen->st_mode & 0111) != 0;
	uint64_t size = (uint64_t)seen->st_size;
	uint64_t le = htole64(size);
	struct stat st;
	int rc;

	if (fd < 0)
		return fail(err, fd, "open", name);
	if (fstat(fd, &st) < 0)
		return fail(err, -errno, "look at", name);
	if (!S_ISREG(st.st_mode) || !same_state(seen, &st))
		return changed(err, name);
	if (size > copy->limits->max_bytes - copy->bytes)
		return nest_err_say(err, -EFBIG, "code tree larger than %llu bytes",
			(unsigned long long)copy->limits->max_bytes);
	copy->bytes += size;
	rc = put_head(copy, executable ? 'x' : 'f', name, err);
	if (rc == 0)
		rc = nest_digest_update(copy->digest, &le, sizeof(le), err);
	if (rc == 0 && copy->draft)
		rc = nest_draft_begin_file(copy->draft, name, seen->st_size, executable, err);
	if (rc == 0)
		rc = take_bytes(copy, name, fd, size, err);
	if (rc == 0 && (fstat(fd, &st) < 0 || !same_state(seen, &st)))
		rc = changed(err, name);
	if (rc == 0 && copy->draft)
		rc = nest_draft_end_file(copy->draft, size, executable, seen->st_mtim.tv_sec, err);
	return rc;
}

static int take_entry(struct copy *copy, const char *name, struct nest_err *err)
{
	char quoted[NEST_NAME_QUOTED_CAP];
	nest_autoclose int fd = -1;
	struct stat st;
	int rc = look(copy, name, &fd, &st, err);

	if (rc == 0 && copy->hidden)
		rc = copy->hidden(copy->hidden_arg, name, st.st_mode, err);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	if (S_ISDIR(st.st_mode))
		return take_dir(copy, name, err);
	if (S_ISLNK(st.st_mode))
		return take_link(copy, name, fd, err);
	if (S_ISREG(st.st_mode))
		return take_file(copy, name, &st, err);
	return nest_err_say(err, -EINVAL,
		"%s is %s: a code tree holds files, directories and links only",
		nest_name_quote(name, quoted),
		S_ISFIFO(st.st_mode)   ? "a fifo"
		: S_ISSOCK(st.st_mode) ? "a socket"
				       : "a device");
}

static int run(struct copy *copy, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	int rc = nest_digest_update(copy->digest, version_line, sizeof(version_line) - 1, err);

	if (rc == 0)
		rc = list_all(copy, err);
	for (size_t i = 0; rc == 0 && i < copy->list.n; i++)
		rc = take_entry(copy, copy->list.names[i], err);
	return rc < 0 ? rc : nest_digest_final(copy->digest, ret_hex, err);
}

static int copy_root(struct copy *copy, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	nest_autodigest struct nest_digest *digest = NULL;
	nest_autofree char *chunk = malloc(CHUNK);
	int rc;

	if (!chunk)
		return nest_err_set(err, -ENOMEM, "read directory");
	rc = nest_digest_new(&digest, err);
	if (rc < 0)
		return rc;
	copy->digest = digest;
	copy->chunk = chunk;
	rc = run(copy, ret_hex, err);
	list_done(&copy->list);
	return rc;
}

int nest_copy_dir(const char *path, const struct nest_draft_limits *limits,
	struct nest_draft *draft, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	nest_autoclose int root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct copy copy = { .root_fd = root_fd, .limits = limits, .draft = draft };

	if (root_fd < 0)
		return nest_err_set(err, -errno, "open directory");
	return copy_root(&copy, ret_hex, err);
}

int nest_copy_into(int root_fd, const struct nest_draft_limits *limits, struct nest_draft *draft,
	int (*hidden)(void *arg, const char *name, mode_t mode, struct nest_err *err), void *arg,
	struct nest_err *err)
{
	struct copy copy = { .root_fd = root_fd,
		.limits = limits,
		.draft = draft,
		.hidden = hidden,
		.hidden_arg = arg };
	char unused[NEST_DIGEST_HEX_LEN];

	return copy_root(&copy, unused, err);
}
