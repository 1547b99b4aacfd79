/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/nestctl/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/err.h"

enum {
	PACK_TIME = 315532800, /* 1980-01-01: the same in every archive, and after zip's epoch */
};

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int adapt_error(struct archive *archive, const char *what, struct nest_err *err)
{
	return nest_err_say(err, -EIO, "pack '%s': %s", what, archive_error_string(archive));
}

static int add_bytes(struct archive *archive, const FTSENT *ent, struct nest_err *err)
{
	nest_autoclose int fd = open(ent->fts_accpath, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t left = (uint64_t)ent->fts_statp->st_size;
	char bytes[65536];

	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", ent->fts_path);
	while (left > 0) {
		ssize_t n = read(fd, bytes, left < sizeof(bytes) ? (size_t)left : sizeof(bytes));

		if (n < 0)
			return nest_err_set(err, -errno, "read '%s'", ent->fts_path);
		if (n == 0)
			return nest_err_say(err, -EIO, "'%s' became shorter while it was packed",
				ent->fts_path);
		if (archive_write_data(archive, bytes, (size_t)n) != n)
			return adapt_error(archive, ent->fts_path, err);
		left -= (uint64_t)n;
	}
	return 0;
}

static int set_link(struct archive_entry *entry, const FTSENT *ent, struct nest_err *err)
{
	char target[4096];
	ssize_t n = readlink(ent->fts_accpath, target, sizeof(target) - 1);

	if (n < 0)
		return nest_err_set(err, -errno, "read link '%s'", ent->fts_path);
	target[n] = '\0';
	archive_entry_set_symlink(entry, target);
	return 0;
}

static int add_entry(struct archive *archive, const FTSENT *ent, const char *name,
	struct nest_pack_result *ret, struct nest_err *err)
{
	struct archive_entry *entry = archive_entry_new();
	const struct stat *st = ent->fts_statp;
	int r = 0;

	if (!entry)
		return nest_err_set(err, -ENOMEM, "pack '%s'", ent->fts_path);
	archive_entry_set_pathname(entry, name);
	archive_entry_set_mtime(entry, PACK_TIME, 0);
	archive_entry_set_filetype(entry, st->st_mode & S_IFMT);
	archive_entry_set_perm(entry, S_ISDIR(st->st_mode) || (st->st_mode & 0100) ? 0755 : 0644);
	if (S_ISLNK(st->st_mode))
		r = set_link(entry, ent, err);
	else if (S_ISREG(st->st_mode))
		archive_entry_set_size(entry, st->st_size);
	else if (!S_ISDIR(st->st_mode))
		r = nest_err_say(err, -EINVAL,
			"'%s' is neither a file, a directory nor a link: leave it out",
			ent->fts_path);
	if (r == 0 && archive_write_header(archive, entry) != ARCHIVE_OK)
		r = adapt_error(archive, ent->fts_path, err);
	if (r == 0 && S_ISREG(st->st_mode)) {
		r = add_bytes(archive, ent, err);
		ret->files++;
		ret->content += (uint64_t)st->st_size;
	}
	archive_entry_free(entry);
	return r;
}

static bool left_out(const FTSENT *ent)
{
	return strcmp(ent->fts_name, ".git") == 0 ||
	       (ent->fts_level == 1 && strcmp(ent->fts_name, "nestlet.json") == 0);
}

static int add_tree(struct archive *archive, const char *dir, struct nest_pack_result *ret,
	struct nest_err *err)
{
	char *const paths[] = { (char *)dir, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	size_t skip = strlen(dir);
	FTSENT *ent;
	int r = 0;

	if (!fts)
		return nest_err_set(err, -errno, "open '%s'", dir);
	while (r == 0 && (ent = fts_read(fts))) {
		if (ent->fts_level == 0 || ent->fts_info == FTS_DP)
			continue;
		if (left_out(ent)) {
			fts_set(fts, ent, FTS_SKIP);
			continue;
		}
		if (ent->fts_info == FTS_ERR || ent->fts_info == FTS_DNR || ent->fts_info == FTS_NS)
			r = nest_err_set(err, -ent->fts_errno, "read '%s'", ent->fts_path);
		else
			r = add_entry(archive, ent,
				ent->fts_path + skip + (ent->fts_path[skip] == '/'), ret, err);
	}
	fts_close(fts);
	return r;
}

int nest_pack_dir(const char *dir, struct nest_pack_result *ret, struct nest_err *err)
{
	struct archive *archive = NULL;
	nest_autoclose int fd = -1;
	struct stat st;
	int r;

	*ret = (struct nest_pack_result){ .path = "/tmp/nestctl-XXXXXX" };
	if (stat(dir, &st) != 0)
		return nest_err_set(err, -errno, "open '%s'", dir);
	if (!S_ISDIR(st.st_mode))
		return nest_err_say(err, -ENOTDIR, "'%s' is not a directory", dir);
	fd = mkostemp(ret->path, O_CLOEXEC);
	archive = archive_write_new();
	if (fd < 0 || !archive)
		r = nest_err_set(err, fd < 0 ? -errno : -ENOMEM, "make an archive of '%s'", dir);
	else if (archive_write_set_format_pax_restricted(archive) != ARCHIVE_OK ||
		 archive_write_set_options(archive, "hdrcharset=BINARY") != ARCHIVE_OK ||
		 archive_write_add_filter_zstd(archive) != ARCHIVE_OK ||
		 archive_write_set_bytes_in_last_block(archive, 1) != ARCHIVE_OK ||
		 archive_write_open_fd(archive, fd) != ARCHIVE_OK)
		r = adapt_error(archive, dir, err);
	else
		r = add_tree(archive, dir, ret, err);
	if (r == 0 && archive_write_close(archive) != ARCHIVE_OK)
		r = adapt_error(archive, dir, err);
	archive_write_free(archive);
	if (r == 0 && fstat(fd, &st) == 0)
		ret->bytes = (uint64_t)st.st_size;
	if (r < 0 && fd >= 0)
		unlink(ret->path);
	return r;
}
