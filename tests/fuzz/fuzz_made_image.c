/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a tar in zstd frames that becomes an image: it fails as it does where a directory is
 * made of it, or the image keeps EROFS's rules and unpacks to that directory. The last bytes say how
 * long the frames are.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "loader/copy.h"
#include "loader/draft.h"
#include "loader/tree_image.h"
#include "loader/unpack.h"
#include "loader/unpack_frames.h"
#include "tests/fuzz/draft_check.h"
#include "tests/fuzz/pieces.h"
#include "tests/unit/loader/made.h"

#define SIZES 4u
#define IMAGE_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const struct nest_draft_limits limits = { .max_bytes = 100000, .max_entries = 30 };

static int unpack(struct nest_buf *artifact, struct nest_draft *draft, struct nest_err *err)
{
	struct pieces pieces = { .bytes = nest_buf_bytes(artifact), .n = artifact->len };
	const struct nest_unpack_source source = pieces_source(&pieces, false);

	return nest_unpack_run(&source, draft, err);
}

static void digest(int top, char ret_hex[NEST_DIGEST_HEX_LEN])
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/draft", top);
	if (nest_copy_dir(path, &limits, NULL, ret_hex, NULL) < 0)
		abort();
}

static void fail(const char *what)
{
	fprintf(stderr, "the image: %s\n", what);
	abort();
}

static int as_directory(
	struct nest_buf *artifact, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	int rc = unpack(artifact, draft, err);

	if (rc == 0)
		digest(top, ret_hex);
	draft_check_end(top, draft, &limits, rc, err);
	return rc;
}

static void check_structure(int image)
{
	nest_autofree char *bytes = NULL;
	const char *fault;
	char path[32];
	size_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
	if (nest_file_read(AT_FDCWD, path, IMAGE_MAX, &bytes, &n, NULL) < 0)
		abort();
	fault = made_fault(bytes, n);
	if (fault)
		fail(fault);
}

/* 1: it can't be one; @ret_image is set where it could. */
static int as_image(struct nest_buf *artifact, int *ret_image, struct nest_err *err)
{
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	bool refused = false;
	int rc = nest_draft_make_image(draft, err);

	if (rc == 0)
		rc = unpack(artifact, draft, err);
	if (rc == 0)
		rc = nest_draft_finish_image(draft, err);
	refused = rc < 0 && nest_draft_refused(draft);
	if (rc == 0)
		*ret_image = openat(top, "draft/" NEST_TREE_IMAGE_NAME, O_RDONLY | O_CLOEXEC);
	draft_check_end(top, draft, &limits, rc, err);
	return refused ? 1 : rc;
}

static void check_image(int image, const char *wanted)
{
	struct nest_err err = NEST_ERR_INIT;
	nest_autodraft struct nest_draft *draft = NULL;
	nest_autoclose int top = draft_check_begin(&limits, &draft);
	char hex[NEST_DIGEST_HEX_LEN];
	int rc = nest_unpack_frames(image, draft, &err);

	check_structure(image);
	if (rc < 0)
		fail(nest_err_text(&err));
	digest(top, hex);
	if (strcmp(hex, wanted) != 0)
		fail("it unpacks to another tree");
	draft_check_end(top, draft, &limits, rc, &err);
}

/* Most fit an image: long enough for a block each; but some are empty or short. */
static size_t size_of(uint8_t byte)
{
	return byte < 8 ? 0 : byte < 12 ? 1000 * byte / 4 : 4096 + 61 * (size_t)byte;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct nest_err why_directory = NEST_ERR_INIT;
	struct nest_err why_image = NEST_ERR_INIT;
	struct nest_buf artifact = NEST_BUF_INIT;
	size_t sizes[SIZES];
	const struct made_cut cut = { .sizes = sizes, .n = SIZES, .skippable = n % 2 };
	char wanted[NEST_DIGEST_HEX_LEN];
	nest_autoclose int image = -1;
	int directory_rc;
	int rc;

	if (n <= SIZES)
		return 0;
	n -= SIZES;
	for (size_t i = 0; i < SIZES; i++)
		sizes[i] = size_of(bytes[n + i]);
	if (sizes[0] == 0)
		sizes[0] = 5000;
	made_frames(bytes, n, &cut, &artifact);
	directory_rc = as_directory(&artifact, wanted, &why_directory);
	rc = as_image(&artifact, &image, &why_image);
	if (rc == 0 && directory_rc == 0)
		check_image(image, wanted);
	else if (rc <= 0 && (rc != directory_rc || strcmp(why_image.text, why_directory.text) != 0))
		fail(rc < 0 ? nest_err_text(&why_image) : "it is none without images");
	nest_buf_done(&artifact);
	return 0;
}
