/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/schema.h"

#define COLUMNS 92

static const char head[] = "// Nestlet's configuration, with every key at its default: an empty "
			   "object, {}, means the same.\n"
			   "// Keys marked with * are taken over on SIGHUP (nestctl reload), the "
			   "others by a new start.\n"
			   "// See nestlet.conf(5).\n";

/* Writes @text as comment lines behind @indent, broken between words. */
static void print_comment(FILE *out, const char *indent, const char *text)
{
	while (*text) {
		size_t n = strlen(text);

		if (n > COLUMNS) {
			n = COLUMNS;
			while (n > 0 && text[n] != ' ')
				n--;
		}
		fprintf(out, "%s// %.*s\n", indent, (int)n, text);
		text += n;
		text += *text == ' ';
	}
}

static size_t group_len(const struct nest_schema_key *key)
{
	const char *dot = key ? strchr(key->path, '.') : NULL;

	return dot ? (size_t)(dot - key->path) : 0;
}

static bool same_group(const struct nest_schema_key *a, const struct nest_schema_key *b)
{
	size_t n = group_len(a);

	return n > 0 && n == group_len(b) && strncmp(a->path, b->path, n) == 0;
}

static int print_key(FILE *out, const struct nest_schema_key *before,
	const struct nest_schema_key *key, const struct nest_schema_key *after)
{
	size_t group = group_len(key);
	const char *indent = group ? "\t\t" : "\t";
	struct nest_buf type = NEST_BUF_INIT;
	int rc;

	rc = nest_buf_puts(&type, nest_config_is_reloadable(key->path) ? "* " : "");
	if (rc == 0)
		rc = nest_schema_describe(key, &type);
	if (rc < 0) {
		nest_buf_done(&type);
		return rc;
	}
	if (before)
		fputc('\n', out);
	if (group && !same_group(key, before))
		fprintf(out, "\t\"%.*s\": {\n", (int)group, key->path);
	print_comment(out, indent, key->doc);
	fprintf(out, "%s// %.*s\n", indent, (int)type.len, nest_buf_bytes(&type));
	fprintf(out, "%s\"%s\": %s", indent, key->path + group + (group > 0), key->fallback);
	if (group && !same_group(key, after))
		fputs("\n\t}", out);
	fputs(after ? ",\n" : "\n", out);
	nest_buf_done(&type);
	return 0;
}

int nest_config_print_example(FILE *out)
{
	const struct nest_schema *schema = nest_config_schema();

	fprintf(out, "%s{\n", head);
	for (size_t i = 0; i < schema->n; i++) {
		const struct nest_schema_key *key = &schema->keys[i];
		int rc = print_key(
			out, i > 0 ? key - 1 : NULL, key, i + 1 < schema->n ? key + 1 : NULL);

		if (rc < 0)
			return rc;
	}
	fputs("}\n", out);
	return fflush(out) == 0 && !ferror(out) ? 0 : -EIO;
}
