/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_DIGEST_H
#define NEST_LOADER_DIGEST_H

#include <stddef.h>

struct nest_err;

/* A SHA-256 that is being taken of bytes that come in pieces. */
struct nest_digest;

#define NEST_DIGEST_HEX_LEN 65 /* 64 digits and a NUL */
#define NEST_DIGEST_PREFIX "sha256:"

/* Starts a digest over no bytes; the caller owns @ret. Any thread. */
int nest_digest_new(struct nest_digest **ret, struct nest_err *err);

/* Gives up or cleans up; NULL is fine. Any thread. */
void nest_digest_free(struct nest_digest *digest);

/* Adds @n bytes. Any thread. */
int nest_digest_update(
	struct nest_digest *digest, const void *bytes, size_t n, struct nest_err *err);

/* Writes the digest in lower-case hexadecimal; only free may follow. Any thread. */
int nest_digest_final(
	struct nest_digest *digest, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err);

/* Whether @text is exactly 64 lower-case hexadecimal digits: 0 or -EINVAL. Any thread. */
int nest_digest_check_hex(const char *text);

static inline void nest_digest_cleanup(struct nest_digest **p)
{
	nest_digest_free(*p);
}
#define nest_autodigest __attribute__((cleanup(nest_digest_cleanup)))

#endif
