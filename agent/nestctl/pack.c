/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/nestctl/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "agent/nestctl/pack_impl.h"
#include "base/cleanup.h"
#include "base/err.h"

#define CHUNK (128u << 10)

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool left_out(const FTSENT *ent)
{
	return strcmp(ent->fts_name, ".git") == 0 ||
	       (ent->fts_level == 1 && strcmp(ent->fts_name, "nestlet.json") == 0);
}

static int check_entry(const FTSENT *ent, struct nest_err *err)
{
	mode_t mode = ent->fts_statp->st_mode;

	if (ent->fts_info == FTS_ERR || ent->fts_info == FTS_DNR || ent->fts_info == FTS_NS)
		return nest_err_set(err, -ent->fts_errno, "read '%s'", ent->fts_path);
	if (!S_ISLNK(mode) && !S_ISREG(mode) && !S_ISDIR(mode))
		return nest_err_say(err, -EINVAL,
			"'%s' is neither a file, a directory nor a link: leave it out",
			ent->fts_path);
	return 0;
}

int nest_pack_each(struct nest_pack *pack,
	int (*cb)(struct nest_pack *pack, const FTSENT *ent, const char *name, void *arg,
		struct nest_err *err),
	void *arg, struct nest_err *err)
{
	char *const paths[] = { (char *)pack->dir, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	size_t skip = strlen(pack->dir);
	FTSENT *ent;
	int r = 0;

	if (!fts)
		return nest_err_set(err, -errno, "open '%s'", pack->dir);
	while (r == 0 && (ent = fts_read(fts))) {
		if (ent->fts_level == 0 || ent->fts_info == FTS_DP)
			continue;
		if (left_out(ent)) {
			fts_set(fts, ent, FTS_SKIP);
			continue;
		}
		r = check_entry(ent, err);
		if (r == 0)
			r = cb(pack, ent, ent->fts_path + skip + (ent->fts_path[skip] == '/'), arg,
				err);
	}
	fts_close(fts);
	return r;
}

static void report(struct nest_pack *pack)
{
	if (pack->options->progress)
		pack->options->progress(
			pack->options->arg, (double)pack->result->content, (double)pack->total);
}

int nest_pack_read(struct nest_pack *pack, const FTSENT *ent,
	int (*take)(void *arg, const void *bytes, size_t n, struct nest_err *err), void *arg,
	struct nest_err *err)
{
	nest_autoclose int fd = open(ent->fts_accpath, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t left = (uint64_t)ent->fts_statp->st_size;
	nest_autofree char *bytes = malloc(CHUNK);

	if (fd < 0 || !bytes)
		return nest_err_set(err, fd < 0 ? -errno : -ENOMEM, "open '%s'", ent->fts_path);
	while (left > 0) {
		ssize_t n = read(fd, bytes, left < CHUNK ? (size_t)left : CHUNK);
		int r;

		if (n < 0)
			return nest_err_set(err, -errno, "read '%s'", ent->fts_path);
		if (n == 0)
			return nest_err_say(err, -EIO, "'%s' became shorter while it was packed",
				ent->fts_path);
		r = take(arg, bytes, (size_t)n, err);
		if (r < 0)
			return r;
		left -= (uint64_t)n;
		pack->result->content += (uint64_t)n;
		report(pack);
	}
	pack->result->files++;
	return 0;
}

static int count_entry(struct nest_pack *pack, const FTSENT *ent, const char *name, void *arg,
	struct nest_err *err)
{
	(void)name;
	(void)arg;
	(void)err;
	if (S_ISREG(ent->fts_statp->st_mode))
		pack->total += (uint64_t)ent->fts_statp->st_size;
	return 0;
}

/* Size and digest of what was written. */
static int look_at_result(struct nest_pack_result *result, int fd, struct nest_err *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	nest_autofree char *bytes = malloc(CHUNK);
	bool ok = context && bytes && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
	unsigned len = 0;
	ssize_t n = 0;

	while (ok && (n = pread(fd, bytes, CHUNK, (off_t)result->bytes)) > 0) {
		ok = EVP_DigestUpdate(context, bytes, (size_t)n) == 1;
		result->bytes += (uint64_t)n;
	}
	ok = ok && EVP_DigestFinal_ex(context, digest, &len) == 1;
	EVP_MD_CTX_free(context);
	if (!ok || n < 0)
		return nest_err_set(
			err, n < 0 ? -errno : -ENOMEM, "take the digest of '%s'", result->path);
	for (unsigned i = 0; i < len; i++)
		snprintf(result->sha256 + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int create_output(struct nest_pack *pack, int *ret, struct nest_err *err)
{
	struct nest_pack_result *result = pack->result;
	int fd;

	if (pack->options->output) {
		if (strlen(pack->options->output) >= sizeof(result->path))
			return nest_err_set(err, -ENAMETOOLONG, "make the package");
		snprintf(result->path, sizeof(result->path), "%s", pack->options->output);
		fd = open(result->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	} else {
		snprintf(result->path, sizeof(result->path), "/tmp/nestctl-XXXXXX");
		fd = mkostemp(result->path, O_CLOEXEC);
	}
	if (fd < 0)
		return nest_err_set(err, -errno, "make '%s'", result->path);
	*ret = fd;
	return 0;
}

int nest_pack_dir(const char *dir, const struct nest_pack_options *options,
	struct nest_pack_result *ret, struct nest_err *err)
{
	struct nest_pack pack = { .dir = dir, .options = options, .result = ret };
	nest_autoclose int fd = -1;
	struct stat st;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (stat(dir, &st) != 0)
		return nest_err_set(err, -errno, "open '%s'", dir);
	if (!S_ISDIR(st.st_mode))
		return nest_err_say(err, -ENOTDIR, "'%s' is not a directory", dir);
	r = nest_pack_each(&pack, count_entry, NULL, err);
	if (r == 0)
		r = create_output(&pack, &fd, err);
	if (r < 0)
		return r;
	r = options->format == NEST_PACK_EROFS ? nest_pack_write_erofs(&pack, err)
					       : nest_pack_write_zst(&pack, fd, err);
	if (r == 0)
		r = look_at_result(ret, fd, err);
	if (r < 0)
		unlink(ret->path);
	return r;
}
