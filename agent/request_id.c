/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/request_id.h"

#include <string.h>
#include <sys/random.h>

#define UUID_BYTES 16u

bool nest_request_id_valid(const char *id, size_t n)
{
	if (n == 0 || n > NEST_REQUEST_ID_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (id[i] < 0x21 || id[i] > 0x7e)
			return false;
	return true;
}

static void refill(struct nest_request_id_source *source)
{
	size_t n = 0;

	/* an initialised pool never fails this; interruptions and short reads only delay it */
	while (n < sizeof(source->bytes)) {
		ssize_t got = getrandom(source->bytes + n, sizeof(source->bytes) - n, 0);

		if (got > 0)
			n += (size_t)got;
	}
	source->left = sizeof(source->bytes);
}

void nest_request_id_make(struct nest_request_id_source *source, char ret_id[37])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char *bytes;
	char *at = ret_id;

	if (source->left < UUID_BYTES)
		refill(source);
	source->left -= UUID_BYTES;
	bytes = source->bytes + source->left;
	bytes[6] = (unsigned char)(0x40 | (bytes[6] & 0x0f));
	bytes[8] = (unsigned char)(0x80 | (bytes[8] & 0x3f));
	for (size_t i = 0; i < UUID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = hex[bytes[i] >> 4];
		*at++ = hex[bytes[i] & 0x0f];
	}
	*at = '\0';
	memset(bytes, 0, UUID_BYTES);
}
