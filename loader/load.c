/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/erofs.h"
#include "base/fd.h"
#include "base/file.h"
#include "loader/copy.h"
#include "loader/erofs_frames.h"
#include "loader/fetch.h"
#include "loader/layers.h"
#include "loader/tree.h"
#include "loader/tree_image.h"
#include "loader/unpack.h"
#include "loader/unpack_erofs.h"
#include "loader/unpack_frames.h"

#define CHUNK (256u * 1024)

/* How it went with an archive, besides 0 and -errno. */
enum {
	KEPT = 1, /* it was an image, and the draft wasn't needed */
	REFUSED,  /* no image can be made of it, and it is all there: to be unpacked */
};

void nest_load_free(struct nest_load *load)
{
	if (!load)
		return;
	for (size_t i = 0; i < load->n_layers; i++)
		nest_tree_unref(load->layers[i]);
	free(load->layers);
	free(load->path);
	free(load->shown);
	free(load->url);
	free(load);
}

/* Whether @hex is what the reference promised. */
static int check_digest(struct nest_load *load, const char *hex)
{
	if (!load->verified || strcmp(load->hex, hex) == 0)
		return 0;
	return nest_err_say(&load->err, -EKEYREJECTED,
		"its content is not what was asked for: its sha256 is %s, not %s", hex, load->hex);
}

static int copy_bytes(struct nest_load *load, int from, int to, char hex[NEST_DIGEST_HEX_LEN])
{
	nest_autodigest struct nest_digest *digest = NULL;
	nest_autofree char *chunk = malloc(CHUNK);
	int rc = chunk ? nest_digest_new(&digest, &load->err)
		       : nest_err_set(&load->err, -ENOMEM, "read the file");

	while (rc == 0) {
		ssize_t n = read(from, chunk, CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nest_err_set(&load->err, -errno, "read the file");
		if (n == 0)
			break;
		if (atomic_load(&load->cancel))
			return nest_err_say(&load->err, -ECANCELED, "the load was abandoned");
		rc = nest_fd_write_all(to, chunk, (size_t)n, &load->err);
		if (rc == 0)
			rc = nest_digest_update(digest, chunk, (size_t)n, &load->err);
	}
	return rc < 0 ? rc : nest_digest_final(digest, hex, &load->err);
}

/* Copies a file into staging, so that it can't change between its digest and its unpacking. */
static int stage_file(struct nest_load *load, int from)
{
	int staging_fd = nest_cache_staging_fd(load->cache);
	char name[NEST_CACHE_NAME_CAP];
	char hex[NEST_DIGEST_HEX_LEN];
	nest_autoclose int to = -1;
	int rc;

	nest_cache_name(load->cache, "copy", name);
	to = openat(staging_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return nest_err_set(&load->err, -errno, "create a staging file in the code cache");
	rc = copy_bytes(load, from, to, hex);
	if (rc == 0)
		rc = check_digest(load, hex);
	if (rc == -EDQUOT)
		rc = -ENOSPC;
	if (rc < 0) {
		(void)unlinkat(staging_fd, name, 0);
		return rc;
	}
	strcpy(load->archive, name);
	strcpy(load->hex, hex);
	free(nest_take_ptr(load->path));
	return 0;
}

static int digest_path(struct nest_load *load)
{
	/* O_NONBLOCK: opening a fifo mustn't wait. */
	nest_autoclose int fd = open(load->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return nest_err_set(&load->err, -errno, "open it");
	if (fstat(fd, &st) < 0)
		return nest_err_set(&load->err, -errno, "look at it");
	if (S_ISREG(st.st_mode) && load->size > 0 && (uint64_t)st.st_size != load->size)
		return nest_err_say(&load->err, -EKEYREJECTED,
			"its content is not what was asked for: it is %" PRIu64
			" bytes long, not %" PRIu64,
			(uint64_t)st.st_size, load->size);
	if (S_ISREG(st.st_mode))
		return stage_file(load, fd);
	if (load->verified || load->size > 0)
		return nest_err_say(&load->err, -EINVAL,
			"it is no file, and only an archive's or image's sha256 and size can be "
			"checked");
	return nest_copy_dir(load->path, &load->limits, NULL, load->hex, &load->err);
}

void nest_load_take_digest(struct nest_load *load)
{
	load->err = (struct nest_err)NEST_ERR_INIT;
	if (load->retried)
		nest_cache_sweep(load->cache);
	if (load->stream)
		load->rc = nest_fetch_stream_finish(load->stream, load->hex, &load->err);
	else
		load->rc = digest_path(load);
}

/* Unpacks an image that is kept to be mounted. */
static int unpack_image(
	struct nest_load *load, const struct nest_tree *tree, struct nest_draft *draft)
{
	nest_autoclose int fd = -1;
	int rc = nest_tree_open_image(tree, &fd, &load->err);

	if (rc < 0)
		return rc;
	return tree->made ? nest_unpack_frames(fd, draft, &load->err)
			  : nest_unpack_erofs_file(fd, draft, &load->err);
}

/* The same, as the directory @name in staging. */
static int unpack_layer(struct nest_load *load, const struct nest_tree *tree, const char *name)
{
	nest_autodraft struct nest_draft *draft = NULL;
	int rc = nest_draft_new(
		nest_cache_staging_fd(load->cache), name, &load->limits, &draft, &load->err);

	return rc < 0 ? rc : unpack_image(load, tree, draft);
}

/* @name: where in staging it may be unpacked. */
static int open_layer(
	struct nest_load *load, const struct nest_tree *tree, const char *name, int *ret_fd)
{
	int fd;
	int rc;

	if (nest_tree_kind(tree) == NEST_TREE_DIRECTORY)
		return nest_tree_open(tree, ret_fd, &load->err);
	rc = unpack_layer(load, tree, name);
	if (rc < 0)
		return rc;
	fd = openat(nest_cache_staging_fd(load->cache), name,
		O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return nest_err_set(&load->err, -errno, "open a layer in staging");
	*ret_fd = fd;
	return 0;
}

static int open_layers(struct nest_load *load, const char *dir, int *fds, size_t *ret_n)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < load->n_layers; i++) {
		char name[NEST_CACHE_NAME_CAP + 24];

		snprintf(name, sizeof(name), "%s/%zu", dir, i);
		rc = open_layer(load, load->layers[i], name, &fds[i]);
		if (rc < 0)
			nest_err_wrap(&load->err, "layer %zu", i + 1);
		else
			*ret_n = i + 1;
	}
	return rc;
}

static int merge_layers(struct nest_load *load, struct nest_draft *draft)
{
	nest_autofree int *fds = calloc(load->n_layers, sizeof(*fds));
	int staging_fd = nest_cache_staging_fd(load->cache);
	char dir[NEST_CACHE_NAME_CAP];
	size_t n = 0;
	int rc;

	nest_cache_name(load->cache, "layers", dir);
	if (!fds)
		return nest_err_set(&load->err, -ENOMEM, "merge layers");
	if (mkdirat(staging_fd, dir, 0700) < 0)
		return nest_err_set(&load->err, -errno, "make a directory in staging");
	rc = open_layers(load, dir, fds, &n);
	if (rc == 0)
		rc = nest_layers_merge(fds, n, &load->limits, draft, &load->err);
	while (n > 0)
		close(fds[--n]);
	/* What can't be removed here goes at the next open. */
	(void)nest_file_remove_tree(staging_fd, dir, NULL);
	return rc;
}

/* The rest of the download must come, and must be what was asked for. */
static int finish_stream(struct nest_load *load, struct nest_err *err)
{
	char hex[NEST_DIGEST_HEX_LEN];
	int rc = nest_fetch_stream_finish(load->stream, hex, err);

	return rc < 0 ? rc : check_digest(load, hex);
}

/*
 * Unpacks what arrives as it arrives. Where that fails, the download's own failure, or that it isn't
 * what was asked for, says more than what the decoder stumbled over.
 */
static int unpack_stream(struct nest_load *load, struct nest_draft *draft)
{
	struct nest_err why = NEST_ERR_INIT;
	char hex[NEST_DIGEST_HEX_LEN];
	int rc = nest_unpack_run(nest_fetch_stream_source(load->stream), draft, &load->err);
	int end;

	if (nest_fetch_stream_failed(load->stream, &why)) {
		load->err = why;
		return why.code;
	}
	if (rc < 0 && rc != -EBADMSG && !nest_draft_refused(draft))
		return rc;
	end = nest_fetch_stream_finish(load->stream, hex, &why);
	if (end < 0) {
		load->err = why;
		return end;
	}
	end = check_digest(load, hex);
	if (end < 0)
		return end;
	return rc < 0 && nest_draft_refused(draft) ? REFUSED : rc;
}

/* What the first bytes say. */
struct look {
	bool whole; /* all of it must be, and is, there */
	bool fit;   /* frames that an image may hold */
};

/*
 * Looks at the first bytes: are they of the format that was promised? An image must be there as a
 * whole before it is anything; what isn't one is unpacked as it comes.
 */
static int examine(struct nest_load *load, int fd, struct look *ret)
{
	char bytes[NEST_REFERENCE_LOOK];
	uint64_t n = sizeof(bytes);
	ssize_t got;
	int rc = 0;

	if (load->stream)
		rc = nest_fetch_stream_wait(load->stream, n, &n, &load->err);
	if (rc < 0)
		return rc;
	got = pread(fd, bytes, (size_t)n, 0);
	if (got < 0)
		return nest_err_set(&load->err, -errno, "read the archive");
	rc = nest_reference_check_format(load->format, bytes, (size_t)got, &load->err);
	if (rc < 0)
		return rc;
	ret->whole = !load->stream || nest_reference_check_format(
					      NEST_REFERENCE_EROFS, bytes, (size_t)got, NULL) == 0;
	ret->fit = nest_erofs_frames_fit(bytes, (size_t)got);
	return load->stream && ret->whole ? finish_stream(load, &load->err) : 0;
}

static int copy_dir(struct nest_load *load, struct nest_draft *draft)
{
	char hex[NEST_DIGEST_HEX_LEN];
	int rc = nest_copy_dir(load->path, &load->limits, draft, hex, &load->err);

	if (rc == 0 && strcmp(hex, load->hex) != 0)
		return nest_err_say(&load->err, -EBUSY,
			"the directory changed while it was read: try again when nothing writes to "
			"it");
	return rc;
}

static int open_archive(struct nest_load *load)
{
	int fd = openat(nest_cache_staging_fd(load->cache), load->archive,
		O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? nest_err_set(&load->err, -errno, "open the archive in staging") : fd;
}

/* Whether an image of what is loaded may be mounted. A sealed one is no code, but read by others. */
static bool may_keep(const struct nest_load *load)
{
	return !load->in_layers && !load->sealed &&
	       nest_tree_image_allowed(load->image_sources, load->source);
}

/* Keeps an image as it is, if it may be mounted. 1: it may not, or the archive is none. */
static int keep_image(struct nest_load *load, const char *draft_name)
{
	struct nest_draft_totals totals;
	int rc;

	if (!may_keep(load))
		return 1;
	rc = nest_tree_image_fill(nest_cache_staging_fd(load->cache), load->archive, draft_name,
		&load->limits, &totals, &load->err);
	if (rc == 0)
		load->totals = totals;
	return rc;
}

static int unpack_whole(struct nest_load *load, int fd, struct nest_draft *draft)
{
	uint64_t bytes;
	int rc = nest_erofs_check_file(fd, NEST_EROFS_LZ4, &bytes, &load->err);

	if (rc < 0)
		return rc;
	return rc == 0 ? nest_unpack_erofs_file(fd, draft, &load->err)
		       : nest_unpack_file(fd, draft, &load->err);
}

/* Makes an image of an archive whose frames an image can hold. */
static int make_image(struct nest_load *load, int fd, bool whole, struct nest_draft *draft)
{
	int rc = nest_draft_make_image(draft, &load->err);

	if (rc == 0)
		rc = whole ? nest_unpack_file(fd, draft, &load->err) : unpack_stream(load, draft);
	/* what was wrong with a download is more than that it can't be an image */
	if (rc < 0 && !whole)
		return rc;
	if (rc == 0)
		rc = nest_draft_finish_image(draft, &load->err);
	return rc < 0 && nest_draft_refused(draft) ? REFUSED : rc;
}

static int make_from_archive(struct nest_load *load, struct nest_draft *draft, const char *name)
{
	nest_autoclose int fd = open_archive(load);
	struct look look = { .whole = false };
	int rc;

	if (fd < 0)
		return fd;
	rc = examine(load, fd, &look);
	if (rc == 0 && look.fit && load->zstd_images && may_keep(load))
		return make_image(load, fd, look.whole, draft);
	if (rc == 0 && !look.whole)
		return unpack_stream(load, draft);
	if (rc == 0)
		rc = keep_image(load, name);
	if (rc <= 0)
		return rc < 0 ? rc : KEPT;
	return unpack_whole(load, fd, draft);
}

/* Once more, as a directory, when all bytes are there. */
static int unpack_again(struct nest_load *load, const char *name)
{
	nest_autodraft struct nest_draft *draft = NULL;
	int staging_fd = nest_cache_staging_fd(load->cache);
	nest_autoclose int fd = -1;
	int rc;

	load->err = (struct nest_err)NEST_ERR_INIT;
	fd = open_archive(load);
	rc = fd < 0 ? fd : nest_file_remove_tree(staging_fd, name, &load->err);
	if (rc == 0)
		rc = nest_draft_new(staging_fd, name, &load->limits, &draft, &load->err);
	if (rc == 0)
		rc = nest_unpack_file(fd, draft, &load->err);
	if (rc == 0)
		nest_draft_totals(draft, &load->totals);
	return rc;
}

static int make_draft(struct nest_load *load, const char *name)
{
	nest_autodraft struct nest_draft *draft = NULL;
	int rc = nest_draft_new(
		nest_cache_staging_fd(load->cache), name, &load->limits, &draft, &load->err);

	if (rc == 0 && load->path)
		rc = copy_dir(load, draft);
	else if (rc == 0 && load->n_layers == 1)
		rc = unpack_image(load, load->layers[0], draft);
	else if (rc == 0 && load->layers)
		rc = merge_layers(load, draft);
	else if (rc == 0)
		rc = make_from_archive(load, draft, name);
	if (rc == REFUSED) {
		nest_draft_free(nest_take_ptr(draft)); /* and what it holds on the disk */
		return unpack_again(load, name);
	}
	if (rc == KEPT)
		return 0;
	if (rc == 0)
		nest_draft_totals(draft, &load->totals);
	load->totals.self_named = load->path != NULL;
	return rc;
}

/*
 * Lets this thread have a umask of its own, which is the process's otherwise: files that are created
 * with their modes save a call each. Where a container's filter forbids it they cost that call.
 */
static bool own_umask(void)
{
	static _Thread_local bool own;

	if (!own)
		own = unshare(CLONE_FS) == 0;
	return own;
}

void nest_load_make(struct nest_load *load)
{
	int staging_fd = nest_cache_staging_fd(load->cache);
	uint64_t since = nest_clock_mono_us();
	bool own = own_umask();
	mode_t mask = own ? umask(022) : 0;
	char name[NEST_CACHE_NAME_CAP];

	/* The space that the loop thread evicted for this attempt. */
	if (load->retried)
		nest_cache_sweep(load->cache);
	load->err = (struct nest_err)NEST_ERR_INIT;
	nest_cache_name(load->cache, "draft", name);
	load->rc = make_draft(load, name);
	if (load->rc == 0 && load->placed)
		load->rc = nest_cache_place(load->cache, name, load->hex, &load->err);
	else if (load->rc == 0)
		load->rc =
			nest_cache_publish(load->cache, name, load->hex, &load->totals, &load->err);
	if (load->rc == -EDQUOT)
		load->rc =
			-ENOSPC; /* how ext4 says that a volume's size, a project quota, is used up */
	load->make_us = nest_clock_mono_us() - since;
	if (load->stream)
		load->make_us -= nest_fetch_stream_waited_us(load->stream);
	/* What can't be removed here goes at the next open. */
	if (load->rc < 0)
		(void)nest_file_remove_tree(staging_fd, name, NULL);
	if (own)
		umask(mask);
}
