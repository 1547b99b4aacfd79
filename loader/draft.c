/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why nothing can be written outside a draft, whatever its source says:
 *
 *   - names are cleaned first (loader/name.h): relative, no "..";
 *   - the directory of an entry is opened beneath the draft's root without following any link
 *     (loader/beneath.h), and the entry is then made in it by its last component alone;
 *   - it is made by calls that only ever create (mkdirat, symlinkat, linkat, O_CREAT|O_EXCL), so
 *     an entry that comes twice is an error and never a write through the first;
 *   - the targets of symbolic links stay in the tree, so that no reader is led out later.
 *
 * libarchive's own disk writer is not used: its checks (SECURE_NODOTDOT, SECURE_SYMLINKS) are
 * made on paths, entry by entry, and it restores more than a tree may have (owners, set-id bits,
 * xattrs, ACLs, flags). A draft knows directories (0755), files (0644 or 0755) and links, and
 * nothing else.
 *
 * Limits are charged before the bytes or the entry exist.
 */
#include "loader/draft.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/beneath.h"
#include "loader/draft_file.h"
#include "loader/draft_image.h"
#include "loader/name.h"
#include "loader/threads.h"
#include "loader/tree_image.h"
#include "loader/writers.h"

#define BLOCK 4096u	  /* what file systems commonly allocate at least */
#define INLINE_TARGET 59u /* the longest link target that ext4 and others keep in the inode */

struct nest_draft {
	int root_fd;
	bool masked; /* what is created doesn't get the mode that was asked for */
	struct nest_draft_image *image;	  /* what it becomes instead of a directory; or NULL */
	struct nest_draft_file *file;	  /* the one begun, or NULL */
	struct nest_writers *writers;	  /* NULL: the caller's thread writes all */
	struct nest_writers_piece *piece; /* of the file begun, not handed over yet */
	struct nest_draft_loan loan;
	int dir_fd; /* of the entry added last: the next one mostly lies beside it */
	char dir[NEST_NAME_CAP];
	uint64_t file_charged; /* bytes of the file begun that count already */
	uint64_t visits;
	struct nest_draft_limits limits;
	struct nest_draft_totals totals;
};

int nest_draft_new(int staging_fd, const char *name, const struct nest_draft_limits *limits,
	struct nest_draft **ret, struct nest_err *err)
{
	nest_autodraft struct nest_draft *draft = calloc(1, sizeof(*draft));
	struct stat st;

	if (!draft)
		return nest_err_set(err, -ENOMEM, "start a code tree");
	draft->root_fd = draft->dir_fd = -1;
	draft->limits = *limits;
	draft->totals.disk = BLOCK;
	if (mkdirat(staging_fd, name, 0755) < 0)
		return nest_err_set(err, -errno, "make staging directory '%s'", name);
	draft->root_fd = openat(staging_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (draft->root_fd < 0)
		return nest_err_set(err, -errno, "open staging directory '%s'", name);
	/*
	 * The process's umask, or the directory's default ACL, may be anything. What they made of
	 * this directory they make of all that is created in it, which then takes a second call.
	 */
	if (fstat(draft->root_fd, &st) < 0)
		return nest_err_set(err, -errno, "look at staging directory '%s'", name);
	draft->masked = (st.st_mode & 07777) != 0755;
	if (draft->masked && fchmod(draft->root_fd, 0755) < 0)
		return nest_err_set(err, -errno, "set the mode of staging directory '%s'", name);
	*ret = nest_take_ptr(draft);
	return 0;
}

void nest_draft_free(struct nest_draft *draft)
{
	if (!draft)
		return;
	nest_draft_lend(draft, NULL);
	nest_writers_free(draft->writers);
	free(draft->piece);
	nest_draft_image_free(draft->image);
	nest_draft_file_free(draft->file);
	nest_cleanup_close(&draft->dir_fd);
	nest_cleanup_close(&draft->root_fd);
	free(draft);
}

void nest_draft_totals(const struct nest_draft *draft, struct nest_draft_totals *ret)
{
	*ret = draft->totals;
}

/* Sets the error of a system call that concerns one entry. */
static int fail(struct nest_err *err, int code, const char *verb, const char *name)
{
	char quoted[NEST_NAME_QUOTED_CAP];

	if (code == -EEXIST)
		return nest_err_say(
			err, code, "entry %s appears twice", nest_name_quote(name, quoted));
	if (code == -ELOOP || code == -ENOTDIR)
		return nest_err_say(err, -ENOTDIR,
			"entry %s is, or lies under, what came before as a link or a file",
			nest_name_quote(name, quoted));
	return nest_err_set(err, code, "%s entry %s", verb, nest_name_quote(name, quoted));
}

static int too_many(const struct nest_draft *draft, struct nest_err *err)
{
	return nest_err_say(err, -EFBIG, "code tree has more than %llu entries",
		(unsigned long long)draft->limits.max_entries);
}

/* The same of what draft->image answers: what was added counts. */
static int word_image(
	struct nest_draft *draft, int rc, const char *verb, const char *name, struct nest_err *err)
{
	draft->totals.entries = nest_draft_image_entries(draft->image);
	if (rc == -EFBIG)
		return too_many(draft, err);
	return rc < 0 ? fail(err, rc, verb, name) : 0;
}

static int check_cancel(const struct nest_draft *draft, struct nest_err *err)
{
	if (draft->limits.cancel && atomic_load(draft->limits.cancel))
		return nest_err_say(err, -ECANCELED, "the load was abandoned");
	return 0;
}

int nest_draft_visit(struct nest_draft *draft, struct nest_err *err)
{
	int rc = check_cancel(draft, err);

	if (rc < 0)
		return rc;
	/* Twice: archives name their directories, and some of them again. */
	if (draft->visits / 2 > draft->limits.max_entries)
		return too_many(draft, err);
	draft->visits++;
	return 0;
}

static int charge_entry(struct nest_draft *draft, struct nest_err *err)
{
	if (draft->totals.entries >= draft->limits.max_entries)
		return too_many(draft, err);
	draft->totals.entries++;
	return 0;
}

/* Counts the file begun as @size bytes long, if it isn't yet. */
static int charge_file(struct nest_draft *draft, uint64_t size, struct nest_err *err)
{
	uint64_t more = size > draft->file_charged ? size - draft->file_charged : 0;

	if (more > draft->limits.max_bytes - draft->totals.bytes)
		return nest_err_say(err, -EFBIG, "code tree larger than %llu bytes",
			(unsigned long long)draft->limits.max_bytes);
	draft->file_charged += more;
	draft->totals.bytes += more;
	return 0;
}

/* Makes one directory whose parent is open; an existing one is fine. */
static int make_dir(struct nest_draft *draft, int parent_fd, const char *name, struct nest_err *err)
{
	int rc;

	if (mkdirat(parent_fd, name, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	rc = charge_entry(draft, err);
	if (rc < 0)
		return rc;
	draft->totals.disk += BLOCK;
	return draft->masked && fchmodat(parent_fd, name, 0755, 0) < 0 ? -errno : 0;
}

/*
 * Opens the nearest directory above @clean that is there; *@ret_rest is what follows it. Mostly that
 * is the one right above, which is tried first.
 */
static int open_above(const struct nest_draft *draft, const char *clean, const char **ret_rest)
{
	char above[NEST_NAME_CAP];
	size_t n = strlen(clean);
	int dir;

	memcpy(above, clean, n + 1);
	do {
		while (n > 0 && above[n - 1] != '/')
			n--;
		*ret_rest = clean + n;
		n -= n > 0;
		above[n] = '\0';
		dir = nest_beneath_open(draft->root_fd, above, O_PATH | O_DIRECTORY);
	} while (dir == -ENOENT && n > 0);
	return dir;
}

/* Opens directory @clean, making what is missing of it. Errors are left to the caller to word. */
static int make_dirs(struct nest_draft *draft, const char *clean, int *ret_fd, struct nest_err *err)
{
	const char *rest;
	nest_autoclose int dir = open_above(draft, clean, &rest);
	char part[NEST_NAME_CAP];

	if (dir < 0)
		return dir;
	for (const char *p = rest; *p;) {
		size_t n = strcspn(p, "/");
		int next;
		int rc;

		memcpy(part, p, n);
		part[n] = '\0';
		rc = make_dir(draft, dir, part, err);
		if (rc < 0)
			return rc;
		next = nest_beneath_open(dir, part, O_PATH | O_DIRECTORY);
		if (next < 0)
			return next;
		close(dir);
		dir = next;
		p += n + (p[n] == '/');
	}
	*ret_fd = nest_take_fd(dir);
	return 0;
}

/* Makes @clean the directory that the draft holds open, which is created if missing. */
static int enter(struct nest_draft *draft, const char *clean, struct nest_err *err)
{
	int fd;

	if (draft->dir_fd >= 0 && strcmp(draft->dir, clean) == 0)
		return 0;
	fd = nest_beneath_open(draft->root_fd, clean, O_PATH | O_DIRECTORY);
	if (fd == -ENOENT) {
		int rc = make_dirs(draft, clean, &fd, err);

		if (rc < 0)
			return rc;
	}
	if (fd < 0)
		return fd;
	nest_cleanup_close(&draft->dir_fd);
	draft->dir_fd = fd;
	strcpy(draft->dir, clean);
	return 0;
}

/* Words what enter() and its like returned, unless @err has words already (a limit). */
static int word(struct nest_err *err, int rc, const char *verb, const char *name)
{
	return err && err->code != 0 ? err->code : fail(err, rc, verb, name);
}

/* As enter(), in an image, for the entry @name. */
static int enter_image(
	struct nest_draft *draft, const char *clean, const char *name, struct nest_err *err)
{
	int rc;

	if (strcmp(draft->dir, clean) == 0)
		return 0;
	rc = word_image(draft, nest_draft_image_add_dir(draft->image, clean),
		"make the directory of", name, err);
	if (rc == 0)
		strcpy(draft->dir, clean);
	return rc;
}

/*
 * Cleans @name and enters its directory; *@ret_last is its last component, within @clean. An image
 * has no directories to be entered, and knows names as a whole. A name that means the tree itself is
 * refused here.
 */
static int approach(struct nest_draft *draft, const char *name, char clean[NEST_NAME_CAP],
	const char **ret_last, struct nest_err *err)
{
	char parent[NEST_NAME_CAP];
	char *slash;
	size_t n;
	int rc = check_cancel(draft, err);

	if (rc < 0)
		return rc;
	rc = nest_name_clean(name, clean, err);
	if (rc < 0)
		return rc;
	if (clean[0] == '\0')
		return fail(err, -EEXIST, "make", name);
	slash = strrchr(clean, '/');
	n = slash ? (size_t)(slash - clean) : 0;
	memcpy(parent, clean, n);
	parent[n] = '\0';
	if (draft->image)
		return enter_image(draft, parent, name, err);
	rc = enter(draft, parent, err);
	if (rc < 0)
		return word(err, rc, "make the directory of", name);
	*ret_last = slash ? slash + 1 : clean;
	return 0;
}

int nest_draft_add_dir(struct nest_draft *draft, const char *name, struct nest_err *err)
{
	struct nest_err cause = NEST_ERR_INIT;
	char clean[NEST_NAME_CAP];
	int rc = check_cancel(draft, err);

	if (rc < 0)
		return rc;
	rc = nest_name_clean(name, clean, err);
	if (rc < 0)
		return rc;
	if (draft->image)
		return word_image(
			draft, nest_draft_image_add_dir(draft->image, clean), "make", name, err);
	rc = enter(draft, clean, &cause);
	if (rc == 0)
		return 0;
	word(&cause, rc, "make", name);
	if (err)
		*err = cause;
	return cause.code;
}

static int make_symlink(struct nest_draft *draft, const char *name, const char *last,
	const char *target, struct nest_err *err)
{
	int rc = charge_entry(draft, err);

	if (rc < 0)
		return rc;
	if (symlinkat(target, draft->dir_fd, last) < 0)
		return fail(err, -errno, "make symbolic link for", name);
	if (strlen(target) > INLINE_TARGET)
		draft->totals.disk += BLOCK;
	return 0;
}

int nest_draft_add_symlink(
	struct nest_draft *draft, const char *name, const char *target, struct nest_err *err)
{
	struct nest_err cause = NEST_ERR_INIT;
	char clean[NEST_NAME_CAP];
	const char *last;
	int rc = approach(draft, name, clean, &last, &cause);

	if (rc == 0)
		rc = nest_name_check_target(clean, target, &cause);
	if (rc == 0 && draft->image)
		rc = word_image(draft, nest_draft_image_add_symlink(draft->image, clean, target),
			"make symbolic link for", name, &cause);
	else if (rc == 0)
		rc = make_symlink(draft, name, last, target, &cause);
	if (rc < 0 && err)
		*err = cause;
	return rc;
}

/*
 * Opens the directory of the file that a hard link names; *@ret_last is that name, within @clean.
 * -ENOENT: there is no such file.
 */
static int find_target(
	const struct nest_draft *draft, char *clean, int *ret_fd, const char **ret_last)
{
	nest_autoclose int fd = -1;
	char *slash = strrchr(clean, '/');
	struct stat st;

	if (slash)
		*slash = '\0';
	fd = nest_beneath_open(draft->root_fd, slash ? clean : "", O_PATH | O_DIRECTORY);
	*ret_last = slash ? slash + 1 : clean;
	/*
	 * Only files: a symbolic link that got a name nearer to the top could lead out of the
	 * tree.
	 */
	if (fd < 0 || fstatat(fd, *ret_last, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return -ENOENT;
	*ret_fd = nest_take_fd(fd);
	return 0;
}

/* -ENOENT: @clean_target is no file that is there. */
static int make_hardlink(struct nest_draft *draft, const char *name, const char *clean,
	const char *last, char *clean_target, struct nest_err *err)
{
	nest_autoclose int target_dir = -1;
	const char *target_last;
	int rc;

	if (draft->image) {
		rc = nest_draft_image_add_hardlink(draft->image, clean, clean_target);
		return rc == -ENOENT ? rc : word_image(draft, rc, "make hard link for", name, err);
	}
	rc = find_target(draft, clean_target, &target_dir, &target_last);
	if (rc == 0)
		rc = charge_entry(draft, err);
	if (rc == 0 && linkat(target_dir, target_last, draft->dir_fd, last, 0) < 0)
		rc = fail(err, -errno, "make hard link for", name);
	return rc;
}

int nest_draft_add_hardlink(
	struct nest_draft *draft, const char *name, const char *target, struct nest_err *err)
{
	struct nest_err cause = NEST_ERR_INIT;
	char quoted[NEST_NAME_QUOTED_CAP];
	char quoted_target[NEST_NAME_QUOTED_CAP];
	char clean_target[NEST_NAME_CAP];
	char clean[NEST_NAME_CAP];
	const char *last = NULL;
	int rc = approach(draft, name, clean, &last, &cause);

	if (rc == 0 && nest_name_clean(target, clean_target, &cause) < 0)
		rc = nest_err_wrap(&cause, "hard link %s", nest_name_quote(name, quoted));
	else if (rc == 0)
		rc = make_hardlink(draft, name, clean, last, clean_target, &cause);
	if (rc == -ENOENT)
		rc = nest_err_say(&cause, -EINVAL,
			"hard link %s to %s, which is no file that came before it",
			nest_name_quote(name, quoted), nest_name_quote(target, quoted_target));
	if (rc < 0 && err)
		*err = cause;
	return rc;
}

static int create(struct nest_draft *draft, const char *name, const char *last, bool executable,
	struct nest_err *err)
{
	mode_t mode = executable ? 0755 : 0644;
	int rc = charge_entry(draft, err);
	int fd;

	if (rc < 0)
		return rc;
	fd = openat(draft->dir_fd, last, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return fail(err, -errno, "create", name);
	rc = nest_draft_file_new(fd, name, &draft->file, err);
	if (rc == 0 && !draft->masked)
		draft->file->mode = mode;
	return rc;
}

int nest_draft_begin_file(struct nest_draft *draft, const char *name, int64_t size, bool executable,
	struct nest_err *err)
{
	struct nest_err cause = NEST_ERR_INIT;
	char clean[NEST_NAME_CAP];
	const char *last;
	int rc = approach(draft, name, clean, &last, &cause);

	draft->file_charged = 0;
	if (rc == 0 && size > 0)
		rc = charge_file(draft, (uint64_t)size, &cause);
	if (rc == 0 && draft->image)
		rc = word_image(draft, nest_draft_image_begin_file(draft->image, clean), "create",
			name, &cause);
	else if (rc == 0)
		rc = create(draft, name, last, executable, &cause);
	if (rc < 0 && err)
		*err = cause;
	return rc;
}

void nest_draft_lend(struct nest_draft *draft, const struct nest_draft_loan *loan)
{
	draft->loan = loan ? *loan : (struct nest_draft_loan){ .bytes = NULL };
	if (!draft->writers || loan)
		return;
	if (draft->piece && draft->piece->let_go)
		nest_writers_put(draft->writers, nest_take_ptr(draft->piece), false);
	nest_writers_kick(draft->writers);
}

static bool is_lent(const struct nest_draft *draft, const char *bytes, size_t n)
{
	const struct nest_draft_loan *loan = &draft->loan;

	return loan->bytes && bytes >= loan->bytes && n <= loan->n &&
	       (size_t)(bytes - loan->bytes) <= loan->n - n;
}

/*
 * Puts as many of the @n bytes for @offset as fit into a piece for the writers, which goes on where
 * the last one ended; 0 when all are under way.
 */
static size_t put_into_piece(struct nest_draft *draft, const char *bytes, size_t n, uint64_t offset)
{
	struct nest_writers_piece *piece = draft->piece;
	bool lent = is_lent(draft, bytes, n);

	if (piece && (lent || piece->let_go || piece->offset + piece->n != offset ||
			     piece->n == sizeof(piece->bytes))) {
		nest_writers_put(draft->writers, nest_take_ptr(draft->piece), false);
		piece = NULL;
	}
	if (!piece && draft->writers) {
		piece = draft->piece = nest_writers_take(draft->writers, draft->file);
		if (piece)
			piece->offset = offset;
	}
	if (!piece)
		return 0;
	if (lent) {
		draft->loan.hold(draft->loan.token);
		nest_writers_lend(piece, bytes, n, draft->loan.let_go, draft->loan.token);
		return n;
	}
	if (n > sizeof(piece->bytes) - piece->n)
		n = sizeof(piece->bytes) - piece->n;
	memcpy(piece->bytes + piece->n, bytes, n);
	piece->n += n;
	return n;
}

static int cant_be_image(struct nest_err *err)
{
	return nest_err_say(err, -ENOTSUP, "the archive can't be kept as an image");
}

static int refuse_image(struct nest_draft *draft, struct nest_err *err)
{
	nest_draft_image_refuse(draft->image);
	return cant_be_image(err);
}

/* What isn't lent lies nobody knows where. */
static int write_to_image(struct nest_draft *draft, const char *bytes, size_t n, uint64_t offset,
	struct nest_err *err)
{
	const struct nest_draft_loan *loan = &draft->loan;
	int rc;

	if (!is_lent(draft, bytes, n))
		return refuse_image(draft, err);
	rc = nest_draft_image_add_bytes(
		draft->image, loan->at + (uint64_t)(bytes - loan->bytes), n, offset);
	return rc < 0 ? cant_be_image(err) : 0;
}

int nest_draft_write(struct nest_draft *draft, const void *bytes, size_t n, uint64_t offset,
	struct nest_err *err)
{
	struct nest_draft_file *file = draft->file;
	const char *p = bytes;
	int rc = check_cancel(draft, err);

	if (rc < 0 || n == 0)
		return rc;
	if (n > INT64_MAX - offset && draft->image)
		return refuse_image(draft, err);
	if (n > INT64_MAX - offset)
		return fail(err, -EFBIG, "write", file->name);
	rc = charge_file(draft, offset + n, err);
	if (rc < 0)
		return rc;
	if (draft->image)
		return write_to_image(draft, p, n, offset, err);
	if (offset + n > file->written)
		file->written = offset + n;
	while (n > 0) {
		size_t put = put_into_piece(draft, p, n, offset);

		if (put == 0)
			return nest_draft_file_write(file, p, n, offset, err);
		p += put;
		n -= put;
		offset += put;
	}
	return 0;
}

int nest_draft_clone(struct nest_draft *draft, int source_fd)
{
	if (ioctl(draft->file->fd, FICLONE, source_fd) < 0)
		return 1;
	draft->file->written = UINT64_MAX;
	return 0;
}

ssize_t nest_draft_read(struct nest_draft *draft, void *bytes, size_t cap, uint64_t offset)
{
	return pread(draft->file->fd, bytes, cap, (off_t)offset);
}

int nest_draft_end_file(struct nest_draft *draft, uint64_t size, bool executable, int64_t mtime_s,
	struct nest_err *err)
{
	struct nest_draft_file *file = draft->file;
	int rc = charge_file(draft, size, err);

	if (rc < 0)
		return rc;
	/* What the source announced and didn't hold. */
	draft->totals.bytes -= draft->file_charged - size;
	if (draft->image)
		return nest_draft_image_end_file(draft->image, size, executable, mtime_s) < 0
			       ? cant_be_image(err)
			       : 0;
	draft->totals.disk += (size + BLOCK - 1) / BLOCK * BLOCK;
	file->size = size;
	file->executable = executable;
	file->mtime_s = mtime_s;
	draft->file = NULL;
	if (!draft->writers)
		return nest_draft_file_end(file, err);
	if (!draft->piece)
		return nest_writers_end(draft->writers, file, err);
	nest_writers_put(draft->writers, nest_take_ptr(draft->piece), true);
	return nest_writers_check(draft->writers, err);
}

int nest_draft_start_writers(struct nest_draft *draft, struct nest_err *err)
{
	/* On one CPU they would only take turns with the caller. */
	if (draft->writers || draft->image || nest_threads_count() == 1)
		return 0;
	return nest_writers_new(&draft->writers, err);
}

int nest_draft_make_image(struct nest_draft *draft, struct nest_err *err)
{
	int fd = openat(draft->root_fd, NEST_TREE_IMAGE_NAME,
		O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return nest_err_set(err, -errno, "create an image in staging");
	return nest_draft_image_new(fd, draft->limits.max_entries, &draft->image, err);
}

const struct nest_pipeline_sink *nest_draft_sink(struct nest_draft *draft)
{
	return draft->image ? nest_draft_image_sink(draft->image) : NULL;
}

bool nest_draft_refused(const struct nest_draft *draft)
{
	return draft->image && nest_draft_image_refused(draft->image);
}

int nest_draft_finish_image(struct nest_draft *draft, struct nest_err *err)
{
	int rc = nest_draft_image_finish(draft->image, draft->limits.max_bytes, err);

	if (rc < 0)
		return rc;
	/* nobody may have it open for writing who wants it sealed */
	nest_draft_image_free(nest_take_ptr(draft->image));
	rc = nest_tree_image_keep(draft->root_fd, &draft->totals, err);
	draft->totals.made = rc == 0;
	return rc;
}

int nest_draft_flush(struct nest_draft *draft, struct nest_err *err)
{
	return draft->writers ? nest_writers_flush(draft->writers, err) : 0;
}
