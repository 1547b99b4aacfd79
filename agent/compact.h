/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_COMPACT_H
#define NEST_AGENT_COMPACT_H

#include <stdbool.h>
#include <stdint.h>

struct nest_buf;

/*
 * Writes JSON without a tree: for texts of thousands of numbers that are made every second. Keys
 * are the caller's constants and need no escapes. Where memory ends the text is cut, and @failed says so.
 */
struct nest_compact {
	struct nest_buf *buf;
	bool comma; /* something stands before, at this level */
	bool failed;
};

/* Opens and closes an object or an array: @bracket is '{' or '[', '}' or ']'. @key NULL: none. */
void nest_compact_open(struct nest_compact *out, const char *key, char bracket);
void nest_compact_close(struct nest_compact *out, char bracket);

/* A number; in nest_compact_count(), left out where it is 0. */
void nest_compact_number(struct nest_compact *out, const char *key, uint64_t n);
void nest_compact_count(struct nest_compact *out, const char *key, uint64_t n);

/* A number that is given in thousandths, and left out where it is 0 and @keep_0 is false. */
void nest_compact_milli(struct nest_compact *out, const char *key, uint64_t milli, bool keep_0);

/* A string, escaped; true; a string without anything to escape. */
void nest_compact_text(struct nest_compact *out, const char *key, const char *text);
void nest_compact_true(struct nest_compact *out, const char *key);
void nest_compact_word(struct nest_compact *out, const char *key, const char *word);

#endif
