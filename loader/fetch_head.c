/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "loader/fetch_impl.h"

/* Digits at *@text, which moves behind them; NEST_FETCH_UNKNOWN when there are none or too many. */
static uint64_t take_number(const char **text)
{
	uint64_t value = 0;
	const char *p = *text;

	for (; isdigit((unsigned char)*p); p++) {
		if (value > (NEST_FETCH_UNKNOWN - 10) / 10)
			return NEST_FETCH_UNKNOWN;
		value = value * 10 + (uint64_t)(*p - '0');
	}
	if (p == *text)
		return NEST_FETCH_UNKNOWN;
	*text = p;
	return value;
}

/* RFC 9110, 14.4: "bytes first-last/total", "bytes first-last/" "*", "bytes *" "/total". */
static void take_range(struct nest_fetch_head *head, const char *text)
{
	head->has_range = false;
	head->total = NEST_FETCH_UNKNOWN;
	if (strncasecmp(text, "bytes", 5) != 0)
		return;
	text += 5;
	text += strspn(text, " \t");
	head->first = head->last = 0;
	if (*text == '*') {
		text++;
	} else {
		head->first = take_number(&text);
		head->last = *text == '-' ? (text++, take_number(&text)) : NEST_FETCH_UNKNOWN;
		if (head->last == NEST_FETCH_UNKNOWN || head->first > head->last)
			return;
		head->has_range = true;
	}
	if (*text++ == '/')
		head->total = take_number(&text);
}

static void take_text(char *ret, size_t cap, const char *text)
{
	/* A validator that doesn't fit is one that isn't used. */
	if ((size_t)snprintf(ret, cap, "%s", text) >= cap)
		ret[0] = '\0';
}

void nest_fetch_head_take(struct nest_fetch_head *head, const char *line, size_t n)
{
	char text[512];
	char *value;

	if (n >= sizeof(text))
		return;
	memcpy(text, line, n);
	text[n] = '\0';
	value = strchr(text, ':');
	if (!value)
		return;
	*value++ = '\0';
	value += strspn(value, " \t");
	for (char *end = value + strlen(value); end > value && isspace((unsigned char)end[-1]);)
		*--end = '\0';
	if (strcasecmp(text, "etag") == 0)
		take_text(head->etag, sizeof(head->etag), value);
	else if (strcasecmp(text, "last-modified") == 0)
		take_text(head->modified, sizeof(head->modified), value);
	else if (strcasecmp(text, "content-range") == 0)
		take_range(head, value);
	else if (strcasecmp(text, "content-length") == 0)
		head->length = take_number(&(const char *){ value });
}

const char *nest_fetch_head_validator(const struct nest_fetch_head *head)
{
	if (head->etag[0] == '"')
		return head->etag;
	return head->modified[0] ? head->modified : NULL;
}

int nest_fetch_head_compare(const struct nest_fetch_head *first, const struct nest_fetch_head *now,
	struct nest_err *err)
{
	if (strcmp(first->etag, now->etag) != 0)
		return nest_err_say(err, -ESTALE,
			"the file changed on the server while it was downloaded (ETag %s, then %s)",
			first->etag[0] ? first->etag : "none", now->etag[0] ? now->etag : "none");
	if (strcmp(first->modified, now->modified) != 0)
		return nest_err_say(err, -ESTALE,
			"the file changed on the server while it was downloaded (Last-Modified %s, "
			"then %s)",
			first->modified[0] ? first->modified : "none",
			now->modified[0] ? now->modified : "none");
	if (first->total != NEST_FETCH_UNKNOWN && now->total != NEST_FETCH_UNKNOWN &&
		first->total != now->total)
		return nest_err_say(err, -ESTALE,
			"the file changed on the server while it was downloaded (%" PRIu64
			" bytes long, then %" PRIu64 ")",
			first->total, now->total);
	return 0;
}
