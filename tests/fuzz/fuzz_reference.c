/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a reference, as headers of an answer, and as the begin of an artifact: what a reference
 * is taken for must hold together, and nothing may be read or written beyond its end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "loader/fetch_impl.h"
#include "loader/reference.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

static void require(int ok)
{
	if (!ok)
		abort();
}

static void try_reference(const char *text)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_reference_parts parts;
	size_t shown = nest_reference_shown(text);

	require(shown <= strlen(text));
	if (nest_reference_parse(text, &parts, &err) < 0) {
		require(err.code == -EINVAL && err.text[0] != '\0');
		return;
	}
	if (parts.kind == NEST_REFERENCE_PATH) {
		require(parts.path[0] == '/' && parts.host[0] == '\0' && parts.port == 0);
		require(strlen(parts.path) <= strlen(text));
		return;
	}
	require(parts.host[0] != '\0' && parts.port != 0 && parts.path[0] == '\0');
	require(!strpbrk(parts.host, "/?#@ \\[]%"));
	(void)nest_reference_is_loopback(&parts);
}

static void try_head(const char *text, size_t n)
{
	struct nest_fetch_head head = { .total = NEST_FETCH_UNKNOWN, .length = NEST_FETCH_UNKNOWN };

	while (n > 0) {
		const char *end = memchr(text, '\n', n);
		size_t len = end ? (size_t)(end - text) : n;

		nest_fetch_head_take(&head, text, len);
		len += end != NULL;
		text += len;
		n -= len;
	}
	require(!head.has_range || head.first <= head.last);
	require(strlen(head.etag) < sizeof(head.etag));
	require(nest_fetch_head_compare(&head, &head, NULL) == 0);
	(void)nest_fetch_head_validator(&head);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n)
{
	char *text = malloc(n + 1);

	if (!text)
		return 0;
	memcpy(text, bytes, n);
	text[n] = '\0';
	try_reference(text);
	try_head((const char *)bytes, n);
	for (int format = NEST_REFERENCE_AUTO; format <= NEST_REFERENCE_EROFS; format++)
		nest_reference_check_format((enum nest_reference_format)format, bytes, n, NULL);
	free(text);
	return 0;
}
