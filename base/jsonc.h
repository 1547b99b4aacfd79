/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_JSONC_H
#define NEST_BASE_JSONC_H

#include <stddef.h>

#include <cjson/cJSON.h>

struct nest_err;

/*
 * Parses JSON with line and block comments (as nestlet.conf is written): comments become blanks, so
 * that every line number stays true. The caller owns *@ret. -EINVAL with line and column. Any thread.
 */
int nest_jsonc_parse(const char *text, size_t n, cJSON **ret, struct nest_err *err);

/*
 * The line (from 1) on which the value at @path stands in a text that parsed; @path is dotted, with
 * array indices in brackets: "functions[2].memoryMb". 0 when there is none. Any thread.
 */
unsigned nest_jsonc_line_of(const char *text, size_t n, const char *path);

/*
 * The same for the first @max elements of the array at @path, in one walk through the text. How
 * many there were. Any thread.
 */
size_t nest_jsonc_lines_in(
	const char *text, size_t n, const char *path, unsigned *ret_lines, size_t max);

#endif
