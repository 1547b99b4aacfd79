/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

#define FILE_MAX (256 * 1024)

struct reader {
	char *at;
	unsigned line; /* of the last word */
	unsigned next; /* of what follows */
	struct nest_err *err;
};

static void wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

void nest_credentials_done(struct nest_credentials *credentials)
{
	wipe(credentials->token);
	wipe(credentials->login);
	wipe(credentials->password);
	*credentials = (struct nest_credentials){ .token = NULL };
}

/* The next word, cut out of the text; NULL at its end. '#' before a word hides the line's rest. */
static char *next_word(struct reader *reader)
{
	char *word;

	for (;;) {
		reader->at += strspn(reader->at, " \t\r");
		if (*reader->at == '#')
			reader->at += strcspn(reader->at, "\n");
		if (*reader->at != '\n')
			break;
		reader->next++;
		reader->at++;
	}
	if (!*reader->at)
		return NULL;
	word = reader->at;
	reader->line = reader->next;
	reader->at += strcspn(word, " \t\r\n");
	if (*reader->at == '\n')
		reader->next++;
	if (*reader->at)
		*reader->at++ = '\0';
	return word;
}

static bool matches(const char *machine, const char *host, uint16_t port)
{
	char with_port[300];

	snprintf(with_port, sizeof(with_port), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
		(unsigned)port);
	return strcasecmp(machine, host) == 0 || strcasecmp(machine, with_port) == 0;
}

static int take_value(struct reader *reader, const char *key, char **slot)
{
	const char *value = next_word(reader);

	if (!value)
		return nest_err_say(
			reader->err, -EINVAL, "line %u: '%s' without a value", reader->line, key);
	if (!slot)
		return 0;
	wipe(*slot);
	*slot = strdup(value);
	return *slot ? 0 : nest_err_set(reader->err, -ENOMEM, "read credentials");
}

static int check_complete(const struct nest_credentials *found, struct nest_err *err)
{
	if (found->token || (found->login && found->password))
		return 0;
	return nest_err_say(err, -EINVAL,
		"the machine's entry has neither a token nor a login with a password");
}

/* 0 when the first entry for the server was taken, 1 when there is none. */
static int find(
	struct reader *reader, const char *host, uint16_t port, struct nest_credentials *ret)
{
	enum {
		BEFORE,
		OTHER,
		OURS
	} state = BEFORE;
	char *word;
	int rc = 0;

	while (rc == 0 && (word = next_word(reader))) {
		const struct {
			const char *key;
			char **slot;
		} values[] = {
			{ "token", &ret->token },
			{ "login", &ret->login },
			{ "password", &ret->password },
		};
		size_t i = 0;

		if (strcmp(word, "machine") == 0) {
			if (state == OURS)
				break;
			word = next_word(reader);
			if (!word)
				return nest_err_say(reader->err, -EINVAL,
					"line %u: 'machine' without a name", reader->line);
			state = matches(word, host, port) ? OURS : OTHER;
			continue;
		}
		while (i < NEST_ARRAY_SIZE(values) && strcmp(word, values[i].key) != 0)
			i++;
		/* The word itself may be a secret in the wrong place, so it isn't shown. */
		if (i == NEST_ARRAY_SIZE(values) || state == BEFORE)
			return nest_err_say(reader->err, -EINVAL,
				"line %u: expected 'machine', then 'token', or 'login' and "
				"'password'",
				reader->line);
		rc = take_value(reader, values[i].key, state == OURS ? values[i].slot : NULL);
	}
	if (rc < 0)
		return rc;
	return state == OURS ? check_complete(ret, reader->err) : 1;
}

/* Whole, from a file that nobody else may read. */
static int read_private(const char *path, char **ret, struct nest_err *err)
{
	nest_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	nest_autofree char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return nest_err_set(err, -errno, "open it");
	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "look at it");
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return nest_err_say(err, -EINVAL, "it is no file of at most 256 KiB");
	if (st.st_mode & 077)
		return nest_err_say(err, -EPERM,
			"its mode is %04o: others than its owner may use it; chmod it to 0600 or "
			"0400",
			(unsigned)st.st_mode & 07777);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return nest_err_set(err, -ENOMEM, "read it");
	n = read(fd, text, (size_t)st.st_size);
	if (n < 0)
		return nest_err_set(err, -errno, "read it");
	text[n] = '\0';
	*ret = nest_take_ptr(text);
	return 0;
}

int nest_credentials_find(const char *path, const char *host, uint16_t port,
	struct nest_credentials *ret, struct nest_err *err)
{
	struct nest_credentials found = { .token = NULL };
	struct nest_err cause = NEST_ERR_INIT;
	struct reader reader = { .next = 1, .err = &cause };
	char *text = NULL;
	size_t n = 0;
	int rc = read_private(path, &text, &cause);

	if (rc == 0) {
		n = strlen(text);
		reader.at = text;
		rc = find(&reader, host, port, &found);
		explicit_bzero(text, n);
	}
	free(text);
	if (rc == 0) {
		*ret = found;
		return 0;
	}
	nest_credentials_done(&found);
	if (rc < 0) {
		nest_err_wrap(&cause, "credentials file '%s'", path);
		if (err)
			*err = cause;
	}
	return rc;
}
