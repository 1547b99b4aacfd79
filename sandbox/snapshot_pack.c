/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/snapshot_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"

#define SEAL "seal"
#define SEAL_BYTES 32
#define LABEL "nestlet snapshot 1:" /* what else the secret may ever sign begins differently */
#define BLOCK 512u
#define SEND_MOST (1u << 20)

int nest_snapshot_pack_read_secret(
	const char *path, struct nest_snapshot_pack_secret *ret, struct nest_err *err)
{
	nest_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	uint8_t bytes[sizeof(ret->bytes) + 1];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return nest_err_say(err, -EPERM,
			"'%s' must be a file of user %u that nobody else can read (chmod 600)",
			path, geteuid());
	n = read(fd, bytes, sizeof(bytes));
	if (n < 0)
		return nest_err_set(err, -errno, "read '%s'", path);
	if (n < (ssize_t)NEST_SNAPSHOT_PACK_SECRET_MIN || n > (ssize_t)sizeof(ret->bytes))
		return nest_err_say(err, -EINVAL, "'%s' must hold %u to %zu bytes, not %zd", path,
			NEST_SNAPSHOT_PACK_SECRET_MIN, sizeof(ret->bytes), n);
	ret->n = (size_t)n;
	memcpy(ret->bytes, bytes, ret->n);
	explicit_bzero(bytes, sizeof(bytes));
	return 0;
}

static int seal(const struct nest_snapshot_pack_secret *secret, const char *key,
	const void *contents, size_t n, uint8_t ret[SEAL_BYTES], struct nest_err *err)
{
	nest_autofree char *text = NULL;
	unsigned len = SEAL_BYTES;
	char *whole;
	int label = asprintf(&text, LABEL "%s:", key);

	if (label < 0) {
		text = NULL;
		return nest_err_set(err, -ENOMEM, "seal a snapshot");
	}
	whole = realloc(text, (size_t)label + n);
	if (!whole)
		return nest_err_set(err, -ENOMEM, "seal a snapshot");
	text = whole;
	memcpy(text + label, contents, n);
	if (!HMAC(EVP_sha256(), secret->bytes, (int)secret->n, (const unsigned char *)text,
		    (size_t)label + n, ret, &len))
		return nest_err_say(err, -EIO, "seal a snapshot: libcrypto refuses");
	return 0;
}

/* ---- out ---- */

struct header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char sum[8];
	char type;
	char link[100];
	char magic[8]; /* "ustar", NUL, "00" */
	char rest[247];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar's header is one block");

static int write_header(int out, const char *name, uint64_t bytes, struct nest_err *err)
{
	struct header header = { .type = '0' };
	unsigned sum = 0;

	/* eleven octal digits: below 8 GiB */
	if (bytes >> 33)
		return nest_err_say(err, -EFBIG, "'%s' is too big for a tar", name);
	snprintf(header.name, sizeof(header.name), "%s", name);
	memcpy(header.mode, "0000600", 8);
	memcpy(header.uid, "0000000", 8);
	memcpy(header.gid, "0000000", 8);
	snprintf(header.size, sizeof(header.size), "%011llo", (unsigned long long)bytes);
	memcpy(header.mtime, "00000000000", 12);
	memset(header.sum, ' ', sizeof(header.sum));
	memcpy(header.magic, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof(header); i++)
		sum += ((const uint8_t *)&header)[i];
	snprintf(header.sum, sizeof(header.sum), "%06o", sum);
	return nest_fd_write_all(out, &header, sizeof(header), err);
}

static int write_padding(int out, uint64_t bytes, struct nest_err *err)
{
	static const char zeros[BLOCK];
	size_t n = (BLOCK - bytes % BLOCK) % BLOCK;

	return n > 0 ? nest_fd_write_all(out, zeros, n, err) : 0;
}

static int write_bytes(int out, const char *name, const void *bytes, size_t n, struct nest_err *err)
{
	int r = write_header(out, name, n, err);

	if (r == 0)
		r = nest_fd_write_all(out, bytes, n, err);
	return r < 0 ? r : write_padding(out, n, err);
}

static int write_file(int dir, const char *name, uint64_t bytes, int out, struct nest_err *err)
{
	nest_autoclose int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t left = bytes;
	int r;

	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", name);
	r = write_header(out, name, bytes, err);
	if (r < 0)
		return r;
	while (left > 0) {
		ssize_t n = sendfile(out, fd, NULL, left < SEND_MOST ? left : SEND_MOST);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? nest_err_set(err, -errno, "send '%s'", name)
				     : nest_err_say(err, -EBADMSG, "'%s' is too short", name);
		left -= (uint64_t)n;
	}
	return write_padding(out, bytes, err);
}

int nest_snapshot_pack_write(int dir, const char *key,
	const struct nest_snapshot_pack_secret *secret, int out, struct nest_err *err)
{
	static const char end[2 * BLOCK];
	nest_autofree struct nest_snapshot_store_row *rows = NULL;
	nest_autofree char *bytes = NULL;
	struct nest_snapshot_store_contents contents;
	uint8_t sum[SEAL_BYTES];
	size_t n = 0;
	int r = nest_snapshot_store_contents(dir, &contents, &rows, err);

	if (r == 0)
		r = nest_file_read(dir, NEST_SNAPSHOT_STORE_CONTENTS,
			NEST_SNAPSHOT_STORE_CONTENTS_MAX, &bytes, &n, err);
	if (r == 0)
		r = seal(secret, key, bytes, n, sum, err);
	/* first what proves the rest */
	if (r == 0)
		r = write_bytes(out, SEAL, sum, sizeof(sum), err);
	if (r == 0)
		r = write_bytes(out, NEST_SNAPSHOT_STORE_CONTENTS, bytes, n, err);
	for (uint32_t i = 0; r == 0 && i < contents.nrows; i++)
		r = write_file(dir, rows[i].name, rows[i].bytes, out, err);
	return r < 0 ? r : nest_fd_write_all(out, end, sizeof(end), err);
}

/* ---- in ---- */

/* Opens a file that somebody else's hand put there. */
static int open_foreign(int from, const char *name, int *ret, struct nest_err *err)
{
	nest_autoclose int fd =
		openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "open '%s'", name);
	if (!S_ISREG(st.st_mode))
		return nest_err_say(err, -EBADMSG, "'%s' is no file", name);
	*ret = nest_take_fd(fd);
	return 0;
}

static int create(int draft, const char *name, int *ret, struct nest_err *err)
{
	*ret = openat(draft, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *ret < 0 ? nest_err_set(err, -errno, "make '%s'", name) : 0;
}

static int read_contents(int fd, char **ret, size_t *ret_n, struct nest_err *err)
{
	nest_autofree char *bytes = malloc(NEST_SNAPSHOT_STORE_CONTENTS_MAX);
	size_t len = 0;
	ssize_t n = 1;

	if (!bytes)
		return nest_err_set(err, -ENOMEM, "read the contents");
	while (n > 0 && len < NEST_SNAPSHOT_STORE_CONTENTS_MAX) {
		n = read(fd, bytes + len, NEST_SNAPSHOT_STORE_CONTENTS_MAX - len);
		if (n < 0)
			return nest_err_set(err, -errno, "read the contents");
		len += (size_t)n;
	}
	*ret = nest_take_ptr(bytes);
	*ret_n = len;
	return 0;
}

/*
 * The contents are read once, and what is proved is what is kept: @from may change under our
 * hands.
 */
static int take_contents(int from, const char *key, const struct nest_snapshot_pack_secret *secret,
	int draft, struct nest_err *err)
{
	nest_autofree char *bytes = NULL;
	nest_autoclose int in = -1;
	nest_autoclose int out = -1;
	uint8_t claimed[SEAL_BYTES], sum[SEAL_BYTES];
	size_t n = 0;
	int r = open_foreign(from, SEAL, &in, err);

	if (r < 0)
		return r;
	if (read(in, claimed, sizeof(claimed)) != (ssize_t)sizeof(claimed))
		return nest_err_say(err, -EBADMSG, "'" SEAL "' is too short");
	close(nest_take_fd(in));
	r = open_foreign(from, NEST_SNAPSHOT_STORE_CONTENTS, &in, err);
	if (r == 0)
		r = read_contents(in, &bytes, &n, err);
	if (r == 0)
		r = seal(secret, key, bytes, n, sum, err);
	if (r < 0)
		return r;
	if (CRYPTO_memcmp(sum, claimed, sizeof(sum)) != 0)
		return nest_err_say(
			err, -EBADMSG, "it is not sealed for this key with this host's secret");
	r = create(draft, NEST_SNAPSHOT_STORE_CONTENTS, &out, err);
	if (r == 0)
		r = nest_fd_write_all(out, bytes, n, err);
	if (r == 0 && fsync(out) < 0)
		r = nest_err_set(err, -errno, "sync");
	return r;
}

static int check_row(const struct nest_snapshot_store_row *row, struct nest_err *err)
{
	size_t n = strnlen(row->name, sizeof(row->name));

	if (n == 0 || n == sizeof(row->name) || row->name[0] == '.' || memchr(row->name, '/', n))
		return nest_err_say(err, -EBADMSG, "the contents name no file");
	return 0;
}

static int take_file(
	int from, const struct nest_snapshot_store_row *row, int draft, struct nest_err *err)
{
	nest_autoclose int in = -1;
	nest_autoclose int out = -1;
	uint64_t left = row->bytes;
	int r = open_foreign(from, row->name, &in, err);

	if (r == 0)
		r = create(draft, row->name, &out, err);
	while (r == 0 && left > 0) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, left, 0);

		if (n < 0 && errno == EXDEV)
			n = sendfile(out, in, NULL, left < SEND_MOST ? left : SEND_MOST);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? nest_err_set(err, -errno, "copy '%s'", row->name)
				     : nest_err_say(err, -EBADMSG, "'%s' is too short", row->name);
		left -= (uint64_t)n;
	}
	if (r == 0 && fsync(out) < 0)
		r = nest_err_set(err, -errno, "sync '%s'", row->name);
	return r;
}

int nest_snapshot_pack_take(int from, const char *key,
	const struct nest_snapshot_pack_secret *secret, uint64_t max_bytes, int draft,
	struct nest_snapshot_store_contents *ret, struct nest_err *err)
{
	nest_autofree struct nest_snapshot_store_row *rows = NULL;
	uint64_t bytes = 0;
	int r = take_contents(from, key, secret, draft, err);

	if (r == 0)
		r = nest_snapshot_store_contents(draft, ret, &rows, err);
	if (r == 0 && strncmp(ret->key, key, sizeof(ret->key)) != 0)
		r = nest_err_say(err, -EBADMSG, "it was made under another key");
	for (uint32_t i = 0; r == 0 && i < ret->nrows; i++) {
		r = check_row(&rows[i], err);
		if (r == 0 && __builtin_add_overflow(bytes, rows[i].bytes, &bytes))
			r = nest_err_say(err, -EFBIG, "its files are too big");
		if (r == 0 && max_bytes > 0 && bytes > max_bytes)
			r = nest_err_say(err, -EFBIG, "it has more than %llu bytes",
				(unsigned long long)max_bytes);
		if (r == 0)
			r = take_file(from, &rows[i], draft, err);
	}
	/* by the digests of what has been written, not of what was read */
	if (r == 0)
		r = nest_snapshot_store_verify(draft, err);
	if (r == 0 && fsync(draft) < 0)
		r = nest_err_set(err, -errno, "sync the snapshot");
	return r;
}
