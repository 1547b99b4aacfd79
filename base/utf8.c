/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <stdbool.h>

/* What may follow each range of lead bytes: the second byte is the one with exceptions. */
static const struct {
	unsigned char lead_min, lead_max;
	unsigned char len;
	unsigned char second_min, second_max;
} forms[] = {
	{ 0xc2, 0xdf, 2, 0x80, 0xbf },
	{ 0xe0, 0xe0, 3, 0xa0, 0xbf },
	{ 0xe1, 0xec, 3, 0x80, 0xbf },
	{ 0xed, 0xed, 3, 0x80, 0x9f },
	{ 0xee, 0xef, 3, 0x80, 0xbf },
	{ 0xf0, 0xf0, 4, 0x90, 0xbf },
	{ 0xf1, 0xf3, 4, 0x80, 0xbf },
	{ 0xf4, 0xf4, 4, 0x80, 0x8f },
};

static bool is_continuation(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

size_t nest_utf8_char(const char *bytes, size_t n)
{
	const unsigned char *p = (const unsigned char *)bytes;

	if (n == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (p[0] < forms[i].lead_min || p[0] > forms[i].lead_max)
			continue;
		if (n < forms[i].len || p[1] < forms[i].second_min || p[1] > forms[i].second_max)
			return 0;
		for (size_t k = 2; k < forms[i].len; k++) {
			if (!is_continuation(p[k]))
				return 0;
		}
		return forms[i].len;
	}
	return 0;
}

size_t nest_utf8_cut(const char *bytes, size_t n)
{
	size_t start = n;

	while (start > 0 && n - start < 3 && is_continuation((unsigned char)bytes[start - 1]))
		start--;
	if (start == 0)
		return n;
	start--;
	if ((unsigned char)bytes[start] < 0xc2 || (unsigned char)bytes[start] > 0xf4)
		return n;
	return nest_utf8_char(bytes + start, n - start) > 0 ? n : start;
}
