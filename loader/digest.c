/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/err.h"

struct nest_digest {
	EVP_MD_CTX *ctx;
};

int nest_digest_new(struct nest_digest **ret, struct nest_err *err)
{
	struct nest_digest *digest = calloc(1, sizeof(*digest));

	if (!digest)
		return nest_err_set(err, -ENOMEM, "start a digest");
	digest->ctx = EVP_MD_CTX_new();
	if (!digest->ctx || EVP_DigestInit_ex(digest->ctx, EVP_sha256(), NULL) != 1) {
		nest_digest_free(digest);
		return nest_err_say(err, -ENOMEM, "start a digest: libcrypto offers no SHA-256");
	}
	*ret = digest;
	return 0;
}

void nest_digest_free(struct nest_digest *digest)
{
	if (!digest)
		return;
	EVP_MD_CTX_free(digest->ctx);
	free(digest);
}

int nest_digest_update(
	struct nest_digest *digest, const void *bytes, size_t n, struct nest_err *err)
{
	if (EVP_DigestUpdate(digest->ctx, bytes, n) != 1)
		return nest_err_say(err, -EIO, "take a digest: libcrypto gave up");
	return 0;
}

int nest_digest_final(
	struct nest_digest *digest, char ret_hex[NEST_DIGEST_HEX_LEN], struct nest_err *err)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char raw[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	if (EVP_DigestFinal_ex(digest->ctx, raw, &n) != 1 || n != (NEST_DIGEST_HEX_LEN - 1) / 2)
		return nest_err_say(err, -EIO, "finish a digest: libcrypto gave up");
	for (unsigned int i = 0; i < n; i++) {
		ret_hex[2 * i] = digits[raw[i] >> 4];
		ret_hex[2 * i + 1] = digits[raw[i] & 15];
	}
	ret_hex[2 * n] = '\0';
	return 0;
}

int nest_digest_check_hex(const char *text)
{
	return strspn(text, "0123456789abcdef") == NEST_DIGEST_HEX_LEN - 1 &&
			       strlen(text) == NEST_DIGEST_HEX_LEN - 1
		       ? 0
		       : -EINVAL;
}
