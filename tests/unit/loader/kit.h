/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_LOADER_KIT_H
#define NEST_TESTS_UNIT_LOADER_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "loader/draft.h"
#include "loader/loader.h"

/*
 * What the loader's tests share: a directory of their own, archives made to order, checks of
 * trees.
 */

/*
 * Before each test: makes the directory. After it: removes it and fails on descriptors left open.
 */
void kit_enter(void);
void kit_leave(void);

/* Descriptors that are open by now are meant to stay. */
void kit_settle(void);

/* Mounts a tmpfs with these options, for this test only. Needs root. */
void kit_mount(const char *path, const char *options);

/* A path in that directory; the strings are never freed within a test. */
const char *kit_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kit_mkdir(const char *path);
void kit_write(const char *path, const char *bytes, size_t n, unsigned mode);

struct kit_entry {
	const char *name;
	unsigned type; /* AE_IF*; 0: a file */
	unsigned mode; /* 0: 0644 */
	const char *body;
	size_t size;	      /* 0: the body's */
	const char *link;     /* the target of a symbolic link */
	const char *hardlink; /* or of a hard one */
	int64_t mtime;
	bool sparse; /* nothing but a hole and the body */
};

/* An archive by libarchive's writer. The caller frees with nest_buf_done(). */
void kit_archive(const char *format, const char *filter, const struct kit_entry *entries, size_t n,
	struct nest_buf *ret);

/* Appends one hand-made ustar header (and @size bytes of 'x', if @body), or the end mark. */
void kit_tar_entry(struct nest_buf *tar, const char *name, char type, uint64_t size,
	const char *link, bool body);
void kit_tar_end(struct nest_buf *tar);

/* Unpacks bytes into the directory @name (made in the test's own); limits NULL: generous ones. */
int kit_unpack(const struct nest_buf *archive, const char *name,
	const struct nest_draft_limits *limits, struct nest_draft_totals *ret_totals,
	struct nest_err *err);

/* Fails unless all of a tree has the modes, owner and times it must have, and nothing odd in it. */
void kit_check_tree(const char *path);

/* The digest of a directory's content, as importing it gives. */
void kit_digest_dir(const char *path, char ret_hex[65]);

/* The number of names in a directory. */
unsigned kit_count(const char *path);

/* Calls @fn in a child in which openat2(2) answers ENOSYS; fails if it does. */
void kit_without_openat2(void (*fn)(void));

#define kit_ok(call, err)                                                                      \
	do {                                                                                   \
		int kit_rc_ = (call);                                                          \
		ck_assert_msg(kit_rc_ == 0, "%s: %d: %s", #call, kit_rc_, nest_err_text(err)); \
	} while (0)

#endif
