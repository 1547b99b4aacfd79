/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_UNPACK_H
#define NEST_LOADER_UNPACK_H

#include <stdint.h>
#include <sys/types.h>

struct nest_draft;
struct nest_err;

/* Where the bytes of an archive come from. */
struct nest_unpack_source {
	/*
	 * The next bytes, valid until the next call: their count, 0 at the end, or -errno. The
	 * first ones, at least 4 if there are, tell the format.
	 */
	ssize_t (*read)(void *arg, const void **ret_bytes);
	/*
	 * As lseek(2), or -errno. NULL for a source that can't, from which a zip is read by its
	 * local headers only.
	 */
	int64_t (*seek)(void *arg, int64_t offset, int whence);
	/*
	 * Makes a read that waits on another thread, and every later one, return -ECANCELED. NULL
	 * for a source that never waits for long.
	 */
	void (*stop)(void *arg);
	void *arg;
};

/*
 * Unpacks an archive into @draft. Formats, by content: tar (v7, ustar, pax, GNU) plain or
 * compressed with gzip, zstd or lz4; zip. Whatever libarchive finds wrong with it, even where it
 * could go on, is an error that names the entry it came to. Blocks on the disk and on @source.
 * Any thread.
 */
int nest_unpack_run(
	const struct nest_unpack_source *source, struct nest_draft *draft, struct nest_err *err);

/* The same from a file, borrowed, from its beginning. */
int nest_unpack_file(int fd, struct nest_draft *draft, struct nest_err *err);

#endif
