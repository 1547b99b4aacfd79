/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as CRIU's images of one process: what is rewritten can be read again, and holds nothing
 * more to take. The input is three files, each behind its length (two bytes); any byte behind them says
 * that the process was made upon a parent. The pages, and the parent's, are the same each time. The
 * directory is in memory where /dev/shm is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/image_program.h"
#include "sandbox/image_rewrite.h"
#include "sandbox/image_wires.h"

#define PAGES_BYTES (64u * 4096)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static char path[64];

static void remove_dir(void)
{
	nest_file_remove_tree(AT_FDCWD, path, NULL);
}

static int open_dir(void)
{
	if (!path[0]) {
		strcpy(path, access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-image-XXXXXX"
							   : "/tmp/fuzz-image-XXXXXX");
		if (!mkdtemp(path) || atexit(remove_dir) != 0)
			abort();
	}
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void write_file(int dir, const char *name, const uint8_t *bytes, size_t n)
{
	nest_autoclose int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
		abort();
}

static int open_pages(int dir, const char *name)
{
	nest_autoclose int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, PAGES_BYTES) < 0)
		abort();
	return nest_take_fd(fd);
}

static void remove_made(int dir)
{
	unlinkat(dir, NEST_IMAGE_REWRITE_FILE, 0);
	unlinkat(dir, "pages-1.img.new", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const uint64_t inos[NEST_CRIU_RPC_WIRES] = { 1, 2, 300 };
	static const char *const names[] = { "files.img", "mm-1.img", "pagemap-1.img" };
	nest_autoclose int dir = open_dir();
	nest_autoclose int pages = -1;
	nest_autoclose int parent = -1;
	struct nest_err err = NEST_ERR_INIT;
	int r;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++) {
		size_t len = n < 2 ? 0 : (size_t)bytes[0] | (size_t)bytes[1] << 8;

		bytes += n < 2 ? n : 2;
		n -= n < 2 ? n : 2;
		len = len < n ? len : n;
		write_file(dir, names[i], bytes, len);
		bytes += len;
		n -= len;
	}
	pages = open_pages(dir, "pages-1.img");
	if (n > 0)
		parent = open_pages(dir, "parent");
	remove_made(dir);
	if (nest_image_wires_renumber(dir, inos, &err) < 0 && !err.text[0])
		abort();
	err = (struct nest_err)NEST_ERR_INIT;
	r = nest_image_program_note(dir, &err);
	if ((r < 0 && !err.text[0]) || (r == 0 && nest_image_program_check(dir, &err) < 0))
		abort();
	err = (struct nest_err)NEST_ERR_INIT;
	r = nest_image_rewrite_map(dir, NEST_IMAGE_REWRITE_PATH, parent, &err);
	if (r > 0 || (r < 0) != (err.code < 0) || (r < 0 && !err.text[0]))
		abort();
	if (r < 0)
		return 0;
	remove_made(dir);
	/* only for want of a number that no file has */
	r = nest_image_rewrite_map(dir, NEST_IMAGE_REWRITE_PATH, parent, &err);
	if (r < 0 && r != -EBADMSG)
		abort();
	return 0;
}
